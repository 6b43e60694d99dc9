"""That isometries map the manifold to itself, preserve the metric, and have the right inverse."""

import geoopt
import hypothesis
import pytest
import torch
from hypothesis import strategies as st

import rsam
from rsam.geometry import geometry_of
from rsam.testing import Isometry, PropertyError, check_optimizer, isometries, points, tangents
from tests.geometry.cases import MANIFOLDS, Make

CASES = [case for case in MANIFOLDS if "intersection" not in case[0] and "complement" not in case[0]]

SETTINGS = hypothesis.settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),  # to explain a case would trace every line
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.mark.parametrize(("name", "make", "shape"), CASES, ids=[name for name, _, _ in CASES])
@hypothesis.given(data=st.data())
@SETTINGS
def test_that_an_isometry_preserves_the_metric(
    data: st.DataObject, name: str, make: Make, shape: tuple[int, ...]
) -> None:
    manifold = make().double()
    geometry = geometry_of(manifold)
    isometry = data.draw(isometries(manifold, shape))
    x = data.draw(points(manifold, shape))
    u, v = data.draw(tangents(x, manifold)), data.draw(tangents(x, manifold))
    image, pushed_u = torch.autograd.functional.jvp(isometry.apply, x, u)
    pushed_v = torch.autograd.functional.jvp(isometry.apply, x, v)[1]
    size = max(1.0, float(x.abs().max()), float(image.abs().max()))
    assert manifold.check_point_on_manifold(image, atol=1e-8 * size**2, rtol=1e-8)
    torch.testing.assert_close(isometry.invert(image), x, rtol=1e-7, atol=1e-8 * size)
    before, after = geometry.inner(x, u, v).sum(), geometry.inner(image, pushed_u, pushed_v).sum()
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-8)


def test_that_the_simplest_isometry_is_the_identity() -> None:
    x = torch.tensor([1.25, 0.75, 0.0], dtype=torch.float64)
    actual = hypothesis.find(isometries(geoopt.Lorentz(), (3,)), lambda isometry: True, settings=SETTINGS)
    torch.testing.assert_close(actual.apply(x), x)


@pytest.mark.usefixtures("unshrunk")
def test_that_ones_own_isometries_may_be_given() -> None:
    # the QR retraction of EuclideanStiefel depends on the order of columns
    on = {"manifold": geoopt.EuclideanStiefel(), "shape": (3, 2)}
    swap = Isometry("swap of columns", lambda x: x.flip(-1), lambda y: y.flip(-1))
    with pytest.raises(PropertyError, match="isometry = swap of columns"):
        check_optimizer(lambda params: rsam.RSAM(params, rho=0.1, lr=0.1), **on, isometry=st.just(swap))


def test_that_isometries_of_unknown_manifolds_are_not_known() -> None:
    with pytest.raises(NotImplementedError, match="no isometries known of object"):
        isometries(object(), (2,))
