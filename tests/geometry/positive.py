"""A manifold as a user may write it, whose points are numbers, so that a tensor of n numbers is a batch of n points."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor

from rsam.testing import point_from_array


class Positive(geoopt.Manifold):
    """Positive numbers with the metric ``u v / x^2``, in which the logarithm is an isometry onto the line."""

    name, ndim, reversible = "Positive", 0, False

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        return bool((x > 0).all()), "a number is not positive"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return True, None

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return u * (u if v is None else v) / x**2

    def projx(self, x: Tensor) -> Tensor:
        return x.abs().clamp_min(1e-6)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return u * x**2

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x * torch.exp(u / x)

    retr = expmap

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return x * torch.log(y / x)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return v * y / x

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        return torch.log(y / x).abs()


@point_from_array.register
def _(manifold: Positive, array: Tensor) -> Tensor:
    return 2 ** array.clamp(-4, 4)
