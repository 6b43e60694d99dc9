"""Choose directions: random, filter-normalised or along the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rsam import geometry
from rsam.curvature.estimate import generator_of
from rsam.curvature.landscape.solutions import space_of, wide
from rsam.evaluation.parameters import as_integer
from rsam.evaluation.risk import Params, Risk
from rsam.geometry.registry import is_euclidean
from rsam.geometry.sums import all_finite

__all__ = ["Directions", "as_tangents", "ascent_direction", "draw", "normalize_filters", "random_directions"]

Directions = Sequence[Sequence[Tensor]]


def random_directions(
    params: Params,
    count: int = 2,
    *,
    filter_normalized: bool = False,
    vectors: Literal["fixed", "scaled"] = "fixed",
    seed: int | torch.Generator = 0,
) -> list[list[Tensor]]:
    """Draw isotropic random directions in the tangent space, of unit length in the metric.

    Parameters
    ----------
    params : iterable of Tensor or of (str, Tensor)
        Parameters of the model; frozen ones are left out.
    count : int
        Number of directions; independent, and so nearly orthogonal where there are many parameters.
    filter_normalized : bool
        Scale them by :func:`normalize_filters`.
    vectors : {"fixed", "scaled"}
        For :func:`normalize_filters`.
    seed : int or torch.Generator
        Source of randomness.

    Returns
    -------
    list of list of Tensor
        ``count`` directions, each with one tangent per parameter that is not frozen.

    Raises
    ------
    ValueError
        If ``count`` is less than 1; if filter normalisation leaves nothing that moves; and as
        :func:`normalize_filters`.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(3, 2)
    >>> (direction,) = rsam.curvature.landscape.random_directions(model.parameters(), 1)
    >>> [tuple(d.shape) for d in direction], round(float(sum(d.square().sum() for d in direction)), 4)
    ([(2, 3), (2,)], 1.0)
    """
    count = as_integer("count", count, 1)
    space = space_of(params)
    drawn = draw(space, count, seed)
    if not filter_normalized:
        return drawn
    directions = [_normalized(space, d, vectors) for d in drawn]
    if not any(bool(t.any()) for t in directions[0]):
        raise ValueError(
            "filter normalisation moves nothing, since params are zero or, with vectors='fixed', vectors; "
            "random_directions(params, count, filter_normalized=True, vectors='scaled') moves vectors"
        )
    return directions


@torch.no_grad()
def draw(space: geometry.Product, count: int, seed: int | torch.Generator) -> list[list[Tensor]]:
    """Return independent isotropic tangents of unit length."""
    generator = generator_of(seed, space.params[0].device)
    directions = []
    for _ in range(count):
        tangent = wide(space.random_tangent(space.params, generator=generator))
        directions.append(list(torch._foreach_div(tangent, float(space.norm(space.params, tangent)))))
    return directions


def normalize_filters(
    params: Params, direction: Sequence[Tensor], *, vectors: Literal["fixed", "scaled"] = "fixed"
) -> list[Tensor]:
    r"""Scale each filter of a direction to the norm of the filter of the weights.

    This is the filter normalisation of Li et al. 2018 (Section 4). Networks with ReLU or batch norm do not change if
    one layer is scaled up and the next one down. Measured in units of the filters' own norms, their landscapes do
    not change either.

    The filters of a plain parameter are its slices along the first dimension: output channels of a convolution, rows of
    a linear layer. On a manifold weights have no size of their own, and the tangent at each point gets unit length in
    the metric. On unit spheres that is the same, since each filter has norm 1.

    Parameters
    ----------
    params : iterable of Tensor or of (str, Tensor)
        Parameters of the model; frozen ones are left out.
    direction : sequence of Tensor
        One tangent per parameter that is not frozen.
    vectors : {"fixed", "scaled"}
        What to do with plain parameters of one dimension or none, such as biases and the scales and shifts of batch
        norm: do not move them, as in the pictures of Li et al., or scale the direction of each as a whole to the norm
        of the parameter.

    Returns
    -------
    list of Tensor
        The scaled direction, of the same shapes.

    Raises
    ------
    ValueError
        For a bad option, and a direction of other shapes than the parameters.

    Examples
    --------
    >>> import torch, rsam
    >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
    >>> rsam.curvature.landscape.normalize_filters([weight], [torch.eye(2)])
    [tensor([[5., 0.],
            [0., 1.]])]
    """
    space = space_of(params)
    return _normalized(space, as_tangents(space, direction), vectors)


@torch.no_grad()
def _normalized(space: geometry.Product, direction: list[Tensor], vectors: str) -> list[Tensor]:
    if vectors not in ("fixed", "scaled"):
        raise ValueError(f"vectors must be 'fixed' or 'scaled', got {vectors!r}")
    squares = space.point_inner(wide(space.params), direction)
    return [
        _of_filters(x, d, vectors) if is_euclidean(manifold) else _ratio(d, 1.0, square.sqrt())
        for x, d, square, manifold in zip(space.params, direction, squares, space.manifolds, strict=True)
    ]


def _of_filters(x: Tensor, d: Tensor, vectors: str) -> Tensor:
    if x.dim() > 1:
        dims = tuple(range(1, x.dim()))
        return _ratio(d, _norm(x.to(d.dtype), dims), _norm(d, dims))
    return torch.zeros_like(d) if vectors == "fixed" else _ratio(d, _norm(x.to(d.dtype)), _norm(d))


def _norm(x: Tensor, dims: tuple[int, ...] | None = None) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x, dim=dims, keepdim=True)
    return norms


def _ratio(d: Tensor, norm: float | Tensor, by: Tensor) -> Tensor:
    """Return ``d`` times ``norm / by``, and zero where ``by`` is zero."""
    return torch.where(by > 0, d * (norm / by), 0)


def ascent_direction(risk: Risk) -> list[Tensor]:
    """Return the unit tangent along which the risk rises fastest."""
    slope, square = risk.slope(risk.gradient())
    if not square > 0:
        raise ValueError("direction: the gradient is zero, so that it has no direction")
    return list(torch._foreach_div(wide(slope), math.sqrt(square)))


@torch.no_grad()
def as_tangents(space: geometry.Product, direction: Sequence[Tensor]) -> list[Tensor]:
    """Return a direction at least in single precision, on the parameters' devices.

    Raises
    ------
    ValueError
        If its tensors differ from the parameters in number or shape, are not finite or not tangent.
    """
    direction = list(direction)
    if len(direction) != len(space):
        raise ValueError(f"a direction has {len(direction)} tensors, but {len(space)} of params are not frozen")
    for i, (x, d) in enumerate(zip(space.params, direction, strict=True)):
        if not isinstance(d, Tensor):
            raise ValueError(f"a direction must be one tensor per parameter, but holds a {type(d).__name__}")
        if x.shape != d.shape:
            raise ValueError(f"a direction has shape {tuple(d.shape)} for {space.describe(i)}")
    direction = [d.to(x.device) for x, d in zip(space.params, wide(direction), strict=True)]
    if not all_finite(direction):
        raise ValueError("a direction is not finite")
    for i, (x, d, tangent) in enumerate(
        zip(space.params, direction, space.restore_tangent(wide(space.params), direction), strict=True)
    ):
        # along a vector that is not tangent, the exponential leaves the manifold
        if not is_euclidean(space.manifolds[i]) and not _is_close(d, tangent, x.dtype):
            raise ValueError(
                f"a direction is not tangent at {space.describe(i)}; was it made at other weights? "
                "rsam.geometry.Product(params).project makes it tangent"
            )
    return direction


def _is_close(d: Tensor, tangent: Tensor, dtype: torch.dtype) -> bool:
    return bool((d - tangent).abs().max() <= torch.finfo(dtype).eps ** 0.5 * d.abs().max()) if d.numel() else True
