"""Augment images by shifts and reflections, and signals by shifts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["shift", "shift_and_mirror"]


def shift_and_mirror(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Shift each image by up to an eighth of its width either way, filling with zeros, and mirror half of them.

    Parameters
    ----------
    images : Tensor
        Shape ``(n, channels, height, width)``.
    generator : numpy.random.Generator
        Source of shifts and reflections; on the CPU, so that they are the same on every device.

    Returns
    -------
    Tensor
        New images of the same shape.
    """
    count, _, height, width = images.shape
    reach = width // 8
    rows, columns = (
        torch.from_numpy(generator.integers(0, 2 * reach + 1, count)[:, None] + np.arange(size))
        for size in (height, width)
    )
    columns = torch.where(torch.from_numpy(generator.integers(0, 2, count) == 1)[:, None], columns.flip(1), columns)
    padded = pad(images, (reach,) * 4)
    of_image = torch.arange(count)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[
        of_image.to(images.device), rows[:, :, None].to(images.device), columns[:, None, :].to(images.device)
    ]
    return picked.permute(0, 3, 1, 2)


def shift(signals: Tensor, generator: np.random.Generator) -> Tensor:
    """Shift each signal by up to an eighth of its length either way, filling with zeros.

    Parameters
    ----------
    signals : Tensor
        Shape ``(n, channels, length)``.
    generator : numpy.random.Generator
        Source of shifts; on the CPU, so that they are the same on every device.

    Returns
    -------
    Tensor
        New signals of the same shape.
    """
    count, channels, length = signals.shape
    reach = length // 8
    starts = torch.from_numpy(generator.integers(0, 2 * reach + 1, count))
    picked = (starts[:, None] + torch.arange(length))[:, None].expand(count, channels, length)
    return pad(signals, (reach, reach)).gather(2, picked.to(signals.device))
