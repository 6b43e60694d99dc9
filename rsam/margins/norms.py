"""Compute norms of networks to compare output margins with: spectral norms and the path norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, svds
from torch import Tensor, nn
from torch.nn import functional as F

from rsam.errors import NotFinite
from rsam.evaluation.reduction import uncompiled
from rsam.margins.network import evaluating, full

__all__ = ["path_norm", "spectral_norms"]

_CONVOLUTIONS: dict[type, Any] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
#: Layers that divide by deviations that they measure, whether or not they have parameters.
_DIVIDERS = (
    nn.modules.batchnorm._NormBase,  # also the base of nn.InstanceNorm1d to 3d
    nn.LayerNorm,
    getattr(nn, "RMSNorm", nn.LayerNorm),  # torch 2.4
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.CrossMapLRN2d,
)
_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_GLOBAL_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
#: Layers that do not change nonnegative numbers (in evaluation mode).
_PLAIN = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)

#: Smallest size of a convolution that is not written out as a matrix.
_DENSE = 256


def spectral_norms(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Compute the spectral norms of all linear, convolutional and batch-norm layers.

    The product of these norms bounds the Lipschitz constant of a chain of such layers with activations such as ReLU;
    Bartlett et al. (2017) divide the margins of the output by it. Each norm is the largest singular value of the layer
    as a linear map, without its bias. For a convolution this is the map of the images that it gets, padding and stride
    included, not the kernel as a matrix. For a batch norm it is the map with its running statistics.

    Parameters
    ----------
    model : torch.nn.Module
        A network whose parameters all belong to such layers.
    inputs : Tensor
        A batch of inputs; one example is enough, since only shapes matter.

    Returns
    -------
    dict of str to Tensor
        Scalars by name, in the order of ``model.named_modules()``.

    Raises
    ------
    ValueError
        For a layer of another type with parameters or that normalises, and for one that is not called exactly once.
    NotFinite
        If a weight is not finite.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    >>> model[0].weight.data, model[2].weight.data = torch.diag(torch.tensor([3.0, 1.0])), 2 * torch.eye(2)
    >>> inputs, labels = torch.randn(8, 2), torch.arange(8) % 2
    >>> norms = rsam.margins.spectral_norms(model, inputs)
    >>> norms
    {'0': tensor(3.), '2': tensor(2.)}
    >>> output_margins = rsam.margins.margins(model, (inputs, labels), ["output"])["output"]
    >>> normalized = output_margins / torch.stack(list(norms.values())).prod()
    """
    model = uncompiled(model)  # what torch.compile made would hide the layers' names
    layers = {name: m for name, m in model.named_modules() if _scales(m)}
    for name, layer in layers.items():
        if type(layer) is not nn.Linear and type(layer) not in _CONVOLUTIONS and type(layer) not in _BATCH_NORMS:
            raise ValueError(
                f"layer {name!r} is a {type(layer).__name__}, whose spectral norm is not known here (nn.Linear, "
                "nn.Conv1d to 3d and nn.BatchNorm have one)"
            )
        if type(layer) in _BATCH_NORMS:
            _affine(name, layer)
    shapes = _shapes(model, layers, inputs)
    return {name: _spectral_norm(name, layer, shapes[name]) for name, layer in layers.items()}


def _scales(layer: nn.Module) -> bool:
    """Tell whether a layer must have a norm: it has parameters, or divides by deviations without any."""
    return isinstance(layer, _DIVIDERS) or any(True for _ in layer.parameters(recurse=False))


