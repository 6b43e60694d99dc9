"""That check_optimizer passes rsam's optimizers, and finds the errors of others."""

from collections.abc import Callable
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor

import rsam
from rsam.testing import PropertyError, check_optimizer, steps
from tests.geometry.cases import LARGEST, MANIFOLDS, Make

Factory = Callable[[list[Tensor]], Any]

SPHERE = {"manifold": geoopt.Sphere(), "shape": (2,)}
STEPS = [getattr(steps, name) for name in steps.__all__ if name.islower()]


def _rsam(**options: Any) -> Factory:
    return lambda params: rsam.RSAM(params, **{"rho": 0.1, "lr": 0.1, **options})


RIGHT = {
    "RSAM pullback exponential": _rsam(transport="pullback", ascent="exponential"),
    "RSAM project": _rsam(transport="project"),
    "RSAM momentum": _rsam(momentum=0.9, nesterov=True),
    "RSAM Adam": _rsam(base_optimizer=rsam.optim.RiemannianAdam),
    "RSAM of geoopt": _rsam(base_optimizer=geoopt.optim.RiemannianSGD),
}


@pytest.mark.parametrize("name", RIGHT)
def test_that_rsam_has_every_property_on_a_manifold_of_each_kind(name: str) -> None:
    report = check_optimizer(RIGHT[name], max_examples=6)
    assert report.skipped == ()


def _not_applicable(name: str) -> tuple[str, ...]:
    return ("steps are blind to isometries",) if "intersection" in name or "complement" in name else ()


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=[name for name, _, _ in MANIFOLDS])
def test_that_rsam_has_every_property_on_every_manifold(name: str, make: Make, shape: tuple[int, ...]) -> None:
    report = check_optimizer(_rsam(), manifold=make(), shape=shape, max_examples=3)
    assert report.skipped == _not_applicable(name)


@pytest.mark.parametrize(("name", "make", "shape"), LARGEST, ids=[name for name, _, _ in LARGEST])
def test_that_steps_by_the_pullback_have_every_property_on_every_manifold(
    name: str, make: Make, shape: tuple[int, ...]
) -> None:
    # the others end before the second gradient is brought back
    ascents = [
        steps.a_step_returns_the_loss_before_it,
        steps.restoring_is_exact,
        steps.an_exception_leaves_the_weights,
        steps.the_ascent_goes_the_radius_along_the_gradient,
    ]
    report = check_optimizer(_rsam(transport="pullback"), manifold=make(), shape=shape, max_examples=3, skip=ascents)
    assert report.skipped == _not_applicable(name)


@pytest.mark.parametrize(
    "factory",
    [
        lambda params: rsam.optim.RiemannianSGD(params, lr=0.1, momentum=0.9),
        lambda params: rsam.optim.RiemannianAdam(params, lr=0.1),
    ],
    ids=["RiemannianSGD", "RiemannianAdam"],
)
def test_that_an_optimizer_that_does_not_perturb_has_the_properties_of_any(factory: Factory) -> None:
    report = check_optimizer(factory, max_examples=6)
    assert report.skipped == (
        "a step without radius is the base step",
        "restoring is exact",
        "the ascent goes the radius along the gradient",
    )


class Halves(torch.optim.SGD):
    """SGD with the two halves of a perturbing optimizer, but with its own step, and no optimizer inside."""

    first_step = second_step = restore = lambda self: None


def test_that_halves_without_a_base_optimizer_are_not_checked() -> None:
    report = check_optimizer(
        lambda params: Halves(params, lr=0.1), manifold=geoopt.Euclidean(1), shape=(2,), max_examples=3
    )
    assert report.skipped == (
        "restoring is exact",
        "the ascent goes the radius along the gradient",
        "a step without radius is the base step",
    )


def test_that_plain_sgd_passes_in_plain_space_and_leaves_the_sphere() -> None:
    def factory(params: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=0.1)

    check_optimizer(factory, manifold=geoopt.Euclidean(1), shape=(3,))
    with pytest.raises(PropertyError) as caught:
        check_optimizer(factory, **SPHERE)
    assert caught.value.property == "steps stay on the manifold"
    assert caught.value.case["x"].tolist() == [1, 0]


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.xfail(strict=True, raises=PropertyError, reason="geoopt's momentum starts from the Euclidean gradient")
@pytest.mark.parametrize("check", [steps.steps_are_blind_to_isometries, steps.a_short_step_goes_downhill])
def test_that_the_momentum_of_geoopt_is_mended(check: Callable[..., None]) -> None:
    check_optimizer(
        lambda params: geoopt.optim.RiemannianSGD(params, lr=0.1, momentum=0.9),
        manifold=geoopt.Lorentz(),
        shape=(2,),
        skip=[other for other in STEPS if other is not check],
    )


# -- that each property can fail ----------------------------------------------------------------------------------


class ReturnsNothing(rsam.RSAM):
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        super().step(closure)


