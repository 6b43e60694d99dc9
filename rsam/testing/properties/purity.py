"""Check that operations are pure functions, and agree on batches, lists and single points."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rsam.geometry import Geometry, Product, geometry_of
from rsam.geometry.linalg import largest
from rsam.testing.comparison import assert_close, show

__all__ = [
    "a_batch_equals_its_members",
    "a_list_equals_its_members",
    "arguments_are_not_written_to",
]

Operation = Callable[[Geometry, Tensor, Tensor, Tensor], Tensor]


def _carry(g: Geometry, x: Tensor, u: Tensor, a: Tensor, back: bool = False) -> Tensor:
    y = g.retract(x, u)
    return g.transport_back(x, u, y, g.project(y, a)) if back else g.transport(x, u, y, g.project(x, a))


def _step(g: Geometry, x: Tensor, u: Tensor, a: Tensor, isometric: bool = False) -> Tensor:
    return torch.stack(g.retract_transport(x, u, g.project(x, a), isometric=isometric), -1)  # behind the batch


# Each operation takes a geometry, a point, a tangent and an ambient array.
_OPERATIONS: dict[str, Operation] = {
    "inner": lambda g, x, u, a: g.inner(x, u, u),
    "component_inner": lambda g, x, u, a: g.component_inner(x, u).expand(x.shape),
    "point_inner": lambda g, x, u, a: g.point_inner(x, u).expand(x.shape),
    "squared_norm": lambda g, x, u, a: g.squared_norm(x, u),
    "raise_index": lambda g, x, u, a: g.raise_index(x, a),
    "lower_index": lambda g, x, u, a: g.lower_index(x, u),
    "project": lambda g, x, u, a: g.project(x, a),
    "project_point": lambda g, x, u, a: g.project_point(x),
    "retract": lambda g, x, u, a: g.retract(x, u),
    "exponential": lambda g, x, u, a: g.exponential(x, u),
    "logarithm": lambda g, x, u, a: g.logarithm(x, g.exponential(x, u)),
    "transport": lambda g, x, u, a: _carry(g, x, u, a),
    "transport_back": lambda g, x, u, a: _carry(g, x, u, a, back=True),
    "retract_transport": lambda g, x, u, a: _step(g, x, u, a),
    "retract_transport, isometric": lambda g, x, u, a: _step(g, x, u, a, isometric=True),
    # raised, since a covector is determined by its values on tangents only
    "pullback": lambda g, x, u, a: g.raise_index(x, g.pullback(x, u, a)),
    "acceleration": lambda g, x, u, a: g.acceleration(x, u),
    "connection": lambda g, x, u, a: g.connection(x, a, u),
    "retract_second_order": lambda g, x, u, a: g.retract_second_order(x, u),
    "to_coordinates": lambda g, x, u, a: g.to_coordinates(x, a),
    "from_coordinates": lambda g, x, u, a: g.from_coordinates(x, g.to_coordinates(x, a)),
}


# Each takes a geometry, a point, a tangent there, the end of its retraction, and another tangent.
_TRANSPORTS: dict[str, Callable[..., object]] = {
    "transport": lambda g, x, u, y, v: g.transport(x, u, y, v),
    "transport_back": lambda g, x, u, y, v: g.transport_back(x, u, y, v),
    "retract_transport": lambda g, x, u, y, v: g.retract_transport(x, u, v),
    "logarithm": lambda g, x, u, y, v: g.logarithm(x, y),
}


def arguments_are_not_written_to(geometry: Geometry, x: Tensor, u: Tensor, a: Tensor) -> None:
    """Raise if any operation changes a tensor that it is given."""

    def check(operations: Mapping[str, Callable[..., object]], **before: Tensor) -> None:
        for name, operation in operations.items():
            arguments = {key: value.clone() for key, value in before.items()}
            with contextlib.suppress(Exception):  # the other properties report errors
                operation(geometry, *arguments.values())
            for key, value in before.items():
                if not torch.equal(arguments[key], value):
                    raise AssertionError(f"{name} changed its argument {key} to {show(arguments[key])}")

    check(_OPERATIONS, x=x, u=u, a=a)
    try:
        y, v = geometry.retract(x.clone(), u.clone()), geometry.project(x.clone(), a.clone())
    except Exception:
        return
    check(_TRANSPORTS, x=x, u=u, y=y, v=v)


def a_batch_equals_its_members(geometry: Geometry, x: Tensor, u: Tensor, y: Tensor, w: Tensor, a: Tensor) -> None:
    """Raise unless each operation on two stacked points is the stack of its results on each."""
    for name, operation in _OPERATIONS.items():
        try:
            single = torch.stack([operation(geometry, x, u, a), operation(geometry, y, w, a)])
            batch = operation(geometry, torch.stack([x, y]), torch.stack([u, w]), torch.stack([a, a]))
        except NotImplementedError:
            continue
        if name == "squared_norm":  # this one sums over the whole tensor
            single = single.sum(0)
        scale = max(map(largest, (x, u, y, w, a)))
        assert_close(batch, single, f"{name} of a batch against its members", scale=scale)


def a_list_equals_its_members(geometry: Geometry, x: Tensor, u: Tensor, y: Tensor, w: Tensor, a: Tensor) -> None:
    """Raise unless a product of three, which stacks, agrees with a loop; checked for registered geometries."""
    manifold = geometry.manifold
    if type(geometry) is not type(geometry_of(manifold)):
        raise NotImplementedError("a product uses the registered geometry")
    space = Product([x, y, x], manifolds=[manifold] * 3)
    points, tangents, covectors = [x, y, x], [u, w, u], [a, a, a]
    ends = [geometry.retract(p, t) for p, t in zip(points, tangents, strict=True)]
    carried = [geometry.transport(p, t, e, t) for p, t, e in zip(points, tangents, ends, strict=True)]
    sizes = [1 / (1 + geometry.component_inner(p, t)) for p, t in zip(points, tangents, strict=True)]
    calls: dict[str, tuple[list[Tensor], ...]] = {
        "raise_index": (covectors,),
        "lower_index": (tangents,),
        "project": (covectors,),
        "project_point": (),
        "component_inner": (tangents,),
        "point_inner": (tangents,),
        "retract": (tangents,),
        "logarithm": (ends,),
        "transport": (tangents, ends, tangents),
        "transport_back": (tangents, ends, carried),
        "retract_transport": (tangents, tangents, sizes),
        "pullback": (tangents, covectors),
        "acceleration": (tangents,),
        "connection": (covectors, tangents),
        "retract_second_order": (tangents,),
        "to_coordinates": (covectors,),
    }
    for name, columns in calls.items():
        try:
            together = getattr(space, name)(points, *columns)
            alone = [getattr(geometry, name)(p, *(c[i] for c in columns)) for i, p in enumerate(points)]
        except NotImplementedError:
            continue
        if name == "retract_transport":  # the only one with two results
            together, alone = [*itertools.chain(*together)], [*itertools.chain(*zip(*alone, strict=True))]
        elif name in ("component_inner", "point_inner"):  # a product expands these
            alone = [term.expand(p.shape) for term, p in zip(alone, points, strict=True)]
        for one, other in zip(together, alone, strict=True):
            scale = max(map(largest, (x, u, y, w, a)))
            assert_close(one, other, f"{name} of a list against its members", scale=scale)
    total = space.inner(points, tangents, tangents)
    parts = [geometry.inner(p, t, t).sum() for p, t in zip(points, tangents, strict=True)]
    assert_close(total, torch.stack(parts).sum().real, "inner of a list against its members")
    assert_close(space.squared_norm(points, tangents), total, "squared_norm of a list against its inner")
