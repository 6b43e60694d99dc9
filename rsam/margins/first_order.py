"""Measure margins to first order: the difference of two logits, divided by the norm of its gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import geoopt
import torch
from torch import Tensor, nn

from rsam.errors import NotFinite
from rsam.margins.network import INPUT, OUTPUT, Data, Network, full
from rsam.margins.spaces import OnManifold, Space, Subspace, Variation
from rsam.margins.statistics import recorded

__all__ = [
    "Measured",
    "check_classes",
    "check_interaction",
    "difference_of",
    "gradients_of",
    "lowest",
    "margins",
    "measure",
    "spaces_of",
    "total_variations",
]

Nearest = Literal["runner_up", "any"]


def margins(
    model: nn.Module,
    data: Data,
    layers: Sequence[str] = (INPUT,),
    *,
    nearest: Nearest = "runner_up",
    normalize: bool = True,
    manifolds: Mapping[str, geoopt.Manifold] | None = None,
    subspaces: Mapping[str, Tensor] | None = None,
    eps: float = 0.0,
    progressbar: bool = False,
) -> dict[str, Tensor]:
    r"""Measure the margins of all examples at layers of a classifier, to first order.

    The margin of an example with label :math:`y` and representation :math:`h` at a layer is

    .. math:: \frac{f_y - f_j}{\|\nabla_h (f_y - f_j)\|} \Big/ \sqrt{\mathrm{variation}},

    positive if the example is classified correctly, negative if not. The first factor is the distance to the boundary
    between the classes :math:`y` and :math:`j`, exactly if :math:`f_y - f_j` is affine, else to first order. The
    second factor makes the margin independent of the layer's scale (Jiang et al. 2019, eq. 4): the total variation is
    the trace of the covariance of the layer's representations over all of ``data``. The model is evaluated in
    evaluation mode, and not changed.

    Parameters
    ----------
    model : torch.nn.Module
        Classifier that returns logits ``(examples, classes)``, or an object or mapping with ``logits``.
    data : tuple or iterable
        One batch ``(inputs, labels)``, or a loader of such batches, which is read once. Labels are class indices;
        inputs are moved to the model's device.
    layers : sequence of str
        ``"input"``; names of modules in ``model.named_modules()``, for their outputs; or ``"output"``, for the
        undivided difference of logits :math:`f_y - \max_{j \ne y} f_j`.
    nearest : {"runner_up", "any"}
        Class :math:`j`: that of the largest logit except :math:`y`, or that of the smallest quotient, which costs one
        gradient for each class. The latter gives the nearest boundary of a correctly classified example, and the
        farthest one of a wrongly classified example (Elsayed et al. 2018).
    normalize : bool
        Divide by the square root of the total variation.
    manifolds : mapping of str to geoopt.Manifold, optional
        Manifolds of layers whose outputs are points. For these the norm of the gradient is that in the metric, and the
        total variation is the mean squared geodesic distance to the Fréchet mean, which needs all points in memory.
    subspaces : mapping of str to Tensor, optional
        Orthonormal columns for layers, to measure the margin along these directions only, by projecting the gradient
        on them. With those of :func:`principal_components` at the input and ``normalize=False`` it is the constrained
        margin of Mouton et al. (2024) to first order.
    eps : float
        Number added to the squared norm of the gradient, not negative; 1e-6 in the code of Jiang et al.
    progressbar : bool
        Show a bar over the batches.

    Returns
    -------
    dict of str to Tensor
        For each layer a tensor ``(examples,)`` in the order of ``data``, in single precision at least.

    Raises
    ------
    TypeError, ValueError
        For bad options, labels that are no class indices, and outputs that are no logits; for layers that are not
        called exactly once, that the output does not depend on, whose points are off their manifold or do not vary; for
        a model whose output for an example depends on other examples of the batch.
    NotFinite
        If a margin is not finite, for example because the gradient vanishes.
    UnsupportedOperation
        If a manifold has no logarithm, which the total variation needs.

    Notes
    -----
    On the first batch of two examples or more, the outputs for each half of the examples are differentiated in the
    other half, to check that examples do not interact.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    >>> data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]), torch.tensor([0, 0, 0])
    >>> rsam.margins.margins(model, data, normalize=False)  # distances to the line 3 x + 4 y = 0
    {'input': tensor([ 0.6000,  0.8000, -1.4000])}
    """
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must not be negative, and finite, got {eps}")
    network = Network(model, layers)
    spaces = spaces_of(network.layers, manifolds, subspaces)
    variations = {name: space.variation() for name, space in spaces.items()} if normalize else {}
    parts: dict[str, list[Tensor]] = {name: [] for name in network.layers}
    with network.evaluating(data):
        for batch in measure(network, spaces, data, nearest, "margins", progressbar, eps):
            for name, (difference, norm) in batch.margins.items():
                parts[name].append(difference / norm)
            for name, variation in variations.items():
                variation.add(batch.values[name])
        by_layer = {
            name: _finite(name, torch.cat(part) / (_scale(variations[name]) if name in variations else 1))
            for name, part in parts.items()
        }
    return recorded(by_layer, manifolds, subspaces, nearest=nearest, normalize=bool(normalize), eps=float(eps))


def total_variations(
    model: nn.Module,
    data: Data,
    layers: Sequence[str] = (INPUT,),
    *,
    manifolds: Mapping[str, geoopt.Manifold] | None = None,
    progressbar: bool = False,
) -> dict[str, Tensor]:
    """Measure the total variations of representations at layers; :func:`margins` divides by their square roots.

    Parameters
    ----------
    model, data, layers : as for :func:`margins`
        The network, its data, and the layers, without ``"output"``.
    manifolds : as for :func:`margins`
        Manifolds of layers.
    progressbar : bool
        Show a bar over the batches.

    Returns
    -------
    dict of str to Tensor
        Scalars.

    Raises
    ------
    TypeError, ValueError, NotFinite, UnsupportedOperation
        As :func:`margins`.

    Examples
    --------
    >>> import torch, rsam
    >>> data = torch.tensor([[1.0, 0.0], [-1.0, 2.0]]), torch.tensor([0, 1])
    >>> rsam.margins.total_variations(torch.nn.Linear(2, 2), data)
    {'input': tensor(2.)}
    """
    network = Network(model, layers)
    if OUTPUT in network.layers:
        raise ValueError("layer 'output' has margins without a total variation; name the last module instead")
    spaces = spaces_of(network.layers, manifolds, None)
    variations = {name: space.variation() for name, space in spaces.items()}
    with network.evaluating(data), torch.no_grad():
        for inputs, labels in network.batches(data, "total variations", progressbar):
            _, values = network.run(inputs)
            for name, space in spaces.items():
                space.check(values[name], len(labels))
                variations[name].add(values[name])
        return {name: _total(variation) for name, variation in variations.items()}


class Measured(NamedTuple):
    """Labels, values and margins of the examples of a batch at each layer."""

    labels: Tensor
    values: dict[str, Tensor]
    margins: dict[str, tuple[Tensor, Tensor]]  # differences of logits, and the norms of their gradients


def measure(
    network: Network,
    spaces: Mapping[str, Space],
    data: Data,
    nearest: Nearest,
    name: str,
    progressbar: bool,
    eps: float = 0.0,
) -> Iterator[Measured]:
    """Yield differences of logits and the norms of their gradients, whose squares ``eps`` is added to, by batches."""
    if nearest not in ("runner_up", "any"):
        raise ValueError(f"nearest must be 'runner_up' or 'any', got {nearest!r}")
    checked = False
    for inputs, targets in network.batches(data, name, progressbar):
        logits, values = network.run(inputs)
        labels = check_classes(targets, logits)
        for layer, space in spaces.items():
            space.check(values[layer], len(labels))
        differences = difference_of(logits, labels)
        if not checked and len(labels) > 1 and values:  # none at the output of a model of integers
            check_interaction(differences, labels, values)
            checked = True
        values_of = {layer: values[layer] for layer in spaces}
        by_layer = _margins(differences, labels, values_of, spaces, nearest, eps) if spaces else {}
        runner_up = lowest(differences, labels)[0].detach()
        by_layer[OUTPUT] = (runner_up, torch.ones_like(runner_up))
        representations = {layer: value.detach() for layer, value in values_of.items()}
        yield Measured(labels, representations, {layer: by_layer[layer] for layer in network.layers})


def spaces_of(
    layers: Sequence[str],
    manifolds: Mapping[str, geoopt.Manifold] | None,
    subspaces: Mapping[str, Tensor] | None,
) -> dict[str, Space]:
    """Return the spaces of layers other than the output."""
    manifolds, subspaces = manifolds or {}, subspaces or {}
    for argument, named in (("manifolds", manifolds), ("subspaces", subspaces)):
        for name in named:
            if name not in layers or name == OUTPUT:
                raise ValueError(f"{argument} names the layer {name!r}, which is not one of layers {list(layers)}")
    for name in manifolds.keys() & subspaces.keys():
        raise ValueError(f"layer {name!r} has a manifold, so that it cannot have a subspace as well")
    spaces: dict[str, Space] = {}
    for name in layers:
        if name in manifolds:
            spaces[name] = OnManifold(name, manifolds[name])
        elif name in subspaces:
            spaces[name] = Subspace(name, subspaces[name])
        elif name != OUTPUT:
            spaces[name] = Space(name)
    return spaces


def check_classes(labels: Tensor, logits: Tensor) -> Tensor:
    """Return the labels of a batch on the device of its logits, after checking their number and their classes."""
    count, classes = logits.shape
    if len(labels) != count:
        raise ValueError(f"model returned logits for {count} examples, but the batch has {len(labels)} labels")
    labels = labels.to(logits.device).long()
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise ValueError(
            f"labels must be class indices from 0 to {classes - 1}, got {int(labels[wrong][0])}; leave out examples "
            "without a class"
        )
    return labels


def difference_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``f_y - f_j`` for every class ``j``, in single precision at least."""
    logits = full(logits)
    return logits.gather(1, labels[:, None]) - logits


