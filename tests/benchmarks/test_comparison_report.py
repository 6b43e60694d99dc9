"""That the report of the comparison shows the numbers of its rows, and its page needs nothing beside it."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from benchmarks.methods import METHODS
from benchmarks.report.intervals import compare
from benchmarks.report.page import write_report
from benchmarks.runs.configuration import Run
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results, Row
from benchmarks.runs.tuning import Protocol
from benchmarks.studies import NothingToReport
from benchmarks.studies.optimizers import figures, study, tables
from benchmarks.studies.optimizers.cases import Case, Contestant
from benchmarks.studies.optimizers.claims import Verdict, c4, c5, c6, find
from benchmarks.studies.optimizers.protocol import Entry, compete, count
from benchmarks.studies.optimizers.report import judge, report, summary
from benchmarks.studies.optimizers.study import OptimizersStudy
from tests.benchmarks.entries import Recorder, made_case, made_entry, made_row

ASKED = ("sgd", "sam", "peer_sam", "gradient_norm", "hessian_trace", "rsam", "rsam_stiefel")
MEASURES = ("gradient_norm", "trace", "top_eigenvalue", "sharpness", "distance")
SEEDS = 4


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made_up(case: Case, seeds: int = SEEDS, seed: int = 0) -> list[Entry]:
    """Entries of all contestants of a case, with numbers of which only the accuracies of a seed are related."""
    rng = generator(seed)
    base = rng.uniform(0.65, 0.75, seeds)
    return [
        made_entry(
            case,
            contestant.method,
            base + rng.uniform(0, 0.03) + rng.uniform(-0.004, 0.004, seeds),
            {name: rng.lognormal(size=seeds) for name in (*MEASURES, "trace_error")},
            rng.uniform(0.8, 1, seeds),
            epochs=contestant.epochs,
        )
        for contestant in case.contestants()
    ]


def cells(text: str, start: str) -> dict[str, list[str]]:
    """The rows of the first Markdown table of a text whose first header cell is this one, by their first cell."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    first = next(i for i, line in enumerate(lines) if line[0] == start)
    found = {}
    for line in lines[first:]:
        if len(line) != len(lines[first]):
            break
        found.setdefault(line[0], line)
    return found


def table_of(text: str) -> list[dict[str, str]]:
    """A Markdown table, a dict a row."""
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def percent(entry: Entry) -> np.ndarray:
    return np.array([100 * row.final_heldout_accuracy for row in entry.rows])


def shown(values: Sequence[float], digits: int) -> str:
    """Mean and half of scipy's 95 % interval."""
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return f"{np.mean(values):.{digits}f} ± {(high - low) / 2:.{digits}f}"


# ---- paired comparisons


@pytest.mark.parametrize("comparisons", [1, 2, 18])
def test_that_comparisons_are_scipys_paired_tests_after_bonferroni(comparisons) -> None:
    one, other = generator(1).normal(0.3, 1, 10), generator(2).normal(size=10)
    found = compare(list(one - other), comparisons)
    test = scipy.stats.ttest_rel(one, other)
    assert found.p == pytest.approx(min(1, comparisons * test.pvalue))
    for interval, level in ((found.interval, 0.95), (found.simultaneous, 1 - 0.05 / comparisons)):
        reference = test.confidence_interval(level)
        assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high))
        assert interval.mean == pytest.approx(np.mean(one - other))


@pytest.mark.parametrize("comparisons", [1, 3, 18])
@pytest.mark.parametrize("seed", range(5))
def test_that_the_simultaneous_interval_and_the_p_value_agree(seed, comparisons) -> None:
    found = compare(list(generator(seed).normal(0.9, 1, 10)), comparisons)
    assert (found.simultaneous.low > 0 or found.simultaneous.high < 0) == (found.p < 0.05)
    assert found.simultaneous.half_width >= found.interval.half_width


def test_that_equal_pairs_do_not_differ_and_constant_differences_do() -> None:
    assert compare([0.0, 0.0, 0.0]).p == 1
    assert compare([0.5, 0.5, 0.5]).p == 0
    assert compare([0.5, 0.5, 0.5]).interval.half_width == 0


