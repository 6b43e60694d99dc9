r"""Which way RSAM ascends, how far, and how the gradient comes back.

A direction is a function from :class:`Weights` to tangents at them; a radius says which ball of tangents the ascent
fills; :class:`Perturbation` puts the two together with a curve, and brings gradients and weights back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from rsam.geometry import Block, Product, scalar_sum
from rsam.geometry.blocks import widened
from rsam.geometry.product import stack_scalars
from rsam.geometry.sharded import Shards, like, local, sum_over_shards

__all__ = ["DIRECTIONS", "Direction", "Perturbation", "Radius", "Transport", "Weights", "has_radius", "keeps_momentum"]

Radius = Literal["product", "parameter", "point"]
Transport = Literal["vector", "pullback", "project"]

#: Entries of a base optimizer's state that are a running mean of gradients.
MOMENTA = ("momentum_buffer", "exp_avg")


def keeps_momentum(group: dict[str, Any]) -> bool:
    """Whether a base optimizer has a momentum by the options of a parameter group."""
    return bool(group.get("momentum") or "betas" in group)


def has_radius(group: dict[str, Any]) -> bool:
    """Whether the parameters of a group are perturbed; not by what is no number, which is refused elsewhere."""
    rho = group.get("rho", 0)
    return isinstance(rho, Real) and float(rho) > 0


@dataclass
class Weights:
    """The weights that a step ascends from and what is known there, one tensor per block of parameters.

    Equal small parameters on a manifold are one block, stacked in a first dimension; any other parameter is a block of
    its own. Kernels come in the layout of their manifold, as ``(out, in * window)`` on spheres. Nothing here may be
    written to: gradients and momenta of a parameter alone are those of the optimizer.

    Attributes
    ----------
    blocks : list of Block
        The parameters that are perturbed; equal small ones on a manifold are one block.
    groups : list of dict
        The parameter group of each block.
    points : list of Tensor
        The weights.
    gradients : list of Tensor
        Euclidean gradients of the loss at the weights; empty for a direction that needs none.
    states : list of list of dict
        The base optimizer's state of each parameter, block by block.
    radius : {"product", "parameter", "point"}
        Which ball the ascent fills.

    Examples
    --------
    A direction that ascends along the gradient of the first parameter only:

    >>> import torch, rsam
    >>> def first(weights):
    ...     up = weights.raise_index(weights.gradients)
    ...     return [up[0], *(0 * u for u in up[1:])]
    >>> w, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    >>> opt = rsam.RSAM([w, b], torch.optim.SGD, lr=0.1, rho=1.0, direction=first)
    >>> (3 * w[0] + b.sum()).backward()
    >>> opt.first_step()
    >>> w.tolist(), b.tolist()
    ([2.0, 1.0], [1.0, 1.0])
    >>> opt.restore()
    """

    blocks: list[Block]
    groups: list[dict[str, Any]]
    points: list[Tensor]
    gradients: list[Tensor]
    states: list[list[dict[str, Any]]]
    radius: Radius = "product"

    def raise_index(self, covectors: Sequence[Tensor]) -> list[Tensor]:
        """Raise covectors to the tangents that represent them: Euclidean gradients to Riemannian ones.

        The metric of plain parameters in a group with ``adaptive=True`` is that of ASAM, :math:`1/|p|^2`. Where each
        point has a radius of its own, what a projection left of a normal covector, to rounding, is zero.
        """
        tangents = []
        for block, group, x, c in zip(self.blocks, self.groups, self.points, covectors, strict=True):
            if block.plain:
                tangents.append((widened(x).abs() ** 2 * widened(c)).to(c.dtype) if group["adaptive"] else c)
                continue
            u = block.apply("raise_index", x, c)
            if self.radius != "product":
                squares = block.apply("point_inner", x, u)
                dims = [d for d, n in enumerate(squares.shape) if n == 1]
                c2, u2 = (t.abs().square().sum(dims, keepdim=True) if dims else t.abs().square() for t in (c, u))
                # of a tangent, and to rounding of no other vector, <u, u> is the product of sizes times a cosine
                u = torch.where(squares > _noise(block.dtype, 2.0**-4) * (c2 * u2).sqrt(), u, torch.zeros_like(u))
            tangents.append(u)
        return tangents

    def momentum(self) -> list[Tensor]:
        """Return the base optimizer's momentum as its last step left it, uphill; zero where there is none."""
        momenta = []
        if not all(map(keeps_momentum, self.groups)):
            raise ValueError("a direction asks for a momentum that the base optimizer does not keep; give it one")
        for block, group, states, x in zip(self.blocks, self.groups, self.states, self.points, strict=True):
            held = [next((s[name] for name in MOMENTA if s.get(name) is not None), None) for s in states]
            if all(m is None for m in held):
                momenta.append(torch.zeros_like(x))
                continue
            held = [None if m is None else local(m) for m in held]
            template = next(m for m in held if m is not None)
            rows = [torch.zeros_like(template) if m is None else m for m in held]
            m = block.gather_members(rows)
            if not block.plain:  # geoopt's and torch's are no tangents at first
                m = block.apply("restore_tangent", x, m)
            if block.plain and group["adaptive"]:
                m = (widened(x).abs() ** 2 * widened(m)).to(m.dtype)
            momenta.append(-m if group.get("maximize") else m)
        return momenta

    def inner(self, us: Sequence[Tensor], vs: Sequence[Tensor]) -> Tensor:
        """Return the inner product of tangents in the product metric, a scalar."""
        rows = zip(self.blocks, self.groups, self.points, us, vs, strict=True)
        terms = [_inner(*row).sum() for row in rows]
        meshes = self._meshes()
        return scalar_sum(sum_over_shards([scalar_sum([terms[i] for i in own]) for own in meshes.values()], [*meshes]))

    def norm(self, us: list[Tensor]) -> Tensor:
        """Return the norm of a tangent in the product metric, a scalar."""
        meshes = self._meshes()
        norms = [self._norm(us, own) for own in meshes.values()]
        if any(meshes):  # in float64 no square of a float32 overflows or vanishes
            squares = sum_over_shards([n.double().square() for n in norms], [*meshes])
            norms = [square.sqrt().to(n.dtype) for square, n in zip(squares, norms, strict=True)]
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(stack_scalars(norms))

    def _norm(self, us: list[Tensor], own: list[int]) -> Tensor:
        """The norm of what this process has of some blocks."""
        plain = [i for i in own if self._is_plain(i)]
        squares = []
        for i in own:
            block, group, x, u = self.blocks[i], self.groups[i], self.points[i], us[i]
            if not block.plain:
                squares.append(block.apply("squared_norm", x, u))
            elif group["adaptive"]:
                squares.append(_inner(block, group, x, u, u).sum())
        norms = [stack_scalars(_norms([us[i] for i in plain]))] if plain else []
        if squares:
            norms.append(stack_scalars(squares).clamp_min(0).sqrt())  # rounding may leave a vanishing one negative
        parts = [torch.linalg.vector_norm(n) for n in norms]
        return parts[0] if len(parts) == 1 else torch.linalg.vector_norm(stack_scalars(parts))

    def norms(self, us: list[Tensor]) -> list[Tensor]:
        """Return norms of tangents, block by block, of each parameter or point as the radius has it, broadcastable."""
        plain = [i for i in range(len(us)) if self._is_plain(i)]
        norms = dict(zip(plain, _norms([us[i] for i in plain]), strict=True))
        for i, (block, group, x, u) in enumerate(zip(self.blocks, self.groups, self.points, us, strict=True)):
            if i in norms:
                continue
            if block.plain:
                squares = _inner(block, group, x, u, u).sum()
            elif self.radius == "point":
                squares = block.apply("point_inner", x, u)
            else:
                squares = block.apply("inner", x, u, u)
                squares = squares.flatten(1).sum(1) if block.stacked else squares.sum()
                squares = squares.reshape(-1, *[1] * len(block.inner)) if block.stacked else squares
            norms[i] = squares.clamp_min(0).sqrt()
        self._complete(norms)
        return [norms[i] for i in range(len(us))]

    def _complete(self, norms: dict[int, Tensor]) -> None:
        """Make norms of whole parameters, of which this process has a part, those over all processes."""
        split = sorted(  # by parameter, as other processes may have other blocks
            (index, i, row)
            for i, block in enumerate(self.blocks)
            if block.shards and (block.plain or self.radius == "parameter")
            for row, index in enumerate(block.indices)
        )
        terms = [norms[i].reshape(-1)[row].double().square() for _, i, row in split]
        totals = sum_over_shards(terms, [self.blocks[i].shards for _, i, _ in split])
        for (_, i, row), square in zip(split, totals, strict=True):
            norms[i].reshape(-1)[row].copy_(square.sqrt())

    def _meshes(self) -> dict[Shards | None, list[int]]:
        """The blocks by the processes that have parts of them; None for those that each process has whole."""
        meshes: dict[Shards | None, list[int]] = {}
        for i, block in enumerate(self.blocks):
            meshes.setdefault(block.shards, []).append(i)
        return meshes

    def _is_plain(self, i: int) -> bool:
        """Whether the metric of a block is that of the numbers themselves."""
        return self.blocks[i].plain and not self.groups[i]["adaptive"]


