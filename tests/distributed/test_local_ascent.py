"""That each process may ascend by itself, and gradients are averaged after they are brought back to the weights."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import rsam
from rsam.geometry import Product, pairing
from tests.distributed.problems import (
    Network,
    assert_all_close,
    closure_of,
    loss_of,
    part_of,
    take_steps,
    values,
)
from tests.distributed.processes import in_processes, several_processes

pytestmark = several_processes
BASE: dict[str, Any] = {"lr": 0.1, "momentum": 0.9}
VARIANTS = list(itertools.product([True, False], repeat=3))  # constrained, in halves, gradients as views of buckets


def _by_hand(count: int, constrained: bool) -> list[Tensor]:
    """Do it in one process: ascend and bring the gradient back for each part of the batch; step along the mean."""
    model = Network(constrained, constrained)
    params = list(model.parameters())
    opt = rsam.optim.RiemannianSGD(params, **BASE)
    space = Product(params)

    def gradient(data: Any) -> list[Tensor]:
        return list(torch.autograd.grad(loss_of(model, data), params))

    for _ in range(3):
        w = [p.detach().clone() for p in params]
        covectors = []
        for rank in range(count):
            g = gradient(part_of(rank, count))
            with torch.no_grad():
                r = space.raise_index(w, g)
                e = [0.2 / pairing(g, r).sqrt() * u for u in r]
                y = space.retract(w, e)
                for p, end in zip(params, y, strict=True):
                    p.copy_(end)
            g = gradient(part_of(rank, count))
            with torch.no_grad():
                covectors.append(space.lower_index(w, space.transport_back(w, e, y, space.raise_index(y, g))))
                for p, start in zip(params, w, strict=True):
                    p.copy_(start)
        for p, *each in zip(params, *covectors, strict=True):
            p.grad = sum(each) / count
        opt.step()
    return values(model)


def _train(rank: int, count: int) -> list[list[Tensor]]:
    weights = []
    rsam.optim.distributed._BUCKET = 30  # so that gradients are sent in several parts, some of them together
    for constrained, halves, views in VARIANTS:
        model = DistributedDataParallel(Network(constrained, constrained), gradient_as_bucket_view=views)
        opt = rsam.RSAM(model.parameters(), rho=0.2, local_ascent=model, **BASE)
        take_steps(opt, model, part_of(rank, count), halves=halves)
        rsam.optim.check_replicas(opt)
        weights.append(values(model))
    return weights


@pytest.mark.parametrize("count", [2, 3])
def test_that_each_process_ascends_alone_and_all_step_alike(count) -> None:
    expected = {constrained: _by_hand(count, constrained) for constrained in (True, False)}
    for actual in in_processes(count, _train, count):
        for variant, weights in zip(VARIANTS, actual, strict=True):
            assert_all_close(weights, expected[variant[0]])


def _not_finite(rank: int, policy: str, bad_pass: int) -> tuple[str, list[Tensor]]:
    model = DistributedDataParallel(Network())
    opt = rsam.RSAM(model.parameters(), rho=0.2, nonfinite=policy, local_ascent=model, **BASE)
    closure = closure_of(opt, model, part_of(rank, 2))
    passes = iter(range(2))

    def failing() -> Tensor:
        loss = closure()
        if next(passes) == bad_pass and rank == 1:
            model.module.last.weight.grad[0, 0] = float("inf")
        return loss

    message = ""
    try:
        opt.step(failing)
    except rsam.NotFinite as error:
        message = str(error)
    return message, values(model)


@pytest.mark.parametrize("bad_pass", [0, 1])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_that_all_processes_refuse_what_is_not_finite_in_one(policy, bad_pass) -> None:
    for message, weights in in_processes(2, _not_finite, policy, bad_pass):
        assert ("not finite" in message) == (policy == "raise")
        assert_all_close(weights, values(Network()), 0)


def _unused(rank: int) -> list[Any]:
    """Train with a parameter that one process does not use, and one that none uses, in two precisions."""
    params = [nn.Parameter(torch.ones(2, dtype=dtype)) for dtype in (torch.float32, torch.float64, torch.float32)]
    model = nn.ParameterList(params)
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=1.0, rho=0.0)
    opt.local_ascent = rsam.optim.distributed.Replicas()
    (params[0].sum() + (params[1].sum() if rank else 0.0)).backward()
    opt.step()
    return [p.tolist() for p in params] + [params[2].grad, *_idle(rank)]


def _idle(rank: int) -> list[list[float]]:
    """Take a step in which only the last process has gradients; return the perturbed weights, and those after it."""
    w = nn.Parameter(torch.tensor([3.0, 4.0]))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=1.0, rho=0.5)
    opt.local_ascent = rsam.optim.distributed.Replicas()
    seen = []
    for half in (opt.first_step, opt.second_step):
        opt.zero_grad()
        if rank:
            (w.square().sum() / 2).backward()
        half()
        seen.append(w.tolist())
    return seen


def test_that_a_gradient_that_some_processes_lack_counts_as_zero() -> None:
    for rank, (*unused, perturbed, after) in enumerate(in_processes(2, _unused)):
        assert unused == [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], None]
        # the gradient is w; a process without one does not ascend, and the other does not wait for it
        assert perturbed == pytest.approx([3.3, 4.4] if rank else [3.0, 4.0])
        assert after == pytest.approx([3 - 3.3 / 2, 4 - 4.4 / 2])


def _drift(rank: int) -> str:
    model = DistributedDataParallel(Network())
    opt = rsam.RSAM(model.parameters(), rho=0.2, **BASE)
    closure = closure_of(opt, model, part_of(rank, 2))
    rsam.optim.check_replicas(opt)
    with model.no_sync():
        closure()
    opt.first_step()
    closure()
    opt.second_step()
    with pytest.raises(RuntimeError, match="local_ascent") as caught:
        rsam.optim.check_replicas(opt)
    return str(caught.value)


def test_that_replicas_that_drift_apart_are_noticed() -> None:
    for message in in_processes(2, _drift):
        assert message.startswith("parameter 0 of group 0 (shape (5, 4)) differs between processes")


def _copies(rank: int) -> bool:
    model = DistributedDataParallel(Network())
    opt = rsam.RSAM(model.parameters(), rho=0.2, local_ascent=model, **BASE)
    copied, pickled = copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))
    return all(isinstance(o.local_ascent, rsam.optim.distributed.Replicas) for o in (copied, pickled))


def test_that_a_copy_still_ascends_alone() -> None:
    assert in_processes(1, _copies) == [True]


def test_that_a_model_without_replicas_is_refused() -> None:
    with pytest.raises(TypeError, match="DistributedDataParallel, got Network"):
        rsam.RSAM(Network().parameters(), lr=0.1, local_ascent=Network())


NAN = float("nan")
MANY = [6e4] * 3  # whose sum and norm overflow in half precision
# values in both processes, and whether they differ; of the fourth and the fifth pair the sums or the norms are equal
REPLICAS = [
    ([NAN, NAN], [NAN, NAN], False),
    ([NAN, NAN], [1.0, 1.0], True),
    ([1.0, 1.0], [NAN, NAN], True),
    ([1.0, -1.0], [2.0, -2.0], True),
    ([1.0, 2.0], [1.0, -2.0], True),
    (MANY, [*MANY[:2], 5e4], True),
]


def _differ(rank: int) -> list[bool]:
    found = []
    for pair in REPLICAS:
        weight = nn.Parameter(torch.tensor(pair[rank], dtype=torch.float16))
        try:
            rsam.optim.check_replicas(torch.optim.SGD([weight], lr=0.1))
            found.append(False)
        except RuntimeError:
            found.append(True)
    return found


def test_that_replicas_differ_in_sum_or_norm_and_not_if_they_diverged_alike() -> None:
    expected = [differ for *_, differ in REPLICAS]
    assert in_processes(2, _differ) == [expected, expected]


def _unequal(rank: int) -> list[str]:
    messages = []
    for shapes in ([(2,)] * (1 + rank), [(2 + rank,)]):
        with pytest.raises(RuntimeError, match="in another process; make it from copies of one model") as caught:
            rsam.optim.check_replicas(torch.optim.SGD([nn.Parameter(torch.ones(shape)) for shape in shapes], lr=0.1))
        messages.append(str(caught.value))
    return messages


def test_that_replicas_of_other_sizes_are_refused_in_all_processes() -> None:
    """Before, the processes were aborted."""
    for rank, (more, larger) in enumerate(in_processes(2, _unequal)):
        assert more.startswith(f"the optimizer has {1 + rank} parameters of {2 + 2 * rank} numbers here")
        assert larger.startswith(f"the optimizer has 1 parameters of {2 + rank} numbers here")
