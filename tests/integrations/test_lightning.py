"""That Lightning's loop takes the steps of a plain loop, in both packages that Lightning is published as."""

from __future__ import annotations

import contextlib
import importlib
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import rsam
from tests.integrations.problems import LR, batches, data, difference, expected, model, optimizer, whole_steps

OFF = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
ROUNDING = 1e-14  # three steps in float64 with sums in another order


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request):
    return pytest.importorskip(request.param, reason="Lightning is not installed")


def aware(pl, **options):
    name = "lightning" if pl.__name__ == "lightning.pytorch" else pl.__name__
    return importlib.import_module(f"rsam.integrations.{name}").SharpnessAware(**options)


def module(pl, network=None, configure=None, **options):
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network or model()
            self.passes = 0
            self.returned: list[float] = []

        def training_step(self, batch, batch_idx):
            self.passes += 1
            x, y = batch
            loss = cross_entropy(self.network(x), y)
            self.log("loss", loss)
            self.log("mean", loss, on_step=False, on_epoch=True)
            return loss

        def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
            self.returned.append(outputs["loss"].item())

        def configure_optimizers(self):
            opt = optimizer(self.network, **options)
            return configure(opt) if configure else opt

    return Module()


def fit(pl, ours, size=4, n=12, callbacks=(), ckpt_path=None, **options):
    trainer = pl.Trainer(**{"max_epochs": 1, "accelerator": "cpu", "callbacks": list(callbacks), **OFF, **options})
    dtype = next(ours.parameters()).dtype
    trainer.fit(ours, DataLoader(TensorDataset(*data(n, dtype=dtype)), batch_size=size), ckpt_path=ckpt_path)
    return trainer


