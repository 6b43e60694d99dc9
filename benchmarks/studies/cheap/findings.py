"""Reduce the networks of the study to the numbers that are judged and shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, geometric_mean

from benchmarks.report.intervals import Interval, t_interval
from benchmarks.studies.cheap.contest import Case, Contest, differences, is_timed
from benchmarks.studies.cheap.noninferiority import NonInferiority, compare_to, pooled
from benchmarks.studies.cheap.rules import MARGIN, Verdict, judge, recommended
from benchmarks.studies.cheap.timing import Times
from benchmarks.studies.cheap.variants import BASE, TRANSFERRED, VARIANTS, WHOLE, Kernels, Variant, find
from benchmarks.studies.fair.cases import SCORE

__all__ = ["BASE_ON_SPHERES", "WHOLE_ON_SPHERES", "Findings"]

WHOLE_ON_SPHERES, BASE_ON_SPHERES = find("spheres", WHOLE), find("spheres", BASE)


@dataclass(frozen=True)
class Findings:
    """Numbers of a contest.

    Attributes
    ----------
    contest : Contest
        Its networks.
    times : dict of (str, str) to Times
        By case and kernels; those that were measured.
    """

    contest: Contest
    times: Mapping[tuple[str, Kernels], Times]

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases."""
        return self.contest.cases

    @cached_property
    def verdict(self) -> Verdict:
        """Verdict on the chosen variant."""
        chosen = self.contest.choice.variant
        return judge(
            self.difference(chosen, WHOLE_ON_SPHERES),
            self.difference(WHOLE_ON_SPHERES, BASE_ON_SPHERES),
            [self.evaluations(chosen, case) for case in self.cases],
        )

    @cached_property
    def transfer(self) -> NonInferiority:
        """Test of rho transferred against rho tuned, over cases and parts."""
        by_case = [
            differences(
                self.contest.rows[c.name, find("spheres", one)], self.contest.rows[c.name, find("spheres", other)]
            )
            for c in self.cases
            for one, other in TRANSFERRED.items()
        ]
        return compare_to(pooled(by_case), MARGIN)

    @property
    def recommended(self) -> Variant:
        """The variant that is recommended on spheres."""
        which = {"chosen": self.contest.choice.variant, "base": BASE_ON_SPHERES, "whole": WHOLE_ON_SPHERES}
        return which[recommended(self.verdict.outcome)]

    def difference(self, one: Variant, other: Variant) -> list[float]:
        """Subtract test accuracies in points, mean over the cases, for each seed that both have."""
        rows = self.contest.rows
        return pooled([differences(rows[case.name, one], rows[case.name, other]) for case in self.cases])

    def minus_whole(self, variant: Variant) -> Interval:
        """Compare with an ascent from the whole batch on the same kernels; 0 for that itself."""
        return t_interval(self.difference(variant, find(variant.kernels, WHOLE)))

    def accuracy(self, variant: Variant, case: Case) -> Interval:
        """Average test accuracy in per cent."""
        return t_interval([SCORE.of(row) for row in self.contest.rows[case.name, variant]])

    def evaluations(self, variant: Variant, case: Case) -> float:
        """Return gradient evaluations as counted, per step without an ascent at the case's epochs."""
        rows, base = (self.contest.rows[case.name, v] for v in (variant, find(variant.kernels, BASE)))
        # a network that diverged trained for fewer steps
        pairs = [(a, b) for a, b in zip(rows, base, strict=False) if not (a.diverged or b.diverged)]
        return fmean(a.gradients / b.gradients for a, b in pairs) if pairs else math.nan

    def mean_evaluations(self, variant: Variant) -> float:
        """Average over the cases."""
        return fmean(self.evaluations(variant, case) for case in self.cases)

    def time(self, variant: Variant) -> float | None:
        """Return the processor time per step in steps without an ascent, mean over the cases; None if not measured."""
        ratios = [self._time(variant, times) for case in self.cases if (times := self._times(variant, case))]
        return geometric_mean(ratios) if len(ratios) == len(self.cases) else None

    def rho_factor(self, variant: Variant) -> float:
        """Return rho in units of that of the whole batch, geometric mean over the cases."""
        rhos, whole = self.contest.rhos, find(variant.kernels, WHOLE)
        return geometric_mean(rhos[case.name, variant] / rhos[case.name, whole] for case in self.cases)

    def _times(self, variant: Variant, case: Case) -> Times | None:
        return self.times.get((case.name, variant.kernels))

    def _time(self, variant: Variant, times: Times) -> float:
        timed = [v for v in VARIANTS if v.kernels == variant.kernels and is_timed(v)]
        ratios = dict(zip([v.name for v in timed], times.ratios, strict=True))
        if variant.late:
            return variant.late + (1 - variant.late) * ratios[WHOLE]
        return variant.passes * ratios[BASE if variant.passes > 1 else TRANSFERRED.get(variant.name, variant.name)]
