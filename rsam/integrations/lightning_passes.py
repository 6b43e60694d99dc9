"""Run both passes of a step in the loop of Lightning, in either package that Lightning is published as."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rsam.integrations.halves import Writes, ascend, check_scaler, in_new_containers, needs_gradient
from rsam.optim import RSAM

__all__ = ["BothPasses"]


class BothPasses:
    """Hooks of :class:`rsam.integrations.lightning.SharpnessAware`, for the ``Callback`` of either package."""

    def __init__(self, log: bool = True) -> None:
        self._log = log
        self._batches: list[tuple[Any, ...]] = []  # arguments of training_step, since the last step
        self._losses: list[Tensor | None] = []  # losses of those batches, without the last
        self._writes = Writes()
        self._report: dict[str, Any] = {}
        self._replay: _Replay | None = None
        self._undo: Callable[[], None] | None = None

    # -- hooks of Lightning --------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Check the settings, and take over the step from Lightning.

        Raises
        ------
        TypeError
            If the optimizer is not an :class:`rsam.RSAM`.
        ValueError
            For manual optimization, for a ``training_step`` that takes ``dataloader_iter``, and for a gradient scaler
            without ``nonfinite="skip"``.
        """
        _check(trainer, pl_module)
        self._forget()
        strategy = trainer.strategy
        inner, inner_training_step = pl_module.optimizer_step, strategy.training_step
        self._replay = _Replay(trainer, inner_training_step)

        def optimizer_step(epoch: int, batch_idx: int, optimizer: Any, closure: Callable[[], Any]) -> None:
            self._step(trainer, closure, lambda second: inner(epoch, batch_idx, optimizer, second))

        # here, since all hooks that may replace entries of the batch have run
        def training_step(*arguments: Any) -> Any:
            if not _renews_statistics(trainer):
                self._keep(arguments)
            return inner_training_step(*arguments)

        own, own_training_step = vars(pl_module).get("optimizer_step"), vars(strategy).get("training_step")
        pl_module.optimizer_step, strategy.training_step = optimizer_step, training_step

        def undo() -> None:
            _reset(pl_module, "optimizer_step", own)
            _reset(strategy, "training_step", own_training_step)

        self._undo = undo

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget batches that were not stepped, as Lightning does."""
        self._forget()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the step, if this batch was the last of it."""
        if self._report:
            pl_module.log_dict(self._report)
            self._report = {}
        elif self._batches and outputs:
            self._losses.append(outputs["loss"])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Give the step back to Lightning."""
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Put the weights back, and give the step back to Lightning."""
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, RSAM):
                optimizer.restore()
        self._end()

    # -- a step --------------------------------------------------------------------------------------------------

    def _keep(self, arguments: tuple[Any, ...]) -> None:
        """Keep the arguments of ``training_step`` for the second pass."""
        self._writes.watch(arguments)
        self._batches.append(in_new_containers(arguments))

    def _step(self, trainer: Any, closure: Callable[[], Any], finish: Callable[[Callable[[], Any]], None]) -> None:
        """Ascend, and let Lightning finish the step with a closure for the second pass, or the only one."""
        if _renews_statistics(trainer):
            closure()
            return
        optimizer, batches, losses, replay = trainer.optimizers[0], self._batches, self._losses, self._replay
        writes = self._writes
        assert replay is not None
        ascends, two_passes = optimizer.ascends, optimizer.ascends and needs_gradient(optimizer)
        passes: list[Tensor | None] = []  # their losses

        def first_pass() -> Any:  # on the last batch; the gradients of earlier batches are computed already
            passes.append(_total([*losses, closure()]))
            return passes[-1]

        def again(batches: Sequence[tuple[Any, ...]]) -> Tensor | None:
            writes.note()
            loss = replay.evaluate(batches)
            writes.refuse()
            return loss

        def second_pass() -> Any:
            passes.append(again(batches))
            return passes[-1]

        def only_pass() -> Any:  # at the perturbed weights
            losses[:] = [again(batches)]  # without the last, which comes now
            return first_pass()

        if not ascends:
            finish(first_pass)
        elif not two_passes:
            ascend(optimizer)
            finish(only_pass)
        elif first_pass() is None:  # training_step skips the batch
            finish(lambda: None)
        else:
            ascend(optimizer, _scaler(trainer))
            finish(second_pass)
        optimizer.restore()  # a scaler may have skipped the second half
        self._forget()
        if self._log:
            self._report = _report(optimizer, passes, two_passes=two_passes, ascends=ascends)

    def _forget(self) -> None:
        self._batches, self._losses, self._report, self._writes = [], [], {}, Writes()

    def _end(self) -> None:
        self._forget()
        if self._undo is not None:
            self._undo()
        self._undo = self._replay = None


