"""Make contests of cheap ascents from made rows, without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.run import Row, Run
from benchmarks.studies.cheap.alignment import Alignment, Cosines
from benchmarks.studies.cheap.contest import Case, Contest, Plan, compete, timings
from benchmarks.studies.cheap.findings import Findings
from benchmarks.studies.cheap.timing import Times
from benchmarks.studies.cheap.variants import VARIANTS, WHOLE, Variant, find
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.workloads.samples import Samples
from tests.benchmarks.entries import Recorder, made_row

PLAN = Plan((0.5, 1.0, 2.0), Protocol((100,), 1, (101,), final=()), (200, 201, 202), shown=3, plain=2, most=6)
SPHERES, PLAIN = find("spheres", WHOLE), find("plain", WHOLE)
#: Of the gradients of a quarter and of an eighth of a batch with that of the whole.
COSINES = {1 / 4: 0.5, 1 / 8: 0.4}
EPOCHS = 5
#: Rho that was chosen for each kind of kernels.
RHOS = {"spheres": 0.2, "plain": 0.1}


def made_case(name: str = "made", **samples: object) -> Case:
    settings = {
        kernels: Run(
            Samples("mnist1d_anew", kernels=kernels, **samples), "", 0, 0.03, EPOCHS, rho=rho, weight_decay=0.05
        )  # type: ignore[arg-type]
        for kernels, rho in RHOS.items()
    }
    return Case(name, f"made up, {name}", settings)  # type: ignore[arg-type]


def variant_of(run: Run) -> Variant:
    """Tell which variant a run is of; of those with a part, the one whose rho is tuned."""
    kinds = {
        (v.kernels, v.method, v.part, v.every, v.late, EPOCHS * v.passes): v for v in VARIANTS if v.rho != "transferred"
    }
    return kinds[run.workload.kernels, run.method, run.part, run.every, run.late, run.epochs]  # type: ignore[attr-defined]


def made(run: Run, accuracy: float) -> Row:
    """Make a row with as many gradient evaluations as planned, ten steps per epoch."""
    return made_row(run, accuracy, gradients=variant_of(run).evaluations * 10 * EPOCHS)


def play(
    row: Callable[[Run], Row], cases: Sequence[Case] = (made_case(),), plan: Plan = PLAN
) -> tuple[Contest, Recorder]:
    """Go through the stages with made rows; return the runs that were asked for, too."""
    recorder = Recorder(row)

    def cosines(alignments: Sequence[Alignment]) -> list[Cosines]:
        return [Cosines(a, [[COSINES[part] for part in a.parts]], 0.0) for a in alignments]

    return compete(cases, plan, recorder, cosines), recorder


def made_times(contest: Contest, plan: Plan = PLAN) -> Findings:
    """Add times, by which a gradient evaluation costs a step."""
    times = {
        (case.name, kernels): Times(timing, [variant_of(run).evaluations for run in timing.runs], 1.0, 1.0)
        for case in contest.cases
        for kernels, timing in timings(case, plan).items()
    }
    return Findings(contest, times)
