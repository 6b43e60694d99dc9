"""That a product plans once, and notices what makes its plan wrong."""

import geoopt
import pytest
import torch

import rsam
from rsam.geometry import KernelSphere, KernelStiefel, Product, UnsupportedOperation, geometry_of
from tests.geometry.points import indices_of_blocks, unit_point


def test_that_equal_calls_are_planned_once() -> None:
    points = [unit_point(1, 2, 3), torch.nn.Parameter(torch.ones(3)), unit_point(3, 2, 1)]
    space = Product(points)
    blocks = space.blocks
    for _ in range(2):
        moved = space.retract(points, [torch.zeros(3)] * 3)
        space.project([x.detach() for x in points], moved)  # other tensors of the same shapes
        assert space.blocks is blocks and not space.update() and not space.update(moved)


def test_that_another_dtype_is_planned_anew() -> None:
    model = torch.nn.ParameterList([unit_point(1, 2, 3), torch.nn.Parameter(torch.ones(3)), unit_point(3, 2, 1)])
    points = list(model)
    space = Product(points)
    for dtype in (torch.float64, torch.bfloat16):
        model.to(dtype)
        assert all(x is p for x, p in zip(points, model, strict=True))
        ends = space.retract(points, [torch.ones(3, dtype=dtype)] * 3)
        assert [y.dtype for y in ends] == [dtype] * 3 and indices_of_blocks(space) == [(0, 2), (1,)]
        torch.testing.assert_close(ends, Product(points).retract(points, [torch.ones(3, dtype=dtype)] * 3))
        assert not space.update()
    points[0].data = points[0].data.float()  # only one of the points
    assert space.update() and indices_of_blocks(space) == [(0,), (1,), (2,)]
    assert [y.dtype for y in space.project_point(points)] == [torch.float32, torch.bfloat16, torch.bfloat16]


def test_that_data_of_another_shape_are_planned_anew() -> None:
    points = [unit_point(1, 2, 3), unit_point(3, 2, 1)]
    space = Product(points)
    assert indices_of_blocks(space) == [(0, 1)]
    points[1].data = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    u = [torch.tensor([0.0, 0.0, 1.0]), torch.ones(2, 2)]
    tangents = space.project(points, u)
    assert indices_of_blocks(space) == [(0,), (1,)] and space.coordinates_shape(points) == [(2,), (2, 1)]
    expected = [geometry_of(x.manifold).project(x, c) for x, c in zip(points, u, strict=True)]
    torch.testing.assert_close(tangents, expected)
    points[0].data = torch.eye(2)
    assert space.update() and indices_of_blocks(space) == [(0, 1)]


def test_that_a_manifold_attached_later_is_planned_anew() -> None:
    points = [unit_point(1, 2, 3), torch.nn.Parameter(torch.tensor([0.6, 0.8, 0.0]))]
    space = Product(points)
    assert indices_of_blocks(space) == [(0,), (1,)]
    points[1].manifold = geoopt.Sphere()
    up = [torch.ones(3), torch.tensor([0.0, 0.0, 1.0])]
    ends = space.exponential(points, space.project(points, up))
    assert indices_of_blocks(space) == [(0, 1)] and not space.update()
    torch.testing.assert_close(ends[1], torch.tensor(1.0).cos() * points[1] + torch.tensor(1.0).sin() * up[1])
    assert space.describe(1) == "parameter 1 (shape (3,), Sphere)"
    points[1].manifold = geoopt.PoincareBall()  # then on another manifold
    (expected,) = Product(points[1:]).raise_index(points[1:], up[1:])
    torch.testing.assert_close(space.raise_index(points, up)[1], expected)


