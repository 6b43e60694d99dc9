r"""Choose which way RSAM ascends and how far, and bring the gradient back.

A direction is a function from :class:`Weights` to tangents at them; a radius says which ball of tangents the ascent
fills; :class:`Perturbation` puts the two together with a curve, and brings gradients and weights back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from rsam.geometry import Block, Product
from rsam.geometry.blocks import widened
from rsam.geometry.sharded import like
from rsam.geometry.sums import stack_scalars
from rsam.optim.weights import Radius, Weights, noise

__all__ = ["DIRECTIONS", "Direction", "Perturbation", "Snapshot", "Transport"]

_LARGEST_HALF = torch.finfo(torch.float16).max
#: Norm below which squares of numbers in single precision may have vanished: each is rounded to a multiple of 1.4e-45,
#: so that the square of this norm over a billion numbers is off by 1e-4.
_SHORT = 1e-16

Transport = Literal["vector", "pullback", "project"]
Direction = Callable[[Weights], list[Tensor]]


def along_gradient(weights: Weights) -> list[Tensor]:
    """Ascend along the gradient (Foret et al. 2021, eq. 2)."""
    return weights.raise_index(weights.gradients)


def along_momentum(weights: Weights) -> list[Tensor]:
    """Ascend along the base optimizer's momentum, which needs no gradient (Momentum-SAM, Becker et al. 2024)."""
    return weights.momentum()


along_momentum.needs_gradient = False  # type: ignore[attr-defined]

DIRECTIONS: dict[str, Direction] = {"gradient": along_gradient, "momentum": along_momentum}


class Snapshot:
    """Copies of tensors, in memory that is kept from one :meth:`take` to the next.

    Attributes
    ----------
    copies : list of Tensor
        The values at the last :meth:`take`.
    """

    def __init__(self) -> None:
        self.copies: list[Tensor] = []
        self._kinds: list[Any] = []  # their shapes, dtypes and devices

    def take(self, tensors: list[Tensor]) -> None:
        """Copy the present values."""
        kinds = [(t.shape, t.dtype, t.device) for t in tensors]
        if self._kinds != kinds:
            self.copies, self._kinds = [torch.empty_like(t, requires_grad=False) for t in tensors], kinds
        if tensors:
            torch._foreach_copy_(self.copies, tensors)


class Perturbation:
    """Perturbation of a step: copies of the parameters, and the tangents along which they were moved.

    For stacked blocks the copies are the stacks with which the step computes anyway. Other copies are made in memory
    that is kept from step to step.

    Attributes
    ----------
    space : Product or None
        The parameters that may be moved or stepped; None between steps.
    pending : bool
        Whether the parameters may be away from ``points``.
    points : list of Tensor
        The unperturbed parameters, one tensor per block.
    """

    def __init__(self) -> None:
        self.space: Product | None = None
        self.pending = False
        self.points: list[Tensor] = []
        self._alone = Snapshot()
        self._moved: list[tuple[Block, Tensor, Tensor]] = []  # blocks on manifolds, their points and tangents
        self._plain_is_back = False

    def save(self, space: Product) -> None:
        """Copy the present values of the parameters."""
        points = space.points
        self._alone.take([points[b.indices[0]] for b in space.blocks if not b.stacked])
        copies = iter(self._alone.copies)
        self.points = [
            b.gather_points([points[i] for i in b.indices]) if b.stacked else b.enter(next(copies))
            for b in space.blocks
        ]
        self.space, self._moved, self._plain_is_back, self.pending = space, [], False, True

    def put_back(self, plain: bool | None = None) -> None:
        """Copy the values back to all parameters, to plain ones, or to those on manifolds."""
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
        """Drop the copies."""
        self.space, self.points = None, []

    def weights(self, base: torch.optim.Optimizer, needs_gradient: bool, radius: Radius) -> Weights:
        """Collect the parameters to perturb: those in groups with a radius, and with a gradient if it is needed."""
        assert self.space is not None
        groups = base.param_groups
        maximizes = getattr(base, "maximize", False) is True  # where pytorch_optimizer keeps it
        params, gradients = self.space.params, self.space.gradients() if needs_gradient else []
        # frozen parameters do not count, even with a state or a gradient from before they were frozen
        counts = [p.requires_grad for p in params]
        if needs_gradient:
            counts = [count and g is not None for count, g in zip(counts, gradients, strict=True)]
        weights = Weights([], [], [], [], params, base.state, radius)
        for block, x in zip(self.space.blocks, self.points, strict=True):
            group = groups[self.space.labels[block.indices[0]]]
            if not group["rho"] > 0:
                continue
            rows = [r for r, i in enumerate(block.indices) if counts[i]]
            if not rows:
                continue
            if len(rows) < len(block.indices):
                block, x = block.part(rows), torch.stack([x[r] for r in rows])
            weights.blocks.append(block)
            weights.groups.append(group)
            weights.points.append(x)
            if needs_gradient:
                g = block.gather(gradients)  # type: ignore[arg-type]
                weights.gradients.append(-g if group.get("maximize", maximizes) else g)
        return weights

    def ascend(
        self, weights: Weights, direction: Direction, exact: bool, spread: Callable[[Tensor], Tensor] | None = None
    ) -> float:
        """Move the weights, and return the norm of the direction; nothing moves if it is not finite.

        ``spread`` makes a norm that is not finite in another process not finite here.
        """
        assert self.space is not None
        tangents, unit = direction(weights), 1.0
        if not isinstance(tangents, Sequence) or [u.shape for u in tangents] != [x.shape for x in weights.points]:
            raise ValueError(
                "a direction of ascent must return one tangent per block, of the shapes of weights.points; "
                f"{getattr(direction, '__name__', direction)} does not"
            )
        tangents = list(tangents)
        norm = weights.norm(tangents)
        length = float(norm if spread is None else spread(norm))  # the only synchronisation of this half
        if not math.isfinite(length):
            return length
        if length < _SHORT:
            tangents, unit = _enlarged(weights, direction, tangents)
            length = float(weights.norm(tangents))
        factors = _fill_ball(weights, tangents, length)
        weights.gradients.clear()  # not needed any more, and as large as the weights
        params = self.space.points
        plain: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
        for i, (block, x, factor) in enumerate(zip(weights.blocks, weights.points, factors, strict=True)):
            members = [params[k] for k in block.indices]
            u, tangents[i] = tangents[i], x
            if block.plain:
                if x.dtype is torch.float16 and isinstance(factor, float) and factor > _LARGEST_HALF:
                    u, factor = u.float() * factor, 1.0  # torch refuses such a factor of numbers in half precision
                # plain parameters with the same factor are moved together, without a tangent
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
        torch.clear_autocast_cache()  # an autocast around the step would keep using the unperturbed weights
        return length * unit

    def bring_back(self, transport: Transport, exact: bool) -> list[Tensor]:
        """Replace gradients at the perturbed points by covectors at the weights; return what must be finite."""
        assert self.space is not None
        params, points, gradients = self.space.params, self.space.points, self.space.gradients()
        # plain parameters first, since one of them may be the curvature of a manifold
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
            if block.stacked:  # a single check for all of them
                found.append(torch.linalg.vector_norm(c, math.inf))
                brought.update(block.indices)
            if c is not g:  # assigned, not written to, since gradients may be shared, or views of a framework's buffers
                first = gradients[block.indices[0]]
                assert first is not None
                leaving = block.leave(c).to(first.dtype)
                for i, row in zip(block.indices, _rows(leaving) if block.stacked else (leaving,), strict=True):
                    params[i].grad = like(params[i], row) if block.shards else row
                    gradients[i] = row
        return found + [g for i, g in enumerate(gradients) if i not in brought and g is not None]


