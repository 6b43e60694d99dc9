"""That data-parallel training works as it is: both passes are averaged, so that all ranks step alike."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

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

pytestmark = several_processes
OPTIONS = {"lr": 0.1, "momentum": 0.9, "rho": 0.2}
# constrained, in halves, gradients as views of buckets, gradients set to None instead of zero
VARIANTS = list(itertools.product([True, False], repeat=4))


def _train(rank: int) -> list[list[torch.Tensor]]:
    weights = []
    for constrained, halves, views, set_to_none in VARIANTS:
        model = DistributedDataParallel(Network(constrained, constrained), gradient_as_bucket_view=views)
        opt = rsam.RSAM(model.parameters(), **OPTIONS)
        take_steps(opt, model, part_of(rank, 2), halves=halves, set_to_none=set_to_none)
        weights.append(values(model))
    return weights


def test_that_two_processes_with_half_the_batch_are_one_with_all() -> None:
    expected = {}
    for constrained in (True, False):
        model = Network(constrained, constrained)
        take_steps(rsam.RSAM(model.parameters(), **OPTIONS), model, batch())
        expected[constrained] = values(model)
    for actual in in_processes(2, _train):
        for variant, weights in zip(VARIANTS, actual, strict=True):
            assert_all_close(weights, expected[variant[0]])


def _not_finite(rank: int, policy: str) -> tuple[bool, list[torch.Tensor]]:
    model = DistributedDataParallel(Network())
    opt = rsam.RSAM(model.parameters(), nonfinite=policy, **OPTIONS)
    index, inputs, targets = part_of(rank, 2)
    if rank == 1:
        inputs = inputs * float("nan")
    raised = False
    try:
        opt.step(closure_of(opt, model, (index, inputs, targets)))
    except rsam.NotFinite:
        raised = True
    return raised, values(model)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_that_all_processes_refuse_what_is_not_finite_in_one(policy) -> None:
    for raised, weights in in_processes(2, _not_finite, policy):
        assert raised == (policy == "raise")
        assert_all_close(weights, values(Network()), 0)


def _add(rank: int, views: bool, before: int) -> tuple[str, list[torch.Tensor]]:
    model = DistributedDataParallel(Network(), gradient_as_bucket_view=views)
    opt = rsam.RSAM(model.parameters(), nonfinite="skip", **OPTIONS)
    for _ in range(before):  # in the second pass of a model its buckets are made anew
        loss_of(model, part_of(rank, 2)).backward()
    try:
        opt.step(lambda: loss_of(model, part_of(rank, 2)).backward())
    except RuntimeError as error:
        return str(error), values(model)
    return "", values(model)


@pytest.mark.parametrize(("views", "before"), [(False, 1), (True, 1), (True, 2)])
def test_that_a_closure_that_adds_to_gradients_of_before_is_refused(views, before) -> None:
    for message, weights in in_processes(2, _add, views, before):
        assert "zero_grad() in the closure" in message
        assert_all_close(weights, values(Network()), 0)
