"""Take steps of RSAM in the ``Trainer`` of Hugging Face's transformers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rsam.geometry import is_plain
from rsam.integrations.frameworks import needs
from rsam.integrations.halves import Writes, ascend, check_scaler, needs_gradient, unwrapped
from rsam.optim import RSAM

with needs("transformers"):
    from transformers import Trainer, TrainerCallback

__all__ = ["RSAMTrainer"]

# Attribute by which Trainer divides losses that are not means over the items of all batches of a step.
_WINDOW = "current_gradient_accumulation_steps"


class RSAMTrainer(Trainer):
    """Run both passes of RSAM over every batch of a step.

    The ``gradient_accumulation_steps`` batches of a step are evaluated at the weights, then again at the perturbed
    weights. ``max_grad_norm`` clips the second gradient, whose norm is logged as ``grad_norm``. The logged loss is that
    at the weights; beside it are ``sharpness``, the rise of the loss by the ascent of the last step, and ``rho`` of
    the first parameter group. Weight decay leaves out parameters on manifolds. With ``fp16`` RSAM needs
    ``nonfinite="skip"``.

    Parameters
    ----------
    *args, **kwargs
        Arguments of ``transformers.Trainer``. The optimizer comes as ``optimizers=(optimizer, scheduler)``, or as
        ``optimizer_cls_and_kwargs=(rsam.RSAM, {"lr": 5e-5, "rho": 0.05, ...})``.

    Raises
    ------
    TypeError
        When training starts, if the optimizer is not an :class:`rsam.RSAM`.
    ValueError
        In the first step, for a gradient scaler without ``nonfinite="skip"``.
    RuntimeError
        If each pass changes a batch in place.

    Examples
    --------
    >>> import tempfile, torch, rsam
    >>> from transformers import TrainingArguments
    >>> from rsam.integrations.transformers import RSAMTrainer
    >>> class Model(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(3, 1)
    ...     def forward(self, x, labels):
    ...         return {"loss": (self.layer(x) - labels).square().mean()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = {"max_steps": 2, "gradient_accumulation_steps": 2, "use_cpu": True, "report_to": "none"}
    ...     trainer = RSAMTrainer(
    ...         model=Model(),
    ...         args=TrainingArguments(folder, disable_tqdm=True, **options),
    ...         train_dataset=[{"x": torch.ones(3), "labels": torch.ones(1)}] * 64,
    ...         optimizer_cls_and_kwargs=(rsam.RSAM, {"lr": 0.1, "rho": 0.05}),
    ...     )
    ...     trainer.train().global_step
    {...}
    2
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # since the last step, each with that by which its loss is divided
        self._batches: list[tuple[dict[str, Any], Tensor | int | None, Any]] = []
        self._losses: list[Tensor] = []  # of those batches
        self._writes = Writes()
        self._rise: Tensor | float | None = None  # of the loss, by the last ascent
        self.callback_handler.callbacks.insert(0, _PutBack(self))  # others see the weights that were put back

    @property
    def rsam(self) -> RSAM:
        """Optimizer without the wrapper of accelerate."""
        return unwrapped(self.optimizer)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, as ``Trainer.train`` does; after an exception the weights are those before the step."""
        try:
            return super().train(*args, **kwargs)
        finally:
            if self.optimizer is not None:
                self.rsam.restore()

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Add the gradient of a batch; after the last batch of a step, replace the sum by that of the second pass."""
        optimizer = self.rsam
        scaler = getattr(self.accelerator, "scaler", None)
        check_scaler(optimizer, scaler)
        if optimizer.ascends and not self._batches and not needs_gradient(optimizer):
            ascend(optimizer)
        self._writes.watch(inputs)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self._batches.append((inputs, num_items_in_batch, getattr(self, _WINDOW, None)))
        self._losses.append(loss)
        if self.accelerator.sync_gradients:
            batches, first, writes = self._batches, torch.stack(self._losses).sum(), self._writes
            self._forget()
            if not optimizer.ascends:
                self._rise = 0.0
            elif needs_gradient(optimizer):
                writes.note()
                ascend(optimizer, scaler)
                self._rise = self._evaluate_again(model, batches) - first
                writes.refuse()
        return loss

    def _forget(self) -> None:
        self._batches, self._losses, self._writes, self._rise = [], [], Writes(), None

    def _evaluate_again(
        self, model: nn.Module, batches: list[tuple[dict[str, Any], Tensor | int | None, Any]]
    ) -> Tensor:
        losses = []
        for i, (inputs, num_items_in_batch, window) in enumerate(batches):
            last = i == len(batches) - 1
            # batches that an epoch of unknown length left over have other divisors than those of the next epoch
            setattr(self, _WINDOW, window)
            with nullcontext() if last else self.accelerator.no_sync(model=model):
                losses.append(super().training_step(model, inputs, num_items_in_batch))
        return torch.stack(losses).sum()

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Name the parameters that Trainer decays, without those on manifolds."""
        curved = {name for name, p in model.named_parameters() if not is_plain(p)}
        return [name for name in super().get_decay_parameter_names(model) if name not in curved]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, and add the sharpness and the radius to the training loss."""
        if "loss" in logs:
            logs["rho"] = float(self.rsam.param_groups[0]["rho"])
            if self._rise is not None:
                logs["sharpness"] = float(self._rise)
        super().log(logs, *args, **kwargs)


class _PutBack(TrainerCallback):
    """Put the weights back after a step that a gradient scaler has skipped, or that ran out of memory."""

    def __init__(self, trainer: RSAMTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # auto_find_batch_size begins anew within train(), after a pass that failed
        self._trainer._forget()
        self._trainer.rsam.restore()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.rsam.restore()
