"""What is measured of a network of the population while it is trained."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.data.augmentation import shift, shift_and_mirror
from benchmarks.machine import device
from benchmarks.runs.numbers import or_none, rounded
from benchmarks.studies.population.rescaling import filters, on_spheres
from benchmarks.workloads.chains import Chains
from benchmarks.workloads.networks.chain import middle
from benchmarks.workloads.scoring import accuracy, logits
from benchmarks.workloads.subsets import Sets

__all__ = ["LAYERS", "STATISTICS", "Checkpoint", "Followed", "layers_of", "measure"]

#: Training examples on which margins are measured, and those of them for curvature.
MARGINS, CURVATURE = 1000, 400
#: Inputs without labels on which networks are asked how sure they are, and compared with their twins.
UNLABELLED = 1000
#: Principal components of the inputs for constrained margins.
RANK = 8
#: Radii of m-sharpness, in the metric and relative to the weights, and examples that share a perturbation.
RHO, RELATIVE_RHO, MICRO_BATCH = 0.05, 0.5, 50
#: Products for traces: of the filters on spheres, whose trace decides C4, and of the others. XTrace has half the error
#: of as many of Hutchinson's probes here, where few eigenvalues dominate.
PRODUCTS, FEWER = 32, 16

#: Where margins are measured.
LAYERS = ("input", "first", "middle", "last", "output")
#: What is kept of each distribution of margins: of the margins themselves, and of the logarithms of the positive ones.
STATISTICS = tuple(
    f"{log}{name}"
    for log in ("", "log ")
    for name in ("Q1", "median", "Q3", "mean", "standard deviation", "skewness", "kurtosis")
)


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a network at one time of its training.

    Attributes
    ----------
    fraction : float
        Part of the training that is done.
    levels : tuple of float
        Training losses that it has just fallen below, for the first time.
    scores : dict of str to float
        Loss and accuracy on training data (labels as trained on) and on test data.
    margins : dict of str to list of float
        By layer, and ``"constrained"`` of the input: :data:`STATISTICS`; None for what does not exist.
    others : dict of str to float
        Norms of the weights, k-variance margins, accuracy on mixtures of training examples and on moved ones, the mean
        probability of the likeliest class of inputs without labels, and the sum of the losses of all batches so far.
    curvature : dict of str to float
        At levels and at the end.
    predictions : str
        Classes of inputs without labels, a digit each, at some times.
    """

    fraction: float
    levels: tuple[float, ...]
    scores: dict[str, float]
    margins: dict[str, list[float | None]]
    others: dict[str, float | None]
    curvature: dict[str, float | None] = field(default_factory=dict)
    predictions: str = ""


@dataclass(frozen=True)
class Followed:
    """A network in training.

    Attributes
    ----------
    workload : Chains
        What it is trained on.
    model : torch.nn.Module
        As it is now.
    start : list of Tensor
        Its first parameters.
    """

    workload: Chains
    model: nn.Module
    start: list[Tensor]

    @property
    def sets(self) -> Sets:
        """Training and test data."""
        return self.workload.sets()

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        """The training examples on which margins are measured; they have been drawn already."""
        data = self.sets.data
        return data.train_images[:MARGINS], data.train_labels[:MARGINS]

    def loss(self) -> float:
        """Return the loss on these examples, in evaluation mode."""
        inputs, labels = self.batch
        return float(cross_entropy(logits(self.model, inputs), labels))

    def plain(self) -> nn.Sequential:
        """Copy the network with plain weights."""
        with torch.random.fork_rng(devices=[]):  # dropout goes on as if nothing had been measured
            network = self.workload.network()
        network.load_state_dict(self.model.state_dict())
        return network.eval()


def layers_of(workload: Chains) -> dict[str, str]:
    """Name the modules of :data:`LAYERS`."""
    blocks = (1, middle(workload.depth), workload.depth)
    return {"input": "input", **{n: f"block{i}" for n, i in zip(LAYERS[1:4], blocks, strict=True)}, "output": "output"}


def measure(
    followed: Followed,
    fraction: float,
    levels: Sequence[float],
    losses: dict[str, float],
    *,
    curvature: bool,
    predict: bool,
) -> Checkpoint:
    """Measure a network as it is, and leave it so; ``losses`` are kept beside what is measured."""
    plain = followed.plain()
    return Checkpoint(
        fraction=fraction,
        levels=tuple(levels),
        scores=rounded(_scores(followed)),
        margins={name: _statistics(m) for name, m in _margins(followed, plain).items()},
        others=rounded(_others(followed, plain) | losses),
        curvature=rounded(_curvature(followed, plain)) if curvature else {},
        predictions=_predictions(followed) if predict else "",
    )


