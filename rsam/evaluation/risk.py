"""Evaluate and differentiate the empirical risk, a loss over one batch or a whole loader, without side effects."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rsam import geometry
from rsam.errors import NotFinite
from rsam.evaluation import check_graph, differentiable, explain, isolated
from rsam.evaluation.batches import Data, as_batches, as_pair, examples_of, move
from rsam.evaluation.higher_order import without_compilation
from rsam.evaluation.optional import progress
from rsam.evaluation.parameters import check_dtypes, check_is_iterable, check_precision
from rsam.evaluation.random_state import keeping_sources, seed_random_state
from rsam.evaluation.reach import Reach, graph_of
from rsam.evaluation.reduction import Reduction, counted_labels, own_loss, uncompiled, uncompiled_name
from rsam.geometry.sums import all_finite

__all__ = ["Data", "LossFunc", "Params", "Risk", "accumulators", "trainable"]

#: Maps outputs and targets to a scalar; None for models that return their loss.
LossFunc = Callable[[Any, Any], Tensor] | None
Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]]


class Risk:
    r"""Mean (or sum) of a loss over data, as a function of parameters.

    The result for a loader is that for one batch of all its examples, however unequal its batches are. Evaluations
    change neither buffers nor ``.grad`` nor the random state; random layers such as dropout draw the same numbers in
    every evaluation, so that the risk is a function of the parameters.

    Parameters
    ----------
    model_func : callable
        Maps inputs to outputs; as a rule a :class:`torch.nn.Module`, which is evaluated in its present mode.
    loss_func : callable or None
        Maps outputs and targets to a scalar. Its ``reduction`` says how batches combine; a loss without one is taken
        for a mean over examples. The weights and the ``ignore_index`` of a class loss are taken into account. None for
        a model that returns its loss, or an output with an attribute or item ``loss``.
    params : iterable of Tensor
        Parameters of the model, plain or on manifolds, or pairs ``(name, parameter)``; frozen ones are left out.
    data : tuple, mapping or iterable
        One batch, or a list or loader of batches. A batch is a pair ``(inputs, targets)``, or a mapping, which the
        model takes as keyword arguments and the loss as targets. Tensors are moved to the parameters' device; a batch
        whose targets are all ignored is skipped.
    num_data : int, optional
        Number of examples to divide by, if it is not that of ``data``.
    batch_size_fn : callable, optional
        Takes the inputs of a batch and returns the number of its examples; by default the length of the targets.
    progressbar : bool
        Show a bar over the batches of each evaluation.

    Raises
    ------
    ValueError
        For a model or a loss that cannot be called; for data that can be iterated over only once; for parameters that
        are no iterable of tensors, are not leaves or are listed twice, and for an empty list. In an evaluation, for
        empty data, a loss that is no scalar, a parameter that no batch depends on, layers that write to their weights
        (``max_norm``), and derivatives in float16, of parameters or of an autocast around the call or, since torch 2.5,
        within model or loss.
    NotFinite
        For a point of a manifold that is not finite; in an evaluation, if loss or gradient are not. A RuntimeError.

    Warns
    -----
    UserWarning
        Of points that are off their manifold.
    """

    def __init__(
        self,
        model_func: Callable[[Any], Any],
        loss_func: LossFunc,
        params: Params,
        data: Data,
        num_data: int | None = None,
        batch_size_fn: Callable[[Any], int] | None = None,
        progressbar: bool = False,
    ) -> None:
        _check_functions(model_func, loss_func)
        self.model_func, self.loss_func = uncompiled(model_func), uncompiled(loss_func)
        given = _live(params)
        self.params = [p for _, p in given]
        self.data = as_batches(data)
        self.num_data, self.batch_size_fn, self.progressbar = num_data, batch_size_fn, progressbar
        self._reach = Reach(len(self.params))
        self._is_piece = False
        known = {} if self.model is None else {id(p): name for name, p in self.model.named_parameters()}
        given = [(known.get(id(p), name), p) for name, p in given]
        self.is_named = [name is not None for name, _ in given]
        # parts of a model may be compiled too
        self.names = names = [uncompiled_name(name) for name, _ in _with_names(given)]
        self.space = geometry.Product(self.params, names=names)
        for i, p in enumerate(self.params):
            if not p.is_leaf:
                raise ValueError(f"params: {self.describe(i)} must be a leaf, not computed from others")
        geometry.warn_off_manifold(self.space, stacklevel=3)  # tangents and geodesics would be those of other points

    def describe(self, i: int) -> str:
        """Name a parameter in a message."""
        return self.space.describe(i)

    @property
    def model(self) -> nn.Module | None:
        """Model if it is a module, else None."""
        return self.model_func if isinstance(self.model_func, nn.Module) else None

    def piece(self, batch: Any) -> Risk:
        """Return the risk of a part of the data, which may miss parameters that other parts depend on.

        Once all parts have been differentiated, :meth:`check_reach` checks that each parameter was reached.
        """
        piece = copy.copy(self)
        piece.data, piece.num_data, piece.progressbar, piece._is_piece = [batch], None, False, True
        return piece

    def check_reach(self) -> None:
        """Raise ValueError for a parameter that no batch differentiated so far depends on."""
        self._reach.check(self.describe)

    @property
    def reduction(self) -> Reduction:
        """Present reduction of the loss, which may change between evaluations."""
        return Reduction.of(self.loss_func)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Isolate evaluations within this context, and have random layers draw the same numbers each time."""
        # uncompiled, since a module compiled in place does not let its buffers be exchanged. The generators of loaders
        # and augmentations are restored after each pass, so that the next one draws the same numbers
        with without_compilation(), isolated(), keeping_sources(self.data):
            seed_random_state()
            try:
                yield
            except RuntimeError as error:
                if "does not require grad and does not have a grad_fn" in str(error):
                    error.add_note(
                        "values are computed without gradients; a model or loss that differentiates by itself, as for "
                        "a differential equation, must do so within torch.enable_grad()"
                    )
                raise

    def outputs(self, order: int) -> Iterator[tuple[Any, Any, float]]:
        """Yield outputs, targets and weight of each batch, in a graph that can be differentiated ``order`` times.

        Iterate within :meth:`evaluating`. The weights are not normalised: divide by their :meth:`total`.
        """
        device = self.params[0].device
        if torch.is_grad_enabled():
            check_precision(self.params, self.describe)
        if not self._is_piece:
            self._reach = Reach(len(self.params))
        empty = True
        for batch in progress(self.data, show=self.progressbar, desc="risk", unit="batch"):
            empty = False
            inputs, targets = as_pair(move(batch, device))
            weight = self.weight_of(inputs, targets)
            if weight == 0:  # all targets are ignored: torch's mean over none is nan
                continue
            with differentiable(order):
                outputs = self.model_func(**inputs) if isinstance(batch, Mapping) else self.model_func(inputs)
            yield outputs, targets, weight
        if empty:
            raise ValueError("data is empty: it yields no batch")
        if not self._is_piece:
            self.check_reach()

    def losses(self, order: int = 1) -> Iterator[tuple[Tensor, float]]:
        """Yield loss and weight of each batch, as :meth:`outputs` does."""
        for outputs, targets, weight in self.outputs(order):
            yield self.loss_of(outputs, targets, order), weight

    def loss_of(self, outputs: Any, targets: Any, order: int = 1, may_diverge: bool = False) -> Tensor:
        """Return the loss of a batch; raise if it is no scalar or, unless it ``may_diverge``, not finite."""
        with differentiable(order):
            loss: Tensor = own_loss(outputs) if self.loss_func is None else self.loss_func(outputs, targets)
        _check_scalar(loss)
        if not may_diverge and not torch.isfinite(loss.detach()).all():
            raise NotFinite(f"the loss is {float(loss.detach())}, which is not finite")
        if loss.requires_grad:
            check_dtypes(graph_of(loss).dtypes)
        return loss

    def gradients(self, order: int = 1) -> Iterator[tuple[list[Tensor], float]]:
        """Yield Euclidean gradients and weight of each batch; with a graph if ``order`` is 2 or more."""
        for loss, weight in self.losses(order):
            yield self.gradient_of(loss, create_graph=order > 1), weight

    def gradient_of(self, value: Tensor, create_graph: bool = False, **options: Any) -> list[Tensor]:
        """Return Euclidean gradients of a loss or, with ``grad_outputs``, of outputs; zero where they are None."""
        for i, p in enumerate(self.params):
            if not p.requires_grad:
                raise ValueError(
                    f"params: {self.describe(i)} was frozen (requires_grad is False) after the operator was made; make "
                    "it anew"
                )
        partials: Sequence[Tensor | None] = [None] * len(self.params)
        if value.requires_grad:
            partials = torch.autograd.grad(value, self.params, create_graph=create_graph, allow_unused=True, **options)
            self._reach.note(partials)
        else:
            of_outputs = "grad_outputs" in options
            source = "model_func" if of_outputs or self.loss_func is None else "loss_func"
            self._reach.note_without_graph(f"{source} returned {'an output' if of_outputs else 'a loss'}")
        gradients = [
            torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
            for g, p in zip(partials, self.params, strict=True)
        ]
        self.check_finite(gradients, "the gradient of {} is")
        if create_graph:  # torch treats operations without a second derivative as constants
            check_graph(
                torch.stack([g.real.sum().to(gradients[0].device, torch.float32) for g in gradients]).sum(), order=2
            )
        return gradients

    def check_finite(self, tensors: Sequence[Tensor], what: str) -> None:
        """Raise if a parameter's tensor is not finite; ``what`` has a field ``{}`` for the name of the parameter."""
        if not all_finite(tensors):
            i = next(i for i, t in enumerate(tensors) if not torch.isfinite(t).all())
            raise NotFinite(f"{what.format(self.describe(i))} not finite")

    def value(self) -> float:
        """Return the risk at the present weights."""
        with self.evaluating(), torch.no_grad():
            terms = [(float(loss), weight) for loss, weight in self.losses()]
        return sum(loss * weight for loss, weight in terms) / self.total([weight for _, weight in terms])

    def gradient(self) -> list[Tensor]:
        """Return the Euclidean gradient of the risk at the present weights, without a graph."""
        sums = accumulators(self.params)
        weights = []
        with self.evaluating(), torch.enable_grad():
            for gradients, weight in self.gradients():
                torch._foreach_add_(sums, gradients, alpha=weight)
                weights.append(weight)
        torch._foreach_div_(sums, self.total(weights))
        return [s.to(p.dtype) for s, p in zip(sums, self.params, strict=True)]

    def slope(self, gradient: Sequence[Tensor]) -> tuple[list[Tensor], float]:
        """Return the tangents of steepest ascent for a Euclidean gradient here, and the square of their norm."""
        with torch.no_grad():
            tangents: list[Tensor] = self.space.raise_index(self.params, list(gradient))
            # in double precision, in which the squares of small and large numbers neither vanish nor overflow
            wide = [[t.to(torch.promote_types(t.dtype, torch.float64)) for t in ts] for ts in (gradient, tangents)]
            square = float(geometry.pairing(*wide))
        return tangents, max(square, 0.0)  # rounding may leave it negative

    def total(self, weights: Sequence[float]) -> float:
        """Return the number to divide a weighted sum over the batches by."""
        if self.reduction.sums:
            return 1.0
        total = float(sum(weights)) if self.num_data is None else float(self.num_data)
        if not total > 0:
            raise ValueError(f"data has the total weight {total}: no example counts")
        return total

    def explain(self, error: RuntimeError, order: int = 2) -> RuntimeError:
        """Return an error that names the module without a derivative, or the given error if it has another cause."""

        def evaluate() -> None:
            next(self.losses(order))

        return explain(error, evaluate, self.model, order)

    def weight_of(self, inputs: Any, targets: Any) -> float:
        """Return the weight of a batch in the mean: its number of examples, or the divisor of the loss."""
        if self.reduction.sums:
            return 1.0
        if self.batch_size_fn is not None:
            return float(self.batch_size_fn(inputs))
        if self.num_data is None:
            counted = counted_labels(self.model, targets) if self.loss_func is None else None
            if self.reduction.of_classes and isinstance(targets, Tensor) and not targets.is_floating_point():
                counted = self.reduction.weight_of(targets)
            if counted is not None:
                return counted
        for part in (targets, inputs):
            length = examples_of(part)
            if length is not None:
                return float(length)
        raise ValueError("neither inputs nor targets hold a tensor; pass batch_size_fn, which counts the examples")


