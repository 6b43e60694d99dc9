"""Tune each variant, choose one on validation data, plan its test, and train what is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from benchmarks.run import Row, Run
from benchmarks.studies.cheap.alignment import Alignment, Cosines
from benchmarks.studies.cheap.noninferiority import pooled_deviation, seeds_needed
from benchmarks.studies.cheap.rules import MARGIN, MOST_EVALUATIONS
from benchmarks.studies.cheap.timing import Timing
from benchmarks.studies.cheap.variants import BASE, TRANSFERRED, VARIANTS, WHOLE, Kernels, Variant, find
from benchmarks.studies.comparison.tuning import Protocol, Tuned, tune
from benchmarks.studies.fair.cases import SCORE

__all__ = ["CANDIDATES", "Case", "Choice", "Contest", "Plan", "choose", "compete", "differences", "is_timed", "timings"]

#: Variants on spheres of which one is chosen: cheap enough, and with a rho of their own.
CANDIDATES = tuple(
    v for v in VARIANTS if v.kernels == "spheres" and v.rho == "tuned" and v.evaluations <= MOST_EVALUATIONS
)
#: Rows of a variant in a case, one per seed.
Rows = Mapping[tuple[str, Variant], Sequence[Row]]


@dataclass(frozen=True)
class Case:
    """Data and a network, with the settings that another study chose.

    Attributes
    ----------
    name, label : str
        Name in the other study, and label for tables.
    settings : mapping of str to Run
        For kernels on spheres the setting that was chosen for RSAM, and for plain ones that for SAM: learning rates,
        decay, epochs, and the rho around which rho is tuned.
    """

    name: str
    label: str
    settings: Mapping[Kernels, Run]

    def run(self, variant: Variant, rho: float, seed: int, validation: bool = False) -> Run:
        """Describe a network."""
        setting = self.settings[variant.kernels]
        return replace(
            setting,
            method=variant.method,
            seed=seed,
            rho=0.0 if variant.rho == "none" else rho,
            part=variant.part,
            every=variant.every,
            late=variant.late,
            epochs=variant.passes * setting.epochs,
            heldout="validation" if validation else "test",
            measures=(),
        )


@dataclass(frozen=True)
class Plan:
    """Settings to tune over, and seeds.

    Attributes
    ----------
    factors : tuple of float
        Values of rho in units of that which was chosen for the case and its kernels.
    tuning : Protocol
        Seeds of tuning.
    pilot : tuple of int
        Seeds, on validation data, that one of the candidates is chosen by, and the number of final seeds planned.
    shown, plain : int
        Final seeds of every variant on spheres, and of those on plain weights, on which there is no verdict.
    most : int
        Final seeds of the chosen variant, of the whole batch and of no ascent, which the verdict takes, at most.
    blocks : int
        Blocks of steps of each variant whose processor time is measured.
    """

    factors: tuple[float, ...] = (0.5, 0.9, 1.5, 2.6, 4.5)
    tuning: Protocol = field(default_factory=lambda: Protocol(first=(3000,), kept=2, second=(3001, 3002), final=()))
    pilot: tuple[int, ...] = tuple(range(4000, 4008))
    shown: int = 6
    plain: int = 5
    most: int = 24
    blocks: int = 9


@dataclass(frozen=True)
class Choice:
    """Variant that was chosen on validation data, with the plan of its test.

    Attributes
    ----------
    variant : Variant
        One of :data:`CANDIDATES`.
    validation : dict of Variant to float
        Mean validation accuracy of each candidate minus that of the whole batch, in points.
    deviation : float
        Standard deviation, over seeds, of the chosen one's mean difference over the cases.
    needed, seeds : int
        Seeds that the test needs for its power, and seeds that it gets.
    """

    variant: Variant
    validation: dict[Variant, float]
    deviation: float
    needed: int
    seeds: int


@dataclass(frozen=True)
class Contest:
    """All that is known at the end.

    Attributes
    ----------
    cases : tuple of Case
        The cases.
    tuned : dict of (str, Variant) to Tuned
        Tuning of each variant by case; of those with a rho of their own.
    rhos : dict of (str, Variant) to float
        Radius of each variant by case; 0 where there is no ascent.
    cosines : dict of str to Cosines
        How far parts of batches point along the whole, by case.
    choice : Choice
        The variant that is judged.
    rows : dict of (str, Variant) to list of Row
        Final networks, by case.
    """

    cases: tuple[Case, ...]
    tuned: dict[tuple[str, Variant], Tuned[Run]]
    rhos: dict[tuple[str, Variant], float]
    cosines: dict[str, Cosines]
    choice: Choice
    rows: dict[tuple[str, Variant], list[Row]]


def compete(
    cases: Sequence[Case],
    plan: Plan,
    rows_of: Callable[[Sequence[Run]], Sequence[Row]],
    cosines_of: Callable[[Sequence[Alignment]], Sequence[Cosines]],
) -> Contest:
    """Go through all stages; each depends on the rows of those before.

    Parameters
    ----------
    cases : sequence of Case
        At least one.
    plan : Plan
        Seeds, and values of rho.
    rows_of, cosines_of : callable
        Make those rows that are missing, or refuse to, and return all of them in order.

    Returns
    -------
    Contest
        The results.
    """
    tuned = _tune(cases, plan, rows_of)
    rhos = {key: one.setting.rho for key, one in tuned.items()}
    whole, base = find("spheres", WHOLE), find("spheres", BASE)
    parts = tuple(find("spheres", name).part for name in TRANSFERRED)
    alignments = [
        Alignment(case.run(whole, rhos[case.name, whole], plan.tuning.first[0], validation=True), parts)
        for case in cases
    ]
    cosines = dict(zip([case.name for case in cases], cosines_of(alignments), strict=True))
    for case in cases:
        for v in VARIANTS:
            if v.rho != "tuned":
                rho = 0.0 if v.rho == "none" else rhos[case.name, find(v.kernels, WHOLE)]
                rhos[case.name, v] = rho / cosines[case.name].mean(v.part) if v.rho == "transferred" else rho

    def train(variants: Sequence[Variant], seeds: Sequence[int], validation: bool) -> dict[Any, list[Row]]:
        keys = [(case, v) for case in cases for v in variants]
        rows = iter(rows_of([c.run(v, rhos[c.name, v], s, validation) for c, v in keys for s in seeds]))
        return {(c.name, v): [next(rows) for _ in seeds] for c, v in keys}

    choice = choose(train((whole, *CANDIDATES), plan.pilot, True), [case.name for case in cases], plan)
    on_spheres, on_plain = ([v for v in VARIANTS if v.kernels == kernels] for kernels in ("spheres", "plain"))
    rows = train(on_spheres, range(plan.shown), False) | train(on_plain, range(plan.plain), False)
    more = train((base, whole, choice.variant), range(plan.shown, choice.seeds), False)
    rows = {key: [*of_key, *more.get(key, [])] for key, of_key in rows.items()}
    return Contest(tuple(cases), tuned, rhos, cosines, choice, rows)


def _tune(
    cases: Sequence[Case], plan: Plan, rows_of: Callable[[Sequence[Run]], Sequence[Row]]
) -> dict[tuple[str, Variant], Tuned[Run]]:
    grids = {
        (case.name, v): [case.run(v, factor * case.settings[v.kernels].rho, 0) for factor in plan.factors]
        for case in cases
        for v in VARIANTS
        if v.rho == "tuned"
    }
    return tune(
        grids, rows_of, lambda run, seed: replace(run, seed=seed, heldout="validation"), SCORE.tuned, plan.tuning
    )


def choose(pilot: Rows, cases: Sequence[str], plan: Plan) -> Choice:
    """Choose the candidate with the best mean validation accuracy, and plan its test by its deviation there.

    Parameters
    ----------
    pilot : mapping of (str, Variant) to sequence of Row
        Networks of the candidates and of the whole batch, of equal seeds.
    cases : sequence of str
        Names of the cases, which count alike.
    plan : Plan
        Bounds of the number of seeds.
    """
    whole = find("spheres", WHOLE)
    by_case = {v: [differences(pilot[c, v], pilot[c, whole]) for c in cases] for v in CANDIDATES}
    means = {v: fmean(map(fmean, of_cases)) for v, of_cases in by_case.items()}
    best = max(CANDIDATES, key=lambda v: (means[v], -v.evaluations))
    deviation = pooled_deviation(by_case[best])
    needed = seeds_needed(deviation, MARGIN)
    return Choice(best, means, deviation, needed, min(max(needed, plan.shown), plan.most))


def differences(rows: Sequence[Row], others: Sequence[Row]) -> list[float]:
    """Subtract accuracies, seed by seed, in points; the longer list's further seeds are left out."""
    for a, b in zip(rows, others, strict=False):
        assert a.run.seed == b.run.seed
    return [SCORE.of(a) - SCORE.of(b) for a, b in zip(rows, others, strict=False)]


def timings(case: Case, plan: Plan) -> dict[Kernels, Timing]:
    """List the networks of a case whose steps are timed together, the one without an ascent first."""
    return {
        kernels: Timing(
            tuple(case.run(v, setting.rho, 0) for v in VARIANTS if v.kernels == kernels and is_timed(v)), plan.blocks
        )
        for kernels, setting in case.settings.items()
    }


def is_timed(variant: Variant) -> bool:
    """Tell whether a variant's steps are measured; those of the others follow from them."""
    return not variant.late and variant.passes == 1 and variant.rho != "transferred"
