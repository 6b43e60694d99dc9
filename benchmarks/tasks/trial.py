"""A trial, which is one model trained once on a task on manifolds, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from benchmarks.runs.configuration import hash_of

__all__ = ["Outcome", "Trial"]


@dataclass(frozen=True)
class Trial:
    """What to train.

    Attributes
    ----------
    task : str
        See :data:`benchmarks.tasks.TASKS`.
    method : str
        See :data:`benchmarks.tasks.methods.METHODS`.
    seed : int
        Decides initial weights, data order, negative samples and what is held out, so that the methods are paired.
    lr, knob : float
        Learning rate, and the one option more that a method is tuned by.
    manifold : str
        Where the parameters live that the task is about; each task has names of its own.
    size : int
        Dimension of an embedding or a feature, or width of a network.
    epochs : int
        Passes over the training data.
    heldout : {"test", "validation"}
        What is scored: test data, or some of the training data instead, which are not trained on then.
    fraction : float
        Of the edges of a hierarchy, how many are held out for the test; 0 to score the edges that are trained on.
    momentum : float
        Of Riemannian SGD under an ascent; alone it is tuned by it.
    curvature : bool
        Measure the curvature around the final weights.
    """

    task: str
    method: str
    seed: int
    lr: float
    knob: float
    manifold: str = ""
    size: int = 0
    epochs: int = 100
    heldout: Literal["test", "validation"] = "test"
    fraction: float = 0.0
    momentum: float = 0.0
    curvature: bool = False

    @property
    def key(self) -> str:
        """Hash of the configuration; fields at their defaults are left out, so that rows outlive new fields."""
        return hash_of(self)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class Outcome:
    """What is known of a finished trial.

    Attributes
    ----------
    run : Trial
        Its configuration.
    diverged : bool
        Whether training ended early, at a loss or a gradient that was not finite.
    scores : dict of str to float
        Those of the task, on what is held out; none if it diverged.
    train_loss : list of float
        Mean over the batches of each epoch, as they were trained on.
    curvature : dict of str to float
        Of the training loss, if the trial asks for it.
    violation : float
        How far the worst parameter is off its manifold at the end, in units of what is tolerated
        (:func:`benchmarks.workloads.manifolds.worst_violation`).
    gradients : int
        Gradient evaluations of all steps together.
    seconds_per_step, seconds : float
        Median over the steps, and all of the trial.
    megabytes : float
        Most memory that the process has held so far, other trials before this one included.
    device, torch_version : str
        Where, and by what.
    """

    run: Trial
    diverged: bool
    scores: dict[str, float]
    train_loss: list[float]
    curvature: dict[str, float]
    violation: float
    gradients: int
    seconds_per_step: float
    seconds: float
    megabytes: float
    device: str
    torch_version: str
