"""Say what of C5 is not asked again, with figures from the rows of another study."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report.intervals import t_interval
from benchmarks.studies.comparison.contest import find
from benchmarks.studies.images import OPTIMIZERS
from benchmarks.studies.images.claims import c5, differences

__all__ = ["paragraph"]

_ARGUMENT = """\
**C5 for the gradient norm is no question of its own.** With `g` the gradient on a batch, SAM descends the loss at
`w + rho g / |g|`, which is `L(w) + rho |g| + O(rho²)`: to first order in rho it *is* the penalty on the gradient norm
with weight rho. What differs between the two comes of terms of second order, and of the choice of settings. So it is
not trained again here."""


def paragraph(directory: Path) -> str:
    """Give the argument, and figures if the study `optimizers` has complete cases.

    Parameters
    ----------
    directory : Path
        Directory of this study's results; those of the other one are beside it.
    """
    cases = [case for case in OPTIMIZERS.entries(directory.parent / OPTIMIZERS.name)[0] if case[0].case.main]
    if not cases:
        return _ARGUMENT
    pairs = {case[0].case.label: (find(case, "gradient_norm"), find(case, "sam")) for case in cases}
    by_case = "; ".join(f"{label} {t_interval(differences(*pair)):.2f}" for label, pair in pairs.items())
    lowered, accuracy, trace = (comparison.interval for _, comparison in c5(cases).evidence[:3])
    return (
        f"{_ARGUMENT} In the study `optimizers`, where both were tuned over the same grid, the penalty changed the "
        f"gradient norm by a factor of {2**lowered.mean:.2f} from SGD's, and its test accuracy minus SAM's is "
        f"{accuracy:.2f} points ({by_case}). There the penalty on the Hessian trace changed the trace by a factor of "
        f"{2**trace.mean:.2f}; that it lowers curvature a lot is not asked again either."
    )