def _check_functions(model_func: Any, loss_func: Any) -> None:
    """Refuse a model or a loss that cannot be one, for example if they are swapped."""
    if not callable(model_func):
        raise ValueError(f"model_func must be a model or a function of inputs, got {type(model_func).__name__}")
    if loss_func is not None and not callable(loss_func):
        raise ValueError(
            f"loss_func must be a function of outputs and targets, or None for a model that returns its loss, got "
            f"{type(loss_func).__name__}"
        )
    if loss_func is not None and isinstance(model_func, nn.modules.loss._Loss):
        raise ValueError(
            f"model_func must be a model, got the loss {type(model_func).__name__}; the loss comes second, as loss_func"
        )


def _check_scalar(loss: Any) -> None:
    if not isinstance(loss, Tensor):
        raise ValueError(f"loss_func must return a scalar tensor, not {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(
            f"loss_func must return a scalar, not a tensor of shape {tuple(loss.shape)}; use reduction='mean' or 'sum'"
        )


def check_repeats(first: float, again: float) -> None:
    """Refuse data that give different losses at the same weights, in two passes over them."""
    if not math.isclose(first, again, rel_tol=5e-5) and not (math.isnan(first) and math.isnan(again)):
        raise RuntimeError(
            f"two passes over data give different losses, {first:.6g} and {again:.6g}, so that what differs between "
            "weights would be the data: is the loader random (drop_last, augmentation, persistent workers)? Pass a "
            "list of its batches, list(loader)"
        )