def scaled(pl, scale: float = 1024.0, **options):
    """Make a plugin for mixed precision with a scaler, but without autocast."""

    class Scaled(importlib.import_module(f"{pl.__name__}.plugins.precision").MixedPrecision):
        def forward_context(self):
            return contextlib.nullcontext()

    return Scaled("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale, **options))


# -- the steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_callback", [False, True])
@pytest.mark.parametrize(
    "options, passes",
    [({}, 6), ({"every": 2}, 5), ({"direction": "momentum"}, 3), ({"rho": 0.0}, 3), ({"transport": "pullback"}, 6)],
    ids=str,
)
def test_that_the_steps_are_those_of_a_plain_loop(pl, options, passes, with_callback) -> None:
    ours = module(pl, **options)
    trainer = fit(pl, ours, callbacks=[aware(pl)] if with_callback else [])
    assert difference(ours.network, expected(**options)) == 0
    assert ours.passes == passes
    assert trainer.global_step == 3


@pytest.mark.parametrize("options", [{}, {"every": 2}, {"direction": "momentum"}], ids=str)
def test_that_accumulated_batches_are_one_batch(pl, options) -> None:
    ours = module(pl, **options)
    trainer = fit(pl, ours, size=2, callbacks=[aware(pl)], accumulate_grad_batches=2)
    assert difference(ours.network, expected(**options)) < ROUNDING
    assert trainer.global_step == 3


def test_that_accumulated_batches_are_refused_without_the_callback(pl) -> None:
    with pytest.raises(RuntimeError, match=r"to accumulate .* In Lightning, .* rsam\.integrations does that"):
        fit(pl, module(pl), size=2, accumulate_grad_batches=2)


def test_that_training_step_may_leave_out_the_index_and_return_a_dictionary(pl) -> None:
    ours = module(pl)
    step = ours.training_step
    ours.training_step = lambda batch: {"loss": step(batch, 0)}
    fit(pl, ours, callbacks=[aware(pl)])
    assert difference(ours.network, expected()) == 0


def test_that_a_window_cut_short_by_the_epoch_is_stepped(pl) -> None:
    ours = module(pl, momentum=0.0)
    trainer = fit(pl, ours, size=2, n=6, callbacks=[aware(pl)], accumulate_grad_batches=2)
    # Lightning divides by two even so, which halves the last step
    by_hand = model()
    whole_steps(by_hand, batches(n=4), momentum=0.0)
    whole_steps(by_hand, batches(n=6, size=2)[2:], momentum=0.0, lr=LR / 2)
    assert difference(ours.network, by_hand) < ROUNDING
    assert trainer.global_step == 2


@pytest.mark.parametrize("with_scaler", [False, True])
def test_that_a_batch_that_training_step_skips_is_no_step(pl, with_scaler) -> None:
    ours = module(pl, nonfinite="skip")
    step = ours.training_step
    ours.training_step = lambda batch, batch_idx: step(batch, batch_idx) if batch_idx != 1 else None
    ours.on_train_batch_end = lambda *_: None
    fit(pl, ours, callbacks=[aware(pl)], plugins=[scaled(pl)] if with_scaler else [])
    by_hand = model()
    whole_steps(by_hand, [batches()[0], batches()[2]])
    assert difference(ours.network, by_hand) < ROUNDING


def test_that_the_second_gradient_is_clipped(pl) -> None:
    ours = module(pl)
    fit(pl, ours, size=2, callbacks=[aware(pl)], accumulate_grad_batches=2, gradient_clip_val=0.3)
    assert difference(ours.network, expected(clip=0.3)) < ROUNDING < difference(ours.network, expected())


def test_that_bfloat16_takes_the_same_passes_with_and_without_the_callback(pl) -> None:
    ours, plain = (module(pl, model(dtype=torch.float32)) for _ in range(2))
    fit(pl, ours, callbacks=[aware(pl)], precision="bf16-mixed")
    fit(pl, plain, precision="bf16-mixed")
    assert difference(ours.network, plain.network) == 0
    assert difference(ours.network, model(dtype=torch.float32)) > 0


# -- a gradient scaler -----------------------------------------------------------------------------------------------


def test_that_scaled_gradients_take_the_same_steps(pl) -> None:
    ours = module(pl, nonfinite="skip")
    fit(pl, ours, size=2, callbacks=[aware(pl)], accumulate_grad_batches=2, plugins=[scaled(pl)])
    assert difference(ours.network, expected()) < ROUNDING


def test_that_scaled_gradients_are_refused_without_the_callback(pl) -> None:
    with pytest.raises(RuntimeError, match=r"needs a closure .*; see rsam\.integrations"):
        fit(pl, module(pl, nonfinite="skip"), plugins=[scaled(pl)])


@pytest.mark.parametrize("overflowing", [1, 2])
def test_that_a_pass_that_overflows_is_skipped(pl, overflowing) -> None:
    ours = module(pl, nonfinite="skip")
    plugin = scaled(pl)
    step = ours.training_step
    ours.training_step = lambda batch, batch_idx: (
        step(batch, batch_idx) * (math.inf if ours.passes == overflowing else 1.0)
    )
    fit(pl, ours, callbacks=[aware(pl)], plugins=[plugin])
    by_hand = model()
    whole_steps(by_hand, batches()[1:])
    assert difference(ours.network, by_hand) < ROUNDING
    assert plugin.scaler.get_scale() == 512.0


# -- beside other callbacks ------------------------------------------------------------------------------------------


def test_that_an_epoch_which_renews_batch_statistics_takes_no_step(pl) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    ours, seen = module(pl, network), []
    ours.on_train_epoch_start = lambda: seen.append((ours.passes, network[1].weight.detach().clone()))
    averaging = importlib.import_module(f"{pl.__name__}.callbacks").StochasticWeightAveraging(0.1, swa_epoch_start=1)
    fit(pl, ours, callbacks=[aware(pl), averaging], max_epochs=3)
    passes, averaged = seen[-1]
    assert passes == 18  # two for each of three batches in three epochs
    assert ours.passes == 18 + 3
    assert torch.equal(network[1].weight, averaged)
    assert network[0].num_batches_tracked == 3


def test_that_batch_statistics_are_of_one_pass(pl) -> None:
    network = nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)).double()

    def configure(opt):
        rsam.nn.update_statistics_once(opt, network)
        return opt

    ours = module(pl, network, configure)
    fit(pl, ours, size=2, callbacks=[aware(pl)], accumulate_grad_batches=2)
    assert (ours.passes, int(network[0].num_batches_tracked)) == (12, 6)


