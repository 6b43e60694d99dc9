"""The networks of the population: configurations that nobody tuned, each varied along one axis at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from benchmarks.run import Run
from benchmarks.workloads.chains import Chains

__all__ = ["AXES", "PLACES", "Design", "Member", "Place", "members"]

#: Values of each hyper-parameter with their probabilities among base configurations. Width, learning rate and weight
#: decay are levels; what they mean depends on the data set and on the optimizer.
AXES: Mapping[str, Mapping[Any, float]] = {
    "width": {0: 0.25, 1: 0.25, 2: 0.25, 3: 0.25},
    "depth": {3: 1 / 3, 4: 1 / 3, 5: 1 / 3},
    "batch_norm": {True: 0.5, False: 0.5},
    "rate": {0: 0.1, 1: 0.5, 2: 0.4},
    "batch_size": {32: 0.25, 64: 0.5, 128: 0.25},
    "decay": {0: 1 / 3, 1: 1 / 3, 2: 1 / 3},
    "dropout": {0.0: 0.8, 0.25: 0.1, 0.5: 0.1},
    "augment": {False: 0.85, True: 0.15},
    "length": {"full": 0.8, "quarter": 0.2},
    "optimizer": {"sgd": 0.25, "adamw": 0.25, "sam": 0.25, "rsam": 0.25},
}
#: Learning rates and weight decays by level. SGD and SAM share them; RSAM on spheres turns its filters by larger steps,
#: and decays its other weights only; decay that is decoupled from the gradient has to be larger.
_RATES = {
    "sgd": (0.01, 0.03, 0.1),
    "sam": (0.01, 0.03, 0.1),
    "rsam": (0.03, 0.1, 0.3),
    "adamw": (3e-4, 1e-3, 3e-3),
}
_DECAYS = {
    "sgd": (0.0, 5e-4, 5e-3),
    "sam": (0.0, 5e-4, 5e-3),
    "rsam": (0.0, 5e-4, 5e-3),
    "adamw": (0.0, 1e-2, 1e-1),
}
_RHO = {"sam": 0.05, "rsam": 0.2}


@dataclass(frozen=True)
class Place:
    """A data set, and the size of what is trained on it.

    Attributes
    ----------
    label, dataset : str
        Its name in tables, and for :mod:`benchmarks.data`.
    examples : int
        How many are trained on.
    widths : tuple of int
        Filters of the first block, by level.
    epochs : int
        Of full length; a quarter of them is the short one.
    """

    label: str
    dataset: str
    examples: int
    widths: tuple[int, int, int, int]
    epochs: int


PLACES = {
    "cifar10": Place("CIFAR-10 (JPEG)", "imagefolder:cifar10", 10_000, (10, 14, 20, 28), 32),
    "mnist1d": Place("MNIST-1D", "mnist1d_large", 4_000, (8, 12, 18, 27), 60),
    "fashion_mnist": Place("Fashion-MNIST", "fashion_mnist", 10_000, (8, 12, 16, 20), 20),
}


@dataclass(frozen=True)
class Member:
    """A network of the population.

    Attributes
    ----------
    place : str
        Key of :data:`PLACES`.
    base : int
        Number of the base configuration that it is made from.
    axis : str
        In what it differs from that: ``"base"`` in nothing, ``"seed"`` in the seed, ``"length and seed"`` in both, or a
        key of :data:`AXES`.
    label_noise : float
        Part of the training labels that is wrong.
    values : tuple
        Of each axis, in their order.
    seed : int
        Of initial weights and the order of the data.
    """

    place: str
    base: int
    axis: str
    label_noise: float
    values: tuple[Any, ...]
    seed: int

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Values by axis."""
        return dict(zip(AXES, self.values, strict=True))

    def run(self, places: Mapping[str, Place]) -> Run:
        """Return what is trained."""
        place, v = places[self.place], self.hyperparameters
        workload = Chains(
            place.dataset,
            place.examples,
            place.widths[v["width"]],
            v["depth"],
            v["batch_norm"],
            v["dropout"],
            v["batch_size"],
            v["augment"],
            self.label_noise,
            spheres=v["optimizer"] == "rsam",
        )
        return Run(
            workload,
            v["optimizer"],
            self.seed,
            _RATES[v["optimizer"]][v["rate"]],
            place.epochs if v["length"] == "full" else place.epochs // 4,
            rho=_RHO.get(v["optimizer"], 0.0),
            weight_decay=_DECAYS[v["optimizer"]][v["decay"]],
        )


@dataclass(frozen=True)
class Design:
    """How many networks there are on a data set.

    Attributes
    ----------
    place : str
        Key of :data:`PLACES`.
    bases : int
        Base configurations; the first ones are the same on every data set.
    varied : int
        Axes along which each is varied, beside the length of training.
    twins : int
        Every so manieth base configuration is trained with a second seed too, at both lengths.
    label_noise : tuple of float
        Parts of wrong labels with which the base configurations are trained; where it is not (0,) they are not varied.
    """

    place: str
    bases: int = 60
    varied: int = 5
    twins: int = 3
    label_noise: tuple[float, ...] = (0.0,)


def members(design: Design) -> list[Member]:
    """List the networks of a design, those of a base configuration one after the other."""
    found: list[Member] = []
    for number, base, variants in zip(range(design.bases), _bases(), _variants(design.varied)):  # noqa: B905
        for noise in design.label_noise:
            member = Member(design.place, number, "base", noise, tuple(base.values()), number)
            found.append(member)
            if noise:
                continue
            for axis, choice in variants:
                others = [value for value in AXES[axis] if value != base[axis]]
                values = {**base, axis: others[int(choice * len(others))]}
                found.append(replace(member, axis=axis, values=tuple(values.values())))
            if number % design.twins == 0:
                twins = [("seed", member), ("length and seed", found[-len(variants)])]
                found += [replace(twin, axis=axis, seed=1000 + number) for axis, twin in twins]
    return found


def _bases() -> Iterator[dict[str, Any]]:
    """Yield base configurations, drawn one after the other, so that fewer of them are the first ones of more."""
    random = np.random.default_rng(20)
    for _ in count():
        yield {axis: list(values)[random.choice(len(values), p=_shares(values))] for axis, values in AXES.items()}


def _variants(varied: int) -> Iterator[Sequence[tuple[str, float]]]:
    """Yield the axes along which a base configuration is varied, and a number in [0, 1) that chooses the value.

    All axes take their turns, in an order that is drawn anew each time all have been through.
    """
    random = np.random.default_rng(21)
    others = [axis for axis in AXES if axis != "length"]
    waiting: list[str] = []
    for _ in count():
        chosen: list[str] = []
        while len(chosen) < varied:
            if not set(waiting) - set(chosen):
                waiting += list(random.permutation(others))
            axis = next(a for a in waiting if a not in chosen)
            waiting.remove(axis)
            chosen.append(str(axis))
        yield [(axis, float(random.random())) for axis in ("length", *chosen)]


def _shares(values: Mapping[Any, float]) -> np.ndarray:
    shares = np.array(list(values.values()))
    return shares / shares.sum()