def path_norm(model: nn.Module, inputs: Tensor) -> Tensor:
    r"""Compute the path norm of a chain of layers with ReLUs.

    A path leads from an input or a bias to an output. The norm is the root of the sum over all paths of the product of
    squared weights along each (Neyshabur et al. 2015; Jiang et al. 2020, who count biases as weights too). It takes one
    evaluation with squared weights, at an input of ones. Batch norms enter as their affine maps in evaluation mode,
    average pooling with its weights.

    Parameters
    ----------
    model : torch.nn.Module
        A (nested) ``nn.Sequential`` of ``Linear``, ``Conv``, ``BatchNorm``, ``AvgPool``, ``Flatten``, ReLUs and
        dropout; or one such layer.
    inputs : Tensor
        A batch of inputs; only the shape of one example matters.

    Returns
    -------
    Tensor
        Scalar, in double precision, since products of squares along deep paths leave the range of single precision.

    Raises
    ------
    ValueError
        For a layer of another type.
    NotFinite
        If the norm is not finite.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> model[0].weight.data, model[2].weight.data = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 2.0]])
    >>> model[2].bias.data = torch.tensor([6.0])
    >>> rsam.margins.path_norm(model, torch.zeros(1, 1))  # of paths with products 3 and 4, and a bias of 6
    tensor(7.8102, dtype=torch.float64)
    """
    model = uncompiled(model)
    device = next((p.device for p in model.parameters()), inputs.device)
    x = torch.ones_like(inputs[:1], dtype=torch.float64, device=device)
    with evaluating(model, ()), torch.no_grad():
        for name, layer in _chain(model, ""):
            x = _squared(name, layer, x)
    total = x.sum().sqrt()
    if not torch.isfinite(total):
        raise NotFinite(f"the path norm is {float(total)}: the weights are not finite, or their squares overflow")
    return total


def _chain(layer: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(layer) is nn.Sequential:
        for child, part in layer._modules.items():  # named_children would leave out the repetitions of a module
            assert part is not None
            yield from _chain(part, f"{name}.{child}" if name else child)
    else:
        yield name, layer


def _squared(name: str, layer: Any, x: Tensor) -> Tensor:
    """Return sums of squares over the paths that end at each number of a layer's output."""
    if isinstance(layer, _PLAIN):
        return x
    if isinstance(layer, nn.Flatten):
        flat: Tensor = layer(x)
        return flat
    if type(layer) is nn.Linear or type(layer) in _CONVOLUTIONS:
        if not isinstance(layer.weight, nn.Parameter):  # a hook computes it in each call, as in pruning
            layer(x.to(layer.weight.dtype))
        y = _linear(layer, x, _squares(layer.weight))
        if layer.bias is None:
            return y
        shape = (-1,) if type(layer) is nn.Linear else (-1, *[1] * (x.dim() - 2))
        return y + _squares(layer.bias).reshape(shape)
    if type(layer) in _BATCH_NORMS:
        scale, shift = _affine(name, layer)
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * scale.square().reshape(shape) + shift.square().reshape(shape)
    if isinstance(layer, _POOLS) and _averages_alike(layer):  # k weights of 1 / k
        sizes = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,)
        sums: Tensor = layer(x)
        return sums / math.prod(sizes * (x.dim() - 2) if len(sizes) == 1 else sizes)
    if isinstance(layer, _GLOBAL_POOLS) and math.prod((y := layer(x)).shape[2:]) == 1:
        return y / math.prod(x.shape[2:])
    raise ValueError(
        f"layer {name!r} is a {type(layer).__name__}, whose paths are not known here; the path norm is of "
        "nn.Sequential of Linear, Conv, BatchNorm, AvgPool (or global), Flatten, ReLU and dropout"
    )


def _squares(t: Tensor) -> Tensor:
    return t.abs().double().square()  # absolute values first, as of complex numbers


def _averages_alike(pool: Any) -> bool:
    """Tell whether the sum over every window is divided by the size of the window."""
    padded = any(pool.padding) if isinstance(pool.padding, tuple) else pool.padding
    return (
        not pool.ceil_mode
        and getattr(pool, "divisor_override", None) is None
        and (pool.count_include_pad or not padded)
    )


