"""Compare SGD, SAM, Riemannian SGD and RSAM on Fashion-MNIST mini with a fifth of the training labels wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.report.curves import draw_learning_curves
from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.intervals import Interval, t_interval
from benchmarks.report.opening import ANSWER, opening
from benchmarks.report.table import markdown_table
from benchmarks.run import Row, Run
from benchmarks.runs.measurement import CURVES
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.images.contestants import CONTESTANTS
from benchmarks.studies.study import ROWS, NothingToReport, trainer
from benchmarks.workloads.images import Images

#: Learning rate and rho of each method: those with the best mean accuracy on a held-out fifth of the training data over
#: seeds 100 to 102, among learning rates 0.001, 0.002, 0.005, 0.01, 0.02, 0.05 and 0.1, and for SAM and RSAM each of
#: these with rho 0.05, 0.1, 0.2, 0.3, 0.4 and 0.6, at the last of which training collapses.
TUNED = {
    "sgd": (0.002, 0.0),
    "sam": (0.005, 0.2),
    "riemannian_sgd": (0.005, 0.0),
    "rsam": (0.05, 0.4),
}
SEEDS = (0, 1, 2)
DATA = Images()
EPOCHS = 25
FIGURE = "learning_curves.svg"


# The pairs show the effect of the ascent on plain weights, of the ascent on spheres, and of the spheres in SAM.
PAIRS = (("sam", "sgd"), ("rsam", "riemannian_sgd"), ("rsam", "sam"))


def _differences(by_method: dict[str, list[Row]]) -> dict[str, Interval]:
    """Average differences between methods with equal seeds, which share initialisation, noise and batches."""
    accuracy = {m: {row.run.seed: 100 * row.scores["accuracy"] for row in rs} for m, rs in by_method.items()}
    found = {}
    for one, other in PAIRS:
        if one in accuracy and other in accuracy:
            seeds = sorted(accuracy[one].keys() & accuracy[other].keys())
            interval = t_interval([accuracy[one][seed] - accuracy[other][seed] for seed in seeds])
            found[f"{CONTESTANTS[one].label} − {CONTESTANTS[other].label}"] = interval
    return found


def report(rows: Sequence[Row], directory: Path) -> str:
    """Write the table and draw differences and learning curves."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.run.method, []).append(row)
    table = markdown_table(
        ("method", "test accuracy, %", "train accuracy, %", "time per step, ms"),
        [
            (
                CONTESTANTS[method].label,
                f"{t_interval([100 * row.scores['accuracy'] for row in of_method]):.1f}",
                f"{t_interval([100 * row.scores['train_accuracy'] for row in of_method]):.1f}",
                f"{t_interval([1000 * row.seconds_per_step for row in of_method]):.1f}",
            )
            for method, of_method in by_method.items()
        ],
    )
    run = rows[0].run
    title = f"{DATA.dataset}, {DATA.model}, {100 * DATA.label_noise:.0f} % of the training labels wrong"
    seeds = len({row.run.seed for row in rows})
    settings = [
        f"{CONTESTANTS[m].label} {of_method[0].run.lr:g}"
        + f" (rho {of_method[0].run.rho:g})" * (of_method[0].run.rho > 0)
        for m, of_method in by_method.items()
    ]
    draw_learning_curves({CONTESTANTS[m].label: of_method for m, of_method in by_method.items()}, directory / FIGURE)
    differences = _differences(by_method)
    if differences:
        lines = [Line(label, interval, f"{interval:.1f}") for label, interval in differences.items()]
        draw_forest([Group("", lines, "difference in test accuracy, points")], directory / ANSWER)
    first = opening(
        "SGD, SAM, RiemannianSGD and RSAM",
        "What is an ascent worth, on plain weights and on spheres?",
        "Differences in test accuracy, paired by seed" if differences else "",
        [f"**{label}:** {interval:.1f} points of test accuracy." for label, interval in differences.items()],
    )
    notes = (
        f"{title}; {run.epochs} epochs; mean ± 95 % t-interval over {seeds} seeds. Differences are paired by seed. "
        "Train accuracy is on the labels as trained on, wrong ones included. A step includes its gradients.\n"
        f"Learning rates: {', '.join(settings)}."
    )
    return "\n\n".join([*first, table, notes, f"![Learning curves]({FIGURE})"])


@dataclass(frozen=True)
class QuickStudy:
    """Study that trains a few networks at settings chosen beforehand.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    runs : tuple of Run
        The networks to train.
    """

    name: str
    summary: str
    runs: tuple[Run, ...]

    def run(self, directory: Path, workers: Workers) -> None:
        """Train the runs that have no row yet."""
        collect(self.runs, trainer(directory, workers), self._results(directory), workers)

    def report(self, directory: Path) -> str:
        """Report on the finished runs."""
        row_of = self._results(directory).find(self.runs)
        if not row_of:
            raise NothingToReport(f"{self._results(directory).path} has no row of this study")
        return report([row_of[run] for run in self.runs if run in row_of], directory)

    def quick(self) -> QuickStudy:
        """Keep the first seed only."""
        return replace(self, runs=tuple(run for run in self.runs if run.seed == SEEDS[0]))

    def _results(self, directory: Path) -> Results[Row]:
        return Results(directory / ROWS, Row)


def quick_run(name: str, seed: int) -> Run:
    """Describe the run of a contestant at its setting."""
    contestant, (lr, rho) = CONTESTANTS[name], TUNED[name]
    workload = replace(DATA, kernels=contestant.kernels)  # type: ignore[arg-type]
    return Run(workload, contestant.method, seed, lr, EPOCHS, rho, weight_decay=5e-4, measures=(CURVES,))


QUICK = QuickStudy(
    name="quick",
    summary="SGD, SAM, RiemannianSGD and RSAM on noisy Fashion-MNIST mini, 3 seeds; a minute or two on 2 cores",
    runs=tuple(quick_run(name, seed) for seed in SEEDS for name in TUNED),
)
