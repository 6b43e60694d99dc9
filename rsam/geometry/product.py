"""Treat the manifolds of a list of parameters as one product geometry, planned once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import OPERATIONS
from rsam.geometry.blocks import Block, make_blocks
from rsam.geometry.equality import Constants
from rsam.geometry.registry import attached_to, is_euclidean, revision
from rsam.geometry.sharded import Shards, local, local_gradient, shards_of
from rsam.geometry.sums import Tensors, scalar_sum, wide

__all__ = ["Product"]


class Product:
    r"""Product of the manifolds of a list of parameters, as one :class:`Geometry`: a model is a point on it.

    A product has every operation of :class:`Geometry`, with the same order of arguments, on lists of tensors, one per
    parameter: ``space.retract(points, tangents)``, ``space.raise_index(points, covectors)`` and so on. Small points of
    equal shape on equal manifolds (the same class and constants; a trained curvature is equal to itself only) are
    stacked and computed at once. Half-precision points on manifolds are computed in float32, which torch's
    factorisations need; plain ones only in :meth:`inner`, :meth:`norm` and :meth:`squared_norm`. Arguments are never
    written to; a result may be the argument itself where nothing
    changes.

    Whatever stays the same from call to call is planned once. Each call checks the plan. It makes a new one if points
    have another shape, dtype or device, if a parameter was put on another manifold, if an operation was registered, or
    if a constant of one of several equal manifolds changed. Changes through ``.data`` go unnoticed, since torch does
    not track them. A parameter that lost its manifold is refused by name.

    Parameters
    ----------
    params : iterable of Tensor, or of (name, Tensor)
        Points, plain or with an attribute ``manifold``, such as ``model.parameters()`` or ``model.named_parameters()``.
    manifolds : sequence of geoopt.Manifold, optional
        Manifolds of the points; by default those of their attributes. They hold until an attribute changes.
    names : sequence of str, optional
        Name of each point in messages; by default that in ``params``, or its position in the list.
    apart : sequence of hashable, optional
        One label per point; points with different labels, for example of two parameter groups, are not stacked.

    Attributes
    ----------
    params : list of Tensor
        The parameters.
    manifolds : list of geoopt.Manifold
        Manifolds of the parameters.
    blocks : list of Block
        Groups of points that are computed at once.
    labels : list of hashable
        Label of each point.

    Raises
    ------
    ValueError
        For lists of unequal length; for complex points on a manifold of real ones, or the other way round.
    TypeError
        For a manifold of a library other than geoopt; names its class, its package and the parameter.
    UnsupportedOperation
        For a manifold, or an operation on it, that :mod:`rsam.geometry` does not have; names manifold and parameter.

    Notes
    -----
    The operations share their arguments:

    points : list of Tensor
        One point per parameter.
    us, vs : list of Tensor
        Tangents at these points, one per parameter.
    tensors : list of Tensor
        Points or vectors, one per parameter.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> x = geoopt.ManifoldParameter(torch.tensor([1.0, 0.0]), manifold=geoopt.Sphere())
    >>> w = torch.nn.Parameter(torch.ones(2))
    >>> space = rsam.geometry.Product([("direction", x), ("bias", w)])
    >>> up = torch.tensor([0.0, 1.0])
    >>> space.exponential([x, w], [up, up])
    [tensor([0.5403, 0.8415], grad_fn=...), tensor([1., 2.], grad_fn=...)]
    >>> space.norm([x, w], [up, up])
    tensor(1.4142)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[tuple[str, Tensor]],
        *,
        manifolds: Sequence[geoopt.Manifold] | None = None,
        names: Sequence[str] | None = None,
        apart: Sequence[Hashable] | None = None,
    ) -> None:
        entries = list(params)
        self.params: list[Any] = [e[1] if isinstance(e, tuple) else e for e in entries]
        count = len(entries)
        for what, column in (("manifolds", manifolds), ("names", names), ("labels", apart)):
            if column is not None and len(column) != count:
                raise ValueError(f"got {count} points but {len(column)} {what}")
        self._names = [repr(e[0]) if isinstance(e, tuple) else f"parameter {i}" for i, e in enumerate(entries)]
        if names is not None:
            self._names = list(names)
        self.labels: list[Any] = [0] * count if apart is None else list(apart)
        self.manifolds = list(map(attached_to, self.params)) if manifolds is None else list(manifolds)
        self._of_params = self.manifolds  # the latter are other ones after a call with points on other manifolds
        self._attributes: list[Any] = [getattr(p, "manifold", None) for p in self.params]  # to notice other ones
        self._was_on = [hasattr(p, "manifold") for p in self.params]  # to notice a manifold that is lost
        self._signature: Any = None
        self.blocks: list[Block] = []
        self._plan(self.params)

    def __len__(self) -> int:
        return len(self.params)

    def describe(self, i: int) -> str:
        """Return the name of a parameter for a message, with its shape and manifold.

        Parameters
        ----------
        i : int
            Position of the parameter.
        """
        manifold = self.manifolds[i]
        name = getattr(manifold, "name", type(manifold).__name__)
        return f"{self._names[i]} (shape {tuple(self.params[i].shape)}, {name})"

    @property
    def points(self) -> list[Tensor]:
        """Values of the parameters; of sharded ones the part of this process."""
        return list(map(local, self.params)) if self._sharded else self.params

    @property
    def shards(self) -> list[Shards]:
        """Meshes over which parameters are sharded, each once."""
        return list(dict.fromkeys(block.shards for block in self.blocks if block.shards is not None))

    def gradients(self) -> list[Tensor | None]:
        """Return ``grad`` of each parameter; of sharded ones the part of this process."""
        return list(map(local_gradient, self.params)) if self._sharded else [p.grad for p in self.params]

    # -- the plan -----------------------------------------------------------------------------------------------

    def _plan(self, points: Tensors) -> None:
        self._parts: dict[tuple[int, ...], Product] = {}
        self._signature = None  # if planning fails, the next call plans again
        self._sharded = any(shards_of(p) is not None for p in points)
        self.blocks = make_blocks(points, self.manifolds, self.labels, self.describe)
        # a block computes with the first of its equal manifolds, as long as they stay equal
        together = [{id(m): m for m in (self.manifolds[i] for i in b.indices)} for b in self.blocks]
        self._constants = Constants(m for members in together if len(members) > 1 for m in members.values())
        self._signature, self._revision = _signature(list(map(local, points))), revision()

    def update(self, points: Tensors | None = None, stacks_are_checked: bool = False) -> bool:
        """Plan anew if the plan does not fit these points.

        Parameters
        ----------
        points : list of Tensor, optional
            Points that the plan must fit; by default the parameters.
        stacks_are_checked : bool
            Skip the check of shape, dtype and device for plain points, and for stacked ones, which the caller checks
            when it stacks them (:meth:`Block.fits`). This saves much time for hundreds of points.

        Returns
        -------
        bool
            Whether a new plan was needed.

        Raises
        ------
        ValueError
            For another number of points, or a parameter that lost its manifold; names it.
        """
        points = self.params if points is None else points
        if len(points) != len(self.params):
            raise ValueError(f"got {len(points)} points for a product of {len(self.params)} manifolds")
        attributes = [getattr(p, "manifold", None) for p in self.params]
        if attributes != self._attributes:
            self._adopt_manifolds(points, attributes)
        on = self._of_params
        if points is not self.params:
            others = [
                None if x is p else getattr(x, "manifold", None) for x, p in zip(points, self.params, strict=True)
            ]
            on = [m if other is None else other for m, other in zip(on, others, strict=True)]
        if on is not self.manifolds and on != self.manifolds:
            self.manifolds, self._signature = on, None
        if self._signature is not None and (self._revision != revision() or self._constants.changed()):
            self._signature = None
        parts = list(map(local, points)) if self._sharded else points
        if self._signature is not None and stacks_are_checked:
            fits = all(b.fits(parts[b.indices[0]]) for b in self.blocks if not b.stacked and not b.plain)
        else:
            fits = _signature(parts) == self._signature
        if not fits:
            self._plan(points)
            return True
        return False

    def _adopt_manifolds(self, points: Tensors, attributes: list[geoopt.Manifold | None]) -> None:
        """Take over the manifolds from the attributes of parameters."""
        for i, (p, new, seen) in enumerate(zip(self.params, attributes, self._attributes, strict=True)):
            if new is not None and new is not seen:
                self._attributes[i] = self._of_params[i] = new
                self._was_on[i], self._signature = True, None
            elif new is None and points[i] is p and self._was_on[i] and not is_euclidean(self._of_params[i]):
                raise ValueError(
                    f"{self.describe(i)} lost its manifold, as .to('meta'), sharding and rsam.nn.unconstrain make it; "
                    "set its attribute manifold again, or make the optimizer anew"
                )

    def part(self, indices: Sequence[int]) -> Product:
        """Return the product of some of the parameters; the same object until this one is planned anew.

        Parameters
        ----------
        indices : sequence of int
            Positions of the parameters.
        """
        key = tuple(indices)
        if key in self._parts:
            return self._parts[key]
        part = self._parts[key] = Product(
            [self.params[i] for i in indices],
            manifolds=[self._of_params[i] for i in indices],
            names=[self._names[i] for i in indices],
            apart=[self.labels[i] for i in indices],
        )
        part._was_on = [self._was_on[i] for i in indices]
        part._attributes = [self._attributes[i] for i in indices]
        return part

    def gather(self, tensors: Tensors) -> list[Tensor]:
        """Turn points or vectors, one per parameter, into one tensor per block: stacks, or the tensors themselves."""
        return [block.gather(tensors) for block in self.blocks]

    def scatter(self, stacks: Tensors, scatter: Callable[[Block, Tensor], Tensors] = Block.scatter) -> list[Tensor]:
        """Turn one tensor per block into one per parameter, which are views of the stacks.

        Parameters
        ----------
        stacks : list of Tensor
            Points or vectors, one tensor per block.
        scatter : callable
            Function from a block and its stack to its members: :meth:`Block.scatter`, or :meth:`Block.unstack` for
            coordinates.
        """
        results: list[Tensor] = [None] * len(self.params)  # type: ignore[list-item]
        for block, stack in zip(self.blocks, stacks, strict=True):
            for i, value in zip(block.indices, scatter(block, stack), strict=True):
                results[i] = value
        return results

    def _apply(self, operation: str, points: Tensors, *arguments: Any, **options: Any) -> list[Any]:
        """Apply an operation to each block; an argument that is no list is passed to every block."""
        self.update(points)
        columns = [self.gather(points)]
        gather = Block.gather_coordinates if operation == "from_coordinates" else Block.gather_members
        for argument in arguments:
            if not isinstance(argument, Sequence):
                columns.append([argument] * len(self.blocks))
            elif len(argument) != len(points):
                raise ValueError(f"{operation} got {len(points)} points but a list of {len(argument)} beside them")
            else:
                columns.append([gather(b, [argument[i] for i in b.indices]) for b in self.blocks])
        return [block.apply(operation, *row, **options) for block, *row in zip(self.blocks, *columns, strict=True)]

    # -- operations that differ from a geometry's on one point -----------------------------------------------------

    def inner(self, points: Tensors, us: Tensors, vs: Tensors) -> Tensor:
        """Return the inner product of two tangents of the product manifold, a scalar."""
        return scalar_sum([term.sum() for term in self._apply("inner", points, wide(us), wide(vs))])

    def norm(self, points: Tensors, us: Tensors) -> Tensor:
        """Return the norm of a tangent of the product manifold, a scalar."""
        return self.squared_norm(points, us).clamp_min(0).sqrt()  # rounding may leave it negative

    def squared_norm(self, points: Tensors, us: Tensors) -> Tensor:
        """Return the squared norm of a tangent of the product manifold, a scalar."""
        return scalar_sum(self._apply("squared_norm", points, wide(us)))

    def component_inner(self, points: Tensors, us: Tensors) -> list[Tensor]:
        """Return squared norms of the smallest independent components, expanded to the shapes of the points."""
        return self._expanded("component_inner", points, us)

    def point_inner(self, points: Tensors, us: Tensors) -> list[Tensor]:
        """Return squared norms at each point, expanded to the shapes of the points."""
        return self._expanded("point_inner", points, us)

    def _expanded(self, operation: str, points: Tensors, us: Tensors) -> list[Tensor]:
        terms = self._apply(operation, points, us)
        return self.scatter([term.expand(x.shape) for x, term in zip(self.gather(points), terms, strict=True)])

    def dimension(self, points: Tensors) -> int:
        """Return the dimension of the product manifold."""
        return sum(self._apply("dimension", points))

    def coordinates_shape(self, points: Tensors) -> list[torch.Size]:
        """Return the shapes of the coordinates of tangents: ``(*batch, dimension)``, for a plain point its own shape.

        A complex plain point has two coordinates per number, in a last dimension.
        """
        shapes: list[Any] = [None] * len(points)
        for block, shape in zip(self.blocks, self._apply("coordinates_shape", points), strict=True):
            for i in block.indices:
                shapes[i] = shape[1:] if block.stacked else shape
        return shapes

    def random_coordinates(
        self,
        points: Tensors,
        *,
        generator: torch.Generator | Callable[[torch.device], torch.Generator] | None = None,
        distribution: Literal["normal", "rademacher"] = "normal",
    ) -> list[Tensor]:
        """Draw coordinates of isotropic random tangents: independent, with mean zero and variance one.

        Parameters
        ----------
        points : list of Tensor
            Points.
        generator : torch.Generator or callable, optional
            Source of randomness on the device of the points, or a function from a device to its source.
        distribution : {"normal", "rademacher"}
            Standard normal numbers, or random signs.

        Returns
        -------
        list of Tensor
            Coordinates, of the shapes of :meth:`coordinates_shape`.

        Raises
        ------
        ValueError
            For another distribution.
        """
        if distribution not in ("normal", "rademacher"):
            raise ValueError(f"distribution must be 'normal' or 'rademacher', got {distribution!r}")
        coordinates = []
        for x, shape in zip(points, self.coordinates_shape(points), strict=True):
            z = torch.empty(shape, dtype=x.real.dtype, device=x.device)
            source = generator(x.device) if callable(generator) else generator
            if distribution == "normal":
                coordinates.append(z.normal_(generator=source))
            else:
                coordinates.append(z.random_(0, 2, generator=source).mul_(2).sub_(1))  # faster than bernoulli_
        return coordinates

    if TYPE_CHECKING:  # the other operations are made below, from those of a geometry

        def __getattr__(self, operation: str) -> Any: ...


