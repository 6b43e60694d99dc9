"""What a manifold must offer: the strategy object behind the list vocabulary, and its registry."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import geoopt
import torch
from torch import Tensor

from rsam.geometry.frames import numerical_frame

__all__ = ["Geometry", "UnsupportedOperation", "geometry_of", "register"]


class UnsupportedOperation(NotImplementedError):
    """A manifold has no such operation.

    Attributes
    ----------
    index : int or None
        Position of the offending parameter in the list the vocabulary was called with.
    """

    index: int | None = None


class Geometry:
    r"""Tangent-space algebra of one geoopt manifold.

    Points and vectors are tensors of shape ``(*batch, *point)``, as in geoopt. Tangent vectors are velocities in
    the ambient coordinates; covectors are what autograd leaves in ``x.grad``, so that the pairing of a covector
    ``g`` and a tangent ``v`` is ``sum(g * v)``. Nothing here mutates its arguments.

    This base class asks geoopt for everything, and derives what geoopt has no name for (lowering an index,
    isotropic tangents, geodesic acceleration). Subclasses registered for a manifold class replace that by closed
    forms, and by corrections where geoopt is wrong.

    Parameters
    ----------
    manifold : geoopt.Manifold
        The manifold whose algebra this is.

    Attributes
    ----------
    retraction_order : int
        1 for any retraction, 2 where it agrees with the geodesic to second order (Absil et al. 2008, Def. 5.5.1).
    isometric : bool
        Whether :meth:`transport` preserves the metric.
    """

    retraction_order: int = 1
    isometric: bool = False

    def __init__(self, manifold: geoopt.Manifold) -> None:
        self.manifold = manifold

    def key(self) -> tuple[Any, ...]:
        """Equal keys: the same manifold, so that points may be stacked. geoopt compares by identity."""
        return (type(self.manifold), id(self.manifold))

    def unsupported(self, operation: str) -> UnsupportedOperation:
        """Return the error that names this manifold and a missing operation."""
        name = type(self.manifold).__name__
        return UnsupportedOperation(f"{name} has no {operation}; give it one with @rsam.geometry.register({name})")

    def dimension(self, x: Tensor) -> int:
        """Dimension of the manifold that the whole tensor ``x`` is a point of, batch included."""
        return points_in(x, self.manifold.ndim) * len(numerical_frame(self, x.detach()))

    # -- metric -------------------------------------------------------------------------------------------------

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Inner product of two tangents at each point, kept broadcastable to ``x``."""
        # keepdim: without it geoopt's stereographic inner broadcasts n points to (n, n), and Euclidean ndim=0
        # does not sum at all
        return self.manifold.inner(x, u, v, keepdim=True)

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        """Squared norm of each smallest independent component, broadcastable to ``x`` (for Adam)."""
        return self.inner(x, u, u)

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        """Tangent that represents the covector ``g``: the Riemannian gradient of a Euclidean one."""
        return self.manifold.egrad2rgrad(x, g.clone())  # clone: some manifolds write into their argument

    def lower_index(self, x: Tensor, t: Tensor) -> Tensor:
        """Covector that represents the tangent ``t``; the derivative of the linear form ``v -> <t, v>``."""
        create_graph = _tracked(x, t)
        with torch.enable_grad():
            v = torch.zeros_like(t).requires_grad_()
            form = self.inner(x, t, v).sum()
            form = form.real if form.is_complex() else form
            (covector,) = torch.autograd.grad(form, v, create_graph=create_graph)
        return covector

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        """Projection of an ambient vector onto the tangent space at ``x``."""
        return self.manifold.proju(x, u)

    def restore_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """The tangent that a vector was before it was rounded: a projection, along whatever rounds least."""
        return self.project(x, u)

    def project_point(self, x: Tensor) -> Tensor:
        """Nearby point on the manifold for an ambient ``x``."""
        return self.manifold.projx(x)

    # -- curves -------------------------------------------------------------------------------------------------

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        """The retraction that optimizers step with."""
        return self.manifold.retr(x, u)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        """The exact exponential map."""
        try:
            return self.manifold.expmap(x, u)
        except NotImplementedError as error:
            raise self.unsupported("exponential") from error

    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        """Tangent at ``x`` whose geodesic reaches ``y`` at time one."""
        try:
            return self.manifold.logmap(x, y)
        except NotImplementedError as error:
            raise self.unsupported("logarithm") from error

    def curve(self, x: Tensor, u: Tensor, exact: bool = False) -> Tensor:
        """End of the curve from ``x`` along ``u``: :meth:`exponential` if ``exact``, else :meth:`retract`."""
        return self.exponential(x, u) if exact else self.retract(x, u)

    def retract_second_order(self, x: Tensor, u: Tensor) -> Tensor:
        """End of a curve that agrees with the geodesic to second order: what differences of a Hessian run along."""
        return self.curve(x, u, exact=self.retraction_order < 2)

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Transport of a tangent ``v`` from ``x`` to ``y``, where the curve between them does not matter."""
        try:
            return self.manifold.transp(x, y, v)
        except NotImplementedError as error:
            raise self.unsupported("transport") from error

    def transport(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor, exact: bool = False) -> Tensor:
        """Vector transport of ``v`` from ``x`` to ``y = curve(x, u, exact)``."""
        return self.carry(x, y, v)

    def transport_back(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor, exact: bool = False) -> Tensor:
        """Vector transport of ``v`` from ``y = curve(x, u, exact)`` back to ``x``."""
        return self.carry(y, x, v)

    def pullback(self, x: Tensor, u: Tensor, c: Tensor, exact: bool = False) -> Tensor:
        r"""Covector ``(D curve_x(u))^T c`` at ``x``: the gradient of the lifted function at ``u``."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            y = self.curve(x.detach(), u, exact)
            (covector,) = torch.autograd.grad(y, u, c)
        return covector

    # -- second order -------------------------------------------------------------------------------------------

    def coordinates_shape(self, x: Tensor) -> torch.Size:
        """Shape of the coordinates of tangents at ``x``: ``(*batch, d)`` for points of dimension ``d``."""
        split = x.dim() - self.manifold.ndim
        batch, count = x.shape[:split], math.prod(x.shape[:split])
        dimension = self.dimension(x) // count if count else self.dimension(x.new_zeros(x.shape[split:]))
        return torch.Size((*batch, dimension))

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        r"""Tangent :math:`B_x z` of coordinates in an orthonormal frame: :math:`\langle B_x z, B_x z\rangle = \|z\|^2`.

        Smooth in ``x``, except where the frame has to jump. The fallback makes a frame of projected unit vectors.
        """
        frame = numerical_frame(self, x)
        ndim = self.manifold.ndim
        return (frame * z.movedim(-1, 0).reshape(*z.shape[-1:], *z.shape[:-1], *([1] * ndim))).sum(0)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        r"""Transpose :math:`B_x^\top c`: pairings of a covector with the frame, ``(*batch, d)``."""
        with torch.enable_grad():
            z = torch.zeros(self.coordinates_shape(x), dtype=x.real.dtype, device=x.device, requires_grad=True)
            (coordinates,) = torch.autograd.grad(self.from_coordinates(x.detach(), z), z, c)
        return coordinates

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normal tangent whose covariance is the inverse metric, so that E<v, v> is the dimension."""
        shape = self.coordinates_shape(x)
        return self.from_coordinates(x, torch.randn(shape, dtype=x.real.dtype, device=x.device, generator=generator))

    def connection(self, x: Tensor, c: Tensor, v: Tensor) -> Tensor:
        r"""Covector :math:`\frac12 \nabla_v \langle c, a_x(v)\rangle`: what the connection adds to a Euclidean Hessian.

        In coordinates :math:`-\Gamma^k_{ij} c_k v^j`, linear in the covector ``c`` and in the tangent ``v``.
        """
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            form = (c.detach().conj() * self.acceleration(x.detach(), v)).real.sum() / 2
            (covector,) = torch.autograd.grad(form, v)
        return covector

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        r"""Ambient acceleration :math:`\ddot\gamma(0)` of the geodesic from ``x`` with velocity ``v``.

        The fallback differentiates :meth:`exponential` twice in time, in reverse mode only: the nested forward
        modes of torch are silently wrong through ``torch.linalg.solve``.
        """
        create_graph = _tracked(x, v)
        with torch.enable_grad():
            t = torch.zeros((), dtype=x.real.dtype, device=x.device, requires_grad=True)
            probe = torch.zeros_like(x, requires_grad=True)  # d/dprobe of the linear form picks each component
            y = self.exponential(x, t * v) if create_graph else self.exponential(x.detach(), t * v.detach())
            # a curve that is straight in these coordinates would drop t from the graph: keep a zero of it there
            form = ((probe.conj() * y).sum() + 0 * t**3 * probe.sum()).real
            (speed,) = torch.autograd.grad(form, t, create_graph=True)
            (form,) = torch.autograd.grad(speed, t, create_graph=True)
            (acceleration,) = torch.autograd.grad(form, probe, create_graph=create_graph)
        self._check_acceleration(x.detach(), v.detach(), acceleration.detach())
        return acceleration

    def _check_acceleration(self, x: Tensor, v: Tensor, acceleration: Tensor) -> None:
        """Raise if a second difference disagrees by far: through a norm of the tangent torch gives 0 or NaN at zero."""
        size = float(v.abs().max()) if v.numel() else 0.0
        if not size:
            return
        eps = float(torch.finfo(x.dtype).eps)
        h = eps**0.25 / size  # a difference is right to about sqrt(eps)
        numeric = (self.exponential(x, h * v) + self.exponential(x, -h * v) - 2 * x) / h**2
        bound = 0.05 * float(numeric.abs().max()) + 100 * eps**0.5 * size**2 * max(1.0, float(x.abs().max()))
        if not float((acceleration - numeric).abs().max()) <= bound:
            name = type(self.manifold).__name__
            raise UnsupportedOperation(
                f"{name} has no acceleration: its exponential cannot be differentiated twice at a zero tangent (a "
                f"norm?); give it one with @rsam.geometry.register({name})"
            )


_registry: dict[type, type[Geometry]] = {}
_T = TypeVar("_T")


def register(manifold_class: type[geoopt.Manifold]) -> Callable[[_T], _T]:
    """Register a geometry, or one operation of it, for a manifold class and its subclasses without an entry.

    Parameters
    ----------
    manifold_class : type
        A subclass of :class:`geoopt.Manifold`.

    Returns
    -------
    callable
        Decorator for a :class:`Geometry` subclass, or for a function named after one of its methods and taking
        the manifold where the method takes ``self``.

    Raises
    ------
    TypeError
        If the decorated function bears the name of no operation.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> class Circle(geoopt.Sphere):
    ...     pass
    >>> @rsam.geometry.register(Circle)
    ... def acceleration(manifold, x, v):
    ...     return -(v * v).sum(-1, keepdim=True) * x
    >>> x = geoopt.ManifoldTensor(torch.tensor([0.6, 0.8]), manifold=Circle())
    >>> rsam.geometry.acceleration([x], [torch.tensor([-1.6, 1.2])])
    [tensor([-2.4000, -3.2000])]
    """

    def decorate(entry: Any) -> Any:
        if isinstance(entry, type) and issubclass(entry, Geometry):
            _registry[manifold_class] = entry
            _lookup.cache_clear()
            return entry
        name = getattr(entry, "__name__", repr(entry))
        if name.startswith("_") or not callable(getattr(Geometry, name, None)):
            operations = sorted(n for n in vars(Geometry) if not n.startswith("_") and callable(getattr(Geometry, n)))
            raise TypeError(f"{name!r} is no operation of a geometry; name the function one of {operations}")

        def method(self: Geometry, *args: Any, **kwargs: Any) -> Any:
            return entry(self.manifold, *args, **kwargs)

        parent = _lookup(manifold_class)  # type: ignore[arg-type]  # mypy doubts that classes hash
        _registry[manifold_class] = type(f"{manifold_class.__name__}Geometry", (parent,), {name: method})
        _lookup.cache_clear()
        return entry

    return decorate


# What is no longer known of a manifold whose class overrides one of geoopt's methods: the operations that then ask
# the manifold itself, as the generic geometry does.
_ASKS = {
    "inner": (
        "inner",
        "component_inner",
        "lower_index",
        "from_coordinates",
        "to_coordinates",
        "random_tangent",
        "acceleration",
        "connection",
    ),
    "component_inner": ("component_inner",),
    "egrad2rgrad": ("raise_index",),
    "proju": (
        "project",
        "restore_tangent",
        "dimension",
        "coordinates_shape",
        "from_coordinates",
        "to_coordinates",
        "random_tangent",
    ),
    "projx": ("project_point",),
    "retr": ("retract", "pullback", "retract_second_order"),
    "expmap": ("exponential", "acceleration", "connection", "pullback", "retract_second_order"),
    "logmap": ("logarithm",),
    "transp": ("carry", "transport", "transport_back"),
}


@functools.cache
def _lookup(manifold_class: type) -> type[Geometry]:
    overridden: dict[str, Any] = {}
    for cls in manifold_class.__mro__:
        if cls in _registry:
            known = _registry[cls]
            return type(f"{manifold_class.__name__}Geometry", (known,), overridden) if overridden else known
        if cls.__module__.startswith("geoopt."):
            continue  # geoopt's own variants of a registered class only rename its methods
        for method in vars(cls).keys() & _ASKS.keys():
            overridden.update((operation, getattr(Geometry, operation)) for operation in _ASKS[method])
            overridden["isometric"] = False
            overridden["retraction_order"] = 1
    return Geometry


def geometry_of(manifold: geoopt.Manifold) -> Geometry:
    """Return the registered geometry of a manifold, or the generic one that asks the manifold itself.

    A class that derives from a registered one and overrides some of its methods is asked about those.
    """
    return _lookup(type(manifold))(manifold)  # type: ignore[arg-type]


def _tracked(*tensors: Tensor) -> bool:
    """Whether a result of these must carry a graph."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def points_in(x: Tensor, ndim: int) -> int:
    """Count the points in ``x`` when each has ``ndim`` dimensions."""
    return math.prod(x.shape[: x.dim() - ndim])