def test_that_one_pair_tells_nothing() -> None:
    found = compare([3.0], 2)
    assert found.interval.mean == found.simultaneous.mean == 3
    assert all(map(math.isnan, (found.p, found.interval.half_width, found.simultaneous.half_width)))
    assert tables.p_value(found.p) == ""


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "< 0.001"), (0.0009, "< 0.001"), (0.0011, "0.001"), (0.0499, "0.050"), (1.0, "1.000")]
)
def test_that_p_values_are_printed_as_papers_do(p, text) -> None:
    assert tables.p_value(p) == text


# ---- tables


def test_that_the_table_of_a_case_shows_each_contestant_beside_sam() -> None:
    entries = made_up(made_case(ASKED))
    sam = find(entries, "sam")
    rows = table_of(tables.case_table(entries, sam))
    assert [row["method"] for row in rows] == [METHODS[e.contestant.method].label for e in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert row["epochs"] == "4"
        assert row["test accuracy, %"] == shown(percent(entry), 2)
        train = [100 * r.final_train_accuracy for r in entry.rows]
        assert row["train, %"] == f"{np.mean(train):.1f}"
        assert row["gap"] == f"{np.mean(train - percent(entry)):.1f}"
        if entry is sam:
            assert (row["minus SAM"], row["p"]) == ("", "")
        else:
            assert row["minus SAM"] == shown(percent(entry) - percent(sam), 2)
            # six methods are compared with SAM
            p = min(1, 6 * scipy.stats.ttest_rel(percent(entry), percent(sam)).pvalue)
            assert row["p"] == tables.p_value(p)
        labels = ("gradient norm", "Hessian trace", "top eigenvalue", "m-sharpness", "distance moved")
        for label, measure in zip(labels, MEASURES, strict=True):
            mean = scipy.stats.gmean([r.curvature[measure] for r in entry.rows])
            assert row[label] == f"{mean:.3g}"
        assert row["lr"] == "0.03"
        knob = METHODS[entry.contestant.method].knob
        assert row["knob"] == f"{knob.replace('_', ' ')} 0.1"
        assert row["validation, %"] == "60.0"
        assert row["ms a step"] == "10.0"
        assert row["diverged"] == ""
    assert len({row["p"] for row in rows}) > 3


def test_that_the_table_says_how_many_diverged_and_takes_curvature_of_the_others() -> None:
    case = made_case(("sam", "sgd"))
    sgd = made_entry(case, "sgd", [0.1, 0.6, 0.7], {"trace": [5.0, 2.0, 8.0]}, diverged=[0])
    sam = made_entry(case, "sam", [0.5, 0.6, 0.7], {"trace": [1.0, 1.0, 1.0]})
    found, other = table_of(tables.case_table([sgd, sam], sam))
    assert (found["diverged"], other["diverged"]) == ("1", "")
    assert found["Hessian trace"] == "4"
    assert found["top eigenvalue"] == "nan"
    assert found["test accuracy, %"] == shown([10.0, 60.0, 70.0], 2)


GRID = [(lr, knob) for lr in (0.01, 0.03, 0.1) for knob in (0.1, 0.2, 0.4)]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ((0.03, 0.2), ""),
        ((0.01, 0.2), "lr"),
        ((0.1, 0.2), "lr"),
        ((0.03, 0.1), "weight decay"),
        ((0.03, 0.4), "weight decay"),
        ((0.1, 0.1), "lr, weight decay"),
    ],
)
def test_that_settings_at_an_end_of_the_grid_are_flagged(setting, text) -> None:
    case = made_case()
    entry = made_entry(case, "sgd", [0.5, 0.6], grid=GRID, chosen=GRID.index(setting))
    sam = made_entry(case, "sam", [0.5, 0.7], grid=GRID, chosen=4)
    found, reference = table_of(tables.case_table([entry, sam], sam))
    assert found["at the edge"] == text
    assert reference["at the edge"] == ""


