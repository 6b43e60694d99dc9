"""Test manifolds, and optimizers on them, by properties, within a project's own pytest."""

from typing import TYPE_CHECKING, Any

try:
    import hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError("rsam.testing needs hypothesis: pip install 'rsam[testing]'") from error

from rsam.errors import PropertyError
from rsam.removed import missing
from rsam.testing import properties, steps
from rsam.testing.isometries import Isometry, isometries
from rsam.testing.manifold import NativeGeometry, check_manifold, properties_of
from rsam.testing.optimizer import check_optimizer
from rsam.testing.points import point_from_array, tangent_from_array
from rsam.testing.running import Report
from rsam.testing.strategies import arrays, manifolds, points, step_sizes, tangents

__all__ = [
    "Isometry",
    "NativeGeometry",
    "PropertyError",
    "Report",
    "arrays",
    "check_manifold",
    "check_optimizer",
    "isometries",
    "manifolds",
    "point_from_array",
    "points",
    "properties",
    "properties_of",
    "step_sizes",
    "steps",
    "tangent_from_array",
    "tangents",
]

if not TYPE_CHECKING:  # to which every name would seem to exist

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
