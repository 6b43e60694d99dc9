"""That the report of the comparison is complete."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.methods import METHODS
from benchmarks.studies.comparison.report import report
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.images import tables
from benchmarks.studies.images.claims import c4, c5, c6
from benchmarks.studies.images.contestants import CONTESTANTS
from benchmarks.studies.images.report import RULES, judge
from tests.benchmarks.comparisons import ASKED, SEEDS, cells, made_up, table_of
from tests.benchmarks.entries import made_case, made_row


def of_equal_gradients(text: str) -> list[tuple[str, int]]:
    _, part = text.split("### At equal gradient evaluations")
    table = [line for line in part.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [(row["method"], int(row["epochs"])) for row in table_of("\n".join(table))]


def test_that_the_report_begins_with_question_picture_and_verdicts_in_a_sentence_each(whole) -> None:
    text, _, _ = whole
    headings = re.findall("^#+ .*$", text, re.MULTILINE)
    title, question, picture, verdicts, table, *_ = text.split("\n\n")
    assert title == "# Who wins?"
    assert question == "Is A better? **Preliminary**: without the lost < one>."
    assert re.fullmatch(r"!\[[^]]+\]\(answer\.svg\)", picture)
    assert [line[:6] for line in verdicts.splitlines()] == ["- **C4", "- **C5", "- **C6"]
    assert table == "## Verdicts"
    assert headings[1:3] == ["## Verdicts", "## Test accuracy"]


def test_that_the_report_shows_the_verdicts_of_the_main_cases(whole) -> None:
    text, _, cases = whole
    expected = [verdict(cases[:2]) for verdict in (c4, c5, c6)]
    assert judge(cases) == expected
    actual = cells(text, "claim")
    for verdict in expected:
        assert actual[verdict.claim][1] == f"**{verdict.outcome}**"
        assert f"- **{verdict.claim}.** " in text
    assert tables.verdicts(expected) in text
    assert tables.correlations(cases[:2]) in text
    assert tables.penalties(cases[:2]) in text


def test_that_the_report_counts_networks_and_names_what_is_missing(whole) -> None:
    text, _, cases = whole
    # 7 contestants and 2 more at equal gradients, then 7, then 3
    assert [len(case) for case in cases] == [9, 7, 3]
    assert f"{19 * SEEDS} networks, {SEEDS} seeds per method and case" in text
    assert "from 3 settings, all with 1 seed, the best 3 with 3 more" in text
    assert "**Preliminary**: without the lost < one>." in text


def test_that_the_table_at_equal_gradients_lists_each_method_once_at_sams_cost(whole) -> None:
    text, _, _ = whole
    listed = of_equal_gradients(text)
    assert sorted(label for label, _ in listed) == sorted(CONTESTANTS[name].label for name in ASKED)
    costs = {c.label: METHODS[c.method].gradients for c in CONTESTANTS.values()}
    for label, epochs in listed:
        # SAM takes 4 epochs at 2 gradients per step; the method's epochs are rounded, by up to half an epoch
        assert abs(epochs * costs[label] - 8) <= costs[label] / 2
    assert text.count("### At equal gradient evaluations") == 1
    # the table above has each method once, at the epochs of the case
    above = text.split("## made up, one")[1].split("###")[0]
    table = table_of("\n".join(line for line in above.splitlines() if line.startswith("|")))
    assert [row["method"] for row in table] == [CONTESTANTS[name].label for name in ASKED]
    assert {row["epochs"] for row in table} == {"4"}


@pytest.mark.parametrize("method", ["sgd", "rsam", "sam"])
def test_that_the_table_at_equal_gradients_lists_methods_whose_first_network_diverged(cheap, method, tmp_path) -> None:
    entries = made_up(made_case(ASKED, equal_gradients=True))
    for entry in entries:
        if entry.contestant.method == method:
            run = entry.rows[0].run
            entry.rows[0] = replace(made_row(run, diverged=True), measures=entry.rows[0].measures)
    text = report("Who wins?", "?", RULES, [entries], [], 1, Protocol(final=tuple(range(SEEDS))), "", tmp_path)
    assert sorted(label for label, _ in of_equal_gradients(text)) == sorted(CONTESTANTS[name].label for name in ASKED)


def test_that_a_report_without_a_main_case_has_no_verdicts(cheap, tmp_path) -> None:
    entries = made_up(made_case(ASKED, main=False))
    protocol = Protocol(final=tuple(range(SEEDS)))
    text = report("Who wins?", "?", RULES, [entries], ["main"], 1, protocol, "", tmp_path)
    assert "# Who wins?" in text
    assert "## Verdicts" not in text
    assert "answer.svg" not in text
    assert not (tmp_path / "answer.svg").exists()
