"""Second and third derivatives through common layers, and evaluations that leave no trace."""

from rsam.derivatives.diagnosis import NoHigherDerivative, check_graph, explain
from rsam.derivatives.differentiable import differentiable
from rsam.derivatives.moved import at_points
from rsam.derivatives.no_trace import no_trace

__all__ = ["NoHigherDerivative", "at_points", "check_graph", "differentiable", "explain", "no_trace"]
