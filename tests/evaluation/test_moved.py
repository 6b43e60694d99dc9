"""That parameters can be elsewhere for a while without anybody noticing afterwards."""

from __future__ import annotations

import geoopt
import pytest
import torch
from torch import nn

from rsam.evaluation import at_points


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("manifold", [None, geoopt.Sphere()])
def test_parameters_are_moved_and_come_back(manifold, dtype) -> None:
    x = torch.tensor([0.6, 0.8], dtype=dtype)
    p = nn.Parameter(x) if manifold is None else geoopt.ManifoldParameter(x, manifold=manifold)
    place, version = p.data_ptr(), p._version
    with pytest.raises(KeyError), at_points([p], [torch.zeros(2, dtype=dtype)]):
        assert p.tolist() == [0, 0]
        raise KeyError
    assert p.data_ptr() == place
    assert p._version == version
    assert torch.equal(p.detach(), torch.tensor([0.6, 0.8], dtype=dtype))
    assert manifold is None or p.manifold is manifold


def test_a_graph_from_before_can_still_be_differentiated() -> None:
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    loss = p.pow(3).sum()
    with at_points([p], [torch.zeros(2)]):
        (elsewhere,) = torch.autograd.grad(p.pow(3).sum(), p)
    loss.backward()
    assert elsewhere.tolist() == [0, 0]
    assert p.grad.tolist() == [3, 12]  # 3 p^2


def test_autocast_does_not_remember_other_values() -> None:
    layer, x = nn.Linear(2, 2, bias=False), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        before = layer(x)
        with at_points([layer.weight], [torch.zeros(2, 2)]):
            assert not layer(x).any()
        assert torch.equal(layer(x), before)


def test_wrong_points_are_refused() -> None:
    p = nn.Parameter(torch.ones(2))
    for point in (torch.ones(3), torch.ones(2, dtype=torch.float64)):
        with pytest.raises(ValueError, match="point 0"), at_points([p], [point]):
            pass
    assert p.tolist() == [1, 1]
