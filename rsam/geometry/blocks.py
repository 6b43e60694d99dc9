"""Group parameters into blocks that are computed at once: equal small points as a stack, others alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import geoopt
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from rsam.errors import SingularPoint, StalePlan, UnsupportedOperation
from rsam.geometry.base import Geometry
from rsam.geometry.forwarding import DelegatingGeometry
from rsam.geometry.registry import geometry_of, is_euclidean
from rsam.geometry.sharded import Shards, local, refuse_cut_points, shards_of

__all__ = ["HALF", "Block", "make_blocks", "widened"]

# Operations whose results are written to parameters, and operations whose results scale these.
_CURVES = ("retract", "exponential", "curve", "retract_transport")
_NORMS = ("inner", "component_inner", "point_inner", "squared_norm")

HALF = (torch.bfloat16, torch.float16)


def _limits(device: torch.device) -> tuple[int, int]:
    """Return the largest number of elements of a parameter for which stacking pays, and that of a stack.

    Stacking saves calls, and costs two copies. The numbers for a CPU are measured (larger stacks do not fit its cache).
    Those for other devices are estimates: a call takes about as long as a copy of a million elements.
    """
    return (2**14, 2**17) if device.type == "cpu" else (2**20, 2**26)


def widened(tensor: Tensor) -> Tensor:
    """Return a tensor in single precision if it is in half, so that squares neither overflow nor vanish."""
    return tensor.float() if tensor.dtype in HALF else tensor


@dataclass(frozen=True)
class Block:
    """Points that are computed together.

    Attributes
    ----------
    geometry : Geometry
        Geometry of the manifold that all of them live on. For a manifold that only changes the layout of another one,
        as that of kernels does, the geometry of the other one.
    layout : DelegatingGeometry or None
        The geometry that changes the layout, in that case.
    indices : tuple of int
        Positions of the points in the list of parameters.
    stacked : bool
        Whether the points are stacked along a new first dimension; otherwise there is only one.
    dtype : torch.dtype
        Type of the points; if it has half precision the block computes in float32.
    device : torch.device
        Device of the points.
    point, inner : torch.Size
        Shape of one point, and its shape in the layout of the computation.
    names : tuple of str
        Name of each point in messages.
    plain : bool
        Whether the points are Euclidean.
    enters : bool
        Whether the computation uses another precision or layout than the points have.
    rows : tuple of int, optional
        Positions of the points in the stack of a larger block, if this block is a part of one.
    shards : Shards, optional
        The processes that hold the other points of these parameters, if they are sharded.

    Notes
    -----
    Methods share their arguments, and return tensors:

    tensors : list of Tensor
        One per parameter of the product, of which the block takes its own.
    members : list of Tensor
        One per point of the block.
    points, tensor, stack : Tensor
        The points or vectors of the block, stacked if there are several.
    rows : list of int
        Positions of points in the block.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> points = [torch.tensor([1.0, 0.0]), torch.ones(3), torch.tensor([0.0, 1.0])]
    >>> sphere, plain = geoopt.Sphere(), geoopt.Euclidean()
    >>> space = rsam.geometry.Product(points, manifolds=[sphere, plain, sphere])
    >>> [block.indices for block in space.blocks]
    [(0, 2), (1,)]
    >>> stack = space.blocks[0].gather(points)
    >>> space.blocks[0].apply("squared_norm", stack, stack), space.blocks[0].scatter(stack)
    (tensor(2.), (tensor([1., 0.]), tensor([0., 1.])))
    """

    geometry: Geometry
    layout: DelegatingGeometry | None
    indices: tuple[int, ...]
    stacked: bool
    dtype: torch.dtype
    device: torch.device
    point: torch.Size
    inner: torch.Size
    names: tuple[str, ...]
    plain: bool
    enters: bool
    rows: tuple[int, ...] | None = None
    shards: Shards | None = None

    def fits(self, points: Tensor) -> bool:
        """Tell whether gathered points have the planned shape, dtype and device, before they are entered."""
        shape = points.shape[1:] if self.stacked else points.shape
        return shape == self.point and points.dtype == self.dtype and points.device == self.device

    def part(self, rows: Sequence[int]) -> Block:
        """Return the block of some of these points."""
        own = range(len(self.indices)) if self.rows is None else self.rows
        return replace(
            self,
            indices=tuple(self.indices[r] for r in rows),
            names=tuple(self.names[r] for r in rows),
            rows=tuple(own[r] for r in rows),
        )

    def gather(self, tensors: Sequence[Tensor]) -> Tensor:
        """Stack this block's members of a list with one tensor per parameter, in the form for the computation."""
        if self.plain:  # of which there may be hundreds, each alone and as it is
            return tensors[self.indices[0]]
        return self.gather_members([tensors[i] for i in self.indices])

    def gather_members(self, members: Sequence[Tensor]) -> Tensor:
        """Stack a list that has one tensor per member, in the precision of the computation."""
        stack = self.stack(members)
        stack = self.enter(stack) if self.enters else stack
        if self.plain or stack.dtype == (own := torch.float32 if self.dtype in HALF else self.dtype):
            return stack
        return stack.to(own)

    def stack(self, members: Sequence[Tensor]) -> Tensor:
        """Stack a list that has one tensor per member, without a change of layout."""
        return torch.stack(tuple(members)) if self.stacked else members[0]

    def gather_coordinates(self, members: Sequence[Tensor]) -> Tensor:
        """Stack coordinates of tangents, one tensor per member; these have the same layout everywhere."""
        return self.widen(self.stack(members))

    def gather_points(self, members: Sequence[Tensor]) -> Tensor:
        """Stack the points themselves, one tensor per member.

        Raises
        ------
        StalePlan
            If they differ from the planned shape, dtype or device.
        """
        try:
            points = self.stack(members)
        except RuntimeError as error:  # unequal shapes, or several devices
            raise StalePlan(f"{self.names[0]} and its like differ by now") from error
        if not self.fits(points):
            raise StalePlan(f"{self.names[0]} is not as it was planned")
        return self.enter(points) if self.enters else points

    def enter(self, tensor: Tensor) -> Tensor:
        """Bring points or vectors to the precision and layout of the computation."""
        tensor = self.widen(tensor)
        return tensor if self.layout is None else self.layout.enter(tensor)

    def widen(self, tensor: Tensor) -> Tensor:
        """Bring numbers to the precision of the computation."""
        return tensor if self.plain else widened(tensor)

    def leave(self, stack: Tensor) -> Tensor:
        """Undo the change of layout of :meth:`enter`."""
        if self.layout is None:
            return stack
        return self.layout.leave(stack, torch.Size((*stack.shape[: -len(self.inner)], *self.point)))

    def scatter(self, stack: Tensor) -> Sequence[Tensor]:
        """Undo :meth:`gather`: one tensor per point, views of the stack."""
        return self.unstack(self.leave(stack))

    def unstack(self, stack: Tensor) -> Sequence[Tensor]:
        """Undo :meth:`stack`, in the precision of the points: one tensor per point, views of the stack."""
        if self.dtype in HALF and not self.plain:
            stack = stack.to(self.dtype)
        return stack.unbind() if self.stacked else (stack,)

    def apply(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """Call an operation of the geometry, without autocast.

        Parameters
        ----------
        operation : str
            Name of the operation.
        *arguments, **options
            Arguments of the operation, stacked.

        Returns
        -------
        Tensor or tuple of Tensor
            What the operation returns.

        Raises
        ------
        UnsupportedOperation
            If the manifold lacks the operation; names the parameter, or the first of several.
        SingularPoint
            If the result is not finite though the arguments are; names the parameter.
        """
        try:
            if torch.is_autocast_enabled(self.device.type):
                with torch.autocast(self.device.type, enabled=False):
                    result = getattr(self.geometry, operation)(*arguments, **options)
            else:
                result = getattr(self.geometry, operation)(*arguments, **options)
        except NotImplementedError as error:
            # geoopt's abstract methods raise without a message
            named = error if isinstance(error, UnsupportedOperation) else self.geometry.unsupported(operation)
            raise UnsupportedOperation(f"{self.names[0]}: {named}") from error
        except Exception as error:
            if isinstance(error, LinAlgError) and _all_finite(arguments):
                self._refuse_singular(operation, arguments, options)
            rest = f" and {len(self.names) - 1} like it" if len(self.names) > 1 else ""
            error.add_note(f"in the {operation} of {self.names[0]}{rest}")
            raise
        if self.geometry.may_fail and _is_lost(operation, result) and _all_finite(arguments):
            self._refuse_singular(operation, arguments, options)
        return result

    def _refuse_singular(self, operation: str, arguments: Sequence[Any], options: dict[str, Any]) -> None:
        """Raise the error that names the first point without a finite result, given finite arguments."""
        row = 0
        for row in range(len(self.names) if self.stacked else 0):
            members = [a[row] if isinstance(a, Tensor) else a for a in arguments]
            try:
                if _is_lost(operation, getattr(self.geometry, operation)(*members, **options)):
                    break
            except LinAlgError:
                break
        raise SingularPoint(
            f"{self.names[row]}: its {operation} is not finite though point and vectors are. The point lies on the "
            "boundary of the manifold (an eigenvalue or an entry of 0), or the step is too long; start from the "
            "inside, or lower the learning rate"
        )


def _is_lost(operation: str, result: Any) -> bool:
    """Tell whether the end of a curve is not finite, or a norm is nan; a norm may overflow."""
    if operation in _CURVES:
        return not _all_finite(result[:1] if isinstance(result, tuple) else [result])
    return operation in _NORMS and bool(result.isnan().any())


def _all_finite(arguments: Sequence[Any]) -> bool:
    return all(bool(a.isfinite().all()) for a in arguments if isinstance(a, Tensor))


def make_blocks(
    points: Sequence[Tensor],
    manifolds: Sequence[geoopt.Manifold],
    labels: Sequence[Hashable],
    describe: Callable[[int], str],
) -> list[Block]:
    """Group equal small points into blocks, ordered by the first point of each.

    Raises
    ------
    UnsupportedOperation
        For a manifold that no geometry treats; names the parameter.
    TypeError
        For a manifold that is not geoopt's; names the parameter.
    ValueError
        For complex points on a manifold of real ones, or the other way round, and for a parameter that is sharded
        through its points; names it.
    """
    groups: dict[Hashable, list[int]] = {}
    geometries: dict[int, Geometry] = {}
    keys: dict[int, Hashable] = {}
    counts: Counter[Hashable] = Counter()
    shards = list(map(shards_of, points))
    for i, (x, manifold, label) in enumerate(zip(map(local, points), manifolds, labels, strict=True)):
        if id(manifold) not in geometries:
            try:
                geometries[id(manifold)] = geometry_of(manifold)
            except (UnsupportedOperation, TypeError) as error:
                raise type(error)(f"{describe(i)}: {error}") from error
        _check_numbers(x, geometries[id(manifold)], i, describe)
        alone, together = _limits(x.device)
        key: Hashable = i
        # plain points gain nothing, since torch has functions for lists of them
        if 0 < x.numel() <= alone and not is_euclidean(manifold):
            if id(manifold) not in keys:
                keys[id(manifold)] = geometries[id(manifold)].key()
            kind = (label, keys[id(manifold)], x.shape, x.dtype, x.device, shards[i])
            key = (kind, counts[kind] // max(1, together // x.numel()))
            counts[kind] += 1
        groups.setdefault(key, []).append(i)
    return [
        _block(points, geometries[id(manifolds[members[0]])], members, describe, shards[members[0]])
        for members in groups.values()
    ]


def _check_numbers(x: Tensor, geometry: Geometry, i: int, describe: Callable[[int], str]) -> None:
    numbers = "complex" if x.is_complex() else "real"
    if numbers not in geometry.numbers:
        others = " or ".join(sorted(geometry.numbers)) or "no"
        raise ValueError(
            f"{describe(i)}: its numbers are {numbers}, but points there have {others} ones; a manifold of your own "
            f"that takes {numbers} ones says so by the attribute numbers of a registered rsam.geometry.Geometry"
        )


def _block(
    points: Sequence[Tensor],
    geometry: Geometry,
    members: list[int],
    describe: Callable[[int], str],
    shards: Shards | None,
) -> Block:
    x = local(points[members[0]])
    plain = is_euclidean(geometry.manifold)
    layout = geometry if isinstance(geometry, DelegatingGeometry) and geometry.only_layout else None
    inner = x.shape
    if layout is not None:
        geometry, inner = layout.base, layout.enter(torch.empty(x.shape, device="meta")).shape
    names = tuple(map(describe, members))
    if shards is not None and not plain:
        for i, name in zip(members, names, strict=True):
            refuse_cut_points(points[i], len(inner) - geometry.manifold.ndim, name)
    stacked = len(members) > 1
    enters = layout is not None or (x.dtype in HALF and not plain)
    return Block(
        geometry, layout, tuple(members), stacked, x.dtype, x.device, x.shape, inner, names, plain, enters, None, shards
    )
