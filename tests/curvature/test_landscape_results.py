"""That results are saved as they are, and that pictures show them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from rsam.curvature.landscape import Line, Plane

X, Y = np.linspace(-1, 2, 4), np.linspace(0, 1, 3)
LOSS = (X[:, None] - Y) ** 2 + 0.1
LINE = Line(LOSS[:, 0], (1.5,), "geodesic length", {"accuracy": X}, X)
PLANE = Plane(LOSS, (1.0, 2.0), "filter norms", {"accuracy": LOSS / 10}, X, Y)
PATH = dataclasses.replace(PLANE, path=np.array([[1.0, 0.5], [0.0, 0.0]]))


@pytest.mark.parametrize("result", [LINE, PLANE, PATH], ids=["line", "plane", "path"])
def test_that_a_result_is_loaded_as_it_was_saved(result: Any, tmp_path: Path) -> None:
    result.save(tmp_path / "result.npz")
    loaded = type(result).load(tmp_path / "result.npz")
    for field in dataclasses.fields(result):
        before, after = getattr(result, field.name), getattr(loaded, field.name)
        assert type(before) is type(after)
        np.testing.assert_equal(after, before)
    with np.load(tmp_path / "result.npz") as file:  # by numpy alone
        np.testing.assert_array_equal(file["loss"], result.loss)


def test_that_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    LINE.save(tmp_path / "line.npz")
    np.savez(tmp_path / "other.npz", loss=LOSS)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("line.npz", "other.npz", "text.npz"):
        with pytest.raises(ValueError, match=f"{name}' holds no plane"):
            Plane.load(tmp_path / name)
    with pytest.raises(ValueError, match=r"path must end in \.npz"):
        LINE.save(tmp_path / "line")


def test_that_a_file_of_another_version_says_so(tmp_path: Path) -> None:
    arrays = {"kind": "Line", "loss": X, "coordinates": X, "lengths": [1.5], "unit": "multiples"}
    np.savez(tmp_path / "line.npz", **arrays)  # type: ignore[arg-type]
    assert Line.load(tmp_path / "line.npz").unit == "multiples"
    fewer = {name: value for name, value in arrays.items() if name != "lengths"}
    for other, name in ((fewer, "lengths"), ({**arrays, "errors": X}, "errors")):
        np.savez(tmp_path / "other.npz", **other)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"other.npz' is of another version of rsam, with or without '{name}'"):
            Line.load(tmp_path / "other.npz")


@pytest.mark.parametrize("position", [0.1, 0.3, 0.5, 0.7])
def test_that_a_damaged_file_is_named(position: float, tmp_path: Path) -> None:
    """Wherever the byte is: in the header of an array, which numpy parses as Python, or in its numbers."""
    PLANE.save(tmp_path / "plane.npz")
    content = bytearray((tmp_path / "plane.npz").read_bytes())
    content[int(position * len(content))] ^= 0xFF
    (tmp_path / "plane.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"plane\.npz' is damaged .*; save it again"):
        Plane.load(tmp_path / "plane.npz")


def test_that_a_line_is_drawn_with_its_unit() -> None:
    ax = LINE.plot(label="network")
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.lines[0].get_label()) == ("geodesic length", "loss", "network")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack((X, LINE.loss), 1))
    assert LINE.plot(measure="accuracy", ax=ax) is ax and len(ax.lines) == 2
    assert LINE.plot(log=True).get_yscale() == "log"


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("kind", ["contour", "surface"])
def test_that_a_plane_is_drawn_with_labels_and_a_colour_bar(kind: Any, log: bool, tmp_path: Path) -> None:
    ax = PATH.plot(kind=kind, log=log)
    assert [ax.get_xlabel(), ax.get_ylabel()] == [f"{n} direction, filter norms" for n in ("first", "second")]
    bar = next(other for other in ax.figure.axes if other is not ax)
    label = "loss (log10)" if log and kind == "surface" else "loss"
    assert bar.get_ylabel() == label
    assert kind == "contour" or ax.get_zlabel() == label
    ax.figure.savefig(tmp_path / "plane.png")
    assert len(PATH.plot(kind=kind, log=log, colorbar=False).figure.axes) == 1


def test_that_rows_lie_along_the_first_direction() -> None:
    """The smallest loss, 0.1, is at x = y = 0 and 1."""
    filled = PLANE.plot(levels=40, limits=(0.1, 4.0)).collections[0]
    assert filled.levels[0] == 0.1 and filled.levels[-1] == 4.0
    low = np.concatenate([p.vertices for p in filled.get_paths()[1:2]])  # the lowest contour
    assert np.abs(low[:, 0] - low[:, 1]).max() < 0.5 < 2 < np.ptp(X)
    surface = PLANE.plot(kind="surface").collections[0]
    assert surface.get_array().shape == (3 * 2,)


def test_that_planes_with_limits_share_a_scale() -> None:
    figure = Figure()
    panels = figure.subplots(1, 2)
    for ax, factor in zip(panels, (1, 3), strict=True):
        dataclasses.replace(PLANE, loss=LOSS * factor).plot(ax, limits=(0.1, 10), log=True, levels=9, colorbar=False)
    one, other = (ax.collections[0] for ax in panels)
    np.testing.assert_array_equal(one.levels, np.geomspace(0.1, 10, 9))
    np.testing.assert_array_equal(one.levels, other.levels)
    assert one.get_clim() == other.get_clim()


def test_that_what_diverges_is_left_out_and_a_flat_loss_is_drawn() -> None:
    hole = LOSS.copy()
    hole[0, 0], hole[1, 1] = np.inf, np.nan
    dataclasses.replace(PLANE, loss=hole).plot(kind="surface").figure.draw_without_rendering()
    for loss in (hole, np.ones_like(LOSS), np.zeros_like(LOSS)):
        dataclasses.replace(PLANE, loss=loss).plot().figure.draw_without_rendering()
    dataclasses.replace(LINE, loss=hole[:, 0]).plot()


def test_that_pictures_of_nothing_are_refused() -> None:
    for draw, message in (
        (lambda: PLANE.plot(kind="heat"), "kind must be 'contour' or 'surface'"),  # type: ignore[arg-type]
        (lambda: PLANE.plot(measure="error"), r"measure must be 'loss' or one of \['accuracy'\]"),
        (lambda: PLANE.plot(levels=1), "levels must be at least 2"),
        (lambda: PLANE.plot(limits=(1, 0)), "limits must be two rising finite numbers"),
        (lambda: PLANE.plot(limits=(0, np.inf)), "limits must be two rising finite numbers"),
        (lambda: PLANE.plot(limits=(0, 1), log=True), "limits must be two rising finite positive numbers"),
        (lambda: PLANE.plot(Figure().subplots(), kind="surface"), 'axes made with projection="3d"'),
        (lambda: dataclasses.replace(PLANE, loss=-LOSS).plot(log=True), "no value is finite and positive"),
        (lambda: dataclasses.replace(LINE, loss=X * np.nan).plot(), "no value is finite"),
    ):
        with pytest.raises(ValueError, match=message):
            draw()