def _check(trainer: Any, pl_module: Any) -> None:
    if not pl_module.automatic_optimization:
        raise ValueError(
            "SharpnessAware is for automatic optimization; with automatic_optimization=False call first_step() and "
            "step() in training_step, and leave the callback out"
        )
    if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
        raise ValueError(
            "SharpnessAware evaluates each batch twice, and a training_step that takes dataloader_iter draws its own; "
            "let it take batch"
        )
    (optimizer,) = trainer.optimizers
    if not isinstance(optimizer, RSAM):
        raise TypeError(f"configure_optimizers must return an rsam.RSAM, got {type(optimizer).__name__}")
    check_scaler(optimizer, _scaler(trainer))


def _renews_statistics(trainer: Any) -> bool:
    """Tell whether StochasticWeightAveraging only renews batch-norm statistics in this epoch, without steps."""
    return getattr(trainer.fit_loop, "_skip_backward", False)


def _scaler(trainer: Any) -> torch.amp.GradScaler | None:
    return getattr(trainer.precision_plugin, "scaler", None)


class _Replay:
    """Evaluate batches again for their gradients only: nothing is logged, and metrics are copies.

    Parameters
    ----------
    trainer : Trainer
        Trainer whose module evaluates the batches.
    training_step : callable
        That of its strategy.
    """

    def __init__(self, trainer: Any, training_step: Callable[..., Any]) -> None:
        from torchmetrics import Metric, MetricCollection

        kinds = (Metric, MetricCollection)
        self._trainer, self._training_step = trainer, training_step
        self._metrics = [
            (owner, name, metric, metric.clone())
            for owner in trainer.lightning_module.modules()
            if not isinstance(owner, kinds)
            for name, metric in owner.named_children()
            if isinstance(metric, kinds)
        ]

    @torch.enable_grad()
    def evaluate(self, batches: Sequence[tuple[Any, ...]]) -> Tensor | None:
        """Add the gradients of batches, and return their loss."""
        strategy, losses = self._trainer.strategy, []
        with self._unseen():
            for i, arguments in enumerate(batches):
                last = i == len(batches) - 1
                with nullcontext() if last else getattr(strategy, "block_backward_sync", nullcontext)():
                    output = self._training_step(*arguments)
                    loss = output["loss"] if isinstance(output, Mapping) else output
                    if loss is not None:  # a batch that training_step skips
                        loss = loss / self._trainer.accumulate_grad_batches
                        losses.append(loss.detach().clone())
                        strategy.backward(loss, self._trainer.optimizers[0])
        return _total(losses)

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        module = self._trainer.lightning_module
        log = vars(module).get("log")
        module.log = lambda *args, **kwargs: None
        for owner, name, _, copy in self._metrics:
            owner._modules[name] = copy
        try:
            yield
        finally:
            _reset(module, "log", log)
            for owner, name, metric, copy in self._metrics:
                owner._modules[name] = metric
                copy.reset()


def _reset(holder: Any, name: str, value: Any) -> None:
    """Set an attribute of the object again, or leave it to the class if there was none."""
    vars(holder).pop(name, None)
    if value is not None:
        setattr(holder, name, value)


def _total(losses: Sequence[Tensor | None]) -> Tensor | None:
    present = [loss for loss in losses if loss is not None]
    return torch.stack(present).sum() if present else None


def _report(optimizer: RSAM, passes: Sequence[Tensor | None], two_passes: bool, ascends: bool) -> dict[str, Any]:
    """Return what to log, as far as it is known."""
    first, last = passes[0], passes[-1]
    values: dict[str, Any] = {"rsam/loss": first, "rsam/grad_norm": optimizer.grad_norm}
    if first is not None and last is not None and (two_passes or not ascends):
        values["rsam/sharpness"] = last - first
    radii = [float(group["rho"]) for group in optimizer.param_groups]
    for i, rho in enumerate(radii, start=1):
        values["rsam/rho" if len(radii) == 1 else f"rsam/rho/pg{i}"] = rho
    return {name: value for name, value in values.items() if value is not None}
