"""Train the networks whose curvature is measured, once, and keep them on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import rsam
from benchmarks.run import Run
from benchmarks.runs.training import prepare, train_model
from benchmarks.studies.quick import quick_run
from benchmarks.workloads.images import as_images

__all__ = ["NETWORKS", "TINY", "batch", "load", "run_of", "train_missing"]

#: Networks of two thousand parameters, on which every measurement is quick.
_TINY_MODELS = {"small_cnn": "tiny_cnn", "small_gelu_cnn": "tiny_gelu_cnn"}


def _with_model(run: Run, model: str) -> Run:
    return replace(run, workload=replace(as_images(run.workload), model=model), measures=())


#: Two methods of the quick benchmark at its learning rates, each with ReLU, as there, and with a smooth activation.
NETWORKS: dict[str, Run] = {
    f"{label}, {activation}": _with_model(quick_run(method, 0), model)
    for label, method in (("plain", "sgd"), ("spheres", "rsam"))
    for activation, model in (("ReLU", "small_cnn"), ("GELU", "small_gelu_cnn"))
}
#: The same networks with two thousand parameters.
TINY: dict[str, Run] = {
    f"tiny {name}": replace(_with_model(run, _TINY_MODELS[as_images(run.workload).model]), epochs=2)
    for name, run in NETWORKS.items()
}
_EXAMPLES = 128


def run_of(name: str) -> Run:
    """Return the run that trains a network, large or tiny."""
    return (NETWORKS | TINY)[name]


def _path(name: str, directory: Path) -> Path:
    return directory / f"network-{run_of(name).key}.pt"


def train_missing(names: Iterable[str], directory: Path) -> None:
    """Train those networks that are not in the directory yet."""
    for name in names:
        path = _path(name, directory)
        if not path.exists():
            _, model = train_model(run_of(name))
            torch.save(model.state_dict(), path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)  # so that no half-written file is left


def load(name: str, directory: Path, dtype: torch.dtype) -> nn.Module:
    """Load a trained network in evaluation mode."""
    model = prepare(run_of(name)).model
    model.load_state_dict(torch.load(_path(name, directory), weights_only=True))
    model = model.to(dtype).eval()
    params = list(model.parameters())
    # points of single precision are off the manifold by more than the rounding of double precision
    for p, x in zip(params, rsam.geometry.Product(params).project_point(params), strict=True):
        p.data = x.detach()
    return model


def batch(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the first training examples of a network, with the labels that it was trained on."""
    run = run_of(name)
    data = as_images(run.workload).data(run.seed)
    return data.train_images[:_EXAMPLES].to(dtype), data.train_labels[:_EXAMPLES]
