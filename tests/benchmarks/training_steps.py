"""A few steps of a method, to be looked at."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.methods import METHODS
from benchmarks.runs.configuration import Run
from benchmarks.runs.steps import gradient_closure
from benchmarks.runs.training import prepare

RUN = Run("", 0, lr=0.05, dataset="digits", model="tiny_cnn", label_noise=0.0)


def run_of(name: str) -> Run:
    knobs = {"rho": 0.1, "penalty": 1e-3, "weight_decay": 5e-4}
    knob = METHODS[name].knob
    return replace(RUN, method=name, **{knob: knobs[knob]})


def steps(run: Run, count: int) -> tuple[nn.Module, int]:
    """The network after some steps on the first batch, and how often it was evaluated."""
    data, model, optimizer = prepare(run)
    objective = METHODS[run.method].objective(model, run)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(count):
        optimizer.step(gradient_closure(model, optimizer, data.train_images[:64], data.train_labels[:64], objective))
    return model, len(passes)


class Bowl(nn.Module):
    """One filter and its bias, with a loss that is quadratic in their four numbers."""

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
        """The four numbers, weights first."""
        return torch.cat([p.detach().flatten() for p in self.parameters()]).as_subclass(Tensor)

    def loss(self) -> Tensor:
        numbers = torch.cat([p.flatten() for p in self.parameters()])
        return numbers @ self.MATRIX @ numbers / 2

    def step(self, name: str, count: int = 1, **options: float) -> Tensor:
        """Where some steps of a method lead."""
        run = replace(RUN, method=name, **{"momentum": 0.0, "weight_decay": 0.0, **options})
        optimizer, objective = METHODS[name].build(self, run), METHODS[name].objective(self, run)

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
