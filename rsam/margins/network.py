"""Evaluate a classifier and its layers over data, without changing it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rsam.evaluation import isolated
from rsam.evaluation.batches import move
from rsam.evaluation.random_state import keeping_sources, random_state, seed_random_state, set_random_state
from rsam.evaluation.reduction import uncompiled

__all__ = ["INPUT", "OUTPUT", "Data", "Network", "as_names", "evaluating", "full", "rows"]

#: One batch ``(inputs, labels)``, or an iterable of batches.
Data = tuple[Any, Any] | Iterable[tuple[Any, Any]]

INPUT, OUTPUT = "input", "output"


def full(t: Tensor) -> Tensor:
    """Return a tensor in single precision at least, to accumulate in."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def rows(t: Tensor) -> Tensor:
    """Return the numbers of each example as a row; an example may be a single number."""
    return t.unsqueeze(-1).flatten(1)


@contextmanager
def evaluating(model: nn.Module, data: Data) -> Iterator[None]:
    """Set a model's evaluation mode within this context; restore modes, buffers and random states after it."""
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as contexts:
        contexts.enter_context(isolated())
        contexts.enter_context(keeping_sources(data))
        contexts.enter_context(torch.inference_mode(False))
        contexts.enter_context(torch.enable_grad())
        contexts.enter_context(_layer_by_layer())
        if hasattr(torch.compiler, "set_stance"):  # torch 2.6; compiled code does not see the hooks
            contexts.enter_context(torch.compiler.set_stance("force_eager"))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            # cuDNN's recurrent kernels have no backward pass in evaluation mode
            contexts.enter_context(torch.backends.cudnn.flags(enabled=False))
        seed_random_state()
        try:
            model.eval()
            yield
        finally:
            for module, training in modes:
                if type(module).train is not nn.Module.train:  # it may do more, such as taking LoRA's weights apart
                    module.train(training)
            for module, training in modes:
                module.training = training


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Switch off torch's fused encoder layers; without gradients these skip modules, and set padded tokens to zero."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


