"""Train in several processes: let each ascend by itself, keep manifolds through sharding, compare replicas."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from geoopt.optim.mixin import OptimMixin
from torch import Tensor, nn

from rsam import geometry
from rsam.geometry.sharded import shards_of
from rsam.optim.groups import Groups, names_in_group, parameter_names
from rsam.optim.riemannian import RiemannianOptimizer

if TYPE_CHECKING:
    from rsam.optim.rsam import RSAM

__all__ = [
    "Replicas",
    "average_gradients",
    "check_replicas",
    "keep_manifolds",
    "refuse_sharded",
    "stepping_optimizer",
]

_ZERO = "torch.distributed.optim.zero_redundancy_optimizer"
#: Number of elements sent at once: 32 MB of float32, about as much as DistributedDataParallel sends.
_BUCKET = 2**23


class Replicas:
    """Processes that train copies of a model, ascend separately, and average the gradients brought back to the weights.

    Parameters
    ----------
    model : torch.nn.parallel.DistributedDataParallel, optional
        The model. Without it the processes are those of the default group.

    Raises
    ------
    TypeError
        For another model.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        self.group: Any = None
        if model is None:
            return
        if not isinstance(model, nn.parallel.DistributedDataParallel):
            raise TypeError(
                f"local_ascent takes the model that is wrapped in DistributedDataParallel, got {type(model).__name__}"
            )
        self.group = model.process_group

    @staticmethod
    def take_over(model: nn.Module) -> None:
        """Stop a model from averaging gradients, which are those at perturbed weights, as its ``no_sync`` does."""
        model.require_backward_grad_sync = False  # type: ignore[assignment]

    def __deepcopy__(self, memo: dict[int, Any]) -> Replicas:
        return self  # a group of processes has no copy

    def __reduce__(self) -> Any:
        return Replicas, ()

    def spread(self, norm: Tensor) -> Tensor:
        """Make a norm nan in all processes if it is not finite in one, so that all of them skip or raise."""
        flag = norm.detach() * 0
        dist.all_reduce(flag, group=self.group)
        return norm + flag

    @torch.no_grad()
    def average(self, params: Iterable[Tensor]) -> None:
        """Replace gradients by their means; where some processes have none, it counts as zero."""
        params = [p for p in params if p.requires_grad]
        if not params:
            return
        counts = torch.tensor([float(p.grad is not None) for p in params], device=params[0].device)
        dist.all_reduce(counts, group=self.group)
        # read only if a gradient is missing here: otherwise none is missing in all processes
        missing = {p for p in params if p.grad is None}
        nowhere = {p for p, n in zip(params, counts.tolist(), strict=True) if n == 0} if missing else set()
        size = dist.get_world_size(self.group)
        sent = []
        for bucket in _buckets(params):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
            flat /= size  # before the sum, which could overflow
            sent.append((bucket, flat, dist.all_reduce(flat, group=self.group, async_op=True)))
        for bucket, flat, work in sent:
            work.wait()
            for p, mean in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = None if p in nowhere else mean.view(p.shape)


def _buckets(params: list[Tensor]) -> Iterator[list[Tensor]]:
    kinds: dict[Any, list[Tensor]] = {}
    for p in params:
        kinds.setdefault((p.dtype, p.device), []).append(p)
    for members in kinds.values():
        bucket: list[Tensor] = []
        for p in members:
            if bucket and sum(q.numel() for q in bucket) + p.numel() > _BUCKET:
                yield bucket
                bucket = []
            bucket.append(p)
        yield bucket


def average_gradients(params: Iterable[Tensor], group: Any = None) -> list[Any]:
    """Average gradients over processes in each backward pass, for parameters that nothing else averages.

    For example, each process holds the ``ignored_params`` of ``fully_shard`` whole, with its own gradient.

    Parameters
    ----------
    params : iterable of Tensor
        Parameters that have equal values in all processes and take part in each backward pass.
    group : torch.distributed.ProcessGroup, optional
        The processes; the default group if not given.

    Returns
    -------
    list
        Handles with a method ``remove``, one per parameter.

    Examples
    --------
    >>> import torch, rsam
    >>> torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> handles = rsam.optim.average_gradients([p])
    >>> p.sum().backward()
    >>> p.grad  # the mean over one process
    tensor([1., 1.])
    >>> torch.distributed.destroy_process_group()
    """
    size = dist.get_world_size(group)

    def average(p: Tensor) -> None:
        # the gradient from before is a mean already, and does not change
        assert p.grad is not None
        p.grad /= size
        dist.all_reduce(p.grad, group=group)

    return [p.register_post_accumulate_grad_hook(average) for p in params]


