"""Average weights so that they stay on their manifolds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import geoopt
import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from rsam import geometry

__all__ = ["get_ema_multi_avg_fn", "get_swa_multi_avg_fn", "project_parameters"]

_M = TypeVar("_M", bound=nn.Module)
Average = Callable[[list[Tensor], list[Tensor], Tensor | int], None]
#: Shortens the way to the current weights, a tangent or a difference, given the number of models averaged so far.
_Share = Callable[[Tensor, Tensor | int], Tensor]


def get_swa_multi_avg_fn(model: nn.Module) -> Average:
    r"""Make the ``multi_avg_fn`` of an equally weighted mean that stays on the manifolds of a model.

    Pass it to :class:`torch.optim.swa_utils.AveragedModel`, which otherwise takes arithmetic means. The mean of points
    of a sphere or a Stiefel manifold lies inside, perhaps at the centre, although it has the manifold's attribute.

    The mean moves along the geodesic to each new point,
    :math:`\bar x \leftarrow \exp_{\bar x}(\log_{\bar x}(x)/(n+1))`. This is the inductive mean (Sturm 2003): the
    Fréchet mean of points of one geodesic; of other points near each other close to it, though it depends on their
    order. Where the manifold, or a part of a product, has no logarithm (Stiefel, Birkhoff, Siegel), each step goes
    along the straight line and is projected: the extrinsic mean. Plain weights and buffers are averaged bitwise as by
    torch's function of the same name.

    As in torch, renew the batch-norm statistics of the averaged weights by :func:`torch.optim.swa_utils.update_bn`.

    Parameters
    ----------
    model : torch.nn.Module
        The averaged model, which has the manifolds; ``AveragedModel`` passes on plain tensors.

    Returns
    -------
    callable
        Argument ``multi_avg_fn`` of ``AveragedModel``. It raises ValueError for weights of other shapes than the
        model's, and for an antipode of the average, or a mean of two with several nearest points.

    Raises
    ------
    ValueError
        If the curvature or scale of a manifold is learned, so that points of several manifolds would be averaged.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> from torch.optim.swa_utils import AveragedModel
    >>> layer = rsam.nn.constrain(torch.nn.Linear(3, 5), geoopt.Sphere())
    >>> average = AveragedModel(layer, multi_avg_fn=rsam.optim.averaging.get_swa_multi_avg_fn(layer))
    >>> optimizer = rsam.RSAM(layer.parameters(), lr=0.5)
    >>> for _ in range(10):
    ...     optimizer.zero_grad()
    ...     layer(torch.randn(8, 3)).square().mean().backward()
    ...     optimizer.first_step(zero_grad=True)
    ...     layer(torch.randn(8, 3)).square().mean().backward()
    ...     optimizer.second_step()
    ...     average.update_parameters(layer)
    >>> torch.allclose(average.module.weight.norm(dim=1), torch.ones(5))
    True
    """
    return _average(model, _average_plain, lambda way, count: way / (count + 1))


def get_ema_multi_avg_fn(model: nn.Module, decay: float = 0.999) -> Average:
    r"""Make the ``multi_avg_fn`` of an exponential moving average that stays on the manifolds of a model.

    As :func:`get_swa_multi_avg_fn`, with the step :math:`\exp_{\bar x}((1 - d)\log_{\bar x}(x))` for a decay ``d``.

    Parameters
    ----------
    model : torch.nn.Module
        The model that is averaged.
    decay : float
        Weight of the average so far, from 0 to 1.

    Returns
    -------
    callable
        Argument ``multi_avg_fn`` of ``AveragedModel``.

    Raises
    ------
    ValueError
        If the decay is not in [0, 1], or the curvature or scale of a manifold is learned.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> layer = rsam.nn.constrain(torch.nn.Linear(3, 5), geoopt.Sphere())
    >>> average = torch.optim.swa_utils.AveragedModel(
    ...     layer, multi_avg_fn=rsam.optim.averaging.get_ema_multi_avg_fn(layer, decay=0.99)
    ... )
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be from 0 to 1, got {decay}")
    return _average(model, swa_utils.get_ema_multi_avg_fn(decay), lambda way, _: way * (1 - decay))


