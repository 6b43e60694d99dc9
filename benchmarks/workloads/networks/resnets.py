"""Build residual networks for CIFAR, and torchvision's ResNet-18."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu

from benchmarks.workloads.networks.small_networks import Shape


class _Block(nn.Module):
    """Two convolutions, with or without a shortcut that has no parameters (option A of He et al. 2016, Sec. 4.2)."""

    def __init__(self, inside: int, out: int, stride: int, batch_norm: bool, skip: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, out, 3, stride, 1, bias=not batch_norm)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=not batch_norm)
        self.first_norm = nn.BatchNorm2d(out) if batch_norm else nn.Identity()
        self.second_norm = nn.BatchNorm2d(out) if batch_norm else nn.Identity()
        self.stride, self.more, self.skip = stride, out - inside, skip

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second_norm(self.second(relu(self.first_norm(self.first(x)))))
        if not self.skip:
            return relu(inner)
        short = x[:, :, :: self.stride, :: self.stride]
        return relu(inner + pad(short, (0, 0, 0, 0, 0, self.more)))


class CifarResNet(nn.Module):
    """Residual network with ``6 n + 2`` layers for small images (He et al. 2016, Sec. 4.2).

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width of an image.
    classes : int
        Number of logits.
    depth : int
        Number of layers: 8, 14, 20 and so on in steps of six.
    batch_norm : bool
        After each convolution. Without it, where there are shortcuts, the second convolution of each block starts at a
        tenth of its usual size, or the sums of many blocks would be too large.
    skip : bool
        Whether blocks have shortcuts; without them the layers form a chain.
    width : int
        Filters of the first third of the layers; the second third has twice, the last four times as many.
    stride : int
        Of the first convolution.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        depth: int,
        batch_norm: bool = True,
        skip: bool = True,
        width: int = 16,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if depth % 6 != 2:
            raise ValueError(f"depth must be 6 n + 2, got {depth}")
        self.stem = nn.Conv2d(shape[0], width, 3, stride, 1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        widths = [factor * width for factor in (1, 2, 4) for _ in range(depth // 6)]
        blocks = [
            _Block(inside, out, 1 if inside == out else 2, batch_norm, skip)
            for inside, out in zip([width, *widths], widths, strict=False)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(4 * width, classes)
        if skip and not batch_norm:
            with torch.no_grad():
                for block in blocks:
                    block.second.weight.mul_(0.1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(relu(self.norm(self.stem(images))))
        return self.head(avg_pool2d(x, x.shape[2:]).flatten(1))


def resnet18(shape: Shape, classes: int) -> nn.Module:
    """Build torchvision's ResNet-18; for images below 64 by 64, with a first convolution of 3 by 3 and no pooling."""
    import torchvision  # here, since it is slow to import and most workers do not need it

    network = torchvision.models.resnet18(num_classes=classes)
    if min(shape[1:]) < 64:
        network.conv1 = nn.Conv2d(shape[0], 64, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    elif shape[0] != 3:
        network.conv1 = nn.Conv2d(shape[0], 64, 7, 2, 3, bias=False)
    return network


resnet8 = partial(CifarResNet, depth=8)
resnet20 = partial(CifarResNet, depth=20)
plain_resnet8 = partial(CifarResNet, depth=8, batch_norm=False)
plain_resnet20 = partial(CifarResNet, depth=20, batch_norm=False)