def _noise(dtype: torch.dtype, most: float) -> float:
    """Relative size below which a number is taken for rounding; 64 roundings, in half precision fewer."""
    return min(64 * float(torch.finfo(dtype).eps), most)


def _norms(tensors: list[Tensor]) -> Sequence[Tensor]:
    return torch._foreach_norm([widened(t) for t in tensors]) if tensors else ()


def _inner(block: Block, group: dict[str, Any], x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    if not block.plain:
        return block.apply("inner", x, u, v)
    u, v = widened(u), widened(v)
    product = (u.conj() * v).real if u.is_complex() else u * v
    if group["adaptive"]:
        square = widened(x).abs() ** 2
        product = torch.where(square > 0, product / square, torch.zeros_like(product))
    return product


Direction = Callable[[Weights], list[Tensor]]


def along_gradient(weights: Weights) -> list[Tensor]:
    """Ascend along the gradient (Foret et al. 2021, eq. 2)."""
    return weights.raise_index(weights.gradients)


def along_momentum(weights: Weights) -> list[Tensor]:
    """Ascend along the base optimizer's momentum (Momentum-SAM, Becker et al. 2024), which costs no gradient."""
    return weights.momentum()


along_momentum.needs_gradient = False  # type: ignore[attr-defined]

DIRECTIONS: dict[str, Direction] = {"gradient": along_gradient, "momentum": along_momentum}


class Perturbation:
    """The perturbation of a step: where the parameters were, and the tangents along which they went.

    The copies are stacks where a block is stacked, which the step computes with anyway; the others are made in memory
    that is kept from step to step.

    Attributes
    ----------
    space : Product or None
        The parameters that may be moved or stepped; None between steps.
    pending : bool
        Whether the parameters may be elsewhere.
    points : list of Tensor
        Where they were, one tensor per block.
    """

    def __init__(self) -> None:
        self.space: Product | None = None
        self.pending = False
        self.points: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._moved: list[tuple[Block, Tensor, Tensor]] = []  # blocks on manifolds, their points and tangents
        self._plain_is_back = False

    def save(self, space: Product) -> None:
        """Copy the present values of the parameters."""
        points = space.points
        alone = [points[b.indices[0]] for b in space.blocks if not b.stacked]
        if [(c.shape, c.dtype, c.device) for c in self._copies] != [(p.shape, p.dtype, p.device) for p in alone]:
            self._copies = [torch.empty_like(p, requires_grad=False) for p in alone]
        if alone:
            torch._foreach_copy_(self._copies, alone)
        copies = iter(self._copies)
        self.points = [
            b.gather_points([points[i] for i in b.indices]) if b.stacked else b.enter(next(copies))
            for b in space.blocks
        ]
        self.space, self._moved, self._plain_is_back, self.pending = space, [], False, True

    def put_back(self, plain: bool | None = None) -> None:
        """Copy the values back: all, or those of plain parameters, or of the others."""
        assert self.space is not None
        chosen = [(b, x) for b, x in zip(self.space.blocks, self.points, strict=True) if plain in (None, b.plain)]
        points = self.space.points
        moved = [points[i] for b, _ in chosen for i in b.indices]
        if moved:
            torch._foreach_copy_(moved, [row for b, x in chosen for row in b.scatter(x)])
            torch.clear_autocast_cache()

    def restore(self) -> None:
        """Put everything back; the copies stay until :meth:`forget`."""
        self.put_back(plain=False if self._plain_is_back else None)
        self._moved, self.pending = [], False

    def forget(self) -> None:
        """Let go of the copies."""
        self.space, self.points = None, []

    def weights(self, groups: Sequence[dict[str, Any]], state: Any, needs_gradient: bool, radius: Radius) -> Weights:
        """What is perturbed: parameters in groups with a radius, and with a gradient if it takes one."""
        assert self.space is not None
        weights = Weights([], [], [], [], [], radius)
        gradients = self.space.gradients() if needs_gradient else []
        for block, x in zip(self.space.blocks, self.points, strict=True):
            group = groups[self.space.labels[block.indices[0]]]
            if not group["rho"] > 0:
                continue
            members = [self.space.params[i] for i in block.indices]
            # without a gradient a frozen one does not count, whatever its state
            rows = [r for r, p in enumerate(members) if (p.grad is not None if needs_gradient else p.requires_grad)]
            if not rows:
                continue
            if len(rows) < len(members):
                block, x = block.part(rows), torch.stack([x[r] for r in rows])
                members = [members[r] for r in rows]
            weights.blocks.append(block)
            weights.groups.append(group)
            weights.points.append(x)
            weights.states.append([state.get(p, {}) for p in members])
            if needs_gradient:
                weights.gradients.append(block.gather(gradients))  # type: ignore[arg-type]
        return weights

    def ascend(
        self, weights: Weights, direction: Direction, exact: bool, spread: Callable[[Tensor], Tensor] | None = None
    ) -> float:
        """Move the weights, and return the norm of the direction; nothing moves if it is not finite.

        ``spread`` makes a norm that is not finite in another process not finite here.
        """
        assert self.space is not None
        tangents = direction(weights)
        if not isinstance(tangents, Sequence) or [u.shape for u in tangents] != [x.shape for x in weights.points]:
            raise ValueError(
                "a direction of ascent must return one tangent per block, of the shapes of weights.points; "
                f"{getattr(direction, '__name__', direction)} does not"
            )
        tangents = list(tangents)
        factors, length = _fill_ball(weights, tangents, spread)
        if not math.isfinite(length):
            return length
        weights.gradients.clear()  # no more needed, and as much as the weights
        params = self.space.points
        plain: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
        for i, (block, x, factor) in enumerate(zip(weights.blocks, weights.points, factors, strict=True)):
            members = [params[k] for k in block.indices]
            u, tangents[i] = tangents[i], x
            if block.plain:
                # those that share a number go together, without a tangent of their own
                shared = plain.setdefault(factor if isinstance(factor, float) else id(factor), ([], []))
                shared[0].append(members[0])
                shared[1].append(u if isinstance(factor, float) else u * factor)
                continue
            e = u * factor
            ends = block.apply("exponential" if exact else "retract", x, e)
            torch._foreach_copy_(members, list(block.scatter(ends)))
            self._moved.append((block, x, e))
        for factor, (moving, along) in plain.items():
            torch._foreach_add_(moving, along, alpha=factor if isinstance(factor, float) else 1)
        torch.clear_autocast_cache()  # an autocast around the step would go on with the weights of before
        return length

    def bring_back(self, transport: Transport, exact: bool) -> list[Tensor]:
        """Replace gradients at the perturbed points by covectors at the weights; return what shows if all is finite."""
        assert self.space is not None
        params, points, gradients = self.space.params, self.space.points, self.space.gradients()
        # plain ones first: one of them may be the curvature of a manifold
        self.put_back(plain=True)
        self._plain_is_back = True
        found: list[Tensor] = []
        brought: set[int] = set()
        while self._moved:
            block, x, e = self._moved.pop()
            rows = [r for r, i in enumerate(block.indices) if gradients[i] is not None]
            if not rows:
                continue
            if len(rows) < len(block.indices):
                block, x, e = block.part(rows), torch.stack([x[r] for r in rows]), torch.stack([e[r] for r in rows])
            g = block.gather(gradients)  # type: ignore[arg-type]
            c = _brought_back(block, x, e, block.gather(points), g, transport, exact)
            if block.stacked:  # one look for all of them
                found.append(torch.linalg.vector_norm(c, math.inf))
                brought.update(block.indices)
            if c is not g:  # and not written to: gradients may be shared, or views of what a framework keeps
                first = gradients[block.indices[0]]
                assert first is not None
                leaving = block.leave(c).to(first.dtype)
                for i, row in zip(block.indices, leaving.unbind() if block.stacked else (leaving,), strict=True):
                    params[i].grad = like(params[i], row)
                    gradients[i] = row
        return found + [g for i, g in enumerate(gradients) if i not in brought and g is not None]


def _fill_ball(
    weights: Weights, directions: list[Tensor], spread: Callable[[Tensor], Tensor] | None
) -> tuple[list[float | Tensor], float]:
    """Return what to multiply tangents by, for the radius ``rho`` of each group, and the norm of them all.

    ``"product"`` is one ball over the product of all parameters; with ``"parameter"`` each parameter moves by ``rho``,
    with ``"point"`` each point (the ball of a Finsler norm, the largest of the parts' norms). What is not longer than
    rounding does not move, nor does anything from a stationary point.
    """
    norm = weights.norm(directions)
    length = float(norm if spread is None else spread(norm))  # the one synchronisation of this half
    rhos = [group["rho"] for group in weights.groups]
    if weights.radius == "product":
        return [rho / length if length > 0 else 0.0 for rho in rhos], length
    norms = weights.norms(directions)
    each = [n.max() if n.dim() else n for n in norms if n.numel()]
    largest = stack_scalars(each).max() if each else torch.zeros(())
    for shards in filter(None, weights._meshes()):
        largest = shards.reduce(largest.double(), "MAX")
    factors: list[float | Tensor] = []
    for x, n, rho in zip(weights.points, norms, rhos, strict=True):
        noise = _noise(x.dtype, 1e-3) * largest.to(n.device)
        factors.append(torch.where(n > noise, rho / n, torch.zeros_like(n)).to(x.device))
    return factors, length


def _brought_back(
    block: Block, x: Tensor, e: Tensor, y: Tensor, g: Tensor, transport: Transport, exact: bool
) -> Tensor:
    """Return the covector at ``x`` for the Euclidean gradient ``g`` at ``y``, the end of the ascent ``e``."""
    if transport == "project":
        return g
    if transport == "pullback":
        return block.apply("pullback", x, e, g, exact=exact)
    carried = block.apply("transport_back", x, e, y, block.apply("raise_index", y, g), exact=exact)
    # lowered, since the base optimizer raises what it finds in p.grad
    return block.apply("lower_index", x, carried)
