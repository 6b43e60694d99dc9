"""Validate a base optimizer and its parameters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from numbers import Real
from typing import Any, NoReturn

import geoopt
import torch
from geoopt.optim.mixin import OptimMixin
from torch import Tensor

from rsam import geometry
from rsam.optim.distributed import stepping_optimizer
from rsam.optim.groups import Groups, names_in_group, space_of
from rsam.optim.riemannian import RiemannianOptimizer
from rsam.optim.weights import keeps_momentum

__all__ = [
    "OPTIONS",
    "check_base",
    "check_class",
    "check_group",
    "check_momentum",
    "check_options",
    "check_options_of",
    "nonfinite_message",
    "refuse_sparse",
    "warn_of_wrong_steps",
]

#: Options of RSAM as a whole, in the order of :func:`check_options`.
OPTIONS = ("transport", "ascent", "direction", "radius", "every", "nonfinite")
_OF_ALL_GROUPS = {*OPTIONS, "local_ascent"}
_NEEDS_CLOSURE = (torch.optim.LBFGS, geoopt.optim.RiemannianLineSearch)
# Optimizers of torch-optimizer and pytorch_optimizer that estimate the Hessian by backward(create_graph=True).
_NEEDS_GRAPH = ("AdaHessian", "Adahessian", "SophiaH")
_LOOKAHEAD = "lookahead_alpha"  # an option that timm's Lookahead adds to the groups of what it wraps
_NEEDS_SPARSE = (torch.optim.SparseAdam, geoopt.optim.SparseRiemannianAdam, geoopt.optim.SparseRiemannianSGD)
_IGNORE_OPTIONS = (geoopt.optim.RiemannianAdam, geoopt.optim.RiemannianSGD)

# Manifolds on which geoopt 0.5.1's retraction or Riemannian gradient is wrong, and hence its optimizers' steps.
_WRONG_STEPS = {
    geoopt.CanonicalStiefel: "its retraction has the wrong derivative; put the parameter on "
    "rsam.geometry.CanonicalStiefel(), or use",
    geoopt.BirkhoffPolytope: "its Riemannian gradient lacks a factor n; use",
    geoopt.Scaled: "its Riemannian gradient ignores the scale; use",
    geoopt.BoundedDomain: "its Riemannian gradient does not belong to its metric; use",
}


def _leaves(manifold: geoopt.Manifold) -> Iterator[geoopt.Manifold]:
    yield manifold
    for part in getattr(manifold, "manifolds", []):
        yield from _leaves(part)
    if isinstance(manifold, geoopt.Scaled | geometry.Kernel):
        yield from _leaves(manifold.base)


def check_options(transport: str, ascent: str, direction: Any, radius: str, every: int, nonfinite: str) -> None:
    """Refuse misspelt options of RSAM."""
    for name, value, allowed in (
        ("transport", transport, ("vector", "pullback", "project")),
        ("ascent", ascent, ("retraction", "exponential")),
        ("direction", direction, ("gradient", "momentum")),
        ("radius", radius, ("product", "parameter", "point")),
        ("nonfinite", nonfinite, ("raise", "skip")),
    ):
        if value not in allowed and not (name == "direction" and callable(value)):
            function = ", or a function" if name == "direction" else ""
            raise ValueError(f"{name} must be one of {allowed}{function}, got {value!r}")
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a positive integer, got {every!r}")


def check_options_of(optimizer: Any, before: list[Any]) -> list[Any]:
    """Check the options of an optimizer, if they differ from those before, and return them."""
    options = [getattr(optimizer, name) for name in OPTIONS]
    if options != before:
        check_options(*options)
    return options


def check_class(base_optimizer: Any) -> None:
    """Refuse an optimizer, or the name of one, instead of a class."""
    if isinstance(base_optimizer, torch.optim.Optimizer):
        name = type(base_optimizer).__name__
        raise TypeError(
            f"base_optimizer must be a class, such as {name}, got one that is made; pass the class and its arguments, "
            "or wrap the optimizer with RSAM.from_optimizer(optimizer, rho=...)"
        )
    if not callable(base_optimizer):
        raise TypeError(f"base_optimizer must be a class, such as torch.optim.SGD, got {base_optimizer!r}")


def check_base(base: torch.optim.Optimizer) -> None:
    """Refuse a base optimizer that cannot take a single step from given gradients."""
    if not isinstance(base, torch.optim.Optimizer):
        raise TypeError(f"base_optimizer must make a torch.optim.Optimizer, got {type(base).__name__}")
    if isinstance(base, _NEEDS_CLOSURE):
        raise ValueError(f"{type(base).__name__} evaluates the loss many times per step and cannot be the base of RSAM")
    if isinstance(base, _NEEDS_SPARSE):
        raise ValueError(f"{type(base).__name__} steps with sparse gradients only and cannot be the base of RSAM")
    if any(cls.__name__ in _NEEDS_GRAPH for cls in type(base).__mro__):
        raise ValueError(
            f"{type(base).__name__} differentiates the gradient, which RSAM has brought back from other weights, and "
            "cannot be the base of RSAM"
        )
    taken = {"rho", "adaptive", "steps_since_ascent"} & base.defaults.keys()
    if taken:
        raise ValueError(
            f"{type(base).__name__} has an option {taken.pop()!r} of its own and cannot be the base of RSAM"
        )


def check_momentum(base: torch.optim.Optimizer, group: dict[str, Any], group_index: int) -> None:
    """Refuse to ascend along a momentum that does not exist, or is no mean of gradients."""
    if isinstance(base, torch.optim.RMSprop) or not keeps_momentum(group):
        raise ValueError(
            f'direction="momentum" ascends along a running mean of gradients, which {type(base).__name__} does not '
            f"keep in parameter group {group_index}; give it momentum, or ascend along the gradient"
        )


def check_group(base: torch.optim.Optimizer, groups: Groups, group_index: int) -> None:
    """Refuse parameters that the base optimizer would take off their manifold, and options out of range."""
    group = groups[group_index]
    misplaced = (_OF_ALL_GROUPS & group.keys()) - base.defaults.keys()
    if misplaced:
        raise ValueError(
            f"{sorted(misplaced)} in parameter group {group_index} cannot differ by group; pass them to RSAM itself"
        )
    if group.get("differentiable"):
        raise ValueError(
            f"differentiable=True in parameter group {group_index}: steps of RSAM have no derivative, since it ascends "
            "without a graph; leave the option out"
        )
    names = names_in_group(groups, group_index)
    rho = group["rho"]
    if not isinstance(rho, Real):
        raise ValueError(f"rho must be a number, got {rho!r} in parameter group {group_index}")
    if not 0 <= float(rho) < math.inf:  # also refuses nan
        raise ValueError(f"rho must be finite and must not be negative, got {rho} in parameter group {group_index}")
    stepping = stepping_optimizer(base)
    ignored = [name for name in ("maximize", "decoupled_weight_decay") if group.get(name)]
    if ignored and isinstance(stepping, _IGNORE_OPTIONS):
        raise ValueError(
            f"geoopt's {type(stepping).__name__} ignores {ignored[0]}=True, which parameter group {group_index} has; "
            f"use rsam.optim.{type(stepping).__name__} as base_optimizer"
        )
    retracts = isinstance(stepping, OptimMixin) or getattr(stepping, "retracts", False)
    for p, own in zip(group["params"], names, strict=False):
        if geometry.is_plain(p):
            continue
        name = f"{own} (shape {tuple(p.shape)}, {geometry.manifold_of(p).name})"
        if not retracts:
            better = "RiemannianAdam" if "betas" in base.defaults else "RiemannianSGD"
            raise ValueError(
                f"{type(base).__name__} would step {name} off its manifold; use rsam.optim.{better} or "
                f"geoopt.optim.{better} as base_optimizer"
            )
        if group["adaptive"]:
            raise ValueError(
                f"adaptive=True rescales by |p| elementwise, which no manifold's metric allows, but {name} lives on "
                "one; put it in a parameter group with adaptive=False"
            )
        if _LOOKAHEAD in group:
            raise ValueError(
                f"timm's Lookahead averages weights number by number, which takes {name} off its manifold; leave "
                "lookahead_ out of the optimizer's name, or keep an average with rsam.optim.averaging"
            )
        try:
            geometry.geometry_of(geometry.manifold_of(p))
        except geometry.UnsupportedOperation as error:
            raise geometry.UnsupportedOperation(f"{name}: {error}") from error


def warn_of_wrong_steps(base: torch.optim.Optimizer, group: dict[str, Any], warned: set[str]) -> None:
    """Warn once of each reason why geoopt's own optimizers step wrongly; ours are not affected."""
    if isinstance(stepping_optimizer(base), RiemannianOptimizer):
        return
    manifolds = [m for p in group["params"] for m in _leaves(geometry.manifold_of(p))]
    found = [
        (cls.__name__, reason)
        for cls, reason in _WRONG_STEPS.items()
        if any(isinstance(m, cls) and not isinstance(m, geometry.CanonicalStiefel) for m in manifolds)
    ]
    curved = next((m for m in manifolds if not isinstance(m, geoopt.Euclidean)), None)
    if curved is not None and isinstance(base, geoopt.optim.RiemannianSGD) and group["momentum"] > 0:
        found.append((type(curved).__name__, "its momentum starts from the Euclidean gradient; use"))
    name = type(base).__name__
    ours = name if name in ("RiemannianSGD", "RiemannianAdam") else "RiemannianSGD"
    for manifold, reason in found:
        if reason not in warned:
            warned.add(reason)
            warnings.warn(
                f"RSAM perturbs parameters on geoopt's {manifold} correctly, but the step of the base optimizer is "
                f"wrong there: {reason} rsam.optim.{ours} as base_optimizer",
                stacklevel=8,
            )


def refuse_sparse(groups: Groups, parameter: Tensor) -> NoReturn:
    """Refuse a sparse gradient, which no retraction here supports."""
    raise RuntimeError(f"RSAM does not support sparse gradients, which {_name_of(groups, parameter)} has")


def nonfinite_message(groups: Groups, length: float = math.inf, several_processes: bool = False) -> str:
    """Say which gradient is not finite, and what to do."""
    for group in groups:
        for p in group["params"]:
            if p.grad is not None and not geometry.all_finite([p.grad]):
                return (
                    f"the gradient of {_name_of(groups, p)} is not finite; the weights are as before the step. Lower "
                    'the learning rate or rho, or pass nonfinite="skip"'
                )
    if several_processes:
        return (
            "a gradient is not finite in another process, or their norm overflows; the weights are as before the step"
        )
    if math.isnan(length):
        return (
            "what is ascended along is no number, though each number of the gradients is finite: a direction of your "
            "own divides by zero, or a point has left its manifold"
        )
    return "the norm of the gradient overflows, though each number is finite; scale the loss down"


def _name_of(groups: Groups, parameter: Tensor) -> str:
    space = space_of(groups)
    return space.describe(next(i for i, p in enumerate(space.params) if p is parameter))
