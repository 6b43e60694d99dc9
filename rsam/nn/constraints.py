"""Put a module's weights on a manifold."""

from __future__ import annotations

import warnings
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import geoopt
import torch
from torch import Tensor, nn

from rsam import geometry

__all__ = ["constrain"]

_M = TypeVar("_M", bound=nn.Module)
Where = type[nn.Module] | tuple[type[nn.Module], ...] | str | Tensor

# Modules whose weights are one independent factor a feature.
_SCALES = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)
# Beyond this a loaded weight is off its manifold; geoopt's own tolerance.
_TOLERANCE = 1e-5


def constrain(module: _M, manifold: geoopt.Manifold, where: Where = "weight") -> _M:
    """Put weights of a module on a manifold, in place.

    Each chosen parameter becomes a :class:`geoopt.ManifoldParameter` at the projection of its present value. The
    module's class, forward and ``state_dict`` keys stay; so do deep copies, ``.to()`` and ``load_state_dict``, which
    projects weights that it finds off the manifold. Create the optimizer afterwards.

    Parameters
    ----------
    module : torch.nn.Module
        A layer or a whole model.
    manifold : geoopt.Manifold
        Where the weights shall live. A :class:`rsam.geometry.Kernel` takes weights ``(out, in, *window)`` of any number
        of dimensions.
    where : type, tuple of types, str, or torch.nn.Parameter
        Module types, whose parameter ``weight`` is meant; a pattern (:mod:`fnmatch`) for names as
        ``module.named_parameters()`` gives them, such as ``"weight"`` or ``"features.*.weight"``; or one of the
        parameters itself.

    Returns
    -------
    torch.nn.Module
        ``module``.

    Raises
    ------
    ValueError
        If nothing matches, or a weight cannot live on the manifold; says which and why, and changes nothing.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.LazyLinear(10))
    >>> model = rsam.nn.constrain(model, rsam.geometry.KernelSphere(), torch.nn.Conv2d)
    >>> torch.allclose(model[0].weight.flatten(1).norm(dim=1), torch.ones(8))
    True
    >>> linear = rsam.nn.constrain(torch.nn.Linear(4, 4), geoopt.EuclideanStiefel())
    """
    chosen = _chosen(module, where)
    if not chosen:
        names = [name for name, _ in module.named_parameters()]
        shown = f"a tensor of shape {tuple(where.shape)}" if isinstance(where, Tensor) else repr(where)
        raise ValueError(f"where={shown} matches no parameter of {type(module).__name__}, which has {names}")
    replacements: dict[int, geoopt.ManifoldParameter] = {}
    for name, owner, attribute in chosen:
        weight = owner._parameters[attribute]
        assert weight is not None
        if id(weight) not in replacements:
            _refuse(name, owner, weight, manifold)
            replacements[id(weight)] = _projected(name, weight, _fitting(manifold, weight))
    # a tied weight stays tied: everywhere the module holds it
    for prefix, owner in module.named_modules():
        for attribute, weight in list(owner._parameters.items()):
            if id(weight) in replacements:
                point = replacements[id(weight)]
                setattr(owner, attribute, point)
                name = f"{prefix}.{attribute}" if prefix else attribute
                _BackOntoManifolds.of(owner).constraints[attribute] = (name, point.manifold)
    return module


def _chosen(module: nn.Module, where: Where) -> list[tuple[str, nn.Module, str]]:
    """Full name, owner and attribute of every parameter that ``where`` means."""
    found = []
    for prefix, owner in module.named_modules():
        for attribute, weight in owner._parameters.items():
            name = f"{prefix}.{attribute}" if prefix else attribute
            if isinstance(where, str):
                chosen = fnmatchcase(name, where)
            elif isinstance(where, Tensor):
                chosen = weight is where
            else:
                chosen = isinstance(owner, where) and attribute == "weight"
            if chosen and weight is not None:
                found.append((name, owner, attribute))
        by_type = not isinstance(where, str | Tensor)
        if by_type and isinstance(owner, where) and "weight" not in owner._parameters:  # type: ignore[arg-type]
            reason = "is parametrized already" if hasattr(owner, "parametrizations") else "is computed, or not there"
            raise ValueError(f"{prefix or type(owner).__name__}: its 'weight' is no parameter ({reason})")
    return found


