"""Training one network as a run says."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.data import Dataset, hold_out_validation, load, with_label_noise
from benchmarks.data.augmentation import shift_and_mirror
from benchmarks.machine import alone, device, device_name
from benchmarks.methods import METHODS
from benchmarks.runs.configuration import Run
from benchmarks.runs.measurement import measure
from benchmarks.runs.results import Row
from benchmarks.runs.steps import gradient_closure, take_step
from benchmarks.workloads.networks import MODELS

VALIDATION_FRACTION = 0.2


def train(run: Run, weights: Path | None = None) -> Row:
    """Train on one thread, or on a GPU; the same run gives the same row on the same machine, but for the time it took.

    Parameters
    ----------
    run : Run
        What to train, how and on what.
    weights : Path, optional
        Directory where the ``state_dict`` of a network that is measured on test data is kept, as ``KEY.pt``.

    Returns
    -------
    Row
        Its results.
    """
    row, model = train_model(run)
    if weights is not None and run.heldout == "test":
        weights.mkdir(parents=True, exist_ok=True)
        part = weights / f"{run.key}.part"
        torch.save(model.state_dict(), part)
        os.replace(part, weights / f"{run.key}.pt")  # whole or not at all
    return row


def train_model(run: Run) -> tuple[Row, nn.Module]:
    """Train as :func:`train` does, and return the trained network too."""
    with alone():
        return _train(run)


def prepare(run: Run) -> tuple[Dataset, nn.Module, torch.optim.Optimizer]:
    """Data, initial network and optimizer of a run, on the GPU if there is one."""
    data = with_label_noise(load(run.dataset).subset(run.examples), run.label_noise, run.seed)
    if run.heldout == "validation":
        data = hold_out_validation(data, VALIDATION_FRACTION, run.seed)
    torch.manual_seed(run.seed)
    model = MODELS[run.model](data.shape, data.classes).to(device())
    return data.to(device()), model, METHODS[run.method].build(model, run)


def _train(run: Run) -> tuple[Row, nn.Module]:
    began = time.perf_counter()
    data, model, optimizer = prepare(run)
    steps = len(data.train_labels) // run.batch_size
    if steps == 0:
        raise ValueError(f"batch_size {run.batch_size} exceeds the {len(data.train_labels)} training examples")
    start = [p.detach().clone() for p in model.parameters()]
    objective = METHODS[run.method].objective(model, run)
    schedule = CosineAnnealingLR(optimizer, T_max=run.epochs * steps)
    order = np.random.default_rng([run.seed, 0])  # 1 to 3 are label noise, validation split, measured examples
    augmentation = np.random.default_rng([run.seed, 4])
    times: list[float] = []
    train_loss, train_accuracy, heldout_accuracy = [], [], []
    diverged = False
    for epoch in range(1, run.epochs + 1):
        model.train()
        shuffled = torch.from_numpy(order.permutation(len(data.train_labels)))
        # batch norm has no use for the few examples that are left over
        for batch in shuffled[: steps * run.batch_size].split(run.batch_size):
            images = data.train_images[batch]
            images = shift_and_mirror(images, augmentation) if run.augment else images
            closure = gradient_closure(model, optimizer, images, data.train_labels[batch], objective)
            before = time.perf_counter()
            diverged = take_step(optimizer, closure) is None
            times.append(time.perf_counter() - before)
            if diverged:
                break
            schedule.step()
        if run.curves or diverged or epoch == run.epochs:
            loss, accuracy = evaluate(model, data.train_images, data.train_labels)
            train_loss.append(loss)
            train_accuracy.append(accuracy)
            heldout_accuracy.append(evaluate(model, data.heldout_images, data.heldout_labels)[1])
        if diverged:
            break
    curvature = measure(model, data, start, run.seed) if run.curvature and not diverged else {}
    row = Row(
        run=run,
        epochs=epoch,
        diverged=diverged,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        heldout_accuracy=heldout_accuracy,
        final_train_loss=train_loss[-1],
        final_train_accuracy=train_accuracy[-1],
        final_heldout_accuracy=heldout_accuracy[-1],
        curvature=curvature,
        gradients=len(times) * METHODS[run.method].gradients,
        seconds_per_step=statistics.median(times),
        seconds=time.perf_counter() - began,
        device=device_name(),
        torch_version=torch.__version__,
    )
    return row, model


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in evaluation mode."""
    model.eval()
    logits = torch.cat([model(batch) for batch in images.split(batch_size)])
    accuracy = (logits.argmax(1) == labels).double().mean()
    return float(cross_entropy(logits, labels)), float(accuracy)
