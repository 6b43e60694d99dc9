"""That a model whose parameters are sharded over processes (FSDP2) takes the steps of one process."""

from __future__ import annotations

import inspect
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor

import rsam
from tests.distributed.problems import (
    Network,
    assert_all_close,
    batch,
    closure_of,
    loss_of,
    part_of,
    take_steps,
    values,
)
from tests.distributed.processes import in_processes, several_processes

pytest.importorskip("torch.distributed.fsdp", reason="this torch has no torch.distributed")
fully_shard = getattr(torch.distributed.fsdp, "fully_shard", None)
pytestmark = [*several_processes, pytest.mark.skipif(fully_shard is None, reason="FSDP2 is public from torch 2.6")]

SGD, Adam = rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam
MOMENTUM = {"lr": 0.1, "momentum": 0.9}
CONSTRAINED: list[dict[str, Any]] = [
    {"base_optimizer": SGD, "rho": 0.2, **MOMENTUM},
    {"base_optimizer": Adam, "rho": 0.2, "lr": 0.02, "amsgrad": True},
    {"base_optimizer": SGD, "rho": 0.0, **MOMENTUM},
    {"base_optimizer": SGD, "rho": 0.2, "radius": "parameter", **MOMENTUM},
    {"base_optimizer": SGD, "rho": 0.1, "radius": "point", "ascent": "exponential", **MOMENTUM},
    {"base_optimizer": SGD, "rho": 0.2, "direction": "momentum", "transport": "pullback", **MOMENTUM},
    {"base_optimizer": SGD, "rho": 0.2, "transport": "project", "stabilize": 2, **MOMENTUM},
]
UNCONSTRAINED: list[dict[str, Any]] = [
    {"base_optimizer": torch.optim.SGD, "rho": 0.2, **MOMENTUM},
    {"base_optimizer": torch.optim.AdamW, "rho": 0.2, "lr": 0.02, "adaptive": True},
]


def _sharded(constrained: bool = True, mesh: Any = None) -> Network:
    model = Network(constrained)
    with rsam.optim.keep_manifolds(model):
        fully_shard(model.conv, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


def _train(rank: int, count: int) -> list[list[Tensor]]:
    weights = []
    for options in CONSTRAINED + UNCONSTRAINED:
        model = _sharded(options in CONSTRAINED)
        opt = rsam.RSAM(model.parameters(), **options)
        take_steps(
            opt, model, part_of(rank, count), halves=options == CONSTRAINED[0], set_to_none=options != CONSTRAINED[1]
        )
        weights.append(values(model))
    return weights


@pytest.mark.parametrize("count", [2, 3])
def test_that_processes_with_shards_are_one_with_all(count) -> None:
    expected = []
    for options in CONSTRAINED + UNCONSTRAINED:
        model = Network(options in CONSTRAINED)
        take_steps(rsam.RSAM(model.parameters(), **options), model, batch())
        expected.append(values(model))
    for actual in in_processes(count, _train, count):
        for weights, same in zip(actual, expected, strict=True):
            assert_all_close(weights, same)


def _base_alone(rank: int) -> list[Tensor]:
    model = _sharded()
    opt = Adam(model.parameters(), lr=0.02)
    for _ in range(3):
        opt.step(closure_of(opt, model, part_of(rank, 2)))
    return values(model)


def test_that_a_base_optimizer_steps_shards_alone() -> None:
    model = Network()
    opt = Adam(model.parameters(), lr=0.02)
    for _ in range(3):
        opt.step(closure_of(opt, model, batch()))
    for actual in in_processes(2, _base_alone):
        assert_all_close(actual, values(model))


def _whole(rank: int) -> list[Tensor]:
    model = Network(stiefel=True)
    with rsam.optim.keep_manifolds(model):
        fully_shard(model, ignored_params={model.rotation})
    rsam.optim.average_gradients([model.rotation])
    opt = rsam.RSAM(model.parameters(), rho=0.2, **MOMENTUM)
    take_steps(opt, model, part_of(rank, 2))
    return values(model)


def _projected(rank: int) -> list[Tensor]:
    model = _sharded()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0)
    rsam.optim.averaging.project_parameters(model)
    return values(model)


def test_that_sharded_parameters_are_projected() -> None:
    model = Network()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0)
    rsam.optim.averaging.project_parameters(model)
    for actual in in_processes(2, _projected):
        assert_all_close(actual, values(model))


@pytest.mark.skipif(
    fully_shard is not None and "ignored_params" not in inspect.signature(fully_shard).parameters,
    reason="ignored_params came with torch 2.7",
)
def test_that_a_parameter_left_whole_steps_beside_shards() -> None:
    model = Network(stiefel=True)
    take_steps(rsam.RSAM(model.parameters(), rho=0.2, **MOMENTUM), model, batch())
    for actual in in_processes(2, _whole):
        assert_all_close(actual, values(model))


