"""That torch's schedulers change ``rho`` as they change ``lr``, compared with the ``lr`` of a copy."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as of_lr
from torch.optim.swa_utils import SWALR

import rsam
from rsam.optim import LambdaRho, ProportionalRho, rho_scheduler

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")


def _pair(rho: float = 0.4) -> tuple[rsam.RSAM, torch.optim.Optimizer]:
    w = torch.nn.Parameter(torch.ones(2))
    groups = [{"params": [w], "rho": rho}, {"params": [torch.nn.Parameter(torch.ones(1))], "rho": rho / 4}]
    opt = rsam.RSAM(groups, torch.optim.SGD, lr=7.0)
    rates = [{"params": g["params"], "lr": g["rho"]} for g in groups]
    return opt, torch.optim.SGD(rates)


SCHEDULES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "cosine": (of_lr.CosineAnnealingLR, {"T_max": 5, "eta_min": 0.01}),
    "restarts": (of_lr.CosineAnnealingWarmRestarts, {"T_0": 2}),
    "warm-up": (of_lr.LinearLR, {"start_factor": 0.1, "total_iters": 4}),
    "steps": (of_lr.MultiStepLR, {"milestones": [2, 4]}),
    "exponential": (of_lr.ExponentialLR, {"gamma": 0.9}),
    "one cycle": (of_lr.OneCycleLR, {"max_lr": [1.0, 2.0], "total_steps": 9, "cycle_momentum": False}),
    "cyclic": (of_lr.CyclicLR, {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 2, "cycle_momentum": False}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_that_any_scheduler_of_torch_drives_rho(name: str) -> None:
    schedule, options = SCHEDULES[name]
    opt, twin = _pair()
    ours, theirs = rho_scheduler(schedule, opt, **options), schedule(twin, **options)
    assert isinstance(ours, schedule)
    for _ in range(7):
        assert [g["rho"] for g in opt.param_groups] == [g["lr"] for g in twin.param_groups] == ours.get_last_lr()
        assert [g["lr"] for g in opt.param_groups] == [7.0, 7.0]
        ours.step()
        theirs.step()


def test_that_a_plateau_lowers_rho() -> None:
    opt, twin = _pair()
    options = {"factor": 0.5, "patience": 1, "min_lr": 0.1}
    ours, theirs = rho_scheduler(of_lr.ReduceLROnPlateau, opt, **options), of_lr.ReduceLROnPlateau(twin, **options)
    for _ in range(7):
        ours.step(1.0)
        theirs.step(1.0)
        assert [g["rho"] for g in opt.param_groups] == [g["lr"] for g in twin.param_groups]
    assert [g["rho"] for g in opt.param_groups] == [0.1, 0.1]
    assert [g["lr"] for g in opt.param_groups] == [7.0, 7.0]


@pytest.mark.parametrize(
    ("cls", "options"),
    [(of_lr.OneCycleLR, {"max_lr": 1.0, "total_steps": 9}), (of_lr.CyclicLR, {"base_lr": 0.1, "max_lr": 1.0})],
)
def test_that_a_cycle_of_rho_leaves_the_momentum(cls, options) -> None:
    opt = rsam.RSAM([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=7.0, momentum=0.9)
    schedule = rho_scheduler(cls, opt, **options)
    for _ in range(3):
        schedule.step()
        assert (opt.param_groups[0]["lr"], opt.param_groups[0]["momentum"]) == (7.0, 0.9)
    rho_scheduler(cls, opt, **options, cycle_momentum=True).step()
    assert opt.param_groups[0]["momentum"] != 0.9


def _sequence(optimizer: torch.optim.Optimizer, make: Callable[..., Any]) -> Any:
    parts = [
        make(of_lr.LinearLR, optimizer, start_factor=0.1, total_iters=3),
        make(of_lr.CosineAnnealingLR, optimizer, T_max=4),
    ]
    return make(of_lr.SequentialLR, optimizer, schedulers=parts, milestones=[3])


def test_that_a_sequence_of_schedulers_drives_rho_and_resumes() -> None:
    opt, twin = _pair()
    ours, theirs = _sequence(opt, rho_scheduler), _sequence(twin, lambda cls, *a, **k: cls(*a, **k))
    for step in range(7):
        assert [g["rho"] for g in opt.param_groups] == [g["lr"] for g in twin.param_groups]
        if step == 4:  # resumed from a checkpoint
            saved, state = ours.state_dict(), opt.state_dict()
            opt, _ = _pair()
            ours = _sequence(opt, rho_scheduler)
            opt.load_state_dict(state)
            ours.load_state_dict(saved)
        ours.step()
        theirs.step()


def test_that_a_sequence_that_does_not_drive_rho_itself_is_refused() -> None:
    opt, _ = _pair()
    of_lr.ConstantLR(opt, factor=1.0)
    with pytest.raises(ValueError, match="must drive rho, too"):
        of_lr.SequentialLR(opt, [LambdaRho(opt, lambda e: 1.0), LambdaRho(opt, lambda e: 0.5)], milestones=[2])


def test_that_a_sequence_of_rates_and_radii_leaves_the_rates_to_the_first() -> None:
    """Before, the learning rate became the radius at the milestone."""
    opt, twin = _pair()
    parts = [of_lr.ConstantLR(opt, factor=1.0), rho_scheduler(of_lr.CosineAnnealingLR, opt, T_max=4)]
    both, reference = of_lr.SequentialLR(opt, parts, milestones=[2]), of_lr.CosineAnnealingLR(twin, T_max=4)
    for step in range(6):
        both.step()
        if step >= 2:  # the milestone starts the cosine at its first epoch
            reference.step()
        assert [g["lr"] for g in opt.param_groups] == [7.0, 7.0]
        assert [g["rho"] for g in opt.param_groups] == pytest.approx([g["lr"] for g in twin.param_groups])


@pytest.mark.parametrize("first", [False, True])
def test_that_a_sequence_of_radii_takes_no_schedules_of_the_rate(first: bool) -> None:
    """Before, they set the radius to learning rates."""
    opt, _ = _pair()
    radii = [LambdaRho(opt, lambda epoch: 1.0)]
    rates: list[Any] = [of_lr.ChainedScheduler([of_lr.ExponentialLR(opt, 1.0)])]
    parts = rates + radii if first else radii + rates
    with pytest.raises(ValueError, match=r"the ChainedScheduler in a scheduler of .* drives the learning rate"):
        rho_scheduler(of_lr.SequentialLR, opt, parts, [2])
    chained = of_lr.ChainedScheduler([rho_scheduler(of_lr.ExponentialLR, opt, 1.0)])
    if hasattr(chained, "last_epoch"):  # in torch 2.4 no chain can be a part of a sequence
        assert rho_scheduler(of_lr.SequentialLR, opt, [radii[0], chained], [2])
    assert [(g["lr"], g["rho"]) for g in opt.param_groups] == [(7.0, 0.4), (7.0, 0.1)]


def test_that_rho_stays_in_proportion_in_a_sequence() -> None:
    """Before, it stayed where it was when the sequence was made."""
    opt, _ = _pair()
    rates = of_lr.ExponentialLR(opt, 0.5)
    parts = [rho_scheduler(of_lr.LinearLR, opt, start_factor=0.1, total_iters=2), ProportionalRho(opt)]
    radii = rho_scheduler(of_lr.SequentialLR, opt, schedulers=parts, milestones=[2])
    for epoch in range(1, 6):
        rates.step()
        radii.step()
        if epoch >= 2:
            assert [g["rho"] for g in opt.param_groups] == pytest.approx([0.4 * 0.5**epoch, 0.1 * 0.5**epoch])


def test_that_a_new_schedule_keeps_the_proportion_of_an_old_one() -> None:
    """Before, without a scheduler of the rate, the radius went back to the initial one."""
    opt, _ = _pair()
    radii = ProportionalRho(opt)
    for group in opt.param_groups:
        group["lr"] = 3.5
    radii.step()
    opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "rho": 3.0})
    radii = ProportionalRho(opt)
    assert [g["rho"] for g in opt.param_groups] == pytest.approx([0.2, 0.05, 3.0])
    opt.param_groups[0]["lr"] = 0.7
    radii.step()
    assert [g["rho"] for g in opt.param_groups] == pytest.approx([0.04, 0.05, 3.0])


def test_that_schedules_of_both_go_side_by_side() -> None:
    opt, twin = _pair()
    rates, radii = of_lr.ExponentialLR(opt, 0.5), rho_scheduler(of_lr.ExponentialLR, opt, 0.9)
    reference = of_lr.ExponentialLR(twin, 0.9)
    for k in range(4):
        assert [g["lr"] for g in opt.param_groups] == pytest.approx([7.0 * 0.5**k] * 2)
        assert [g["rho"] for g in opt.param_groups] == [g["lr"] for g in twin.param_groups]
        for scheduler in (rates, radii, reference):
            scheduler.step()


def test_that_the_ends_of_annealed_rates_and_radii_are_apart() -> None:
    opt, _ = _pair()
    rates, radii = SWALR(opt, swa_lr=0.01, anneal_epochs=2), rho_scheduler(SWALR, opt, swa_lr=0.5, anneal_epochs=2)
    for _ in range(3):
        rates.step()
        radii.step()
    assert [(g["lr"], g["rho"]) for g in opt.param_groups] == [(0.01, 0.5)] * 2


def test_that_rho_stays_in_proportion_to_the_learning_rate() -> None:
    """This is GSAM's schedule rho_t = rho_0 lr_t / lr_0, warm-up included."""
    opt, _ = _pair()
    rates = of_lr.LinearLR(opt, start_factor=0.25, total_iters=3)
    radii = ProportionalRho(opt)
    for _ in range(5):
        for group, first in zip(opt.param_groups, (0.4, 0.1), strict=True):
            assert group["rho"] / first == pytest.approx(group["lr"] / 7.0)
        rates.step()
        radii.step()
    with pytest.raises(ValueError, match="starts at zero"):
        ProportionalRho(rsam.RSAM([torch.nn.Parameter(torch.ones(1))], torch.optim.SGD, lr=0.0))


