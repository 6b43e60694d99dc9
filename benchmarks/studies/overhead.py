"""What a step costs beyond its two gradient evaluations."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import trange

from benchmarks.report.table import markdown_table
from benchmarks.runs.configuration import Run
from benchmarks.runs.training import gradient_closure, prepare

LIMIT = 1.15


@dataclass(frozen=True)
class Contender:
    """A SAM-like method beside its base optimizer, each with a network of its own.

    Attributes
    ----------
    label : str
        For the table.
    gradient : callable
        Evaluates the gradients of the base optimizer's network.
    base_step : callable
        Steps the base optimizer with the gradients that are there.
    sam_step : callable
        Takes a whole step of the SAM-like optimizer: both gradient evaluations and the base step in it.
    """

    label: str
    gradient: Callable[[], object]
    base_step: Callable[[], object]
    sam_step: Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Median seconds of each part of a contender, and the median ratio of a step to the sum of its parts."""

    gradient: float
    base_step: float
    sam_step: float
    ratio: float


def contenders() -> list[Contender]:
    """RSAM on spheres, RSAM on plain weights and, if it is installed, ``pytorch_optimizer.SAM`` on these."""
    found = [_ours("RSAM, spheres", "rsam", "riemannian_sgd"), _ours("RSAM, plain weights", "sam", "sgd")]
    return [*found, _peer()] if find_spec("pytorch_optimizer") else found


# so small a learning rate that each step does the same as the last
_RUN = Run("sgd", seed=0, lr=1e-4, rho=0.05)


def _prepare(method: str) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], Tensor]]:
    """Network, optimizer and closure over the first batch."""
    data, model, optimizer = prepare(replace(_RUN, method=method))
    batch = slice(_RUN.batch_size)
    return model, optimizer, gradient_closure(model, optimizer, data.train_images[batch], data.train_labels[batch])


def _ours(label: str, method: str, base: str) -> Contender:
    _, optimizer, closure = _prepare(method)
    _, base_optimizer, gradient = _prepare(base)
    return Contender(label, gradient, base_optimizer.step, lambda: optimizer.step(closure))  # type: ignore[arg-type]


def _peer() -> Contender:
    from pytorch_optimizer import SAM

    _, base_optimizer, gradient = _prepare("sgd")
    model, _, closure = _prepare("sgd")
    optimizer = SAM(
        model.parameters(),
        torch.optim.SGD,
        rho=_RUN.rho,
        lr=_RUN.lr,
        momentum=_RUN.momentum,
        weight_decay=_RUN.weight_decay,
    )

    def step() -> None:
        closure()  # it wants the first gradients to be there
        optimizer.step(closure)  # type: ignore[arg-type]

    return Contender("pytorch_optimizer.SAM, plain weights", gradient, base_optimizer.step, step)


def measure(contender: Contender, times: list[tuple[float, float, float]]) -> None:
    """Time each part once."""
    parts = []
    for part in (contender.gradient, contender.base_step, contender.sam_step):
        start = time.perf_counter()
        part()
        parts.append(time.perf_counter() - start)
    times.append((parts[0], parts[1], parts[2]))


def summarise(times: list[tuple[float, float, float]]) -> Timing:
    """Medians; the ratio is formed within each repeat, so that a slow moment of the machine cancels."""
    gradient, base, sam = (statistics.median(part) for part in zip(*times, strict=True))
    return Timing(gradient, base, sam, statistics.median(s / (2 * g + b) for g, b, s in times))


@dataclass(frozen=True)
class OverheadStudy:
    """Times steps on one thread; each call measures anew.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    repeats : int
        How often each part is timed.
    warm_up : int
        How often before that, without looking.
    """

    name: str
    summary: str
    repeats: int = 300
    warm_up: int = 20

    def run(self, directory: Path, jobs: int) -> str:
        """Measure, by one process whatever ``jobs`` says, and write the table."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            timings = self._timings()
        finally:
            torch.set_num_threads(threads)
        table = markdown_table(
            ("method", "gradient, ms", "base step, ms", "whole step, ms", "ratio"),
            [
                (
                    label,
                    f"{1e3 * t.gradient:.2f}",
                    f"{1e3 * t.base_step:.2f}",
                    f"{1e3 * t.sam_step:.2f}",
                    f"{t.ratio:.3f}",
                )
                for label, t in timings.items()
            ],
        )
        worst = max(t.ratio for label, t in timings.items() if label.startswith("RSAM"))
        text = (
            f"Medians of {self.repeats} interleaved repeats on one thread, small_cnn, batch 64.\n"
            "ratio = whole step / (two gradients + base step)\n\n"
            f"{table}\n\nRSAM's ratio is {'' if worst <= LIMIT else 'NOT '}at most {LIMIT}."
        )
        if not find_spec("pytorch_optimizer"):
            text += "\nFor a comparison with pytorch_optimizer.SAM: pip install pytorch_optimizer"
        path = directory / "table.md"
        path.write_text(text + "\n", encoding="utf-8")
        return f"{text}\n\ntable:   {path}"

    def _timings(self) -> dict[str, Timing]:
        measured: list[tuple[Contender, list[tuple[float, float, float]]]] = [
            (contender, []) for contender in contenders()
        ]
        for i in trange(self.warm_up + self.repeats, unit="repeat", file=sys.stderr):
            for contender, times in measured:
                measure(contender, times)
                if i < self.warm_up:
                    times.clear()
        return {contender.label: summarise(times) for contender, times in measured}


OVERHEAD = OverheadStudy(
    name="overhead", summary="what an RSAM step costs beyond two gradients and the base step; half a minute"
)