def _linear(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Apply the linear map of a layer, without its bias, with another weight."""
    if type(layer) is nn.Linear:
        return F.linear(x, weight)
    padding = layer.padding
    if layer.padding_mode != "zeros":
        x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
    y: Tensor = _CONVOLUTIONS[type(layer)](x, weight, None, layer.stride, padding, layer.dilation, layer.groups)
    return y


def _affine(name: str, norm: Any) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of a batch norm in evaluation mode."""
    if norm.running_var is None:
        raise ValueError(f"layer {name!r} keeps no running statistics, so that it is no affine map in evaluation mode")
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


def _shapes(model: nn.Module, layers: dict[str, nn.Module], inputs: Tensor) -> dict[str, torch.Size]:
    """Return the shapes of the inputs of layers, after a call in which hooks compute weights, as in pruning."""
    shapes: dict[str, list[torch.Size]] = {name: [] for name in layers}

    def note(name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        x = args[0] if args else keywords["input"]
        shapes[name].append(x.shape[1:])

    handles = [
        layer.register_forward_pre_hook(lambda _, *given, name=name: note(name, *given), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with evaluating(model, ()), torch.no_grad():
            model(inputs[:1].to(next((p.device for p in model.parameters()), inputs.device)))
    finally:
        for handle in handles:
            handle.remove()
    for name, found in shapes.items():
        if len(found) != 1:
            raise ValueError(
                f"layer {name!r} is called {len(found)} times in a forward pass, but a product of norms counts it "
                "once, and a convolution has one norm for images of one shape; call it once"
            )
    return {name: found[0] for name, found in shapes.items()}


def _spectral_norm(name: str, layer: Any, shape: torch.Size) -> Tensor:
    with torch.no_grad():
        if type(layer) in _BATCH_NORMS:
            scale = _affine(name, layer)[0]
            if not torch.isfinite(scale).all():
                raise NotFinite(f"weight or running variance of layer {name!r} are not finite")
            return scale.abs().max().to(torch.promote_types(layer.running_var.dtype, torch.float32))
        weight = full(layer.weight)
        if not torch.isfinite(weight).all():
            raise NotFinite(f"the weight of layer {name!r} is not finite")
        size = weight.abs().max()  # to divide by, so that squares stay in range
        return size * _of_scaled(layer, shape, weight / size) if size > 0 else size


def _of_scaled(layer: Any, shape: torch.Size, weight: Tensor) -> Tensor:
    """Return the largest singular value of a layer with another weight, for inputs of that shape."""
    if type(layer) is nn.Linear:
        return _two_norm(weight)
    if math.prod(shape) <= _DENSE:
        units = torch.eye(math.prod(shape), dtype=weight.dtype, device=weight.device).reshape(-1, *shape)
        return _two_norm(_linear(layer, units, weight).flatten(1))
    return _largest_singular_value(layer, shape, weight)


def _two_norm(matrix: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.matrix_norm(matrix, 2)
    return norm


def _largest_singular_value(layer: Any, shape: torch.Size, weight: Tensor) -> Tensor:
    """Compute it by Lanczos iterations with the convolution and its transpose, which autograd provides."""
    x = weight.new_zeros(1, *shape).requires_grad_()
    with torch.enable_grad():
        y = _linear(layer, x, weight)

    def adjoint(u: Tensor) -> Tensor:
        return torch.autograd.grad(y, x, u, retain_graph=True)[0]

    if y.numel() == 1:  # one row, of which ARPACK computes nothing
        norm: Tensor = torch.linalg.vector_norm(adjoint(torch.ones_like(y)))
        return norm

    def on_arrays(function: Callable[[Tensor], Tensor], like: Tensor) -> Callable[[Any], Any]:
        def call(v: Any) -> Any:
            vector = torch.as_tensor(v, dtype=weight.dtype).to(weight.device).reshape(like.shape)
            return function(vector).flatten().cpu().numpy()

        return call

    dtype = weight.new_empty(0).cpu().numpy().dtype
    forward = on_arrays(lambda v: _linear(layer, v, weight), x)
    operator = LinearOperator((y.numel(), x.numel()), forward, on_arrays(adjoint, y), dtype=dtype)
    start = np.random.default_rng(0).standard_normal(min(operator.shape)).astype(dtype)
    values = svds(operator, k=1, v0=start, return_singular_vectors=False)
    return weight.abs().new_tensor(float(values[0]))
