"""That weight decay applies to plain weights only."""

from __future__ import annotations

import geoopt
import pytest
import torch
from torch import nn

import rsam
from rsam.nn import groups as module_under_test


def model() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 3)
    )
    network.scale = nn.Parameter(torch.ones(()))
    network.ball = geoopt.PoincareBall()
    network.points = geoopt.ManifoldParameter(torch.zeros(5, 2), manifold=network.ball)
    return network


def names_by_decay(groups, network: nn.Module) -> dict[float, set[str]]:
    names = {id(p): n for n, p in network.named_parameters()}
    optimizer = rsam.optim.RiemannianSGD(groups, lr=0.1)  # the optimizer unpacks the pairs
    return {g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in optimizer.param_groups}


def test_that_only_plain_weights_decay() -> None:
    network = rsam.nn.constrain(model(), rsam.geometry.KernelSphere(), "0.weight")
    groups = rsam.nn.parameter_groups(network, 0.1, constrained={"weight_decay": 0.01, "lr": 0.3})
    assert [g.get("lr") for g in groups] == [None, None, 0.3]
    by_decay = names_by_decay(groups, network)
    assert by_decay.keys() == {0.1, 0.0, 0.01}
    assert by_decay[0.1] == {"2.weight", "5.weight"}
    assert by_decay[0.01] == {"0.weight", "points"}
    assert set().union(*by_decay.values()) == {n for n, _ in network.named_parameters()}


def test_that_the_loss_of_a_constrained_model_does_not_decay_its_points() -> None:
    """With weight decay in every group, points of the ball would shrink even without a gradient of the loss."""
    network = model()
    with torch.no_grad():
        network.points.copy_(torch.full((5, 2), 0.5))
    optimizer = rsam.optim.RiemannianSGD(rsam.nn.parameter_groups(network, 0.5), lr=0.1)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    before = network[2].weight.detach().clone()
    optimizer.step()
    assert torch.equal(network.points, torch.full((5, 2), 0.5))
    torch.testing.assert_close(network[2].weight.detach(), 0.95 * before)


def test_that_plain_models_are_grouped_as_by_timm() -> None:
    optim = pytest.importorskip("timm.optim", reason="timm is the reference for weight decay by parameter")
    network = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.TransformerEncoderLayer(4, 2, 8), nn.Linear(4, 2))
    theirs = names_by_decay(optim.param_groups_weight_decay(network, 0.1), network)
    assert names_by_decay(rsam.nn.parameter_groups(network, 0.1), network) == theirs


def test_that_a_norm_layer_over_several_dimensions_does_not_decay() -> None:
    network = nn.Sequential(nn.LayerNorm((4, 5)), nn.Linear(5, 5))
    assert names_by_decay(rsam.nn.parameter_groups(network, 0.1), network)[0.1] == {"1.weight"}


def test_that_a_shared_weight_is_in_one_group_once() -> None:
    network = nn.ModuleDict({"encode": nn.Linear(3, 3), "decode": nn.Linear(3, 3)})
    network["decode"].weight = network["encode"].weight
    (decayed, _) = rsam.nn.parameter_groups(network, 0.1)
    assert len(decayed["params"]) == 1


def test_that_parameters_keep_their_names_where_torch_takes_them(monkeypatch) -> None:
    network = nn.Linear(2, 2)
    optimizer = rsam.RSAM(rsam.nn.parameter_groups(network, 0.1), torch.optim.SGD, lr=0.1)
    named = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)
    assert [g.get("param_names") for g in optimizer.param_groups] == ([["weight"], ["bias"]] if named else [None] * 2)
    monkeypatch.setattr(module_under_test, "_NAMES_SINCE", (99, 0))
    decayed, undecayed = rsam.nn.parameter_groups(network, 0.1)
    assert decayed["params"] == [network.weight] and undecayed["params"] == [network.bias]


def test_that_a_negative_decay_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not be negative, got -0\.1"):
        rsam.nn.parameter_groups(nn.Linear(2, 2), -0.1)


def test_that_a_parameter_without_a_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="uninitialized parameter"):  # by torch
        rsam.nn.parameter_groups(nn.LazyLinear(2), 0.1)