def _scores(followed: Followed) -> dict[str, float]:
    found, data = {}, followed.sets.data
    for part, inputs, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.heldout_images, data.heldout_labels),
    ):
        outputs = logits(followed.model, inputs)
        found[f"{part}_loss"] = float(cross_entropy(outputs, labels))
        found[f"{part}_accuracy"] = accuracy(outputs, labels)
    return found


def _predictions(followed: Followed) -> str:
    classes = logits(followed.model, followed.sets.unlabelled[:UNLABELLED]).argmax(1)
    return "".join(map(str, classes.tolist()))


# -- margins ---------------------------------------------------------------------------------------------------------


def _margins(followed: Followed, plain: nn.Sequential) -> dict[str, Tensor | None]:
    names = layers_of(followed.workload)
    options: dict[str, Any] = {"eps": 1e-6}  # as Jiang et al.: gradients of some examples vanish
    found = or_none(rsam.margins.margins, plain, followed.batch, list(dict.fromkeys(names.values())), **options)
    directions = {"input": _directions(followed.workload.dataset, followed.workload.examples)}
    constrained = or_none(rsam.margins.margins, plain, followed.batch, subspaces=directions, normalize=False, **options)
    by_layer: dict[str, Tensor | None] = {layer: found and found[name] for layer, name in names.items()}
    return by_layer | {"constrained": constrained and constrained["input"]}


@functools.lru_cache(maxsize=2)
def _directions(dataset: str, examples: int) -> Tensor:
    """Return the leading principal components of the training inputs, as columns."""
    data = Chains(dataset, examples, 1, 1, False, 0.0, 1, False).sets().data
    batches = zip(data.train_images.split(500), data.train_labels.split(500), strict=True)
    with torch.random.fork_rng(devices=[]):
        classes = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(data.shape), data.classes)).to(device())
    return rsam.margins.principal_components(classes, batches, RANK).directions


def _statistics(margins: Tensor | None) -> list[float | None]:
    """Summarise margins by :data:`STATISTICS`."""
    found: list[float | None] = []
    for log in (None, "drop"):
        for kind, size in (("quartiles", 3), ("moments", 4)):
            one = margins is not None and or_none(rsam.margins.statistics, margins, kind, log=log)
            found += list(one.values) if one else [None] * size
    return list(rounded(dict(enumerate(found))).values())


# -- norms and what else is cheap --------------------------------------------------------------------------------------


@torch.no_grad()
def _norms(followed: Followed, plain: nn.Sequential) -> dict[str, float | None]:
    example = followed.batch[0][:1]
    spectral = or_none(rsam.margins.spectral_norms, plain, example)
    path = or_none(rsam.margins.path_norm, plain, example)
    moved = torch._foreach_norm([p - q for p, q in zip(followed.model.parameters(), followed.start, strict=True)])
    weights = torch._foreach_norm(list(plain.parameters()))
    return {
        "log_spectral": spectral and float(sum(torch.log(n) for n in spectral.values())),
        "log_path": path and float(path.log()),
        "norm": float(torch.stack(list(weights)).norm()),
        "distance": float(torch.stack(list(moved)).norm()),
    }


def _others(followed: Followed, plain: nn.Sequential) -> dict[str, float | None]:
    layers = {"input": "input", "last": layers_of(followed.workload)["last"]}
    kv = or_none(rsam.margins.kv_margins, plain, followed.batch, list(layers.values()))
    found: dict[str, float | None] = {f"kv_{layer}": kv and float(kv[name].median()) for layer, name in layers.items()}
    inputs, labels = followed.batch
    for name, (examples, classes) in (
        ("mixup", _mixed(inputs, labels)),
        ("moved", ((shift_and_mirror if inputs.dim() == 4 else shift)(inputs, np.random.default_rng(0)), labels)),
    ):
        outputs = logits(plain, examples)
        found[f"{name}_accuracy"] = accuracy(outputs, classes)
        found[f"{name}_loss"] = float(cross_entropy(outputs, classes))
    unlabelled = logits(plain, followed.sets.unlabelled[:UNLABELLED])
    found["confidence"] = float(unlabelled.softmax(1).amax(1).mean()) if len(unlabelled) else None
    return _norms(followed, plain) | found