def _rows(stack: Tensor) -> Sequence[Tensor]:
    """Take a stack apart into tensors that autograd does not know to be views, and whose writes it counts apart."""
    if stack.dim() == 1:
        return [row.data for row in stack.unbind()]
    return torch.unsafe_split(stack.flatten(0, 1), stack.shape[1])


def _enlarged(weights: Weights, direction: Direction, tangents: list[Tensor]) -> tuple[list[Tensor], float]:
    """Return the tangents in a unit in which their squares do not vanish, and this unit, a power of two.

    Gradients are brought to it before their index is raised, which tells tangents from rounding by squares too.
    """
    is_gradient = direction is along_gradient
    short = [widened(t) for t in (weights.gradients if is_gradient else tangents)]
    largest = _largest(weights, [torch.linalg.vector_norm(t, math.inf) for t in short if t.numel()])
    # the inverse of a number that is not normal may be infinite
    unit = max(2.0 ** math.frexp(float(largest))[1], *(torch.finfo(t.dtype).tiny for t in short))
    enlarged = [t * (1 / unit) for t in short]
    if is_gradient:
        weights.gradients = enlarged
        enlarged = along_gradient(weights)
    return enlarged, unit


def _largest(weights: Weights, scalars: list[Tensor]) -> Tensor:
    """Return the largest of some scalars, over all processes."""
    largest = stack_scalars(scalars).max() if scalars else torch.zeros(())
    for shards in filter(None, weights._meshes()):
        largest = shards.reduce(largest.double(), "MAX")
    return largest


def _fill_ball(weights: Weights, directions: list[Tensor], length: float) -> list[float | Tensor]:
    """Return factors of the tangents, of the norm ``length`` together, that give them the radii of their groups.

    ``"product"`` is one ball over the product of all parameters; with ``"parameter"`` each parameter moves by ``rho``,
    with ``"point"`` each point (the ball of a Finsler norm, the largest of the parts' norms). Tangents no longer than
    rounding errors do not move their points; at a stationary point nothing moves.
    """
    rhos = [float(group["rho"]) for group in weights.groups]  # it may be a number of numpy, in half precision
    if weights.radius == "product":
        return [rho / length if length > 0 else 0.0 for rho in rhos]
    norms = weights.norms(directions)
    largest = _largest(weights, [n.max() if n.dim() else n for n in norms if n.numel()])
    factors: list[float | Tensor] = []
    for x, n, rho in zip(weights.points, norms, rhos, strict=True):
        floor = noise(x.dtype, 1e-3) * largest.to(n.device)
        factors.append(torch.where(n > floor, rho / n, torch.zeros_like(n)).to(x.device))
    return factors


def _brought_back(
    block: Block, x: Tensor, e: Tensor, y: Tensor, g: Tensor, transport: Transport, exact: bool
) -> Tensor:
    """Return the covector at ``x`` for the Euclidean gradient ``g`` at ``y``, the end of the ascent ``e``."""
    if transport == "project":
        return g
    if transport == "pullback":
        covector: Tensor = block.apply("pullback", x, e, g, exact=exact)
        return covector
    carried = block.apply("transport_back", x, e, y, block.apply("raise_index", y, g), exact=exact)
    # lowered, since the base optimizer raises what it finds in p.grad
    lowered: Tensor = block.apply("lower_index", x, carried)
    return lowered
