"""Put a module's weights on a manifold."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import geoopt
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from rsam import constrained, geometry
from rsam.geometry.sharded import local, shards_of
from rsam.nn.selection import Slot, Where, check_module, choose, computed_names, scales_features

__all__ = ["constrain", "unconstrain"]

_M = TypeVar("_M", bound=nn.Module)

# Error above which a loaded weight counts as off its manifold; geoopt's own tolerance.
_TOLERANCE = 1e-5


def constrain(module: _M, manifold: geoopt.Manifold, where: Where = "weight", exclude: Where = ()) -> _M:
    """Put weights of a module on a manifold, in place.

    Each chosen parameter becomes a :class:`geoopt.ManifoldParameter` at the projection of its present value. Class,
    forward and ``state_dict`` keys of the module do not change. Deep copies, pickles, conversions by ``.to()``
    (except to the ``meta`` device) and ``load_state_dict`` keep the manifolds; the last projects weights that are off
    the manifold. Tie weights before, and create the optimizer afterwards: a module that is given a constrained weight
    later loads it without projecting.

    A weight that stacks square matrices, such as ``weight_hh_l0`` of a GRU or an LSTM, becomes one matrix with
    orthonormal columns on a Stiefel manifold. The columns of each gate's own matrix are then shorter than 1. The
    projection onto a ball
    puts all points outside on its edge, where steps hardly move them: make the weight of an embedding small first.

    On the ``meta`` device there is nothing to project yet: ``load_state_dict`` puts the weights on the manifold, with
    ``assign=True`` or after ``to_empty``. If ``to_empty`` is followed by an initialisation instead, constrain the
    module again, since ``to_empty`` makes new parameters; until then a forward pass raises.

    Apply :mod:`torch.nn.utils.parametrize`, weight norm, spectral norm and pruning to other weights only. On a
    constrained weight torch refuses some of them; after others ``load_state_dict`` raises.

    Parameters
    ----------
    module : torch.nn.Module
        A layer or a whole model.
    manifold : geoopt.Manifold
        The manifold. A :class:`rsam.geometry.Kernel` takes weights ``(out, in, *window)`` of any number of dimensions.
    where : str, type, torch.nn.Parameter, callable, or list of these
        The weights to put on the manifold. A name in ``module.named_parameters()`` or a pattern (:mod:`fnmatch`) for
        such names, for example ``"weight"`` or ``"features.*.weight"``; a type of modules, for their parameters
        ``weight``; one of the parameters itself; a function of name and parameter that returns a bool; or a list of
        these. Patterns do not match the weights of norm layers.
    exclude : as ``where``
        Weights to leave out; for a type of modules all their parameters.

    Returns
    -------
    torch.nn.Module
        ``module``.

    Raises
    ------
    ValueError
        If nothing matches, a name or pattern in either list matches nothing, or a weight cannot live on the manifold.
        The message says which and why; nothing is changed then.
    TypeError
        If ``module`` is no :class:`torch.nn.Module`, or the manifold no :class:`geoopt.Manifold`; names its class and
        package. If ``where`` or ``exclude`` is a module or another thing that is not listed above.
    UnsupportedOperation
        For a manifold that :mod:`rsam.geometry` refuses as a whole.

    See Also
    --------
    unconstrain : Undoes it.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.LazyLinear(10))
    >>> model = rsam.nn.constrain(model, rsam.geometry.KernelSphere(), torch.nn.Conv2d)
    >>> torch.allclose(model[0].weight.flatten(1).norm(dim=1), torch.ones(8))
    True
    >>> linear = rsam.nn.constrain(torch.nn.Linear(4, 4), geoopt.EuclideanStiefel())
    >>> layers = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("query", "key", "head")})
    >>> layers = rsam.nn.constrain(layers, geoopt.Sphere(), "*.weight", exclude="head.*")
    >>> [name for name, p in layers.named_parameters() if isinstance(p, geoopt.ManifoldParameter)]
    ['query.weight', 'key.weight']
    """
    check_module(module)
    geometry.geometry_of(manifold)
    points: dict[int, tuple[Tensor, geoopt.Manifold]] = {}
    for slot in choose(module, where, exclude):
        weight = _usable(slot, manifold)
        if id(weight) not in points:
            fitting = _fitting(manifold, weight)
            points[id(weight)] = (_projected(slot.name, weight, fitting), fitting)
    # a tied weight is the same object in all modules that hold it, and each of them checks it
    for prefix, owner in module.named_modules():
        for attribute, held in owner._parameters.items():
            if held is not None and id(held) in points:
                name = f"{prefix}.{attribute}" if prefix else attribute
                _BackOntoManifolds.of(owner).constraints[attribute] = (name, points[id(held)][1])
                if held.is_meta and not any(isinstance(h, _NoneLost) for h in owner._forward_pre_hooks.values()):
                    owner.register_forward_pre_hook(_NoneLost())
    for weight in list(module.parameters()):
        if id(weight) in points:
            weight.data, fitting = points[id(weight)]
            weight.grad = None  # it was the gradient at another value
            # the object changes its class, so that ties and other references stay, as torch's lazy parameters do
            weight.__class__ = geoopt.ManifoldParameter
            weight.manifold = fitting  # type: ignore[attr-defined]
    return module


def unconstrain(module: _M) -> _M:
    """Make the weights that :func:`constrain` put on manifolds plain parameters again, in place.

    They keep their values, and are plain in all modules that share them. Parameters of geoopt's own layers stay on
    their manifolds. Create the optimizer afterwards.

    Parameters
    ----------
    module : torch.nn.Module
        A layer or a whole model.

    Returns
    -------
    torch.nn.Module
        ``module``.

    Raises
    ------
    TypeError
        If ``module`` is no :class:`torch.nn.Module`.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> linear = rsam.nn.constrain(torch.nn.Linear(4, 4), geoopt.Sphere())
    >>> type(rsam.nn.unconstrain(linear).weight)
    <class 'torch.nn.parameter.Parameter'>
    """
    check_module(module)
    weights: list[Tensor] = []
    for owner in module.modules():
        for key, hook in list(owner._load_state_dict_post_hooks.items()):
            if isinstance(hook, _BackOntoManifolds):
                for attribute in hook.constraints:
                    weights += _make_plain(owner, attribute)
                del owner._load_state_dict_post_hooks[key]
                constrained.forget(owner)
        for key, hook in list(owner._forward_pre_hooks.items()):
            if isinstance(hook, _NoneLost):
                del owner._forward_pre_hooks[key]
    constrained.forget_weights(weights)
    return module


def _make_plain(owner: nn.Module, attribute: str) -> Sequence[Tensor]:
    # if the weight was parametrized or pruned since, the parameter that it is computed from is on the manifold
    candidates = [owner._parameters.get(attribute), owner._parameters.get(f"{attribute}_orig")]
    if is_parametrized(owner, attribute):
        candidates += owner.parametrizations[attribute].parameters(recurse=False)  # type: ignore[index, union-attr]
    weights = [weight for weight in candidates if isinstance(weight, geoopt.ManifoldParameter)]
    for weight in weights:
        del weight.manifold
        weight.__class__ = nn.Parameter  # type: ignore[assignment]  # the same object as a plain parameter again
    return weights


def _fitting(manifold: geoopt.Manifold, weight: Tensor) -> geoopt.Manifold:
    """Return a kernel manifold for the weight's number of dimensions; other manifolds take any batch."""
    if isinstance(manifold, geometry.Kernel) and weight.dim() >= 2 and manifold.ndim != weight.dim():
        return manifold.with_ndim(weight.dim())
    return manifold


