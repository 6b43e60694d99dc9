"""Define the operations of a manifold, with generic answers where geoopt has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import geoopt
import torch
from torch import Tensor

from rsam.errors import UnsupportedOperation
from rsam.geometry.equality import key_of
from rsam.geometry.linalg import balanced, independent_rows, largest, points_in

__all__ = ["OPERATIONS", "Geometry", "asks"]


_F = TypeVar("_F", bound=Callable[..., Any])


def asks(*methods: str) -> Callable[[_F], _F]:
    """Mark an operation of a geometry, and name the methods of the manifold that its generic form calls.

    If a subclass of a manifold with closed forms overrides one of these methods, the generic form is used again
    (:mod:`rsam.geometry.registry`). Products and forwarding geometries have exactly the operations marked here.
    """

    def mark(operation: _F) -> _F:
        operation.asks = methods  # type: ignore[attr-defined]
        return operation

    return mark


class Geometry:
    r"""Tangent-space algebra of one geoopt manifold.

    Points and vectors are tensors of shape ``(*batch, *point)``, as in geoopt. Tangent vectors are velocities in
    the ambient coordinates; covectors are what autograd leaves in ``x.grad``, so that the pairing of a covector
    ``g`` and a tangent ``v`` is ``sum(g * v)``. Nothing here mutates its arguments.

    This base class calls geoopt for everything that geoopt has, and derives the rest (lowering an index, isotropic
    tangents, geodesic acceleration). Subclasses registered for a manifold class replace its methods by closed
    forms, and correct geoopt where it is wrong.

    Parameters
    ----------
    manifold : geoopt.Manifold
        The manifold whose algebra this is.

    Attributes
    ----------
    retraction_order : int
        1 for any retraction, 2 where it agrees with the geodesic to second order (Absil et al. 2008, Sec. 5.5).
    isometric : bool
        Whether :meth:`transport` preserves the metric.
    momentum_transport : str
        Description of how :meth:`retract_transport` carries tangents.
    numbers : frozenset of str
        Kinds of numbers that points may hold: "real", "complex" or both.
    may_fail : bool
        Whether a step from a finite point may end at numbers that are not finite, for example at a boundary, although
        the squared length of the step is finite. Products then check the ends of curves, and wait for the device.

    Notes
    -----
    The operations share their arguments, and return tensors of the same shapes unless they say otherwise:

    x, y : Tensor
        Points, ``(*batch, *point)``.
    u, v : Tensor
        Tangents at ``x``, or ambient vectors to project, of the shape of ``x``.
    g, c : Tensor
        Covectors at ``x``, or at the end of a curve from there, of the shape of ``x``.
    z : Tensor
        Coordinates of a tangent in an orthonormal frame, ``(*batch, d)`` for points of dimension ``d``.
    t : float or Tensor
        Step size: a number, or a tensor of the shape of :meth:`component_inner`.
    exact : bool
        Follow the geodesic instead of the retraction.
    isometric : bool
        Carry tangents such that their inner products stay as they are.
    generator : torch.Generator, optional
        Source of randomness, on the device of ``x``.
    tolerance : float
        Largest change of a number by the projection onto the manifold, divided by the largest number if above 1.
    operation : str
        Name of a missing operation, for the message.

    An operation that the manifold lacks raises :exc:`UnsupportedOperation`.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> sphere = rsam.geometry.geometry_of(geoopt.Sphere())
    >>> x, gradient = torch.tensor([0.6, 0.8]), torch.tensor([1.0, 0.0])
    >>> u = sphere.raise_index(x, gradient)
    >>> u, sphere.inner(x, u, u)
    (tensor([ 0.6400, -0.4800]), tensor([0.6400]))
    >>> sphere.exponential(x, u).norm()
    tensor(1.)
    """

    retraction_order: int = 1
    isometric: bool = False
    momentum_transport: str = "as transport"
    numbers: frozenset[str] = frozenset({"real"})
    may_fail: bool = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # a subclass that redefines the step or the transport must not inherit the closed form of both together
        changed = {"retract", "exponential", "transport", "carry"} & vars(cls).keys()
        if changed and "retract_transport" not in vars(cls):
            cls.retract_transport = Geometry.retract_transport  # type: ignore[method-assign]
            if "momentum_transport" not in vars(cls):
                cls.momentum_transport = Geometry.momentum_transport

    def __init__(self, manifold: geoopt.Manifold) -> None:
        self.manifold = manifold

    def key(self) -> Hashable:
        """Return a key, equal for equal manifolds, whose points may be stacked: by default class and constants."""
        return key_of(self.manifold)

    def contains(self, x: Tensor, tolerance: float) -> bool:
        """Tell whether a check cheaper than a projection shows that all points are on the manifold."""
        return False

    def unsupported(self, operation: str) -> UnsupportedOperation:
        """Return the error that names this manifold and a missing operation."""
        name = type(self.manifold).__name__
        return UnsupportedOperation(f"{name} has no {operation}; give it one with @rsam.geometry.register({name})")

    @asks("proju")
    def dimension(self, x: Tensor) -> int:
        """Return the dimension of the manifold that the whole tensor ``x``, batch included, is a point of."""
        return points_in(x, self.manifold.ndim) * len(self._numerical_frame(x.detach()))

    # -- metric -------------------------------------------------------------------------------------------------

    @asks("inner")
    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the inner product of two tangents at each point, broadcastable to ``x``."""
        # keepdim: without it geoopt's stereographic inner broadcasts n points to (n, n), and Euclidean ndim=0
        # does not sum at all
        return self.manifold.inner(x, u, v, keepdim=True)

    @asks("inner", "component_inner")
    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the squared norm of each smallest independent component, broadcastable to ``x`` (for Adam)."""
        # geoopt's default is inner, which is wrong for some of its manifolds
        own = not type(self.manifold).component_inner.__module__.startswith(("geoopt.", "rsam."))
        return self.manifold.component_inner(x, u) if own else self.inner(x, u, u)

    @asks("inner")
    def squared_norm(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the squared norm of a tangent over the whole tensor, a scalar."""
        return self.inner(x, u, u).sum()

    @asks("inner", "component_inner")
    def point_inner(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the squared norm at each point, broadcastable to ``x``; a kernel may be several points."""
        return self.inner(x, u, u)

    @asks("egrad2rgrad")
    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        """Return the tangent that represents the covector ``g``: the Riemannian gradient for a Euclidean one."""
        return self.manifold.egrad2rgrad(x, g.clone())  # clone: some manifolds write into their argument

    @asks("inner")
    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the covector that represents the tangent ``u``: the derivative of the linear form ``v -> <u, v>``."""
        create_graph = _tracked(x, u)
        with torch.enable_grad():
            v = torch.zeros_like(u).requires_grad_()
            form = self.inner(x, u, v).sum()
            form = form.real if form.is_complex() else form
            (covector,) = torch.autograd.grad(form, v, create_graph=create_graph)
        return covector

    @asks("proju")
    def project(self, x: Tensor, u: Tensor) -> Tensor:
        """Project an ambient vector onto the tangent space at ``x``."""
        return self.manifold.proju(x, u)

    @asks("proju")
    def restore_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """Undo the rounding of a tangent: project onto the tangent space in the direction that rounds least."""
        return self.project(x, u)

    @asks("projx")
    def project_point(self, x: Tensor) -> Tensor:
        """Map an ambient ``x`` to a nearby point on the manifold."""
        return self.manifold.projx(x)

    # -- curves -------------------------------------------------------------------------------------------------

    @asks("retr")
    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the end of the retraction, by which optimizers step."""
        return self.manifold.retr(x, u)

    @asks("expmap")
    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the end of the geodesic, by the exact exponential map."""
        try:
            return self.manifold.expmap(x, u)
        except NotImplementedError as error:
            raise self.unsupported("exponential") from error

    @asks("logmap")
    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the tangent at ``x`` whose geodesic reaches ``y`` at time one."""
        try:
            return self.manifold.logmap(x, y)
        except NotImplementedError as error:
            raise self.unsupported("logarithm") from error

    @asks()
    def curve(self, x: Tensor, u: Tensor, exact: bool = False) -> Tensor:
        """Return the end of a curve from ``x`` along ``u``: :meth:`exponential` if ``exact``, else :meth:`retract`."""
        return self.exponential(x, u) if exact else self.retract(x, u)

    @asks("retr", "expmap")
    def retract_second_order(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the end of a curve that agrees with the geodesic to second order, for differences of a Hessian."""
        return self.curve(x, u, exact=self.retraction_order < 2)

    @asks("transp")
    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Transport a tangent ``v`` from ``x`` to ``y``, when the curve between them does not matter."""
        try:
            return self.manifold.transp(x, y, v)
        except NotImplementedError as error:
            raise self.unsupported("transport") from error

    @asks("transp")
    def transport(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor, exact: bool = False) -> Tensor:
        """Transport a tangent ``v`` from ``x`` to ``y = curve(x, u, exact)``."""
        return self.carry(x, y, v)

    @asks("transp")
    def transport_back(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor, exact: bool = False) -> Tensor:
        """Transport a tangent ``v`` from ``y = curve(x, u, exact)`` back to ``x``."""
        return self.carry(y, x, v)

    @asks("retr", "expmap", "transp")
    def retract_transport(
        self, x: Tensor, u: Tensor, v: Tensor, t: float | Tensor = 1.0, isometric: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Retract along ``t u``, and carry ``v`` by the cheapest valid vector transport, or by an ``isometric`` one.

        This is how optimizers carry their momentum (geoopt's ``retr_transp``). A vector transport is valid if it is
        linear, smooth, and the identity for a zero step (Absil et al. 2008, Def. 8.1.1); :attr:`momentum_transport`
        says which one is used. Returns the end of the step, and the tangent there.
        """
        step = u * t
        y = self.retract(x, step)
        if self.momentum_transport == "projection" and not isometric:
            return y, self.project(y, v)
        return y, self.transport(x, step, y, v)

    @asks("retr", "expmap")
    def pullback(self, x: Tensor, u: Tensor, c: Tensor, exact: bool = False) -> Tensor:
        r"""Return the covector ``(D curve_x(u))^T c`` at ``x``: the gradient of the lifted function at ``u``."""
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            y = self.curve(x.detach(), u, exact)
            (covector,) = torch.autograd.grad(y, u, c)
        return covector

    # -- second order -------------------------------------------------------------------------------------------

    @asks("proju")
    def coordinates_shape(self, x: Tensor) -> torch.Size:
        """Return the shape of the coordinates of tangents at ``x``: ``(*batch, d)`` for points of dimension ``d``."""
        split = x.dim() - self.manifold.ndim
        batch, count = x.shape[:split], math.prod(x.shape[:split])
        dimension = self.dimension(x) // count if count else self.dimension(x.new_zeros(x.shape[split:]))
        return torch.Size((*batch, dimension))

    @asks("inner", "proju")
    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        r"""Return the tangent :math:`B_x z` with coordinates ``z`` in an orthonormal frame, of length :math:`\|z\|`.

        It is smooth in ``x``, except where the frame has to jump. The fallback makes a frame of projected unit vectors.
        """
        if not x.numel():
            return x * z.sum()  # without points, still a graph to z
        frame = self._numerical_frame(x)
        ndim = self.manifold.ndim
        return (frame * z.movedim(-1, 0).reshape(*z.shape[-1:], *z.shape[:-1], *([1] * ndim))).sum(0)

    def _numerical_frame(self, x: Tensor) -> Tensor:
        """Return orthonormal tangents ``(d, *x.shape)`` at every point of ``x``.

        Of the projected unit vectors independent ones are chosen, and orthonormalised by a Cholesky factorisation of
        their inner products. This is smooth in ``x`` while the choice stays, and takes memory of the square of a
        point's size.
        """
        ndim = self.manifold.ndim
        point, batch = x.shape[x.dim() - ndim :], x.shape[: x.dim() - ndim]
        n = math.prod(point)
        units = torch.eye(n, dtype=x.dtype, device=x.device)
        if x.is_complex():
            units = torch.cat((units, 1j * units))
        units = units.reshape(-1, *([1] * len(batch)), *point).expand(-1, *x.shape)
        numbers, points = len(units), x.expand_as(units)
        tangents = self.project(points, units)
        covectors = self.lower_index(points, tangents)

        def flat(t: Tensor) -> Tensor:  # (*batch, units, real numbers of a point)
            t = torch.view_as_real(t) if t.is_complex() else t
            return t.reshape(numbers, *batch, numbers).movedim(0, -2)

        tangents, gram = flat(tangents), flat(tangents) @ flat(covectors).mT
        chosen = independent_rows(balanced(gram.detach(), tangents.detach()))
        root = torch.linalg.cholesky(chosen @ gram @ chosen.mT)
        frame: Tensor = torch.linalg.solve_triangular(root, chosen @ tangents, upper=False).movedim(-2, 0)
        if x.is_complex():
            frame = torch.view_as_complex(frame.reshape(*frame.shape[:-1], n, 2).contiguous())
        return frame.reshape(len(frame), *x.shape)

    @asks("inner", "proju")
    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        r"""Return :math:`B_x^\top c`, the pairings of a covector with the frame, ``(*batch, d)``."""
        with torch.enable_grad():
            z = torch.zeros(self.coordinates_shape(x), dtype=x.real.dtype, device=x.device, requires_grad=True)
            (coordinates,) = torch.autograd.grad(self.from_coordinates(x.detach(), z), z, c)
        return coordinates

    @asks("inner", "proju")
    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw a normal tangent whose covariance is the inverse metric, so that E<v, v> is the dimension."""
        shape = self.coordinates_shape(x)
        return self.from_coordinates(x, torch.randn(shape, dtype=x.real.dtype, device=x.device, generator=generator))

    @asks("inner", "expmap")
    def connection(self, x: Tensor, c: Tensor, v: Tensor) -> Tensor:
        r"""Return the covector :math:`\frac12 \nabla_v \langle c, a_x(v)\rangle` that the connection adds to a Hessian.

        In coordinates :math:`-\Gamma^k_{ij} c_k v^j`, linear in the covector ``c`` and in the tangent ``v``.
        """
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            form = (c.detach().conj() * self.acceleration(x.detach(), v)).real.sum() / 2
            (covector,) = torch.autograd.grad(form, v)
        return covector

    @asks("inner", "expmap")
    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        r"""Return the ambient acceleration :math:`\ddot\gamma(0)` of the geodesic from ``x`` with velocity ``v``.

        The fallback differentiates :meth:`exponential` twice in time, in reverse mode only: the nested forward
        modes of torch are silently wrong through ``torch.linalg.solve``.
        """
        create_graph = _tracked(x, v)
        with torch.enable_grad():
            t = torch.zeros((), dtype=x.real.dtype, device=x.device, requires_grad=True)
            probe = torch.zeros_like(x, requires_grad=True)  # the derivative in the probe gives all components
            y = self.exponential(x, t * v) if create_graph else self.exponential(x.detach(), t * v.detach())
            # for a curve that is straight in these coordinates t would drop out of the graph: add zero times it
            form = ((probe.conj() * y).sum() + 0 * t**3 * probe.sum()).real
            (speed,) = torch.autograd.grad(form, t, create_graph=True)
            (form,) = torch.autograd.grad(speed, t, create_graph=True)
            (acceleration,) = torch.autograd.grad(form, probe, create_graph=create_graph)
        self._check_acceleration(x.detach(), v.detach(), acceleration.detach())
        return acceleration

    def _check_acceleration(self, x: Tensor, v: Tensor, acceleration: Tensor) -> None:
        """Raise if a second difference clearly disagrees: at zero torch's derivatives of a norm are 0 or NaN."""
        size = largest(v)
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


def _tracked(*tensors: Tensor) -> bool:
    """Tell whether results of these tensors must carry a graph."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


#: The operations of a geometry by name, each with the methods of the manifold that its generic form calls.
OPERATIONS: dict[str, tuple[str, ...]] = {
    name: operation.asks for name, operation in vars(Geometry).items() if hasattr(operation, "asks")
}
