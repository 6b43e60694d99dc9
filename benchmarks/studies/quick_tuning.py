"""Choose learning rate and rho for the quick study, on validation data and with seeds of their own."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from benchmarks.methods import METHODS
from benchmarks.report.table import markdown_table
from benchmarks.runs.configuration import Run
from benchmarks.runs.results import Row
from benchmarks.studies.quick import TUNED
from benchmarks.studies.study import TrainingStudy

LEARNING_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
RHOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)  # training still works at the first and collapses at the last
SEEDS = (100, 101, 102)  # none that the quick study uses

Setting = tuple[str, float, float]  # method, learning rate, rho


def mean_accuracies(rows: Sequence[Row]) -> dict[Setting, float]:
    """Mean validation accuracy of each setting over its seeds."""
    accuracies: dict[Setting, list[float]] = {}
    for row in rows:
        setting = (row.run.method, row.run.lr, row.run.rho)
        accuracies.setdefault(setting, []).append(row.final_heldout_accuracy)
    return {setting: statistics.fmean(values) for setting, values in accuracies.items()}


def choose(means: dict[Setting, float]) -> dict[str, tuple[float, float]]:
    """Learning rate and rho of the highest mean for each method."""
    methods = dict.fromkeys(method for method, _, _ in means)
    best = {m: max((s for s in means if s[0] == m), key=means.__getitem__) for m in methods}
    return {method: (lr, rho) for method, (_, lr, rho) in best.items()}


def report(rows: Sequence[Row], directory: Path) -> str:
    """The table of the grid, and what it chooses."""
    means = mean_accuracies(rows)
    choice = choose(means)
    rates = sorted({lr for _, lr, _ in means})

    def cell(setting: Setting) -> str:
        chosen = choice[setting[0]] == setting[1:]
        return f"{100 * means[setting]:.1f}{'*' if chosen else ' '}"

    table = markdown_table(
        ("method", "rho", *(f"lr {lr:g}" for lr in rates)),
        [
            (
                METHODS[method].label,
                f"{rho:g}" if METHODS[method].has_rho else "",
                *(cell((method, lr, rho)) for lr in rates),
            )
            for method, rho in dict.fromkeys((method, rho) for method, _, rho in means)
        ],
    )
    lines = []
    for method, (lr, rho) in choice.items():
        rhos = {r for m, _, r in means if m == method}
        edges = [
            name
            for name, value, grid in (("lr", lr, set(rates)), ("rho", rho, rhos))
            if len(grid) > 1 and value in (min(grid), max(grid))
        ]
        warning = f"  # at the edge of its grid: {', '.join(edges)}" if edges else ""
        lines.append(f'    "{method}": ({lr:g}, {rho:g}),{warning}')
    return (
        "# Learning rates and rho of the quick study\n\n"
        f"Validation accuracy in %, mean over {len({row.run.seed for row in rows})} seeds; * the best of a method.\n\n"
        f"{table}\n\nChosen (learning rate, rho):\n\n" + "\n".join(lines)
    )


QUICK_TUNING = TrainingStudy(
    name="quick-tuning",
    summary="how the learning rates and rho of quick were chosen; about 20 minutes on 2 cores",
    runs=tuple(
        Run(method, seed, lr, rho, heldout="validation")
        for method in TUNED
        for rho in (RHOS if METHODS[method].has_rho else (0.0,))
        for lr, seed in product(LEARNING_RATES, SEEDS)
    ),
    write=report,
    few=lambda run: run.seed == SEEDS[0] and run.lr in LEARNING_RATES[::3] and run.rho in (0.0, *RHOS[::3]),
)
