"""Evaluate a loss and its derivatives again and again without side effects.

:func:`isolated` and :func:`at_points` leave a model as it was; :func:`differentiable` makes layers differentiable more
than once, and :func:`check_graph` and :func:`explain` name layers that are not. :mod:`rsam.evaluation.risk` builds the
loss over a whole data set on them.
"""

from typing import TYPE_CHECKING, Any

from rsam.errors import NoHigherDerivative
from rsam.evaluation.diagnosis import check_graph, explain
from rsam.evaluation.higher_order import differentiable
from rsam.evaluation.isolation import at_points, isolated
from rsam.removed import missing

__all__ = ["NoHigherDerivative", "at_points", "check_graph", "differentiable", "explain", "isolated"]

if not TYPE_CHECKING:  # to which every name would seem to exist

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