def _signature(points: Tensors) -> Any:
    """Collect everything that a plan depends on except the manifolds."""
    return [x.shape for x in points], [x.dtype for x in points], [x.device for x in points]


_ON_LISTS = """Apply :meth:`Geometry.{}` to each parameter.

Parameters
----------
points : list of Tensor
    One point per parameter.
*vectors : list of Tensor
    The other arguments of the operation, in its order: lists with one tensor per parameter.
**options
    Options of the operation, for all parameters.

Returns
-------
list of Tensor, or tuple of two such lists
    What the operation returns, with one tensor per parameter.
"""


def _on_lists(operation: str) -> Any:
    def on_lists(self: Product, points: Tensors, *vectors: Tensors, **options: Any) -> Any:
        results = self._apply(operation, points, *vectors, **options)
        if operation == "retract_transport":  # the only one with two results
            ends, carried = zip(*results, strict=True) if results else ((), ())
            return self.scatter(ends), self.scatter(carried)
        return self.scatter(results, Block.unstack if operation == "to_coordinates" else Block.scatter)

    on_lists.__name__ = operation
    on_lists.__doc__ = _ON_LISTS.format(operation)
    return on_lists


for _operation in OPERATIONS.keys() - vars(Product).keys():
    setattr(Product, _operation, _on_lists(_operation))
