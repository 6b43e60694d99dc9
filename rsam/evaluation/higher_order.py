"""Replace torch's layers by versions that can be differentiated more than once.

Some of torch's fused kernels have no second or third derivative, and a few have a wrong one (torch 2.4 to 2.14, found
by finite differences). A context replaces them by operations that torch differentiates correctly.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import set_checkpoint_early_stop

__all__ = ["differentiable", "without_compilation"]

_warned: set[str] = set()


def differentiable(order: int = 3) -> AbstractContextManager[Any]:
    """Make forward passes within this context differentiable ``order`` times in reverse mode.

    Values are those of the unmodified layers up to rounding, and running statistics advance as usual. It replaces

    - from order 2 on: fused attention by its math form; RNN, LSTM and GRU kernels of cuDNN by their composite form;
      ``weight_norm``, whose fused kernel has a silently wrong second derivative; ``hardsigmoid``;
      batch norm in evaluation mode, for speed, by the affine map that it is; and, from torch 2.6 on, compiled
      functions by the originals;
    - from order 3 on: batch norm and instance norm with batch statistics (no third derivative, in torch 2.4 a silently
      wrong one) and layer norm (silently wrong third derivative).

    A warning mentions attention and cuDNN, once per process, since their replacements cost memory and time. Some
    operations have no second derivative in torch and are not replaced: ``EmbeddingBag``, ``CTCLoss``,
    ``MultiMarginLoss``, ``MultiLabelMarginLoss``, flex attention, ``SyncBatchNorm`` across processes, and custom
    functions marked ``once_differentiable``; in torch 2.4 also ``grid_sample``, ``cdist`` and ``pdist``. At third order
    ``pdist`` and ``logcumsumexp`` give NaN. Parts under :mod:`torch.utils.checkpoint` are recomputed in the backward
    pass without replacements; if that makes a difference, torch raises a ``CheckpointError``.

    Parameters
    ----------
    order : int
        Number of derivatives to be taken: 3 for the gradient of a curvature, 2 for a curvature or for the gradient of a
        gradient norm. With 1 nothing is replaced.

    Returns
    -------
    context manager
        It affects this thread only, except that compiled functions run uncompiled in other threads too.

    Examples
    --------
    >>> import torch, rsam.evaluation
    >>> x = torch.randn(4, 2, requires_grad=True)
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> with rsam.evaluation.differentiable():
    ...     loss = norm(x).pow(3).sum()
    >>> for _ in range(3):
    ...     (g,) = torch.autograd.grad(loss, x, create_graph=True)
    ...     loss = g.pow(2).sum()
    >>> g.shape
    torch.Size([4, 2])
    """
    return _replacing(order) if order > 1 else nullcontext()


@contextmanager
def _replacing(order: int) -> Iterator[None]:
    # torch.autograd.grad runs without function modes, and so does what it recomputes. torch compares the saved tensors
    # of both passes, but only up to where it stops early
    with without_compilation(), set_checkpoint_early_stop(False), _Differentiable(order):
        yield


def without_compilation() -> AbstractContextManager[Any]:
    """Run compiled functions uncompiled within this context, in all threads; does nothing before torch 2.6."""
    if torch.compiler.is_compiling():
        raise RuntimeError(_COMPILED)
    # if this module is not loaded nothing can be compiled yet; loading it takes a second or more
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return nullcontext()
    try:
        stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    except RuntimeError as error:
        raise RuntimeError(_COMPILED) from error
    return stance


_COMPILED = (
    "higher derivatives cannot be taken within a function that torch.compile made: compile the model instead, or call "
    "what takes them through torch.compiler.disable"
)


class _Differentiable(TorchFunctionMode):
    """Intercepts torch's functions, except those that its replacements call."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self._replacements = {**_SECOND, **_THIRD} if order > 2 else _SECOND

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._replacements.get(func, func)(*args, **(kwargs or {}))


def _warn_once(kind: str, reason: str) -> None:
    if kind not in _warned:
        _warned.add(kind)
        warnings.warn(f"{kind} is computed {reason}", stacklevel=4)


# -- second order -----------------------------------------------------------------------------------------------


_MATH_ATTENTION = (
    "scaled_dot_product_attention",
    "in its math form, since the fused kernels have no second derivative",
)


def _attention(*args: Any, **kwargs: Any) -> Tensor:
    _warn_once(*_MATH_ATTENTION)
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(*args, **kwargs)


