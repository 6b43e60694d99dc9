"""That RSAM works with every optimizer of torch and pytorch_optimizer, and our optimizers can replace geoopt's.

The reference is the base optimizer itself, stepped with gradients at weights that were perturbed by hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import geoopt
import numpy as np
import pytest
import pytorch_optimizer
import torch
from torch import Tensor

import rsam
from tests.optim.problems import closure_of, network

# Optimizers that need more than parameters and a learning rate, or special parameters.
_OTHERWISE_MADE = {
    "AdaGO": "groups by hand",
    "AdaLOMO": "a module",
    "AdaMuon": "groups by hand",
    "AdamMini": "a module",
    "AliG": "the loss in its step",
    "BSAM": "the size of the data",
    "DeMo": "processes",
    "DistributedMuon": "groups by hand",
    "FAdam": "float32 only",
    "LOMO": "a module",
    "Muon": "matrices only",
    "MuonClip": "groups by hand",
    "NorMuon": "groups by hand",
    "Ranger21": "the number of iterations",
    "SpectralSphere": "matrices only",
}
_REFUSED = {
    "Adadelta": "an option 'rho' of its own",
    "AdaDelta": "an option 'rho' of its own",
    "AdaHessian": "differentiates the gradient",
    "LBFGS": "evaluates the loss many times",
    "SophiaH": "differentiates the gradient",
    "SparseAdam": "sparse gradients only",
}


def _classes() -> Iterable[Any]:
    torch_s = [c for c in vars(torch.optim).values() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)]
    for cls in (*torch_s, *pytorch_optimizer.optimizer.OPTIMIZERS.values()):
        if cls is not torch.optim.Optimizer and cls.__name__ not in _OTHERWISE_MADE:
            yield pytest.param(cls, id=f"{cls.__module__.split('.')[0]}-{cls.__name__}")


def _options(cls: type) -> dict[str, float]:
    return {"lr": 1e-3} if "lr" in inspect.signature(cls).parameters else {}


def _by_hand(base: torch.optim.Optimizer, params: list[Tensor], loss: Any, rho: float) -> None:
    gradients = torch.autograd.grad(loss(), params)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    before = [p.detach().clone() for p in params]
    with torch.no_grad():
        for p, g in zip(params, gradients, strict=True):
            p.add_(g, alpha=rho / float(norm))
    perturbed = torch.autograd.grad(loss(), params)
    with torch.no_grad():
        for p, g, w in zip(params, perturbed, before, strict=True):
            p.copy_(w)
            p.grad = g
    base.step()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cls", _classes())
def test_that_a_step_over_it_is_its_step_with_the_gradient_of_the_perturbed_weights(cls: Any) -> None:
    if cls.__name__ in _REFUSED:
        with pytest.raises(ValueError, match=_REFUSED[cls.__name__]):
            rsam.RSAM([torch.nn.Parameter(torch.ones(2, 2))], cls, **_options(cls))
        return
    results = []
    for ours in (True, False):
        model, loss = network()
        params = list(model.parameters())
        torch.manual_seed(0)  # some of them draw random numbers
        np.random.seed(0)  # noqa: NPY002  # Kron draws from NumPy's global generator
        opt = rsam.RSAM(params, cls, rho=0.1, **_options(cls)) if ours else cls(params, **_options(cls))
        for _ in range(3):
            if ours:
                opt.step(closure_of(opt, loss))
            else:
                _by_hand(opt, params, loss, 0.1)
        results.append([p.detach().clone() for p in params])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# -- geoopt's own tests of its optimizers ----------------------------------------------------------------------------

TARGETS: dict[str, tuple[geoopt.Manifold, tuple[int, ...]]] = {
    "Euclidean": (geoopt.Euclidean(ndim=1), (5,)),
    "sphere": (geoopt.Sphere(), (5,)),
    "Euclidean Stiefel": (geoopt.EuclideanStiefel(), (5, 3)),
    "canonical Stiefel": (rsam.geometry.CanonicalStiefel(), (5, 3)),
    "ball": (geoopt.PoincareBall(), (5,)),
    "SPD": (geoopt.SymmetricPositiveDefinite(), (3, 3)),
}
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SGD": (rsam.optim.RiemannianSGD, {"lr": 0.05}),
    "momentum": (rsam.optim.RiemannianSGD, {"lr": 0.02, "momentum": 0.9}),
    "Nesterov": (rsam.optim.RiemannianSGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-5}),
    "dampened": (rsam.optim.RiemannianSGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.1, "stabilize": 10}),
    "Adam": (rsam.optim.RiemannianAdam, {"lr": 0.02}),
    "AMSGrad": (rsam.optim.RiemannianAdam, {"lr": 0.02, "amsgrad": True, "stabilize": 10}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", TARGETS)
def test_that_ours_reach_what_geoopt_s_tests_ask_of_its_own(name: str, optimizer: str) -> None:
    """The squared distance of the embedding pulls a point to another, with geoopt's tolerance of 1e-2."""
    manifold, shape = TARGETS[name]
    torch.manual_seed(42)
    target = manifold.projx(torch.randn(shape, dtype=torch.float64) / 3)
    start = manifold.projx(target + torch.randn(shape, dtype=torch.float64) / 10)
    x = geoopt.ManifoldParameter(start, manifold=manifold)
    cls, options = OPTIMIZERS[optimizer]
    opt = cls([x], **options)

    def closure() -> Tensor:
        opt.zero_grad()
        loss = (x - target).pow(2).sum()
        loss.backward()
        return loss

    for _ in range(1000):
        if float(closure()) < 1e-5:  # a distance of about a third of the tolerance
            break
        opt.step()
    torch.testing.assert_close(x.detach(), target, atol=1e-2, rtol=1e-2)
    assert manifold.check_point_on_manifold(x.detach(), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("cls", [pytorch_optimizer.Lion, pytorch_optimizer.AdaBelief], ids=lambda cls: cls.__name__)
def test_that_a_base_which_keeps_maximize_to_itself_climbs_as_it_descends_the_negative(cls: Any) -> None:
    results = []
    for maximize in (False, True):
        w = torch.nn.Parameter(torch.linspace(-1, 1, 6))
        opt = rsam.RSAM([w], cls, rho=0.5, lr=0.01, maximize=maximize)

        def closure(opt: Any = opt, w: Tensor = w, sign: int = -1 if maximize else 1) -> Tensor:
            opt.zero_grad()
            loss = sign * (w**4 + w**3).sum()
            loss.backward()
            return loss

        for _ in range(3):
            opt.step(closure)
        results.append(w.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("option", ["maximize", "decoupled_weight_decay"])
def test_that_an_option_which_geoopts_step_ignores_is_refused(option: str) -> None:
    x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    if option not in inspect.signature(torch.optim.Adam).parameters:
        pytest.skip("this torch has no such option")
    with pytest.raises(ValueError, match=f"RiemannianAdam ignores {option}=True.*parameter group 0.*rsam.optim"):
        rsam.RSAM([x], geoopt.optim.RiemannianAdam, **{option: True})
    with pytest.raises(ValueError, match=f"RiemannianSGD ignores {option}=True"):
        rsam.RSAM([{"params": [x], option: True}], geoopt.optim.RiemannianSGD, lr=0.1)
