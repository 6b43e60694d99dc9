"""Images, classified by residual networks with and without batch norm and skip connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from benchmarks.data import Dataset, load
from benchmarks.machine import device
from benchmarks.workloads.images import score
from benchmarks.workloads.networks.resnets import CifarResNet
from benchmarks.workloads.problem import Heldout, Problem, Workload
from benchmarks.workloads.subsets import Sets, ordered, subset

__all__ = ["Residual", "as_residual", "initialise"]


@dataclass(frozen=True)
class Residual:
    """A data set and a residual network, whole or without some of its parts.

    Attributes
    ----------
    dataset : str
        See :mod:`benchmarks.data`.
    examples : int
        How many training examples there are, the same ones for all seeds; as many others are for validation.
    depth, batch_norm, skip, width, stride
        See :class:`~benchmarks.workloads.networks.resnets.CifarResNet`.
    batch_size : int
        An epoch drops its last batch if that is smaller.
    """

    dataset: str
    examples: int
    depth: int
    batch_norm: bool
    skip: bool
    width: int
    stride: int = 1
    batch_size: int = 128

    def load(self) -> Dataset:
        """Load the data set."""
        return load(self.dataset)

    def sets(self) -> Sets:
        """Load what is trained on, test data, and examples for validation."""
        return subset(self.dataset, self.examples)

    def data(self, heldout: Heldout) -> Dataset:
        """Load what is trained on and what is held out."""
        sets = self.sets()
        return sets.data if heldout == "test" else sets.validation

    def network(self, seed: int) -> CifarResNet:
        """Initialise a network on the device by :func:`initialise`."""
        data = self.sets().data
        network = CifarResNet(
            data.shape,
            data.classes,
            depth=self.depth,
            batch_norm=self.batch_norm,
            skip=self.skip,
            width=self.width,
            stride=self.stride,
        )
        initialise(network, seed)
        return network.to(device())

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Prepare network and batches of a seed."""
        data, model = self.data(heldout), self.network(seed)
        batches, steps = ordered(data, self.batch_size, seed)
        measured = data.train_images, data.train_labels
        return Problem(model, nn.CrossEntropyLoss(), batches, steps, lambda: score(model, data), measured)


def as_residual(workload: Workload) -> Residual:
    """Return a workload that is known to be one of residual networks."""
    assert isinstance(workload, Residual)
    return workload


@torch.no_grad()
def initialise(network: nn.Module, seed: int) -> None:
    """Draw kernels and head as He et al. (2015) do, and set biases to zero, whatever else the network has.

    Networks of one seed and one shape start from the same weights, with and without batch norm and shortcuts; batch
    norm starts with scale 1 and shift 0. No branch is scaled down.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            kind: Literal["relu", "linear"] = "relu" if isinstance(module, nn.Conv2d) else "linear"
            nn.init.kaiming_normal_(module.weight, nonlinearity=kind, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
