r"""Which way RSAM ascends, how far, and how the gradient comes back.

A direction is a function from :class:`Weights` to tangents at them; a radius says which ball of tangents the ascent
fills. RSAM puts the two together with a curve, the retraction or the geodesic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rsam.geometry import Block, scalar_sum
from rsam.geometry.blocks import HALF
from rsam.geometry.product import stack_scalars

__all__ = ["DIRECTIONS", "Direction", "Radius", "Transport", "Weights", "along_momentum", "bring_back", "fill_ball"]

Radius = Literal["product", "parameter", "point"]
Transport = Literal["vector", "pullback", "project"]

#: Entries of a base optimizer's state that are a running mean of gradients.
MOMENTA = ("momentum_buffer", "exp_avg")
# Norms below this many roundings of the largest one are noise: what a projection leaves of a normal gradient.
_NOISE = 64


@dataclass
class Weights:
    """The weights that a step ascends from and what is known there, one tensor per block of parameters.

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
    """

    blocks: list[Block]
    groups: list[dict[str, Any]]
    points: list[Tensor]
    gradients: list[Tensor]
    states: list[list[dict[str, Any]]]
    _raised: tuple[Sequence[Tensor], list[Tensor]] | None = None

    def raise_index(self, covectors: Sequence[Tensor]) -> list[Tensor]:
        """Tangents that represent covectors: Riemannian gradients of Euclidean ones.

        The metric of plain parameters in a group with ``adaptive=True`` is that of ASAM, :math:`1/|p|^2`.
        """
        tangents = []
        for block, group, x, c in zip(self.blocks, self.groups, self.points, covectors, strict=True):
            if not block.plain:
                c = block.apply("raise_index", x, c)
            elif group["adaptive"]:
                c = x.abs() ** 2 * c
            tangents.append(c)
        self._raised = covectors, tangents
        return tangents

    def momentum(self) -> list[Tensor]:
        """The base optimizer's momentum as its last step left it here, as tangents uphill; zero where there is none."""
        momenta = []
        for block, group, states, x in zip(self.blocks, self.groups, self.states, self.points, strict=True):
            held = [next((s[name] for name in MOMENTA if s.get(name) is not None), None) for s in states]
            if all(m is None for m in held):
                momenta.append(torch.zeros_like(x))
                continue
            template = next(m for m in held if m is not None)
            rows = [torch.zeros_like(template) if m is None else m for m in held]
            m = block.gather_members(rows)
            m = x.abs() ** 2 * m if block.plain and group["adaptive"] else m
            momenta.append(-m if group.get("maximize") else m)
        return momenta

    def inner(self, us: Sequence[Tensor], vs: Sequence[Tensor]) -> Tensor:
        """Inner product of tangents in the product metric, a scalar."""
        rows = zip(self.blocks, self.groups, self.points, us, vs, strict=True)
        return scalar_sum([_inner(*row).sum() for row in rows])

    def norm(self, us: list[Tensor]) -> Tensor:
        """Norm of a tangent in the product metric, a scalar."""
        plain = self._plain()
        covectors = self._covectors(us)
        squares = []
        for i, (block, group, x, u) in enumerate(zip(self.blocks, self.groups, self.points, us, strict=True)):
            if i in plain:
                continue
            if covectors is None:
                squares.append(_inner(block, group, x, u, u).sum())
            else:  # cheaper than the metric
                squares.append(torch.vdot(covectors[i].reshape(-1), u.reshape(-1)).real)
        norms = [stack_scalars(_norms([us[i] for i in plain]))] if plain else []
        if squares:
            norms.append(stack_scalars(squares).clamp_min(0).sqrt())  # rounding may leave a vanishing one negative
        parts = [torch.linalg.vector_norm(n) for n in norms]
        return parts[0] if len(parts) == 1 else torch.linalg.vector_norm(stack_scalars(parts))

    def norms(self, us: list[Tensor], radius: Radius) -> list[Tensor]:
        """Norms of tangents, block by block, of each parameter or of each point; broadcastable to the points."""
        plain = self._plain()
        norms = dict(zip(plain, _norms([us[i] for i in plain]), strict=True))
        for i, (block, group, x, u) in enumerate(zip(self.blocks, self.groups, self.points, us, strict=True)):
            if i in norms:
                continue
            if block.plain:
                squares = _inner(block, group, x, u, u).sum()
            elif radius == "point":
                squares = block.apply("point_inner", x, u)
            else:
                squares = block.apply("inner", x, u, u)
                squares = (
                    squares.flatten(1).sum(1).reshape(-1, *[1] * (x.dim() - 1)) if block.stacked else squares.sum()
                )
            norms[i] = squares.clamp_min(0).sqrt()
        return [norms[i] for i in range(len(us))]

    def _plain(self) -> list[int]:
        """The blocks whose metric is that of the numbers themselves."""
        kinds = enumerate(zip(self.blocks, self.groups, strict=True))
        return [i for i, (block, group) in kinds if block.plain and not group["adaptive"]]

    def _covectors(self, us: list[Tensor]) -> Sequence[Tensor] | None:
        """What tangents were raised from, if that is known."""
        return self._raised[0] if self._raised is not None and self._raised[1] is us else None


def _norms(tensors: list[Tensor]) -> Sequence[Tensor]:
    wide = [t.float() if t.dtype in HALF else t for t in tensors]
    return torch._foreach_norm(wide) if wide else ()


def _inner(block: Block, group: dict[str, Any], x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    if not block.plain:
        return block.apply("inner", x, u, v)
    product = (u.conj() * v).real if u.is_complex() else u * v
    if group["adaptive"]:
        square = x.abs() ** 2
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


def fill_ball(weights: Weights, directions: list[Tensor], radius: Radius) -> tuple[list[float | Tensor], float]:
    """Return what to multiply tangents by, for the radius ``rho`` of each group, and the norm of them all.

    ``"product"`` is one ball over the product of all parameters; with ``"parameter"`` each parameter moves by ``rho``,
    with ``"point"`` each point (the ball of a Finsler norm, the largest of the parts' norms). What is not longer than
    rounding does not move, nor does anything from a stationary point.
    """
    length = float(weights.norm(directions))  # the one synchronisation of this half
    rhos = [group["rho"] for group in weights.groups]
    if radius == "product":
        return [rho / length if length > 0 else 0.0 for rho in rhos], length
    norms = weights.norms(directions, radius)
    largest = stack_scalars([n.max() if n.dim() else n for n in norms if n.numel()]).max()
    factors: list[float | Tensor] = []
    for x, n, rho in zip(weights.points, norms, rhos, strict=True):
        noise = _NOISE * torch.finfo(x.dtype).eps * largest.to(n.device)
        factors.append(torch.where(n > noise, rho / n, torch.zeros_like(n)).to(x.device))
    return factors, length


def bring_back(block: Block, x: Tensor, e: Tensor, y: Tensor, g: Tensor, transport: Transport, exact: bool) -> Tensor:
    """Covector at ``x`` for the Euclidean gradient ``g`` at ``y``, the end of the ascent ``e``."""
    if transport == "project":
        return g
    if transport == "pullback":
        return block.apply("pullback", x, e, g, exact=exact)
    carried = block.apply("transport_back", x, e, y, block.apply("raise_index", y, g), exact=exact)
    # lowered, since the base optimizer raises what it finds in p.grad
    return block.apply("lower_index", x, carried)