# -- logs and counts -------------------------------------------------------------------------------------------------


def test_that_what_is_logged_is_of_the_first_pass(pl) -> None:
    ours, seen = module(pl), []

    class Reader(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    trainer = fit(pl, ours, callbacks=[aware(pl), Reader()], limit_train_batches=3)
    seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    losses, sharpness = whole_steps(model(), batches())
    assert ours.returned == losses
    assert [row["loss"] for row in seen[1:]] == pytest.approx(losses, rel=1e-6)  # logged in float32
    assert [row["rsam/loss"] for row in seen[1:]] == pytest.approx(losses, rel=1e-6)
    assert [row["rsam/sharpness"] for row in seen[1:]] == pytest.approx(sharpness, rel=1e-5)
    assert seen[-1]["mean"] == pytest.approx(sum(losses) / 3, rel=1e-6)
    assert seen[-1]["rsam/rho"] == pytest.approx(0.1)
    assert seen[-1]["rsam/grad_norm"] == pytest.approx(trainer.optimizers[0].grad_norm, rel=1e-6)


@pytest.mark.parametrize(
    "options, log, names",
    [({}, False, ""), ({"direction": "momentum"}, True, "loss rho"), ({"rho": 0.0}, True, "loss sharpness rho")],
    ids=["off", "momentum", "no radius"],
)
def test_that_what_is_known_of_a_step_is_logged_if_it_should_be(pl, options, log, names) -> None:
    trainer = fit(pl, module(pl, **options), callbacks=[aware(pl, log=log)], limit_train_batches=1)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("rsam/")}
    assert logged.keys() == {f"rsam/{name}" for name in names.split()}
    assert logged.get("rsam/sharpness", 0) == 0


def test_that_each_group_has_its_radius_in_the_log(pl) -> None:
    def configure(opt):
        opt.add_param_group({"params": [nn.Parameter(torch.ones(1))], "rho": 0.3})
        return opt

    metrics = fit(pl, module(pl, configure=configure), callbacks=[aware(pl)], limit_train_batches=1).callback_metrics
    radii = {name: float(value) for name, value in metrics.items() if "/rho" in name}
    assert radii == pytest.approx({"rsam/rho/pg1": 0.1, "rsam/rho/pg2": 0.3})


def test_that_the_loss_of_a_window_is_that_of_all_its_batches(pl) -> None:
    trainer = fit(pl, module(pl), size=2, callbacks=[aware(pl)], accumulate_grad_batches=2)
    losses, sharpness = whole_steps(model(), batches())
    assert float(trainer.callback_metrics["rsam/loss"]) == pytest.approx(losses[-1], rel=1e-6)
    assert float(trainer.callback_metrics["rsam/sharpness"]) == pytest.approx(sharpness[-1], rel=1e-5)


def test_that_metrics_count_each_batch_once(pl) -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    ours = module(pl)
    ours.metric = torchmetrics.SumMetric()
    ours.both = torchmetrics.MetricCollection({"sum": torchmetrics.SumMetric()})
    step = ours.training_step

    def training_step(batch, batch_idx):
        ours.metric(1.0)
        ours.both.update(1.0)
        return step(batch, batch_idx)

    ours.training_step = training_step
    fit(pl, ours, callbacks=[aware(pl)])
    assert ours.passes == 6
    assert ours.metric.compute() == ours.both.compute()["sum"] == 3.0


