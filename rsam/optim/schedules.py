"""Schedule the radius of the perturbation by torch's own schedulers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch.optim.lr_scheduler import ChainedScheduler, LambdaLR, LRScheduler

__all__ = ["LambdaRho", "ProportionalRho", "rho_scheduler"]

Scheduler = TypeVar("Scheduler", bound=LRScheduler)
# Entries of groups that schedulers use beside the learning rate.
_PREFIXES = ("", "initial_", "max_", "min_", "swa_")
_SHOWN = "_rho_is_shown_as_lr"


@contextmanager
def _rho_as_lr(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Show a scheduler each group's ``rho`` as its learning rate within this context, which may be nested."""
    if hasattr(optimizer, _SHOWN):
        yield
        return
    _show(optimizer)
    try:
        yield
    finally:
        _hide(optimizer)


def _show(optimizer: torch.optim.Optimizer) -> None:
    aside = [{p: group.pop(p + "lr") for p in _PREFIXES if p + "lr" in group} for group in optimizer.param_groups]
    _rename(optimizer, "rho", "lr")
    setattr(optimizer, _SHOWN, aside)


def _hide(optimizer: torch.optim.Optimizer) -> None:
    aside = getattr(optimizer, _SHOWN)
    delattr(optimizer, _SHOWN)
    _rename(optimizer, "lr", "rho")
    for group, kept in zip(optimizer.param_groups, aside, strict=True):
        group.update({prefix + "lr": value for prefix, value in kept.items()})


def _rename(optimizer: torch.optim.Optimizer, old: str, new: str) -> None:
    for group in optimizer.param_groups:
        for prefix in _PREFIXES:
            if prefix + old in group:
                group[prefix + new] = group.pop(prefix + old)


class _ForRho:
    """Mix-in for classes of schedulers that drives ``rho``."""

    optimizer: torch.optim.Optimizer

    def __init__(self, optimizer: torch.optim.Optimizer, *args: Any, **options: Any) -> None:
        for i, group in enumerate(optimizer.param_groups):
            if "rho" not in group:
                raise ValueError(f"optimizer has no rho in parameter group {i}; pass an rsam.RSAM")
            if options.get("last_epoch", -1) != -1 and "initial_rho" not in group:
                raise KeyError(f"parameter group {i} has no 'initial_rho' to resume from; load the optimizer first")
        _refuse_schedulers_of_lr([*args, *options.values()])
        with _rho_as_lr(optimizer):
            super().__init__(optimizer, *args, **options)  # type: ignore[call-arg]
        self._for_rho = True

    def step(self, *args: Any, **options: Any) -> None:
        """Advance to the next epoch.

        Parameters
        ----------
        *args, **options
            As for :meth:`torch.optim.lr_scheduler.LRScheduler.step`.
        """
        with _rho_as_lr(self.optimizer):
            super().step(*args, **options)  # type: ignore[misc]

    def get_lr(self) -> list[Any]:
        """Return the next radii; functions of the user's find ``lr`` and ``rho`` in the groups as they are.

        Returns
        -------
        list
            One radius per group.
        """
        own: Any = self
        above: Callable[[], list[Any]] = super().get_lr  # type: ignore[misc]
        if not hasattr(own, "lr_lambdas"):
            return above()

        def called(function: Callable[[int], float], epoch: int) -> float:
            _hide(self.optimizer)
            try:
                return function(epoch)
            finally:
                _show(self.optimizer)

        functions = own.lr_lambdas
        own.lr_lambdas = [partial(called, function) for function in functions]
        try:
            with _rho_as_lr(self.optimizer):
                return above()
        finally:
            own.lr_lambdas = functions

    def _update_lr(self, epoch: int | None = None) -> None:
        with _rho_as_lr(self.optimizer):  # a SequentialLR, which may drive the rate, calls this and not step
            super()._update_lr(epoch)  # type: ignore[misc]

    def _initial_step(self) -> None:
        if hasattr(self, "_for_rho") and not hasattr(self.optimizer, _SHOWN):
            raise ValueError(
                "a scheduler of schedulers of rho must drive rho, too: "
                "rsam.optim.rho_scheduler(SequentialLR, optimizer, schedulers=..., milestones=...)"
            )
        super()._initial_step()  # type: ignore[misc]


