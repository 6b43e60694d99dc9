"""Put weights of modules on manifolds, and update batch statistics once in the two passes of RSAM."""

from typing import TYPE_CHECKING, Any

from rsam.nn.constraints import (
    _BackOntoManifolds,  # noqa: F401  (pickles look for the hook here)
    constrain,
    unconstrain,
)
from rsam.nn.groups import parameter_groups
from rsam.nn.statistics import update_statistics_once
from rsam.removed import missing

__all__ = ["constrain", "parameter_groups", "unconstrain", "update_statistics_once"]

if not TYPE_CHECKING:  # to which every name would seem to exist

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
