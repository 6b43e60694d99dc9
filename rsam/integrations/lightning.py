"""Take steps of RSAM in ``lightning.pytorch``."""

from rsam.integrations.frameworks import needs
from rsam.integrations.lightning_passes import BothPasses

with needs("lightning"):
    from lightning.pytorch import Callback

__all__ = ["SharpnessAware"]


class SharpnessAware(BothPasses, Callback):
    """Run both passes of RSAM over every batch of a step, and log the loss of the first pass.

    For automatic optimization. Without this callback an :class:`rsam.RSAM` is stepped correctly as long as one batch
    makes a step and gradients are not scaled, but ``training_step`` logs twice. With the callback

    - ``accumulate_grad_batches`` evaluates all batches of a step at the weights, then all again at the perturbed ones;
    - ``precision="16-mixed"`` scales the gradients of both passes; RSAM needs ``nonfinite="skip"`` then;
    - ``gradient_clip_val`` clips the second gradient, and ``on_before_optimizer_step`` runs once, with that gradient;
    - only the first pass is logged, returned from ``training_step`` and counted by its torchmetrics.

    Parameters
    ----------
    log : bool
        Log at every step ``rsam/loss`` (at the weights before the step), ``rsam/sharpness`` (the perturbed loss minus
        that loss), ``rsam/grad_norm`` and ``rsam/rho``. With several parameter groups the radii are
        ``rsam/rho/pg1`` and so on.

    Raises
    ------
    TypeError
        When training starts, if the optimizer is not an :class:`rsam.RSAM`.
    ValueError
        When training starts, for manual optimization, for a ``training_step`` that takes ``dataloader_iter``, and for
        a gradient scaler without ``nonfinite="skip"``.
    RuntimeError
        If each pass changes a batch in place.

    Notes
    -----
    With ``direction="momentum"`` the ascent comes before the only pass, so the loss is that at the perturbed weights.
    All accumulated batches except the last are evaluated twice then.

    Examples
    --------
    >>> import torch, rsam
    >>> from lightning.pytorch import LightningModule, Trainer
    >>> from rsam.integrations.lightning import SharpnessAware
    >>> class Model(LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(3, 1)
    ...     def training_step(self, batch, batch_idx):
    ...         return self.layer(batch).square().mean()
    ...     def configure_optimizers(self):
    ...         return rsam.RSAM(self.parameters(), lr=0.1, rho=0.05)
    >>> off = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
    >>> trainer = Trainer(
    ...     max_epochs=1, accumulate_grad_batches=2, callbacks=SharpnessAware(), accelerator="cpu", **off
    ... )
    >>> trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(8, 3), batch_size=2))
    >>> trainer.global_step, bool(trainer.callback_metrics["rsam/sharpness"] > 0)
    (2, True)
    """
