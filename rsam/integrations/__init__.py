"""RSAM with other libraries. Each module needs its library, and imports it when it is asked for.

================================ ======================================================
module                           what it has
================================ ======================================================
:mod:`rsam.integrations.hypll`   the parameters of a hypll model, as geoopt has them
================================ ======================================================
"""

import importlib
from typing import Any

_FRAMEWORKS = ("hypll",)


def __getattr__(name: str) -> Any:
    if name not in _FRAMEWORKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == name:
            raise ImportError(f"{__name__}.{name} needs {name}: pip install {name}") from error
        raise
