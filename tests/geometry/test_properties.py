"""That every manifold has every property, in double and single precision, unless it lacks the operation."""

import geoopt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsam.geometry import CanonicalStiefel, geometry_of
from rsam.testing import check_manifold, manifolds, points, properties, tangents
from tests.geometry.cases import IDS, MANIFOLDS, Make

# geoopt has no logarithm of these, and no exponential of the last three is known in closed form.
LOGARITHM = ["the logarithm undoes the exponential"]
EXPONENTIAL = [
    "the retraction agrees with the geodesic",
    "a geodesic keeps its speed",
    "geodesics cross spheres at right angles",
    *LOGARITHM,
]
SKIPPED = {
    "Stiefel": LOGARITHM,
    "Product": LOGARITHM,
    "Birkhoff": [
        *EXPONENTIAL,
        "the acceleration is that of the geodesic",
        "the connection is half the slope of the acceleration",
        "second order steps agree with the geodesic",
    ],
    "UpperHalf": [*EXPONENTIAL, "the acceleration is that of the geodesic"],
    "BoundedDomain": [*EXPONENTIAL, "the acceleration is that of the geodesic"],
}
# These run every operation several times, half of the time of all; an operation that writes to its arguments or mixes
# the members of a batch does so at nearly every point, so that fewer points show it.
OF_EVERY_OPERATION = [
    properties.arguments_are_not_written_to,
    properties.a_batch_equals_its_members,
    properties.a_list_equals_its_members,
]
# Single precision cannot break these alone: a copy in double precision, if any, hides what is written to, and a list is
# stacked to a batch.
OF_ANY_PRECISION = [properties.arguments_are_not_written_to, properties.a_list_equals_its_members]


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_every_property_holds(name: str, make: Make, shape: tuple[int, ...]) -> None:
    report = check_manifold(make(), shape, max_examples=10, skip=OF_EVERY_OPERATION)
    expected = next((s for key, s in SKIPPED.items() if key in name and "Stereographic" not in name), [])
    assert sorted(report.skipped) == sorted(expected)
    assert not check_manifold(make(), shape, max_examples=3, properties=OF_EVERY_OPERATION).skipped


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_every_property_holds_in_single_precision(name: str, make: Make, shape: tuple[int, ...]) -> None:
    check_manifold(make(), shape, dtype=torch.float32, max_examples=4, skip=OF_ANY_PRECISION)


def test_that_the_canonical_stiefel_manifold_of_geoopt_and_ours_have_one_geometry() -> None:
    # so that the cases have all shapes of the former only
    assert type(geometry_of(CanonicalStiefel())) is type(geometry_of(geoopt.CanonicalStiefel()))


@pytest.mark.parametrize("ndim", [0, 1])
def test_that_every_property_holds_of_complex_numbers(ndim: int) -> None:
    assert check_manifold(geoopt.Euclidean(ndim), (3,), dtype=torch.complex128).skipped == ()


@settings(max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_that_the_strategies_draw_points_and_tangents_of_every_manifold(data: st.DataObject) -> None:
    manifold, shape = data.draw(manifolds())
    x = data.draw(points(manifold, shape))
    u = data.draw(tangents(x, manifold))
    geometry = geometry_of(manifold)
    assert manifold.check_point(x) and x.shape == shape
    torch.testing.assert_close(geometry.project(x, u), u, rtol=1e-7, atol=1e-9)
    assert float(geometry.inner(x, u, u).sum()) <= 0.25 * (1 + 1e-9)
