"""The list vocabulary: precisions, mixed lists, and errors that name what is missing where."""

import copy

import geoopt
import pytest
import torch

from rsam import geometry
from rsam.geometry import UnsupportedOperation
from rsam.testing import point_from_array, tangent_from_array
from rsam.testing.places import ambient_dtype
from tests.geometry.cases import MANIFOLDS, Make

IDS = [name for name, _, _ in MANIFOLDS]


def _sample(manifold: geoopt.Manifold, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    dtype = ambient_dtype(manifold, torch.float32)
    a, b, c = (torch.randn(shape, dtype=dtype, generator=generator) for _ in range(3))
    x = point_from_array(manifold, a / 4)
    return x, tangent_from_array(manifold, x, b), c


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_low_precision_is_the_double_one_rounded(
    name: str, make: Make, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    manifold = make()
    x, u, c = _sample(manifold, shape)
    if x.is_complex():
        dtype = torch.complex64  # there are no complex numbers of less
    x, u, c = x.to(dtype), u.to(dtype), c.to(dtype)
    wide = torch.complex128 if x.is_complex() else torch.float64
    # what is rounded to ambient numbers off the manifold is amplified by the metric at the point and its inverse
    tolerance = 50 * torch.finfo(dtype).eps

    def results(
        x: torch.Tensor, u: torch.Tensor, c: torch.Tensor, manifold: geoopt.Manifold
    ) -> dict[str, torch.Tensor]:
        on = {"manifolds": [manifold]}
        (y,) = geometry.retract([x], [u], **on)
        (v,) = geometry.project([x], [c], **on)
        (carried,) = geometry.transport([x], [u], [y], [v], **on)
        return {
            "retract": y,
            "project": v,
            "transport": carried,
            "transport_back": geometry.transport_back([x], [u], [y], [carried], **on)[0],
            "raise_index": geometry.raise_index([x], [c], **on)[0],
            "lower_index": geometry.lower_index([x], [v], **on)[0],
            "project_points": geometry.project_points([x], **on)[0],
        }

    low = results(x, u, c, manifold)
    high = results(x.to(wide), u.to(wide), c.to(wide), copy.deepcopy(manifold).double())
    for operation, value in low.items():
        assert value.dtype == dtype, operation
        scale = float(high[operation].abs().max())
        error = float((value.to(wide) - high[operation]).abs().max())
        assert error <= tolerance * max(scale, 1), operation
    tangent = geometry.random_tangent([x], manifolds=[manifold])[0]
    assert tangent.dtype == dtype and tangent.isfinite().all()


def test_that_a_list_may_mix_everything() -> None:
    generator = torch.Generator().manual_seed(0)
    points, tangents, manifolds = [], [], []
    for _, make, shape in MANIFOLDS:
        manifold = make()
        x, u, _ = _sample(manifold, shape)
        points += [x, x]
        tangents += [u, u]
        manifolds += [manifold, manifold]
    ends = geometry.retract(points, tangents, manifolds=manifolds)
    for x, u, manifold, end in zip(points, tangents, manifolds, ends, strict=True):
        alone = geometry.retract([x], [u], manifolds=[manifold])[0]
        torch.testing.assert_close(end, alone, rtol=1e-5, atol=1e-5)
    norms = [geometry.norm([x], [u], manifolds=[m]) for x, u, m in zip(points, tangents, manifolds, strict=True)]
    total = geometry.norm(points, tangents, manifolds=manifolds)
    torch.testing.assert_close(total, torch.stack(norms).norm(), rtol=1e-5, atol=1e-5)
    drawn = geometry.random_tangent(points, generator=generator, manifolds=manifolds)
    assert [z.shape for z in drawn] == [x.shape for x in points]


@pytest.mark.parametrize(
    ("manifold", "shape"),
    [(geoopt.BirkhoffPolytope(), (2, 2)), (geoopt.UpperHalf(), (2, 2)), (geoopt.BoundedDomain(), (2, 2))],
    ids=["Birkhoff", "UpperHalf", "BoundedDomain"],
)
def test_that_a_missing_exponential_names_manifold_parameter_and_operation(
    manifold: geoopt.Manifold, shape: tuple[int, ...]
) -> None:
    x, u, _ = _sample(manifold, shape)
    plain = torch.zeros(3)
    with pytest.raises(UnsupportedOperation) as caught:
        geometry.retract([plain, x], [plain, u], exact=True, manifolds=[geoopt.Euclidean(), manifold])
    for part in (type(manifold).__name__, "exponential", "parameter 1", str(tuple(shape))):
        assert part in str(caught.value)
    assert caught.value.index == 1


class Cone(geoopt.Manifold):
    """A user's manifold that says next to nothing."""

    name = "Cone"
    ndim = 1
    reversible = False

    def retr(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return x + u

    def expmap(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    inner = proju = projx = egrad2rgrad = _check_point_on_manifold = _check_vector_on_tangent = expmap


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [("random_tangent", 0), ("transport", 3), ("acceleration", 1)],
)
def test_that_operations_that_a_users_manifold_lacks_are_named(operation: str, arguments: int) -> None:
    x = torch.ones(2)
    columns = [[x]] * arguments
    with pytest.raises(UnsupportedOperation, match=r"Cone has no .*parameter 0"):
        getattr(geometry, operation)([x], *columns, manifolds=[Cone()])


@pytest.mark.parametrize("metric", ["LEM", "SM"])
def test_that_a_metric_of_spd_that_geoopt_lacks_is_refused(metric: str) -> None:
    with pytest.warns(UserWarning, match="not fully implemented"):
        manifold = geoopt.SymmetricPositiveDefinite(metric)
    x = torch.eye(2)
    with pytest.raises(UnsupportedOperation, match=rf"SymmetricPositiveDefinite.*{metric}.*parameter 0"):
        geometry.retract([x], [x], manifolds=[manifold])


def test_that_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 1 points but a list of 0"):
        geometry.retract([torch.ones(2)], [])
