"""That the ascent along the momentum is Momentum-SAM, and what it refuses."""

from __future__ import annotations

import geoopt
import numpy as np
import pytest
import pytorch_optimizer
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import rsam
from tests.optim import reference
from tests.optim.problems import closure_of, copies, equal, manifold_points, network, robust

RHO = 0.3


def _sgd(m, v, g, t):
    m = 0.9 * m + g
    return m, v, 0.1 * m


def _adam(m, v, g, t):
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
    return m, v, 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.99**t)).sqrt() + 1e-8)


def _momentum_sam(model, loss, update, steps: int, maximize: bool) -> list[float]:
    """Run Becker et al. 2024, Algorithm 1, on the loss or its negative; return the losses."""
    w, losses = parameters_to_vector(model.parameters()).detach().clone(), []
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, steps + 1):
        e = (-RHO if maximize else RHO) * m / m.norm() if m.norm() > 0 else 0 * m
        vector_to_parameters(w + e, model.parameters())
        value = loss()
        g = parameters_to_vector(torch.autograd.grad(value, list(model.parameters())))
        m, v, step = update(m, v, g, t)
        w = w + step if maximize else w - step
        losses.append(value.item())
    vector_to_parameters(w, model.parameters())
    return losses


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(
    ("base", "options", "update", "steps"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, _sgd, 100),
        (rsam.optim.RiemannianSGD, {"lr": 0.1, "momentum": 0.9}, _sgd, 100),
        (torch.optim.Adam, {"lr": 0.01, "betas": (0.9, 0.99)}, _adam, 30),
    ],
)
def test_that_ascents_along_the_momentum_are_momentum_sam(base, options, update, steps, maximize) -> None:
    steps = steps // 5 if maximize else steps  # maximised, the loss is unbounded, and rounding errors grow with it
    model, loss = network()
    expected = _momentum_sam(model, loss, update, steps, maximize)
    weights = copies(model.parameters())

    model, loss = network()
    opt = rsam.RSAM(model.parameters(), base, rho=RHO, direction="momentum", maximize=maximize, **options)
    losses = [opt.step(closure_of(opt, loss)).item() for _ in range(steps)]
    # float64 rounding of 1e-16, summed over the steps and slightly amplified by the network
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for p, w in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(p.detach(), w, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("transport", ["vector", "project"])
def test_that_ascents_along_the_momentum_follow_spheres_and_share_one_norm(transport) -> None:
    """The reference normalises, projects the momentum, and rotates gradients back by a dense matrix."""
    rng, sphere = np.random.default_rng(0), reference.Sphere()
    ws = [w / np.linalg.norm(w) for w in rng.standard_normal((2, 4))]
    a, lr, beta = rng.standard_normal((2, 4)), 0.1, 0.9
    params = [geoopt.ManifoldParameter(torch.tensor(w), manifold=geoopt.Sphere()) for w in ws]
    opt = rsam.RSAM(params, lr=lr, momentum=beta, rho=RHO, direction="momentum", transport=transport)

    def loss() -> torch.Tensor:
        return sum((torch.tensor(c) @ p + (p**4).sum()) for c, p in zip(a, params, strict=True))

    ms = [np.zeros(4), np.zeros(4)]
    for _ in range(20):
        opt.step(closure_of(opt, loss))
        norm = np.sqrt(sum(m @ m for m in ms))
        for i, (w, m) in enumerate(zip(ws, ms, strict=True)):
            e = RHO * m / norm if norm > 0 else m
            y = sphere.retract(w, e)
            g = a[i] + 4 * y**3
            if transport == "vector" and norm > 0:
                g = sphere.back(w, e, y, sphere.project(y, g), exact=False)
            m = beta * m + sphere.project(w, g)
            ws[i] = sphere.retract(w, -lr * m)
            ms[i] = sphere.project(ws[i], m)
    for p, w in zip(params, ws, strict=True):
        # rounding of 20 steps; the arc cosine of the reference is inaccurate for small angles
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=0, atol=1e-10)


@pytest.mark.parametrize("base", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_that_there_is_nowhere_to_ascend_before_the_first_momentum(base) -> None:
    results = []
    options = {"lr": 0.01, "momentum": 0.9} if base is rsam.optim.RiemannianSGD else {"lr": 0.01}
    for wrapped in (True, False):
        params = list(manifold_points().values())
        opt = rsam.RSAM(params, base, rho=RHO, direction="momentum", **options) if wrapped else base(params, **options)
        seen = []
        opt.step(closure_of(opt, lambda params=params, seen=seen: seen.append(copies(params)) or robust(params)()))
        assert len(seen) == 1
        results.append(copies(params))
    for name, a, b in zip(manifold_points(), *results, strict=True):
        # transport back over a displacement of zero may round
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13, msg=name)