@pytest.mark.parametrize("make", [ProportionalRho, lambda opt: LambdaRho(opt, lambda epoch: 0.5)])
def test_that_a_schedule_does_not_pass_over_a_group_that_was_added_since(make: Callable[..., Any]) -> None:
    opt, _ = _pair()
    schedule = make(opt)
    opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "rho": 3.0})
    before = [g["rho"] for g in opt.param_groups]
    with pytest.raises(ValueError, match=r"3 parameter groups by now, rho_lambda 2 functions; make a new"):
        schedule.step()
    assert [g["rho"] for g in opt.param_groups] == before


@pytest.mark.parametrize("make", [LambdaRho, partial(rho_scheduler, of_lr.LambdaLR)])
def test_that_functions_of_a_schedule_may_read_the_learning_rate_and_the_radius(make: Callable[..., Any]) -> None:
    opt, _ = _pair()
    first, second = opt.param_groups
    radii = make(opt, [lambda epoch: first["lr"] / 7.0, lambda epoch: 0.5 if second["rho"] > 0.06 else 1.0])
    rates = of_lr.ExponentialLR(opt, gamma=0.5)
    for power in range(3):
        assert first["rho"] == pytest.approx(0.4 * 0.5**power)
        assert second["rho"] == pytest.approx(0.05 if power % 2 == 0 else 0.1)
        assert [first["lr"], second["lr"]] == [7.0 * 0.5**power] * 2
        rates.step()
        radii.step()


