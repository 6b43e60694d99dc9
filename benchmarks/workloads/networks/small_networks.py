"""Build small convolutional networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from torch import nn

#: Shape of an example: channels, height and width of an image, or channels and length of a signal.
Shape = tuple[int, ...]


def strided_cnn(
    shape: Shape,
    classes: int,
    *,
    widths: tuple[int, ...],
    activation: Callable[[], nn.Module] = nn.ReLU,
    batch_norm: bool = True,
) -> nn.Module:
    """Build strided convolutions with a linear head on all their outputs.

    Parameters
    ----------
    shape : tuple of int
        Shape of one example: ``(channels, height, width)`` for images, ``(channels, length)`` for signals.
    classes : int
        Number of logits.
    widths : tuple of int
        Number of filters of each convolution.
    activation : callable
        Class of the activation.
    batch_norm : bool
        Normalise before each activation.

    Returns
    -------
    torch.nn.Module
        Takes examples ``(n, *shape)``.
    """
    channels, *sides = shape
    convolution, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[len(sides)]
    layers: list[nn.Module] = []
    for inside, out in zip((channels, *widths), widths, strict=False):
        # no bias before batch norm, which would subtract it
        layers.append(convolution(inside, out, 3, stride=2, padding=1, bias=not batch_norm))
        layers += [norm(out)] if batch_norm else []
        layers.append(activation())
        sides = [(side + 1) // 2 for side in sides]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * prod(sides), classes))


def pooled_cnn(shape: Shape, classes: int) -> nn.Module:
    """Build three convolutions with batch norm and max-pooling, and a linear head; 83 thousand parameters."""
    channels, height, width = shape
    layers: list[nn.Module] = []
    for inside, out in ((channels, 32), (32, 64), (64, 96)):
        layers += [nn.Conv2d(inside, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * (height // 8) * (width // 8), classes))


#: Network of 19 thousand parameters for images of 28 by 28.
small_cnn = partial(strided_cnn, widths=(16, 32, 32))
#: ``small_cnn`` without batch norm.
small_plain_cnn = partial(strided_cnn, widths=(16, 32, 32), batch_norm=False)
#: ``small_cnn`` with a smooth activation.
small_gelu_cnn = partial(strided_cnn, widths=(16, 32, 32), activation=nn.GELU)
#: Network of two thousand parameters.
tiny_cnn = partial(strided_cnn, widths=(4, 8, 8))
#: ``tiny_cnn`` with a smooth activation.
tiny_gelu_cnn = partial(strided_cnn, widths=(4, 8, 8), activation=nn.GELU)
#: Network of 90 thousand parameters.
wide_cnn = partial(strided_cnn, widths=(32, 64, 96))
#: ``wide_cnn`` without batch norm.
wide_plain_cnn = partial(strided_cnn, widths=(32, 64, 96), batch_norm=False)
#: Network for signals: widths of that of MNIST-1D's authors (Greydanus and Kobak 2024), with kernels of 3.
cnn_1d = partial(strided_cnn, widths=(25, 25, 25))
#: ``cnn_1d`` without batch norm, as theirs.
plain_cnn_1d = partial(strided_cnn, widths=(25, 25, 25), batch_norm=False)
