"""That the figures of the comparison draw the numbers of its rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure

from benchmarks.studies.comparison.contest import find
from benchmarks.studies.images import figures
from tests.benchmarks.comparisons import ASKED, MEASURES, SEEDS, made_up, percent
from tests.benchmarks.entries import made_case, made_entry


def drawn(monkeypatch, draw: Callable[[Path], None], path: Path) -> Figure:
    """Record the figure that is saved."""
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **options: kept.append(self))
    draw(path)
    (figure,) = kept
    return figure


def test_that_every_figure_of_the_report_is_written_and_shown(whole) -> None:
    text, directory, _ = whole
    shown_files = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    names = [f"{name}-{kind}.svg" for name in ("one", "two", "aside") for kind in ("intervals", "curves", "scatter")]
    assert shown_files == ["answer.svg", *names]
    assert sorted(path.name for path in directory.iterdir()) == sorted(shown_files)
    for name in shown_files:
        assert b"<svg" in (directory / name).read_bytes()


def test_that_figures_of_the_same_rows_are_the_same_bytes(whole, tmp_path) -> None:
    _, directory, cases = whole
    again = made_up(cases[1][0].case, seed=1)
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
    titles = [text.get_text() for text in axes.texts if text.get_text()]
    assert titles == ["plain weights", "spheres", "at equal gradient evaluations"]
    assert len(axes.containers) == len(others)
    for place, container, entry in zip(axes.get_yticks(), axes.containers, others, strict=True):
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
        made_entry(case, case.contestants[-1], [0.3, 0.3]),
    ]
    for i, row in enumerate(sgd.rows[:2]):
        sgd.rows[i] = replace(row, curves={**row.curves, "accuracy": [0.1, 0.2, 0.3, row.scores["accuracy"]]})
    figure = drawn(monkeypatch, lambda path: figures.draw_curves(entries, path), tmp_path / "a.svg")
    *_, test = figure.axes
    (line,) = test.lines  # AdamW is never drawn, and all networks of SAM diverged
    assert list(line.get_xdata()) == [1, 2, 3, 4]
    assert line.get_ydata() == pytest.approx([10, 20, 30, 50])


def test_that_every_network_with_curvature_is_a_point_of_the_scatter(monkeypatch, tmp_path) -> None:
    entries = made_up(made_case(ASKED))
    entries[1].rows[0] = replace(entries[1].rows[0], measures={})
    figure = drawn(monkeypatch, lambda path: figures.draw_scatter(entries, path), tmp_path / "a.svg")
    for axes, measure in zip(figure.axes, MEASURES[:4], strict=True):
        points = {(x, y) for line in axes.lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)}
        rows = [row for entry in entries for row in entry.rows if row.measures]
        assert points == {(row.measures[measure], 100 * row.scores["accuracy"]) for row in rows}
        assert len(points) == len(ASKED) * SEEDS - 1