@pytest.mark.parametrize("schedule", [of_lr.CosineAnnealingLR, of_lr.StepLR])
def test_that_a_schedule_of_rho_goes_on_from_a_pickle_with_its_optimizer(schedule: Any) -> None:
    opt, _ = _pair()
    radii = rho_scheduler(schedule, opt, 2)
    radii.step()
    copied, again = pickle.loads(pickle.dumps((opt, radii)))
    assert isinstance(again, schedule)
    assert again.optimizer is copied
    for _ in range(3):
        again.step()
        radii.step()
        assert [g["rho"] for g in copied.param_groups] == [g["rho"] for g in opt.param_groups]
        assert [g["lr"] for g in copied.param_groups] == [7.0, 7.0]


@pytest.mark.filterwarnings("ignore:Seems like")  # a copied optimizer is not wrapped anew
@pytest.mark.parametrize("copied_by", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_that_a_copy_stays_in_proportion_to_the_learning_rate_of_its_own_optimizer(copied_by: Any) -> None:
    opt, _ = _pair()
    copied, radii = copied_by((opt, ProportionalRho(opt)))
    for group in copied.param_groups:
        group["lr"] = 3.5
    radii.step()
    assert [g["rho"] for g in copied.param_groups] == [0.2, 0.05]
    assert [g["rho"] for g in opt.param_groups] == [0.4, 0.1]


def test_that_an_exception_in_a_scheduler_leaves_rates_and_radii_where_they_belong() -> None:
    opt, _ = _pair()

    def failing(epoch: int) -> float:
        if epoch == 1:
            raise KeyboardInterrupt
        return 0.5

    schedule = LambdaRho(opt, failing)
    with pytest.raises(KeyboardInterrupt):
        schedule.step()
    assert [(g["lr"], g["rho"]) for g in opt.param_groups] == [(7.0, 0.2), (7.0, 0.05)]


def test_that_states_of_schedules_before_they_were_torch_s_load() -> None:
    opt, _ = _pair()
    schedule = LambdaRho(opt, lambda epoch: 1 / (1 + epoch))
    schedule.load_state_dict({"last_epoch": 3})
    schedule.step()
    assert [g["rho"] for g in opt.param_groups] == pytest.approx([0.08, 0.02])


@pytest.mark.parametrize("scheduler", ["cosine", object, lambda optimizer: None])
def test_that_what_is_no_class_of_schedulers_is_refused(scheduler: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a class of .*; LambdaRho takes a function"):
        rho_scheduler(scheduler, _pair()[0])


@pytest.mark.parametrize("scheduler", [LambdaRho, ProportionalRho, of_lr.ChainedScheduler])
def test_that_classes_that_need_no_help_are_made_by_themselves(scheduler: Any) -> None:
    with pytest.raises(TypeError, match=f"^{scheduler.__name__} .* rho.*; make it by its class"):
        rho_scheduler(scheduler, _pair()[0], [])