def test_that_the_knob_at_an_end_is_flagged_by_its_own_name() -> None:
    sam = made_entry(made_case(), "sam", [0.5, 0.7], grid=GRID, chosen=GRID.index((0.03, 0.4)))
    (row,) = table_of(tables.case_table([sam], sam))
    assert (row["at the edge"], row["knob"], row["lr"]) == ("rho", "rho 0.4", "0.03")


def test_that_the_overview_has_every_method_at_the_epochs_of_each_case() -> None:
    first = made_up(made_case(("sgd", "sam"), "one", equal_gradients=True))
    second = made_up(made_case(("sam", "rsam"), "two"), seed=1)
    assert [e.contestant.epochs for e in first] == [4, 4, 8]
    first_of_all = [first[2], *first[:2]]  # what took more epochs does not stand for its method, wherever it is
    rows = {row["test accuracy, %"]: row for row in table_of(tables.overview([first_of_all, second]))}
    assert list(rows) == ["SGD", "SAM", "RSAM, spheres"]
    for label, one, two in (("SGD", first[0], None), ("SAM", first[1], second[0]), ("RSAM, spheres", None, second[1])):
        assert rows[label]["made up, one"] == ("" if one is None else shown(percent(one), 1))
        assert rows[label]["made up, two"] == ("" if two is None else shown(percent(two), 1))


def test_that_the_table_of_verdicts_shows_simultaneous_intervals() -> None:
    wide, narrow = compare([1.0, 2.0, 4.0], 2), compare([-1.0, -1.01, -1.02], 2)
    verdicts = [
        Verdict("C4", "holds", [("a", wide), ("b", narrow)]),
        Verdict("C6", "undecided", [("c", compare([2.0]))]),
    ]
    rows = table_of(tables.verdicts(verdicts))
    assert [(row["claim"], row["verdict"], row["measured"]) for row in rows] == [
        ("C4", "**holds**", "a"),
        ("", "", "b"),
        ("C6", "**undecided**", "c"),
    ]
    for row, values in ((rows[0], [1.0, 2.0, 4.0]), (rows[1], [-1.0, -1.01, -1.02])):
        test = scipy.stats.ttest_1samp(values, 0)
        low, high = test.confidence_interval(0.975)
        assert row["interval"] == f"{low:.2f} to {high:.2f}"
        assert row["mean"] == f"{np.mean(values):.2f}"
        assert row["p"] == tables.p_value(2 * test.pvalue)


def test_that_penalties_are_compared_with_sgd_seed_by_seed() -> None:
    entries = made_up(made_case(ASKED, equal_gradients=True))
    for entry in entries:  # one that diverged tells nothing of curvature
        if entry.contestant.method == "rsam":
            entry.rows[1] = replace(entry.rows[1], curvature={})
    rows = table_of(tables.penalties([entries]))
    shown_methods = ["gradient_norm", "hessian_trace", "sam", "rsam", "rsam_stiefel"]
    assert [row["method"] for row in rows] == [METHODS[name].label for name in shown_methods]
    sgd, sam = find(entries, "sgd"), find(entries, "sam")
    for row, name in zip(rows, shown_methods, strict=True):
        entry = find(entries, name)
        for label, measure in zip(("gradient norm", "Hessian trace"), MEASURES[:2], strict=True):
            ratios = [
                a.curvature[measure] / b.curvature[measure]
                for a, b in zip(entry.rows, sgd.rows, strict=True)
                if a.curvature
            ]
            assert row[f"{label} / SGD's"] == f"{scipy.stats.gmean(ratios):.2f}"
        assert row["accuracy minus SGD"] == shown(percent(entry) - percent(sgd), 2)
        assert row["minus SAM"] == ("" if name == "sam" else shown(percent(entry) - percent(sam), 2))


