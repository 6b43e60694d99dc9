"""An optimizer that wraps another and shares its parameter groups and state."""

from __future__ import annotations

from typing import Any

import geoopt
import torch

__all__ = ["WrappingOptimizer"]


class WrappingOptimizer(torch.optim.Optimizer):
    """Share one list of groups and one state between two optimizers, so that a change through either reaches both.

    Schedulers, clipping, loading and new groups may go through the wrapper or through its base.

    Parameters
    ----------
    base : torch.optim.Optimizer
        What is wrapped.
    options : dict
        Options of the wrapper with their defaults, kept in the groups beside the base's own.
    """

    def __init__(self, base: torch.optim.Optimizer, options: dict[str, Any]) -> None:
        self.base_optimizer = base
        self._options = options
        # torch's bookkeeping, which calls add_param_group with each group of the base
        super().__init__(base.param_groups, {**base.defaults, **options})

    # torch's constructor and loader assign these two; the base has them already

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the base optimizer, which hold the options of both."""
        return self.base_optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        pass

    @property
    def state(self) -> Any:
        """The state of the base optimizer; the wrapper keeps none between steps."""
        return self.base_optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        pass

    def _check_group(self, index: int) -> None:
        """Raise for a group that cannot be treated."""

    def _fill_options(self) -> None:
        """Give the default options to groups that came by way of the base."""
        for group in self.param_groups:
            for option, value in self._options.items():
                group.setdefault(option, value)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to both optimizers. Raises as the class does, and adds nothing then."""
        indices = [i for i, group in enumerate(self.param_groups) if group is param_group]
        if not indices:
            self.base_optimizer.add_param_group(param_group)
        self._fill_options()
        try:
            self._check_group(indices[0] if indices else len(self.param_groups) - 1)
        except Exception:
            if not indices:
                self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load groups and state of both optimizers; also from a ``state_dict`` of the base optimizer alone."""
        options = [{k: group[k] for k in self._options} for group in self.param_groups]
        self.base_optimizer.load_state_dict(state_dict)
        for group, own in zip(self.param_groups, options, strict=True):
            for option, value in own.items():
                group.setdefault(option, value)
        self._mend_counters()

    def _mend_counters(self) -> None:
        """geoopt 0.5.1's RiemannianAdam counts steps in int, and gets float32 tensors back from torch's Adam."""
        if isinstance(self.base_optimizer, geoopt.optim.RiemannianAdam):
            for state in self.state.values():
                state["step"] = int(state["step"])

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_optimizer") and k != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._mend_counters()
