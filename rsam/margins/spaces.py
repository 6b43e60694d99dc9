"""Define the spaces of a layer's representations, with metric, geodesics and the variation of data in them."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor

from rsam.errors import NotFinite, UnsupportedOperation
from rsam.geometry import geometry_of
from rsam.margins.network import full, rows

__all__ = ["OnManifold", "Space", "Subspace", "Variation", "common_shape", "pairing", "sizes"]


def pairing(covector: Tensor, tangent: Tensor) -> Tensor:
    """Return the pairings of a covector and a tangent, one for each example.

    ``sum`` adds in pairs; ``vector_norm`` would lose four digits of single precision in ten million numbers.
    """
    return rows((covector.conj() * tangent).real).sum(1)


def sizes(covector: Tensor) -> Tensor:
    """Return the largest number of each example's covector, or 1, to divide by, so that squares stay in range."""
    largest = rows(covector).abs().amax(1)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    return largest.reshape(-1, *[1] * (covector.dim() - 1))


def common_shape(layer: str, before: torch.Size | None, h: Tensor, otherwise: str = "") -> torch.Size:
    """Return the shape of an example; raise if it is another than in the batches before."""
    shape = h.shape[1:]
    if before not in (None, shape):
        raise ValueError(
            f"layer {layer!r} puts out shape {tuple(shape)} after {tuple(before)} for an example, which have no common "
            f"variation; pad all batches to one size{otherwise}"
        )
    return shape


class Variation:
    """Accumulator of the total variation of representations, the trace of their covariance, in one pass over batches.

    Means and sums of squares of batches are merged as in Chan, Golub and LeVeque (1983), without loss of digits.
    """

    def __init__(self, layer: str) -> None:
        self.layer, self.count = layer, 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None
        self.shape: torch.Size | None = None

    def add(self, h: Tensor) -> None:
        """Add the representations of a batch."""
        x = rows(full(h))
        self.shape = common_shape(self.layer, self.shape, h, ", or measure with normalize=False")
        mean = x.mean(0)
        squares = pairing(x - mean, x - mean).sum()
        if self.mean is None or self.squares is None:
            self.mean, self.squares = mean, squares
        else:
            share = len(x) / (self.count + len(x))
            change = mean - self.mean
            self.squares = self.squares + squares + self.count * share * pairing(change[None], change[None]).sum()
            self.mean = self.mean + share * change
        self.count += len(x)

    def total(self) -> Tensor:
        """Return the total variation, a scalar; 0 where it is within the rounding of equal representations."""
        assert self.squares is not None
        assert self.mean is not None
        total = self.squares / self.count
        rounding = (4 * torch.finfo(total.dtype).eps) ** 2 * pairing(self.mean[None], self.mean[None]).sum()
        return torch.where(torch.isfinite(rounding) & (total <= rounding), torch.zeros_like(total), total)


class Space:
    """Space of Euclidean representations of a layer."""

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def check(self, h: Tensor, count: int) -> None:
        """Raise unless ``h`` holds the representations of ``count`` examples in this space."""
        if h.dim() == 0 or h.shape[0] != count:
            raise ValueError(
                f"layer {self.layer!r} puts out shape {tuple(h.shape)} for {count} examples; its first dimension must "
                "be the batch"
            )

    def gradient(self, h: Tensor, covector: Tensor) -> Tensor:
        """Return the direction of steepest ascent; its squared length is its pairing with ``covector``."""
        return covector

    def dual_norm(self, h: Tensor, covector: Tensor) -> Tensor:
        """Return the norms of covectors, one for each example."""
        covector = full(covector)
        size = sizes(covector)
        unit = covector / size
        return size.flatten() * pairing(unit, self.gradient(full(h), unit)).clamp_min(0).sqrt()

    def norm(self, h: Tensor, v: Tensor) -> Tensor:
        """Return the lengths of tangents, one for each example."""
        return pairing(v, v).sqrt()

    def exponential(self, h: Tensor, v: Tensor) -> Tensor:
        """Return the ends of geodesics from ``h`` with velocity ``v``."""
        return h + v

    def reach(self, h: Tensor, v: Tensor) -> Tensor:
        """Return the distances from ``h`` to the ends of geodesics with velocity ``v``."""
        return self.norm(h, v)

    def variation(self) -> Variation:
        """Return an accumulator of the total variation."""
        return Variation(self.layer)


