"""Answer the four questions of a comparison on tasks by their rule, group by group."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.report.forest import Group, Line
from benchmarks.report.intervals import Comparison, compare, judged
from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.comparison.tables import Cases

__all__ = [
    "NAMES",
    "QUESTIONS",
    "RULE",
    "Answer",
    "answers",
    "forest",
    "improvement",
    "scored",
    "sentences",
    "unit",
    "values",
]

#: Scores as tables name them.
NAMES = {
    "accuracy": "accuracy, %",
    "longer_accuracy": "a tenth longer, %",
    "long_accuracy": "twice as long, %",
    "train_accuracy": "train, %",
    "log_error": "log₁₀ squared error",
    "longer_log_error": "log₁₀, a tenth longer",
    "long_log_error": "log₁₀, twice as long",
    "train_log_error": "log₁₀, train",
    "map": "MAP, %",
    "mean_rank": "mean rank",
}
#: What is compared, each over both bases: the ascent at equal epochs and at equal gradients, the ascent alone, and its
#: geometry.
QUESTIONS = {
    "equal epochs": (("rsam", "riemannian_sgd"), ("rsam_adam", "riemannian_adam")),
    "equal gradients": (("rsam", "riemannian_sgd_twice"), ("rsam_adam", "riemannian_adam_twice")),
    "same settings": (("rsam", "riemannian_sgd_alike"), ("rsam_adam", "riemannian_adam_alike")),
    "projected ascent": (("rsam", "projected_sam"), ("rsam_adam", "projected_sam_adam")),
}
#: Over which each question is asked, in the order of its pairs.
_BASES = ("SGD", "Adam")
#: How sentences begin.
_SENTENCES = {
    "equal epochs": "RSAM against its base at equal epochs",
    "equal gradients": "RSAM against its base at equal gradient evaluations",
    "same settings": "RSAM against its base at the same settings",
    "projected ascent": "RSAM against projected SAM",
}
RULE = """\
There are four questions: what an ascent is worth at equal epochs, at equal gradient evaluations, and by itself (the
base at the same settings), and whether its geometry matters. For each group of cases and each seed, take the mean over
the cases of how much better the first method scores than the second (of errors: their decrease), in the unit given with
the group: points of accuracy or of mean average precision (MAP), or powers of ten of an error. From these means comes
Student's 95 % interval over the seeds, simultaneous (Bonferroni) over all lines that answer the same question, with p
corrected likewise; nothing is corrected for there being four questions. It is *better* if the interval lies above 0,
*worse* if below, and *undecided* otherwise. A network that diverged has the score of one that has learnt nothing. The
rule was written before the runs, except for the third question, which was added when the results of the SPD network
were known and before any final trial of the hyperbolic and recurrent ones."""


def values(entry: Entry, score: str = "") -> list[float]:
    """List a score of each seed. A model that diverged gets the worst score of the case, and nan for other scores."""
    if score in ("", entry.case.score.name):
        return [entry.case.score.of(row) for row in entry.rows]
    unit = 1.0 if score == "mean_rank" else entry.case.score.unit
    return [math.nan if row.diverged else unit * row.scores.get(score, math.nan) for row in entry.rows]


def improvement(entry: Entry, base: Entry, score: str = "") -> list[float]:
    """Compare a method with its base, seed by seed, so that more is better."""
    smaller = entry.case.score.smaller or score == "mean_rank"
    return [(-1 if smaller else 1) * (a - b) for a, b in zip(values(entry, score), values(base, score), strict=True)]


@dataclass(frozen=True)
class Answer:
    """Comparison of one pair of methods over the cases of a group.

    Attributes
    ----------
    group : str
        Name of the group of cases.
    members : sequence of sequences of Entry
        The cases.
    question, base : str
        A key of :data:`QUESTIONS`, and over which base it is asked.
    method, other : str
        The pair.
    comparison : Comparison
        How much better the first is, in the mean over the cases.
    """

    group: str
    members: Cases
    question: str
    base: str
    method: str
    other: str
    comparison: Comparison


def answers(cases: Cases, asked: int) -> Iterator[Answer]:
    """Answer every question for each group of cases.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each case.
    asked : int
        Number of groups in all, complete or not.

    Yields
    ------
    Answer
        Group by group; in each, question by question, over both bases.
    """
    groups: dict[str, list[Sequence[Entry]]] = {}
    for case in cases:
        groups.setdefault(case[0].case.group, []).append(case)
    for group, members in groups.items():
        for question, pairs in QUESTIONS.items():
            for base, (method, other) in zip(_BASES, pairs, strict=True):
                of_seeds = zip(*(improvement(find(case, method), find(case, other)) for case in members), strict=True)
                comparison = compare([fmean(of_seed) for of_seed in of_seeds], asked * len(pairs))
                yield Answer(group, members, question, base, method, other, comparison)


def scored(label: str, entries: Sequence[Entry]) -> str:
    """Name the score of a case, or of a group of cases, beside its label."""
    return f"{label} ({NAMES[entries[0].case.score.name]})"


def unit(entries: Sequence[Entry]) -> str:
    """Name the unit in which scores of a case differ."""
    return "points" if entries[0].case.score.unit > 1 else "powers of ten"


def forest(cases: Cases, asked: int) -> list[Group]:
    """Lay out the answers for a forest plot."""
    groups: dict[str, Group] = {}
    for answer in answers(cases, asked):
        first = answer.members[0]
        empty = Group(scored(answer.group, first), [], f"RSAM is better by ({unit(first)})")
        line = Line(f"{answer.question}, {answer.base}", answer.comparison.simultaneous)
        group = groups.setdefault(answer.group, empty)
        groups[answer.group] = replace(group, lines=[*group.lines, line])
    return list(groups.values())


def sentences(cases: Cases, asked: int) -> list[str]:
    """Say the verdicts, one sentence per question: where RSAM is better or worse, and by how much."""
    given = list(answers(cases, asked))
    return [_sentence(question, [a for a in given if a.question == question]) for question in QUESTIONS]


def _sentence(question: str, given: Sequence[Answer]) -> str:
    parts = []
    for outcome in ("better", "worse"):
        decided = [a for a in given if judged(a.comparison.simultaneous) == outcome]
        where = [f"*{a.group}* over {a.base} ({a.comparison.interval.mean:.2f})" for a in decided]
        parts += [f"{outcome} on {'; '.join(where)}"] if where else []
    undecided = sum(judged(a.comparison.simultaneous) == "undecided" for a in given)
    rest = "undecided" if undecided == len(given) else f"undecided in {undecided} of {len(given)} comparisons"
    parts += [rest] if undecided else []
    return f"**{_SENTENCES[question]}:** {'; '.join(parts)}."