@torch.no_grad()
def project_parameters(model: _M) -> _M:
    """Project every parameter of a model that has a manifold onto it, in place.

    Use it after averages by other libraries: callbacks of Lightning and timm, federated averaging, model soups. Weights
    on their manifold change by rounding at most.

    Parameters
    ----------
    model : torch.nn.Module
        The averaged model.

    Returns
    -------
    torch.nn.Module
        ``model``.

    Raises
    ------
    ValueError
        If a parameter has no nearest point on its manifold (a zero row, a number that is not finite), or several (half
        way between matrices whose determinants are 1 and -1); names it, and changes nothing.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> layer = rsam.nn.constrain(torch.nn.Linear(3, 5), geoopt.Sphere())
    >>> with torch.no_grad():
    ...     _ = layer.weight.mul_(0.9)  # as an arithmetic mean would
    >>> torch.allclose(rsam.optim.averaging.project_parameters(layer).weight.norm(dim=1), torch.ones(5))
    True
    """
    named = [(n, p) for n, p in model.named_parameters() if not geometry.is_plain(p) and not p.is_meta]
    space = geometry.Product(named)
    stacks = space.gather([p.detach() for p in space.points])
    nearest = [_nearest(block, stack) for block, stack in zip(space.blocks, stacks, strict=True)]
    for p, point in zip(space.points, space.scatter(nearest), strict=True):
        p.copy_(point)
    return model


def _average_plain(averages: list[Tensor], currents: list[Tensor], count: Tensor | int) -> None:
    if averages[0].is_floating_point() or averages[0].is_complex():
        swa_utils.get_swa_multi_avg_fn()(averages, currents, count)
        return
    for x, y in zip(averages, currents, strict=True):  # the above raises for the counters of batch norm in torch 2.14
        x.copy_(swa_utils.get_swa_avg_fn()(x, y, count))


def _average(model: nn.Module, average_plain: Average, share: _Share) -> Average:
    _refuse_learned_manifolds(model)
    known: dict[Any, tuple[list[geoopt.Manifold], geometry.Product]] = {}  # by device and dtype

    @torch.no_grad()
    def average(averages: list[Tensor], currents: list[Tensor], count: Tensor | int) -> None:
        held = _held(model, averages)
        curved = [i for i, (_, p) in enumerate(held) if not geometry.is_plain(p)]
        plain = [i for i, (_, p) in enumerate(held) if geometry.is_plain(p)]
        points, manifolds = [averages[i] for i in curved], [geometry.manifold_of(held[i][1]) for i in curved]
        key = averages[0].device, averages[0].dtype
        if key not in known or known[key][0] != manifolds:
            own, names = _on_device(manifolds, key[0]), [repr(held[i][0]) for i in curved]
            known[key] = manifolds, geometry.Product(points, manifolds=own, names=names)
        means = _means(known[key][1], points, [currents[i] for i in curved], lambda way: share(way, count))
        if plain:
            average_plain([averages[i] for i in plain], [currents[i] for i in plain], count)
        for x, mean in zip(points, means, strict=True):
            x.copy_(mean)

    return average