def test_that_the_closure_runs_once_at_the_perturbed_weights_whose_loss_is_returned() -> None:
    model, loss = network()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9, rho=RHO, direction="momentum")
    seen = []

    def closure() -> torch.Tensor:
        seen.append(parameters_to_vector(model.parameters()).detach().clone())
        return closure_of(opt, loss)()

    opt.step(closure)
    w, at_w = parameters_to_vector(model.parameters()).detach().clone(), loss().item()
    m = parameters_to_vector([opt.state[p]["momentum_buffer"] for p in model.parameters()])
    returned = opt.step(closure)
    assert len(seen) == 2
    torch.testing.assert_close(seen[1], w + RHO * m / m.norm())
    after = copies(model.parameters())
    vector_to_parameters(seen[1], model.parameters())
    assert returned.item() == pytest.approx(loss().item(), rel=1e-14)
    assert returned.item() != pytest.approx(at_w, rel=1e-3)
    assert opt.sharpness is None
    assert opt.grad_norm is None  # no gradient was evaluated at the weights
    assert not equal(after, model.parameters())


@pytest.mark.parametrize("base", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_that_halves_along_the_momentum_need_no_gradient_at_the_weights(base) -> None:
    results = []
    options = {"lr": 0.01, "momentum": 0.9} if base is rsam.optim.RiemannianSGD else {"lr": 0.01}
    for halves in (False, True):
        params = list(manifold_points().values())
        opt, loss = rsam.RSAM(params, base, direction="momentum", **options), robust(params)
        for _ in range(4):
            if halves:
                assert all(p.grad is None for p in params)
                opt.first_step()
                loss().backward()
                opt.second_step(zero_grad=True)
            else:
                opt.step(closure_of(opt, loss))
        results.append(copies(params))
    assert equal(*results)
    assert not equal(results[0], manifold_points().values())


@pytest.mark.parametrize("zero", [lambda g: g.zero_(), lambda g: g.data.zero_()], ids=["in place", "through data"])
def test_that_halves_along_the_momentum_may_add_to_gradients_that_were_set_to_zero(zero) -> None:
    results = []
    for in_place in (False, True):
        params = list(manifold_points().values())
        opt, loss = rsam.RSAM(params, lr=0.01, momentum=0.9, direction="momentum"), robust(params)
        for _ in range(4):
            for p in params:
                if in_place and p.grad is not None:
                    zero(p.grad)
                else:
                    p.grad = None
            opt.first_step()
            loss().backward()
            opt.second_step()
        results.append(copies(params))
    assert equal(*results)
    assert not equal(results[0], manifold_points().values())


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_that_halves_along_the_momentum_refuse_the_gradient_of_the_step_before(steps: int) -> None:
    params = list(manifold_points().values())
    opt, loss = rsam.RSAM(params, lr=0.01, momentum=0.9, direction="momentum"), robust(params)
    for _ in range(steps):
        opt.zero_grad()
        opt.first_step()
        loss().backward()
        opt.step()
    before = copies(params)
    opt.first_step()
    with pytest.raises(RuntimeError, match="no gradient of a second pass"):
        opt.step()
    assert equal(params, before)


def _along_nothing(weights: rsam.optim.Weights) -> list[torch.Tensor]:
    return [torch.zeros_like(x) for x in weights.points]


_along_nothing.needs_gradient = False


@pytest.mark.parametrize("direction", ["momentum", _along_nothing])
def test_that_a_loop_without_a_closure_is_told_to_ascend_before_the_forward_pass(direction) -> None:
    """And a loop that does what the error says is right."""
    results = []
    for halves in (False, True):
        model, loss = network()
        opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9, rho=RHO, direction=direction)
        for _ in range(3):
            if halves:
                opt.zero_grad()
                opt.first_step()
                loss().backward()
                opt.step()
            else:
                opt.step(closure_of(opt, loss))
        results.append(copies(model.parameters()))
    assert equal(*results)
    with pytest.raises(
        RuntimeError, match=r"or call first_step\(\) before the forward pass, and step\(\) after backward"
    ):
        opt.step()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_that_an_exception_in_the_only_pass_leaves_the_weights_bitwise(error) -> None:
    params = list(manifold_points().values())
    opt, loss = rsam.RSAM(params, lr=0.01, momentum=0.9, direction="momentum"), robust(params)
    opt.step(closure_of(opt, loss))
    before, perturbed = copies(params), []

    def closure() -> None:
        perturbed.append(not equal(params, before))
        raise error("stop")

    with pytest.raises(error, match="stop"):
        opt.step(closure)
    assert perturbed == [True]
    assert equal(params, before)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1}),
        (rsam.optim.RiemannianSGD, {"lr": 0.1}),
        (torch.optim.RMSprop, {"momentum": 0.9}),  # the momentum of RMSprop is that of rescaled gradients
        (torch.optim.Adagrad, {}),
    ],
)
def test_that_a_base_without_momentum_is_refused_by_name(base, options) -> None:
    params = [torch.nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match=rf'direction="momentum".*{base.__name__}.*parameter group 0'):
        rsam.RSAM(params, base, direction="momentum", **options)
    with pytest.raises(ValueError, match=base.__name__):
        rsam.RSAM.from_optimizer(base(params, **options), direction="momentum")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("base", ["ScheduleFreeAdamW", "AggMo", "PNM", "NovoGrad"])
