"""The report of the population."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from benchmarks.methods import METHODS
from benchmarks.report.forest import draw_forest
from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.report.table import markdown_table
from benchmarks.studies.population import figures, tables
from benchmarks.studies.population.claims import (
    carried_further,
    carried_over,
    given_the_loss,
    predicted,
    primary,
    usable,
)
from benchmarks.studies.population.design import PLACES, Member
from benchmarks.studies.population.features import at_end, at_matched_level, matched_level, of_length
from benchmarks.studies.population.ranks import FEWEST
from benchmarks.studies.population.rules import CHANCE, EARLY, PRIMARY, RULES
from benchmarks.studies.population.training import Trajectory
from benchmarks.studies.population.verdicts import Findings, all_findings, overcome, verdicts

__all__ = ["report"]

TITLE = "Margins, curvature and the generalisation gap"
QUESTION = "Do margins and curvature predict the generalisation gap of networks that were not tuned?"


def report(
    by_place: Mapping[str, Mapping[Member, Trajectory]],
    missing: list[str],
    costs: str,
    directory: Path,
    frozen: Mapping[str, str] | None = None,
    held_back: Mapping[Member, Trajectory] | None = None,
    wrong_labels: Mapping[str, Mapping[Member, Trajectory]] | None = None,
) -> str:
    """Write the report, and its figures into the directory.

    Parameters
    ----------
    by_place : mapping
        Networks with right labels by the label of their data set.
    missing : list of str
        Warnings about networks that are not there yet.
    costs : str
        What all of it took.
    directory : Path
        Where the figures go.
    frozen : mapping of str to str, optional
        Sets of features that were chosen to overcome C3, if they have been, and what they are.
    held_back : mapping, optional
        Networks of the data set on which they are read.
    wrong_labels : mapping, optional
        Networks that were trained with some wrong labels, by the label of their data set.
    """
    known, learned = all_findings(by_place), all_findings(by_place, learned=True)
    if known:
        draw_forest(figures.claim_groups(known, learned), directory / ANSWER)
        places = " and ".join(by_place)
        picture = f"Numbers that decide C1 to C4 on {places}, and in grey the same without networks at chance level"
        sentences = verdicts(known)
    else:
        picture, sentences = "", ["**Too few networks for verdicts.**"]
    if frozen and held_back:
        sentences[3:3] = _overcome(frozen, held_back, list(by_place))  # after what is said of C3
    sentences += [*_of_fitting(by_place), *_left_out(by_place)]
    parts = [*opening(TITLE, QUESTION, picture, [*missing, *sentences]), DETAILS]
    parts += ["## Rules, written beforehand", RULES, costs.strip(), *_figures(by_place, directory)]
    for label, networks in tqdm(by_place.items(), desc="tables", unit="data set", file=sys.stderr):
        parts += _of_place(label, networks, known.get(label), learned.get(label))
    for label, networks in (wrong_labels or {}).items():
        parts += _with_wrong_labels(label, networks)
    return "\n\n".join(parts)


def _overcome(frozen: Mapping[str, str], networks: Mapping[Member, Trajectory], others: list[str]) -> list[str]:
    """Read frozen features on the data set that was held back, beside the baseline on the same networks."""
    ends = at_end(networks)
    full, short = (of_length(usable(ends, *frozen), length) for length in ("full", "quarter"))
    alone = ["loss and accuracy"]
    found, baseline = (carried_over(full, short, *names, leave_out=False) for names in (frozen, alone))
    more = carried_further(full, short, list(frozen), alone, leave_out=False)
    features = " and ".join(f"{name} ({words})" for name, words in frozen.items())
    label = PLACES[next(iter(networks)).place].label
    if found is None or baseline is None or more is None:
        return [f"**C3 not overcome** by {features}: too few networks on {label} have them."]
    of_all = len(of_length(ends, "quarter"))
    read = f"its {of_all}" if found.others == of_all else f"{found.others} of its {of_all}"
    sentence = (
        f"**C3 {overcome(found, baseline)}** by {features}, chosen without {label}: on {read} short networks R² is "
        f"{found.r2:.2f} and the bias {found.bias:.1f} points (loss and accuracy alone: {baseline.r2:.2f} and "
        f"{baseline.bias:.1f}). By the rule estimates decide it, not intervals."
    )
    return [
        f"{sentence}\n  R² is larger than that of loss and accuracy alone by {more:.2f}. The model is fitted to "
        f"full-length networks of the same base configurations; {len(tables.CARRIED)} sets of features, including "
        f"baselines, were tried on {' and '.join(others)}."
    ]


def _figures(by_place: Mapping[str, Mapping[Member, Trajectory]], directory: Path) -> list[str]:
    figures.draw_gaps(by_place, directory / "gaps.svg")
    figures.draw_times(by_place, directory / "times.svg")
    parts = [
        "## Figures",
        "![Predicted against true gaps](gaps.svg)",
        "![R² of margins, and of loss and accuracy, during the training of full-length networks](times.svg)",
    ]
    if correlations := {label: c for label, networks in by_place.items() if (c := primary(networks))}:
        figures.draw_axes(correlations, directory / "axes.svg")
        parts.append("![Rank correlation between curvature and test error by axis](axes.svg)")
    return parts


def _of_place(
    label: str, networks: Mapping[Member, Trajectory], known: Findings | None, learned: Findings | None
) -> list[str]:
    found, matched = primary(networks), matched_level(networks)
    given, by_outcome = given_the_loss(at_matched_level(networks), PRIMARY), tables.correlations(networks)
    carried, back = tables.carried(networks)
    return [
        f"## {label}",
        *_summary(networks),
        *_of_those_that_learned(known, learned),
        "### C1: what predicts the gap at the end of training",
        "Columns: all networks; those of full length; within an architecture (after subtracting the means of all its "
        "networks, including left-out configurations); and networks that fit their data. Headers give the number of "
        "networks. A cell is empty where there are too few networks for the features.",
        *_by_kind(tables.prediction(networks)),
        "Fraction of each baseline's squared error in k-fold prediction that margins remove:",
        markdown_table(["baseline", "partial R²"], tables.added(networks)),
        "### C2: R² through training",
        "k-fold R² for the gap at the same time, over full-length networks; in rows with a training loss, over "
        "networks of both lengths:",
        *_by_time(networks),
        "### C3: models carried over",
        "Each network is predicted by a model fitted without its fold; error and bias are in points. The last column "
        "compares with loss and accuracy on the same networks, whose own R² may be far below 0. Models of full-length "
        "networks at the end of training, applied to short networks at the end of theirs:",
        carried,
        "Models of short networks, applied to full-length networks:",
        back,
        "Models of full-length networks at one fraction of training, applied to the same networks at another, with one "
        "set of features each. Cells are empty where networks cannot be compared with others at that time.",
        *_by_kind(tables.carried_in_time(networks)),
        "### C4: curvature and test error",
        f"By axis, for the {tables.CURVATURES[PRIMARY]}, at training loss {matched}. Axes with fewer than {FEWEST} "
        "pairs of networks that both reach this loss are left out. Bounds are over all pairs, if the other pairs all "
        "disagreed or all agreed:",
        tables.axes(networks, found),
        f"Mean over axes after regressing the ranks of both on the rank of the training loss: {given.average:.2f}."
        if given
        else "",
        "Mean over axes by measure and training loss, with the number of axes in parentheses. Losses at which no axis "
        f"has {FEWEST} pairs are left out. \\*: differs from 0 after Holm's correction over test error, gap, measures "
        "of curvature and losses, without the number that decides C4. Test error:",
        by_outcome["test_error"],
        "The gap:",
        by_outcome["gap"],
        f"Test error at training loss {matched}, predicted from margins and curvature:",
        tables.joint(networks),
        "Fraction of squared error in k-fold prediction that each removes when added to the other:",
        markdown_table(["features", "partial R²"], tables.joint_parts(networks)),
        "### Networks that reach each training loss",
        "Width, rate and decay are given as levels, from low to high; "
        "[design.py](../../studies/population/design.py) defines them.",
        tables.reached(networks),
    ]


def _of_those_that_learned(known: Findings | None, learned: Findings | None) -> list[str]:
    """Set the numbers that decide C1 to C3 beside those without networks at chance."""
    if known is None or learned is None:
        return []
    rows = [
        (claim, features, *(f"{number(found):.2f}" for found in (known, learned)))
        for claim, features, number in (
            ("C1, adjusted R² at the end", "margins", lambda f: f.margins.adjusted),
            ("", "loss and accuracy", lambda f: f.baseline.adjusted),
            ("C1, what margins add to loss and accuracy", "margins", lambda f: f.added),
            (f"C2, R² at {EARLY:.0%} as a fraction of that at the end", "margins", lambda f: f.early),
            ("", "loss and accuracy", lambda f: f.early_baseline),
            ("C3, R² on short networks", "margins", lambda f: f.carried.r2),
            ("", "loss and accuracy", lambda f: f.carried_baseline.r2),
            ("C3, bias on short networks, points", "margins", lambda f: f.carried.bias),
            ("", "loss and accuracy", lambda f: f.carried_baseline.bias),
        )
    ]
    header = ["number", "features", "all networks", f"training accuracy ≥ {CHANCE:.0%}"]
    return ["Numbers that decide, with and without networks at chance level:", markdown_table(header, rows)]


def _with_wrong_labels(label: str, networks: Mapping[Member, Trajectory]) -> list[str]:
    parts = sorted({member.label_noise for member in networks})
    return [
        f"## {label}, {' or '.join(f'{part:.0%}' for part in parts)} wrong labels",
        "Base configurations only, apart from all verdicts. Training accuracy is on the labels as trained on.",
        *_summary(networks),
        *_by_kind(tables.prediction(networks)),
        "k-fold R² during the training of full-length networks:",
        tables.by_time(networks)[0],
    ]


def _by_kind(made: Mapping[str, str]) -> list[str]:
    """Put the name of what a table shows above each."""
    return [part for kind, table in made.items() for part in (f"*{kind}*", table)]


def _by_time(networks: Mapping[Member, Trajectory]) -> list[str]:
    margins, baselines, correlation = tables.by_time(networks)
    return [
        margins,
        "k-fold R² of all baselines:",
        baselines,
        "Correlation of predictions with the gap, which does not penalise predictions that are all too large:",
        correlation,
    ]


def _of_fitting(by_place: Mapping[str, Mapping[Member, Trajectory]]) -> list[str]:
    """Say what margins predict among networks that fit their data, where loss and accuracy hardly differ."""
    said = []
    for label, networks in by_place.items():
        points = tables.fitting(usable(at_end(networks), "margins"))
        sets = ("margins", "constrained margins", "loss and accuracy")
        plain, constrained, alone = (predicted(points, names) for names in sets)
        if plain and constrained and alone:
            said.append(
                f"on {label} k-fold R² is {plain.held_out:.2f} of margins and {constrained.held_out:.2f} of "
                f"constrained margins (loss and accuracy alone: {alone.held_out:.2f})"
            )
    if not said:
        return []
    return [f"**Among networks that fit their data** (no verdict): {'; '.join(said)}."]


def _left_out(by_place: Mapping[str, Mapping[Member, Trajectory]]) -> list[str]:
    """Say how many networks have no margins at the end, and how they were trained."""
    counts = []
    for label, networks in by_place.items():
        lacking = Counter(member.hyperparameters["optimizer"] for member in _without_margins(networks))
        if lacking:
            methods = ", ".join(f"{count} of {METHODS[name].label}" for name, count in lacking.most_common())
            counts.append(f"{lacking.total()} networks on {label} ({methods})")
    if not counts:
        return []
    return [
        f"**Left out of every R²:** {' and '.join(counts)} have no margins at the end, for example because outputs do "
        "not depend on inputs."
    ]


def _without_margins(networks: Mapping[Member, Trajectory]) -> list[Member]:
    ends = at_end(networks)
    known = {point.member for point in usable(ends, "margins")}
    return [point.member for point in ends if point.member not in known]


def _summary(networks: Mapping[Member, Trajectory]) -> list[str]:
    diverged, without = sum(t.diverged for t in networks.values()), len(_without_margins(networks))
    header = ["training", "networks", "train accuracy, %", "gap, points", f"fit (≥ {100 * tables.FIT:.0f} %)"]
    return [
        f"{len(networks)} networks, of which {diverged} diverged. {without} of the others have no margins at the end, "
        "for example because outputs do not depend on inputs; every R² is over networks that have margins.",
        markdown_table(header, tables.summary(networks)),
    ]
