"""A small convolutional network with batch norm."""

from torch import nn


def small_cnn(channels: int, classes: int) -> nn.Module:
    """Three strided convolutions of 16, 32 and 32 filters with batch norm, and a linear head on what they see.

    Parameters
    ----------
    channels : int
        Channels of an image.
    classes : int
        Number of logits.

    Returns
    -------
    torch.nn.Module
        Takes images ``(n, channels, 28, 28)``.
    """
    layers: list[nn.Module] = []
    for inside, out in ((channels, 16), (16, 32), (32, 32)):
        # no bias: batch norm would subtract it
        layers += [nn.Conv2d(inside, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, classes))
