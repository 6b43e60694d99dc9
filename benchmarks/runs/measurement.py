"""Curvature around the weights of a trained network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import rsam
from benchmarks.data import Dataset

__all__ = ["EXAMPLES", "MEASURES", "measure"]

EXAMPLES = 500
PROBES = 20
#: m-sharpness: radius in the metric, and examples that share a perturbation.
RHO, MICRO_BATCH = 0.05, 50

#: Names and labels of what is measured.
MEASURES = {
    "gradient_norm": "gradient norm",
    "trace": "Hessian trace",
    "top_eigenvalue": "top eigenvalue",
    "sharpness": "m-sharpness",
    "distance": "distance moved",
}


def measure(model: nn.Module, data: Dataset, start: list[Tensor], seed: int) -> dict[str, float]:
    """Measure the training loss around the weights, in the metric of their manifolds.

    In evaluation mode, on training examples with the labels that were trained on: the gradient norm on all, the rest
    on 500 that are drawn once a seed, so that methods are paired. The trace is Hutchinson's with 20 probes; m-sharpness
    has a radius of 0.05 and pieces of 50 examples; the distance is that in the ambient space from the first weights.

    Parameters
    ----------
    model : torch.nn.Module
        Trained.
    data : Dataset
        What it was trained on.
    start : list of Tensor
        Its parameters before training, on their manifolds already.
    seed : int
        Of the examples and the probes.

    Returns
    -------
    dict of str to float
        By the keys of :data:`MEASURES`, and ``trace_error``, the standard error of the trace.
    """
    model.eval()
    params = list(model.parameters())
    chosen = torch.from_numpy(np.random.default_rng([seed, 3]).permutation(len(data.train_labels))[:EXAMPLES])
    batch = data.train_images[chosen], data.train_labels[chosen]
    everything = zip(data.train_images.split(EXAMPLES), data.train_labels.split(EXAMPLES), strict=True)
    loss = nn.CrossEntropyLoss()
    hessian = rsam.curvature.RiemannianHessian(model, loss, params, batch)
    trace = rsam.curvature.trace(hessian, PROBES, seed=seed)
    top = rsam.curvature.top_eigenvalues(hessian, rtol=1e-2, seed=seed)
    sharpness = rsam.curvature.sharpness(model, loss, params, batch, RHO, micro_batch=MICRO_BATCH, seed=seed)
    moved = torch._foreach_norm(torch._foreach_sub([p.detach() for p in params], start))
    return {
        "gradient_norm": rsam.curvature.gradient_norm(model, loss, params, list(everything)),
        "trace": float(trace),
        "trace_error": trace.standard_error,
        "top_eigenvalue": float(top.values[0]),
        "sharpness": float(sharpness),
        "distance": float(torch.stack(list(moved)).norm()),
    }