def _usable(slot: Slot, manifold: geoopt.Manifold) -> Tensor:
    """Return the weight of a slot, or raise if it cannot live on the manifold."""
    reason = _objection(slot, manifold)
    if reason is None:
        assert slot.weight is not None
        return slot.weight
    shaped = slot.weight is not None and not isinstance(slot.weight, nn.parameter.UninitializedParameter)
    shape = f" (shape {tuple(slot.weight.shape)})" if shaped else ""  # type: ignore[union-attr]
    remedy = ""
    if isinstance(manifold, geoopt.Stiefel) and shaped:
        remedy = "; rsam.geometry.KernelStiefel() takes wide weights, and kernels of convolutions"
    raise ValueError(f"{slot.name}{shape} cannot go on {manifold}: {reason}{remedy}")


def _objection(slot: Slot, manifold: geoopt.Manifold) -> str | None:
    _, owner, attribute, weight = slot
    layer = type(owner).__name__
    if weight is None:
        return f"{layer} computes it, parametrized already (or normalised, or pruned); remove that first, or exclude it"
    if isinstance(owner, torch.jit.ScriptModule):
        return f"{layer} is compiled by torch.jit, which takes no hooks; constrain the module before"
    if isinstance(owner, ParametrizationList) or any(attribute.startswith(f"{n}_") for n in computed_names(owner)):
        return f"{layer} computes its weight from this; remove that first"
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return "it has no shape yet; run the lazy module once first"
    if isinstance(weight, geoopt.ManifoldTensor):
        return f"it lives on {weight.manifold} already"
    if type(weight) is not nn.Parameter:
        return f"it is a {type(weight).__name__}, which has a meaning of its own; constrain it before it becomes one"
    if not (weight.is_floating_point() or weight.is_complex()):
        return f"its dtype is {weight.dtype}"
    if scales_features(owner, weight):
        return f"it scales the features of a {layer}, whose numbers are no vector or matrix"
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag) and (owner.max_norm is not None or owner.sparse):
        return "max_norm would rescale it in each forward, and sparse gradients are not supported"
    if isinstance(owner, nn.modules.conv._ConvTransposeNd) and isinstance(manifold, geometry.Kernel):
        return "a transposed convolution holds its filters in the second dimension, not in the first"
    ok, explanation = _fitting(manifold, weight).check_point(weight, explain=True)
    return None if ok else str(explanation)


