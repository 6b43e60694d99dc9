"""That the README runs, that its links lead somewhere, and that its figures are those of committed results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import rsam
from benchmarks.studies.claims import ADDRESS, said, shown_in_readme
from benchmarks.studies.overhead import OVERHEAD
from benchmarks.studies.overhead.optimizers import CASES, KINDS, faster
from benchmarks.studies.overhead.quoted import QUOTES, with_figures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPT, GEOOPT, SAM, LIGHTNING = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
RESULTS = ROOT / "benchmarks" / "results"


def test_that_it_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 130


def test_that_the_example_runs_when_it_is_pasted_into_a_script(tmp_path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "script.py"]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    losses = [float(line.removeprefix("loss ")) for line in printed[:-1]]
    assert len(losses) == 20 and losses[-1] < losses[0]
    assert re.match(r"trace -?[\d.]+ ± [\d.]+", printed[-1])


@pytest.mark.parametrize("lines", [GEOOPT, SAM])
def test_that_lines_to_adopt_take_a_step(lines: str) -> None:
    model = torch.nn.Linear(3, 1)
    if lines is GEOOPT:
        rsam.nn.constrain(model, rsam.geometry.KernelSphere(), "weight")
    before = model.weight.detach().clone()
    inputs = torch.ones(4, 3)

    def closure() -> torch.Tensor:
        model.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        return loss

    names = {"rsam": rsam, "torch": torch, "model": model, "closure": closure}
    exec(lines, names)
    names["optimizer"].step(closure)  # type: ignore[attr-defined]
    assert not torch.equal(model.weight, before)


def test_that_the_lines_for_lightning_train() -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    pytest.importorskip("rsam.integrations.lightning")
    *method, trainer = LIGHTNING.splitlines()
    names: dict = {"rsam": rsam}
    exec("\n".join(method), names)

    class Model(lightning.LightningModule):
        configure_optimizers = names["configure_optimizers"]

        def __init__(self) -> None:
            super().__init__()
            self.network = torch.nn.Linear(3, 1)

        def training_step(self, batch, batch_idx):
            return self.network(batch).square().mean()

    def quiet(**options):
        off = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
        return lightning.Trainer(max_epochs=1, accelerator="cpu", **off, **options)

    exec(trainer, made := {"rsam": rsam, "Trainer": quiet})
    model = Model()
    before = model.network.weight.detach().clone()
    made["trainer"].fit(model, torch.utils.data.DataLoader(torch.ones(4, 3), 2))
    assert not torch.equal(model.network.weight, before)


def test_that_links_are_absolute_and_lead_to_what_is_there() -> None:
    links = re.findall(r"\]\((.*?)\)", README)
    raw = ADDRESS.replace("github.com", "raw.githubusercontent.com").replace("/blob/", "/")
    for link in links:
        assert link.startswith("https://")
        for start in (ADDRESS, ADDRESS.replace("/blob/", "/tree/"), raw):
            if link.startswith(f"{start}/"):
                assert (ROOT / link.removeprefix(f"{start}/").split("#")[0]).exists(), link


def test_that_figures_of_costs_are_measured_and_have_intervals() -> None:
    rows = OVERHEAD.rows(RESULTS / OVERHEAD.name)
    assert with_figures(README, rows) == README, "README.md is not what `python -m benchmarks claims` writes"
    assert all("–" in quote.figure(rows) for quote in QUOTES)
    cases = rows["optimizers"].data["cases"]
    factors = [
        faster(case, cases[case.label]["times"], kind).high for case in CASES if case.peer == "geoopt" for kind in KINDS
    ]
    assert ("some cases are slower than in geoopt" in README) == (min(factors) < 1)


def test_that_the_recommended_ascent_is_that_of_its_report() -> None:
    report = (RESULTS / "cheap" / "README.md").read_text(encoding="utf-8")
    found = re.search(
        r"accuracy to within (0.3) points at .* evaluations per step\? (\w+)\.\*\* (.*?) points.*?\((\d) seeds;", report
    )
    rhos = re.findall(r"(\d\.\d+) on ", report.split("**Recommended: an ascent from the whole batch in every step")[1])[
        :3
    ]
    assert found is not None
    margin, verdict, difference, seeds = found.groups()
    line = " ".join(README.split("**A cheap ascent.**")[1].split("\n- **")[0].split())
    assert f"{margin} points is [{verdict.lower()}]" in line
    assert f"{difference} over 3 cases, {seeds} seeds" in line
    assert f"take the whole batch in every step; `rho` was {min(rhos)} to {max(rhos)} there" in line


def test_that_claims_are_what_the_studies_say() -> None:
    lines = said(RESULTS)
    assert shown_in_readme(lines, README) == README, "README.md is not what `python -m benchmarks claims` writes"
    claims = [re.findall(r"\*\*(C\d)", line)[0] for line in lines]  # of one there may be more than one line
    assert [*dict.fromkeys(claims)] == ["C1", "C2", "C3", "C4", "C5", "C6"]