@contextmanager
def keep_manifolds(model: nn.Module) -> Iterator[None]:
    """Put the parameters of a model back on their manifolds at the end of this context, for example after sharding.

    The manifold of a parameter is an attribute, which is lost where a parameter is replaced: by ``fully_shard``, by
    ``.to("meta")``, and by conversions with ``torch.__future__.set_swap_module_params_on_conversion``.

    Parameters
    ----------
    model : torch.nn.Module
        The model; its parameters must keep their names.

    Raises
    ------
    ValueError
        At the end, for a parameter that does not exist any more, or is split inside its points; names it.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> model = rsam.nn.constrain(torch.nn.Linear(2, 3), geoopt.Sphere())
    >>> with rsam.optim.keep_manifolds(model):
    ...     _ = model.to("meta")
    >>> model.weight.manifold.name
    'Sphere'
    """
    parameters = model.named_parameters(remove_duplicate=False)
    manifolds = {name: geometry.manifold_of(p) for name, p in parameters if not geometry.is_plain(p)}
    yield
    now = dict(model.named_parameters(remove_duplicate=False))
    gone = sorted(manifolds.keys() - now.keys())
    if gone:
        raise ValueError(f"{gone[0]!r} has another name by now, so that its manifold cannot be put back")
    for name, manifold in manifolds.items():
        now[name].manifold = manifold  # type: ignore[attr-defined]
    geometry.Product((name, now[name]) for name in manifolds)  # refuses what is sharded through its points


def check_replicas(optimizer: torch.optim.Optimizer, group: Any = None) -> None:
    """Refuse parameters that differ between processes that should train copies of one model.

    Every process must call it. Copies drift apart if gradients are not averaged, for example with ``no_sync`` around
    the first of the two passes of :class:`rsam.RSAM`.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer; its parameters are compared by sums of their numbers and of squares.
    group : torch.distributed.ProcessGroup, optional
        The processes; the default group if not given.

    Raises
    ------
    RuntimeError
        Naming the first parameter that differs; or if processes have other parameters, in number or size.

    Notes
    -----
    Parameters that are split over processes, by ``fully_shard``, are left out.

    Examples
    --------
    >>> import torch, rsam
    >>> torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    >>> rsam.optim.check_replicas(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1))
    >>> torch.distributed.destroy_process_group()
    """
    names = parameter_names(optimizer.param_groups)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    whole = [(name, p) for name, p in zip(names, params, strict=True) if shards_of(p) is None]
    if not whole:
        return
    device = whole[0][1].device
    own = torch.tensor([len(whole), sum(p.numel() for _, p in whole)], device=device)
    sizes = torch.cat((own, -own))
    dist.all_reduce(sizes, dist.ReduceOp.MAX, group=group)
    if (sizes[:2] + sizes[2:]).any():  # tensors of unequal lengths would end the processes, or hang
        raise RuntimeError(
            f"the optimizer has {len(whole)} parameters of {int(own[1])} numbers here, and others in another process; "
            "make it from copies of one model"
        )
    sums = [f(p.detach()) for _, p in whole for f in (_sum, _norm)]
    # a sum that is not a number in all processes is the same in all
    least = torch.stack([s.to(device) for s in sums]).nan_to_num(math.inf, math.inf, -math.inf)
    most = least.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN, group=group)
    dist.all_reduce(most, dist.ReduceOp.MAX, group=group)
    for (name, p), same in zip(whole, (least == most).view(-1, 2).all(1).tolist(), strict=True):
        if not same:
            raise RuntimeError(
                f"{name} (shape {tuple(p.shape)}) differs between processes: their gradients are not averaged before "
                "the step. Let DistributedDataParallel average both passes, or ascend in each process alone with "
                "RSAM(..., local_ascent=model)"
            )


# in double precision, in which sums of half precision do not overflow
def _sum(p: Tensor) -> Tensor:
    return p.real.sum(dtype=torch.float64)


def _norm(p: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(p, dtype=torch.promote_types(p.dtype, torch.float64))
    return norm


# -- what RSAM refuses ---------------------------------------------------------------------------------------------


def stepping_optimizer(base: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer that takes the steps: for ZeroRedundancyOptimizer the one that it made."""
    module = sys.modules.get(_ZERO)
    return base.optim if module is not None and isinstance(base, module.ZeroRedundancyOptimizer) else base


def refuse_sharded(optimizer: RSAM, groups: Groups, group_index: int) -> None:
    """Refuse options that need a whole parameter or its state if a process has only a part.

    Raises
    ------
    ValueError
        Naming the parameter or the option.
    """
    base, group = optimizer.base_optimizer, groups[group_index]
    stepping = stepping_optimizer(base)
    if optimizer.direction == "momentum" and group["rho"] > 0 and stepping is not base:
        raise ValueError(
            'direction="momentum" needs the momentum of all parameters, of which ZeroRedundancyOptimizer keeps only '
            "a part in each process; ascend along the gradient"
        )
    for p, name in zip(group["params"], names_in_group(groups, group_index), strict=True):
        if shards_of(p) is None:
            continue
        if optimizer.local_ascent is not None:
            raise ValueError(
                f"{name} is sharded, so that no process has a gradient of its own; local_ascent needs "
                "DistributedDataParallel"
            )
        if (
            not geometry.is_plain(p)
            and isinstance(stepping, OptimMixin)
            and not isinstance(stepping, RiemannianOptimizer)
        ):
            raise ValueError(
                f"geoopt's {type(stepping).__name__} takes {name}, which is sharded, for a plain parameter; use "
                "rsam.optim.RiemannianSGD or rsam.optim.RiemannianAdam as base_optimizer"
            )
