"""Convert the parameters of hypll models to the form that optimizers for geoopt's manifolds take."""

from __future__ import annotations

from collections.abc import Iterator

import geoopt
from torch import Tensor, nn

from rsam.geometry import register
from rsam.geometry.manifolds.stereographic import StereographicExactGeometry
from rsam.integrations.frameworks import needs

with needs("hypll"):
    from hypll.manifolds.euclidean import Euclidean
    from hypll.manifolds.poincare_ball import PoincareBall
    from hypll.tensors import ManifoldParameter

__all__ = ["Ball", "named_parameters", "parameters"]


class Ball(geoopt.PoincareBallExact):
    """A Poincaré ball of hypll's as a manifold of geoopt's, with the same curvature, trained or not.

    Stepped along geodesics, as hypll's optimizers do.

    Parameters
    ----------
    ball : hypll.manifolds.poincare_ball.PoincareBall
        The ball, whose curvature is read at each use.

    Examples
    --------
    >>> import torch, rsam.integrations.hypll
    >>> from hypll.manifolds.poincare_ball import Curvature, PoincareBall
    >>> ball = rsam.integrations.hypll.Ball(PoincareBall(Curvature(1.0)))
    >>> origin = torch.zeros(2)
    >>> ball.dist(origin, ball.expmap(origin, torch.tensor([0.3, 0.4]))).item()  # twice the length at the origin
    1.0...
    """

    def __init__(self, ball: PoincareBall) -> None:
        geoopt.Manifold.__init__(self)  # the constructor of geoopt's ball would make its own curvature
        self.ball = ball

    @property
    def c(self) -> Tensor:
        """Curvature of hypll's ball."""
        curvature: Tensor = self.ball.c()
        return curvature


# registered, since otherwise the overridden property would decide whether closed forms are used
register(Ball)(StereographicExactGeometry)


def named_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a model with their names; for one of hypll's, the tensor that it holds.

    A ``hypll.tensors.ManifoldParameter`` is a shell around a parameter, which optimizers step. The parameter gets a
    :class:`Ball` as its attribute ``manifold``, or stays plain where hypll's manifold is Euclidean.

    Parameters
    ----------
    module : torch.nn.Module
        A model, of hypll's layers and any others.

    Yields
    ------
    tuple of str and torch.nn.Parameter
        As ``module.named_parameters()`` does.

    Raises
    ------
    TypeError
        For another manifold than hypll's two; names the parameter.
    ValueError
        For points that do not lie along the last dimension; names the parameter.

    Examples
    --------
    >>> import rsam
    >>> from hypll.manifolds.poincare_ball import Curvature, PoincareBall
    >>> from hypll.nn import HEmbedding
    >>> embedding = HEmbedding(5, 2, PoincareBall(Curvature(1.0)))
    >>> [(name, tuple(p.shape)) for name, p in rsam.integrations.hypll.named_parameters(embedding)]
    [('weight', (5, 2)), ('manifold.c.value', ())]
    >>> optimizer = rsam.RSAM(rsam.integrations.hypll.parameters(embedding), lr=0.1)
    """
    for name, parameter in module.named_parameters():
        yield name, _held(name, parameter) if isinstance(parameter, ManifoldParameter) else parameter


def parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a model; for one of hypll's, the tensor that it holds.

    Parameters
    ----------
    module : torch.nn.Module
        A model, of hypll's layers and any others.

    Yields
    ------
    torch.nn.Parameter
        As ``module.parameters()`` does.

    Raises
    ------
    TypeError, ValueError
        As :func:`named_parameters`.

    Examples
    --------
    >>> import rsam.integrations.hypll
    >>> from hypll.manifolds.poincare_ball import Curvature, PoincareBall
    >>> from hypll.nn import HEmbedding
    >>> embedding = HEmbedding(5, 2, PoincareBall(Curvature(1.0)))
    >>> [type(p).__name__ for p in rsam.integrations.hypll.parameters(embedding)]
    ['Parameter', 'Parameter']
    """
    for _, parameter in named_parameters(module):
        yield parameter


def _held(name: str, parameter: ManifoldParameter) -> nn.Parameter:
    tensor, manifold = parameter.tensor, parameter.manifold
    held: nn.Parameter = tensor
    if isinstance(manifold, Euclidean):
        return held
    if not isinstance(manifold, PoincareBall):
        raise TypeError(
            f"{name!r} lives on {type(manifold).__module__}.{type(manifold).__qualname__}, of which rsam knows no "
            "geometry; of hypll it knows PoincareBall and Euclidean"
        )
    if parameter.man_dim != tensor.dim() - 1:
        raise ValueError(
            f"the points of {name!r}, shape {tuple(tensor.shape)}, lie along dimension {parameter.man_dim}; only the "
            "last one can be stepped, so hold it transposed"
        )
    if not isinstance(getattr(tensor, "manifold", None), Ball) or tensor.manifold.ball is not manifold:
        tensor.manifold = Ball(manifold)
    return held
