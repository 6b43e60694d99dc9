"""That the Trainer of transformers takes the steps of a plain loop."""

from __future__ import annotations

import math

import geoopt
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import rsam
from tests.integrations.problems import LR, MOMENTUM, RHO, batches, data, difference, expected, model, whole_steps

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
RSAMTrainer = rsam.integrations.transformers.RSAMTrainer
ROUNDING = 1e-14  # three steps in float64 with sums in another order


class Classifier(nn.Module):
    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network or model()
        self.factors: dict[int, float] = {}  # factor of the loss by number of the pass
        self.passes = 0

    def forward(self, x, labels):
        self.passes += 1
        loss = cross_entropy(self.network(x), labels)
        return {"loss": loss * self.factors.get(self.passes, 1.0)}


class InOrder(RSAMTrainer):
    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(self.train_dataset, self.args.train_batch_size, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)


def trainer(
    folder, classifier, size=4, steps=3, optimizer=rsam.RSAM, rsam_options=None, callbacks=None, **options
) -> InOrder:
    defaults = {"max_grad_norm": 0.0, "lr_scheduler_type": "constant", "save_strategy": "no", "logging_steps": 1}
    args = transformers.TrainingArguments(
        str(folder),
        per_device_train_batch_size=size,
        max_steps=steps,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **defaults | options,
    )
    dtype = next(classifier.parameters()).dtype
    return InOrder(
        model=classifier,
        args=args,
        callbacks=callbacks,
        train_dataset=[{"x": x, "labels": y} for x, y in zip(*data(dtype=dtype), strict=True)],
        data_collator=lambda rows: {name: torch.stack([row[name] for row in rows]) for name in rows[0]},
        optimizer_cls_and_kwargs=(
            optimizer,
            {"lr": LR, "momentum": MOMENTUM} | ({"rho": RHO} if optimizer is rsam.RSAM else {}) | (rsam_options or {}),
        ),
    )


# -- the steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize(
    "options, passes", [({}, 6), ({"every": 2}, 5), ({"direction": "momentum"}, 3), ({"rho": 0.0}, 3)], ids=str
)
def test_that_the_steps_are_those_of_a_plain_loop(tmp_path, options, passes, accumulated) -> None:
    ours = Classifier()
    size = 4 // accumulated
    trainer(tmp_path, ours, size, rsam_options=options, gradient_accumulation_steps=accumulated).train()
    assert difference(ours.network, expected(**options)) < ROUNDING
    assert ours.passes == passes * accumulated


def test_that_batches_left_over_by_an_epoch_of_unknown_length_count_in_both_passes_as_in_the_first(tmp_path) -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([{"x": x, "labels": y} for x, y in zip(*data(), strict=True)])

    ours = Classifier()
    run = trainer(tmp_path, ours, steps=2, gradient_accumulation_steps=2)
    run.train_dataset = Stream()
    run.train()
    # three batches per epoch: Trainer takes the third, alone in its window, into the first step of the next epoch
    by_hand = model()
    opt = rsam.RSAM(by_hand.parameters(), lr=LR, momentum=MOMENTUM, rho=RHO)
    first, second, third = batches()
    for window in ([(first, 2), (second, 2)], [(third, 1), (first, 2), (second, 2)]):

        def closure(window=window):
            opt.zero_grad()
            loss = sum(cross_entropy(by_hand(x), y) / divisor for (x, y), divisor in window)
            loss.backward()
            return loss

        loss = opt.step(closure)
    assert difference(ours.network, by_hand) < ROUNDING
    row = [row for row in run.state.log_history if "loss" in row][-1]
    assert row["loss"] == pytest.approx(loss.item(), abs=1e-4)  # Trainer rounds to four digits
    assert row["sharpness"] == pytest.approx(opt.sharpness, abs=1e-12)


def test_that_the_second_gradient_is_clipped(tmp_path) -> None:
    ours = Classifier()
    trainer(tmp_path, ours, 2, gradient_accumulation_steps=2, max_grad_norm=0.3).train()
    # Trainer clips as torch, dividing by the norm plus 1e-6
    assert difference(ours.network, expected(clip=0.3)) < ROUNDING < difference(ours.network, expected())


def test_that_bfloat16_takes_the_same_passes(tmp_path) -> None:
    ours, by_hand = (Classifier(model(dtype=torch.float32)) for _ in range(2))
    trainer(tmp_path, ours, bf16=True).train()
    opt = rsam.RSAM(by_hand.parameters(), lr=LR, momentum=MOMENTUM, rho=RHO)
    for x, y in batches(dtype=torch.float32):

        def closure(x=x, y=y):
            opt.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = by_hand(x, y)["loss"]
            loss.backward()
            return loss

        opt.step(closure)
    assert difference(ours, by_hand) == 0
    assert difference(ours, Classifier(model(dtype=torch.float32))) > 0


@pytest.mark.parametrize("overflowing", [None, 1, 2])
def test_that_scaled_gradients_take_the_same_steps_but_those_that_overflow(tmp_path, overflowing) -> None:
    ours = Classifier()
    ours.factors = {overflowing: math.inf}
    run = trainer(tmp_path, ours, rsam_options={"nonfinite": "skip"})
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run.train()
    by_hand = model()
    whole_steps(by_hand, batches()[0 if overflowing is None else 1 :])
    assert difference(ours.network, by_hand) < ROUNDING
    assert run.accelerator.scaler.get_scale() == (1024.0 if overflowing is None else 512.0)


