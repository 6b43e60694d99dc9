"""That a step dispatches few torch operations, each of which costs a launch on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import rsam
from tests.optim.problems import manifold_points

SGD, Adam = rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam
#: Operations by which Python reads a number from a device, and waits.
WAITS = {"aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.equal"}
#: Operations that `.data` and `.detach()` dispatch, once per parameter.
DETACHES = {"aten.detach", "aten.alias"}


class Operations(TorchDispatchMode):
    """Records the names of all dispatched operations, except the profiler's marks."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function).rsplit(".", 1)[0]
        if not name.startswith("profiler."):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def equal_points(name: str, count: int) -> list[Tensor]:
    """Make many parameters at the same point, with a gradient."""
    point = manifold_points(torch.float32)[name]
    params = [geoopt.ManifoldParameter(point.detach().clone(), manifold=point.manifold) for _ in range(count)]
    for p in params:
        p.grad = torch.full_like(p, 0.1)
    return params


def operations(step: Callable[[], Any]) -> list[str]:
    """List the operations that a step dispatches once everything is planned and the state exists."""
    for _ in range(2):
        step()
    with Operations() as seen:
        step()
    return seen.names


def rsam_step(params: list[Tensor], **options: Any) -> Callable[[], Any]:
    """Make a whole step of RSAM with a closure that dispatches nothing and always gives new gradients."""
    opt = rsam.RSAM(params, lr=0.01, momentum=0.9, **options)
    gradients = [p.grad for p in params]

    def closure() -> None:
        for p, g in zip(params, gradients, strict=True):
            p.grad = g

    return lambda: opt.step(closure)


STEPS = {
    "SGD": lambda params: SGD(params, lr=0.01, momentum=0.9).step,
    "Adam": lambda params: Adam(params, lr=0.01).step,
    "RSAM": rsam_step,
}


@pytest.mark.parametrize(("which", "most"), [("SGD", 60), ("Adam", 90), ("RSAM", 160)])
def test_that_a_step_on_spheres_dispatches_few_operations_and_as_many_for_ten_times_as_many(which, most) -> None:
    few, many = (operations(STEPS[which](equal_points("sphere", count))) for count in (20, 200))
    assert few == many
    assert len(few) <= most


@pytest.mark.parametrize("which", STEPS)
def test_that_steps_on_every_manifold_dispatch_as_many_operations_for_more_parameters(which) -> None:
    for name in manifold_points():
        if name not in ("plain", "birkhoff"):  # birkhoff iterates until all sums are one
            few, many = (operations(STEPS[which](equal_points(name, count))) for count in (5, 15))
            assert few == many, name


@pytest.mark.parametrize("which", ["SGD", "Adam"])
def test_that_a_step_on_spheres_waits_for_no_device_and_detaches_no_parameter(which) -> None:
    names = operations(STEPS[which](equal_points("sphere", 20)))
    assert names
    assert not (WAITS | DETACHES) & set(names)


def test_that_each_half_of_a_step_of_rsam_waits_for_a_device_once() -> None:
    params = equal_points("sphere", 20)
    opt = rsam.RSAM(params, lr=0.01, momentum=0.9)
    for _ in range(2):
        halves = []
        for half in (opt.first_step, opt.second_step):
            for p in params:
                p.grad = torch.full_like(p, 0.1)
            with Operations() as seen:
                half()
            halves.append(seen.names)
    for names in halves:
        assert len([name for name in names if name in WAITS]) == 1  # the check that everything is finite
        assert not DETACHES & set(names)
