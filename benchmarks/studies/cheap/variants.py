"""List the variants of an ascent that are compared: from how much of a batch, how often, when and along what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from benchmarks.methods import METHODS
from benchmarks.run import Run

__all__ = [
    "BASE",
    "TRANSFERRED",
    "TWICE",
    "VARIANTS",
    "WHOLE",
    "Family",
    "Kernels",
    "Rho",
    "Variant",
    "evaluations",
    "find",
]

Kernels = Literal["spheres", "plain"]
#: What a variant saves on, for figures.
Family = Literal[
    "no ascent", "whole batch", "part", "some steps", "part, some steps", "late", "momentum", "Friendly SAM", "peer"
]
Rho = Literal["tuned", "none", "of the whole", "transferred"]


@dataclass(frozen=True)
class Variant:
    """Way to ascend, or not to, for kernels on spheres or for plain ones.

    Attributes
    ----------
    name, label : str
        Name to find it by among those of its kernels, and label for tables.
    family : str
        What it saves on.
    kernels : {"spheres", "plain"}
        Where the kernels live.
    method : str
        See :data:`benchmarks.methods.METHODS`.
    part, every, late
        See :class:`~benchmarks.run.Run`.
    passes : int
        Number of epochs as a multiple of the case's.
    rho : {"tuned", "none", "of the whole", "transferred"}
        Where its rho comes from: its own tuning; there is none; that of :data:`WHOLE`; or that divided by the cosine
        between the gradients of the part and of the whole batch, so that the component of the ascent along the whole
        gradient is as long.
    """

    name: str
    label: str
    family: Family
    kernels: Kernels = "spheres"
    method: str = "rsam"
    part: float = 1.0
    every: int = 1
    late: float = 0.0
    passes: int = 1
    rho: Rho = "tuned"

    @property
    def evaluations(self) -> float:
        """Gradient evaluations per step of the case's epochs, by plan; the report has those that were counted."""
        return self.passes * evaluations(self)

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of :class:`~benchmarks.run.Run` that make RSAM this variant; none for one without an ascent."""
        if self.rho == "none":
            return {}
        whole = find(self.kernels, WHOLE)
        names = ("method", "part", "every", "late")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(whole, name)}

    @property
    def call(self) -> str:
        """Say how a user of the library asks for it."""
        directions = {"momentum": '`direction="momentum"`', "friendly": "the direction of Friendly SAM"}
        words = [words for suffix, words in directions.items() if self.method.endswith(suffix)]
        words += [f"`every={self.every}`"] if self.every > 1 else []
        words += [f"`partial_closures(..., fraction={self.part:g})`"] if self.part < 1 else []
        words += [f"`LambdaRho` for the last {100 * (1 - self.late):.0f} % of the epochs"] if self.late else []
        if self.rho == "none":
            return "no ascent"
        return " and ".join(words) or "an ascent from the whole batch in every step"


WHOLE, BASE, TWICE = "whole", "base", "twice"
#: Variants with the rho of the whole batch, to see whether it transfers, and the variants whose rho is tuned.
TRANSFERRED = {"quarter_transferred": "quarter", "eighth_transferred": "eighth"}

_SPHERES = (
    Variant(BASE, "no ascent", "no ascent", method="riemannian_sgd", rho="none"),
    Variant(TWICE, "no ascent, twice the epochs", "no ascent", method="riemannian_sgd", passes=2, rho="none"),
    Variant(WHOLE, "whole batch, every step", "whole batch"),
    Variant("quarter", "quarter", "part", part=1 / 4),
    Variant("eighth", "eighth", "part", part=1 / 8),
    Variant("every2", "every 2nd step", "some steps", every=2),
    Variant("every3", "every 3rd step", "some steps", every=3),
    Variant("quarter_every2", "quarter, every 2nd step", "part, some steps", part=1 / 4, every=2),
    Variant("quarter_every3", "quarter, every 3rd step", "part, some steps", part=1 / 4, every=3),
    Variant("eighth_every2", "eighth, every 2nd step", "part, some steps", part=1 / 8, every=2),
    Variant("late40", "last 40 % of the epochs", "late", late=0.6),
    Variant("late20", "last 20 % of the epochs", "late", late=0.8),
    Variant("momentum", "along the momentum", "momentum", method="rsam_momentum"),
    Variant("friendly", "Friendly SAM", "Friendly SAM", method="rsam_friendly"),
    Variant("quarter_friendly", "Friendly SAM, quarter", "Friendly SAM", method="rsam_friendly", part=1 / 4),
)
_ON_PLAIN = {
    "riemannian_sgd": "sgd",
    "rsam": "sam",
    "rsam_momentum": "sam_momentum",
    "rsam_friendly": "sam_friendly",
}

#: In the order of tables. ``pytorch_optimizer`` has neither Momentum-SAM nor ESAM.
VARIANTS = (
    *_SPHERES,
    Variant("quarter_transferred", "quarter, rho transferred", "part", part=1 / 4, rho="transferred"),
    Variant("eighth_transferred", "eighth, rho transferred", "part", part=1 / 8, rho="transferred"),
    *(replace(v, kernels="plain", method=_ON_PLAIN[v.method]) for v in _SPHERES),
    Variant("peer_sam", "SAM of pytorch_optimizer", "peer", "plain", "peer_sam", rho="of the whole"),
    Variant("peer_looksam", "LookSAM of pytorch_optimizer", "peer", "plain", "peer_looksam"),
)


def evaluations(one: Variant | Run) -> float:
    """Return the gradient evaluations per step of a variant, or of a run of it, by plan."""
    return 1 + (METHODS[one.method].gradients - 1) * (1 - one.late) * one.part / one.every


def find(kernels: Kernels, name: str) -> Variant:
    """Find a variant by its kernels and its name."""
    return next(v for v in VARIANTS if (v.kernels, v.name) == (kernels, name))