def test_that_a_scaler_needs_steps_to_be_skipped(tmp_path) -> None:
    run = trainer(tmp_path, Classifier())
    run.accelerator.scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(ValueError, match='nonfinite="skip"'):
        run.train()


# -- logs and checkpoints --------------------------------------------------------------------------------------------


def test_that_what_is_logged_is_of_the_first_pass(tmp_path) -> None:
    run = trainer(tmp_path, Classifier(), 2, gradient_accumulation_steps=2, rsam_options={"every": 2})
    run.train()
    rows = [row for row in run.state.log_history if "loss" in row]
    losses, sharpness = whole_steps(model(), batches(), every=2)
    assert sharpness[1] == 0 < min(sharpness[::2])  # the second step does not ascend
    assert [row["loss"] for row in rows] == pytest.approx(losses, abs=1e-4)  # Trainer rounds to four digits
    assert [row["sharpness"] for row in rows] == pytest.approx(sharpness, abs=1e-12)
    assert {row["rho"] for row in rows} == {RHO}


def test_that_a_resumed_run_is_the_run(tmp_path) -> None:
    straight, again = Classifier(), Classifier(model(seed=1))
    trainer(tmp_path, straight, save_strategy="steps", save_steps=2, rsam_options={"every": 2}).train()
    trainer(tmp_path, again, rsam_options={"every": 2}).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert difference(again, straight) == 0
    assert again.passes == 2  # the third step ascends, as the first did


def test_that_an_exception_in_the_second_pass_leaves_the_weights(tmp_path) -> None:
    ours = Classifier()
    ours.factors = {4: "no number"}  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        trainer(tmp_path, ours).train()
    by_hand = model()
    whole_steps(by_hand, batches()[:1])
    assert difference(ours.network, by_hand) == 0


@pytest.mark.parametrize("failing", [2, 4], ids=["first pass", "second pass"])
def test_that_training_begins_anew_with_smaller_batches_if_memory_runs_out(tmp_path, failing) -> None:
    ours, calls = Classifier(), []
    evaluate = ours.forward

    def forward(x, labels):
        calls.append(x)
        if len(calls) == failing:
            raise RuntimeError("CUDA out of memory.")
        return evaluate(x, labels)

    ours.forward = forward  # type: ignore[method-assign]
    trainer(tmp_path, ours, 2, steps=1, gradient_accumulation_steps=2, auto_find_batch_size=True).train()
    again = len(calls[-1])
    by_hand = model()
    whole_steps(by_hand, batches(n=2 * again, size=2 * again))
    assert len(calls) == failing + 4
    assert difference(ours.network, by_hand) < ROUNDING


def test_that_callbacks_never_see_the_perturbed_weights_of_a_skipped_step(tmp_path) -> None:
    ours, seen = Classifier(), []
    ours.factors = {2: math.inf}

    class Reader(transformers.TrainerCallback):
        def on_optimizer_step(self, *args, **kwargs) -> None:
            seen.append(difference(ours.network, model()))

    run = trainer(tmp_path, ours, steps=1, rsam_options={"nonfinite": "skip"}, callbacks=[Reader()])
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run.train()
    assert seen == [0.0]


def test_that_weights_on_manifolds_do_not_decay(tmp_path) -> None:
    run = trainer(tmp_path, Classifier(), weight_decay=0.01)
    decayed, others = run.create_optimizer().param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert [tuple(p.shape) for p in decayed["params"]] == [(3, 6)]
    assert len(others["params"]) == 3


def test_that_it_combines_with_other_trainers() -> None:
    class Translator(RSAMTrainer, transformers.Seq2SeqTrainer):
        pass

    assert Translator.training_step is RSAMTrainer.training_step
    assert Translator.evaluate is transformers.Seq2SeqTrainer.evaluate


def test_that_another_optimizer_is_refused(tmp_path) -> None:
    with pytest.raises(TypeError, match=r"rsam\.RSAM, got RiemannianSGD"):
        trainer(tmp_path, Classifier(), optimizer=geoopt.optim.RiemannianSGD).train()


# -- pretrained models -----------------------------------------------------------------------------------------------


def test_that_a_loaded_model_is_constrained_by_one_line(tmp_path) -> None:
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=11
    )
    where = "bert.encoder.layer.*.output.dense.weight"
    bert = transformers.BertForSequenceClassification(config)
    bert = rsam.nn.constrain(bert, rsam.geometry.KernelSphere(), where)
    bert.save_pretrained(tmp_path)
    loaded = transformers.BertForSequenceClassification.from_pretrained(tmp_path)
    assert not any(isinstance(p, geoopt.ManifoldParameter) for p in loaded.parameters())
    loaded = rsam.nn.constrain(loaded, rsam.geometry.KernelSphere(), where)
    assert sum(isinstance(p, geoopt.ManifoldParameter) for p in loaded.parameters()) == 2
    assert difference(loaded, bert) < 4 * torch.finfo(torch.float32).eps  # rounding of the second projection
