"""That bad arguments of check_manifold and check_optimizer are refused by name, with what to do."""

from typing import Any

import geoopt
import pytest
import torch

import rsam
from rsam.geometry import KernelStiefel
from rsam.testing import check_manifold, check_optimizer, properties

SPHERE, STIEFEL = geoopt.Sphere(), geoopt.EuclideanStiefel()
SIZES = r"shape must be a tuple of sizes, such as \(3,\) for a vector, got "

# manifold, shape, further options, error, message
BAD: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (
        geoopt.Sphere,
        (3,),
        {},
        TypeError,
        "manifold: the class Sphere is no geoopt.Manifold, but an object of it is: call",
    ),
    ((3,), SPHERE, {}, TypeError, "manifold: tuple of the package 'builtins' is no geoopt.Manifold; put"),
    (SPHERE, 5, {}, TypeError, SIZES + "5"),
    (SPHERE, "3", {}, TypeError, SIZES + "'3'"),
    (SPHERE, (3.0,), {}, TypeError, SIZES + r"\(3.0,\)"),
    (SPHERE, (0,), {}, ValueError, r"shape must have sizes of at least 1, got \(0,\)"),
    (
        STIEFEL,
        (5,),
        {},
        ValueError,
        r"shape must have 2 or more .*, since a point of EuclideanStiefel has 2; got \(5,\)",
    ),
    (STIEFEL, (2, 3), {}, ValueError, r"shape must be one of points x of EuclideanStiefel, got \(2, 3\): .*\[-1\] <= "),
    (KernelStiefel(), (4, 3), {}, ValueError, r"shape must have 4 or more dimensions"),
    (geoopt.SymmetricPositiveDefinite(), (2, 3), {}, ValueError, r"shape must be .* got \(2, 3\): .*\[-1\] == shape"),
    (geoopt.ProductManifold((SPHERE, 3), (SPHERE, 2)), (4,), {}, ValueError, r"shape must be .* should be equal to 5"),
    (
        SPHERE,
        (3,),
        {"dtype": "float64"},
        TypeError,
        "dtype must be a torch.dtype, such as torch.float64, got 'float64'",
    ),
    (SPHERE, (3,), {"dtype": torch.int64}, ValueError, "dtype must be one of real or complex numbers"),
    (SPHERE, (3,), {"max_examples": 0}, ValueError, "max_examples must be at least 1, got 0"),
    (SPHERE, (3,), {"max_examples": 2.5}, TypeError, "max_examples must be an int, got 2.5"),
    # names as reports have them, which would leave out nothing
    (
        SPHERE,
        (3,),
        {"skip": ["a zero step goes nowhere"]},
        TypeError,
        "skip must be a list of functions, such as those",
    ),
    (SPHERE, (3,), {"skip": properties.a_zero_step_goes_nowhere}, TypeError, "skip must be a list of functions"),
]


@pytest.mark.parametrize(("manifold", "shape", "options", "error", "message"), BAD, ids=[row[-1][:30] for row in BAD])
def test_that_bad_arguments_are_named(
    manifold: Any, shape: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_manifold(manifold, shape, **options)
    with pytest.raises(error, match=message):
        check_optimizer(rsam.RSAM, manifold=manifold, shape=shape, **options)


@pytest.mark.parametrize("chosen", [["raising_undoes_lowering"], properties.raising_undoes_lowering, 3])
def test_that_properties_are_a_list_of_functions(chosen: Any) -> None:
    with pytest.raises(TypeError, match=r"properties must be a list of functions, such as those of rsam.testing.prop"):
        check_manifold(SPHERE, (3,), properties=chosen)


def test_that_no_properties_are_none_to_check() -> None:
    assert check_manifold(SPHERE, [3], properties=()).checked == ()


@pytest.mark.parametrize("geometry", [rsam.testing.NativeGeometry, SPHERE])
def test_that_a_geometry_is_an_object_of_its_class(geometry: Any) -> None:
    with pytest.raises(TypeError, match=r"geometry must be a Geometry, such as NativeGeometry\(manifold\), got "):
        check_manifold(SPHERE, (3,), geometry=geometry)


def test_that_an_optimizer_is_no_factory_of_optimizers() -> None:
    optimizer = rsam.RSAM([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    with pytest.raises(TypeError, match=r"factory must be a function that makes .* got an object of RSAM"):
        check_optimizer(optimizer)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="raises TypeError: factory must return an optimizer, got None"):
        check_optimizer(lambda params: None, max_examples=1)


@pytest.mark.parametrize("options", [{"shape": (3,)}, {"isometry": object()}])
def test_that_a_shape_or_an_isometry_needs_a_manifold(options: Any) -> None:
    with pytest.raises(ValueError, match="takes shape and isometry with a manifold only"):
        check_optimizer(rsam.RSAM, **options)
