"""Define what a direction of ascent sees of RSAM: points, gradients, momentum and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from rsam.geometry import Block, scalar_sum
from rsam.geometry.blocks import widened
from rsam.geometry.sharded import Shards, local, sum_over_shards
from rsam.geometry.sums import stack_scalars

__all__ = ["Radius", "Weights", "has_radius", "keeps_momentum", "noise"]

Radius = Literal["product", "parameter", "point"]

#: Names of a base optimizer's state entries that are running means of gradients.
MOMENTA = ("momentum_buffer", "exp_avg")


def keeps_momentum(group: dict[str, Any]) -> bool:
    """Tell whether a base optimizer has a momentum, by the options of a parameter group."""
    return bool(group.get("momentum") or "betas" in group)


def has_radius(group: dict[str, Any]) -> bool:
    """Tell whether the parameters of a group are perturbed; not by an invalid ``rho``, which is refused elsewhere."""
    rho = group.get("rho", 0)
    return isinstance(rho, (float, int, Real)) and float(rho) > 0  # the first two are found at once


@dataclass
class Weights:
    """Weights that a step ascends from, with gradients, momentum and metric, one tensor per block of parameters.

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
        Euclidean gradients at the weights of what is minimised: of the loss, or of its negative with ``maximize``;
        empty for a direction that needs none.
    params : list of Tensor
        The parameters, of which those of a block are at its ``indices``.
    state : mapping of Tensor to dict
        The base optimizer's state of each parameter.
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
    params: list[Any]
    state: Mapping[Any, dict[str, Any]]
    radius: Radius = "product"

    def raise_index(self, covectors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tangents that represent covectors: Riemannian gradients for Euclidean ones.

        The metric of plain parameters in a group with ``adaptive=True`` is that of ASAM, :math:`1/|p|^2`. If each
        point has its own radius, the result for a normal covector is set to zero: its projection is mere rounding.

        Parameters
        ----------
        covectors : list of Tensor
            One per block, such as ``gradients``.
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
                sizes = [torch.linalg.vector_norm(t, dim=dims, keepdim=True) if dims else t.abs() for t in (c, u)]
                # for tangents, but not for rounding errors, <u, u> is the product of the sizes times a cosine
                rounding = noise(block.dtype, 2.0**-4) * sizes[0] * sizes[1]
                # what is not finite is not less, or less than an infinite bound, and stays to be noticed
                u = torch.where(squares < rounding, rounding.where(rounding == math.inf, 0), u)
            tangents.append(u)
        return tangents

    def momentum(self) -> list[Tensor]:
        """Return the base optimizer's momentum as its last step left it; zero where there is none.

        With ``maximize`` that is the momentum of the negative gradient, along which the value falls.

        Raises
        ------
        ValueError
            If the base optimizer keeps none, or none under a name of torch's optimizers.
        """
        momenta = []
        if not all(map(keeps_momentum, self.groups)):
            raise ValueError("a direction asks for a momentum that the base optimizer does not keep; give it one")
        for block, group, x in zip(self.blocks, self.groups, self.points, strict=True):
            states = [self.state.get(self.params[i], {}) for i in block.indices]
            held = [next((s[name] for name in MOMENTA if s.get(name) is not None), None) for s in states]
            for name, i, s, m in zip(block.names, block.indices, states, held, strict=True):
                named_otherwise = m is None and s and s.keys().isdisjoint(MOMENTA)
                if named_otherwise or (m is not None and getattr(m, "shape", None) != self.params[i].shape):
                    raise ValueError(
                        f"the base optimizer keeps no momentum of {name} that can be ascended along: its state "
                        f"has {sorted(s)}, of which none is a {' or '.join(MOMENTA)} of its shape; ascend along the "
                        "gradient"
                    )
            if all(m is None for m in held):
                momenta.append(torch.zeros_like(x))
                continue
            held = [None if m is None else local(m) for m in held]
            template = next(m for m in held if m is not None)
            rows = [torch.zeros_like(template) if m is None else m for m in held]
            m = block.gather_members(rows)
            if not block.plain:  # geoopt's and torch's momenta are not tangent at first
                m = block.apply("restore_tangent", x, m)
            if block.plain and group["adaptive"]:
                m = (widened(x).abs() ** 2 * widened(m)).to(m.dtype)
            momenta.append(m)
        return momenta

    def inner(self, us: Sequence[Tensor], vs: Sequence[Tensor]) -> Tensor:
        """Return the inner product of tangents in the product metric, a scalar.

        Parameters
        ----------
        us, vs : list of Tensor
            Tangents, one tensor per block.
        """
        rows = zip(self.blocks, self.groups, self.points, us, vs, strict=True)
        terms = [_inner(*row).sum() for row in rows]
        meshes = self._meshes()
        return scalar_sum(sum_over_shards([scalar_sum([terms[i] for i in own]) for own in meshes.values()], [*meshes]))

    def norm(self, us: list[Tensor]) -> Tensor:
        """Return the norm of a tangent in the product metric, a scalar.

        Parameters
        ----------
        us : list of Tensor
            Tangent, one tensor per block.
        """
        meshes = self._meshes()
        norms = [self._norm(us, own) for own in meshes.values()]
        if any(meshes):  # in float64, in which squares of float32 neither overflow nor vanish
            squares = sum_over_shards([n.double().square() for n in norms], [*meshes])
            norms = [square.sqrt().to(n.dtype) for square, n in zip(squares, norms, strict=True)]
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(stack_scalars(norms))

    def _norm(self, us: list[Tensor], own: list[int]) -> Tensor:
        """Return the norm of this process's parts of some blocks."""
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
        parts: list[Tensor] = [torch.linalg.vector_norm(n) for n in norms]
        total: Tensor = parts[0] if len(parts) == 1 else torch.linalg.vector_norm(stack_scalars(parts))
        return total

    def norms(self, us: list[Tensor]) -> list[Tensor]:
        """Return the norms of tangents by parameter or by point, as ``radius`` says: one tensor per block.

        Each is broadcastable to the points of its block.

        Parameters
        ----------
        us : list of Tensor
            Tangents, one tensor per block.
        """
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
                squares = squares.reshape(len(squares), -1).sum(1) if block.stacked else squares.sum()
                squares = squares.reshape(-1, *[1] * len(block.inner)) if block.stacked else squares
            norms[i] = squares.clamp_min(0).sqrt()
        self._complete(norms)
        return [norms[i] for i in range(len(us))]

    def _complete(self, norms: dict[int, Tensor]) -> None:
        """Complete norms of parameters of which this process has a part by those of the other processes."""
        split = sorted(  # by parameter, since other processes may have other blocks
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
        """Return the blocks by the processes that share them; None for those that each process has whole."""
        meshes: dict[Shards | None, list[int]] = {}
        for i, block in enumerate(self.blocks):
            meshes.setdefault(block.shards, []).append(i)
        return meshes

    def _is_plain(self, i: int) -> bool:
        """Tell whether the metric of a block is the Euclidean one."""
        return self.blocks[i].plain and not self.groups[i]["adaptive"]


def noise(dtype: torch.dtype, most: float) -> float:
    """Return the relative size below which a number counts as rounding: 64 roundings, in half precision fewer."""
    return min(64 * float(torch.finfo(dtype).eps), most)


def _norms(tensors: list[Tensor]) -> Sequence[Tensor]:
    return torch._foreach_norm([widened(t) for t in tensors]) if tensors else ()


def _inner(block: Block, group: dict[str, Any], x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    if not block.plain:
        inner: Tensor = block.apply("inner", x, u, v)
        return inner
    u, v = widened(u), widened(v)
    product = (u.conj() * v).real if u.is_complex() else u * v
    if group["adaptive"]:
        square = widened(x).abs() ** 2
        product = torch.where(square > 0, product / square, torch.zeros_like(product))
    return product
