"""That the recipes of docs/guide/averaging.md work in their frameworks."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

import rsam
from rsam.optim import averaging

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "averaging.md").read_text()
QUIET = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


def code(heading: str) -> str:
    section = GUIDE.split(f"## {heading}\n")[1].split("\n## ")[0]
    recipe = "\n".join(re.findall(r"```python\n(?!>>>)(.*?)```", section, re.DOTALL))
    return recipe.replace("lightning.Trainer(", "lightning.Trainer(**quiet, ")


def setting() -> dict[str, Any]:
    """Run the definitions of the guide before its recipes."""
    torch.manual_seed(0)
    shared = GUIDE.split("## torch")[0].split("```python\n")[1].split("```")[0]
    lines = [line[4:] for line in shared.splitlines() if line.startswith((">>>", "..."))]
    variables: dict[str, Any] = {"quiet": QUIET}
    exec("\n".join(lines), variables)
    return variables


def run(*headings: str) -> dict[str, Any]:
    variables = setting()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning warns of a loader without workers, for example
        for heading in headings:
            exec(code(heading), variables)
    return variables


def test_that_the_average_of_timm_is_projected() -> None:
    pytest.importorskip("timm", reason="the recipe is for timm's ModelEmaV3")
    recipe = run("timm: ModelEmaV3")
    average, off = recipe["ema"].module, recipe["off_manifold"]
    assert off(average) < 1e-5
    recipe["ema"].update(recipe["network"]())  # without the projection it would be off the manifold
    assert off(average) > 1e-3


def test_that_the_moving_average_of_lightning_stays_on_the_manifold() -> None:
    callbacks = pytest.importorskip("lightning.pytorch.callbacks", reason="the recipe is for a callback of Lightning")
    if not hasattr(callbacks, "WeightAveraging"):
        pytest.skip("this Lightning has no WeightAveraging callback")
    recipe = run("Lightning: WeightAveraging")
    module, off = recipe["module"], recipe["off_manifold"]
    assert off(module.model) < 1e-5
    assert torch.equal(module.model[0].weight, recipe["ema"]._average_model.module.model[0].weight)
    # with torch's own function it would be off the manifold
    theirs = callbacks.WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(0.9))
    module = recipe["Classifier"]()
    recipe["lightning"].Trainer(max_epochs=2, callbacks=[theirs], **QUIET).fit(module, recipe["loader"])
    assert off(module.model) > 1e-3


def test_that_the_stochastic_average_of_lightning_is_projected() -> None:
    pytest.importorskip("lightning.pytorch.callbacks", reason="the recipe is for a callback of Lightning")
    recipe = run("Lightning: WeightAveraging", "Lightning: StochasticWeightAveraging")
    model, off = recipe["module"].model, recipe["off_manifold"]
    assert off(model) < 1e-5
    # no step changed the weights after averaging, and batch-norm statistics are those of the averaged weights
    average = recipe["swa"]._average_model.model
    assert off(average) > 1e-3  # without the projection
    assert torch.equal(model[4].weight, average[4].weight)
    torch.testing.assert_close(averaging.project_parameters(average)[0].weight, model[0].weight)
    means = [model[0](images).mean((0, 2, 3)) for images, _ in recipe["loader"]]
    # the momentum of statistics lets the last of four batches change them, which RSAM evaluates twice
    expected = torch.stack(means).mean(0).detach()
    spread = (torch.stack(means).detach() - expected).abs().amax(0)
    assert ((model[1].running_mean - expected).abs() <= spread / 4).all()


def test_that_the_average_of_a_wrapped_model_is_found_by_the_order_of_its_parameters() -> None:
    """DistributedDataParallel and torch.compile, for example, change the names but not the order."""
    model = rsam.nn.constrain(nn.Sequential(nn.Linear(3, 3)), rsam.geometry.KernelSphere(), "0.weight")
    wrapped = nn.Sequential(model)
    average = torch.optim.swa_utils.AveragedModel(wrapped, multi_avg_fn=averaging.get_swa_multi_avg_fn(model))
    for _ in range(3):
        with torch.no_grad():
            model[0].weight.copy_(model[0].weight.manifold.random(3, 3))
        average.update_parameters(wrapped)
    rows = average.module[0][0].weight.detach()
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
