"""The networks whose curvature is measured: trained once, kept on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import rsam
from benchmarks.data import load as load_data
from benchmarks.data.label_noise import with_label_noise
from benchmarks.runs.configuration import Run
from benchmarks.runs.training import prepare, train_model
from benchmarks.studies.quick import TUNED

__all__ = ["LITTLE", "NETWORKS", "batch", "load", "run_of", "train_missing"]

#: Networks of two thousand parameters, on which all is quick.
_LITTLE = {"small_cnn": "tiny_cnn", "small_gelu_cnn": "tiny_gelu_cnn"}

#: Two methods of the quick benchmark at its learning rates, each with ReLU, as there, and without kinks.
NETWORKS: dict[str, Run] = {
    f"{label}, {activation}": Run(method, seed=0, lr=TUNED[method][0], rho=TUNED[method][1], model=model)
    for label, method in (("plain", "sgd"), ("spheres", "rsam"))
    for activation, model in (("ReLU", "small_cnn"), ("GELU", "small_gelu_cnn"))
}
#: The same in little.
LITTLE: dict[str, Run] = {
    f"tiny {name}": replace(run, model=_LITTLE[run.model], epochs=2) for name, run in NETWORKS.items()
}
_EXAMPLES = 128


def run_of(name: str) -> Run:
    """How a network of either kind is trained."""
    return (NETWORKS | LITTLE)[name]


def _path(name: str, directory: Path) -> Path:
    return directory / f"network-{run_of(name).key}.pt"


def train_missing(names: Iterable[str], directory: Path) -> None:
    """Train the networks that are not in the directory yet."""
    for name in names:
        path = _path(name, directory)
        if not path.exists():
            _, model = train_model(run_of(name))
            torch.save(model.state_dict(), path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)  # whole or not at all


def load(name: str, directory: Path, dtype: torch.dtype) -> nn.Module:
    """A trained network in evaluation mode."""
    _, model, _ = prepare(run_of(name))
    model.load_state_dict(torch.load(_path(name, directory), weights_only=True))
    model = model.to(dtype).eval()
    params = list(model.parameters())
    # single precision is off the manifold by what double precision resolves
    for p, x in zip(params, rsam.geometry.Product(params).project_point(params), strict=True):
        p.data = x.detach()
    return model


def batch(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The first training examples of a network, labels as trained on."""
    run = run_of(name)
    data = with_label_noise(load_data(run.dataset), run.label_noise, run.seed)
    return data.train_images[:_EXAMPLES].to(dtype), data.train_labels[:_EXAMPLES]
