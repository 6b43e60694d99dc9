"""Define properties of optimizers' steps, as functions that raise AssertionError if one does not hold.

The model is a point ``x`` of a manifold and a plain parameter, the loss a quadratic function of both, made from
ambient arrays ``a`` and ``b``. :func:`rsam.testing.check_optimizer` draws the arguments by name:

trial : Trial
    The optimizer and the manifold to check it on.
x : Tensor
    Point where the steps start.
a, b : Tensor
    Ambient arrays of the shape of ``x``.
isometry : Isometry or None
    Isometry of the manifold; None if none is known.

Each property raises NotImplementedError where the optimizer has no such steps, and can be called by itself:

>>> import geoopt, torch, rsam
>>> trial = rsam.testing.steps.Trial(lambda params: torch.optim.SGD(params, lr=0.1), geoopt.Sphere())
>>> x = torch.tensor([0.6, 0.8])
>>> rsam.testing.steps.steps_stay_on_the_manifold(trial, x, x.flip(0), 0 * x)
Traceback (most recent call last):
  ...
AssertionError: the point after a step is not on the manifold: `norm(x) != 1` with ...
"""

from __future__ import annotations

import copy
from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry import geometry_of, pairing
from rsam.geometry.linalg import largest
from rsam.testing.comparison import assert_close, tolerance
from rsam.testing.isometries import Isometry
from rsam.testing.points import metric_norm
from rsam.testing.properties.asserts import assert_on_manifold
from rsam.testing.trial import Interrupted, Model, Trial

__all__ = [
    "Trial",
    "a_loaded_state_continues_the_run",
    "a_short_step_goes_downhill",
    "a_smaller_rate_makes_a_shorter_step",
    "a_step_returns_the_loss_before_it",
    "a_step_without_gradient_goes_nowhere",
    "a_step_without_radius_is_the_base_step",
    "an_exception_leaves_the_weights",
    "each_group_steps_by_its_own_rate",
    "restoring_is_exact",
    "steps_are_blind_to_isometries",
    "steps_stay_on_the_manifold",
    "the_ascent_goes_the_radius_along_the_gradient",
]