def test_that_correlations_are_with_gap_and_accuracy_in_all_and_in_parts() -> None:
    methods = (*ASKED, "adamw", "riemannian_sgd", "rsam_pullback", "ambient_sam", "asam")
    case = made_case(methods)
    entries = made_up(case)
    rows = {row["rank correlation of"]: row for row in table_of(tables.correlations([entries]))}

    def reference(measure: str, target: Callable[[Row], float], manifolds: Sequence[str]) -> str:
        of_seeds = [
            scipy.stats.spearmanr(
                *zip(
                    *(
                        (e.rows[seed].curvature[measure], target(e.rows[seed]))
                        for e in entries
                        if METHODS[e.contestant.method].manifold in manifolds and e.contestant.method != "peer_sam"
                    ),
                    strict=True,
                )
            ).statistic
            for seed in range(SEEDS)
        ]
        return shown(of_seeds, 2)

    every = ("plain", "spheres", "stiefel")
    for label, measure in (("Hessian trace", "trace"), ("m-sharpness", "sharpness")):
        found = rows[f"{label}, gap"]
        assert found["made up, made"] == reference(measure, lambda r: r.gap, every)
        of_accuracy = rows[f"{label}, test accuracy"]
        assert of_accuracy["made up, made"] == reference(measure, lambda r: r.final_heldout_accuracy, every)
        for manifold in ("plain", "spheres"):
            part = rows[f"{label}, gap, {manifold} only"]
            assert part["made up, made"] == reference(measure, lambda r: r.gap, [manifold])
        assert f"{label}, gap, stiefel only" not in rows  # a single network does not correlate
    within = [
        scipy.stats.spearmanr([r.curvature["trace"] for r in e.rows], [r.gap for r in e.rows]).statistic
        for e in entries
        if e.contestant.method != "peer_sam"
    ]
    assert rows["Hessian trace, gap"]["within methods"].startswith(f"{np.mean(within):.2f} (p ")


# ---- the tables in the report


