"""That gradients of another dtype than the parameter's (``grad_dtype``) are cast when they are gathered."""

from __future__ import annotations

import geoopt
import pytest
import torch

import rsam
from tests.optim.problems import manifold_points

pytestmark = pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="this torch has one dtype for both")

MAKERS = {
    "SGD": lambda params: rsam.optim.RiemannianSGD(params, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda params: rsam.optim.RiemannianAdam(params, lr=0.1),
    "RSAM": lambda params: rsam.RSAM(params, lr=0.1, momentum=0.9, radius="point"),
    "RSAM, pullback": lambda params: rsam.RSAM(params, rsam.optim.RiemannianAdam, lr=0.1, transport="pullback"),
}


def _stepped(name: str, dtype: torch.dtype, wide: torch.dtype | None) -> list[torch.Tensor]:
    params = []
    for point in manifold_points(torch.float32).values():
        if point.is_complex():
            continue
        for _ in range(2):  # two, for a stack
            params.append(geoopt.ManifoldParameter(point.detach().to(dtype), manifold=point.manifold))
    params.append(torch.nn.Parameter(torch.ones(3, dtype=dtype)))
    optimizer = MAKERS[name](params)
    for _ in range(2):
        for i, p in enumerate(params):
            p.grad_dtype = wide or dtype
            p.grad = torch.full_like(p, 0.25 + i % 3, dtype=p.grad_dtype)
        if isinstance(optimizer, rsam.RSAM):
            optimizer.first_step()
            p.grad = torch.full_like(p, 0.25 + i % 3, dtype=p.grad_dtype)
            optimizer.second_step()
        else:
            optimizer.step()
    assert all(p.dtype == dtype for p in params)
    return [p.detach() for p in params]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float32, torch.float64)])
def test_that_wider_gradients_step_as_those_of_the_parameters_do(name, dtype, wide) -> None:
    # numbers that both dtypes represent exactly
    for got, expected in zip(_stepped(name, dtype, wide), _stepped(name, dtype, None), strict=True):
        torch.testing.assert_close(got, expected, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)
