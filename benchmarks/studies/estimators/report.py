"""Tables and figure of the estimators."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.report.curves import COLOURS
from benchmarks.report.intervals import t_interval
from benchmarks.report.table import markdown_table
from benchmarks.studies.estimators.estimators import ESTIMATORS, PRODUCTS
from benchmarks.studies.estimators.measurement import EXACT, KINKS, STEPS, Measured

__all__ = ["report"]

_FIGURE = "estimators.png"


def report(rows: Sequence[Measured], directory: Path) -> str:
    """Write tables and draw the figure."""
    networks = list(dict.fromkeys(row.run.network for row in rows))
    of = {(row.run.network, row.run.estimator): row for row in rows}
    sections = [_estimates(of, quantity, network) for quantity in ("trace", "top eigenvalue") for network in networks]
    seeds = max(row.run.seeds for row in rows)
    _draw(of, networks, directory / _FIGURE)
    return (
        "# Estimators of trace and top eigenvalue\n\n"
        f"Networks of the quick benchmark, 128 training examples, evaluation mode, {seeds} seeds, single precision, "
        f"one thread; traces by {PRODUCTS} products or pairs of evaluations. bias: mean error with its 95 % "
        "t-interval. deviation: standard deviation of an estimate. Both in % of the value by all products. "
        "time: of an estimate with its operator, in gradient evaluations. memory: beyond that of a gradient.\n\n"
        + "\n\n".join(sections)
        + f"\n\n{_kinks(of, networks)}\n\n![Errors of the trace]({_FIGURE})"
    )


def _truth(of: dict[tuple[str, str], Measured], quantity: str, network: str) -> float:
    return of[network, EXACT].values[0 if quantity == "trace" else 1]


def _errors(of: dict[tuple[str, str], Measured], quantity: str, network: str) -> dict[str, list[float]]:
    """Errors in % of the truth, by estimator."""
    truth = _truth(of, quantity, network)
    return {
        name: [100 * (value - truth) / abs(truth) for value in of[network, name].values]
        for name, named in ESTIMATORS.items()
        if named.quantity == quantity and (network, name) in of
    }


def _estimates(of: dict[tuple[str, str], Measured], quantity: str, network: str) -> str:
    exact = of[network, EXACT]
    rows = [
        (
            name,
            f"{t_interval(errors):.2f}",
            f"{statistics.stdev(errors):.2f}",
            f"{of[network, name].gradients:.0f}",
            f"{of[network, name].megabytes:.0f}",
        )
        for name, errors in _errors(of, quantity, network).items()
    ]
    table = markdown_table((quantity, "bias, %", "deviation, %", "time, gradients", "memory, MB"), rows)
    return (
        f"### {quantity.capitalize()}, {network}\n\nExactly {_truth(of, quantity, network):.2f} in "
        f"{exact.values[2]:.0f} dimensions.\n\n{table}"
    )


def _kinks(of: dict[tuple[str, str], Measured], networks: Sequence[str]) -> str:
    header = ("network", "derivative", *(f"step {step:g}" for step in STEPS))
    traces, cosines = [], []
    for network in networks:
        values = of[network, KINKS].values
        traces.append((network, *(f"{value:.1f}" for value in values[: 1 + len(STEPS)])))
        cosines.append((network, "1", *(f"{cosine:.3f}" for cosine in values[1 + len(STEPS) :])))
    return (
        "### Derivatives and differences\n\nThe trace by derivatives and by three-point differences, with the same ten "
        "probes, in double precision; a step is a fraction of the weights' root mean square, in every direction at "
        "once. Between kinks the two agree as the step shrinks; across kinks differences see curvature that the "
        f"derivative does not have.\n\n{markdown_table(header, traces)}\n\nCosine between the gradients of the two "
        f"as penalties, in the metric:\n\n{markdown_table(header, cosines)}"
    )


def _draw(of: dict[tuple[str, str], Measured], networks: Sequence[str], path: Path) -> None:
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    panels = figure.subplots(1, len(networks), sharey=True)
    names = [name for name, named in ESTIMATORS.items() if named.quantity == "trace"]
    for axes, network in zip(panels, networks, strict=True):
        errors = _errors(of, "trace", network)
        for place, name in enumerate(names):
            if name in errors:
                axes.plot(errors[name], [place] * len(errors[name]), ".", alpha=0.6, color=COLOURS[place])
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.set(title=network, xlabel="error of the trace, %")
        axes.set_yticks(range(len(names)), names)
        axes.grid(alpha=0.3, axis="x")
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=150)
