"""A run, which is one model trained once, and what came of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # which brings torch: worker processes shall start at once
    from benchmarks.workloads.problem import Heldout, Workload

__all__ = ["Knob", "Row", "Run"]


@dataclass(frozen=True)
class Run:
    """All that a result depends on, but for the machine and the versions of software.

    Attributes
    ----------
    workload : Workload
        See :mod:`benchmarks.workloads`.
    method : str
        See :data:`benchmarks.methods.METHODS`.
    seed : int
        Decides initial weights, data order and what is drawn or held out, so that methods of a seed are paired.
    lr : float
        Learning rate, before the schedule of the workload.
    epochs : int
        Passes over the training data.
    rho : float
        Radius of an ascent.
    penalty : float
        Weight of a penalty.
    momentum : float
        Of SGD.
    beta : float
        Decay of Adam's first moment.
    weight_decay : float
        Of plain parameters.
    heldout : {"test", "validation"}
        What is scored: test data, or some of the training data, which are not trained on then.
    measures : tuple of str
        What is measured beside the scores: :data:`~benchmarks.runs.measurement.CURVES`, and names of
        :data:`~benchmarks.runs.measurement.MEASURES`.
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

    @property
    def key(self) -> str:
        """Hash of the run, by which its row is found again.

        Fields at their defaults are left out of it, so that rows outlive new fields; the defaults must stay.
        """
        return hashlib.sha256(json.dumps(_chosen(self), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in {**asdict(self), "workload": self.workload}.items())


def _chosen(configuration: Any) -> dict[str, Any]:
    """List the kind of a dataclass and its fields that are not at their defaults."""
    values = {f.name: getattr(configuration, f.name) for f in fields(configuration)}
    defaults = {f.name: f.default for f in fields(configuration) if f.default is not MISSING}
    chosen = {
        n: _chosen(v) if is_dataclass(v) else v for n, v in values.items() if n not in defaults or v != defaults[n]
    }
    return {"kind": type(configuration).__name__, **chosen}


class Knob(Enum):
    """The setting of a run that a method is tuned by beside the learning rate."""

    RHO = "rho"
    PENALTY = "penalty"
    MOMENTUM = "momentum"
    BETA = "beta"
    WEIGHT_DECAY = "weight_decay"

    @property
    def label(self) -> str:
        """Its name in tables."""
        return "beta 1" if self is Knob.BETA else self.value.replace("_", " ")

    def of(self, run: Run) -> float:
        """Read its value in a run."""
        value: float = getattr(run, self.value)
        return value

    def turn(self, run: Run, value: float) -> Run:
        """Set another value of it in a run."""
        return replace(run, **{self.value: value})  # type: ignore[arg-type]  # the knobs are floats


@dataclass(frozen=True)
class Row:
    """What is known about a finished run.

    Attributes
    ----------
    run : Run
        Its configuration.
    diverged : bool
        Whether training ended early, at a loss or a gradient that was not finite.
    scores : dict of str to float
        Scores of the last weights, in evaluation mode; none where they could not be computed.
    curves : dict of str to list of float
        By epoch: ``"loss"``, the mean over the batches as they were trained on; with the measure
        :data:`~benchmarks.runs.measurement.CURVES` the scores too.
    measures : dict of str to float
        What the run asks to be measured; nan of what could not be; none if it diverged.
    violation : float
        How far the worst parameter is off its manifold at the end, in units of what is tolerated
        (:func:`benchmarks.workloads.manifolds.worst_violation`); nan if that is not known.
    gradients : int
        Gradient evaluations of all steps together, of a batch each.
    seconds_per_step : float
        Median over the optimizer's steps, gradients included.
    seconds : float
        All of the run, evaluations and measurements too.
    megabytes : float
        Most memory that the process has held so far, other runs before this one included; nan if not known.
    device, torch_version : str
        Where, and by what.
    """

    run: Run
    diverged: bool
    scores: dict[str, float]
    curves: dict[str, list[float]]
    measures: dict[str, float]
    violation: float
    gradients: int
    seconds_per_step: float
    seconds: float
    megabytes: float
    device: str
    torch_version: str