@torch.no_grad()
def _projected(name: str, weight: Tensor, manifold: geoopt.Manifold) -> Tensor:
    """Project a weight onto the manifold, and keep its memory layout."""
    weight = weight.detach()
    if weight.is_meta:
        return weight
    (point,) = geometry.Product([weight], manifolds=[manifold], names=[repr(name)]).project_point([weight])
    if not bool(torch.isfinite(point).all()):
        raise ValueError(
            f"{name} (shape {tuple(weight.shape)}) cannot go on {manifold}: it has no nearest point there (a zero or "
            "non-finite row?)"
        )
    # torch's factorisations return transposed memory, and unflattened kernels are not channels_last
    return torch.empty_like(weight).copy_(point)


class _BackOntoManifolds:
    """Hook after loading that projects weights off the manifold; weights on it stay bitwise.

    geoopt's parameters accept any tensor, and ``load_state_dict(assign=True)`` replaces them by plain ones.
    """

    def __init__(self, owner: nn.Module) -> None:
        self.constraints: dict[str, tuple[str, geoopt.Manifold]] = {}  # by attribute: full name, manifold
        self._remember(owner)

    def _remember(self, owner: nn.Module) -> None:
        self._owner: Callable[[], nn.Module | None] = weakref.ref(owner)
        constrained.remember(owner, self.constraints)

    def __getstate__(self) -> dict[str, Any]:  # of copies, too, whose owner is the copy
        return {"constraints": self.constraints, "owner": self._owner()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.constraints = state["constraints"]
        self._owner = lambda: None
        if state.get("owner") is not None:  # older pickles have none
            self._remember(state["owner"])

    def __call__(self, owner: nn.Module, incompatible_keys: Any) -> None:
        for attribute, (name, manifold) in self.constraints.items():
            weight = owner._parameters.get(attribute)
            if weight is None:
                raise RuntimeError(constrained.no_parameter(name, manifold))
            if shards_of(weight) is not None:  # each process checks its own points
                geometry.Product([(name, weight)], manifolds=[manifold])  # refuses split points
                weight.manifold = manifold  # type: ignore[attr-defined]
                part = local(weight.detach())
                part.copy_(_back_on(name, part, manifold))
                continue
            point = _back_on(name, weight, manifold)
            if not isinstance(weight, geoopt.ManifoldParameter):  # assigned: the state dict's own tensor
                setattr(owner, attribute, geoopt.ManifoldParameter(point, manifold, weight.requires_grad))
            elif point is not weight:
                with torch.no_grad():
                    weight.copy_(point)

    @classmethod
    def of(cls, owner: nn.Module) -> _BackOntoManifolds:
        """Return the hook of a module, and register it if it is the first."""
        for hook in owner._load_state_dict_post_hooks.values():
            if isinstance(hook, cls):
                return hook
        hook = cls(owner)
        owner.register_load_state_dict_post_hook(hook)
        return hook


class _NoneLost:
    """Hook before the forward pass that raises if ``to_empty`` has dropped a constraint made on ``meta``."""

    def __call__(self, owner: nn.Module, args: Any) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return  # sharded modules compute with temporary plain parameters
        for attribute, (name, manifold) in _BackOntoManifolds.of(owner).constraints.items():
            weight = owner._parameters.get(attribute)
            if type(weight) is nn.Parameter and not weight.is_meta:
                raise RuntimeError(
                    f"{name!r} lost {manifold} when it left the meta device; load a state dict, or call "
                    "rsam.nn.constrain again once it has values"
                )


def _back_on(name: str, weight: Tensor, manifold: geoopt.Manifold) -> Tensor:
    """Return the weight if it is on the manifold, else its projection, with a warning."""
    if weight.is_meta or _is_on(manifold, weight.detach()):
        return weight
    projected = _projected(name, weight, manifold)
    # geoopt tests squares, which cancel for points far out: a point that its projection does not move is on it
    if torch.allclose(projected, weight, rtol=_tolerance(weight), atol=_tolerance(weight)):
        return weight
    warnings.warn(f"loaded {name!r} was not on {manifold} and was projected onto it", stacklevel=3)
    return projected


def _tolerance(x: Tensor) -> float:
    return max(_TOLERANCE, 8 * torch.finfo(x.dtype).eps)


def _is_on(manifold: geoopt.Manifold, x: Tensor) -> bool:
    tolerance = _tolerance(x)
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    constants = (*manifold.parameters(), *manifold.buffers())
    if any(constant.dtype != x.real.dtype for constant in constants):  # geoopt refuses to compare these with points
        manifold = copy.deepcopy(manifold).to(x.real.dtype)
    inside: bool = manifold.check_point_on_manifold(x, atol=tolerance, rtol=tolerance)
    return inside
