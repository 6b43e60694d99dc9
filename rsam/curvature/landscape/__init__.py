"""Look at a loss along lines and planes through the weights, geodesics where these live on manifolds.

:func:`line` and :func:`plane` evaluate it. Directions are random, filter-normalised (Li et al. 2018), along the
gradient, towards another solution, or those in which a trajectory of checkpoints extends most. Plots need
``rsam[curvature]``.
"""

from rsam.curvature.landscape.directions import normalize_filters, random_directions
from rsam.curvature.landscape.grid import line, plane
from rsam.curvature.landscape.result import Line, Plane
from rsam.curvature.landscape.solutions import direction_to
from rsam.curvature.landscape.trajectory import Trajectory, trajectory_directions

__all__ = [
    "Line",
    "Plane",
    "Trajectory",
    "direction_to",
    "line",
    "normalize_filters",
    "plane",
    "random_directions",
    "trajectory_directions",
]