def lowest(differences: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest difference to another class, and that class."""
    others = differences.detach().scatter(1, labels[:, None], torch.inf)
    classes = others.argmin(1)
    return differences.gather(1, classes[:, None]).squeeze(1), classes


def _margins(
    differences: Tensor,
    labels: Tensor,
    values: dict[str, Tensor],
    spaces: Mapping[str, Space],
    nearest: Nearest,
    eps: float,
) -> dict[str, tuple[Tensor, Tensor]]:
    def norm(name: str, gradient: Tensor) -> Tensor:
        # detached, since a manifold may learn its curvature
        plain = spaces[name].dual_norm(values[name].detach(), gradient).detach()
        return torch.hypot(plain, torch.full_like(plain, eps**0.5)) if eps else plain

    if nearest == "runner_up":
        difference, _ = lowest(differences, labels)
        gradients = gradients_of(difference.sum(), values, retain_graph=False)
        return {n: (difference.detach(), norm(n, g)) for n, g in gradients.items()}
    best: dict[str, tuple[Tensor, Tensor]] = {}
    for j in range(differences.shape[1]):
        difference = differences[:, j]
        gradients = gradients_of(difference.sum(), values, retain_graph=j + 1 < differences.shape[1])
        for n, g in gradients.items():
            new = difference.detach(), norm(n, g)
            old = best.setdefault(n, (torch.full_like(new[0], torch.inf), torch.ones_like(new[1])))
            quotient = old[0] / old[1]
            nearer = (labels != j) & ~(new[0] / new[1] >= quotient) & ~quotient.isnan()  # NaN stays NaN
            best[n] = torch.where(nearer, new[0], old[0]), torch.where(nearer, new[1], old[1])
    return best


def gradients_of(total: Tensor, values: dict[str, Tensor], retain_graph: bool) -> dict[str, Tensor]:
    """Return gradients in the layers' values; in that of a sum over examples, each row belongs to one example."""
    gradients = torch.autograd.grad(total, list(values.values()), retain_graph=retain_graph, allow_unused=True)
    for name, gradient in zip(values, gradients, strict=True):
        if gradient is None:
            raise ValueError(
                f"the output has no gradient in layer {name!r}: it does not depend on it, or the model computes a part "
                "behind it within no_grad, detached or compiled; leave the layer out, or name one behind that part"
            )
    return dict(zip(values, gradients, strict=True))


def check_interaction(differences: Tensor, labels: Tensor, values: dict[str, Tensor]) -> None:
    """Raise if outputs for one half of the batch depend on examples of the other.

    The halves are those of the Thue-Morse sequence, which no shift maps to themselves, such as by half a batch.
    """
    half = torch.tensor([i.bit_count() % 2 == 0 for i in range(len(labels))], device=differences.device)
    weights = torch.arange(1, len(labels) + 1, device=differences.device).to(differences.dtype).sqrt()
    difference = weights * lowest(differences, labels)[0]  # without weights those of f_1 - f_2 and f_2 - f_1 may cancel
    for part in (half, ~half):
        total = difference[part].sum()
        gradients = torch.autograd.grad(total, list(values.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(values, gradients, strict=True):
            if gradient is None or len(gradient) != len(labels):
                continue
            others, all_ = (full(g.abs()).amax() for g in (gradient[~part], gradient))
            if others > torch.finfo(gradient.dtype).eps * all_:
                raise ValueError(
                    f"the output for an example depends on layer {name!r} of other examples of the batch, so that an "
                    "example has no margin of its own; batch norm without running statistics does this in evaluation "
                    "mode"
                )


def _total(variation: Variation) -> Tensor:
    total = variation.total()
    if not torch.isfinite(total):
        raise NotFinite(f"the representations at layer {variation.layer!r} are not finite, or their squares overflow")
    return total


def _scale(variation: Variation) -> Tensor:
    total = _total(variation)
    if not total > 0:
        raise ValueError(
            f"all {variation.count} examples have the same representation at layer {variation.layer!r}, so that it has "
            "no variation to divide by; pass more examples or normalize=False"
        )
    return total.sqrt()


def _finite(layer: str, values: Tensor) -> Tensor:
    wrong = ~torch.isfinite(values)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise NotFinite(
            f"{int(wrong.sum())} of {len(values)} margins at layer {layer!r} are not finite (first: example {first}): "
            "there the logits or their gradient are not finite, or their gradient vanishes; for the latter, leave the "
            "layer or these examples out, or pass eps"
        )
    return values
