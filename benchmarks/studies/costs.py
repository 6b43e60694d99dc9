"""Predict how long networks on samples take, for the hours that are printed beforehand."""

from __future__ import annotations

from benchmarks.methods import METHODS
from benchmarks.run import Run
from benchmarks.workloads.samples import VALIDATION, as_samples

__all__ = ["seconds"]

#: Time that one example takes, as a multiple of an image of Fashion-MNIST.
_EXAMPLE = {"imagefolder:cifar10": 1.35, "mnist1d_anew": 0.2}


def seconds(run: Run, evaluations: int = 1, held_out: int = VALIDATION) -> float:
    """Predict the processor time of a run, as measured on one core of a two-core machine.

    Parameters
    ----------
    run : Run
        On a workload :class:`~benchmarks.workloads.samples.Samples`.
    evaluations : int
        How often the network is scored.
    held_out : int
        On how many examples, beside those trained on.
    """
    workload = as_samples(run.workload)
    width, depth = workload.width, workload.depth
    # milliseconds of a gradient evaluation: of the step whatever its batch, and of one example; later blocks are small
    step, example = depth, _EXAMPLE.get(workload.dataset, 1.0) * (0.04 * width + 0.028 * width**2) * (0.35 * depth)
    ascent = (METHODS[run.method].gradients - 1) * (1 - run.late) * run.part / run.every
    steps = run.epochs * (workload.examples // workload.batch_size) * (1 + ascent)
    stiefel = 1.15 if workload.kernels == "stiefel" else 1.0
    scored = evaluations * (held_out + workload.examples) * example / 3  # without a backward pass
    return (stiefel * steps * (step + example * workload.batch_size) + scored + 100) / 1000
