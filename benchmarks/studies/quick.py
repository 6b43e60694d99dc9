"""SGD, SAM, Riemannian SGD and RSAM on Fashion-MNIST mini with a fifth of the training labels wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.methods import METHODS
from benchmarks.report.curves import draw_learning_curves
from benchmarks.report.intervals import t_interval
from benchmarks.report.table import markdown_table
from benchmarks.runs.configuration import Run
from benchmarks.runs.results import Row
from benchmarks.studies.study import TrainingStudy

# Learning rate and rho of each method, chosen on validation data by `python -m benchmarks run quick-tuning`.
TUNED = {
    "sgd": (0.002, 0.0),
    "sam": (0.005, 0.2),
    "riemannian_sgd": (0.005, 0.0),
    "rsam": (0.05, 0.4),
}
SEEDS = (0, 1, 2)
CURVES = "learning_curves.png"


# What each pair tells: the ascent on plain weights, the ascent on spheres, the spheres under the ascent.
PAIRS = (("sam", "sgd"), ("rsam", "riemannian_sgd"), ("rsam", "sam"))


def _differences(by_method: dict[str, list[Row]]) -> str:
    """Mean differences between methods with equal seeds, which share initialisation, noise and batches."""
    accuracy = {m: {row.run.seed: 100 * row.final_heldout_accuracy for row in rs} for m, rs in by_method.items()}
    parts = []
    for one, other in PAIRS:
        if one in accuracy and other in accuracy:
            seeds = accuracy[one].keys() & accuracy[other].keys()
            interval = t_interval([accuracy[one][seed] - accuracy[other][seed] for seed in sorted(seeds)])
            parts.append(f"{METHODS[one].label} - {METHODS[other].label} {interval:.1f}")
    return "; ".join(parts)


def report(rows: Sequence[Row], directory: Path) -> str:
    """Table and learning curves."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        by_method.setdefault(row.run.method, []).append(row)
    table = markdown_table(
        ("method", "test accuracy, %", "train accuracy, %", "time per step, ms"),
        [
            (
                METHODS[method].label,
                f"{t_interval([100 * row.final_heldout_accuracy for row in of_method]):.1f}",
                f"{t_interval([100 * row.final_train_accuracy for row in of_method]):.1f}",
                f"{t_interval([1000 * row.seconds_per_step for row in of_method]):.1f}",
            )
            for method, of_method in by_method.items()
        ],
    )
    run = rows[0].run
    title = f"{run.dataset}, {run.model}, {100 * run.label_noise:.0f} % of the training labels wrong"
    seeds = len({row.run.seed for row in rows})
    settings = [
        f"{METHODS[m].label} {of_method[0].run.lr:g}" + f" (rho {of_method[0].run.rho:g})" * METHODS[m].has_rho
        for m, of_method in by_method.items()
    ]
    draw_learning_curves({METHODS[m].label: of_method for m, of_method in by_method.items()}, directory / CURVES, title)
    return (
        "# SGD, SAM, RiemannianSGD and RSAM\n\n"
        f"{title}; {run.epochs} epochs; mean ± 95 % t-interval over {seeds} seeds.\n\n{table}\n\n"
        f"Differences in test accuracy, paired by seed: {_differences(by_method)}.\n"
        "Train accuracy is on the labels as trained on, wrong ones included. A step includes its gradients.\n"
        f"Learning rates: {', '.join(settings)}.\n\n![Learning curves]({CURVES})"
    )


QUICK = TrainingStudy(
    name="quick",
    summary="SGD, SAM, RiemannianSGD and RSAM on noisy Fashion-MNIST mini, 3 seeds; a minute or two on 2 cores",
    runs=tuple(Run(method, seed, lr=lr, rho=rho) for seed in SEEDS for method, (lr, rho) in TUNED.items()),
    write=report,
    few=lambda run: run.seed == SEEDS[0],
)