class ReturnsTheSecondLoss(rsam.RSAM):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        first = super().step(closure)
        return first + self.sharpness


class RestoresBySubtraction(rsam.RSAM):
    def restore(self) -> None:
        perturbation = self._passes._perturbation
        if perturbation.space is not None:
            there = perturbation.space.gather(perturbation.space.params)
            perturbation.points = [y - (y - x) for y, x in zip(there, perturbation.points, strict=True)]
        super().restore()


class AscendsTwiceAsFar(rsam.RSAM):
    def first_step(self, zero_grad: bool = False) -> None:
        for group in self.param_groups:
            group["rho"] *= 2
        super().first_step(zero_grad)
        for group in self.param_groups:
            group["rho"] /= 2


class AscendsAlongTheEuclideanGradient(rsam.RSAM):
    """Right on the sphere, where tangents have their ambient length, but wrong on the ball."""

    def first_step(self, zero_grad: bool = False) -> None:
        super().first_step(zero_grad)
        with torch.no_grad():
            for p, copy in zip(self._pending.params, self._pending.copies, strict=True):
                p.copy_(copy + self.param_groups[0]["rho"] * p.grad / p.grad.norm())


class DecaysWithoutRadius(rsam.RSAM):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = super().step(closure)
        if self.param_groups[0]["rho"] == 0:
            with torch.no_grad():
                self.param_groups[0]["params"][1].mul_(0.99)
        return loss


class JumpsWithRadius(rsam.RSAM):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = super().step(closure)
        if self.param_groups[0]["rho"] > 0:
            with torch.no_grad():
                self.param_groups[0]["params"][1].add_(0.01)
        return loss


class StaysPerturbedOnException(rsam.RSAM):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        assert closure is not None
        loss = closure()
        self.first_step()
        closure()
        self.second_step()
        return loss

    def restore(self) -> None:
        """Leave the weights where they are, also where RSAM would put them back."""


class LeavesLater(rsam.optim.RiemannianSGD):
    steps = 0

    def step(self, closure: Callable[[], Any]) -> Any:
        loss = super().step(closure)
        self.steps += 1
        if self.steps == 5:
            with torch.no_grad():
                self.param_groups[0]["params"][0].mul_(1.1)
        return loss


class LosesWeightsOnException(torch.optim.SGD):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.no_grad():
            self.param_groups[0]["params"][1].add_(1)
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            self.param_groups[0]["params"][1].sub_(1)
        super().step()
        return loss


class Edits(rsam.optim.RiemannianSGD):
    """Optimizer that steps by other gradients than the closure leaves."""

    def edit(self, params: list[Tensor]) -> None:
        raise NotImplementedError

    def step(self, closure: Callable[[], Any]) -> Any:
        with torch.enable_grad():
            loss = closure()
        self.edit(self.param_groups[0]["params"])
        super().step()
        return loss


class KeepsItsRate(rsam.optim.RiemannianSGD):
    """Optimizer whose schedulers have no effect, as that of a wrapper with groups of its own."""

    def step(self, closure: Callable[[], Any]) -> Any:
        for group in self.param_groups:
            group["lr"] = self.defaults["lr"]
        return super().step(closure)


class StepsAllByOneRate(rsam.optim.RiemannianSGD):
    """Optimizer that ignores the rates of all groups but one."""

    index = 0

    def step(self, closure: Callable[[], Any]) -> Any:
        for group in self.param_groups:
            group["lr"] = self.param_groups[self.index]["lr"]
        return super().step(closure)


class StepsAllByTheLastRate(StepsAllByOneRate):
    index = -1


class ForgetsItsMomentum(rsam.optim.RiemannianSGD):
    """Optimizer whose checkpoints lack the state, as that of a wrapper which saves its own."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


class ForgetsItsRate(rsam.optim.RiemannianSGD):
    """Optimizer that loads the state, but goes on with the rate that it was made with."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["lr"] = self.defaults["lr"]


class DividesByTheNorm(Edits):
    def edit(self, params: list[Tensor]) -> None:
        norm = sum(p.grad.square().sum() for p in params).sqrt()
        for p in params:
            p.grad /= norm


class SeesCoordinates(Edits):
    """Optimizer that scales the gradient by the coordinate, and still stays on the manifold."""

    def edit(self, params: list[Tensor]) -> None:
        for p in params:
            p.grad[..., 0] *= 2


class StandsStill(Edits):
    """Optimizer that steps plain parameters only, right as far as all other properties go."""

    def edit(self, params: list[Tensor]) -> None:
        params[0].grad = None


class GoesUphill(Edits):
    def edit(self, params: list[Tensor]) -> None:
        for p in params:
            p.grad.neg_()


def _of(cls: type[rsam.RSAM]) -> Factory:
    return lambda params: cls(params, rho=0.1, lr=0.1)


