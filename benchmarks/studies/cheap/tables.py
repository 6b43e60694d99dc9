"""Tables of the study."""

from __future__ import annotations

from benchmarks.report.intervals import t_interval
from benchmarks.report.table import markdown_table
from benchmarks.run import Run
from benchmarks.studies.cheap.contest import CANDIDATES, differences
from benchmarks.studies.cheap.findings import Findings
from benchmarks.studies.cheap.variants import TRANSFERRED, VARIANTS, WHOLE, Kernels, Variant, find

__all__ = ["candidates", "settings", "transfer", "variants"]


def variants(findings: Findings, kernels: Kernels) -> str:
    """Show every variant on these kernels: costs, accuracy in each case, and the difference from the whole batch."""
    rows = []
    for v in VARIANTS:
        if v.kernels != kernels:
            continue
        time = findings.time(v)
        rows.append(
            (
                v.label,
                f"{findings.mean_evaluations(v):.3f}",
                "–" if time is None else f"{time:.2f}",
                *(f"{findings.accuracy(v, case):.1f}" for case in findings.cases),
                "" if v.name == WHOLE else f"{findings.minus_whole(v):.2f}",
                *(_rho(findings, v, case.name) for case in findings.cases),
            )
        )
    labels = [case.label for case in findings.cases]
    header = (
        "ascent",
        "evaluations",
        "time",
        *(f"{label}, %" for label in labels),
        "minus the whole batch",
        *(f"rho, {label}" for label in labels),
    )
    return markdown_table(header, rows)


def _rho(findings: Findings, variant: Variant, case: str) -> str:
    """Write rho, and whether it was chosen at an end of what was tried."""
    if variant.rho == "none":
        return ""
    tuned = findings.contest.tuned.get((case, variant))
    at_edge = tuned is not None and tuned.at_edge(lambda run: run.rho)
    return f"{findings.contest.rhos[case, variant]:.3g}" + " (at the edge)" * at_edge


def candidates(findings: Findings) -> str:
    """Show what was chosen from."""
    choice = findings.contest.choice
    rows = [
        (v.label + ", chosen" * (v == choice.variant), f"{v.evaluations:.3f}", f"{choice.validation[v]:.2f}")
        for v in CANDIDATES
    ]
    return markdown_table(("candidate", "evaluations", "validation accuracy minus that of the whole batch"), rows)


def transfer(findings: Findings) -> str:
    """Show how rho of the whole batch transfers to its parts."""
    rows, contest = [], findings.contest
    for one, other in TRANSFERRED.items():
        moved, tuned = find("spheres", one), find("spheres", other)
        for case in findings.cases:
            key = case.name, tuned
            whole = contest.rhos[case.name, find("spheres", WHOLE)]
            lost = differences(contest.rows[case.name, moved], contest.rows[key])
            cosine = contest.cosines[case.name].mean(tuned.part)
            rows.append(
                (
                    tuned.label,
                    case.label,
                    f"{cosine:.2f}",
                    f"{contest.rhos[case.name, moved]:.3g}",
                    f"{contest.rhos[key]:.3g}",
                    f"{contest.rhos[key] * cosine / whole:.2f}",
                    f"{t_interval(lost):.2f}",
                )
            )
    header = (
        "part",
        "case",
        "cosine",
        "rho transferred",
        "rho tuned",
        "component of tuned rho along the whole gradient / rho of the whole batch",
        "accuracy with rho transferred minus tuned",
    )
    return markdown_table(header, rows)


def settings(findings: Findings) -> str:
    """Show the settings that were taken over."""
    rows = [(case.label, kernels, *_setting(run)) for case in findings.cases for kernels, run in case.settings.items()]
    return markdown_table(("case", "kernels", "lr", "factor of the kernels' lr", "weight decay", "rho", "epochs"), rows)


def _setting(run: Run) -> tuple[str, ...]:
    factor = f"{run.kernel_rate:.3g}" if run.kernel_rate != 1 else ""
    return f"{run.lr:.3g}", factor, f"{run.weight_decay:.3g}", f"{run.rho:.3g}", str(run.epochs)