def steps_stay_on_the_manifold(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise if any of five steps leaves the manifold."""
    model = trial.model(x, a, b)
    for count in range(1, 6):
        model.step()
        after = "a step" if count == 1 else f"{count} steps"
        assert_on_manifold(geometry_of(trial.manifold), model.values()[0], f"the point after {after}")


def a_step_returns_the_loss_before_it(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless ``step(closure)`` returns the loss at the weights that it started from."""
    model = trial.model(x, a, b)
    before = model.closure().detach()
    returned = model.step()
    if returned is None:
        raise AssertionError("step(closure) returned None, expected the loss")
    assert_close(torch.as_tensor(returned).detach().to(before), before, "the loss that step(closure) returned")


def _short_step(
    trial: Trial, x: Tensor, a: Tensor, b: Tensor, rate: float, other: float | None = None
) -> list[tuple[Any, ...]]:
    """Return name, geometry, gradient, start and end of each parameter for a step with a small learning rate.

    With an ``other`` rate, the plain parameter has that, in a group of its own.
    """
    model = Model(trial, x, trial.loss(x, a, b), grouped=other is not None)
    groups = getattr(model.optimizer, "param_groups", ())
    if not groups or any("lr" not in g or g.get("weight_decay") for g in groups):
        raise NotImplementedError("the step has no learning rate, or does not follow the gradient alone")
    for group in groups:
        group["lr"] = rate
        if "rho" in group:
            group["rho"] = min(group["rho"], rate)
    if other is not None:
        groups[1]["lr"] = other
    gradients, before = model.gradients(), model.values()
    model.step()
    kinds = geometry_of(trial.manifold), geometry_of(geoopt.Euclidean())
    return list(zip(("x", "the plain parameter"), kinds, gradients, before, model.values(), strict=True))


def a_short_step_goes_downhill(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless a step with a small learning rate moves each parameter, and not uphill.

    With ``maximize`` the hill is the negative loss. Rate and radius are so small that the step hardly leaves its
    tangent. Nothing is asked of a parameter whose gradient is shorter than 0.1 in the metric, where a step of fixed
    length may pass the minimum.
    """
    small = float(torch.finfo(x.dtype).eps) ** 0.25
    for name, geometry, gradient, start, end in _short_step(trial, x, a, b, small):
        steepness = metric_norm(geometry, start, geometry.raise_index(start, gradient))
        if steepness < 0.1:
            continue
        if torch.equal(start, end):
            raise AssertionError(f"a step leaves {name} where it is, at a gradient of length {steepness:.3g}")
        tangent = geometry.project(start, end - start)
        rise, length = float(pairing([gradient], [tangent])), metric_norm(geometry, start, tangent)
        if not rise <= 100 * length**2 * steepness:  # by which the curve may depart from its tangent
            raise AssertionError(f"a step of length {length:.3g} moves {name} uphill, along a gradient of length "
                                 f"{steepness:.3g} by {rise:.3g} (of the negative loss if it maximizes)")  # fmt: skip


def a_smaller_rate_makes_a_shorter_step(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless a quarter of a small learning rate makes a step of less than half the length.

    This finds an optimizer that goes on with the rate that it was made with, so that schedulers have no effect.
    """
    small = float(torch.finfo(x.dtype).eps) ** 0.25
    steps = (_short_step(trial, x, a, b, rate) for rate in (small, small / 4))
    for (name, geometry, gradient, start, end), (*_, nearer) in zip(*steps, strict=True):
        if metric_norm(geometry, start, geometry.raise_index(start, gradient)) < 0.1:
            continue
        long, short = (metric_norm(geometry, start, geometry.project(start, e - start)) for e in (end, nearer))
        if not short < long / 2:
            raise AssertionError(f"a step of {name} has length {long:.3g} by a small learning rate, and {short:.3g} by "
                                 "a quarter of it")  # fmt: skip


def each_group_steps_by_its_own_rate(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless a quarter of a small rate in the group of the plain parameter shortens that one's step alone."""
    small = float(torch.finfo(x.dtype).eps) ** 0.25
    steps = [_short_step(trial, x, a, b, small, other) for other in (small, small / 4)]
    (point, plain), (same, nearer) = ([end - start for *_, start, end in step] for step in steps)
    assert_close(same, point, "the step of x after the rate of another group was changed", scale=largest(x))
    long, short = float(plain.norm()), float(nearer.norm())
    if not short < long / 2:
        raise AssertionError(f"in a group of its own the step of the plain parameter has length {long:.3g}, and "
                             f"{short:.3g} by a quarter of the learning rate of that group")  # fmt: skip


def a_step_without_gradient_goes_nowhere(trial: Trial, x: Tensor) -> None:
    """Raise unless weights stay where they are, to rounding, if every gradient is zero, as at a minimum."""
    model = Model(trial, x, lambda y: 0 * pairing([y], [y]))
    model.plain.data.fill_(1)
    if any(group.get("weight_decay") for group in getattr(model.optimizer, "param_groups", ())):
        raise NotImplementedError("weight decay moves weights without a gradient")
    before = model.values()
    model.step(2)
    for name, now, then in zip(("x", "the plain parameter"), model.values(), before, strict=True):
        assert_close(now, then, f"{name} after two steps without a gradient", scale=max(1.0, largest(x)) ** 2)


def a_loaded_state_continues_the_run(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless a new optimizer with the ``state_dict()`` of another one goes on as that does, for two steps.

    The learning rate is halved before, as by a scheduler, so that it must come with the state.
    """
    loss = trial.loss(x, a, b)
    model = Model(trial, x, loss)
    if not (hasattr(model.optimizer, "state_dict") and hasattr(model.optimizer, "load_state_dict")):
        raise NotImplementedError("the optimizer has no state_dict")
    model.step(2)
    for group in getattr(model.optimizer, "param_groups", ()):
        if "lr" in group:
            group["lr"] = group["lr"] / 2
    resumed = Model(trial, model.values()[0], loss)
    resumed.plain.data.copy_(model.plain.data)
    resumed.optimizer.load_state_dict(copy.deepcopy(model.optimizer.state_dict()))
    model.step(2)
    resumed.step(2)
    for name, got, expected in zip(("x", "the plain parameter"), resumed.values(), model.values(), strict=True):
        scale = max(largest(x), largest(expected)) ** 2
        assert_close(got, expected, f"{name} two steps after its state was loaded", scale=scale, slack=10)


def steps_are_blind_to_isometries(trial: Trial, x: Tensor, a: Tensor, b: Tensor, isometry: Isometry | None) -> None:
    """Raise unless steps from the image of a point, on the loss carried along, end at the image of their end."""
    if isometry is None:
        raise NotImplementedError("no isometries are known")
    loss = trial.loss(x, a, b)
    model = Model(trial, x, loss)
    image = Model(trial, isometry.apply(x), lambda y: loss(isometry.invert(y)))
    model.step(3)
    image.step(3)
    expected, actual = isometry.apply(model.values()[0]), image.values()[0]
    scale = max(largest(x), largest(expected)) ** 2
    assert_close(
        actual, expected, "three steps from the image, against the image of three steps", scale=scale, slack=10
    )


def the_ascent_goes_the_radius_along_the_gradient(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless the perturbation is ``rho`` times the unit vector along the gradient, in the product metric.

    The radius is so small that the curve hardly leaves its tangent, relatively by about the radius.
    """
    model = trial.sam(x, a, b)
    if any(group.get("adaptive") for group in model.optimizer.param_groups):
        raise NotImplementedError("the metric of adaptive groups is another one")
    rho = float(torch.finfo(x.dtype).eps) ** 0.25
    model.set_rho(rho)
    geometry, gradients = geometry_of(trial.manifold), model.gradients()
    directions = [geometry.raise_index(x, gradients[0]), gradients[1]]
    norm = float(pairing(gradients, directions).sqrt())
    before = model.values()
    model.optimizer.first_step()
    moved = [after - start for after, start in zip(model.values(), before, strict=True)]
    moved[0] = geometry.project(x, moved[0])
    length = (metric_norm(geometry, x, moved[0]) ** 2 + float(moved[1].norm()) ** 2) ** 0.5
    if not abs(length / rho - 1) <= 10 * rho:
        raise AssertionError(f"the ascent has length {length:.6g} in the metric, expected rho = {rho:.6g}")
    rest = [m / rho - d / norm for m, d in zip(moved, directions, strict=True)]
    off = (metric_norm(geometry, x, rest[0]) ** 2 + float(rest[1].norm()) ** 2) ** 0.5
    if not off <= 100 * rho:
        raise AssertionError(f"the ascent departs from the direction of the gradient by {off:.3g} of its length")


def a_step_without_radius_is_the_base_step(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless the step with ``rho = 0`` is that of the base optimizer, and is the limit of ``rho -> 0``."""
    base = trial.sam(x, a, b)
    base.closure()
    base.optimizer.base_optimizer.step()

    def step(rho: float) -> Tensor:
        model = trial.sam(x, a, b)
        model.set_rho(rho)
        model.step()
        return torch.cat([value.flatten() for value in model.values()])

    expected = torch.cat([value.flatten() for value in base.values()])
    none = step(0.0)
    if not torch.equal(none, expected):
        raise AssertionError(f"with rho = 0 the step ends at {none.tolist()}, the base's at {expected.tolist()}")
    if "betas" in base.optimizer.base_optimizer.defaults:
        return  # Adam's step is discontinuous where a gradient vanishes
    errors = [largest(step(rho) - expected) for rho in (1e-2, 1e-3)]
    if not errors[1] <= errors[0] / 4 + 100 * tolerance(x.dtype) * largest(expected):
        raise AssertionError(
            f"for rho = 0.01 and 0.001 the steps differ from the base's by {errors}, not in proportion"
        )


def restoring_is_exact(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless ``restore`` after ``first_step`` gives the weights back bitwise."""
    model = trial.sam(x, a, b)
    model.closure()
    before = model.values()
    model.optimizer.first_step()
    model.optimizer.restore()
    _assert_same(model, before, "first_step and restore")


def an_exception_leaves_the_weights(trial: Trial, x: Tensor, a: Tensor, b: Tensor) -> None:
    """Raise unless weights are bitwise as before when the closure raises, whether in its first or second call."""
    for call in (1, 2):
        model = trial.model(x, a, b)
        before = model.values()
        model.interrupt_at = call
        try:
            model.step()
        except Interrupted:
            _assert_same(model, before, f"an exception in call {call} of the closure")


def _assert_same(model: Model, before: list[Tensor], event: str) -> None:
    for name, now, then in zip(("x", "the plain parameter"), model.values(), before, strict=True):
        if not torch.equal(now, then):
            raise AssertionError(f"after {event} {name} is {now.tolist()}, and was {then.tolist()}")