class Network:
    """Classifier whose named layers can be read and replaced.

    Parameters
    ----------
    model : torch.nn.Module
        Maps a batch of inputs to logits ``(examples, classes)``, or to an object or mapping with ``logits``. A model
        that :func:`torch.compile` made is evaluated uncompiled, since compiled code does not see the hooks.
    layers : sequence of str
        ``"input"``, ``"output"``, or names of modules in ``named_modules``.

    Raises
    ------
    TypeError, ValueError
        For a model that is no module, and for layers that it does not have.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self.model: nn.Module = uncompiled(model)
        self.layers = _checked(layers, self.model)
        self.device = next((t.device for t in (*self.model.parameters(), *self.model.buffers())), None)
        self.at_batch = random_state()

    def evaluating(self, data: Data) -> AbstractContextManager[None]:
        """Set evaluation mode within this context; restore modes, buffers and random states after it."""
        return evaluating(self.model, data)

    def batches(self, data: Data, name: str, progressbar: bool) -> Iterator[tuple[Any, Tensor]]:
        """Yield checked inputs and labels on the model's device; iterate within :meth:`evaluating`."""
        empty = True
        for batch in tqdm(_batches(data), desc=name, unit="batch", disable=not progressbar):
            if not (isinstance(batch, Sequence) and len(batch) == 2):  # a tensor or a dict could be unpacked wrongly
                kind = type(batch).__name__
                kind += f" of {len(batch)}" if isinstance(batch, Sequence) else ""
                raise ValueError(
                    f"data must be a pair of tensors (inputs, labels), or a loader of pairs, but a batch is a {kind}"
                )
            inputs, labels = batch
            _check_labels(labels)
            if len(labels) == 0:
                continue
            empty = False
            self.at_batch = random_state()
            yield inputs if self.device is None else move(inputs, self.device), move(labels, labels.device)
        if empty:
            raise ValueError("data is empty: it yields no example")

    def run(self, inputs: Any, replaced: Mapping[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits and the values of the layers, all in one graph if gradients are enabled.

        ``replaced`` holds values for layers, which replace those that the model computes. Layers that draw random
        numbers in evaluation mode draw the same in every run of a batch, of which they are one function.
        """
        replaced = replaced or {}
        set_random_state(self.at_batch)
        values: dict[str, Tensor] = {}
        hidden = [name for name in self.layers if name not in (INPUT, OUTPUT)]
        modules = dict(self.model.named_modules(remove_duplicate=False))
        handles = [modules[name].register_forward_hook(_Reader(name, values, replaced.get(name))) for name in hidden]
        try:
            x = replaced.get(INPUT, inputs.detach() if isinstance(inputs, Tensor) else inputs)
            if isinstance(x, Tensor):
                if x.is_floating_point() or x.is_complex():
                    values[INPUT] = x.requires_grad_()
                x = x.clone()  # a model may write into its input
            logits = _logits(self.model(x))
        finally:
            for handle in handles:
                handle.remove()
        for name in hidden:
            if name not in values:
                raise ValueError(f"layer {name!r} is never called in a forward pass; name a module that is")
        if INPUT in self.layers and INPUT not in values:
            kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ValueError(
                f"layer 'input' needs inputs that are one tensor of real or complex numbers, got {kind}; name the "
                "first module that puts out such a tensor instead, such as an embedding"
            )
        if values and torch.is_grad_enabled() and not logits.requires_grad:
            raise ValueError("model returned logits without a graph; compute them outside no_grad and detach")
        return logits, values


class _Reader:
    """Forward hook that keeps a module's output, and passes on a clone of it.

    The next layer may write into the clone, as ``ReLU(inplace=True)`` does.
    """

    def __init__(self, name: str, values: dict[str, Tensor], replacement: Tensor | None) -> None:
        self.name, self.values, self.replacement = name, values, replacement

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Tensor:
        if self.name in self.values:
            raise ValueError(
                f"layer {self.name!r} is called more than once in a forward pass, so that it has no one output; name "
                "a module that is called once"
            )
        if not (isinstance(output, Tensor) and (output.is_floating_point() or output.is_complex())):
            kind = f"a tensor of {output.dtype}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise TypeError(
                f"layer {self.name!r} must put out one tensor of real or complex numbers, not {kind}; name "
                "a module inside or after it that does"
            )
        if self.replacement is not None:
            value = self.replacement
        elif output.requires_grad:
            value = output.clone()  # the output may be the input, as that of an identity, which others use too
        else:  # everything before it is frozen
            value = output.detach().requires_grad_()
        self.values[self.name] = value
        clone: Tensor = value.clone()
        return clone


def as_names(layers: Sequence[str]) -> tuple[str, ...]:
    """Return the names of layers; raise for one string, whose letters would be taken for names."""
    if isinstance(layers, str):
        raise ValueError(f"layers must be a list of names, got the string {layers!r}")
    return tuple(layers)


def _checked(layers: Sequence[str], model: nn.Module) -> tuple[str, ...]:
    layers = as_names(layers)
    modules = dict(model.named_modules(remove_duplicate=False))
    if not layers:
        raise ValueError("layers is empty; name 'input', 'output' or modules")
    for name in layers:
        if layers.count(name) > 1:
            raise ValueError(f"layers names {name!r} twice")
        if name in (INPUT, OUTPUT) and name in modules:
            raise ValueError(
                f"layer {name!r} is the model's {name}, but also a module of it; pass nn.Sequential(model), where that "
                f"module is called '0.{name}'"
            )
        if name not in (INPUT, OUTPUT) and (not name or name not in modules):
            close = difflib.get_close_matches(name.removeprefix("_orig_mod."), [INPUT, OUTPUT, *modules])
            # in a wrapper, such as DataParallel, whose name comes first
            close = close or [other for other in modules if other.endswith(f".{name}")]
            hint = f"; there is {' and '.join(map(repr, close))}" if close else ""
            whose = " before torch.compile" if "_orig_mod" in name.split(".") else ""
            raise ValueError(f"the model has no layer {name!r}{hint} (names are those of model.named_modules(){whose})")
    return layers


def _batches(data: Data) -> Iterable[tuple[Any, Any]]:
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[1], Tensor):
        return [(data[0], data[1])]
    return data


def _check_labels(labels: Any) -> None:
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels must be a tensor of class indices, got {type(labels).__name__}")
    if labels.dim() == 0:
        raise ValueError("labels of a batch must be a tensor (examples,), got a single one; pass a loader of the data")
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"labels must be class indices, a one-dimensional tensor of integers, got shape {tuple(labels.shape)} of "
            f"{labels.dtype}; margins are of classifiers (take argmax(1) of one-hot labels)"
        )


def _logits(outputs: Any) -> Tensor:
    logits = outputs
    if isinstance(outputs, Mapping) and "logits" in outputs:
        logits = outputs["logits"]
    elif hasattr(outputs, "logits"):
        logits = outputs.logits
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"model must return a tensor, or something with logits, not {type(outputs).__name__}; wrap it in a module "
            "that returns the logits"
        )
    if not logits.is_floating_point() or logits.dim() not in (1, 2):
        raise ValueError(
            f"model must return logits of shape (examples, classes), got shape {tuple(logits.shape)} of {logits.dtype}"
        )
    if logits.dim() == 1 or logits.shape[1] < 2:
        raise ValueError(
            f"model returns one number for each example (logits of shape {tuple(logits.shape)}), so that there is no "
            "second class; for a binary classifier with one logit z of shape (examples, 1), return "
            "torch.cat((torch.zeros_like(z), z), 1)"
        )
    return logits
