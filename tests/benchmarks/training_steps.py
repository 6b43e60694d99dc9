"""Take a few steps of a method, for tests to examine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import rsam
from benchmarks.data import Dataset
from benchmarks.methods import METHODS
from benchmarks.run import Knob, Run
from benchmarks.runs.steps import gradient_closure
from benchmarks.runs.training import prepare
from benchmarks.studies.images.contestants import CONTESTANTS
from benchmarks.workloads.images import Images

RUN = Run(Images("digits", "tiny_cnn", label_noise=0.0), "sgd", 0, lr=0.05, epochs=1, weight_decay=5e-4)
KNOBS = {Knob.RHO: 0.1, Knob.PENALTY: 1e-3, Knob.WEIGHT_DECAY: 5e-4}


def on(run: Run, **workload: object) -> Run:
    """Return the run on another workload."""
    return replace(run, workload=replace(run.workload, **workload))  # type: ignore[type-var]


def run_of(name: str, run: Run = RUN) -> Run:
    """Describe a small run of a contestant of the comparison."""
    contestant = CONTESTANTS[name]
    knob = contestant.grid.knob
    return knob.turn(replace(on(run, kernels=contestant.kernels), method=contestant.method), KNOBS[knob])


def prepared(run: Run) -> tuple[Dataset, nn.Module, Any]:
    """Return data, initial network and optimizer."""
    assert isinstance(run.workload, Images)
    model = prepare(run).model
    return run.workload.data(run.seed, run.heldout), model, METHODS[run.method].build(model, run)


def steps(run: Run, count: int) -> tuple[nn.Module, int]:
    """Return the network after some steps on the first batch, and its number of evaluations."""
    data, model, optimizer = prepared(run)
    objective = METHODS[run.method].objective(model, run)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(count):
        optimizer.step(gradient_closure(model, optimizer, data.train_images[:64], data.train_labels[:64], objective))
    return model, len(passes)


class Bowl(nn.Module):
    """Network of one filter with a bias, and a loss that is quadratic in their four numbers."""

    MATRIX = torch.tensor(
        [[3.0, 0.5, -0.4, 0.7], [0.5, 1.0, 0.3, -0.2], [-0.4, 0.3, 2.0, 0.6], [0.7, -0.2, 0.6, 1.5]]
    ).double()

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(1, 1, 3).double()
        with torch.no_grad():
            self.filter.weight.copy_(torch.tensor([[[2.0, -2.0, 1.0]]]).double() / 3)  # on the sphere already
            self.filter.bias.fill_(0.8)

    def position(self) -> Tensor:
        """Return the four numbers, weights first."""
        return torch.cat([p.detach().flatten() for p in self.parameters()]).as_subclass(Tensor)

    def loss(self) -> Tensor:
        numbers = torch.cat([p.flatten() for p in self.parameters()])
        return numbers @ self.MATRIX @ numbers / 2

    def step(self, name: str, count: int = 1, **options: float) -> Tensor:
        """Return the four numbers after some steps of a method."""
        run = replace(run_of(name), **{"rho": 0.0, "momentum": 0.0, "weight_decay": 0.0, **options})
        if CONTESTANTS[name].kernels == "spheres":
            rsam.nn.constrain(self, rsam.geometry.KernelSphere(), nn.Conv1d)
        optimizer, objective = METHODS[run.method].build(self, run), METHODS[run.method].objective(self, run)

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = objective(self.loss)
            value.backward()
            return value

        for _ in range(count):
            optimizer.step(closure)
        return self.position()


# closed forms and steps both round in double precision
EXACT = {"rtol": 0.0, "atol": 1e-12}