def _refusals(rank: int) -> list[str]:
    said = []
    cut = Network(stiefel=True)
    with pytest.raises(ValueError) as caught, rsam.optim.keep_manifolds(cut):
        fully_shard(cut)
    said.append(str(caught.value))
    with pytest.raises(ValueError) as caught:  # the user put the manifold back
        SGD([("rotation", cut.rotation)], lr=0.1)
    said.append(str(caught.value))
    model = _sharded()
    with pytest.raises(ValueError) as caught:
        rsam.RSAM(model.parameters(), geoopt.optim.RiemannianSGD, lr=0.1)
    said.append(str(caught.value))
    with pytest.raises(ValueError) as caught:
        rsam.RSAM(model.parameters(), lr=0.1, local_ascent=torch.nn.parallel.DistributedDataParallel(Network()))
    said.append(str(caught.value))
    return said


def test_that_what_cannot_be_sharded_is_refused_by_name() -> None:
    for cut, again, foreign, own in in_processes(2, _refusals):
        assert cut.startswith("'rotation' (shape (4, 4), Stiefel(euclidean)) is sharded in dimension 0")
        assert "ignored_params" in cut
        assert again == cut
        assert foreign.startswith("geoopt's RiemannianSGD takes parameter 0 of group 0, which is sharded")
        assert "no process has a gradient of its own" in own


def test_that_a_manifold_whose_parameter_has_another_name_is_not_lost_in_silence() -> None:
    model = Network()
    with pytest.raises(ValueError, match=r"'few\.weight' has another name"), rsam.optim.keep_manifolds(model):
        model.many, model.few = model.few, torch.nn.Identity()


def _not_finite(rank: int, policy: str, bad_pass: int) -> tuple[str, list[Tensor]]:
    model = _sharded()
    opt = rsam.RSAM(model.parameters(), rho=0.2, nonfinite=policy, **MOMENTUM)
    closure = closure_of(opt, model, part_of(rank, 2))
    passes = iter(range(2))

    def failing() -> Tensor:
        loss = closure()
        if next(passes) == bad_pass and rank == 1:  # not finite in the part of one process only
            model.last.weight.grad.to_local()[0, 0] = float("inf")
        return loss

    said = ""
    try:
        opt.step(failing)
    except rsam.NotFinite as error:
        said = str(error)
    return said, values(model)


@pytest.mark.parametrize("bad_pass", [0, 1])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_that_all_processes_refuse_what_is_not_finite_in_one(policy, bad_pass) -> None:
    for rank, (said, weights) in enumerate(in_processes(2, _not_finite, policy, bad_pass)):
        reason = ["in another process", "the gradient of parameter 5 of group 0"][rank]
        assert (reason in said) == (policy == "raise")
        assert_all_close(weights, values(Network()), 0)


def _own_direction(weights: rsam.optim.Weights) -> list[Tensor]:
    """Return the gradient turned towards the momentum, by inner products."""
    gradient, momentum = weights.raise_index(weights.gradients), weights.momentum()
    share = weights.inner(gradient, momentum) / weights.norm(gradient) ** 2
    return [g + share * m for g, m in zip(gradient, momentum, strict=True)]


def _directed(rank: int) -> list[Tensor]:
    model = _sharded()
    take_steps(rsam.RSAM(model.parameters(), rho=0.2, direction=_own_direction, **MOMENTUM), model, part_of(rank, 2))
    return values(model)


def test_that_inner_products_for_a_direction_are_over_all_shards() -> None:
    model = Network()
    take_steps(rsam.RSAM(model.parameters(), rho=0.2, direction=_own_direction, **MOMENTUM), model, batch())
    for actual in in_processes(2, _directed):
        assert_all_close(actual, values(model))


def _replicated(rank: int) -> list[Tensor]:
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    model = _sharded(mesh=mesh)
    take_steps(rsam.RSAM(model.parameters(), rho=0.2, **MOMENTUM), model, part_of(rank, 4))
    return values(model)


def test_that_norms_are_summed_over_shards_and_not_over_their_replicas() -> None:
    model = Network()
    take_steps(rsam.RSAM(model.parameters(), rho=0.2, **MOMENTUM), model, batch())
    for actual in in_processes(4, _replicated):
        assert_all_close(actual, values(model))


def _accumulating(rank: int) -> list[str]:
    said = []
    for held_back in (False, True):
        model = _sharded()
        opt = rsam.RSAM(model.parameters(), rho=0.2, **MOMENTUM)
        data = part_of(rank, 2)
        if held_back:
            model.set_requires_gradient_sync(False)
        loss_of(model, data).backward()
        with pytest.raises(RuntimeError) as caught:
            if held_back:
                opt.first_step()
            else:
                opt.step(lambda: loss_of(model, data).backward())  # noqa: B023
        said.append(str(caught.value))
        assert_all_close(values(model), values(Network()), 0)
    return said


def test_that_gradients_of_two_passes_in_one_sum_are_refused() -> None:
    for added, held_back in in_processes(2, _accumulating):
        assert "Call optimizer.zero_grad() in the closure" in added
        assert "set_requires_gradient_sync(True)" in held_back