class Subspace(Space):
    """Space of Euclidean representations that move only along given directions."""

    def __init__(self, layer: str, directions: Tensor) -> None:
        super().__init__(layer)
        if not isinstance(directions, Tensor):
            raise TypeError(
                f"the subspace of layer {layer!r} must be a tensor, such as the directions of principal_components, "
                f"got {type(directions).__name__}"
            )
        if directions.dim() != 2 or directions.shape[1] == 0:
            raise ValueError(f"the subspace of layer {layer!r} must be a matrix with its directions as columns")
        self.directions = full(directions.detach())
        identity = torch.eye(directions.shape[1], dtype=self.directions.dtype, device=directions.device)
        gram = self.directions.mH @ self.directions
        if not torch.allclose(gram, identity, atol=1e-3):  # directions that were rounded to bfloat16 pass
            raise ValueError(f"the directions of the subspace of layer {layer!r} must be orthonormal columns")

    def check(self, h: Tensor, count: int) -> None:
        super().check(h, count)
        if h[0].numel() != len(self.directions):
            raise ValueError(
                f"the subspace of layer {self.layer!r} has directions of size {len(self.directions)}, but an example "
                f"has {h[0].numel()} numbers there"
            )
        if self.directions.is_complex() and not h.is_complex():
            raise ValueError(f"the subspace of layer {self.layer!r} has complex directions, but the layer real numbers")
        self.directions = self.directions.to(h.device)

    def gradient(self, h: Tensor, covector: Tensor) -> Tensor:
        directions = self.directions.to(covector.dtype)
        return (rows(covector) @ directions.conj() @ directions.mT).reshape(covector.shape)


class OnManifold(Space):
    """Space of representations that are points of a geoopt manifold, or several points for each example."""

    def __init__(self, layer: str, manifold: geoopt.Manifold) -> None:
        super().__init__(layer)
        self.manifold, self.geometry = manifold, geometry_of(manifold)

    def check(self, h: Tensor, count: int) -> None:
        super().check(h, count)
        # outputs of a model in half precision are off the manifold by their rounding
        tolerance = min(torch.finfo(h.dtype).eps ** 0.5, 0.03)
        h = full(h.detach())
        if h.dim() <= self.manifold.ndim:
            raise ValueError(f"layer {self.layer!r} puts out shape {tuple(h.shape)}, which is no batch of points")
        off = (self.geometry.project_point(h) - h).abs().max()
        if not off <= tolerance * h.abs().max().clamp_min(1):
            raise ValueError(
                f"layer {self.layer!r} puts out points that are not on {type(self.manifold).__name__}, by {off:.2g}; "
                "name the module that maps to the manifold, or the right manifold, or project them by its projx"
            )

    def gradient(self, h: Tensor, covector: Tensor) -> Tensor:
        return self.geometry.raise_index(h, covector)

    def norm(self, h: Tensor, v: Tensor) -> Tensor:
        return pairing(self.geometry.lower_index(h, v), v).clamp_min(0).sqrt()

    def exponential(self, h: Tensor, v: Tensor) -> Tensor:
        return self.geometry.exponential(h, v)

    def reach(self, h: Tensor, v: Tensor) -> Tensor:
        # shorter than v if the geodesic goes round a sphere, or ends at the border that geoopt sets inside a ball
        try:
            return self.norm(h, self.geometry.logarithm(h, self.exponential(h, v)))
        except UnsupportedOperation:
            return self.norm(h, v)

    def variation(self) -> Variation:
        return _FrechetVariation(self)


class _FrechetVariation(Variation):
    """Accumulator of the mean squared distance to the Fréchet mean; it keeps all points for the mean's iteration."""

    def __init__(self, space: OnManifold) -> None:
        super().__init__(space.layer)
        self.space = space
        self.batches: list[Tensor] = []

    def add(self, h: Tensor) -> None:
        super().add(h.detach())
        self.batches.append(full(h.detach()))

    @torch.no_grad()
    def total(self) -> Tensor:
        flat = super().total()
        if flat == 0:  # points that differ by their rounding, whose distances are noise
            return flat
        x, geometry = torch.cat(self.batches), self.space.geometry

        def spread(mean: Tensor) -> tuple[Tensor, Tensor]:
            tangents = geometry.logarithm(mean.expand_as(x), x)
            return tangents, self.space.norm(mean.expand_as(x), tangents).square().mean()

        mean = geometry.project_point(x.mean(0, keepdim=True))
        tangents, value = spread(mean)
        length = 1.0
        square = torch.inf * value
        for _ in range(100):
            step = tangents.mean(0, keepdim=True)
            square = self.space.norm(mean, step).square()
            if square <= torch.finfo(x.dtype).eps * value:
                break  # the mean squared distance is within about this fraction of its minimum
            candidate = geometry.exponential(mean, length * step)
            new_tangents, new_value = spread(candidate)
            if new_value < value:
                mean, tangents, value = candidate, new_tangents, new_value
            else:  # far from the origin of a hyperbolic space a full step overshoots
                length /= 2
        if not square <= 1e-3 * value:
            raise NotFinite(f"no Fréchet mean of the representations at layer {self.layer!r} was found")
        return value
