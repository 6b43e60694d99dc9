"""Make the networks, the batch and the operators whose curvature is measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import rsam
from benchmarks.data import DATASETS
from benchmarks.workloads.networks import MODELS

__all__ = ["BATCH", "batch", "hessian", "network", "pyhessian_operator"]

BATCH = 128


def batch() -> tuple[Tensor, Tensor]:
    """Return the first training images, with their labels."""
    data = DATASETS["fashion_mnist_mini"]()
    return data.train_images[:BATCH], data.train_labels[:BATCH]


def network(name: str) -> nn.Module:
    """Initialise a network."""
    torch.manual_seed(0)
    return MODELS[name]((1, 28, 28), 10)


def hessian(model: nn.Module, data: Any) -> rsam.curvature.RiemannianHessian:
    """Make the operator of a network's cross entropy on data."""
    return rsam.curvature.RiemannianHessian(model, nn.CrossEntropyLoss(), model.parameters(), data)


def pyhessian_operator(model: nn.Module, **data: Any) -> Any:
    """Make PyHessian's operator, on ``data`` or on a ``dataloader``."""
    import pyhessian

    return pyhessian.hessian(model, nn.CrossEntropyLoss(), cuda=False, **data)
