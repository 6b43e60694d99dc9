"""Normalise margins by the k-variance, an optimal transport cost between samples of a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from rsam.errors import NotFinite
from rsam.evaluation.parameters import as_integer
from rsam.margins.first_order import measure, spaces_of
from rsam.margins.network import OUTPUT, Data, Network, full, rows
from rsam.margins.spaces import common_shape
from rsam.margins.statistics import recorded

__all__ = ["k_variance", "kv_margins"]


def k_variance(features: Tensor, k: int | None = None, *, repeats: int = 1, seed: int = 0) -> float:
    r"""Estimate the k-variance of a distribution from examples.

    The k-variance is the expected Wasserstein-1 distance between two independent samples of size ``k``,
    :math:`\mathbb{E}\, W_1(\hat\mu_S, \hat\mu_{S'})`, as defined by Chuang et al. (2021), without the factor in k of
    Solomon et al. (2022). It falls with ``k``, faster if the distribution is concentrated on few clusters. For samples
    of equal size the distance is the least mean distance over all ways to pair their points.

    Parameters
    ----------
    features : Tensor
        Examples ``(n, ...)``, flattened.
    k : int, optional
        Size of each sample, at most ``n // 2``, the default.
    repeats : int
        Number of pairs of disjoint random samples to average over. The cost of each pair is of order :math:`k^3`.
    seed : int
        Source of the samples.

    Returns
    -------
    float
        Mean distance, not negative; 0 where it is within the rounding of equal examples.

    Raises
    ------
    ValueError
        For fewer than two examples, and bad ``k``, ``repeats`` or ``seed``.
    NotFinite
        If features are not finite.

    Examples
    --------
    >>> import torch, rsam
    >>> rsam.margins.k_variance(torch.tensor([[0.0], [3.0]]))
    3.0
    """
    count = len(features)
    k = count // 2 if k is None else as_integer("k", k)
    repeats, seed = as_integer("repeats", repeats, 1), as_integer("seed", seed, 0)
    if not 1 <= k <= count // 2:
        raise ValueError(f"k must be from 1 to half the number of examples, got k={k} for {count}")
    x = rows(full(features.detach()))
    if not torch.isfinite(x).all():
        raise NotFinite("features are not finite")
    random = np.random.default_rng(seed)
    mean = sum(_wasserstein(x, random.permutation(count), k) for _ in range(repeats)) / repeats
    rounding = 4 * torch.finfo(x.dtype).eps * float(torch.linalg.vector_norm(x, dim=1).max())
    return mean if mean > rounding else 0.0


def _wasserstein(x: Tensor, order: np.ndarray, k: int) -> float:
    first, second = (x[torch.as_tensor(part, device=x.device)] for part in (order[:k], order[k : 2 * k]))
    # by differences, since products of large numbers would nearly cancel
    costs = torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").double().cpu().numpy()
    return float(costs[linear_sum_assignment(costs)].mean())


def kv_margins(
    model: nn.Module,
    data: Data,
    layers: Sequence[str],
    *,
    gradient_normalized: bool = False,
    k: int | None = None,
    repeats: int = 1,
    seed: int = 0,
    progressbar: bool = False,
) -> dict[str, Tensor]:
    r"""Measure margins normalised by the k-variance of the classes at a layer (Chuang et al. 2021).

    The kV-margin is :math:`(f_y - \max_{j \ne y} f_j) \big/ \sum_c p_c V_c L_c`. Here :math:`p_c` is the share of class
    :math:`c`, and :math:`V_c` the :func:`k_variance` of its representations at the layer. :math:`L_c` stands for a
    Lipschitz constant: the largest norm of the gradient of the numerator over its examples. The gradient-normalised
    margin, kV-GN, divides the first-order margin of each example by :math:`\sum_c p_c V_c` instead. The paper ranks
    networks by the median over the training data.

    Parameters
    ----------
    model, data, layers : as for :func:`margins`
        The network, its data, and the layers. The representations of all of ``data`` are kept in memory, so pass a
        random part of the training data (the authors use 200 examples for each class).
    gradient_normalized : bool
        Whether to measure kV-GN rather than kV.
    k, repeats, seed : as for :func:`k_variance`
        Size, number and source of the samples; by default ``k`` is half the number of examples in the class.
    progressbar : bool
        Show a bar over the batches.

    Returns
    -------
    dict of str to Tensor
        For each layer a tensor ``(examples,)``, in the order of ``data``.

    Raises
    ------
    TypeError, ValueError, NotFinite
        As :func:`margins`, and for a class with too few examples.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> data = torch.randn(40, 2), torch.arange(40) % 2
    >>> rsam.margins.kv_margins(model, data, ["input", "0"])["0"].shape
    torch.Size([40])
    """
    network = Network(model, layers)
    if OUTPUT in network.layers:
        raise ValueError("layer 'output' has no gradient to normalise by; name the last module instead")
    k = None if k is None else as_integer("k", k)
    spaces = spaces_of(network.layers, None, None)
    with network.evaluating(data):
        batches = list(measure(network, spaces, data, "runner_up", "kV-margins", progressbar))
    labels = torch.cat([batch.labels for batch in batches])
    result = {}
    for name in network.layers:
        difference, norm = (torch.cat([batch.margins[name][i] for batch in batches]) for i in range(2))
        parts = [batch.values[name] for batch in batches]
        for part in parts:
            common_shape(name, parts[0].shape[1:], part)
        features = torch.cat(parts)
        scale = difference.new_zeros(())
        for c in labels.unique().tolist():
            of_class = labels == c
            if of_class.sum() < 2 * (k or 1):
                raise ValueError(f"class {c} has {int(of_class.sum())} examples, too few for two samples of {k or 1}")
            variance = k_variance(features[of_class], k, repeats=repeats, seed=seed)
            lipschitz = 1.0 if gradient_normalized else norm[of_class].max()
            scale = scale + of_class.to(scale.dtype).mean() * variance * lipschitz
        values = (difference / norm if gradient_normalized else difference) / scale
        if not torch.isfinite(values).all():
            raise NotFinite(
                f"kV-margins at layer {name!r} are not finite: logits are not, a gradient vanishes, or all examples of "
                "each class have the same representation"
            )
        result[name] = values
    return recorded(result, None, None, gradient_normalized=bool(gradient_normalized), k=k, repeats=repeats)