def accumulators(like: Sequence[Tensor]) -> list[Tensor]:
    """Return zeros to accumulate batches in, at least in single precision."""
    return [torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in map(Tensor.detach, like)]


def trainable(params: Params) -> list[tuple[str, Tensor]]:
    """Return names and parameters, without those that are frozen; those without a name are called by their position."""
    return _with_names(_live(params))


def _with_names(given: Sequence[tuple[str | None, Tensor]]) -> list[tuple[str, Tensor]]:
    return [(f"parameter {i}" if name is None else name, p) for i, (name, p) in enumerate(given)]


def _live(params: Params) -> list[tuple[str | None, Tensor]]:
    """Return the names that were given, or None, and the parameters that are not frozen."""
    check_is_iterable(params)
    entries = [entry if isinstance(entry, tuple) else (None, entry) for entry in params]
    parameters = [p for _, p in entries]
    for i, p in enumerate(parameters):
        if not isinstance(p, Tensor):
            raise ValueError(f"params: entry {i} is no tensor but {type(p).__name__}")
    firsts = {id(p): i for i, p in reversed(list(enumerate(parameters)))}
    for i, p in enumerate(parameters):
        if firsts[id(p)] != i:
            raise ValueError(f"params: entries {firsts[id(p)]} and {i} are the same tensor, of shape {tuple(p.shape)}")
    live = [(name, p) for name, p in entries if p.requires_grad]
    if not live and parameters:
        raise ValueError(
            f"all of params are frozen (requires_grad is False), the first of shape {tuple(parameters[0].shape)}; pass "
            "the parameters to differentiate in, such as model.parameters()"
        )
    if not live:
        raise ValueError("params is empty; pass a list (model.parameters() is used up by going through it once)")
    return live
