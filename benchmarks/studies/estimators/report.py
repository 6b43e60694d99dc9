"""Report the estimators in tables and figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.curves import COLOURS
from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.intervals import t_interval
from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.report.svg import drawing
from benchmarks.report.table import markdown_table
from benchmarks.studies.estimators.estimators import ESTIMATORS, PRODUCTS
from benchmarks.studies.estimators.measurement import EXACT, INTERVALS, KINKS, STEPS, Measured

__all__ = ["report"]

_FIGURE = "errors.svg"


def report(rows: Sequence[Measured], directory: Path) -> str:
    """Write tables and draw the figures."""
    networks = list(dict.fromkeys(row.run.network for row in rows))
    of = {(row.run.network, row.run.estimator): row for row in rows}
    sections = [_estimates(of, quantity, network) for quantity in ("trace", "top eigenvalue") for network in networks]
    seeds = max(row.run.seeds for row in rows if row.run.estimator in ESTIMATORS)
    _draw_costs(of, networks, directory / ANSWER)
    _draw_errors(of, networks, directory / _FIGURE)
    first = opening(
        "Estimators of the Hessian's trace and top eigenvalue",
        "Which estimator of the Hessian's trace is most accurate for its cost?",
        "Error of each trace estimator against its cost, by network",
        [_verdict(of, network) for network in networks],
    )
    notes = (
        "Networks of the quick benchmark, plain or with filters on spheres; 128 training examples, evaluation mode, "
        f"{seeds} seeds, single precision, one thread. Each trace takes {PRODUCTS} products or pairs of evaluations. "
        "*bias*: mean error with its 95 % t-interval. *deviation*: standard deviation of an estimate. Both are in % of "
        "the exact value, which takes all products. *time*: of an estimate and its operator, in gradient evaluations. "
        "*memory*: beyond that of a gradient."
    )
    details = [
        _intervals(of, networks),
        DETAILS,
        _kinks(of, networks),
        "### Errors of the trace",
        f"![Errors of the trace]({_FIGURE})",
    ]
    return "\n\n".join([*first, notes, *sections, *details])


def _verdict(of: dict[tuple[str, str], Measured], network: str) -> str:
    errors = _errors(of, "trace", network)
    best, worst = (pick(errors, key=lambda name: _root_mean_square(errors[name])) for pick in (min, max))
    return (
        f"**{network}:** the root-mean-square error is smallest for *{best}* ({_root_mean_square(errors[best]):.1f} %) "
        f"and largest for *{worst}* ({_root_mean_square(errors[worst]):.1f} %)."
    )


def _root_mean_square(errors: Sequence[float]) -> float:
    return statistics.fmean(error**2 for error in errors) ** 0.5


def _truth(of: dict[tuple[str, str], Measured], quantity: str, network: str) -> float:
    return of[network, EXACT].values[0 if quantity == "trace" else 1]


def _errors(of: dict[tuple[str, str], Measured], quantity: str, network: str) -> dict[str, list[float]]:
    """Compute errors in % of the truth, by estimator."""
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
        f"### {quantity.capitalize()}, {network}\n\nExact value: {_truth(of, quantity, network):.2f}, in "
        f"{exact.values[2]:.0f} dimensions.\n\n{table}"
    )


def _intervals(of: dict[tuple[str, str], Measured], networks: Sequence[str]) -> str:
    """Count the intervals that hold the trace."""
    rows = []
    for network in networks:
        truth = _truth(of, "trace", network)
        row = [network]
        for name in INTERVALS:
            values = of[network, name].values
            ends = list(zip(values[::2], values[1::2], strict=True))
            held = statistics.fmean(low <= truth <= high for low, high in ends)
            reach = statistics.median((high - low) / 2 for low, high in ends)
            row += [f"{100 * held:.1f}", f"{100 * reach / abs(truth):.1f}"]
        rows.append(row)
    names = [name.partition(", ")[2] for name in INTERVALS]
    header = ("network", *(f"{name}: {what}" for name in names for what in ("coverage, %", "half-width, %")))
    seeds = max(row.run.seeds for row in of.values() if row.run.estimator in INTERVALS)
    return (
        f"### Intervals\n\nCoverage: share of {seeds} nominal 95 % intervals that contain the trace. Half-width: "
        f"median, in % of the trace. Each interval takes {PRODUCTS} products.\n\n{markdown_table(header, rows)}"
    )


def _kinks(of: dict[tuple[str, str], Measured], networks: Sequence[str]) -> str:
    header = ("network", "derivative", *(f"step {step:g}" for step in STEPS))
    traces, cosines = [], []
    for network in networks:
        values = of[network, KINKS].values
        traces.append((network, *(f"{value:.1f}" for value in values[: 1 + len(STEPS)])))
        cosines.append((network, "1", *(f"{cosine:.3f}" for cosine in values[1 + len(STEPS) :])))
    return (
        "### Derivatives and differences\n\nThe trace from derivatives and from three-point differences, with the same "
        "ten probes, in double precision. A step is a fraction of the weights' root mean square, in every direction at "
        "once. Between kinks the two agree as the step shrinks; across kinks, differences see curvature that the "
        f"derivative lacks.\n\n{markdown_table(header, traces)}\n\nCosine, in the metric, between the gradients of the "
        f"two as penalties:\n\n{markdown_table(header, cosines)}"
    )


def _draw_costs(of: dict[tuple[str, str], Measured], networks: Sequence[str], path: Path) -> None:
    rows = math.ceil(len(networks) / 2)
    with drawing(path, 1 + 1.8 * rows) as figure:
        grid = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
        for axes, network in zip(grid.flat, networks, strict=False):
            errors = _errors(of, "trace", network)
            for name, colour, marker in zip(_traces(), COLOURS, "ovs^DP", strict=False):
                if name in errors:
                    cost, error = of[network, name].gradients, _root_mean_square(errors[name])
                    axes.plot(cost, error, marker, color=colour, label=name)
            axes.set(yscale="log", title=network)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.grid(alpha=0.3)
        figure.supxlabel("cost of an estimate, gradient evaluations", fontsize="medium")
        figure.supylabel("root mean square error, %", fontsize="medium")
        labels = dict(zip(*reversed(grid[0, 0].get_legend_handles_labels()), strict=True))
        figure.legend(labels.values(), labels.keys(), loc="outside upper center", ncols=2)


def _draw_errors(of: dict[tuple[str, str], Measured], networks: Sequence[str], path: Path) -> None:
    groups = []
    for network in networks:
        errors = _errors(of, "trace", network)
        lines = [
            Line(name, t_interval(errors[name]), f"{t_interval(errors[name]):.1f}", "undecided", errors[name])
            for name in _traces()
            if name in errors
        ]
        groups.append(Group(network, lines, "error of the trace, %"))
    draw_forest(groups, path)


def _traces() -> list[str]:
    return [name for name, named in ESTIMATORS.items() if named.quantity == "trace"]
