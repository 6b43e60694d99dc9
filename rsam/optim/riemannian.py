"""Define the base of Riemannian SGD and Adam: blocks with their state, and steps that are all or nothing."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from geoopt.optim.mixin import OptimMixin
from torch import Tensor

from rsam import geometry
from rsam.errors import StalePlan
from rsam.geometry.blocks import Block
from rsam.geometry.linalg import point_sums
from rsam.geometry.sharded import local
from rsam.optim.groups import check_parameters, parameter_names, refuse_state_of_others, space_of
from rsam.optim.stacks import StackedEntry

__all__ = ["RiemannianOptimizer", "State"]

State = dict[str, Tensor]
_SPARSE = "Riemannian optimizers do not support sparse gradients; use one of geoopt's that is called Sparse"


class _Work:
    """A block of parameters on a manifold, the index of its group, and its state."""

    def __init__(self, block: Block, label: int, params: Sequence[Tensor]) -> None:
        self.block, self.label = block, label
        self.members = [params[i] for i in block.indices]
        self.sharded = block.shards is not None
        self.entries: dict[str, StackedEntry] = {}
        self.incomplete: set[str] = set()  # entries that some parameters lack
        self.states: list[dict[str, Any]] = []

    @property
    def points(self) -> list[Tensor]:
        """Values of the parameters; of sharded ones the part of this process."""
        return list(map(local, self.members)) if self.sharded else self.members

    def entry(self, name: str, template: Tensor) -> StackedEntry:
        """Make an entry of the state."""
        return StackedEntry(name, template, self.members)


@dataclass
class _Update:
    """Result of a step for a block or a part of one, not yet written."""

    work: _Work
    part: Block
    points: Tensor
    entries: State


class RiemannianOptimizer(OptimMixin, torch.optim.Optimizer):
    """Base of optimizers that raise the index of ``p.grad``, retract, and transport their buffers to the new point.

    Equal small parameters on a manifold are one block: their points, gradients and state are stacked, and ``state[p]``
    holds views of the stacks. All blocks are computed before any of them is written, so that an exception in one leaves
    everything as it was. Plain parameters come last, and are stepped by torch's own functions. ``p.grad`` is never
    written to.
    """

    #: Names of the state's entries, and of those that are tangents at the parameter.
    _entries: Sequence[str] = ()
    _tangents: Sequence[str] = ()

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], stabilize: int | None) -> None:
        self._plan: tuple[geometry.Product, list[Block], list[_Work], list[list[int]]] | None = None
        self._buffers: dict[Any, StackedEntry] = {}
        self._states: list[dict[str, Any]] = []
        super().__init__(params, defaults, stabilize=stabilize)  # type: ignore[call-arg]  # geoopt's mix-in takes it

    # -- what a subclass says ------------------------------------------------------------------------------------

    def _advance(
        self, group: dict[str, Any], manifold: Block, x: Tensor, g: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Return new points and state of a block at ``x`` with gradients ``g``; at first ``state`` is empty."""
        raise NotImplementedError

    def _template(self, name: str, block: Block, x: Tensor) -> Tensor:
        """Return a tensor like the entry ``name`` in the state of one of the points ``x``."""
        raise NotImplementedError

    def _step_plain(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        """Step plain parameters by torch's functions."""
        raise NotImplementedError

    # -- groups --------------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after checking that each of its parameters can be stepped.

        Raises
        ------
        ValueError
            If an option cannot be honoured, or a parameter has complex numbers on a manifold of real ones.
        TypeError
            If a parameter is on a manifold of another library than geoopt.
        NotFinite
            If a point on a manifold is not finite.
        UnsupportedOperation
            If a manifold is one that :mod:`rsam.geometry` refuses; names the parameter.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("step", 0)
        self._plan = None
        try:
            check_parameters(self.param_groups, len(self.param_groups) - 1)
            self._check_group(group)
        except Exception:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        for name in ("lr", "weight_decay"):
            if not group[name] >= 0:  # also refuses nan
                raise ValueError(f"{name} must not be negative, got {group[name]}")
        if group["foreach"] and group["fused"]:
            raise ValueError("foreach and fused cannot both be True")
        if group["foreach"] and isinstance(group["lr"], Tensor):
            raise ValueError("foreach=True needs a number as lr, as in torch")
        asked = group["fused"] or group["isometric"]
        for p, name in zip(group["params"], parameter_names([group]), strict=True) if asked else ():
            if group["fused"] and p.is_complex() and geometry.is_plain(p):
                raise ValueError(f"fused=True cannot step {name}, whose numbers are complex; give it a group without")
            if group["isometric"] and not geometry.geometry_of(geometry.manifold_of(p)).isometric:
                raise ValueError(f"isometric=True: no isometric transport is known where {name} lives, on "
                                 f"{geometry.manifold_of(p).name}")  # fmt: skip

    # -- stepping ------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Recomputes gradients and returns the loss; runs with gradients enabled.

        Returns
        -------
        Tensor or None
            What ``closure`` returned.

        Raises
        ------
        RuntimeError
            If a gradient is sparse.
        ValueError
            If an option cannot be honoured on the manifold that a parameter was put on since.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._step()
        return loss

    def _step(self) -> None:
        # subclasses of tensors, such as geoopt's, would ask Python for every attribute
        with torch._C.DisableTorchFunctionSubclass():
            space, works, plain = self._planned()
            gradients = space.gradients()
            try:
                updates = [update for work in works for update in self._updates(work, gradients)]
            except StalePlan:  # nothing has been written
                space.update()
                space, works, plain = self._planned()
                updates = [update for work in works for update in self._updates(work, gradients)]
            found = [gradients[i] for indices in plain for i in indices]
            if any(g is not None and g.is_sparse for g in found):
                raise RuntimeError(_SPARSE)
            # everything is computed before anything is written; results are freed as they are written
            updates.reverse()
            values = space.points
            while updates:
                self._write(updates.pop(), values)
            for label, indices in enumerate(plain):
                present = [i for i in indices if gradients[i] is not None]
                if present:
                    params = [space.params[i] for i in present]
                    grads = [p.grad for p in params]
                    # torch's Adam requires gradients of the parameter's dtype; grad_dtype allows others
                    grads = [g if g.dtype is p.dtype else g.to(p.dtype) for p, g in zip(params, grads, strict=True)]
                    self._step_plain(self.param_groups[label], params, grads)
        for group in self.param_groups:
            group["step"] += 1
            if group["stabilize"] and group["step"] % group["stabilize"] == 0:
                self.stabilize_group(group)

    def _planned(self) -> tuple[geometry.Product, list[_Work], list[list[int]]]:
        """Return the product of all parameters, its blocks on manifolds, and the plain parameters by group."""
        space = space_of(self.param_groups, self._plan[0] if self._plan else None)
        if self._plan is None or self._plan[1] is not space.blocks:
            for group in self.param_groups:  # a parameter may be on another manifold
                self._check_group(group)
            works: list[_Work] = []
            plain: list[list[int]] = [[] for _ in self.param_groups]
            for block in space.blocks:
                label = space.labels[block.indices[0]]
                if block.plain:
                    plain[label] += block.indices
                else:
                    works.append(_Work(block, label, space.params))
            self._plan = space, space.blocks, works, plain
            self._buffers = {}
            self._states = []
        # a replaced dictionary is noticed by its identity
        states = self.state.values()
        if len(states) != len(self._states) or not all(map(operator.is_, states, self._states)):
            self._states = list(states)
            for work in self._plan[2]:
                work.states = []
        return space, self._plan[2], self._plan[3]

    def _updates(self, work: _Work, gradients: Sequence[Tensor | None]) -> list[_Update]:
        """Compute a block's step, in parts if some of its parameters have no gradient or no state."""
        block = work.block
        found = [gradients[i] for i in block.indices]
        absent = {r for r, g in enumerate(found) if g is None} if any(map(operator.is_, found, repeat(None))) else ()
        if len(absent) == len(found):
            return []
        group = self.param_groups[work.label]
        missing = self._adopt(work)
        updates = []
        for fresh in (False, True):
            if not absent and len(missing) == (len(found) if fresh else 0):
                part = block
            else:
                rows = [r for r in range(len(found)) if r not in absent and (r in missing) is fresh]
                if not rows:
                    continue
                part = block.part(rows) if len(rows) < len(found) else block
            values = work.points
            x = part.gather_points(values if part is block else [values[r] for r in part.rows or ()])
            g = part.gather_members(found) if part is block else part.gather(gradients)  # type: ignore[arg-type]
            if g.is_sparse:
                raise RuntimeError(_SPARSE)
            g = -g if group["maximize"] else g
            if group["weight_decay"]:
                g = torch.add(g, x, alpha=group["weight_decay"])
            state = {} if fresh else {name: self._read(entry, part) for name, entry in work.entries.items()}
            points, entries = self._advance(group, part, x, g, state)
            if not block.stacked:  # a tensor that is kept without a copy must not be shared
                own = (x.data_ptr(), g.data_ptr())
                entries = {name: v.clone() if v.data_ptr() in own else v for name, v in entries.items()}
            for name in entries.keys() - work.entries.keys():
                work.incomplete.add(name)
                work.entries[name] = work.entry(name, self._template(name, part, x))
            updates.append(_Update(work, part, points, entries))
        return updates

    def _write(self, update: _Update, values: Sequence[Tensor]) -> None:
        work, part = update.work, update.part
        points = part.leave(update.points)
        if not part.stacked:
            values[part.indices[0]].copy_(points)
        else:
            rows: Sequence[Tensor] = ()
            if part.rows is None:
                # unbinding a stack costs as much as writing it, so that one of each kind is kept
                key = (len(part.indices), part.point, part.dtype, points.device)
                if key not in self._buffers:
                    members = [values[i] for i in part.indices]
                    self._buffers[key] = StackedEntry("points", points[0].to(part.dtype), members)
                self._buffers[key].write(points, None)
                rows = self._buffers[key].rows
            torch._foreach_copy_([values[i] for i in part.indices], list(rows or points.unbind()))
        for name, value in update.entries.items():
            entry = work.entries[name]
            value = part.leave(value) if name in self._tangents else value
            if not work.block.stacked and value.dtype == entry.tensor.dtype:
                # that of a single, large parameter is taken without a copy
                entry.take(value)
                self.state[work.members[0]][name] = entry.held[0]
                continue
            _put(entry, part, value)
            if name in work.incomplete:
                for r in range(len(work.members)) if part.rows is None else part.rows:
                    self.state[work.members[r]][name] = entry.held[r]

    def _read(self, entry: StackedEntry, part: Block) -> Tensor:
        value = entry.read(part.rows)
        value = value if part.stacked else value[0]
        return part.enter(value) if entry.name in self._tangents else part.widen(value)

    def _adopt(self, work: _Work) -> set[int]:
        """Copy loaded or replaced entries of the state into the stacks; return the parameters without a tangent.

        Vectors that are not tangent, such as torch's momentum, are projected.
        """
        states = work.states
        if not states:
            found = [self.state.get(p) for p in work.members]
            states = work.states = [{} if state is None else state for state in found]
        if not work.entries:
            for name in self._entries:
                if any(state.get(name) is not None for state in states):
                    x = work.block.gather_members(work.points)
                    work.entries[name] = work.entry(name, self._template(name, work.block, x))
        without: set[int] = set() if work.entries else set(range(len(work.members)))
        work.incomplete = set()
        for name, entry in work.entries.items():
            adopted, missing = entry.adopt(states, work.block)
            if missing:
                work.incomplete.add(name)
            if name in self._tangents:
                without.update(missing)
                if adopted:
                    self._mend(work, entry, adopted)
        return without

    def _mend(self, work: _Work, entry: StackedEntry, adopted: list[int]) -> None:
        part = work.block.part(adopted)
        x, vectors = part.gather_members([work.points[r] for r in adopted]), self._read(entry, part)
        tangents = part.apply("restore_tangent", x, vectors)
        ndim = part.geometry.manifold.ndim
        off, size = (point_sums(t.abs().square(), ndim) for t in (tangents - vectors, vectors))
        # a vector that is tangent stays bitwise, since a resumed run must not differ
        mended = part.leave(torch.where(off > torch.finfo(entry.tensor.dtype).eps * size, tangents, vectors))
        _put(entry, part, mended)

    @torch.no_grad()
    def stabilize_group(self, group: dict[str, Any]) -> None:
        """Project the points of a group onto their manifolds and its buffers onto the tangent spaces."""
        for work in self._planned()[1]:
            if self.param_groups[work.label] is not group:
                continue
            block = work.block
            points = block.apply("project_point", block.gather_members(work.points))
            torch._foreach_copy_(work.points, list(block.scatter(points)))
            self._adopt(work)
            for name in work.entries.keys() & set(self._tangents):
                entry = work.entries[name]
                tangents = block.apply("restore_tangent", block.gather_members(work.points), self._read(entry, block))
                _put(entry, block, block.leave(tangents))

    # -- saving and loading --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return groups and state, with copies instead of views, so that saving an entry does not save its stack."""
        saved = super().state_dict()
        saved["state"] = {
            key: {name: _own(value) for name, value in entries.items()} for key, entries in saved["state"].items()
        }
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load groups and state, by copy; also those of geoopt's and torch's optimizers of the same kind.

        Options that they lack keep their defaults. Buffers that are not tangent, as torch's and geoopt's first
        momentum, are projected onto the tangent spaces in the next step.

        Raises
        ------
        ValueError
            If an option cannot be honoured, or a buffer has another shape than its plain parameter; nothing is loaded
            then.
        """
        for own, loaded in zip(self.param_groups, state_dict["param_groups"], strict=False):
            self._check_group({**own, **loaded, "params": own["params"]})
        refuse_state_of_others(self.param_groups, state_dict, set(self._entries) - {"step"})
        copied = {
            key: {name: value.clone() if isinstance(value, Tensor) else value for name, value in entries.items()}
            for key, entries in state_dict["state"].items()
        }
        super().load_state_dict({**state_dict, "state": copied})

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # a pickle of a row would contain the whole stack
        copied = {p: {name: _own(value) for name, value in held.items()} for p, held in self.state.items()}
        return {**state, "state": defaultdict(dict, copied), "_stabilize": self._stabilize}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plan, self._buffers, self._states = None, {}, []
        for group in self.param_groups:
            for name, value in {**self.defaults, "stabilize": self._stabilize, "step": 0}.items():
                group.setdefault(name, value)


def _put(entry: StackedEntry, part: Block, value: Tensor) -> None:
    entry.write(value if part.stacked else value.unsqueeze(0), part.rows)


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and local(value)._is_view() else value
