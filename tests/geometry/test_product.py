"""That a product handles precisions, names parameters in errors, and stacks points."""

import copy
import functools
import itertools

import geoopt
import pytest
import torch

from rsam.geometry import Product, UnsupportedOperation, geometry_of
from rsam.testing import point_from_array, tangent_from_array
from rsam.testing.points import ambient_dtype
from tests.geometry.cases import IDS, MANIFOLDS, Make
from tests.geometry.points import indices_of_blocks, unit_point


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
        dtype = torch.complex64  # torch computes in no lower complex precision
    x, u, c = x.to(dtype), u.to(dtype), c.to(dtype)
    wide = torch.complex128 if x.is_complex() else torch.float64
    # the metric and its inverse amplify rounding errors of ambient numbers, which lie off the manifold
    tolerance = 50 * torch.finfo(dtype).eps

    def results(
        x: torch.Tensor, u: torch.Tensor, c: torch.Tensor, manifold: geoopt.Manifold
    ) -> dict[str, torch.Tensor]:
        space = Product([x], manifolds=[manifold])
        (y,) = space.retract([x], [u])
        (v,) = space.project([x], [c])
        (carried,) = space.transport([x], [u], [y], [v])
        return {
            "retract": y,
            "project": v,
            "transport": carried,
            "transport_back": space.transport_back([x], [u], [y], [carried])[0],
            "raise_index": space.raise_index([x], [c])[0],
            "lower_index": space.lower_index([x], [v])[0],
            "project_point": space.project_point([x])[0],
        }

    low = results(x, u, c, manifold)
    high = results(x.to(wide), u.to(wide), c.to(wide), copy.deepcopy(manifold).double())
    for operation, value in low.items():
        assert value.dtype == dtype, operation
        scale = float(high[operation].abs().max())
        error = float((value.to(wide) - high[operation]).abs().max())
        assert error <= tolerance * max(scale, 1), operation
    (tangent,) = Product([x], manifolds=[manifold]).random_tangent([x])
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
    space = Product(points, manifolds=manifolds)
    ends = space.retract(points, tangents)
    for x, u, manifold, end in zip(points, tangents, manifolds, ends, strict=True):
        (alone,) = Product([x], manifolds=[manifold]).retract([x], [u])
        torch.testing.assert_close(end, alone, rtol=1e-5, atol=1e-5)
    lists = zip(points, tangents, manifolds, strict=True)
    norms = [Product([x], manifolds=[manifold]).norm([x], [u]) for x, u, manifold in lists]
    torch.testing.assert_close(space.norm(points, tangents), torch.stack(norms).norm(), rtol=1e-5, atol=1e-5)
    drawn = space.random_tangent(points, generator=generator)
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
    space = Product([plain, x], manifolds=[geoopt.Euclidean(), manifold])
    for call in (space.exponential, functools.partial(space.curve, exact=True)):
        with pytest.raises(UnsupportedOperation) as caught:
            call([plain, x], [plain, u])
        where = f"parameter 1 (shape {shape}, {manifold.name}): "
        assert str(caught.value).startswith(f"{where}{type(manifold).__name__} has no exponential; give it one with ")


