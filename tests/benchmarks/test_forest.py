"""That forest plots show intervals where they are, their verdicts in words, and no letter cut off."""

from __future__ import annotations

import doctest
import math
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from benchmarks.report import forest, opening
from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.intervals import AsymmetricInterval, Interval

ABOVE, BELOW, ACROSS = Interval(0.5, 0.2), Interval(-0.5, 0.2), Interval(0.1, 0.2)


def drawn(monkeypatch, groups: list[Group], **options: bool) -> Figure:
    """Draw a figure and lay it out as it would be saved."""
    kept: list[Figure] = []

    def keep(figure: Figure, path: Path, **_: object) -> None:
        FigureCanvasAgg(figure)
        figure.canvas.draw()
        kept.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    draw_forest(groups, Path("a.svg"), **options)
    return kept[0]


def verdicts(axes: Axes) -> list[Text]:
    (right,) = axes.child_axes
    return right.get_yticklabels()


@pytest.mark.parametrize("module", [forest, opening])
def test_that_examples_run(module) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0 == found.failed


def test_that_each_interval_is_drawn_beside_its_label_and_its_verdict(monkeypatch) -> None:
    skewed = AsymmetricInterval(0.5, 0.4, 0.9)
    lines = [Line("one", skewed), Line("two", BELOW), Line("three", ACROSS), Line("four", ABOVE, "4.2", "undecided")]
    (axes,) = drawn(monkeypatch, [Group("all", lines, "points", "holds", 0.3)]).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["one", "two", "three", "four"]
    assert [text.get_text() for text in verdicts(axes)] == ["better", "worse", "undecided", "4.2"]
    assert [text.get_text() for text in axes.texts] == ["all", "holds"]
    better, worse, undecided, neutral = (to_hex(text.get_color()) for text in verdicts(axes))
    assert len({better, worse, undecided}) == 3
    assert neutral == undecided
    for height, text, line, container in zip(axes.get_yticks(), verdicts(axes), lines, axes.containers, strict=True):
        (bar,) = container.lines[2]
        ((left, y), (right, _)) = bar.get_segments()[0]
        assert (left, right, y) == pytest.approx((line.interval.low, line.interval.high, height))
        assert to_hex(container.lines[0].get_color()) == to_hex(text.get_color())
    vertical = [
        line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2 and len({*line.get_xdata()}) == 1
    ]
    assert sorted(vertical) == [0, 0.3]  # no difference, and what is asked


def test_that_a_single_value_is_a_point_and_what_is_not_known_is_not_there(monkeypatch) -> None:
    lines = [Line("one", Interval(2.0, math.nan)), Line("none", Interval(math.nan, math.nan))]
    (axes,) = drawn(monkeypatch, [Group("", lines, "")], log=True).axes
    assert [text.get_text() for text in verdicts(axes)] == ["undecided"] * 2
    assert axes.get_xscale() == "log"
    assert 1 in [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]


def test_that_intervals_go_as_far_as_their_axis(monkeypatch) -> None:
    lines = [Line("inside", ABOVE), Line("both", Interval(0.5, 700.0)), Line("beyond", Interval(-4.0, 2.0))]
    (axes,) = drawn(monkeypatch, [Group("", lines, "R²", limits=(-1, 1))]).axes
    assert axes.get_xlim() == (-1, 1)
    ends = [tuple(container.lines[2][0].get_segments()[0][:, 0]) for container in axes.containers]
    assert ends == [pytest.approx((0.3, 0.7)), (-1, 1), (-1, -1)]
    assert [container.lines[0] is not None for container in axes.containers] == [True, True, False]
    arrows = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() in forest._ARROWS}
    _, both, beyond = axes.get_yticks()
    assert arrows == {(-1, both), (1, both), (-1, beyond)}


def test_that_groups_of_one_unit_share_an_axis(monkeypatch) -> None:
    line = [Line("a", ABOVE)]
    figure = drawn(monkeypatch, [Group("1", line, "points"), Group("2", line, "points"), Group("3", line, "powers")])
    assert [axes.get_xlabel() for axes in figure.axes] == ["points", "powers"]
    assert len(figure.axes[0].containers) == 2


def test_that_no_letter_is_cut_off_and_none_lies_on_another(monkeypatch) -> None:
    long = "an interval whose name goes on and on, as those of cases and settings do"
    lines = [Line(long, ABOVE), Line("short", BELOW, "-12.34 ± 12.34"), Line(long, Interval(-50, 30))]
    figure = drawn(monkeypatch, [Group(long, lines, long, "does not hold"), Group(f"{long} {long}", lines, "points")])
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert len(texts) > 20
    page = figure.bbox
    boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, text
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            along = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert across <= 1 or along <= 3, (texts[i], other)  # pixels: what surrounds letters may touch
