"""Register geometries for classes of manifolds, and look them up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import geoopt
from torch import Tensor

from rsam.geometry.base import OPERATIONS, Geometry

__all__ = [
    "attached_to",
    "checked_manifold",
    "geometry_of",
    "is_euclidean",
    "is_plain",
    "manifold_of",
    "register",
    "revision",
]

_EUCLIDEAN = geoopt.Euclidean()

_registry: dict[type, type[Geometry]] = {}
_revision = 0
_T = TypeVar("_T")


def register(manifold_class: type[geoopt.Manifold]) -> Callable[[_T], _T]:
    """Register a geometry, or one of its operations, for a manifold class and its subclasses without their own.

    Parameters
    ----------
    manifold_class : type
        A subclass of :class:`geoopt.Manifold`.

    Returns
    -------
    callable
        Decorator for a subclass of :class:`Geometry`, or for a function that has the name of one of its methods and
        takes the manifold instead of ``self``.

    Raises
    ------
    TypeError
        If the name of the decorated function is not that of an operation.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> class Circle(geoopt.Sphere):
    ...     pass
    >>> @rsam.geometry.register(Circle)
    ... def acceleration(manifold, x, v):
    ...     return -(v * v).sum(-1, keepdim=True) * x
    >>> x = torch.tensor([0.6, 0.8])
    >>> rsam.geometry.geometry_of(Circle()).acceleration(x, torch.tensor([-1.6, 1.2]))
    tensor([-2.4000, -3.2000])
    """

    def decorate(entry: Any) -> Any:
        if isinstance(entry, type) and issubclass(entry, Geometry):
            _enter(manifold_class, entry)
            return entry
        name = getattr(entry, "__name__", repr(entry))
        if name not in OPERATIONS:
            raise TypeError(f"{name!r} is no operation of a geometry; name the function one of {sorted(OPERATIONS)}")

        def method(self: Geometry, *args: Any, **kwargs: Any) -> Any:
            return entry(self.manifold, *args, **kwargs)

        parent = _lookup(manifold_class)  # type: ignore[arg-type]  # mypy doubts that classes hash
        _enter(manifold_class, type(f"{manifold_class.__name__}Geometry", (parent,), {name: method}))
        return entry

    return decorate


def _enter(manifold_class: type, geometry: type[Geometry]) -> None:
    global _revision
    _registry[manifold_class] = geometry
    _lookup.cache_clear()
    _revision += 1


def revision() -> int:
    """Return a number that changes when a geometry or an operation is registered, after which plans are stale."""
    return _revision


@functools.cache
def _lookup(manifold_class: type) -> type[Geometry]:
    overridden: dict[str, Any] = {}
    for cls in manifold_class.__mro__:
        if cls in _registry:
            known = _registry[cls]
            return type(f"{manifold_class.__name__}Geometry", (known,), overridden) if overridden else known
        if cls.__module__.startswith("geoopt."):
            continue  # geoopt's own subclasses of a registered class only rename its methods
        operations = [name for name, methods in OPERATIONS.items() if vars(cls).keys() & set(methods)]
        if operations:
            overridden.update((name, getattr(Geometry, name)) for name in operations)
            overridden |= {"isometric": False, "retraction_order": 1, "may_fail": True}
            if "retract_transport" in operations:
                overridden["momentum_transport"] = Geometry.momentum_transport
    return Geometry


def geometry_of(manifold: geoopt.Manifold) -> Geometry:
    """Return the registered geometry of a manifold, or the generic one, which calls the manifold's methods.

    For a subclass of a registered class that overrides some methods, operations that depend on these call them.

    Parameters
    ----------
    manifold : geoopt.Manifold
        The manifold.

    Returns
    -------
    Geometry
        Its operations.

    Raises
    ------
    TypeError
        If it is no :class:`geoopt.Manifold`; names its class and package.
    UnsupportedOperation
        For a variant of a manifold that is not supported, such as another metric of SPD matrices.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> hyperboloid = rsam.geometry.geometry_of(geoopt.Lorentz())
    >>> x = torch.tensor([1.0, 0.0, 0.0])
    >>> hyperboloid.raise_index(x, torch.tensor([5.0, 1.0, 2.0]))
    tensor([0., 1., 2.])
    """
    return _lookup(type(checked_manifold(manifold)))(manifold)  # type: ignore[arg-type]


def manifold_of(tensor: Tensor) -> geoopt.Manifold:
    """Return the manifold that a tensor lives on.

    Parameters
    ----------
    tensor : Tensor
        A parameter, or any other tensor.

    Returns
    -------
    geoopt.Manifold
        The attribute ``manifold`` of the tensor; :class:`geoopt.Euclidean` for a plain tensor.

    Raises
    ------
    TypeError
        If its attribute ``manifold`` is no :class:`geoopt.Manifold`; names its class and package.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> point = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    >>> rsam.geometry.manifold_of(point), rsam.geometry.manifold_of(torch.ones(2))
    (Sphere manifold, Euclidean(ndim=0) manifold)
    """
    manifold: geoopt.Manifold = checked_manifold(attached_to(tensor))
    return manifold


def attached_to(tensor: Tensor) -> Any:
    """Return a tensor's attribute ``manifold``, of any type; :class:`geoopt.Euclidean` for a plain tensor."""
    manifold = getattr(tensor, "manifold", None)
    return _EUCLIDEAN if manifold is None else manifold


def checked_manifold(manifold: Any) -> Any:
    """Return a manifold; raise TypeError for anything else, with its class, its package and what to do."""
    if isinstance(manifold, geoopt.Manifold):
        return manifold
    package, name = type(manifold).__module__.partition(".")[0], type(manifold).__qualname__
    if isinstance(manifold, type) and issubclass(manifold, geoopt.Manifold):
        raise TypeError(f"the class {manifold.__name__} is no geoopt.Manifold, but an object of it is: call it")
    if package == "hypll":
        remedy = "give the optimizer rsam.integrations.hypll.parameters(model)"
    else:
        remedy = "put the parameter on a manifold of geoopt's, or write a geoopt.Manifold that asks this one"
    raise TypeError(f"{name} of the package {package!r} is no geoopt.Manifold; {remedy}")


def is_euclidean(manifold: geoopt.Manifold) -> bool:
    """Tell whether a manifold is flat space as it is: a subclass that changes an operation, as its steps, is not."""
    kind: Any = type(manifold)  # mypy doubts that classes hash
    flat: Any = geoopt.Euclidean
    return issubclass(kind, flat) and _lookup(kind) is _lookup(flat)


def is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor is Euclidean, so that any optimizer may step it.

    Parameters
    ----------
    tensor : Tensor
        A parameter, or any other tensor.

    Returns
    -------
    bool
        Whether it has no attribute ``manifold``, or a :class:`geoopt.Euclidean` there. An object of a subclass that
        changes operations is another manifold.

    Raises
    ------
    TypeError
        If its attribute ``manifold`` is no :class:`geoopt.Manifold`; names its class and package.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> point = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    >>> rsam.geometry.is_plain(point), rsam.geometry.is_plain(torch.ones(2))
    (False, True)
    """
    return is_euclidean(manifold_of(tensor))