def _means(
    space: geometry.Product, averages: list[Tensor], currents: list[Tensor], share: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Return points between averages and current points; half precision is rounded once, at the end."""
    space.update(averages)
    stacks = []
    for block, x, y in zip(space.blocks, space.gather(averages), space.gather(currents), strict=True):
        try:
            way = block.apply("logarithm", x, y)
            if geometry.all_finite([x, y]) and not geometry.all_finite([way]):
                raise ValueError(
                    f"{_first_wrong(block, way.isfinite())} lies opposite to its average, from which all ways are "
                    "equally long, or one of both is no point of the manifold; leave these weights out, or start "
                    "another average"
                )
            stacks.append(block.apply("exponential", x, share(way)))
        except geometry.UnsupportedOperation:
            mean = x + share(y - x)
            # closer to the average only one point is nearest
            is_half_way = float(share(torch.ones((), device=x.device))) >= 1 / 2
            stacks.append(_nearest(block, mean) if is_half_way else block.apply("project_point", mean))
    return space.scatter(stacks)


def _nearest(block: geometry.Block, points: Tensor) -> Tensor:
    """Return the nearest points on the manifold; refuse points that have none, or several."""
    nearest: Tensor = block.apply("project_point", points)
    if not geometry.all_finite([nearest]):
        wrong = _first_wrong(block, nearest.isfinite())
        raise ValueError(f"{wrong} has no nearest point on its manifold: a zero or non-finite row?")
    dims = tuple(range(-block.geometry.manifold.ndim, 0))
    if dims:
        size = nearest.abs().amax(dims, keepdim=True)
        noise = torch.randn(points.shape, dtype=points.dtype, generator=torch.Generator().manual_seed(0)).to(points)
        noise = noise * (64 * torch.finfo(points.dtype).eps * size)
        # rounding decides between several: from both sides of it the nearest points differ by more than rounding
        apart = block.apply("project_point", points + noise) - block.apply("project_point", points - noise)
        differ = torch.linalg.vector_norm(apart, dim=dims, keepdim=True) > 0.1 * size
        if differ.any():
            raise ValueError(
                f"{_first_wrong(block, ~differ)} has several nearest points on its manifold, since what was averaged "
                "lies too far apart, as rotations and reflections; leave these weights out"
            )
    return nearest


def _first_wrong(block: geometry.Block, right: Tensor) -> str:
    """Return the name of the first parameter of a block with something that is not right."""
    return block.names[int(right.reshape(len(block.names), -1).all(1).int().argmin())]


def _held(model: nn.Module, averages: list[Tensor]) -> list[tuple[str, Tensor]]:
    """Find the parameters or buffers of the model that correspond to the averages.

    ``AveragedModel`` passes the averages of one dtype and device, in order.
    Buffers, if averaged, come after all parameters. The average may be on another device than the model.
    """
    first = averages[0]
    shapes = [t.shape for t in averages]
    for anywhere in (False, True):

        def alike(pair: tuple[str, Tensor], anywhere: bool = anywhere) -> bool:
            return pair[1].dtype == first.dtype and (anywhere or pair[1].device == first.device)

        parameters: list[tuple[str, Tensor]] = list(filter(alike, model.named_parameters()))
        for held in (parameters, parameters + list(filter(alike, model.named_buffers()))):
            if [t.shape for _, t in held] == shapes:
                return held
    raise ValueError(
        f"got {len(averages)} averaged tensors of {first.dtype} that are not those of the {type(model).__name__} this "
        "averaging function was made for; make it for the model that AveragedModel is made for"
    )


def _on_device(manifolds: list[geoopt.Manifold], device: torch.device) -> list[geoopt.Manifold]:
    """Return manifolds with constants on the device; if these are elsewhere, copies, shared as the originals."""
    if all(t.device == device for m in manifolds for t in (*m.parameters(), *m.buffers())):
        return manifolds
    copies = copy.deepcopy(manifolds)
    nn.ModuleList(copies).to(device)
    return copies


def _refuse_learned_manifolds(model: nn.Module) -> None:
    for name, p in model.named_parameters():
        if any(constant.requires_grad for constant in geometry.manifold_of(p).parameters()):
            raise ValueError(
                f"{name!r} lives on a manifold whose curvature or scale is learned, so that its points are of several "
                "manifolds and have no mean; average by torch's function, then call project_parameters on the average"
            )
