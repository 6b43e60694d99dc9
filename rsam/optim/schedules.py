"""Schedules of the perturbation radius."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["LambdaRho"]


class LambdaRho:
    """Set each group's ``rho`` to its initial value times a function of the epoch.

    The counterpart of :class:`torch.optim.lr_scheduler.LambdaLR`: same arguments, same ``step``, ``state_dict`` and
    ``load_state_dict``.

    Parameters
    ----------
    optimizer : rsam.RSAM
        Its ``param_groups`` are set.
    rho_lambda : callable or list of callable
        Factor by epoch, one for all groups or one each.
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
        groups = optimizer.param_groups
        self.rho_lambdas = [rho_lambda] * len(groups) if callable(rho_lambda) else list(rho_lambda)
        if len(self.rho_lambdas) != len(groups):
            raise ValueError(f"rho_lambda has {len(self.rho_lambdas)} functions for {len(groups)} parameter groups")
        for i, group in enumerate(groups):
            if "rho" not in group:
                raise ValueError(f"optimizer has no rho in parameter group {i}; pass an rsam.RSAM")
            if last_epoch == -1:
                group.setdefault("initial_rho", group["rho"])
            elif "initial_rho" not in group:
                raise KeyError(f"parameter group {i} has no 'initial_rho' to resume from; load the optimizer first")
        self.optimizer = optimizer
        self.last_epoch = last_epoch
        self.step()

    def get_last_rho(self) -> list[float]:
        """Return the present ``rho`` of each group."""
        return [group["rho"] for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Go to the next epoch."""
        self.last_epoch += 1
        if len(self.optimizer.param_groups) != len(self.rho_lambdas):
            raise ValueError(
                f"the optimizer has {len(self.optimizer.param_groups)} parameter groups by now, rho_lambda "
                f"{len(self.rho_lambdas)} functions; make a new LambdaRho after add_param_group"
            )
        for group, factor in zip(self.optimizer.param_groups, self.rho_lambdas, strict=True):
            group["rho"] = group["initial_rho"] * factor(self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch; functions are not saved, and ``rho`` is in the optimizer's own state."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the epoch of a saved schedule."""
        self.last_epoch = state_dict["last_epoch"]
