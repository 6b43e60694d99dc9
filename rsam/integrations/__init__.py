"""Use RSAM with other libraries. Each module needs its library, which an extra brings: ``rsam[timm]``.

=========================================== ======================================================
module                                      what it has
=========================================== ======================================================
:mod:`rsam.integrations.accelerate`         a step with both passes over accumulated batches
:mod:`rsam.integrations.hypll`              the parameters of a hypll model, as geoopt has them
:mod:`rsam.integrations.lightning`          a callback for ``lightning``
:mod:`rsam.integrations.pytorch_lightning`  the same for ``pytorch_lightning``
:mod:`rsam.integrations.timm`               names for ``timm.optim.create_optimizer_v2``
:mod:`rsam.integrations.transformers`       a ``Trainer`` that takes both passes
=========================================== ======================================================
"""

import importlib
import importlib.util
from typing import Any


def __getattr__(name: str) -> Any:
    if importlib.util.find_spec(f"{__name__}.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
