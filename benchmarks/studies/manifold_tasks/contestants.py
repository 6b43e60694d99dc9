"""List the contestants on manifolds: RSAM, its base optimizers, and an ambient ascent that is projected back."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.run import Knob
from benchmarks.studies.comparison.cases import Contestant, Grid

__all__ = ["contestants"]

Values = tuple[float, ...]


def contestants(
    sgd: Values,
    adam: Values,
    rho: Values,
    projected_rho: Values,
    momentum: Values = (0.0, 0.5, 0.9),
    beta: Values = (0.5, 0.9, 0.95),
) -> tuple[Contestant, ...]:
    """Make the contestants over both bases, each with the same number of settings.

    The bases compete in two further versions: trained twice as long, so that they use as many gradient evaluations as
    RSAM, and tuned at that length; and at the settings chosen for RSAM, so that only the ascent differs.

    Parameters
    ----------
    sgd, adam : tuple of float
        Learning rates of each base.
    rho : tuple of float
        Radii of RSAM, in the metric.
    projected_rho : tuple of float
        Radii of the projected ascent, in the ambient space.
    momentum, beta : tuple of float
        Values that the bases are tuned over when they train alone; under an ascent both are 0.9.
    """
    return (
        *_over("riemannian_sgd", "RiemannianSGD", "rsam", Grid(Knob.MOMENTUM, sgd, momentum)),
        Contestant("rsam", "RSAM, SGD", "rsam", Grid(Knob.RHO, sgd, rho), base="riemannian_sgd"),
        Contestant(
            "projected_sam",
            "projected SAM, SGD",
            "projected_sam",
            Grid(Knob.RHO, sgd, projected_rho),
            base="riemannian_sgd",
        ),
        *_over("riemannian_adam", "RiemannianAdam", "rsam_adam", Grid(Knob.BETA, adam, beta)),
        Contestant("rsam_adam", "RSAM, Adam", "rsam_adam", Grid(Knob.RHO, adam, rho), base="riemannian_adam"),
        Contestant(
            "projected_sam_adam",
            "projected SAM, Adam",
            "projected_sam_adam",
            Grid(Knob.RHO, adam, projected_rho),
            base="riemannian_adam",
        ),
    )


def _over(method: str, label: str, ascent: str, grid: Grid) -> tuple[Contestant, ...]:
    base = Contestant(method, label, method, grid)
    return (
        base,
        replace(base, name=f"{method}_twice", label=f"{label}, twice the epochs", passes=2.0),
        replace(base, name=f"{method}_alike", label=f"{label}, settings of RSAM", settings_of=ascent),
    )
