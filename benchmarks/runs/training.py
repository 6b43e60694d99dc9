"""Training one network as a run says."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.data import DATASETS, Dataset, hold_out_validation, with_label_noise
from benchmarks.methods import METHODS
from benchmarks.models import MODELS
from benchmarks.runs.configuration import Run
from benchmarks.runs.results import Row

VALIDATION_FRACTION = 0.2


def train(run: Run) -> Row:
    """Train on one thread; the same run gives the same row on the same machine, but for the time it took.

    Parameters
    ----------
    run : Run
        What to train, how and on what.

    Returns
    -------
    Row
        Its results.
    """
    row, _ = train_model(run)
    return row


def train_model(run: Run) -> tuple[Row, nn.Module]:
    """Train as :func:`train` does, and return the trained network too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(run)
    finally:
        torch.set_num_threads(threads)


def prepare(run: Run) -> tuple[Dataset, nn.Module, torch.optim.Optimizer]:
    """Data, initial network and optimizer of a run."""
    data = with_label_noise(DATASETS[run.dataset](), run.label_noise, run.seed)
    if run.heldout == "validation":
        data = hold_out_validation(data, VALIDATION_FRACTION, run.seed)
    torch.manual_seed(run.seed)
    model = MODELS[run.model](data.train_images.shape[1], data.classes)
    return data, model, METHODS[run.method].build(model, run)


def _train(run: Run) -> tuple[Row, nn.Module]:
    data, model, optimizer = prepare(run)
    steps = len(data.train_labels) // run.batch_size
    if steps == 0:
        raise ValueError(f"batch_size {run.batch_size} exceeds the {len(data.train_labels)} training examples")
    schedule = CosineAnnealingLR(optimizer, T_max=run.epochs * steps)
    order = np.random.default_rng([run.seed, 0])  # 1 and 2 are label noise and validation split
    times: list[float] = []
    train_loss, train_accuracy, heldout_accuracy = [], [], []
    for _ in range(run.epochs):
        model.train()
        shuffled = torch.from_numpy(order.permutation(len(data.train_labels)))
        # batch norm has no use for the few examples that are left over
        for batch in shuffled[: steps * run.batch_size].split(run.batch_size):
            closure = gradient_closure(model, optimizer, data.train_images[batch], data.train_labels[batch])
            start = time.perf_counter()
            optimizer.step(closure)  # type: ignore[arg-type]  # torch's annotation wants a float
            times.append(time.perf_counter() - start)
            schedule.step()
        loss, accuracy = evaluate(model, data.train_images, data.train_labels)
        train_loss.append(loss)
        train_accuracy.append(accuracy)
        heldout_accuracy.append(evaluate(model, data.heldout_images, data.heldout_labels)[1])
    row = Row(
        run=run,
        epochs=run.epochs,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        heldout_accuracy=heldout_accuracy,
        final_train_accuracy=train_accuracy[-1],
        final_heldout_accuracy=heldout_accuracy[-1],
        seconds_per_step=statistics.median(times),
        torch_version=torch.__version__,
    )
    return row, model


def gradient_closure(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> Callable[[], Tensor]:
    """Gradients and loss on a batch, as a closure for ``optimizer.step``: methods differ in how often they call it."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        return loss

    return closure


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in evaluation mode."""
    model.eval()
    logits = torch.cat([model(batch) for batch in images.split(batch_size)])
    accuracy = (logits.argmax(1) == labels).double().mean()
    return float(cross_entropy(logits, labels)), float(accuracy)
