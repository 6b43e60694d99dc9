"""That both passes see the same batch, whatever holds it and whoever changes its entries."""

from __future__ import annotations

import importlib
from collections import UserDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader

import rsam
from rsam.integrations.halves import Writes, in_new_containers
from tests.integrations.problems import batches, data, difference, model, optimizer, whole_steps

OFF = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
ROUNDING = 1e-14  # three steps in float64 with sums in another order


@dataclass
class Example:
    x: Any
    y: Any


@dataclass(slots=True)
class Slotted:
    x: Any
    y: Any


class Encoding(UserDict):
    """Mapping that torch does not look into, as the BatchEncoding of transformers."""


KINDS = pytest.mark.parametrize("kind", [dict, Encoding, Example, Slotted, SimpleNamespace])


def entry(batch: Any, name: str) -> Any:
    return getattr(batch, name) if hasattr(batch, name) else batch[name]


def replace(batch: Any, name: str, value: Any) -> None:
    if hasattr(batch, name):
        setattr(batch, name, value)
    else:
        batch[name] = value


@KINDS
def test_that_entries_replaced_in_a_copy_stay_in_the_batch(kind) -> None:
    batch = (kind(x=(x := torch.ones(2)), y=0), 3)
    own = in_new_containers(batch)
    assert type(own[0]) is kind and own[1] == 3
    assert entry(own[0], "x") is x
    replace(own[0], "x", torch.zeros(2))
    assert entry(batch[0], "x") is x


def test_that_what_cannot_be_copied_stays_and_packed_sequences_keep_their_type() -> None:
    numbers = (i for i in range(3))
    packed, same = in_new_containers((pack_sequence([torch.ones(3, 2), torch.ones(2, 2)]), numbers))
    assert type(packed) is PackedSequence
    assert same is numbers


@pytest.mark.parametrize("kind", [dict, Encoding, Example, SimpleNamespace])
@pytest.mark.parametrize("write", [Tensor.zero_, lambda x: x.add_(1)], ids=["to the same numbers", "to others"])
def test_that_tensors_changed_in_each_pass_are_noticed_in_every_container(kind, write) -> None:
    x, writes = torch.ones(2), Writes()
    writes.watch((kind(x=[x], y=0), 3))
    write(x)
    writes.note()
    writes.refuse()
    write(x)
    if x.any():
        with pytest.raises(RuntimeError, match="changes its batch in place"):
            writes.refuse()
    else:
        writes.refuse()


# -- frameworks ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request):
    return pytest.importorskip(request.param, reason="Lightning is not installed")


def run(pl, training_step, collate, size=4, hooks=None, options=None, **trainer_options) -> nn.Module:
    """Train with the callback on batches from ``collate(x, y)``; return the network."""

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = model()

        def training_step(self, batch, batch_idx):
            return training_step(self.network, batch)

        def configure_optimizers(self):
            return optimizer(self.network, **(options or {}))

    name = "lightning" if pl.__name__ == "lightning.pytorch" else pl.__name__
    aware = importlib.import_module(f"rsam.integrations.{name}").SharpnessAware()
    module = Module()
    for hook, function in (hooks or {}).items():
        setattr(module, hook, function)
    rows = list(zip(*data(), strict=True))
    loader = DataLoader(rows, size, collate_fn=lambda rows: collate(*map(torch.stack, zip(*rows, strict=True))))
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[aware], **OFF, **trainer_options)
    trainer.fit(module, loader)
    return module.network


def shifted(**options) -> nn.Module:
    by_hand = model()
    whole_steps(by_hand, [(x + 0.5, y) for x, y in batches()], **options)
    return by_hand


DIRECTIONS = pytest.mark.parametrize("options", [{}, {"direction": "momentum"}], ids=str)


@KINDS
@DIRECTIONS
def test_that_training_step_of_lightning_may_replace_entries_of_its_batch(pl, options, kind) -> None:
    def training_step(network, batch):
        replace(batch, "x", entry(batch, "x") + 0.5)
        return cross_entropy(network(entry(batch, "x")), entry(batch, "y"))

    network = run(pl, training_step, lambda x, y: kind(x=x, y=y), size=2, options=options, accumulate_grad_batches=2)
    assert difference(network, shifted(**options)) < ROUNDING


@DIRECTIONS
def test_that_training_step_of_lightning_may_write_the_same_but_not_change_its_batch_in_place(pl, options) -> None:
    def writing(change):
        def training_step(network, batch):
            change(batch)
            return cross_entropy(network(batch[0]), batch[1])

        return run(pl, training_step, lambda x, y: [x + 0.5, y], size=2, options=options, accumulate_grad_batches=2)

    # writes, but to the same numbers each time
    assert difference(writing(lambda batch: batch[1].clamp_(max=2)), shifted(**options)) < ROUNDING
    with pytest.raises(RuntimeError, match=r"changes its batch in place.*x\.clone"):
        writing(lambda batch: batch[0].mul_(0.7).add_(batch[0].flip(0), alpha=0.3))  # as Mixup of timm does


@DIRECTIONS
def test_that_the_second_pass_of_lightning_sees_entries_that_hooks_replaced(pl, options) -> None:
    def on_train_batch_start(batch, batch_idx):  # of the module, which runs after those of callbacks
        batch[0] = batch[0] + 0.5

    network = run(
        pl,
        lambda network, batch: cross_entropy(network(batch[0]), batch[1]),
        lambda x, y: [x, y],
        hooks={"on_train_batch_start": on_train_batch_start},
        options=options,
    )
    assert difference(network, shifted(**options)) == 0


@KINDS
def test_that_the_loss_of_accelerate_may_replace_entries_of_its_batch(kind) -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    network = model()
    network, opt = accelerator.prepare(network, optimizer(network))

    def loss(batch):
        replace(batch, "x", entry(batch, "x") + 0.5)
        return cross_entropy(network(entry(batch, "x")), entry(batch, "y"))

    for x, y in batches():
        rsam.integrations.accelerate.step(accelerator, network, opt, loss, [kind(x=x, y=y)])
    assert difference(network, shifted()) == 0
