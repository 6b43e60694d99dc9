"""The configuration of a run: all that its result depends on, but for the machine and the versions of software."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal


def hash_of(configuration: Any) -> str:
    """Hash of a dataclass, without its fields at their defaults."""
    defaults = {field.name: field.default for field in fields(configuration) if field.default is not MISSING}
    chosen = {
        name: value for name, value in asdict(configuration).items() if name not in defaults or value != defaults[name]
    }
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Run:
    """One network trained once.

    Attributes
    ----------
    method : str
        See :mod:`benchmarks.methods`.
    seed : int
        Decides initial weights, data order, augmentation, wrong labels and the validation split, so that the methods
        are paired.
    lr : float
        Learning rate at first; it falls to 0 along a cosine.
    rho : float
        Radius of SAM-like methods; 0 for the others.
    dataset, model : str
        See :mod:`benchmarks.data` and :mod:`benchmarks.workloads.networks`.
    label_noise : float
        Part of the training labels that is made wrong.
    heldout : {"test", "validation"}
        What accuracy is measured on: the test data, or a fifth of the training data (noisy labels and all), which
        is then not trained on.
    epochs, batch_size : int
        An epoch drops its last batch if that is smaller.
    momentum, weight_decay : float
        Weight decay is for plain parameters only.
    penalty : float
        Weight of a penalty, for the methods that have one.
    augment : bool
        Shift training images by up to an eighth of their width, and mirror half of them.
    examples : int
        How many training examples there are, and test examples at most, drawn once for all seeds; 0 for all of the
        data set.
    curves : bool
        Evaluate after each epoch, or only after the last.
    curvature : bool
        Measure the curvature around the final weights.
    """

    method: str
    seed: int
    lr: float
    rho: float = 0.0
    dataset: str = "fashion_mnist_mini"
    model: str = "small_cnn"
    label_noise: float = 0.2
    heldout: Literal["test", "validation"] = "test"
    epochs: int = 25
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    penalty: float = 0.0
    augment: bool = False
    examples: int = 0
    curves: bool = True
    curvature: bool = False

    @property
    def key(self) -> str:
        """Hash of the configuration, by which its row is found again.

        Fields at their defaults are left out of it, so that rows outlive new fields; the defaults must stay.
        """
        return hash_of(self)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in asdict(self).items())
