"""Treat convolution kernels as points of a manifold of vectors or matrices."""

from __future__ import annotations

import math

import geoopt
import torch
from geoopt.utils import size2shape
from torch import Tensor

from rsam.geometry.forwarding import DelegatingGeometry
from rsam.geometry.geoopt_interface import FromGeometry
from rsam.geometry.manifolds.stiefel import CanonicalStiefel
from rsam.geometry.registry import geometry_of, register

__all__ = ["Kernel", "KernelSphere", "KernelStiefel"]


class Kernel(FromGeometry):
    r"""Manifold of convolution kernels, or any weights ``(out, in, *window)``, flattened to vectors or matrices.

    Parameters
    ----------
    base : geoopt.Manifold
        Manifold of the flattened kernel.
    ndim : int
        Number of dimensions of one kernel: 4 for ``Conv2d``, 3 for ``Conv1d``, 2 for ``Linear``. Further leading
        dimensions form a batch of kernels.

    Raises
    ------
    ValueError
        If ``ndim`` is less than 2.

    Examples
    --------
    A class of your own says how kernels become points of its base, here of the Poincaré ball:

    >>> import geoopt, torch, rsam
    >>> class KernelBall(rsam.geometry.Kernel):
    ...     def __init__(self, ndim=4):
    ...         super().__init__(geoopt.PoincareBall(), ndim)
    ...     def with_ndim(self, ndim):
    ...         return KernelBall(ndim)
    ...     def flatten(self, x):
    ...         return x.flatten(x.dim() - self.ndim + 1)
    ...     def unflatten(self, y, shape):
    ...         return y.reshape(shape)
    >>> origin = torch.zeros(1, 1, 2, 2)
    >>> KernelBall().retr(origin, torch.full((1, 1, 2, 2), 0.1)).flatten()
    tensor([0.1000, 0.1000, 0.1000, 0.1000])
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
        """Return the same manifold for weights of another number of dimensions.

        Parameters
        ----------
        ndim : int
            Number of dimensions of one kernel, at least 2.
        """
        raise NotImplementedError

    def flatten(self, x: Tensor) -> Tensor:
        """Return kernels in the layout of ``base``.

        Dimensions before those of a point of ``base`` must be ``*batch``, or ``*batch, out`` if each filter is a point.

        Parameters
        ----------
        x : Tensor
            Kernels, or tangents there, ``(*batch, out, in, *window)``.
        """
        raise NotImplementedError

    def unflatten(self, y: Tensor, shape: torch.Size) -> Tensor:
        """Return kernels from the layout of ``base``: the inverse of :meth:`flatten`.

        Parameters
        ----------
        y : Tensor
            Points of ``base``, or tangents there.
        shape : torch.Size
            Shape of the kernels, ``(*batch, out, in, *window)``.
        """
        raise NotImplementedError

    def projx(self, x: Tensor) -> Tensor:
        return geometry_of(self).project_point(x)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        squares = self.base.dist(self.flatten(x), self.flatten(y), keepdim=True) ** 2
        batch = x.shape[: x.dim() - self.ndim]
        distance = squares.flatten(len(batch)).sum(-1).sqrt()
        return distance.reshape(*batch, *([1] * self.ndim)) if keepdim else distance

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return geometry_of(self).logarithm(x, y)

    def random(
        self, *size: int, dtype: torch.dtype | None = None, device: torch.device | None = None
    ) -> geoopt.ManifoldTensor:
        """Draw a standard normal kernel and project it."""
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

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        # by the tangent of half the angle, since the cosine of geoopt's sphere is wrong for close points
        rows, others = self.flatten(x), self.flatten(y)
        halves = (torch.linalg.vector_norm(rows + sign * others, dim=-1) for sign in (-1, 1))
        distance: Tensor = torch.linalg.vector_norm(2 * torch.atan2(*halves), dim=-1)
        return distance.reshape(*distance.shape, *([1] * self.ndim)) if keepdim else distance


class KernelStiefel(Kernel):
    """Manifold of kernels that are one orthonormal matrix ``(in * window, out)``, or its transpose if it is wide.

    A step multiplies the kernel several times by ``out`` by ``out`` matrices, whereas a step of :class:`KernelSphere`
    only reads the kernel a few times. With all convolutions of a ResNet-18 constrained, a step of
    :class:`rsam.optim.RiemannianSGD` with momentum took 0.8 s on one CPU thread, and 1.2 s in the canonical metric. On
    spheres it took 0.06 s, 14 and 21 times less. Matrix products (projections of gradient and momentum, Cholesky-QR or
    Cayley) took four fifths of that time, factorisations a fortieth. The time does not depend on the batch size; to
    save it, constrain the smaller layers only.

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
    """Geometry of the flattened kernel."""

    manifold: Kernel
    only_layout = True

    def __init__(self, manifold: Kernel) -> None:
        super().__init__(manifold, geometry_of(manifold.base))

    def enter(self, x: Tensor) -> Tensor:
        return self.manifold.flatten(x)

    def leave(self, y: Tensor, shape: torch.Size) -> Tensor:
        return self.manifold.unflatten(y, shape)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        batch = x.shape[: x.dim() - self.manifold.ndim]
        value = super().inner(x, u, v).flatten(len(batch)).sum(-1)
        return value.reshape(*batch, *([1] * self.manifold.ndim))

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        value = super().component_inner(x, u)  # (*batch, out, 1) for filters, (*batch, 1, 1) or (*batch, 1) for kernels
        batch = x.dim() - self.manifold.ndim
        return value.reshape(*value.shape[: batch + 1], *([1] * (self.manifold.ndim - 1)))

    def point_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return self.component_inner(x, u)
