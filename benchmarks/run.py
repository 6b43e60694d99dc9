"""Describe a run, which trains one model once, and its row of results."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imports torch, without which worker processes start fast
    from benchmarks.workloads.problem import Heldout, Workload

__all__ = ["Knob", "Row", "Run"]


@dataclass(frozen=True)
class Run:
    """Configuration of a run: all that its result depends on, except the machine and the versions of software.

    Attributes
    ----------
    workload : Workload
        See :mod:`benchmarks.workloads`.
    method : str
        See :data:`benchmarks.methods.METHODS`.
    seed : int
        Decides initial weights, data order, random draws and the held-out data, so that methods are paired by seed.
    lr : float
        Learning rate, before the schedule of the workload.
    epochs : int
        Passes over the training data.
    rho : float
        Radius of an ascent.
    penalty : float
        Weight of a penalty.
    momentum : float
        Momentum of SGD.
    beta : float
        Decay of Adam's first moment.
    weight_decay : float
        Decay of plain parameters.
    heldout : {"test", "validation"}
        The data to score on: the test data, or a part of the training data that is then not trained on.
    measures : tuple of str
        Measurements beside the scores: :data:`~benchmarks.runs.measurement.CURVES` or
        :data:`~benchmarks.runs.measurement.FIFTHS`, and names of :data:`~benchmarks.runs.measurement.MEASURES`.
    kernel_rate : float
        Factor of the learning rate of constrained parameters.
    part : float
        Part of each batch, from its beginning, that an ascent is computed from.
    every : int
        Ascend in every so many steps.
    late : float
        Part of the epochs that pass before the first ascent.
    """

    workload: Workload
    method: str
    seed: int
    lr: float
    epochs: int
    rho: float = 0.0
    penalty: float = 0.0
    momentum: float = 0.9
    beta: float = 0.9
    weight_decay: float = 0.0
    heldout: Heldout = "test"
    measures: tuple[str, ...] = ()
    kernel_rate: float = 1.0
    part: float = 1.0
    every: int = 1
    late: float = 0.0

    @functools.cached_property
    def key(self) -> str:
        """Hash of the run, the key of its row.

        The hash leaves out fields at their defaults, so that old rows keep their keys when fields are added; defaults
        must never change.
        """
        return hashlib.sha256(json.dumps(_chosen(self), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in {**asdict(self), "workload": self.workload}.items())


def _chosen(configuration: Any) -> dict[str, Any]:
    """List a dataclass's type and its fields that differ from their defaults."""
    values = {f.name: getattr(configuration, f.name) for f in fields(configuration)}
    defaults = {f.name: f.default for f in fields(configuration) if f.default is not MISSING}
    chosen = {
        n: _chosen(v) if is_dataclass(v) else v for n, v in values.items() if n not in defaults or v != defaults[n]
    }
    return {"kind": type(configuration).__name__, **chosen}


class Knob(Enum):
    """Setting of a run that is tuned."""

    LR = "lr"
    RHO = "rho"
    PENALTY = "penalty"
    MOMENTUM = "momentum"
    BETA = "beta"
    WEIGHT_DECAY = "weight_decay"
    KERNEL_RATE = "kernel_rate"

    @property
    def label(self) -> str:
        """Name of the knob in tables."""
        return "beta 1" if self is Knob.BETA else self.value.replace("_", " ")

    def of(self, run: Run) -> float:
        """Return the knob's value in a run."""
        value: float = getattr(run, self.value)
        return value

    def turn(self, run: Run, value: float) -> Run:
        """Return the run with another value of the knob."""
        return replace(run, **{self.value: value})  # type: ignore[arg-type]  # the knobs are floats


@dataclass(frozen=True)
class Row:
    """Results of a finished run.

    Attributes
    ----------
    run : Run
        Its configuration.
    diverged : bool
        Whether training ended early, at a loss or a gradient that was not finite.
    scores : dict of str to float
        Scores of the last weights, in evaluation mode; without those that could not be computed.
    curves : dict of str to list of float
        Values by epoch: ``"loss"``, the mean over the batches during training; with the measures
        :data:`~benchmarks.runs.measurement.CURVES` and :data:`~benchmarks.runs.measurement.FIFTHS` the scores too.
    measures : dict of str to float
        The run's measurements; nan where one failed; empty if the run diverged.
    violation : float
        Distance of the worst parameter from its manifold at the end, in units of the tolerance
        (:func:`benchmarks.workloads.manifolds.worst_violation`); nan if it is not known.
    gradients : float
        Gradient evaluations in all, counted: examples whose loss was differentiated, in units of a batch.
    seconds_per_step : float
        Median over the optimizer's steps, gradients included.
    seconds : float
        Duration of the whole run, evaluations and measurements included.
    megabytes : float
        Peak memory of the process so far, earlier runs in it included; nan if not known.
    device, torch_version : str
        Device that the run was on, and version of torch.
    """

    run: Run
    diverged: bool
    scores: dict[str, float]
    curves: dict[str, list[float]]
    measures: dict[str, float]
    violation: float
    gradients: float
    seconds_per_step: float
    seconds: float
    megabytes: float
    device: str
    torch_version: str
