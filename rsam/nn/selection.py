"""Choose parameters of a module by name, by type of layer, or by a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod

__all__ = ["Slot", "Where", "check_module", "choose", "computed_names", "scales_features"]

_Criterion = str | type[nn.Module] | Tensor | Callable[[str, Tensor], bool]
Where = _Criterion | Sequence[_Criterion]

# Modules whose weights are one independent factor per feature.
_SCALES = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)
_SHOWN = 3  # number of names in a message, since a model may have hundreds


class Slot(NamedTuple):
    """Attribute of a module that holds a parameter; ``weight`` is None if it is computed from other parameters."""

    name: str
    owner: nn.Module
    attribute: str
    weight: Tensor | None


def check_module(module: Any) -> None:
    """Refuse what is no module.

    Raises
    ------
    TypeError
        Naming its type.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"this takes a torch.nn.Module, got {type(module).__name__}")


def computed_names(owner: nn.Module) -> list[str]:
    """Return the attributes of a module that are computed by parametrizations, torch's older norms or pruning."""
    names = list(getattr(owner, "parametrizations", ()))
    for hook in owner._forward_pre_hooks.values():
        if type(hook).__name__ in ("WeightNorm", "SpectralNorm"):
            names.append(hook.name)  # type: ignore[attr-defined]
        elif isinstance(hook, BasePruningMethod):
            names.append(hook._tensor_name)
    return names


def scales_features(owner: nn.Module, weight: Tensor) -> bool:
    """Tell whether a weight holds one independent factor per feature, as weights of norm layers do."""
    if isinstance(owner, _SCALES):
        return True
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return False
    return "norm" in type(owner).__name__.lower() and weight.dim() <= 1  # norm layers that are not torch's


def choose(module: nn.Module, where: Where, exclude: Where = ()) -> list[Slot]:
    """List the parameters that ``where`` selects and ``exclude`` does not.

    Raises
    ------
    ValueError
        If none is left, a name or pattern matches nothing, or a layer of a selected type has no weight.
    TypeError
        For a criterion of another kind.
    """
    slots, wanted, unwanted = list(_slots(module)), _criteria(where), _criteria(exclude)
    for word, criteria in (("where", wanted), ("exclude", unwanted)):
        for criterion in criteria:
            if isinstance(criterion, str) and not any(fnmatchcase(slot.name, criterion) for slot in slots):
                raise ValueError(
                    f"{word}={criterion!r} matches no parameter of {type(module).__name__}; {_near(criterion, slots)}"
                )
    _refuse_layers_without_weight(module, wanted, unwanted)
    means = [slot for slot in slots if any(_means(criterion, slot) for criterion in wanted)]
    chosen = [slot for slot in means if not any(_excludes(criterion, slot) for criterion in unwanted)]
    if means and not chosen:
        raise ValueError(f"exclude={_shown(unwanted)} leaves none of the {len(means)} parameters that where selects")
    if not chosen:
        raise ValueError(
            f"where={_shown(wanted)} matches no parameter of {type(module).__name__}; {_hint(wanted, slots)}"
        )
    return chosen


def _criteria(where: Where) -> list[_Criterion]:
    criteria: list[Any] = list(where) if isinstance(where, list | tuple | set | frozenset) else [where]
    for criterion in criteria:
        if isinstance(criterion, nn.Module) or not (isinstance(criterion, str | Tensor) or callable(criterion)):
            raise TypeError(
                "where and exclude take names, types of modules, parameters, functions of name and parameter, or lists "
                f"of these, got {type(criterion).__name__}; for a single module constrain(model.layer, manifold)"
            )
    return criteria


def _slots(module: nn.Module) -> Iterator[Slot]:
    for prefix, owner in module.named_modules():
        start = f"{prefix}." if prefix else ""
        for attribute in computed_names(owner):
            yield Slot(start + attribute, owner, attribute, None)
        for attribute, weight in owner._parameters.items():
            if weight is not None:
                yield Slot(start + attribute, owner, attribute, weight)


def _means(criterion: _Criterion, slot: Slot) -> bool:
    if isinstance(criterion, str):
        return slot.name == criterion or (fnmatchcase(slot.name, criterion) and not _needs_its_name(slot))
    if isinstance(criterion, Tensor):
        return slot.weight is criterion
    if isinstance(criterion, type):
        return isinstance(slot.owner, criterion) and slot.attribute == "weight"
    return slot.weight is not None and criterion(slot.name, slot.weight)


def _excludes(criterion: _Criterion, slot: Slot) -> bool:
    """Match as :func:`_means`, but let patterns match norm layers too, and types every parameter of a layer."""
    if isinstance(criterion, str):
        return fnmatchcase(slot.name, criterion)
    return isinstance(slot.owner, criterion) if isinstance(criterion, type) else _means(criterion, slot)


def _needs_its_name(slot: Slot) -> bool:
    """Tell whether patterns skip a parameter: that of a norm layer, or one from which another is computed."""
    if isinstance(slot.owner, ParametrizationList):
        return True
    return slot.weight is not None and scales_features(slot.owner, slot.weight)


def _refuse_layers_without_weight(module: nn.Module, wanted: list[_Criterion], unwanted: list[_Criterion]) -> None:
    types = tuple(criterion for criterion in wanted if isinstance(criterion, type))
    others = tuple(criterion for criterion in unwanted if isinstance(criterion, type))
    for name, owner in module.named_modules():
        meant = isinstance(owner, types) and not isinstance(owner, others)
        if meant and "weight" not in {*owner._parameters, *computed_names(owner)}:
            raise ValueError(
                f"{name or 'the module'} ({type(owner).__name__}) has no parameter 'weight'; name another by a pattern"
            )


def _shown(criteria: list[_Criterion]) -> str:
    words = []
    for criterion in criteria:
        if isinstance(criterion, Tensor):
            words.append(f"a tensor of shape {tuple(criterion.shape)}")
        else:
            words.append(criterion.__name__ if isinstance(criterion, type) else repr(criterion))
    return ", ".join(words)


def _near(pattern: str, slots: list[Slot]) -> str:
    names = [slot.name for slot in slots]
    close = get_close_matches(pattern, names, n=_SHOWN, cutoff=0.3) or names[:_SHOWN]
    return f"the closest of its {len(names)} names are {', '.join(map(repr, close))}" if close else "it has none"


def _hint(wanted: list[_Criterion], slots: list[Slot]) -> str:
    patterns = [criterion for criterion in wanted if isinstance(criterion, str)]
    if patterns:
        return "patterns skip norm layers; name these exactly"
    types = sorted({type(slot.owner).__name__ for slot in slots if slot.attribute == "weight"})
    return f"its layers with weights are {', '.join(types[:_SHOWN])}{' ...' if len(types) > _SHOWN else ''}"
