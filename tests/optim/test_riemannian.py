"""That our Riemannian SGD and Adam are torch's on plain parameters, and right where geoopt's are not."""

from __future__ import annotations

import geoopt
import pytest
import torch

import rsam
from tests.optim.problems import closure_of, manifold_points, network, robust

SGD_OPTIONS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"momentum": 0.9, "maximize": True, "weight_decay": 0.01},
]
ADAM_OPTIONS = [
    {},
    {"amsgrad": True, "weight_decay": 0.01},
    {"maximize": True, "betas": (0.5, 0.9)},
    {"eps": 1e-3},
]


def _train(cls, options, dtype=torch.float64, steps=30):
    model, loss = network(dtype)
    opt = cls(model.parameters(), **options)
    for _ in range(steps):
        opt.step(closure_of(opt, loss))
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("options", SGD_OPTIONS)
def test_sgd_is_torchs_on_plain_parameters(options) -> None:
    ours = _train(rsam.optim.RiemannianSGD, {"lr": 0.05, **options})
    for p, e in zip(ours, _train(torch.optim.SGD, {"lr": 0.05, **options}), strict=True):
        torch.testing.assert_close(p, e, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", ADAM_OPTIONS)
def test_adam_is_torchs_on_plain_parameters(options) -> None:
    ours = _train(rsam.optim.RiemannianAdam, {"lr": 0.05, **options})
    for p, e in zip(ours, _train(torch.optim.Adam, {"lr": 0.05, **options}), strict=True):
        torch.testing.assert_close(p, e, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2], ids=["plain", "sphere", "stack"])
def test_that_adam_counts_its_steps_whatever_torchs_defaults_are(count: int) -> None:
    """In bfloat16 256 + 1 is 256, with which the corrections of the moments would stop."""
    start, gradient, before = torch.tensor([0.6, 0.8]), torch.tensor([1.0, 0.0]), torch.get_default_dtype()
    results = []
    for dtype, device in ((before, None), (torch.bfloat16, "meta")):
        params = [geoopt.ManifoldParameter(start.clone(), manifold=geoopt.Sphere()) for _ in range(count)]
        params = params or [torch.nn.Parameter(start.clone())]
        opt = rsam.optim.RiemannianAdam(params, lr=1e-3)
        for p in params:
            p.grad = gradient
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)
        try:
            for _ in range(260):
                opt.step()
        finally:
            torch.set_default_dtype(before)
            torch.set_default_device(None)
        results.append([p.detach() for p in params])
    assert all(map(torch.equal, *results))


def test_decoupled_weight_decay_is_adamws_and_refused_on_manifolds() -> None:
    options = {"lr": 0.05, "weight_decay": 0.1}
    ours = _train(rsam.optim.RiemannianAdam, {**options, "decoupled_weight_decay": True})
    for p, e in zip(ours, _train(torch.optim.AdamW, options), strict=True):
        torch.testing.assert_close(p, e, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="decoupled_weight_decay would shrink parameter 0"):
        rsam.optim.RiemannianAdam([manifold_points()["sphere"]], weight_decay=0.1, decoupled_weight_decay=True)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (rsam.optim.RiemannianSGD, {"lr": -1.0}, "lr must not be negative"),
        (rsam.optim.RiemannianSGD, {"lr": float("nan")}, "lr must not be negative, got nan"),
        (rsam.optim.RiemannianSGD, {"lr": 0.1, "momentum": -1.0}, "momentum must not"),
        (rsam.optim.RiemannianSGD, {"lr": 0.1, "momentum": float("nan")}, "momentum must not be negative, got nan"),
        (rsam.optim.RiemannianSGD, {"lr": 0.1, "nesterov": True}, "nesterov needs"),
        (rsam.optim.RiemannianSGD, {"lr": 0.1, "weight_decay": -1.0}, "weight_decay must not"),
        (rsam.optim.RiemannianAdam, {"betas": (0.9, 1.0)}, r"betas\[1\]"),
        (rsam.optim.RiemannianAdam, {"eps": -1.0}, "eps must not"),
        (rsam.optim.RiemannianAdam, {"eps": float("nan")}, "eps must not be negative, got nan"),
        (rsam.optim.RiemannianAdam, {"foreach": True, "fused": True}, "foreach and fused cannot both"),
        (rsam.optim.RiemannianSGD, {"lr": torch.tensor(0.1), "foreach": True}, "foreach=True needs a number as lr"),
    ],
)
def test_options_out_of_range(cls, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        cls([torch.nn.Parameter(torch.ones(2))], **options)


def _run(cls, options, steps=100):
    points = manifold_points()
    params = list(points.values())
    opt, loss = cls(params, **options), robust(params)
    start = loss().item()
    for _ in range(steps):
        opt.step(closure_of(opt, loss))
    return points, opt, start, loss().item()


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (rsam.optim.RiemannianSGD, {"lr": 0.01, "momentum": 0.9}),
        (rsam.optim.RiemannianSGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True, "stabilize": 7}),
        (rsam.optim.RiemannianAdam, {"lr": 0.02, "amsgrad": True, "stabilize": 7}),
    ],
)
def test_they_minimise_on_every_manifold_with_tangent_buffers(cls, options) -> None:
    points, opt, start, end = _run(cls, options)
    assert end < 0.9 * start
    for name, p in points.items():
        assert p.manifold.check_point_on_manifold(p.detach(), atol=1e-6, rtol=1e-6), name
        buffer = opt.state[p].get("momentum_buffer", opt.state[p].get("exp_avg"))
        projected = rsam.geometry.geometry_of(p.manifold).project(p, buffer)
        # transports keep tangents tangent up to rounding, whose sum over 100 steps is far below this
        torch.testing.assert_close(projected.detach(), buffer, rtol=1e-7, atol=1e-7, msg=name)


