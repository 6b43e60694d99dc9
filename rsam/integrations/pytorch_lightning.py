"""Take steps of RSAM in ``pytorch_lightning``."""

from pytorch_lightning import Callback

from rsam.integrations.lightning_passes import BothPasses

__all__ = ["SharpnessAware"]


class SharpnessAware(BothPasses, Callback):
    """Run both passes of RSAM over every batch of a step, and log the loss of the first pass.

    The same as :class:`rsam.integrations.lightning.SharpnessAware`, for ``pytorch_lightning``.
    """
