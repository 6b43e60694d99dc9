"""That differences choose their step by the precision of the evaluation, wherever it turns autocast on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rsam.losses import FisherTrace, GradientNorm


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", [GradientNorm, FisherTrace])
@pytest.mark.parametrize("objective", [True, False])
def test_gradient_is_near_the_exact_one_in_single_precision(kind, inside, objective) -> None:
    if inside and not hasattr(torch.ones((), requires_grad=True).clone().grad_fn, "_input_metadata"):
        pytest.skip("this torch does not tell the dtypes in a graph")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
    x, y = torch.randn(64, 8), torch.arange(64) % 3
    params = list(model.parameters())

    def autocast(enabled: bool) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=enabled, cache_enabled=True)

    def outputs(within: bool) -> Tensor:
        if not within:
            return model(x)
        with autocast(True):
            return model(x)

    def gradient(method: str, within: bool) -> Tensor:
        def closure():
            f = outputs(within).float()
            loss = nn.functional.cross_entropy(f, y)
            return ((loss, f) if objective else f) if kind is FisherTrace else loss

        penalty = kind(params, method=method)
        value = penalty.objective(closure) if objective else penalty(closure)
        if objective:
            value = value - nn.functional.cross_entropy(outputs(within).float(), y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, params)])

    exact = gradient("exact", False)
    with autocast(not inside):
        found = gradient("difference", inside)
    assert torch.cosine_similarity(found, exact, dim=0) > 0.95