@pytest.mark.parametrize("cls", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_stabilize_brings_points_and_buffers_back(cls) -> None:
    x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    opt = cls([x], lr=1e-6, stabilize=2, **({"momentum": 0.9} if cls is rsam.optim.RiemannianSGD else {}))
    closure_of(opt, lambda: x[0])()
    opt.step()
    buffer = "momentum_buffer" if cls is rsam.optim.RiemannianSGD else "exp_avg"
    x.data.mul_(1.001)
    opt.state[x][buffer] = opt.state[x][buffer] + 0.1 * x.data
    opt.stabilize()
    assert x.detach().norm() == pytest.approx(1, abs=1e-6)
    assert (opt.state[x][buffer] @ x.detach()).item() == pytest.approx(0, abs=1e-6)


class _Drifting(geoopt.Sphere):
    """User's manifold whose retraction leaves it; ours lead back to the manifold by themselves."""

    def retr(self, x, u):
        return x + u


@pytest.mark.parametrize("cls", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_that_every_second_step_stabilizes_if_it_should(cls) -> None:
    x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=_Drifting())
    opt = cls([x], lr=0.1, stabilize=2)
    off = []
    for _ in range(4):
        x.grad = torch.tensor([1.0, 0.0])
        opt.step()
        off.append(abs(float(x.detach().norm()) - 1))
    assert min(off[::2]) > 1e-3  # half the square of a step of at least 0.06
    assert max(off[1::2]) < 1e-6  # rounding


def test_gradients_are_left_alone() -> None:
    for cls in (rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam):
        params = list(manifold_points().values())
        opt = cls(params, lr=0.01, weight_decay=0.1)
        closure_of(opt, robust(params))()
        before = [p.grad.clone() for p in params]
        opt.step()
        assert all(torch.equal(p.grad, b) for p, b in zip(params, before, strict=True))


def test_that_nesterov_momentum_is_not_added_to_the_gradients_of_plain_parameters() -> None:
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    ours = rsam.optim.RiemannianSGD(params[:1], lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    theirs = torch.optim.SGD(params[1:], lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    for _ in range(2):
        for p in params:
            p.grad = torch.tensor([1.0, -2.0])
        ours.step()
        theirs.step()
        assert params[0].grad.tolist() == [1.0, -2.0]
        assert torch.equal(*params)


@pytest.mark.parametrize("cls", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_that_complex_numbers_are_refused_by_name_before_torch_refuses_to_fuse_their_step(cls) -> None:
    point = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    plain = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="fused=True cannot step parameter 1 of group 0"):
        cls([point, plain], lr=0.1, fused=True)


def test_the_closure_runs_with_gradients_enabled() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    for cls in (rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam):
        opt = cls([w], lr=0.1)
        with torch.no_grad():
            opt.step(closure_of(opt, lambda: w.square().sum()))
        assert w.grad is not None


@pytest.mark.parametrize("spheres", [0, 1, 2], ids=["plain", "sphere", "stack"])
@pytest.mark.parametrize("cls", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_a_sparse_gradient_is_refused_and_leaves_all_groups_as_they_were(cls, spheres) -> None:
    good = [torch.nn.Parameter(torch.ones(2)), manifold_points()["ball"]]
    if spheres:
        bad = [geoopt.ManifoldParameter(torch.eye(3)[:, :2].T, manifold=geoopt.Sphere()) for _ in range(spheres)]
    else:
        bad = [torch.nn.Parameter(torch.ones(2, 3))]
    options = {"momentum": 0.9} if cls is rsam.optim.RiemannianSGD else {}
    opt = cls([{"params": good}, {"params": bad}], lr=0.1, **options)
    before = [p.detach().clone() for p in good]
    for p in good:
        p.grad = torch.ones_like(p)
    for p in bad:
        p.grad = torch.ones(2, 3).to_sparse()
    with pytest.raises(RuntimeError, match="do not support sparse gradients"):
        opt.step()
    assert all(torch.equal(p, b) for p, b in zip(good, before, strict=True))
    assert not any(opt.state[p] for p in good)


def test_a_radial_gradient_moves_no_point_of_the_sphere() -> None:
    """geoopt's first momentum is the Euclidean gradient, which can move the point to its antipode."""
    x = geoopt.ManifoldParameter(torch.tensor([1.0, 0.0, 0.0]), manifold=geoopt.Sphere())
    opt = rsam.optim.RiemannianSGD([x], lr=1.0, momentum=0.9)
    x.grad = torch.tensor([3.0, 0.0, 0.0])
    opt.step()
    torch.testing.assert_close(x.detach(), torch.tensor([1.0, 0.0, 0.0]))


class Positive(geoopt.Euclidean):
    """Positive numbers: flat space with a step of its own, that of the user guide."""

    def retr(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return x * (u / x).exp()


def test_that_a_subclass_of_flat_space_is_stepped_by_its_own_retraction() -> None:
    """Before, its points were stepped as plain parameters, by addition, here to negative numbers."""
    start, gradient = torch.tensor([0.1, 0.2, 2.0]), torch.tensor([1.0, 2.0, -1.0])
    for make in (rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam, rsam.RSAM):
        x = geoopt.ManifoldParameter(start.clone(), manifold=Positive(1))
        assert not rsam.geometry.is_plain(x)
        opt = make([x], lr=0.5)
        x.grad = gradient.clone()
        if make is rsam.RSAM:
            opt.param_groups[0]["rho"] = 1.0
            opt.first_step()
            step = gradient / gradient.norm()
        else:
            opt.step()
            step = -0.5 * (gradient.sign() if make is rsam.optim.RiemannianAdam else gradient)
        torch.testing.assert_close(x.detach(), start * (step / start).exp())


def test_that_a_subclass_of_flat_space_that_changes_nothing_is_plain() -> None:
    class Named(geoopt.Euclidean):
        name = "Named"

    assert rsam.geometry.is_plain(geoopt.ManifoldParameter(torch.ones(2), manifold=Named(1)))


GEOOPT = geoopt.optim


@pytest.mark.xfail(strict=True, reason="geoopt 0.5.1: RiemannianSGD's momentum starts from the Euclidean gradient")
def test_geoopt_sgd_first_momentum() -> None:
    x = geoopt.ManifoldParameter(torch.tensor([1.0, 0.0, 0.0]), manifold=geoopt.Sphere())
    opt = GEOOPT.RiemannianSGD([x], lr=1.0, momentum=0.9)
    x.grad = torch.tensor([3.0, 0.0, 0.0])
    opt.step()
    assert x[0] > 0


@pytest.mark.xfail(strict=True, reason="geoopt 0.5.1: weight decay is added into p.grad")
@pytest.mark.parametrize("cls", [GEOOPT.RiemannianSGD, GEOOPT.RiemannianAdam])
def test_geoopt_leaves_gradients_alone(cls) -> None:
    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    cls([w], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(w.grad, torch.ones(2))


@pytest.mark.xfail(strict=True, reason="geoopt 0.5.1: RiemannianAdam ignores maximize")
def test_geoopt_adam_maximizes() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    w.grad = torch.ones(2)
    GEOOPT.RiemannianAdam([w], lr=0.1, maximize=True).step()
    assert w[0] > 1


@pytest.mark.xfail(strict=True, reason="geoopt 0.5.1: RiemannianAdam ignores decoupled_weight_decay")
def test_geoopt_adam_decouples_weight_decay() -> None:
    w, v = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    for p, cls, options in (
        (w, GEOOPT.RiemannianAdam, {"decoupled_weight_decay": True}),
        (v, torch.optim.AdamW, {}),
    ):
        p.grad = torch.tensor([1.0, 5.0])
        cls([p], lr=0.1, weight_decay=0.5, **options).step()
    torch.testing.assert_close(w.detach(), v.detach())


@pytest.mark.xfail(strict=True, reason="geoopt 0.5.1: the closure runs with gradients as the caller has them")
@pytest.mark.parametrize("cls", [GEOOPT.RiemannianSGD, GEOOPT.RiemannianAdam])
def test_geoopt_enables_gradients_in_the_closure(cls) -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = cls([w], lr=0.1)
    with torch.no_grad():
        opt.step(closure_of(opt, lambda: w.square().sum()))


@pytest.mark.xfail(strict=True, reason="geoopt 0.5.1: stabilize projects momentum by a proju that is no projection")
def test_geoopt_stabilize_keeps_canonical_momentum_bounded() -> None:
    torch.manual_seed(0)
    x = geoopt.ManifoldParameter(torch.linalg.qr(torch.randn(6, 3))[0], manifold=geoopt.CanonicalStiefel())
    opt = GEOOPT.RiemannianSGD([x], lr=1e-3, momentum=0.9, stabilize=1)
    target = torch.randn(6, 3)
    for _ in range(60):
        opt.zero_grad()
        (x * target).sum().backward()
        opt.step()
    # a momentum buffer is at most the gradient's norm / (1 - 0.9); twice that because of transport
    assert torch.linalg.vector_norm(opt.state[x]["momentum_buffer"]) < 20 * 2 * torch.linalg.vector_norm(target)


@pytest.mark.parametrize("name", ["canonical", "geoopt_canonical"])
def test_ours_keeps_canonical_momentum_bounded(name) -> None:
    x = manifold_points()[name]
    opt = rsam.optim.RiemannianSGD([x], lr=1e-3, momentum=0.9, stabilize=1)
    target = torch.ones_like(x)
    for _ in range(300):
        opt.step(closure_of(opt, lambda: (x * target).sum()))
    assert torch.linalg.vector_norm(opt.state[x]["momentum_buffer"]) < 20 * 2 * torch.linalg.vector_norm(target)


@pytest.mark.parametrize("base", [GEOOPT.RiemannianSGD, GEOOPT.RiemannianAdam])
@pytest.mark.parametrize("name", ["geoopt_canonical", "birkhoff", "scaled", "bounded_domain", "part"])
def test_rsam_warns_once_where_geoopts_own_step_is_wrong(base, name) -> None:
    if name == "part":
        product = geoopt.ProductManifold((geoopt.Sphere(), 2), (geoopt.CanonicalStiefel(), (3, 1)))
        points = [geoopt.ManifoldParameter(product.random(5), manifold=product) for _ in range(2)]
    else:
        points = [manifold_points()[name] for _ in range(2)]
    with pytest.warns(
        UserWarning, match=rf"step of the base optimizer is wrong.*rsam\.optim\.{base.__name__}"
    ) as record:
        rsam.RSAM(points, base, lr=0.1)
    assert len([r for r in record if "base optimizer" in str(r.message)]) == 1


def test_rsam_warns_of_geoopts_first_momentum_and_of_groups_that_come_later() -> None:
    with pytest.warns(UserWarning, match="momentum starts from the Euclidean gradient"):
        rsam.RSAM([manifold_points()["ball"]], GEOOPT.RiemannianSGD, lr=0.1, momentum=0.9)
    opt = rsam.RSAM([torch.nn.Parameter(torch.ones(2))], GEOOPT.RiemannianSGD, lr=0.1)
    with pytest.warns(UserWarning, match="wrong derivative"):
        opt.add_param_group({"params": [manifold_points()["geoopt_canonical"]]})


def test_rsam_does_not_warn_where_the_step_is_right(recwarn) -> None:
    rsam.RSAM([manifold_points()["geoopt_canonical"]], lr=0.1)
    rsam.RSAM([manifold_points()["canonical"]], GEOOPT.RiemannianSGD, lr=0.1)
    assert not [r for r in recwarn if "base optimizer" in str(r.message)]