def _multi_head_attention(*args: Any, **kwargs: Any) -> Any:
    if not kwargs.get("need_weights", True):  # with weights torch uses the math form itself
        _warn_once(*_MATH_ATTENTION)
    with sdpa_kernel(SDPBackend.MATH):
        return F.multi_head_attention_forward(*args, **kwargs)


def _composite(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return a recurrent kernel without cuDNN; oneDNN's, on the CPU, is differentiated correctly."""

    def run(*args: Any) -> Any:
        if not args[0].is_cuda or not torch.backends.cudnn.enabled:
            return kernel(*args)
        _warn_once(kernel.__name__, "without cuDNN, whose kernel has no second derivative")
        with torch.backends.cudnn.flags(enabled=False):
            return kernel(*args)

    return run


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    if inplace:
        return F.hardsigmoid(input, inplace)
    # saves a mask: relu6(input + 3) would save a tensor like the one that torch's kernel saves, and be mistaken for it
    # by torch.utils.checkpoint
    return torch.where(input.abs() < 3, (input + 3) / 6, (input > 0).to(input.dtype))


def _fixed_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute batch norm in evaluation mode as an affine map, whose second derivative is cheaper than the kernel's."""
    if training or running_mean is None or running_var is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    shape = [1, input.shape[1]] + [1] * (input.dim() - 2)
    scale = torch.rsqrt(running_var.to(x.dtype) + eps)
    scale = scale if weight is None else scale * weight.to(x.dtype)
    shift = -running_mean.to(x.dtype) * scale
    shift = shift if bias is None else shift + bias.to(x.dtype)
    return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(input.dtype)


# -- third order ------------------------------------------------------------------------------------------------


def _normalise(
    input: Tensor, dims: list[int], weight: Tensor | None, bias: Tensor | None, shape: list[int], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalised and scaled values, means and biased variances over ``dims``, at least in float32."""
    x = input.to(torch.promote_types(input.dtype, torch.float32))
    count = math.prod(x.shape[d] for d in dims)
    # sums: the derivatives of a mean divide tensors of full size
    mean = x.sum(dims, keepdim=True) / count
    centred = x - mean
    variance = (centred * centred).sum(dims, keepdim=True) / count
    scale = torch.rsqrt(variance + eps)
    if weight is not None:
        scale = scale * weight.to(x.dtype).view(shape)
    y = centred * scale if bias is None else torch.addcmul(bias.to(x.dtype).view(shape), centred, scale)
    return y.to(input.dtype), mean, variance


def _update(running: Tensor | None, batch: Tensor, momentum: float) -> None:
    # through .data, as in torch's kernel: a higher version count would invalidate graphs that hold the buffer
    if running is not None:
        running.data.mul_(1 - momentum).add_(batch.detach().to(running.dtype), alpha=momentum)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return _fixed_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    channels = input.shape[1]
    count = input.numel() // max(channels, 1)
    if count == 1:
        raise ValueError(f"batch norm in training needs more than 1 value per channel, got input {tuple(input.shape)}")
    shape = [1, channels] + [1] * (input.dim() - 2)
    y, mean, variance = _normalise(input, [0, *range(2, input.dim())], weight, bias, shape, eps)
    _update(running_mean, mean.flatten(), momentum)
    _update(running_var, variance.flatten() * (count / (count - 1)), momentum)
    return y


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    channels, count = input.shape[1], math.prod(input.shape[2:])
    if not use_input_stats or count == 1:  # torch refuses count == 1
        return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    shape = [1, channels] + [1] * (input.dim() - 2)
    y, mean, variance = _normalise(input, list(range(2, input.dim())), weight, bias, shape, eps)
    _update(running_mean, mean.mean(0).flatten(), momentum)
    _update(running_var, variance.mean(0).flatten() * (count / (count - 1)), momentum)
    return y


def _layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,  # torch.layer_norm has this argument, nn.functional.layer_norm does not
) -> Tensor:
    return _normalise(input, list(range(-len(normalized_shape), 0)), weight, bias, list(normalized_shape), eps)[0]


_SECOND: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: _attention,
    # the body of this function runs with the mode off, so that the mode would not see the attention inside
    F.multi_head_attention_forward: _multi_head_attention,
    torch._weight_norm: _weight_norm,
    F.hardsigmoid: _hardsigmoid,
    F.batch_norm: _fixed_batch_norm,
    **{kernel: _composite(kernel) for kernel in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)},
}
_THIRD: dict[Any, Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
}