def test_that_a_manifold_that_is_lost_is_refused_by_name() -> None:
    x, plain = unit_point(1, 2, 3), torch.nn.Parameter(torch.ones(3))
    space = Product([("bias", plain), ("direction", x)])
    part, late = space.part([1]), Product([plain])
    sphere, plain.manifold = x.manifold, geoopt.Sphere()
    assert late.update()
    del x.manifold, plain.manifold
    spaces = {space: "'direction'", part: "'direction'", space.part([1]): "'direction'", late: "parameter 0"}
    for lost, name in spaces.items():
        with pytest.raises(ValueError, match=rf"^{name} \(shape \(3,\), Sphere\) lost its manifold, .* set its"):
            lost.project_point(lost.params)
        with pytest.raises(ValueError, match="lost its manifold"):
            lost.update()
    # other tensors instead of it need none
    ends = space.project_point([plain, torch.tensor([0.0, 0.0, 2.0])])
    torch.testing.assert_close(ends[1], torch.tensor([0.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="lost its manifold"):
        space.update()
    x.manifold = sphere
    torch.testing.assert_close(space.project_point([plain, x])[1], x)


def test_that_points_on_another_manifold_do_not_move_the_parameters_there() -> None:
    x, plain = unit_point(1, 2, 3), torch.nn.Parameter(torch.ones(3))
    other = geoopt.ManifoldParameter(torch.full((3,), 0.1), manifold=geoopt.PoincareBall())
    space = Product([plain, x])
    expected = space.raise_index([plain, x], [torch.ones(3)] * 2)
    for _ in range(2):
        space.raise_index([plain, other], [torch.ones(3)] * 2)
        for points in (space.params, [plain, x]):
            for got, wanted in zip(space.raise_index(points, [torch.ones(3)] * 2), expected, strict=True):
                assert torch.equal(got, wanted)


def test_that_points_on_a_manifold_do_not_move_a_plain_parameter_there() -> None:
    plain = torch.nn.Parameter(torch.full((3,), 0.1))
    ball = geoopt.ManifoldParameter(torch.full((3,), 0.1), manifold=geoopt.PoincareBall())
    space, g = Product([plain]), [torch.ones(3)]
    assert float(space.raise_index([ball], g)[0].sum()) < 3
    for points in ([plain], [plain.detach()], space.params):
        torch.testing.assert_close(space.raise_index(points, g), g)


def test_that_another_manifold_of_a_parameter_is_that_of_bare_points_too() -> None:
    """Before, bare tensors were taken for points of the manifold that the parameter had been on."""
    x = unit_point(1, 2, 3)
    space, g = Product([x]), [torch.ones(3)]
    bare = [x.detach().as_subclass(torch.Tensor)]
    space.raise_index(bare, g)
    x.manifold = geoopt.PoincareBall(0.25)
    expected = geometry_of(x.manifold).raise_index(bare[0], g[0])
    torch.testing.assert_close(space.raise_index(bare, g)[0], expected)
    torch.testing.assert_close(space.part([0]).raise_index(bare, g)[0], expected)


def test_that_manifolds_that_are_given_count_more_than_attributes() -> None:
    """Before, the first call took the attribute instead."""
    x, g = unit_point(1, 2, 3), [torch.ones(3)]
    ball = geoopt.PoincareBall(0.25)
    space = Product([x], manifolds=[ball])
    for points in (space.params, [x], [x.detach()]):
        torch.testing.assert_close(space.raise_index(points, g)[0], geometry_of(ball).raise_index(x, g[0]))


def test_that_a_manifold_is_taken_over_though_another_was_lost() -> None:
    points = [unit_point(1, 2, 3), unit_point(1, 2, 3)]
    space, g, sphere = Product(points), [torch.ones(3)] * 2, points[1].manifold
    points[0].manifold = geoopt.PoincareBall(0.25)
    del points[1].manifold
    with pytest.raises(ValueError, match="lost its manifold"):
        space.update()
    points[1].manifold = sphere
    expected = geometry_of(points[0].manifold).raise_index(points[0], g[0])
    torch.testing.assert_close(space.raise_index(points, g)[0], expected)


def test_that_manifolds_that_were_given_are_not_lost() -> None:
    x = torch.tensor([0.6, 0.8])
    space = Product([x], manifolds=[geoopt.Sphere()])
    torch.testing.assert_close(space.project([x], [x]), [torch.zeros(2)])
    assert not space.update() and indices_of_blocks(space.part([0])) == [(0,)]
    torch.testing.assert_close(space.part([0]).project([x], [x]), [torch.zeros(2)])


def test_that_a_plan_that_failed_is_made_again() -> None:
    x = torch.nn.Parameter(2 * torch.eye(2))
    space = Product([x])
    with pytest.warns(UserWarning, match="not fully implemented"):
        x.manifold = geoopt.SymmetricPositiveDefinite("LEM")
    for _ in range(2):  # the second time must not reuse the plan
        with pytest.raises(UnsupportedOperation, match=r"^parameter 0 \(shape .*default_metric='LEM'"):
            space.raise_index([x], [x])
    x.manifold = geoopt.SymmetricPositiveDefinite()
    torch.testing.assert_close(space.raise_index([x], [torch.eye(2)]), [4 * torch.eye(2)])


def test_that_an_operation_that_is_registered_later_is_used() -> None:
    class Slow(geoopt.Sphere):
        """Sphere that is given another retraction."""

    x, u = torch.tensor([0.6, 0.8]), torch.tensor([-0.8, 0.6])
    parameter = geoopt.ManifoldParameter(x.clone(), manifold=Slow())
    space = Product([x], manifolds=[Slow()])
    optimizer = rsam.optim.RiemannianSGD([parameter], lr=1.0)
    space.retract([x], [u])
    parameter.grad = torch.zeros(2)
    optimizer.step()

    @rsam.geometry.register(Slow)
    def retract(manifold: geoopt.Manifold, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return manifold.projx(x + u / 2)

    torch.testing.assert_close(space.retract([x], [u])[0], geoopt.Sphere().projx(x + u / 2))
    parameter.grad = -u
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), geoopt.Sphere().projx(x + u / 2))


def test_that_coordinates_of_stacked_kernels_are_those_of_each() -> None:
    manifold = KernelStiefel(ndim=2)
    points = [manifold.random(3, 3).double().detach().as_subclass(torch.Tensor) for _ in range(3)]
    space = Product(points, manifolds=[manifold] * 3)
    covectors = [torch.arange(9.0, dtype=torch.float64).reshape(3, 3) + i for i in range(3)]
    for x, c, z in zip(points, covectors, space.to_coordinates(points, covectors), strict=True):
        torch.testing.assert_close(z, geometry_of(manifold).to_coordinates(x, c))
    coordinates = [torch.ones(3, dtype=torch.float64) * (i + 1) for i in range(3)]
    for x, z, v in zip(points, coordinates, space.from_coordinates(points, coordinates), strict=True):
        torch.testing.assert_close(v, geometry_of(manifold).from_coordinates(x, z))


def test_that_norms_of_points_of_kernels_have_the_shape_of_the_kernels() -> None:
    manifold = KernelSphere()
    x = manifold.random(8, 3, 3, 3)
    (squares,) = Product([x]).point_inner([x], [2 * torch.ones_like(x)])
    torch.testing.assert_close(squares, torch.full((8, 3, 3, 3), 4.0 * 27))


def test_that_norms_of_plain_tensors_in_half_precision_neither_vanish_nor_overflow() -> None:
    for size in (1e-4, 1e3):
        u = torch.full((1000,), size, dtype=torch.float16)
        assert float(Product([u]).norm([u], [u])) == pytest.approx(float(u.double().norm()), rel=1e-3)
