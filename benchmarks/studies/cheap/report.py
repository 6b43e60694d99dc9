"""The report: the picture, the verdicts, what is recommended, and what stands behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.studies.cheap import tables
from benchmarks.studies.cheap.contest import Plan
from benchmarks.studies.cheap.figures import draw
from benchmarks.studies.cheap.findings import BASE_ON_SPHERES, WHOLE_ON_SPHERES, Findings
from benchmarks.studies.cheap.noninferiority import POWER, NonInferiority, detectable, seeds_to_decide
from benchmarks.studies.cheap.rules import MARGIN, RULES
from benchmarks.studies.cheap.variants import WHOLE
from benchmarks.studies.study import preliminary

__all__ = ["recommendation", "report", "verdicts"]

TITLE = "Cheaper ascents"
QUESTION = (
    "How much of RSAM's accuracy is kept if the ascent is computed from a part of the batch, in some steps only, or "
    "along a direction that is already known?"
)
_PICTURE = (
    "Test accuracy minus that of an ascent from the whole batch in every step, mean over the cases with 95 % "
    "intervals, against gradient evaluations and processor time per step. Dashed: allowed loss of accuracy; dotted: "
    "allowed evaluations"
)
_OUTCOMES = {
    "holds": "Yes",
    "does not hold": "No",
    "undecided": "Undecided",
    "nothing to keep": "RSAM is not shown to gain anything that it could keep",
}
_NO_VERDICT = "**No verdict yet**, and nothing is recommended: the rules require all cases."
_LEGEND = (
    "Gradient evaluations (counted) and processor time (measured) are relative to a step without an ascent. Accuracy "
    "is on test data; differences are paired by seed and averaged over the cases. Intervals are Student's 95 % "
    "intervals over seeds, each with its own training examples, and are not corrected."
)
_PEERS = (
    "LookSAM of `pytorch_optimizer` takes norms and projections tensor by tensor, and not over all weights together as "
    "in its paper. Its first and second step are called separately, since its whole step would evaluate two gradients "
    "every time. At its default, an ascent in every 10th step, it collapses. In trials on MNIST-1D smaller learning "
    "rates did not mend that, and an ascent in every 2nd step did. `pytorch_optimizer` has neither Momentum-SAM nor "
    "ESAM. Friendly SAM here projects out the optimizer's momentum, while its paper subtracts a running mean of "
    "gradients. In ascents from a part of the batch or along the momentum, running averages of batch norm see "
    "perturbed weights."
)


def report(findings: Findings, plan: Plan, missing: Sequence[str], costs: str, directory: Path) -> str:
    """Draw the picture, and say all in Markdown.

    Parameters
    ----------
    findings : Findings
        The numbers.
    plan : Plan
        Seeds, and values of rho.
    missing : sequence of str
        Labels of cases that are not there.
    costs : str
        What all networks took.
    directory : Path
        Where the picture goes.
    """
    draw(findings, directory / ANSWER)
    said = [_NO_VERDICT] if missing else verdicts(findings)
    first = opening(TITLE, QUESTION, _PICTURE, [*preliminary(missing), *said])
    parts = [
        *first,
        DETAILS,
        "## Kernels on spheres",
        _LEGEND,
        tables.variants(findings, "spheres"),
        "## Plain weights",
        tables.variants(findings, "plain"),
        _PEERS,
        "## The choice",
        tables.candidates(findings),
        _planned(findings, plan),
        "## Does rho transfer?",
        tables.transfer(findings),
        "## Settings taken from `fair`",
        tables.settings(findings),
        "## How it was done",
        f"{_tuned(plan)} {costs}",
        "## Rules",
        RULES.strip(),
        "## What is recommended",
        said[-1],
    ]
    return "\n\n".join(parts)


def verdicts(findings: Findings) -> list[str]:
    """State the verdicts, and what is recommended."""
    chosen, found, moved = findings.contest.choice.variant, findings.verdict, findings.transfer
    differences = findings.difference(chosen, WHOLE_ON_SPHERES)
    gains = findings.difference(WHOLE_ON_SPHERES, BASE_ON_SPHERES)
    more = f"{len(differences)} seeds"
    if found.outcome == "undecided" and (needed := seeds_to_decide(differences, MARGIN)):
        more += f"; {needed} would decide at this mean and deviation"
    return [
        f"**Does `{chosen.label}` keep RSAM's accuracy to within {MARGIN} points at {found.evaluations:.3f} gradient "
        f"evaluations per step? {_OUTCOMES[found.outcome]}.** {_bounds(found.test)} ({more}). RSAM minus no ascent, at "
        f"RSAM's learning rate and decay: {found.gain:.2f} points; with as many seeds and this deviation, a gain of "
        f"{detectable(gains):.2f} would be shown with a probability of {POWER}. Whether an ascent pays against a base "
        "that is tuned for itself is a question for `fair`, not for this study.",
        f"**Does one rho along the whole gradient serve every part of the batch? {_OUTCOMES[moved.outcome]}.** "
        f"{_bounds(moved)}.",
        recommendation(findings),
    ]


def _bounds(test: NonInferiority) -> str:
    return f"{test.interval:.2f} points, one-sided 95 % bounds {test.lower:.2f} and {test.upper:.2f}"


def recommendation(findings: Findings) -> str:
    """Say in one sentence what the rows recommend, and with which rho."""
    variant = findings.recommended
    costs = f"{findings.mean_evaluations(variant):.3f} gradient evaluations per step"
    time = findings.time(variant)
    costs += f" and {time:.2f} times the processor time of no ascent" if time is not None else ""
    if variant.rho == "none":
        return f"**Recommended: {variant.call}**, since RSAM is not shown to be better here."
    rhos = ", ".join(f"{findings.contest.rhos[c.name, variant]:.2g} on {c.label}" for c in findings.cases)
    factor = findings.rho_factor(variant)
    rho = "rho" if variant.name == WHOLE else f"{factor:.1f} times the rho of an ascent from the whole batch"
    return f"**Recommended: {variant.call}, with {rho}** ({rhos}), at {costs}."


def _planned(findings: Findings, plan: Plan) -> str:
    choice = findings.contest.choice
    capped = f"; no more than {plan.most} were allowed" if choice.needed > choice.seeds else ""
    return (
        f"Means over the cases, on {len(plan.pilot)} pilot seeds. The mean difference of the chosen variant had a "
        f"standard deviation of {choice.deviation:.2f} points over seeds, for which the test needs {choice.needed} "
        f"seeds{capped}. The chosen variant, RSAM and no ascent have {choice.seeds} final seeds, other variants on "
        f"spheres {plan.shown}, and those on plain weights {plan.plain}."
    )


def _tuned(plan: Plan) -> str:
    tuning = plan.tuning
    return (
        f"The rho of each variant was chosen from {len(plan.factors)} values, {min(plan.factors):g} to "
        f"{max(plan.factors):g} times that of `fair`, by accuracy on validation images with right labels that are "
        f"never trained on. All values were tried with {len(tuning.first)} seed, and the best {tuning.kept} with "
        f"{len(tuning.second)} more. With the same seed, all methods share initialisation, training examples, their "
        "order and wrong labels."
    )