def test_that_a_momentum_under_another_name_is_refused_once_it_is_there(base) -> None:
    """Its ascents would go nowhere, and each step would be that of the base optimizer."""
    w = torch.nn.Parameter(torch.ones(2, 2))
    opt = rsam.RSAM([w], getattr(pytorch_optimizer, base), lr=0.1, direction="momentum")

    def closure():
        opt.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    opt.step(closure)  # there is no momentum yet
    before = w.detach().clone()
    with pytest.raises(ValueError, match=r"keeps no momentum of parameter 0 of group 0.*none is a momentum_buffer or"):
        opt.step(closure)
    assert torch.equal(w, before)


def test_that_a_group_without_momentum_is_refused_whenever_it_comes() -> None:
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    options = {"lr": 0.1, "momentum": 0.9, "direction": "momentum"}
    with pytest.raises(ValueError, match="SGD does not keep in parameter group 1"):
        rsam.RSAM([{"params": [a]}, {"params": [b], "momentum": 0.0}], torch.optim.SGD, **options)
    opt = rsam.RSAM([a], torch.optim.SGD, **options)
    with pytest.raises(ValueError, match="parameter group 1"):
        opt.add_param_group({"params": [b], "momentum": 0.0})
    assert len(opt.param_groups) == len(opt.base_optimizer.param_groups) == 1
    opt.add_param_group({"params": [b]})
    closure = closure_of(opt, lambda: (a * b).sum())
    opt.step(closure)
    opt.param_groups[1]["momentum"], before = 0.0, copies([a, b])
    with pytest.raises(ValueError, match="parameter group 1"):
        opt.step(closure)
    assert equal([a, b], before)


def test_that_a_loaded_momentum_off_the_tangent_space_is_projected_before_the_ascent() -> None:
    """The momentum of torch's SGD ignores manifolds."""
    w = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    plain = torch.nn.Parameter(w.clone())
    sgd = torch.optim.SGD([plain], lr=0.1, momentum=0.9)
    plain.grad = torch.tensor([3.0, 4.0, 1.0], dtype=torch.float64)
    sgd.step()
    x = geoopt.ManifoldParameter(w.clone(), manifold=geoopt.Sphere())
    opt = rsam.RSAM([x], lr=0.1, momentum=0.9, rho=RHO, direction="momentum", ascent="exponential")
    opt.load_state_dict(sgd.state_dict())
    opt.first_step()
    # the tangent part of the momentum is (0, 0, 1)
    torch.testing.assert_close(x.detach(), np.cos(RHO) * w + np.sin(RHO) * torch.tensor([0.0, 0.0, 1.0]).double())


def test_that_a_member_of_a_stack_without_a_momentum_stays_where_it_is() -> None:
    params = [geoopt.ManifoldParameter(torch.tensor([0.6, 0.8, 0.0]), manifold=geoopt.Sphere()) for _ in range(2)]
    opt = rsam.RSAM(params, lr=0.1, momentum=0.9, rho=RHO, direction="momentum", ascent="exponential")
    opt.step(closure_of(opt, lambda: params[0][2]))
    before = copies(params)
    opt.first_step()
    assert torch.equal(params[1], before[1])
    assert (params[0].detach() @ before[0]).item() == pytest.approx(np.cos(RHO), rel=1e-6)  # moved by the whole radius


def test_that_an_adaptive_ascent_along_the_momentum_is_asam_with_the_momentum_for_the_gradient() -> None:
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.0]))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, momentum=0.9, rho=RHO, direction="momentum", adaptive=True)
    opt.state[w]["momentum_buffer"] = torch.tensor([3.0, 2.0, 7.0])
    opt.first_step()
    # rho w^2 m / |w m| (Kwon et al. 2021, eq. 9 with p = 2)
    torch.testing.assert_close(w.detach(), torch.tensor([1.0, -2.0, 0.0]) + RHO * torch.tensor([3.0, 8.0, 0.0]) / 5)


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_that_a_momentum_that_is_not_finite_is_refused_whatever_the_policy(policy) -> None:
    """A skipped step would leave it as it is, so that no step would ever follow."""
    params = [manifold_points()["sphere"], torch.nn.Parameter(torch.ones(2, dtype=torch.float64))]
    opt = rsam.RSAM(params, lr=0.1, momentum=0.9, direction="momentum", nonfinite=policy)
    closure = closure_of(opt, lambda: sum((p**4).sum() for p in params))
    opt.step(closure)
    opt.state[params[1]]["momentum_buffer"][0] = torch.inf
    before = copies(params)
    with pytest.raises(rsam.NotFinite, match="direction of ascent is not finite; look at the momentum"):
        opt.step(closure)
    assert equal(params, before)


def test_that_the_only_pass_is_skipped_if_its_gradient_is_not_finite() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, momentum=0.9, direction="momentum", nonfinite="skip")
    opt.step(closure_of(opt, lambda: w.square().sum()))
    before, momentum = w.detach().clone(), opt.state[w]["momentum_buffer"].clone()
    assert opt.step(closure_of(opt, lambda: w.sum() * torch.inf)) is None
    assert torch.equal(w.detach(), before)
    assert torch.equal(opt.state[w]["momentum_buffer"], momentum)
