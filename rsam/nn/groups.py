"""Group parameters by whether they should have weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rsam import geometry
from rsam.nn.selection import check_module, scales_features

__all__ = ["parameter_groups"]

# torch's optimizers take (name, parameter) pairs since this version
_NAMES_SINCE = (2, 6)


def parameter_groups(
    model: nn.Module, weight_decay: float, *, constrained: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Group a model's parameters so that weight decay applies to plain weights only.

    Plain parameters of two dimensions or more decay. Biases, weights of norm layers and other vectors do not, nor do
    parameters on manifolds: the manifold fixes the scale that decay would shrink (on a sphere the Riemannian gradient
    of decay is zero), or gives the origin another meaning.

    Parameters
    ----------
    model : torch.nn.Module
        The model; each parameter is listed once, however many modules share it, frozen ones too.
    weight_decay : float
        Decay of plain weights; not negative.
    constrained : dict, optional
        Options of the group of parameters on manifolds, such as ``{"lr": 0.3}``.

    Returns
    -------
    list of dict
        Up to three groups for any optimizer: decayed, not decayed, and on manifolds; empty groups are left out. They
        hold pairs ``(name, parameter)``, or before torch 2.6, whose optimizers do not take pairs, parameters.

    Raises
    ------
    TypeError
        If ``model`` is no :class:`torch.nn.Module`.
    ValueError
        If ``weight_decay`` is negative, or a lazy parameter has no shape yet.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 8, 3))
    >>> model = rsam.nn.constrain(model, rsam.geometry.KernelSphere(), "0.weight")
    >>> groups = rsam.nn.parameter_groups(model, weight_decay=5e-4, constrained={"lr": 0.3})
    >>> optimizer = rsam.RSAM(groups, lr=0.1, momentum=0.9, rho=0.1)
    >>> [(len(group["params"]), group["weight_decay"], group["lr"]) for group in optimizer.param_groups]
    [(1, 0.0005, 0.1), (4, 0.0, 0.1), (1, 0.0, 0.3)]
    """
    check_module(model)
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
    factors = {id(p) for layer in model.modules() for p in layer.parameters(recurse=False) if scales_features(layer, p)}
    decayed: list[Any] = []
    undecayed: list[Any] = []
    on_manifolds: list[Any] = []
    for name, p in model.named_parameters():
        if not geometry.is_plain(p):
            members = on_manifolds
        elif id(p) in factors or p.dim() < 2 or name.rpartition(".")[2] == "bias":
            members = undecayed
        else:
            members = decayed
        members.append(_entry(name, p))
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
        {"params": on_manifolds, "weight_decay": 0.0, **(constrained or {})},
    ]
    return [group for group in groups if group["params"]]


def _entry(name: str, parameter: Tensor) -> Any:
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    return (name, parameter) if version >= _NAMES_SINCE else parameter