def test_that_schedules_of_rate_and_radius_are_followed(pl) -> None:
    def configure(opt):
        rate = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.5)
        radius = rsam.optim.LambdaRho(opt, lambda step: 0.5**step)
        return [opt], [{"scheduler": each, "interval": "step"} for each in (rate, radius)]

    ours, rates = module(pl, configure=configure), []

    class Logger(importlib.import_module(f"{pl.__name__}.loggers").CSVLogger):
        def log_metrics(self, metrics, step=None) -> None:
            rates.extend(value for name, value in metrics.items() if name.startswith("lr-") and "pg" not in name)

        def save(self) -> None:
            pass

    monitor = importlib.import_module(f"{pl.__name__}.callbacks").LearningRateMonitor("step")
    fit(pl, ours, callbacks=[aware(pl), monitor], logger=Logger("unwritten"), log_every_n_steps=1)
    group = ours.optimizers().param_groups[0]
    assert (group["lr"], group["rho"]) == pytest.approx((0.1 / 8, 0.1 / 8))
    assert rates[::2] == pytest.approx([0.1, 0.05, 0.025])


# -- failures and ends -----------------------------------------------------------------------------------------------


def test_that_an_exception_in_the_second_pass_leaves_the_weights(pl) -> None:
    ours = module(pl)
    step = ours.training_step

    def training_step(batch, batch_idx):
        if ours.passes == 3:
            raise ZeroDivisionError
        return step(batch, batch_idx)

    ours.training_step = training_step
    with pytest.raises(ZeroDivisionError):
        fit(pl, ours, callbacks=[aware(pl)])
    by_hand = model()
    whole_steps(by_hand, batches()[:1])
    assert difference(ours.network, by_hand) == 0
    assert not {"optimizer_step", "log"} & vars(ours).keys()
    assert "training_step" not in vars(ours.trainer.strategy)


def test_that_a_resumed_run_is_the_run(pl, tmp_path) -> None:
    straight, resumed = module(pl), module(pl)
    fit(pl, straight, callbacks=[aware(pl)], max_epochs=2)
    fit(pl, resumed, callbacks=[aware(pl)]).save_checkpoint(tmp_path / "one.ckpt")
    again = module(pl, model(seed=1))
    fit(pl, again, callbacks=[aware(pl)], max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert difference(again.network, straight.network) == 0


def test_that_manual_optimization_takes_both_halves(pl) -> None:
    ours = module(pl)
    ours.automatic_optimization = False

    def training_step(batch, batch_idx):
        x, y = batch
        opt = ours.optimizers()
        ours.manual_backward(cross_entropy(ours.network(x), y))
        opt.first_step(zero_grad=True)
        ours.manual_backward(loss := cross_entropy(ours.network(x), y))
        opt.step()
        opt.zero_grad()
        return loss

    ours.training_step = training_step
    trainer = fit(pl, ours)
    assert difference(ours.network, expected()) == 0
    assert trainer.global_step == 3


@pytest.mark.parametrize("with_closure", [True, False])
def test_that_fabric_takes_closures_and_halves(with_closure) -> None:
    fabric = pytest.importorskip("lightning.fabric", reason="Lightning is not installed").Fabric(accelerator="cpu")
    network = model()
    wrapped, opt = fabric.setup(network, optimizer(network))
    for x, y in batches():

        def evaluate(x=x, y=y):
            opt.zero_grad()
            loss = cross_entropy(wrapped(x), y)
            fabric.backward(loss)
            return loss

        if with_closure:
            opt.step(evaluate)
        else:
            evaluate()
            opt.first_step(zero_grad=True)
            evaluate()
            opt.step()
    assert difference(network, expected()) == 0


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"automatic_optimization": False}, ValueError, "first_step"),
        ({"training_step": lambda dataloader_iter: None}, ValueError, "dataloader_iter"),
        ({"configure_optimizers": lambda: torch.optim.SGD([nn.Parameter(torch.ones(1))])}, TypeError, "got SGD"),
    ],
    ids=["manual", "iterator", "SGD"],
)
def test_that_what_it_cannot_do_is_refused(pl, change, error, message) -> None:
    ours = module(pl)
    for name, value in change.items():
        setattr(ours, name, value)
    with pytest.raises(error, match=message):
        fit(pl, ours, callbacks=[aware(pl)])


def test_that_a_scaler_needs_steps_to_be_skipped(pl) -> None:
    with pytest.raises(ValueError, match='nonfinite="skip"'):
        fit(pl, module(pl), callbacks=[aware(pl)], plugins=[scaled(pl)])
