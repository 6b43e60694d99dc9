"""Second and third derivatives through common layers, and evaluations that leave no trace."""

from rsam.errors import NoHigherDerivative
from rsam.evaluation.diagnosis import check_graph, explain
from rsam.evaluation.higher_order import differentiable
from rsam.evaluation.isolation import at_points, isolated

__all__ = ["NoHigherDerivative", "at_points", "check_graph", "differentiable", "explain", "isolated"]
