"""That RSAM works with torch.compile, skorch and peft without adapters."""

from __future__ import annotations

import geoopt
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import rsam
from tests.integrations.problems import LR, MOMENTUM, RHO, batches, data, difference, expected, model, whole_steps

ROUNDING = 1e-14  # three steps in float64
compiles = pytest.mark.skipif(
    not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 cannot trace parameters on manifolds"
)


@compiles
def test_that_a_compiled_model_takes_the_steps_of_the_model() -> None:
    network = model()
    compiled = torch.compile(network, backend="aot_eager")
    whole_steps(compiled, batches())
    assert difference(network, expected()) < ROUNDING


@compiles
def test_that_a_compiled_closure_takes_the_steps_of_the_closure() -> None:
    network = model()
    opt = rsam.RSAM(network.parameters(), lr=LR, momentum=MOMENTUM, rho=RHO)

    @torch.compile(backend="aot_eager")
    def loss_of(x, y):
        return cross_entropy(network(x), y)

    for x, y in batches():

        def closure(x=x, y=y):
            opt.zero_grad()
            loss = loss_of(x, y)
            loss.backward()
            return loss

        opt.step(closure)
    assert difference(network, expected()) < ROUNDING


def test_that_skorch_takes_the_steps_of_a_plain_loop() -> None:
    skorch = pytest.importorskip("skorch", reason="skorch is not installed")
    network = model()
    net = skorch.NeuralNetClassifier(
        network,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=rsam.RSAM,
        optimizer__momentum=MOMENTUM,
        optimizer__rho=RHO,
        lr=LR,
        batch_size=4,
        max_epochs=1,
        iterator_train__shuffle=False,
        train_split=None,
        verbose=0,
    )
    x, y = data()
    net.fit(x.numpy(), y.numpy())
    losses, _ = whole_steps(by_hand := model(), batches())
    assert difference(net.module_, by_hand) == 0
    assert net.history[-1]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-12)  # the losses of the first passes


def test_that_adapters_of_a_frozen_model_are_perturbed_and_nothing_else() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    network, target = model(), batches()[0]
    config = peft.LoraConfig(r=2, target_modules=["0", "2"], lora_dropout=0.0)
    adapted = peft.get_peft_model(network, config).double()
    frozen = {name: p.clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    opt = rsam.RSAM((p for p in adapted.parameters() if p.requires_grad), torch.optim.SGD, lr=LR, rho=RHO)

    # the same adapters by hand: a frozen weight plus B A alpha / r
    adapters = [p.detach().clone().requires_grad_() for p in adapted.parameters() if p.requires_grad]
    plain = rsam.RSAM(adapters, torch.optim.SGD, lr=LR, rho=RHO)
    first, second = (layer.base_layer for layer in (network[0], network[2]))
    scale = config.lora_alpha / config.r

    def by_hand(x):
        a, b, c, d = adapters
        hidden = torch.tanh(first(x) + scale * x @ a.T @ b.T)
        return second(hidden) + scale * hidden @ c.T @ d.T

    def closure(opt, forward):
        def evaluate():
            opt.zero_grad()
            loss = cross_entropy(forward(target[0]), target[1])
            loss.backward()
            return loss

        return evaluate

    for _ in range(3):
        opt.step(closure(opt, adapted))
        plain.step(closure(plain, by_hand))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert max(float((p - q).detach().abs().max()) for p, q in zip(trained, adapters, strict=True)) < ROUNDING
    assert all(torch.equal(p, frozen[name]) for name, p in adapted.named_parameters() if name in frozen)
    assert sum(isinstance(p, geoopt.ManifoldParameter) for p in adapted.parameters()) == 1  # the frozen sphere