def _refuse_schedulers_of_lr(arguments: list[Any]) -> None:
    """Refuse schedulers of the learning rate among those of a scheduler of ``rho``: they would set ``rho`` to rates."""
    for scheduler in (part for given in arguments if isinstance(given, list | tuple) for part in given):
        if isinstance(scheduler, LRScheduler) and not _drives_rho(scheduler):
            raise ValueError(
                f"the {type(scheduler).__name__} in a scheduler of schedulers of rho drives the learning rate; make it "
                f"by rho_scheduler({type(scheduler).__name__}, optimizer, ...)"
            )


def _drives_rho(scheduler: Any) -> bool:
    parts = getattr(scheduler, "_schedulers", ())  # those of a ChainedScheduler, which drives nothing itself
    return isinstance(scheduler, _ForRho) or (len(parts) > 0 and all(map(_drives_rho, parts)))


def rho_scheduler(
    scheduler: type[Scheduler], optimizer: torch.optim.Optimizer, *args: Any, **options: Any
) -> Scheduler:
    """Make a scheduler of torch that drives ``rho`` instead of the learning rate.

    It is an instance of the class, so that loops, Lightning and other schedulers treat it as one; ``get_last_lr``
    returns the radii.

    Parameters
    ----------
    scheduler : type
        A class of :mod:`torch.optim.lr_scheduler`. A ``SequentialLR`` drives ``rho`` if this function makes it and all
        of its schedulers. Make a ``ChainedScheduler`` by its class, of schedulers of ``rho``, of ``lr`` or of both.
    optimizer : rsam.RSAM
        The optimizer whose ``param_groups`` are set.
    *args, **options
        Arguments of the class. ``cycle_momentum`` is off unless it is given.

    Returns
    -------
    LRScheduler
        The scheduler; groups hold ``initial_rho`` from now on.

    Raises
    ------
    TypeError
        If ``scheduler`` is no class of schedulers, is a ``ChainedScheduler``, or drives ``rho`` by itself.
    ValueError
        If a parameter group has no ``rho``, or a scheduler among the arguments drives the learning rate.
    KeyError
        If ``last_epoch`` is given but a group holds no ``initial_rho``.

    Examples
    --------
    >>> import torch, rsam
    >>> opt = rsam.RSAM([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, rho=0.1, lr=0.1)
    >>> scheduler = rsam.optim.rho_scheduler(torch.optim.lr_scheduler.CosineAnnealingLR, opt, T_max=2)
    >>> opt._opt_called = True  # in a loop, a step comes first
    >>> scheduler.step()
    >>> round(opt.param_groups[0]["rho"], 3), opt.param_groups[0]["lr"]
    (0.05, 0.1)
    """
    if not (isinstance(scheduler, type) and issubclass(scheduler, LRScheduler)):
        raise TypeError(
            f"scheduler must be a class of torch.optim.lr_scheduler, got {scheduler!r}; LambdaRho takes a function of "
            "the epoch"
        )
    if issubclass(scheduler, _ForRho | ChainedScheduler):
        what = "is made of schedulers of rho" if issubclass(scheduler, ChainedScheduler) else "drives rho by itself"
        raise TypeError(f"{scheduler.__name__} {what}; make it by its class")
    signature = inspect.signature(scheduler)
    if "cycle_momentum" in signature.parameters.keys() - signature.bind_partial(optimizer, *args, **options).arguments:
        options["cycle_momentum"] = False  # momentum is cycled against the learning rate, which has its own schedule
    made: Scheduler = _class_for_rho(scheduler)(optimizer, *args, **options)
    return made


def _class_for_rho(scheduler: type[LRScheduler]) -> Any:
    return type(scheduler.__name__, (_ForRho, scheduler), {"__reduce__": _reduce})


def _reduce(made: Any) -> tuple[Any, ...]:
    """Pickle by the class of torch, since a class that is made by a function cannot be found by its name."""
    return _new_for_rho, (type(made).__bases__[1],), made.__dict__


def _new_for_rho(scheduler: type[LRScheduler]) -> Any:
    cls = _class_for_rho(scheduler)
    return cls.__new__(cls)