def _mixed(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Average each example with the next one of its class."""
    parts = [(inputs[labels == c], c) for c in labels.unique()]
    mixed = torch.cat([(part + part.roll(1, 0)) / 2 for part, _ in parts])
    return mixed, torch.cat([c.expand(len(part)) for part, c in parts])


# -- curvature -------------------------------------------------------------------------------------------------------


class _Scaled(rsam.curvature.LinearOperator):
    """A symmetric operator between products with positive numbers, one for each coordinate."""

    SELF_ADJOINT = True

    def __init__(self, operator: rsam.curvature.LinearOperator, factors: list[Tensor]) -> None:
        super().__init__(operator._in_shape, operator._out_shape)
        self.operator, self.factors = operator, [f.unsqueeze(-1) for f in factors]

    @property
    def device(self) -> torch.device:
        return self.operator.device

    @property
    def dtype(self) -> torch.dtype:
        return self.operator.dtype

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        product = self.operator._matmat([f * x for f, x in zip(self.factors, X, strict=True)])
        return [f * x for f, x in zip(self.factors, product, strict=True)]


def _curvature(followed: Followed, plain: nn.Sequential) -> dict[str, float | None]:
    """Measure curvature around plain weights, relative to their sizes, and with filters on spheres.

    The latter speaks of the filters only: it does not change where filters and layers are rescaled without a change
    of the function.
    """
    inputs, labels = (part[:CURVATURE] for part in followed.batch)
    spherical = on_spheres(plain).eval()
    weights = list(plain.parameters())
    hessian = rsam.curvature.RiemannianHessian(plain, nn.CrossEntropyLoss(), weights, (inputs, labels))
    found = _kinds("euclidean", plain, weights, (inputs, labels)) | _kinds(
        "riemannian", spherical, list(filters(spherical)), (inputs, labels)
    )
    relative = _Scaled(hessian, [p.detach().abs() for p in weights])
    loss = nn.CrossEntropyLoss()
    rise = or_none(
        rsam.curvature.sharpness,
        plain,
        loss,
        weights,
        (inputs, labels),
        RELATIVE_RHO,
        micro_batch=MICRO_BATCH,
        adaptive=True,
    )
    trace = or_none(rsam.curvature.trace, relative, FEWER, method="xtrace")
    return found | {
        "relative_trace": trace and float(trace),
        "relative_trace_error": trace and trace.standard_error,
        "relative_sharpness": rise and float(rise),
        "relative_flatness": _relative_flatness(plain, inputs),
    }


def _kinds(name: str, model: nn.Module, weights: list[Any], batch: tuple[Tensor, Tensor]) -> dict[str, float | None]:
    loss = nn.CrossEntropyLoss()
    hessian = rsam.curvature.RiemannianHessian(model, loss, weights, batch)
    products = PRODUCTS if name == "riemannian" else FEWER
    trace = or_none(rsam.curvature.trace, hessian, products, method="xtrace")
    top = or_none(rsam.curvature.top_eigenvalues, hessian, rtol=1e-2)
    rise = or_none(rsam.curvature.sharpness, model, loss, weights, batch, RHO, micro_batch=MICRO_BATCH)
    return {
        f"{name}_gradient_norm": rsam.curvature.gradient_norm(model, loss, weights, batch),
        f"{name}_trace": trace and float(trace),
        f"{name}_trace_error": trace and trace.standard_error,
        f"{name}_top_eigenvalue": top and float(top.values[0]),
        f"{name}_sharpness": rise and float(rise),
    }


@torch.no_grad()
def _relative_flatness(plain: nn.Sequential, inputs: Tensor) -> float:
    """Compute the relative flatness of the head (Petzka et al. 2021, Definition 3), in closed form.

    The sum over rows s, s' of the head of ``<w_s, w_s'> tr H_ss'``, where the block ``H_ss'`` of the Hessian of the
    cross-entropy is the mean of ``(p_s [s = s'] - p_s p_s') h h^T``.
    """
    head = plain.get_submodule("head")
    features = nn.Sequential(*[part for name, part in plain.named_children() if name != "head"])(inputs).double()
    weight = head.get_parameter("weight").double()
    p = (features @ weight.mT + head.get_parameter("bias").double()).softmax(1)
    gram = weight @ weight.mT
    form = p @ gram.diagonal() - torch.einsum("ns,st,nt->n", p, gram, p)
    return float((features.square().sum(1) * form).mean())
