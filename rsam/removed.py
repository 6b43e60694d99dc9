"""Name what replaces public names that were removed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

__all__ = ["REMOVED", "missing"]

# functions of lists that are methods of a product under the same name
_OF_LISTS = (
    *("acceleration", "component_inner", "connection", "coordinates_shape", "from_coordinates", "inner", "logarithm"),
    *("lower_index", "norm", "project", "pullback", "raise_index", "random_coordinates", "random_tangent", "retract"),
    *("retract_second_order", "to_coordinates", "transport", "transport_back"),
)

#: Names that version 0.2 removed, each with its replacement.
REMOVED = {f"rsam.geometry.{name}": f"rsam.geometry.Product(points).{name}" for name in _OF_LISTS} | {
    "rsam.derivatives": "rsam.evaluation",
    "rsam.evaluation.no_trace": "rsam.evaluation.isolated",
    "rsam.geometry.project_points": "rsam.geometry.Product(points).project_point",
    "rsam.geometry.restore_tangents": "rsam.geometry.Product(points).restore_tangent",
    "rsam.geometry.riemannian_gradient": "rsam.geometry.Product(points).raise_index",
    "rsam.nn.first_pass_only": "rsam.nn.update_statistics_once",
    "rsam.testing.places": "rsam.testing.points",
    "rsam.testing.properties.calling": "rsam.testing.properties.purity",
    "rsam.testing.properties.common": "rsam.testing.properties.asserts",
    "rsam.testing.properties.steps": "rsam.testing.properties.curves",
}


def missing(module: str, name: str) -> Exception:
    """Return the error for a name that a module lacks; to be raised by the module's ``__getattr__``.

    Parameters
    ----------
    module, name : str
        The module's full name, and the name that it lacks.

    Returns
    -------
    AttributeError or ImportError
        Names what replaces a removed name.

    Examples
    --------
    >>> from rsam.nn import first_pass_only
    Traceback (most recent call last):
      ...
    ImportError: rsam.nn.first_pass_only was removed in rsam 0.2; use rsam.nn.update_statistics_once
    """
    message = _message(f"{module}.{name}")
    if message is None:
        return AttributeError(f"module {module!r} has no attribute {name!r}")
    # "from module import name" hides the message of an AttributeError behind its own
    importing = sys._getframe(2).f_code.co_name == "_handle_fromlist"
    return ImportError(message) if importing else AttributeError(message)


def _message(name: str) -> str | None:
    return f"{name} was removed in rsam 0.2; use {REMOVED[name]}" if name in REMOVED else None


class _RemovedModules(MetaPathFinder):
    """Refuse ``import rsam.derivatives``, which asks no module's ``__getattr__``."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if message := _message(fullname):
            raise ModuleNotFoundError(message, name=fullname)


# the last one is asked only about modules that nobody has found
sys.meta_path.append(_RemovedModules())
