"""Define an optimizer that wraps another and shares its parameter groups and state."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import geoopt
import numpy as np
import torch

__all__ = ["WrappingOptimizer"]

#: Entries that SAMs of other libraries put into the state of their own: the weights, or the ascent, of the last step.
_OF_SAM = {"old_p", "e_w"}


def _plain_number(value: Any) -> Any:
    """Return a number of numpy's as one of Python's: ``torch.load`` refuses the former by default."""
    return value.item() if isinstance(value, np.generic) else value


class WrappingOptimizer(torch.optim.Optimizer):
    """Optimizer that shares groups and state with its base, so that a change through either reaches both.

    Schedulers, clipping, loading and new groups may go through the wrapper or through its base.

    Parameters
    ----------
    base : torch.optim.Optimizer
        The wrapped optimizer.
    options : dict
        Options of the wrapper with their defaults, kept in the groups beside the base's own.
    """

    def __init__(self, base: torch.optim.Optimizer, options: dict[str, Any]) -> None:
        self.base_optimizer = base
        self._options = list(options)
        self._made = False
        # torch's constructor, which calls add_param_group with each group of the base
        super().__init__(base.param_groups, {**base.defaults, **options})
        self._made = True

    # torch's constructor assigns these two, which the base has already

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the base optimizer, which hold the options of both."""
        return self.base_optimizer.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        if self._made:
            before = self.base_optimizer.param_groups
            self.base_optimizer.param_groups = groups
            try:
                self._fill_options()
                for index in range(len(groups)):
                    self._check_group(index)
            except Exception:
                self.base_optimizer.param_groups = before
                raise

    @property
    def state(self) -> Any:
        """The state of the base optimizer; the wrapper keeps none between steps."""
        return self.base_optimizer.state

    @state.setter
    def state(self, state: Any) -> None:
        if self._made:
            self.base_optimizer.state = state

    def __getattr__(self, name: str) -> Any:
        """Return attributes of the base that the wrapper lacks, such as ``train``, ``eval`` or ``stabilize``."""
        if name.startswith("_") or name == "base_optimizer":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.base_optimizer, name)

    def __repr__(self) -> str:
        return super().__repr__().replace(" (", f" over {type(self.base_optimizer).__name__} (", 1)

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """Run torch's hooks around a step, and put the weights back if one of those before it raises."""
        hooked = torch.optim.Optimizer.profile_hook_step(func)

        @wraps(func)
        def step(self: WrappingOptimizer, *args: Any, **options: Any) -> Any:
            try:
                return hooked(self, *args, **options)
            except BaseException:
                self.restore()
                raise

        return step

    def restore(self) -> None:
        """Undo a step that has begun."""

    def _check_group(self, index: int) -> None:
        """Raise for a group that is not supported."""

    def _fill_options(self) -> None:
        """Give the default options to groups that were added through the base."""
        for group in self.param_groups:
            for option in self._options:
                group[option] = _plain_number(group.get(option, self.defaults[option]))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to both optimizers. Raises as the class does, and adds nothing then."""
        indices = [i for i, group in enumerate(self.param_groups) if group is param_group]
        if not indices:
            known = {k: v for k, v in self.defaults.items() if k in self.base_optimizer.defaults}
            self.base_optimizer.add_param_group({**known, **param_group})
        self._fill_options()
        try:
            self._check_group(indices[0] if indices else len(self.param_groups) - 1)
        except Exception:
            if not indices:
                self.param_groups.pop()
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return the ``state_dict`` of the base, whose groups hold the options of both; hooks of both run."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        saved = self.base_optimizer.state_dict()
        for group in saved.get("param_groups", ()):  # copies, with what schedulers may have brought from numpy
            group.update({name: _plain_number(value) for name, value in group.items()})
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load groups and state of both optimizers; also from a ``state_dict`` of the base optimizer alone.

        One of a SAM of another library may have no state of its base optimizer, which then starts anew.

        Warns
        -----
        UserWarning
            If so.
        """
        state_dict = state_dict.copy()
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        options = [{k: group[k] for k in self._options} for group in self.param_groups]
        self.base_optimizer.load_state_dict({**state_dict, "state": _of_base(state_dict["state"])})
        for group, own in zip(self.param_groups, options, strict=True):
            for option, value in own.items():
                group.setdefault(option, value)
        self._mend_counters()
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _mend_counters(self) -> None:
        """geoopt 0.5.1's RiemannianAdam counts steps in int, and gets float32 tensors back from torch's Adam."""
        if isinstance(self.base_optimizer, geoopt.optim.RiemannianAdam):
            for state in self.state.values():
                if "step" in state:
                    state["step"] = int(state["step"])

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_optimizer") and k != "step"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._mend_counters()


def _of_base(state: dict[Any, Any]) -> dict[Any, Any]:
    """Return a saved state without what the SAM of another library put into it."""
    of_sam = [key for key, held in state.items() if isinstance(held, dict) and not _OF_SAM.isdisjoint(held)]
    own = {key: {name: value for name, value in state[key].items() if name not in _OF_SAM} for key in of_sam}
    if of_sam and not any(own.values()):
        warnings.warn(
            "the checkpoint is of a SAM that saves no state of its base optimizer, such as a momentum, so that this "
            "starts anew; to go on with it, load what base_optimizer.state_dict() of that SAM returns",
            stacklevel=3,
        )
    return {key: own.get(key, held) for key, held in state.items() if own.get(key, True)}