WRONG = [
    ("a step returns the loss before it", _of(ReturnsNothing), SPHERE),
    ("a step returns the loss before it", _of(ReturnsTheSecondLoss), SPHERE),
    ("restoring is exact", _of(RestoresBySubtraction), SPHERE),
    ("the ascent goes the radius along the gradient", _of(AscendsTwiceAsFar), SPHERE),
    (
        "the ascent goes the radius along the gradient",
        _of(AscendsAlongTheEuclideanGradient),
        {"manifold": geoopt.PoincareBall(), "shape": (2,)},
    ),
    ("a step without radius is the base step", _of(DecaysWithoutRadius), SPHERE),
    ("a step without radius is the base step", _of(JumpsWithRadius), SPHERE),
    ("an exception leaves the weights", _of(StaysPerturbedOnException), SPHERE),
    ("steps stay on the manifold", lambda params: LeavesLater(params, lr=0.1), SPHERE),
    (
        "an exception leaves the weights",
        lambda params: LosesWeightsOnException(params, lr=0.1),
        {"manifold": geoopt.Euclidean(1), "shape": (2,)},
    ),
    ("a short step goes downhill", lambda params: StandsStill(params, lr=0.1), SPHERE),
    (
        "a short step goes downhill",
        lambda params: GoesUphill(params, lr=0.1),
        {"manifold": geoopt.SymmetricPositiveDefinite(), "shape": (2, 2)},
    ),
    # geoopt 0.5.1 takes the argument and ignores it
    ("a short step goes downhill", lambda params: geoopt.optim.RiemannianAdam(params, lr=0.1, maximize=True), SPHERE),
    ("a smaller rate makes a shorter step", lambda params: KeepsItsRate(params, lr=0.001), SPHERE),
    ("each group steps by its own rate", lambda params: StepsAllByOneRate(params, lr=0.1), SPHERE),
    ("each group steps by its own rate", lambda params: StepsAllByTheLastRate(params, lr=0.1), SPHERE),
    ("a loaded state continues the run", lambda params: ForgetsItsMomentum(params, lr=0.1, momentum=0.9), SPHERE),
    ("a loaded state continues the run", lambda params: ForgetsItsRate(params, lr=0.1), SPHERE),
    ("a step without gradient goes nowhere", lambda params: DividesByTheNorm(params, lr=0.1), SPHERE),
    ("steps are blind to isometries", lambda params: SeesCoordinates(params, lr=0.1), SPHERE),
]


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(("name", "factory", "on"), WRONG, ids=[f"{name} {i}" for i, (name, _, _) in enumerate(WRONG)])
def test_that_each_property_of_steps_can_fail(name: str, factory: Factory, on: dict[str, Any]) -> None:
    others = [check for check in STEPS if check.__name__.replace("_", " ") != name]
    assert len(others) == len(STEPS) - 1
    with pytest.raises(PropertyError, match=f"not true that {name}") as caught:
        # in most cases subtraction restores exactly
        check_optimizer(factory, **on, skip=others, max_examples=300)
    assert "failing case:\n    x = " in str(caught.value)


def test_that_properties_of_steps_may_be_left_out() -> None:
    check_optimizer(_of(ReturnsNothing), **SPHERE, skip=[steps.a_step_returns_the_loss_before_it])


def test_that_steps_along_more_than_the_gradient_may_go_uphill() -> None:
    others = [check for check in STEPS if check is not steps.a_short_step_goes_downhill]
    report = check_optimizer(
        lambda params: rsam.optim.RiemannianSGD(params, lr=0.1, weight_decay=0.1), **SPHERE, skip=others, max_examples=2
    )
    assert report.skipped == ("a short step goes downhill",)


def test_that_an_optimizer_that_maximizes_has_every_property() -> None:
    """Before, its ascent, which lowers the loss, was said to depart from the gradient, and its steps were not tried."""
    report = check_optimizer(_rsam(maximize=True), **SPHERE, max_examples=3)
    assert report.skipped == ()


def test_that_the_radius_of_an_adaptive_ascent_is_not_measured_in_the_metric() -> None:
    report = check_optimizer(
        _rsam(adaptive=True),
        manifold=geoopt.Euclidean(1),
        shape=(2,),
        max_examples=2,
        skip=[steps.steps_are_blind_to_isometries],
    )
    assert report.skipped == ("the ascent goes the radius along the gradient",)


def test_that_parameters_have_the_precision_that_is_asked_for() -> None:
    seen = set()

    def factory(params: list[Tensor]) -> rsam.RSAM:
        seen.update((p.dtype, getattr(getattr(p, "manifold", None), "dtype", None)) for p in params)
        return rsam.RSAM(params, rho=0.1, lr=0.1)

    check_optimizer(factory, manifold=geoopt.Lorentz().double(), shape=(3,), dtype=torch.float32, max_examples=1)
    assert seen == {(torch.float32, torch.float32), (torch.float32, None)}


def test_that_a_manifold_needs_a_shape() -> None:
    with pytest.raises(ValueError, match="shape"):
        check_optimizer(_rsam(), manifold=geoopt.Sphere())