def _fitting(manifold: geoopt.Manifold, weight: Tensor) -> geoopt.Manifold:
    """The kernel manifold for the weight's number of dimensions; others take any batch already."""
    if isinstance(manifold, geometry.Kernel) and weight.dim() >= 2 and manifold.ndim != weight.dim():
        return manifold.with_ndim(weight.dim())
    return manifold


def _refuse(name: str, owner: nn.Module, weight: Tensor, manifold: geoopt.Manifold) -> None:
    reason = None
    if isinstance(weight, nn.parameter.UninitializedParameter):
        reason = "it has no shape yet; run the lazy module once first"
    elif hasattr(owner, "parametrizations") or any(
        type(hook).__name__ in ("WeightNorm", "SpectralNorm") for hook in owner._forward_pre_hooks.values()
    ):
        reason = f"{type(owner).__name__} computes its weight from other parameters; remove that first"
    elif isinstance(weight, geoopt.ManifoldTensor):
        reason = f"it lives on {weight.manifold} already"
    elif not (weight.is_floating_point() or weight.is_complex()):
        reason = f"its dtype is {weight.dtype}"
    elif isinstance(owner, _SCALES):
        reason = f"it scales the features of a {type(owner).__name__}, whose numbers are no vector or matrix"
    elif isinstance(owner, nn.Embedding | nn.EmbeddingBag) and (owner.max_norm is not None or owner.sparse):
        reason = "max_norm would rescale it in each forward, and sparse gradients are not supported"
    elif isinstance(owner, nn.modules.conv._ConvTransposeNd) and isinstance(manifold, geometry.Kernel):
        reason = "a transposed convolution holds its filters in the second dimension, not in the first"
    else:
        ok, explanation = _fitting(manifold, weight).check_point(weight, explain=True)
        if not ok:
            reason = str(explanation)
    if reason is not None:
        shape = "unknown" if isinstance(weight, nn.parameter.UninitializedParameter) else tuple(weight.shape)
        raise ValueError(f"{name} (shape {shape}) cannot go on {manifold}: {reason}")


def _projected(name: str, weight: Tensor, manifold: geoopt.Manifold) -> geoopt.ManifoldParameter:
    with torch.no_grad():
        (point,) = geometry.Product([weight.detach()], manifolds=[manifold]).project_point([weight.detach()])
    if not bool(torch.isfinite(point).all()):
        raise ValueError(
            f"{name} (shape {tuple(weight.shape)}) cannot go on {manifold}: it has no nearest point there (a zero or "
            "non-finite row?)"
        )
    # contiguous, as the weight was: torch's factorisations return transposed memory
    point = point.contiguous() if weight.is_contiguous() else point
    return geoopt.ManifoldParameter(point, manifold=manifold, requires_grad=weight.requires_grad)


class _BackOntoManifolds:
    """Hook after loading: projects weights that came from elsewhere; a point of the manifold stays bitwise.

    geoopt's parameters accept any tensor, and ``load_state_dict(assign=True)`` would replace them by plain ones.
    """

    def __init__(self) -> None:
        self.constraints: dict[str, tuple[str, geoopt.Manifold]] = {}  # full name and manifold by attribute

    def __call__(self, owner: nn.Module, incompatible_keys: Any) -> None:
        for attribute, (name, manifold) in self.constraints.items():
            weight = owner._parameters[attribute]
            assert weight is not None
            point = weight
            if not _is_on(manifold, weight.detach()):
                warnings.warn(f"loaded {name!r} was not on {manifold} and was projected onto it", stacklevel=2)
                point = _projected(name, weight, manifold)
            if not isinstance(weight, geoopt.ManifoldParameter):  # assigned, and shared with the state dict
                setattr(owner, attribute, geoopt.ManifoldParameter(point, manifold, weight.requires_grad))
            elif point is not weight:
                with torch.no_grad():
                    weight.copy_(point)

    @classmethod
    def of(cls, owner: nn.Module) -> _BackOntoManifolds:
        """The one hook of a module, registered at first."""
        for hook in owner._load_state_dict_post_hooks.values():
            if isinstance(hook, cls):
                return hook
        hook = cls()
        owner.register_load_state_dict_post_hook(hook)
        return hook


def _is_on(manifold: geoopt.Manifold, x: Tensor) -> bool:
    tolerance = max(_TOLERANCE, 8 * torch.finfo(x.dtype).eps)
    half = x.dtype in (torch.bfloat16, torch.float16)
    return manifold.check_point_on_manifold(x.float() if half else x, atol=tolerance, rtol=tolerance)