@pytest.fixture
def cheap(monkeypatch) -> None:
    """Figures that are not rendered, which is what takes the time of a report."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: path.touch())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, Path, list[list[Entry]]]:
    """The report on two main cases, the first with equal gradients, and a third, with its directory."""
    cases = [
        made_up(made_case(ASKED, "one", equal_gradients=True)),
        made_up(made_case(ASKED, "two"), seed=1),
        made_up(made_case(("sgd", "sam", "rsam"), "aside", main=False), seed=2),
    ]
    directory = tmp_path_factory.mktemp("report")
    protocol = Protocol(final=tuple(range(SEEDS)))
    return report("Who wins?", cases, ["the lost < one>"], protocol, directory), directory, cases


def of_equal_gradients(text: str) -> list[tuple[str, int]]:
    _, part = text.split("### At equal gradient evaluations")
    table = [line for line in part.split("\n## ")[0].splitlines() if line.startswith("|")]
    return [(row["method"], int(row["epochs"])) for row in table_of("\n".join(table))]


def test_that_the_report_begins_with_its_title_and_the_verdicts(whole) -> None:
    text, _, _ = whole
    headings = re.findall("^#+ .*$", text, re.MULTILINE)
    assert text.startswith("# Who wins?\n")
    assert headings[1:3] == ["## Verdicts", "## Test accuracy"]


def test_that_the_report_shows_the_verdicts_of_the_main_cases(whole) -> None:
    text, _, cases = whole
    expected = [verdict(cases[:2]) for verdict in (c4, c5, c6)]
    assert judge(cases) == expected
    found = cells(text, "claim")
    for verdict in expected:
        assert found[verdict.claim][1] == f"**{verdict.outcome}**"
        assert f"- **{verdict.claim}.** " in text
    assert tables.verdicts(expected) in text
    assert tables.correlations(cases[:2]) in text
    assert tables.penalties(cases[:2]) in text


def test_that_the_report_counts_networks_and_names_what_is_missing(whole) -> None:
    text, _, cases = whole
    # 7 contestants and 2 more at equal gradients, then 7, then 3
    assert [len(case) for case in cases] == [9, 7, 3]
    assert f"{19 * SEEDS} networks, {SEEDS} seeds a method and case" in text
    assert "from 3 settings: all with 1 seed, the best 3 with 3 more" in text
    assert "Not complete yet: the lost < one>." in text


def test_that_the_summary_is_written_with_verdicts_and_accuracies(whole) -> None:
    _, directory, cases = whole
    text = (directory / "summary.md").read_text(encoding="utf-8")
    assert text.strip() == summary(cases, ["the lost < one>"]).strip()
    assert cells(text, "claim")["C4"][1] == f"**{judge(cases)[0].outcome}**"
    assert cells(text, "test accuracy, %")["SAM"][1] == shown(percent(find(cases[0], "sam")), 1)


def test_that_the_table_at_equal_gradients_lists_each_method_once_at_sams_cost(whole) -> None:
    text, _, _ = whole
    listed = of_equal_gradients(text)
    assert sorted(label for label, _ in listed) == sorted(METHODS[name].label for name in ASKED)
    costs = {method.label: method.gradients for method in METHODS.values()}
    for label, epochs in listed:
        # SAM takes 4 epochs at 2 gradients a step; up to half an epoch of the method more or less
        assert abs(epochs * costs[label] - 8) <= costs[label] / 2
    assert text.count("### At equal gradient evaluations") == 1
    # and the table above it has each method at the epochs of the case, once
    above = text.split("## made up, one")[1].split("###")[0]
    table = table_of("\n".join(line for line in above.splitlines() if line.startswith("|")))
    assert [row["method"] for row in table] == [METHODS[name].label for name in ASKED]
    assert {row["epochs"] for row in table} == {"4"}


@pytest.mark.parametrize("method", ["sgd", "rsam", "sam"])
def test_that_the_table_at_equal_gradients_lists_methods_whose_first_network_diverged(cheap, method, tmp_path) -> None:
    entries = made_up(made_case(ASKED, equal_gradients=True))
    for entry in entries:
        if entry.contestant.method == method:
            run = entry.rows[0].run
            entry.rows[0] = replace(made_row(run, diverged=True), curvature=entry.rows[0].curvature)
    text = report("Who wins?", [entries], [], Protocol(final=tuple(range(SEEDS))), tmp_path)
    assert sorted(label for label, _ in of_equal_gradients(text)) == sorted(METHODS[name].label for name in ASKED)


def test_that_a_report_without_a_main_case_has_no_verdicts(cheap, tmp_path) -> None:
    entries = made_up(made_case(ASKED, main=False))
    assert "# Who wins?" in report("Who wins?", [entries], ["main"], Protocol(final=tuple(range(SEEDS))), tmp_path)


def test_that_differences_that_are_not_known_have_no_p_value() -> None:
    assert math.isnan(compare([1.0, math.nan, 2.0], 4).p)


# ---- figures


def drawn(monkeypatch, draw: Callable[[Path], None], path: Path) -> Figure:
    """The figure that is saved."""
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **options: kept.append(self))
    draw(path)
    (figure,) = kept
    return figure


def test_that_every_figure_of_the_report_is_written_and_shown(whole) -> None:
    text, directory, _ = whole
    shown_files = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    names = [f"{name}-{kind}.svg" for name in ("one", "two", "aside") for kind in ("intervals", "curves", "scatter")]
    assert shown_files == names
    assert sorted(path.name for path in directory.iterdir()) == sorted([*names, "summary.md"])
    for name in names:
        assert b"<svg" in (directory / name).read_bytes()


def test_that_figures_of_the_same_rows_are_the_same_bytes(whole, tmp_path) -> None:
    _, directory, cases = whole
    again = made_up(cases[1][0].contestant.case, seed=1)
    sam = find(again, "sam")
    figures.draw_intervals(again, sam, tmp_path / "two-intervals.svg")
    figures.draw_curves(again, tmp_path / "two-curves.svg")
    figures.draw_scatter(again, tmp_path / "two-scatter.svg")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (directory / path.name).read_bytes()
    assert (directory / "one-intervals.svg").read_bytes() != (directory / "two-intervals.svg").read_bytes()


def test_that_intervals_are_drawn_where_they_are(monkeypatch, tmp_path) -> None:
    entries = made_up(made_case(("sgd", "sam", "rsam"), equal_gradients=True))
    sam = find(entries, "sam")
    figure = drawn(monkeypatch, lambda path: figures.draw_intervals(entries, sam, path), tmp_path / "a.svg")
    (axes,) = figure.axes
    others = [entry for entry in entries if entry is not sam]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["SGD", "RSAM, spheres", "SGD, 8 epochs"]
    assert len(axes.containers) == len(others)
    for place, (container, entry) in enumerate(zip(axes.containers, others, strict=True)):
        test = scipy.stats.ttest_rel(percent(entry), percent(sam))
        low, high = test.confidence_interval(0.95)
        line, _, (bar,) = container.lines
        assert line.get_xdata() == pytest.approx([np.mean(percent(entry) - percent(sam))])
        ((left, y), (right, _)) = bar.get_segments()[0]
        assert (left, right, y) == pytest.approx((low, high, place))
    dots = [np.sort(line.get_xdata()) for line in axes.lines if line.get_marker() == "."]
    for values, entry in zip(dots, others, strict=True):
        assert values == pytest.approx(np.sort(percent(entry) - percent(sam)))


def test_that_curves_are_means_over_the_networks_that_did_not_diverge(monkeypatch, tmp_path) -> None:
    case = made_case(("sgd", "sam", "adamw"), equal_gradients=True)
    sgd = made_entry(case, "sgd", [0.4, 0.6, 0.1], diverged=[2])
    entries = [
        sgd,
        made_entry(case, "sam", [0.9, 0.9], diverged=[0, 1]),
        made_entry(case, "adamw", [0.3, 0.3]),
        made_entry(case, "sgd", [0.3, 0.3], epochs=8),
    ]
    for i, row in enumerate(sgd.rows[:2]):
        sgd.rows[i] = replace(row, heldout_accuracy=[0.1, 0.2, 0.3, row.final_heldout_accuracy])
    figure = drawn(monkeypatch, lambda path: figures.draw_curves(entries, path), tmp_path / "a.svg")
    *_, test = figure.axes
    (line,) = test.lines  # AdamW is not among those that are drawn, all networks of SAM diverged
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert line.get_ydata() == pytest.approx([10, 20, 30, 50])


def test_that_every_network_with_curvature_is_a_point_of_the_scatter(monkeypatch, tmp_path) -> None:
    entries = made_up(made_case(ASKED))
    entries[1].rows[0] = replace(entries[1].rows[0], curvature={})
    figure = drawn(monkeypatch, lambda path: figures.draw_scatter(entries, path), tmp_path / "a.svg")
    for axes, measure in zip(figure.axes, MEASURES[:4], strict=True):
        points = {(x, y) for line in axes.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
        rows = [row for entry in entries for row in entry.rows if row.curvature]
        assert points == {(row.curvature[measure], 100 * row.final_heldout_accuracy) for row in rows}
        assert len(points) == len(ASKED) * SEEDS - 1


# ---- the study


def made_by_number(run: Run) -> Row:
    """A row whose numbers depend on the run, without training."""
    rng = generator(int(run.key, 16))
    curvature = {name: float(rng.lognormal()) for name in (*MEASURES, "trace_error")} if run.curvature else {}
    return made_row(run, float(rng.uniform(0.5, 0.8)), curvature=curvature)


TINY = OptimizersStudy(
    name="tiny",
    summary="",
    title="Tiny",
    cases=(made_case(ASKED, "first"), made_case(ASKED, "second", template={"label_noise": 0.4})),
    little=(),
    protocol=Protocol(first=(100,), kept=1, second=(101,), final=(0, 1)),
    settings=study.corners,
)


def fill(directory: Path, case: Case, but: Callable[[Run], bool] = lambda run: False) -> None:
    """Put the rows of a case where a study looks for them."""
    results = Results(directory / "runs.jsonl", Row)
    recorder = Recorder(made_by_number)
    compete(case, recorder, TINY.protocol, TINY.settings)
    for run in recorder.runs:
        if not but(run):
            results.append(made_by_number(run))


@pytest.mark.parametrize("nothing", ["no file", "half a case"])
def test_that_without_a_complete_case_there_is_nothing_to_report(cheap, tmp_path, nothing) -> None:
    if nothing == "half a case":
        fill(tmp_path, TINY.cases[0], but=lambda run: run.seed == 1)
    with pytest.raises(NothingToReport, match=re.escape(str(tmp_path / "runs.jsonl"))):
        TINY.report(tmp_path)


@pytest.mark.parametrize(
    "missing",
    [
        lambda run: True,
        lambda run: run.method == "rsam_stiefel" and run.seed == 1,
        lambda run: run.method == "sgd" and run.seed == 100,
        lambda run: run.seed == 101,
    ],
    ids=["all", "a final run", "first seeds", "second seeds"],
)
def test_that_a_case_that_is_not_complete_is_named(cheap, tmp_path, missing) -> None:
    fill(tmp_path, TINY.cases[0])
    fill(tmp_path, TINY.cases[1], but=missing)
    text = TINY.report(tmp_path)
    assert text.startswith("# Tiny\n")
    assert "Not complete yet: made up, second." in text
    assert "## made up, first" in text
    assert "## made up, second" not in text
    assert (tmp_path / "first-intervals.svg").is_file()
    assert not (tmp_path / "second-intervals.svg").exists()


def test_that_a_report_on_all_cases_names_none(cheap, tmp_path) -> None:
    for case in TINY.cases:
        fill(tmp_path, case)
    before = (tmp_path / "runs.jsonl").read_bytes()
    text = TINY.report(tmp_path)
    assert "Not complete" not in text
    assert re.findall("^## made up, ([a-z]+) ", text, re.MULTILINE) == ["first", "second"]
    assert TINY.report(tmp_path) == text
    assert (tmp_path / "runs.jsonl").read_bytes() == before


def test_that_the_report_is_on_the_rows_of_the_file(cheap, tmp_path) -> None:
    fill(tmp_path, TINY.cases[0])
    found = cells(TINY.report(tmp_path), "test accuracy, %")
    entries = compete(TINY.cases[0], Recorder(made_by_number), TINY.protocol, TINY.settings)
    for entry in entries:
        assert found[METHODS[entry.contestant.method].label] == [
            METHODS[entry.contestant.method].label,
            shown(percent(entry), 1),
        ]


def here(*arguments: object, bar: object, **options: object) -> list[Row]:
    """``collect`` in this process: what it would send to workers is called."""
    runs, train, results, _ = arguments
    found = results.find(runs)  # type: ignore[attr-defined]
    for run in runs:  # type: ignore[attr-defined]
        if run not in found:
            results.append(train(run))  # type: ignore[attr-defined, operator]
        bar.update()  # type: ignore[attr-defined]
    return collect(runs, train, results, Workers(), bar=None)  # type: ignore[arg-type]


def test_that_a_study_trains_what_is_missing_once_and_skips_cases_without_data(
    monkeypatch, cheap, tmp_path, capsys
) -> None:
    trained: list[Run] = []

    def train(run: Run) -> Row:
        trained.append(run)
        return made_by_number(run)

    monkeypatch.setenv("RSAM_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(study, "trainer", lambda directory, workers: train)
    monkeypatch.setattr(study, "collect", here)
    absent = made_case(ASKED, "absent", template={"dataset": "imagefolder:absent"})
    tiny = replace(TINY, cases=(absent, *TINY.cases))
    fill(tmp_path, TINY.cases[0], but=lambda run: run.seed in (0, 101))

    tiny.run(tmp_path, Workers())
    printed = capsys.readouterr().err
    assert "skipped: made up, absent: imagefolder:absent" in printed
    total = sum(count(case, TINY.protocol, TINY.settings) for case in TINY.cases)
    assert f"{total}/{total}" in printed
    assert {run.dataset for run in trained} == {"digits"}
    of_first = [run for run in trained if run.label_noise == TINY.cases[0].template.label_noise]
    assert {run.seed for run in of_first} == {0, 101}
    assert len(set(trained)) == len(trained) == len(of_first) + count(TINY.cases[1], TINY.protocol, TINY.settings)
    assert "Not complete yet: made up, absent." in tiny.report(tmp_path)

    trained.clear()
    tiny.run(tmp_path, Workers())
    assert trained == []


# ---- the page


class Page(HTMLParser):
    """What a page refers to, its text and its cells, and what surrounds its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[str] = []
        self.cells: list[str] = []
        self.title = ""
        self.tags: list[str] = []
        self.around_tables: list[tuple[str, str | None]] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.references += [attributes[name] or "" for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "table":
            self.around_tables.append(self._open[-1])
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in ("meta", "link", "img", "br", "hr"):
            self._open.append((tag, attributes.get("class")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "title":
            self.title += data
        if any(tag in ("td", "th") for tag, _ in self._open):
            self.cells[-1] += data


def test_that_the_page_of_a_report_holds_its_images_and_refers_to_nothing_else(whole) -> None:
    text, directory, _ = whole
    plain, page = write_report(text, directory)
    assert plain.read_text(encoding="utf-8").strip() == text.strip()
    found = Page(page)
    images = [reference for reference in found.references if reference.startswith("data:image/svg+xml;base64,")]
    assert [base64.b64decode(image.split(",")[1]) for image in images] == [
        (directory / name).read_bytes() for name in re.findall(r"\]\(([^)]+\.svg)\)", text)
    ]
    assert len(images) == 9
    assert all(reference.startswith("data:") for reference in found.references)
    markup = re.sub(r'"data:[^"]*"', "", page.read_text(encoding="utf-8"))
    for outside in ("://", "@import", "url(", "<script", ".svg"):
        assert outside not in markup
    assert found.title == "Who wins?"
    assert "iframe" not in found.tags


def test_that_the_page_has_the_tables_of_the_report_cell_by_cell(whole) -> None:
    text, directory, _ = whole
    found = Page(write_report(text, directory)[1])
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| --")]
    expected = [cell.strip().replace("**", "") for line in lines for cell in line.split("|")[1:-1]]
    assert found.cells == expected
    assert found.around_tables == [("div", "scroll")] * len(re.findall(r"^\| -", text, re.MULTILINE))


def test_that_tables_scroll_by_themselves(tmp_path) -> None:
    page = write_report("# T\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n", tmp_path)[1]
    assert Page(page).around_tables == [("div", "scroll")]
    style = page.read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", style)


def test_that_special_characters_survive(tmp_path) -> None:
    text = '# a < b & "c" {0}\n\n| p | q & r |\n| --- | ---: |\n| < 0.001 | x & y |\n| a<b | 1 > 0 ± é |\n'
    plain, page = write_report(text, tmp_path)
    assert plain.read_text(encoding="utf-8") == text
    found = Page(page)
    assert found.title == 'a < b & "c" {0}'
    assert found.cells == ["p", "q & r", "< 0.001", "x & y", "a<b", "1 > 0 ± é"]


def test_that_the_title_cannot_end_the_head(tmp_path) -> None:
    page = write_report("# a</title><b>b\n\ntext\n", tmp_path)[1].read_text(encoding="utf-8")
    assert "<title>a&lt;/title&gt;&lt;b&gt;b</title>" in page.split("<body>")[0]


def test_that_braces_and_backslashes_are_left_as_they_are(tmp_path) -> None:
    assert "{title} \\1 {0}" in write_report("# T\n\n{title} \\1 {0}\n", tmp_path)[1].read_text(encoding="utf-8")


def test_that_images_of_every_kind_are_in_the_page(tmp_path) -> None:
    (tmp_path / "a b.png").write_bytes(b"\x89PNG 1")
    (tmp_path / "c&d.svg").write_bytes(b"<svg/>")
    page = write_report("# T\n\n![one](<a b.png>)\n\n![two](c&d.svg)\n", tmp_path)[1]
    one, two = (reference for reference in Page(page).references if len(reference) > len("data:,"))
    assert one == "data:image/png;base64," + base64.b64encode(b"\x89PNG 1").decode()
    assert two == "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()


def test_that_an_image_that_is_not_there_is_an_error(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lost\.svg"):
        write_report("# T\n\n![lost](lost.svg)\n", tmp_path)


def test_that_contestants_at_other_epochs_are_not_taken_for_those_of_the_case() -> None:
    case = made_case(("sgd", "sam"), equal_gradients=True)
    late, early = made_entry(case, "sgd", [0.5], epochs=8), made_entry(case, "sgd", [0.6])
    assert find([late, early], "sgd") is early
    assert late.contestant == Contestant(case, "sgd", 8)
