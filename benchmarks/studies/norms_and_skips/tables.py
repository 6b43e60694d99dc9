"""Tables of the study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from benchmarks.report.intervals import t_interval
from benchmarks.report.table import markdown_table
from benchmarks.studies.norms_and_skips.design import VARIANTS, Variant
from benchmarks.studies.norms_and_skips.effects import MEASURES, Networks, at_end, at_loss, effects
from benchmarks.studies.norms_and_skips.training import Trajectory
from benchmarks.workloads.residual import as_residual

__all__ = ["effects_table", "ends_table", "trials_table"]


def effects_table(networks: Networks, level: float | None) -> str:
    """Tabulate the effects on all measures; on logarithms as factors."""
    rows = []
    for name, measure in MEASURES.items():
        if level is None:
            found = effects(networks, partial(at_end, measure=measure))
        elif name != "negative":  # known at three epochs only
            found = effects(networks, partial(at_loss, measure=measure, level=level))
        else:
            continue
        cells = [_cell(values, measure.log) for values in found.values()]
        rows.append((measure.label + (", ×" if measure.log else ", +"), *cells, str(len(found["skips"]))))
    return markdown_table(("effect on", "batch norm", "skips", "interaction", "seeds"), rows)


def _cell(values: Sequence[float], log: bool) -> str:
    if not values:
        return "–"
    found = t_interval(values)
    mean, low, high = (math.exp(v) if log else v for v in (found.mean, found.low, found.high))
    form = ".3g" if log else "+.2f"
    return f"{mean:{form}}" + ("" if math.isnan(low) else f" ({low:{form}} to {high:{form}})")


def ends_table(depths: Mapping[int, Networks]) -> str:
    header = ("depth", "network", "train loss", "train accuracy, %", "test accuracy, %", "gap, points", "trace", "λ1")
    rows = []
    for depth, networks in depths.items():
        for v in VARIANTS:
            last = [t.checkpoints[-1] for (u, _), t in networks.items() if u == v and not t.diverged]
            if not last:
                continue
            scores = {name: [c.scores[name] for c in last] for name in last[0].scores}
            logs = {n: [x for c in last if (x := MEASURES[n].value(c)) is not None] for n in ("trace", "eigenvalue_1")}
            rows.append(
                (
                    str(depth),
                    v.label,
                    f"{t_interval(scores['train_loss']):.3f}",
                    f"{t_interval([100 * x for x in scores['train_accuracy']]):.1f}",
                    f"{t_interval([100 * x for x in scores['test_accuracy']]):.1f}",
                    f"{t_interval([x for c in last if (x := MEASURES['gap'].value(c)) is not None]):.1f}",
                    *(_cell(values, log=True) for values in logs.values()),
                )
            )
    return markdown_table(header, rows)


def trials_table(trials: Sequence[Trajectory]) -> str:
    """Show the networks that learning rates were chosen by, also for whether effects are the same at other rates."""
    rows = []
    for t in sorted(trials, key=lambda t: (as_residual(t.run.workload).depth, t.run.lr)):
        workload = as_residual(t.run.workload)
        last = t.checkpoints[-1] if t.checkpoints and not t.diverged else None
        cells = [f"{last.scores['train_loss']:.3f}", f"{100 * last.scores['test_accuracy']:.1f}"] if last else ["–"] * 2
        traces = [last.curvature.get(name) if last else None for name in ("unit_trace", "trace", "eigenvalue_1")]
        cells += ["–" if value is None else f"{value:.3g}" for value in traces]
        label = Variant(workload.batch_norm, workload.skip).label
        rows.append((str(workload.depth), f"{t.run.lr:g}", label, *cells))
    unit = MEASURES["unit_trace"].label
    header = ("depth", "learning rate", "network", "train loss", "validation accuracy, %", unit, "trace", "λ1")
    return markdown_table(header, rows)
