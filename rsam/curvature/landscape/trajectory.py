"""Find the directions in which a trajectory of checkpoints extends most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rsam import geometry
from rsam.curvature.landscape.solutions import Solution, geodesic_to, space_of
from rsam.evaluation.parameters import as_integer
from rsam.evaluation.risk import Params, trainable

__all__ = ["Trajectory", "trajectory_directions"]

#: Share of the variance below which a direction shows rounding errors only.
_LEAST_SHARE = 1e-12


@dataclass(frozen=True)
class Trajectory:
    """Principal directions of checkpoints, seen from the end point.

    Attributes
    ----------
    directions : list of list of Tensor
        Orthonormal tangents at the end point, one tensor per parameter each; :func:`plane` takes a whole trajectory
        instead, and draws the path.
    coordinates : numpy.ndarray
        Shape ``(checkpoints, directions)``: where the checkpoints, projected, lie along these, in geodesic length.
    explained_variance : numpy.ndarray
        Shape ``(directions,)``: the share that each direction has in the squared distances of all checkpoints from the
        end point.

    Examples
    --------
    >>> import torch, rsam
    >>> end = torch.nn.Parameter(torch.zeros(3))
    >>> path = [[torch.tensor([4.0, 0.0, 0.0])], [torch.tensor([0.0, 2.0, 0.0])]]
    >>> trajectory = rsam.curvature.landscape.trajectory_directions([end], path)
    >>> trajectory.directions[0][0].tolist()
    [1.0, 0.0, 0.0]
    >>> trajectory.extent(margin=0.5)
    ((-2.0, 6.0), (-2.0, 4.0))
    """

    directions: list[list[Tensor]]
    coordinates: np.ndarray
    explained_variance: np.ndarray

    def extent(self, margin: float = 0.2) -> tuple[tuple[float, float], ...]:
        """Return the range of each coordinate over checkpoints and end point, widened by a margin on both sides.

        Parameters
        ----------
        margin : float
            In units of the width of the larger range.
        """
        points = np.vstack((self.coordinates, np.zeros(self.coordinates.shape[1])))
        low, high = points.min(0), points.max(0)
        padding = margin * float((high - low).max())
        return tuple((float(a - padding), float(b + padding)) for a, b in zip(low, high, strict=True))


@torch.no_grad()
def trajectory_directions(params: Params, checkpoints: Iterable[Solution], count: int = 2) -> Trajectory:
    """Find the principal directions of a trajectory of checkpoints at its end point.

    The checkpoints are brought to the tangent space at the end point by logarithms; on plain parameters these are
    differences (Li et al. 2018, Sec. 7). Of all planes through the end point, the first two directions span the one
    from which the logarithms are least far, in squares. So unlike in a principal component analysis about the mean,
    which would move the plane off the end point, no mean is taken away.

    Parameters
    ----------
    params : iterable of Tensor or of (str, Tensor)
        The end point, as ``model.named_parameters()`` gives it; frozen parameters are left out.
    checkpoints : iterable of torch.nn.Module, mapping or sequence of Tensor
        Networks, results of ``state_dict()``, or weights, read one after the other; the end point may be among them.
        Their logarithms are all in memory at once.
    count : int
        Number of directions.

    Returns
    -------
    Trajectory
        Directions, coordinates of the checkpoints along them, and the variance that each explains.

    Raises
    ------
    ValueError
        If the checkpoints extend in fewer than ``count`` directions, and as :func:`direction_to`.
    UnsupportedOperation
        For a manifold without a logarithm; names it and the parameter.

    Examples
    --------
    >>> import torch, rsam
    >>> end = torch.nn.Parameter(torch.zeros(3))
    >>> path = [[torch.tensor([4.0, 0.0, 0.0])], [torch.tensor([0.0, 2.0, 0.0])]]
    >>> trajectory = rsam.curvature.landscape.trajectory_directions([end], path)
    >>> trajectory.coordinates
    array([[4., 0.],
           [0., 2.]])
    >>> trajectory.explained_variance
    array([0.8, 0.2])
    """
    count = as_integer("count", count, 1)
    params = trainable(params)
    space, names = space_of(params), [name for name, _ in params]
    tangents = [geodesic_to(space, names, other, f"checkpoint {k}") for k, other in enumerate(checkpoints)]
    if len(tangents) < count:
        raise ValueError(f"{count} directions need {count} checkpoints or more beside the end point")
    products = _products(space, tangents)
    squares, vectors = np.linalg.eigh(products)
    squares, vectors = squares[::-1][:count].clip(0), vectors[:, ::-1][:, :count]
    total = float(np.trace(products))
    found = int((squares > _LEAST_SHARE * total).sum())
    if found < count:
        raise ValueError(
            f"the checkpoints extend from the end point in {found} directions only, not in {count}; pass count={found}"
            if found
            else "all checkpoints are at the end point"
        )
    lengths = np.sqrt(squares)
    vectors = vectors * np.where(vectors[np.abs(vectors).argmax(0), range(count)] < 0, -1.0, 1.0)
    directions = [_combined(tangents, vectors[:, k] / lengths[k]) for k in range(count)]
    return Trajectory(directions, vectors * lengths, squares / total)


def _products(space: geometry.Product, tangents: list[list[Tensor]]) -> np.ndarray:
    """Return the inner products of tangents at the parameters, in double precision."""
    coordinates = [space.to_coordinates(space.params, space.lower_index(space.params, t)) for t in tangents]
    total = np.zeros((len(tangents), len(tangents)))
    for columns in zip(*coordinates, strict=True):
        rows = torch.stack([c.flatten() for c in columns]).double()
        total += (rows @ rows.mT).cpu().numpy()
    return total


def _combined(tangents: list[list[Tensor]], weights: np.ndarray) -> list[Tensor]:
    total = [torch.zeros_like(t) for t in tangents[0]]
    for tangent, weight in zip(tangents, weights.tolist(), strict=True):
        torch._foreach_add_(total, tangent, alpha=weight)
    return total
