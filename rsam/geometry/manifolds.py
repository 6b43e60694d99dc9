"""Manifolds that geoopt lacks: a right canonical Stiefel, and convolution kernels as points."""

from __future__ import annotations

import math

import geoopt
import torch
from geoopt.utils import size2shape
from torch import Tensor

from rsam.geometry.base import geometry_of, register
from rsam.geometry.composite import DelegatingGeometry
from rsam.geometry.stiefel import CanonicalStiefelGeometry

__all__ = ["CanonicalStiefel", "Kernel", "KernelSphere", "KernelStiefel"]


class _FromGeometry(geoopt.Manifold):
    """geoopt's interface, answered by the registered :class:`~rsam.geometry.Geometry` of the class."""

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        value = geometry_of(self).inner(x, u, u if v is None else v)
        return value if keepdim else value.flatten(-self.ndim).squeeze(-1)

    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        geometry = geometry_of(self)
        if v is None:
            return geometry.component_inner(x, u)
        # polarisation: the geometry only knows squares
        return (geometry.component_inner(x, u + v) - geometry.component_inner(x, u - v)) / 4

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(self).project(x, u)

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(self).raise_index(x, u)

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(self).retract(x, u)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(self).exponential(x, u)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return geometry_of(self).carry(x, y, v)

    def transp_follow_retr(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.retr_transp(x, u, v)[1]

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.expmap_transp(x, u, v)[1]

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        geometry = geometry_of(self)
        y = geometry.retract(x, u)
        return y, geometry.transport(x, u, y, v)

    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        geometry = geometry_of(self)
        y = geometry.exponential(x, u)
        return y, geometry.transport(x, u, y, v, exact=True)


class CanonicalStiefel(_FromGeometry, geoopt.CanonicalStiefel):
    r"""Drop-in :class:`geoopt.CanonicalStiefel` whose steps are right.

    Points are matrices :math:`X \in \mathbb{R}^{n\times p}`, :math:`X^\top X = I`, under the canonical metric. The
    retraction is the Cayley transform through :math:`W = PuX^\top - Xu^\top P`, :math:`P = I - XX^\top/2` (Wen and
    Yin 2013, eq. 11 and Lemma 4), solved in ``2p`` dimensions where ``2p < n``; :meth:`expmap` is the geodesic;
    tangents are carried along either curve by the orthogonal matrix that moves the point, an isometry, and by
    ``transp``, which knows no curve, by a rotation near the identity.

    geoopt 0.5.1's own retraction has derivative :math:`u + XX^\top u` at zero (a square matrix moves twice as far as
    asked), and its ``proju`` is not idempotent, which makes momentum grow without bound under ``stabilize``.

    Examples
    --------
    >>> import torch, rsam
    >>> manifold = rsam.geometry.CanonicalStiefel()
    >>> x, u = torch.eye(3, 1), torch.tensor([[0.0], [0.1], [0.0]])
    >>> manifold.retr(x, u).T
    tensor([[0.9950, 0.0998, 0.0000]])
    """


register(CanonicalStiefel)(CanonicalStiefelGeometry)  # or its methods, which ask the geometry, would be asked back


class Kernel(_FromGeometry):
    r"""A convolution kernel, or any weight ``(out, in, *window)``, as a point of a manifold of vectors or matrices.

    Parameters
    ----------
    base : geoopt.Manifold
        Where the flattened kernel lives.
    ndim : int
        Dimensions of one kernel: 4 for ``Conv2d``, 3 for ``Conv1d``, 2 for ``Linear``. More leading dimensions are a
        batch of kernels.

    Raises
    ------
    ValueError
        If ``ndim`` is less than 2.
    """

    reversible = False

    def __init__(self, base: geoopt.Manifold, ndim: int = 4) -> None:
        super().__init__()
        if ndim < 2:
            raise ValueError(f"ndim must be at least 2, (out, in, ...), got {ndim}")
        self.base = base
        self.ndim = ndim
        self.name = f"{type(self).__name__}({base.name})"

    def with_ndim(self, ndim: int) -> Kernel:
        """Return the same manifold for weights of ``ndim`` dimensions."""
        raise NotImplementedError

    def flatten(self, x: Tensor) -> Tensor:
        """Kernels ``(*batch, out, in, *window)`` in the layout of ``base``."""
        raise NotImplementedError

    def unflatten(self, y: Tensor, shape: torch.Size) -> Tensor:
        """Inverse of :meth:`flatten` for kernels of that shape."""
        raise NotImplementedError

    def projx(self, x: Tensor) -> Tensor:
        return geometry_of(self).project_point(x)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        squares = self.base.dist(self.flatten(x), self.flatten(y)) ** 2
        batch = x.shape[: x.dim() - self.ndim]
        distance = squares.reshape(*batch, -1).sum(-1).sqrt()
        return distance.reshape(*batch, *([1] * self.ndim)) if keepdim else distance

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.unflatten(self.base.logmap(self.flatten(x), self.flatten(y)), x.shape)

    def random(
        self, *size: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> geoopt.ManifoldTensor:
        """Projection of a standard normal kernel."""
        shape = size2shape(*size)
        self._assert_check_shape(shape, "x")
        return geoopt.ManifoldTensor(self.projx(torch.randn(shape, dtype=dtype, device=device)), manifold=self)

    def _check_shape(self, shape: tuple[int, ...], name: str) -> tuple[bool, str | None]:
        ok, reason = super()._check_shape(shape, name)
        if not ok:
            return ok, reason
        return self.base._check_shape(self.flatten(torch.empty(shape, device="meta")).shape, name)

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        return self.base._check_point_on_manifold(self.flatten(x), atol=atol, rtol=rtol)

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return self.base._check_vector_on_tangent(self.flatten(x), self.flatten(u), atol=atol, rtol=rtol)

    def extra_repr(self) -> str:
        return f"ndim={self.ndim}"


class KernelSphere(Kernel):
    """Oblique manifold: each of the ``out`` filters is a point on the unit sphere of dimension ``in * window``.

    Parameters
    ----------
    ndim : int
        See :class:`Kernel`.

    Examples
    --------
    >>> import torch, rsam
    >>> weight = rsam.geometry.KernelSphere().projx(torch.ones(2, 1, 2, 2))
    >>> weight.flatten(1)
    tensor([[0.5000, 0.5000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000, 0.5000]])
    """

    def __init__(self, ndim: int = 4) -> None:
        super().__init__(geoopt.Sphere(), ndim)

    def with_ndim(self, ndim: int) -> KernelSphere:
        return KernelSphere(ndim)

    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(x.dim() - self.ndim + 1)

    def unflatten(self, y: Tensor, shape: torch.Size) -> Tensor:
        return y.reshape(shape)


class KernelStiefel(Kernel):
    """The kernel as one orthonormal matrix ``(in * window, out)``, or its transpose where there are more filters.

    Parameters
    ----------
    canonical : bool
        Canonical metric (:class:`CanonicalStiefel`) instead of the Euclidean one.
    ndim : int
        See :class:`Kernel`.

    Examples
    --------
    >>> import torch, rsam
    >>> weight = rsam.geometry.KernelStiefel().random(8, 3, 3, 3)
    >>> gram = weight.flatten(1) @ weight.flatten(1).T
    >>> torch.allclose(gram, torch.eye(8), atol=1e-5)
    True
    """

    def __init__(self, canonical: bool = False, ndim: int = 4) -> None:
        super().__init__(CanonicalStiefel() if canonical else geoopt.EuclideanStiefel(), ndim)
        self.canonical = canonical

    def with_ndim(self, ndim: int) -> KernelStiefel:
        return KernelStiefel(self.canonical, ndim)

    def _wide(self, shape: torch.Size) -> bool:
        return shape[-self.ndim] > math.prod(shape[len(shape) - self.ndim + 1 :])

    def flatten(self, x: Tensor) -> Tensor:
        rows = x.flatten(x.dim() - self.ndim + 1)
        return rows if self._wide(x.shape) else rows.mT

    def unflatten(self, y: Tensor, shape: torch.Size) -> Tensor:
        return (y if self._wide(shape) else y.mT).reshape(shape)


@register(Kernel)
class KernelGeometry(DelegatingGeometry):
    """The geometry of the flattened kernel."""

    manifold: Kernel

    def __init__(self, manifold: Kernel) -> None:
        super().__init__(manifold, geometry_of(manifold.base))

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.manifold.ndim)

    def _enter(self, x: Tensor) -> Tensor:
        return self.manifold.flatten(x)

    def _leave(self, y: Tensor, like: Tensor) -> Tensor:
        return self.manifold.unflatten(y, like.shape)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        batch = x.shape[: x.dim() - self.manifold.ndim]
        value = super().inner(x, u, v).reshape(*batch, -1).sum(-1)
        return value.reshape(*batch, *([1] * self.manifold.ndim))

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        value = super().component_inner(x, u)  # (*batch, out, 1) for spheres, (*batch, 1, 1) for Stiefel
        return value.reshape(*value.shape[:-1], *([1] * (self.manifold.ndim - 1)))