class Cone(geoopt.Manifold):
    """User's manifold with hardly any methods."""

    name = "Cone"
    ndim = 1
    reversible = False

    def retr(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return x + u

    def expmap(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    inner = proju = projx = egrad2rgrad = _check_point_on_manifold = _check_vector_on_tangent = expmap


@pytest.mark.parametrize(
    ("operation", "arguments", "missing"),
    [("random_tangent", 0, "random_tangent"), ("transport", 3, "transport"), ("acceleration", 1, "exponential")],
)
def test_that_operations_that_a_users_manifold_lacks_are_named(operation: str, arguments: int, missing: str) -> None:
    x = torch.ones(2)
    columns = [[x]] * arguments
    space = Product([x], manifolds=[Cone()])
    with pytest.raises(UnsupportedOperation, match=rf"^parameter 0 \(shape \(2,\), Cone\): Cone has no {missing};"):
        getattr(space, operation)([x], *columns)


@pytest.mark.parametrize("metric", ["LEM", "SM"])
def test_that_a_metric_of_spd_that_geoopt_lacks_is_refused(metric: str) -> None:
    with pytest.warns(UserWarning, match="not fully implemented"):
        manifold = geoopt.SymmetricPositiveDefinite(metric)
    x = torch.eye(2)
    where = r"^parameter 0 \(shape \(2, 2\), SymmetricPositiveDefinite\): "
    with pytest.raises(UnsupportedOperation, match=rf"{where}SymmetricPositiveDefinite has no .*{metric}"):
        Product([x], manifolds=[manifold])


def test_that_lists_of_unequal_length_are_refused() -> None:
    x = torch.ones(2)
    with pytest.raises(ValueError, match=r"retract got 1 points but a list of 0 beside them"):
        Product([x]).retract([x], [])
    with pytest.raises(ValueError, match=r"got 2 points for a product of 1 manifold"):
        Product([x]).retract([x, x], [x, x])
    for what, column in (("manifolds", [geoopt.Sphere()]), ("names", ["x"]), ("apart", [0])):
        with pytest.raises(ValueError, match=rf"got 2 points but 1 {what.replace('apart', 'labels')}"):
            Product([x, x], **{what: column})


def _matrix() -> geoopt.ManifoldParameter:
    """Make a parameter on a manifold that has no exponential."""
    return geoopt.ManifoldParameter(torch.full((2, 2), 0.5), manifold=geoopt.BirkhoffPolytope())


def test_that_errors_bear_the_names_of_parameters() -> None:
    free = torch.nn.Parameter(torch.ones(2))
    model = torch.nn.ParameterDict({"free": free, "mixing": _matrix(), "second": _matrix()})
    params = list(model.values())
    error = "{} (shape (2, 2), BirkhoffPolytope): BirkhoffPolytope has no exponential; give it one with @"
    for space, name in (
        (Product(model.named_parameters()), "'mixing'"),  # the first of a stack of two
        (Product(params), "parameter 1"),
        (Product(params, names=["one", "two of group 3", "three"]), "two of group 3"),
        (Product(model.named_parameters()).part([0, 2]), "'second'"),
    ):
        with pytest.raises(UnsupportedOperation) as caught:
            space.exponential(space.params, space.params)
        assert str(caught.value).startswith(error.format(name))
    assert Product(model.named_parameters()).describe(0) == "'free' (shape (2,), Euclidean)"


def test_that_equal_small_points_make_one_block_and_others_their_own() -> None:
    curved = [geoopt.Lorentz(1.0), geoopt.Lorentz(2.0)]
    points = {
        "sphere": unit_point(1, 2, 3),
        "plain": torch.nn.Parameter(torch.ones(3)),
        "equal": unit_point(3, 2, 1),  # different objects of equal manifolds
        "plain too": torch.nn.Parameter(torch.ones(3)),
        "longer": unit_point(1, 2, 3, 4),
        "a batch": geoopt.ManifoldParameter(torch.eye(3), manifold=geoopt.Sphere()),
        "double": geoopt.ManifoldParameter(unit_point(1, 2, 3).detach().double(), manifold=geoopt.Sphere()),
        "exact": unit_point(1, 2, 3, manifold=geoopt.SphereExact()),
        "large": unit_point(*range(1, 2**15)),
        "large too": unit_point(*range(1, 2**15)),
        "equal again": unit_point(2, 2, 1),
        "curvature 1": geoopt.ManifoldParameter(torch.tensor([1.0, 0.0, 0.0]), manifold=curved[0]),
        "curvature 2": geoopt.ManifoldParameter(torch.tensor([2.0, 0.0, 0.0]).sqrt(), manifold=curved[1]),
    }
    space = Product(points.items())
    blocks = [[list(points)[i] for i in indices] for indices in indices_of_blocks(space)]
    assert blocks.pop(0) == ["sphere", "equal", "equal again"]
    assert blocks == [[name] for name in points if name not in ("sphere", "equal", "equal again")]


def test_that_a_stack_gives_what_each_of_it_gives_alone() -> None:
    points = [unit_point(1, 2, 3), torch.nn.Parameter(torch.arange(3.0)), unit_point(3, 2, 1)]
    space = Product(points)
    assert indices_of_blocks(space) == [(0, 2), (1,)]
    generator = torch.Generator().manual_seed(0)
    ambient = [torch.randn(3, generator=generator) for _ in points]
    tangents = space.project(points, ambient)
    ends = space.retract(points, tangents)
    coordinates = [torch.randn(shape, generator=generator) for shape in space.coordinates_shape(points)]
    assert [z.shape for z in coordinates] == [(2,), (3,), (2,)]
    calls = {
        "raise_index": (ambient,),
        "retract": (tangents,),
        "exponential": (tangents,),
        "transport_back": (tangents, ends, space.project(ends, ambient)),
        "pullback": (tangents, ambient),
        "project_point": (),
        "component_inner": (tangents,),
        "from_coordinates": (coordinates,),
        "to_coordinates": (ambient,),
    }
    for (name, columns), exact in itertools.product(calls.items(), (False, True)):
        options = {"exact": True} if exact and name in ("transport_back", "pullback") else {}
        together = getattr(space, name)(points, *columns, **options)
        for i, (x, result) in enumerate(zip(points, together, strict=True)):
            on = geometry_of(space.manifolds[i])
            alone = getattr(on, name)(x, *(column[i] for column in columns), **options)
            torch.testing.assert_close(result, alone.expand_as(result), msg=name)
    assert space.dimension(points) == 2 + 3 + 2


def test_that_more_points_than_a_stack_holds_are_each_where_they_belong() -> None:
    count, size = 9, 2**14
    points = [unit_point(*[i] * (i + 1), *[0] * (size - i - 1)) for i in range(1, count + 1)]
    space = Product(points)
    assert sorted(itertools.chain(*indices_of_blocks(space))) == list(range(count)) and len(space.blocks) < count
    torch.testing.assert_close(space.project_point([2 * x for x in points]), [x.detach() for x in points])


def test_that_labels_keep_blocks_apart() -> None:
    points = [unit_point(1, 2, 3) for _ in range(4)]
    assert indices_of_blocks(Product(points, apart=["slow", "fast", "slow", "fast"])) == [(0, 2), (1, 3)]
    assert indices_of_blocks(Product(points, apart=["slow", "fast", "slow", "fast"]).part([1, 2, 3])) == [(0, 2), (1,)]
    assert indices_of_blocks(Product(points)) == [(0, 1, 2, 3)]


def test_that_a_step_with_its_transport_gives_points_and_vectors() -> None:
    points = [unit_point(1, 2, 3), torch.nn.Parameter(torch.arange(3.0)), unit_point(3, 2, 1)]
    space = Product(points)
    tangents = space.project(points, [torch.tensor([0.1, -0.2, 0.3])] * 3)
    for isometric in (False, True):
        ends, carried = space.retract_transport(points, tangents, tangents, isometric=isometric)
        assert isinstance(ends, list) and isinstance(carried, list)
        for x, u, manifold, y, v in zip(points, tangents, space.manifolds, ends, carried, strict=True):
            expected = geometry_of(manifold).retract_transport(x, u, u, isometric=isometric)
            torch.testing.assert_close((y, v), expected)


def test_that_a_part_is_the_product_of_some_parameters() -> None:
    points = [unit_point(1, 2, 3), torch.nn.Parameter(torch.ones(2)), unit_point(3, 2, 1), unit_point(1, 2)]
    space = Product(zip("abcd", points, strict=True))
    part = space.part([2, 0])
    assert len(part) == 2 and part.params[0] is points[2] and part.params[1] is points[0]
    assert part.manifolds == [points[2].manifold, points[0].manifold] and indices_of_blocks(part) == [(0, 1)]
    assert part.describe(0) == space.describe(2) == "'c' (shape (3,), Sphere)"
    tangents = space.project(points, [torch.ones_like(x) for x in points])
    whole, some = space.retract(points, tangents), part.retract(part.params, [tangents[2], tangents[0]])
    torch.testing.assert_close(some, [whole[2], whole[0]])
    assert space.part([]).retract([], []) == [] and float(space.part([]).norm([], [])) == 0


def test_that_coordinates_are_drawn_from_the_generator_of_a_device() -> None:
    points = [unit_point(1, 2, 3), torch.ones(2, 2)]
    space, asked = Product(points), []

    def generator_of(device: torch.device) -> torch.Generator:
        asked.append(device)
        return generator

    generator = torch.Generator().manual_seed(3)
    drawn = space.random_coordinates(points, generator=generator_of)
    assert asked == [x.device for x in points]
    again = space.random_coordinates(points, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, again, rtol=0, atol=0)
