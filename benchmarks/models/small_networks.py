"""Small convolutional networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn


def strided_cnn(
    channels: int,
    classes: int,
    *,
    widths: tuple[int, ...],
    activation: Callable[[], nn.Module] = nn.ReLU,
    batch_norm: bool = True,
) -> nn.Module:
    """Three strided convolutions, and a linear head on all that they see.

    Parameters
    ----------
    channels : int
        Channels of an image.
    classes : int
        Number of logits.
    widths : tuple of int
        Filters of each convolution.
    activation : callable
        Makes the nonlinearity.
    batch_norm : bool
        Before each nonlinearity.

    Returns
    -------
    torch.nn.Module
        Takes images ``(n, channels, 28, 28)``.
    """
    layers: list[nn.Module] = []
    for inside, out in zip((channels, *widths), widths, strict=False):
        # with batch norm no bias, which it would subtract
        layers.append(nn.Conv2d(inside, out, 3, stride=2, padding=1, bias=not batch_norm))
        layers += [nn.BatchNorm2d(out)] if batch_norm else []
        layers.append(activation())
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 4 * 4, classes))


def pooled_cnn(channels: int, classes: int) -> nn.Module:
    """Three convolutions with batch norm and max-pooling, and a linear head; 83 thousand parameters."""
    layers: list[nn.Module] = []
    for inside, out in ((channels, 32), (32, 64), (64, 96)):
        layers += [nn.Conv2d(inside, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 3 * 3, classes))


#: 19 thousand parameters.
small_cnn = partial(strided_cnn, widths=(16, 32, 32))
#: The same without kinks.
small_gelu_cnn = partial(strided_cnn, widths=(16, 32, 32), activation=nn.GELU)
#: 90 thousand parameters.
wide_cnn = partial(strided_cnn, widths=(32, 64, 96))
#: The same without batch norm.
wide_plain_cnn = partial(strided_cnn, widths=(32, 64, 96), batch_norm=False)
