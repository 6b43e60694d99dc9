"""Take steps of RSAM in ``pytorch_lightning``."""

from rsam.integrations.frameworks import needs
from rsam.integrations.lightning_passes import BothPasses

with needs("pytorch_lightning"):
    from pytorch_lightning import Callback

__all__ = ["SharpnessAware"]


class SharpnessAware(BothPasses, Callback):
    """Run both passes of RSAM over every batch of a step, and log the loss of the first pass.

    The same as :class:`rsam.integrations.lightning.SharpnessAware`, for ``pytorch_lightning``.

    Parameters
    ----------
    log : bool
        Log ``rsam/loss``, ``rsam/sharpness``, ``rsam/grad_norm`` and ``rsam/rho`` at every step.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As the other class does.

    Examples
    --------
    >>> import torch, rsam
    >>> from pytorch_lightning import LightningModule, Trainer
    >>> from rsam.integrations.pytorch_lightning import SharpnessAware
    >>> class Model(LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(3, 1)
    ...     def training_step(self, batch, batch_idx):
    ...         return self.layer(batch).square().mean()
    ...     def configure_optimizers(self):
    ...         return rsam.RSAM(self.parameters(), lr=0.1, rho=0.05)
    >>> off = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    >>> trainer = Trainer(max_epochs=1, callbacks=SharpnessAware(), accelerator="cpu", **off)
    >>> trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(4, 3), batch_size=2))
    >>> trainer.global_step, bool(trainer.callback_metrics["rsam/sharpness"] > 0)
    (2, True)
    """
