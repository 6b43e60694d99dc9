"""That factorisations that do not wait for a device give the results of those for the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rsam.geometry import orthonormal

# square, tall, one column, one number (without tangents), empty; the algorithm changes at 32 columns of tall ones, and
# at 192 of all
SHAPES = [(3, 4, 4), (2, 9, 3), (2, 5, 1), (2, 1, 1), (2, 80, 32), (0, 5, 2), (1, 200, 192)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def _step(shape: tuple[int, ...], length: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Make frames, and tangents of a given length at these."""
    generator = torch.Generator().manual_seed(0)
    x, u = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    x = torch.linalg.qr(x)[0]
    u = orthonormal.project(x, u)
    u = u * length / torch.linalg.vector_norm(u, dim=(-2, -1), keepdim=True).clamp_min(1e-9)
    return x.to(dtype), u.to(dtype)


@each_shape
def test_that_projections_are_those_of_matrices(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    x = torch.linalg.qr(x)[0]
    expected = v - x @ (x.mT @ v + v.mT @ x) / 2
    torch.testing.assert_close(orthonormal.project(x, v), expected, rtol=0, atol=1e-12)


@each_shape
@pytest.mark.parametrize("length", [0.1, 1.0, 10.0])
def test_that_shifted_cholesky_finds_the_factor_of_householder(shape: tuple[int, ...], length: float) -> None:
    x, u = _step(shape, length, torch.float64)
    q = orthonormal._shifted_cholesky_qr(x, u)
    torch.testing.assert_close(q, orthonormal.signed_qr(x + u), rtol=0, atol=1e-12)
    torch.testing.assert_close(q, orthonormal.orthonormalised(x, u), rtol=0, atol=1e-12)


@each_shape
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e2, 1e4, 1e5])
def test_that_shifted_cholesky_is_orthonormal_after_steps_of_any_length(shape: tuple[int, ...], length: float) -> None:
    x, u = _step(shape, length, torch.float32)
    q = orthonormal._shifted_cholesky_qr(x, u).double()
    eye = torch.eye(shape[-1], dtype=q.dtype).expand(shape[0], -1, -1)
    torch.testing.assert_close(q.mT @ q, eye, rtol=0, atol=8 * torch.finfo(torch.float32).eps)


class Elsewhere(Tensor):
    """Tensor on the CPU that denies being there when asked for the first time."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    denied = False

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        first, self.denied = not self.denied, True
        return torch.device("cuda" if first else "cpu")


@pytest.mark.parametrize("size", [1, 5, 40])
def test_that_inverses_by_products_are_those_by_cholesky(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, size, 2 * size, dtype=torch.float64, generator=generator)
    root = torch.linalg.cholesky(a @ a.mT, upper=True)
    elsewhere = root.as_subclass(Elsewhere)
    inverse = orthonormal.spd_inverse(elsewhere)
    assert elsewhere.denied
    torch.testing.assert_close(inverse, torch.cholesky_inverse(root, upper=True), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inverse, orthonormal.spd_inverse(root), rtol=1e-12, atol=1e-12)