class LambdaRho(_ForRho, LambdaLR):
    """Set each group's ``rho`` to its initial value times a function of the epoch.

    The counterpart of :class:`torch.optim.lr_scheduler.LambdaLR`.

    Parameters
    ----------
    optimizer : rsam.RSAM
        Its ``param_groups`` are set.
    rho_lambda : callable or list of callable
        Functions of the epoch that return a factor: one for all groups, or one for each.
    last_epoch : int
        The index of the last epoch when resuming; the groups must then hold ``initial_rho``.

    Raises
    ------
    ValueError
        If the number of functions is not the number of groups, or a group has no ``rho``.
    KeyError
        If ``last_epoch`` is given but a group holds no ``initial_rho``.

    Examples
    --------
    >>> import torch, rsam
    >>> opt = rsam.RSAM([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, rho=0.1, lr=0.1)
    >>> scheduler = rsam.optim.LambdaRho(opt, lambda epoch: 0.5**epoch)
    >>> opt._opt_called = True  # in a loop, a step comes first
    >>> scheduler.step()
    >>> opt.param_groups[0]["rho"]
    0.05
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        rho_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        count = len(optimizer.param_groups)
        functions = [rho_lambda] * count if callable(rho_lambda) else list(rho_lambda)
        if len(functions) != count:
            raise ValueError(f"rho_lambda has {len(functions)} functions for {count} parameter groups")
        super().__init__(optimizer, functions, last_epoch=last_epoch)

    def step(self, *args: Any, **options: Any) -> None:
        """Advance to the next epoch.

        Parameters
        ----------
        *args, **options
            As for :meth:`torch.optim.lr_scheduler.LRScheduler.step`.

        Raises
        ------
        ValueError
            If parameter groups were added since the scheduler was made.
        """
        if len(self.optimizer.param_groups) != len(self.lr_lambdas):
            raise ValueError(
                f"the optimizer has {len(self.optimizer.param_groups)} parameter groups by now, rho_lambda "
                f"{len(self.lr_lambdas)} functions; make a new {type(self).__name__} after add_param_group"
            )
        super().step(*args, **options)

    @property
    def rho_lambdas(self) -> list[Callable[[int], float]]:
        """Functions, one per group."""
        return self.lr_lambdas

    def get_last_rho(self) -> list[float]:
        """Return the present ``rho`` of each group."""
        return [group["rho"] for group in self.optimizer.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume a schedule at the saved epoch; functions are not saved, unless they are objects with attributes."""
        super().load_state_dict({"lr_lambdas": [None] * len(self.lr_lambdas), **state_dict})


class ProportionalRho(LambdaRho):
    """Keep each group's ``rho`` in proportion to its learning rate.

    The ``rho`` of a group at construction corresponds to its learning rate. Where a scheduler has set ``initial_lr``,
    the initial radius corresponds to that, so that a warm-up may have begun; with ``OneCycleLR`` it is the smallest
    rate of the warm-up. Call ``step`` after that of the learning rate's scheduler (Zhuang et al. 2022, Section 5.1).

    Parameters
    ----------
    optimizer : rsam.RSAM
        Its ``param_groups`` are set.

    Raises
    ------
    ValueError
        If a group has no ``rho``, or its learning rate starts at zero.

    Examples
    --------
    >>> import torch, rsam
    >>> opt = rsam.RSAM([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, rho=0.1, lr=0.4)
    >>> proportional = rsam.optim.ProportionalRho(opt)
    >>> opt._opt_called = True  # in a loop, a step comes first
    >>> opt.param_groups[0]["lr"] = 0.2
    >>> proportional.step()
    >>> opt.param_groups[0]["rho"]
    0.05
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._first = list(map(_first_rate, optimizer.param_groups))
        if not all(self._first):
            raise ValueError("rho cannot be in proportion to a learning rate that starts at zero")

        # no closures, which a copy of this schedule would share
        super().__init__(optimizer, [partial(self._factor, i) for i in range(len(self._first))])

    def _factor(self, index: int, epoch: int) -> float:
        return float(self.optimizer.param_groups[index]["lr"]) / self._first[index]


def _first_rate(group: dict[str, Any]) -> float:
    """Return the learning rate at which the radius of a group is, or was, the initial one."""
    rate = float(group.get("initial_lr", group["lr"]))
    if "initial_lr" in group or "initial_rho" not in group or not group["rho"]:
        return rate
    return rate * float(group["initial_rho"]) / float(group["rho"])  # an earlier schedule has changed the radius
