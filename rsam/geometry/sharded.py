"""Compute with sharded parameters: each process with its own points, and norms as sums over all processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Shards", "agree", "like", "local", "local_gradient", "refuse_cut_points", "shards_of", "sum_over_shards"]


def _is_sharded(tensor: Any) -> bool:
    if type(tensor) is Tensor:  # as most are
        return False
    # torch.distributed.tensor is slow to import, and is imported already if there is such a tensor
    sharded = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)  # public from torch 2.5 on
    return sharded is not None and isinstance(tensor, sharded)


@dataclass(frozen=True)
class Shards:
    """Processes over which a parameter is split, each of which holds a part.

    Attributes
    ----------
    mesh : torch.distributed.device_mesh.DeviceMesh
        The processes.
    dims : tuple of int
        Dimensions of the mesh along which the parameter is split; along the others it is replicated.
    """

    mesh: Any
    dims: tuple[int, ...]

    def reduce(self, tensor: Tensor, operation: str) -> Tensor:
        """Reduce a tensor over the processes by ``"SUM"`` or ``"MAX"``; all get the same result."""
        operator = getattr(torch.distributed.ReduceOp, operation)
        kind = self.mesh.device_type  # parts offloaded to the CPU may have no backend of their own
        total = tensor.clone() if tensor.device.type == kind else tensor.to(kind)
        for dim in self.dims:
            torch.distributed.all_reduce(total, operator, group=self.mesh.get_group(dim))
        return total.to(tensor.device)


def shards_of(tensor: Any) -> Shards | None:
    """Return the processes over which a tensor is split; None if each process holds it whole."""
    if not _is_sharded(tensor):
        return None
    dims = tuple(d for d, placement in enumerate(tensor.placements) if not placement.is_replicate())
    return Shards(tensor.device_mesh, dims) if dims else None


def local(tensor: Any) -> Tensor:
    """Return this process's part of a tensor, sharing its memory; the tensor itself if it is not sharded."""
    part: Tensor = tensor._local_tensor if _is_sharded(tensor) else tensor
    return part


def local_gradient(parameter: Any) -> Tensor | None:
    """Return the gradient of this process's part of a parameter."""
    gradient: Any = parameter.grad
    if gradient is None or not _is_sharded(gradient):
        whole: Tensor | None = gradient
        return whole
    if gradient.placements != parameter.placements:  # for example a pending sum, in tensor parallelism
        gradient = gradient.redistribute(placements=parameter.placements)
    part: Tensor = gradient._local_tensor
    return part


def like(parameter: Any, part: Tensor) -> Tensor:
    """Make a tensor from this process's part that is sharded as a parameter; return the part if that is not sharded.

    The part may be a scalar, or differ from the parameter in the dimensions behind those that are split.
    """
    if not _is_sharded(parameter):
        return part
    split = {placement.dim for placement in parameter.placements if not placement.is_replicate()}
    if part.dim() <= max(split, default=-1):
        return part
    shape = torch.Size(parameter.shape[d] if d in split else n for d, n in enumerate(part.shape))
    stride = torch.empty(shape, device="meta").stride()
    sharded: Tensor = type(parameter).from_local(
        part.detach(), parameter.device_mesh, parameter.placements, run_check=False, shape=shape, stride=stride
    )
    return sharded


def refuse_cut_points(parameter: Any, batch_dims: int, description: str) -> None:
    """Refuse a parameter that is split inside its points instead of between them.

    Raises
    ------
    ValueError
        Naming the parameter and the remedy.
    """
    if not _is_sharded(parameter):
        return
    for placement in parameter.placements:
        if not placement.is_replicate() and placement.dim >= batch_dims:
            raise ValueError(
                f"{description} is sharded in dimension {placement.dim}, which cuts through its points; leave it whole "
                "with fully_shard(..., ignored_params={...}) and average its gradient with "
                "rsam.optim.average_gradients([...])"
            )


def sum_over_shards(terms: Sequence[Tensor], shards: Sequence[Shards | None]) -> list[Tensor]:
    """Sum tensors, each over the processes that its parameter is split over; one all-reduce per mesh.

    Every process must call it with the same number of tensors per mesh, in the same order.
    """
    results = list(terms)
    for one in dict.fromkeys(s for s in shards if s is not None):
        chosen = [i for i, s in enumerate(shards) if s == one]
        total = one.reduce(torch.cat([terms[i].reshape(-1) for i in chosen]), "SUM")
        parts = total.split([terms[i].numel() for i in chosen])
        for i, part in zip(chosen, parts, strict=True):
            results[i] = part.reshape(terms[i].shape)
    return results


def agree(flag: bool, shards: Sequence[Shards | None]) -> bool:
    """Tell whether a flag is true in all processes of these meshes; communicate only if there is a mesh."""
    for one in dict.fromkeys(s for s in shards if s is not None):
        device = one.mesh.device_type
        flag = not one.reduce(torch.tensor(float(not flag), device=device), "MAX")
    return flag
