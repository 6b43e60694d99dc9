"""Hold losses on a line or a plane, and save and draw them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from rsam.curvature.landscape.plots import draw_contours, draw_line, draw_surface
from rsam.evaluation.archives import read_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Line", "Plane"]

_MEASURE = "measure: "
_R = TypeVar("_R", bound="_Result")


@dataclass(frozen=True)
class _Result:
    """Base of lines and planes, with what they share."""

    loss: np.ndarray
    lengths: tuple[float, ...]
    unit: str
    measures: dict[str, np.ndarray]

    def save(self, path: str | Path) -> None:
        """Write all arrays to an ``.npz`` file, without pickle; ``numpy.load`` reads it too.

        Parameters
        ----------
        path : str or Path
            Ends in ``.npz``.

        Raises
        ------
        ValueError
            For a path that ends otherwise.
        """
        if Path(path).suffix != ".npz":  # numpy would add it, and load not find the file
            raise ValueError(f"path must end in .npz, got {str(path)!r}")
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, values in arrays.pop("measures").items():
            arrays[_MEASURE + name] = values
        kept = {name: value for name, value in arrays.items() if value is not None}
        np.savez(path, kind=type(self).__name__, **kept)

    @classmethod
    def load(cls: type[_R], path: str | Path) -> _R:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : str or Path
            The file.

        Raises
        ------
        ValueError
            For a file of another kind, or of another version of rsam.
        """
        arrays = read_arrays(path)
        if str(arrays.pop("kind", "")) != cls.__name__:
            raise ValueError(f"{str(path)!r} holds no {cls.__name__.lower()} of a loss landscape")
        measures = {name.removeprefix(_MEASURE): arrays.pop(name) for name in list(arrays) if name.startswith(_MEASURE)}
        known = {f.name: f.default is dataclasses.MISSING for f in dataclasses.fields(cls) if f.name != "measures"}
        others = [name for name in known if known[name] and name not in arrays] + sorted(arrays.keys() - known)
        if others:
            raise ValueError(
                f"{str(path)!r} is of another version of rsam, with or without {others[0]!r}; read it by numpy.load"
            )
        lengths = tuple(arrays.pop("lengths").tolist())
        return cls(lengths=lengths, unit=str(arrays.pop("unit")), measures=measures, **arrays)

    def values(self, measure: str = "loss") -> np.ndarray:
        """Return the loss, or a measure by its name.

        Parameters
        ----------
        measure : str
            ``"loss"``, or a key of ``measures``.

        Raises
        ------
        ValueError
            For a name that is not there.
        """
        if measure != "loss" and measure not in self.measures:
            raise ValueError(f"measure must be 'loss' or one of {list(self.measures)}, got {measure!r}")
        return self.loss if measure == "loss" else self.measures[measure]


@dataclass(frozen=True)
class Line(_Result):
    """A loss along a geodesic.

    Attributes
    ----------
    loss : numpy.ndarray
        Shape ``(steps,)``; nan or infinite where it diverges.
    lengths : tuple of float
        The geodesic length of a coordinate of 1.
    unit : str
        Unit of the coordinates, in words.
    measures : dict of str to numpy.ndarray
        What else was measured, of the same shape.
    coordinates : numpy.ndarray
        Shape ``(steps,)``: multiples of the direction.

    Examples
    --------
    >>> import torch, rsam
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> line = rsam.curvature.landscape.line(
    ...     lambda x: x * weight, torch.nn.MSELoss(), [weight], (torch.ones(1), torch.zeros(1)), "gradient", steps=3)
    >>> line.values("loss"), line.unit, line.lengths
    (array([0., 1., 4.]), 'geodesic length', (1.0,))
    >>> line.plot(log=False).get_ylabel()
    'loss'
    """

    coordinates: np.ndarray

    def plot(self, ax: Axes | None = None, *, measure: str = "loss", log: bool = False, **options: Any) -> Axes:
        """Draw the loss against the coordinate.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; on new axes by default.
        measure : str
            ``"loss"``, or the name of a measure.
        log : bool
            Make the axis of the loss logarithmic.
        **options
            For ``ax.plot``, such as ``label``.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn; ``axes.figure`` is the figure.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            For a measure that is not there, or nothing positive on a logarithmic axis.
        """
        axes: Axes = draw_line(ax, self.coordinates, self.values(measure), self.unit, measure, log, options)
        return axes


@dataclass(frozen=True)
class Plane(_Result):
    """A loss on a plane of the tangent space, each point of which stands for the end of its geodesic.

    Attributes
    ----------
    loss : numpy.ndarray
        Shape ``(len(x), len(y))``: ``loss[i, j]`` is that at ``x[i]`` times the first direction plus ``y[j]`` times the
        second; nan or infinite where it diverges.
    lengths : tuple of float
        The geodesic lengths of coordinates of 1 along either direction.
    unit : str
        Unit of the coordinates, in words.
    measures : dict of str to numpy.ndarray
        What else was measured, of the same shape.
    x, y : numpy.ndarray
        Coordinates along the first and second direction.
    path : numpy.ndarray or None
        Shape ``(checkpoints, 2)``: coordinates of a trajectory.

    Examples
    --------
    >>> import torch, rsam
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> plane = rsam.curvature.landscape.plane(
    ...     lambda x: x * weight, torch.nn.MSELoss(), [weight], (torch.eye(2), torch.zeros(2, 2)), steps=5)
    >>> bool(plane.loss.argmin() == 12), plane.loss.shape, plane.path
    (True, (5, 5), None)
    >>> axes = plane.plot(levels=10)
    """

    x: np.ndarray
    y: np.ndarray
    path: np.ndarray | None = field(default=None)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        kind: Literal["contour", "surface"] = "contour",
        measure: str = "loss",
        levels: int = 25,
        limits: tuple[float, float] | None = None,
        log: bool = False,
        colorbar: bool = True,
    ) -> Axes:
        """Draw contours or a surface.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; on new axes by default. A surface needs those of ``projection="3d"``.
        kind : {"contour", "surface"}
            Filled contours, with the path of a trajectory, or a surface in three dimensions.
        measure : str
            ``"loss"``, or the name of a measure.
        levels : int
            Number of contours.
        limits : (float, float), optional
            Range of the colours, the same for planes that are to be compared; by default the range of the values. What
            lies beyond has the colour of the end.
        log : bool
            Make colours logarithmic, and for a surface heights.
        colorbar : bool
            Draw a colour bar.

        Returns
        -------
        matplotlib.axes.Axes
            Where it was drawn; ``axes.figure`` is the figure.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            For a bad option, flat axes for a surface, or nothing finite (and with ``log`` positive) to draw.
        """
        if kind not in ("contour", "surface"):
            raise ValueError(f"kind must be 'contour' or 'surface', got {kind!r}")
        label = f"{measure} (log10)" if log and kind == "surface" else measure
        values = self.values(measure)
        axes: Axes
        if kind == "surface":
            axes = draw_surface(ax, self.x, self.y, values, self.unit, label, limits, log, colorbar)
        else:
            axes = draw_contours(ax, self.x, self.y, values, self.unit, label, levels, limits, log, colorbar, self.path)
        return axes
