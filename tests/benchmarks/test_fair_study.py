"""That the fair comparison tunes all methods alike, fits its hours, and reads more images only once one is chosen."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.methods import METHODS
from benchmarks.run import Knob, Row, Run
from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.studies import STUDIES, NothingToReport
from benchmarks.studies.comparison import study as comparison
from benchmarks.studies.comparison.contest import outstanding
from benchmarks.studies.comparison.sampling import Sample
from benchmarks.studies.costs import seconds
from benchmarks.studies.fair import FAIR, penalties
from benchmarks.studies.fair import study as fair
from benchmarks.studies.fair.cases import CASES, PROTOCOL, READ
from benchmarks.studies.fair.contestants import CONTESTANTS, VARIANTS
from benchmarks.studies.fair.rules import RECOMMENDED, RULES
from benchmarks.workloads.samples import VALIDATION, as_samples
from tests.benchmarks.comparisons import table_of
from tests.benchmarks.entries import made_row

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
HOURS = 13


def nothing(runs: Sequence[Run]) -> dict[Run, Row]:
    return {}


def test_that_the_predicted_hours_fit() -> None:
    runs = [run for case in CASES for run in outstanding(case, nothing, PROTOCOL)]
    assert len(set(runs)) == len(runs) == 4 * 10 * (32 + 8 * 2 + 3 * 12)
    setting = {run.method: run for run in runs if run.workload == CASES[0].template.workload}["sam"]
    # at most as long as SAM, for two variants and two bases
    reading = 4 * len(READ.seeds) * seconds(READ.run(setting, 0))
    # the rest is for ranges that will be widened
    assert sum(map(seconds, runs)) + reading < 0.9 * HOURS * 3600


def test_that_methods_are_tuned_alike_and_all_may_decay() -> None:
    assert {len(c.grid.settings(CASES[0].template)) for c in CONTESTANTS.values()} == {32}
    for name, contestant in CONTESTANTS.items():
        assert isinstance(contestant.grid, Sample)
        ranges = {one.knob: one for one in contestant.grid.ranges}
        decay = ranges[Knob.WEIGHT_DECAY]
        assert (decay.low, decay.high) == ((0.01, 10.0) if name == "adamw" else (5e-4, 0.1)) and decay.natural
        assert (Knob.KERNEL_RATE in ranges) == (contestant.kernels != "plain")
        if contestant.kernels != "plain":
            assert (ranges[Knob.KERNEL_RATE].low, ranges[Knob.KERNEL_RATE].high) == (1, 10)
        if METHODS[contestant.method].gradients == 2:
            assert ranges[Knob.RHO].natural
        if contestant.base:
            base = CONTESTANTS[contestant.base]
            assert base.kernels == contestant.kernels
            assert set(base.grid.knobs) < set(contestant.grid.knobs)
    assert CONTESTANTS["rsam"].grid == CONTESTANTS["rsam_stiefel"].grid
    assert set(CONTESTANTS["sam"].grid.ranges) < set(CONTESTANTS["rsam"].grid.ranges)  # type: ignore[union-attr]


def test_that_the_rules_describe_the_protocol() -> None:
    text = " ".join(RULES.split())
    assert f"the best {PROTOCOL.kept} are tried with two more" in text and len(PROTOCOL.second) == 2
    assert "its three best settings" in text and PROTOCOL.best == 3
    assert "with one seed" in text and len(PROTOCOL.first) == 1
    assert "share it, once;" in text and PROTOCOL.rounds == 1
    assert f"{READ.examples:,} images" in text
    assert len(PROTOCOL.final) >= 12
    assert RECOMMENDED in ("", *VARIANTS)


def test_that_cases_are_those_that_were_asked_for() -> None:
    described = [(w.dataset, w.examples, w.label_noise) for w in (as_samples(case.template.workload) for case in CASES)]
    assert described == [
        ("imagefolder:cifar10", 2_000, 0.0),
        ("imagefolder:cifar10", 2_000, 0.2),
        ("fashion_mnist", 2_000, 0.2),
        ("mnist1d_anew", 4_000, 0.0),
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_that_the_rules_describe_the_data(case) -> None:
    text, workload = " ".join(RULES.split()), as_samples(case.template.workload)
    name = {"imagefolder:cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST", "mnist1d_anew": "MNIST-1D"}
    assert name[workload.dataset] in case.label and ("(JPEG)" in case.label) == (workload.dataset[:5] == "image")
    (numbers,) = re.findall(r"(2,000) images of CIFAR-10 .* or Fashion-MNIST, or (4,000) signals of MNIST-1D", text)
    assert f"{workload.examples:,}" == numbers[workload.dataset == "mnist1d_anew"]
    assert f"Validation is on {VALIDATION:,} others" in text


@pytest.mark.parametrize("case", [*CASES, *FAIR.quick().cases], ids=lambda case: case.label)
def test_that_a_network_that_diverged_counts_as_one_that_guesses(case) -> None:
    lost = made_row(replace(case.template, method="sgd"), accuracy=0.8, diverged=True)
    assert case.score.of(lost) == case.score.of(replace(lost, scores={})) == 10
    assert case.score.tuned(lost) == -math.inf
    assert case.score.of(replace(lost, diverged=False)) == 80


# ---- a run

SHORT = replace(FAIR.quick(), recommended="")


def by_number(run: Run) -> Row:
    """Make a row whose scores depend on the run."""
    return made_row(run, accuracy=0.5 + int(run.key, 16) / 16**16 / 3)


@pytest.fixture
def trained(monkeypatch) -> list[Run]:
    """Replace training; return the list of runs that were trained."""
    runs: list[Run] = []

    def train(run: Run) -> Row:
        runs.append(run)
        return by_number(run)

    def here(wanted: Sequence[Run], _: object, results: Results[Row], workers: Workers, **options: object) -> list[Row]:
        rows = results.find(wanted)
        for run in dict.fromkeys(run for run in wanted if run not in rows):
            results.append(train(run))
        return list(results.find(wanted).values())

    for module in (comparison, fair):
        monkeypatch.setattr(module, "collect", here)
        monkeypatch.setattr(module, "trainer", lambda directory, workers: train)
    return runs


def test_that_the_study_goes_on_where_it_was_and_says_the_hours_first(trained, tmp_path, capsys) -> None:
    expected = SHORT.outstanding(SHORT.cases, tmp_path)
    SHORT.run(tmp_path, Workers(1))
    hours = sum(map(seconds, expected)) / 3600
    long = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"
    assert f"{len(expected)} networks to train, about {long} of one core" in capsys.readouterr().err
    assert len(trained) == len(set(trained)) >= len(expected) == 2 * 10 * (2 + 2 + 2 * 2)
    assert SHORT.outstanding(SHORT.cases, tmp_path) == []
    before = len(trained)
    SHORT.run(tmp_path, Workers(1))
    assert len(trained) == before
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(lines[:-3]), encoding="utf-8")
    SHORT.run(tmp_path, Workers(1))
    assert len(trained) == before + 3


def test_that_more_images_are_read_once_a_variant_is_chosen_and_not_before(trained, tmp_path, cheap) -> None:
    SHORT.run(tmp_path, Workers(1))
    assert {as_samples(run.workload).examples for run in trained} == {256}
    assert "read once" not in SHORT.report(tmp_path).split("## Rules")[0]
    before = len(trained)
    chosen = replace(SHORT, recommended="rsam_stiefel")
    chosen.run(tmp_path, Workers(1))
    new = trained[before:]
    assert {(run.method, as_samples(run.workload).kernels) for run in new} == {
        ("rsam", "stiefel"),
        ("sam", "plain"),
        ("riemannian_sgd", "stiefel"),
        ("sgd", "plain"),
    }
    assert len(new) == 4 * len(chosen.read.seeds)
    assert {(run.heldout, as_samples(run.workload).examples) for run in new} == {("test", 512)}
    # at the settings that were chosen with fewer images: final runs had them
    settings = {replace(run, seed=0, workload=replace(as_samples(run.workload), examples=256)) for run in new}
    assert settings <= {replace(run, seed=0) for run in trained[:before] if run.heldout == "test"}
    text = chosen.report(tmp_path)
    assert "read once on 512 images" in text.split("## Rules")[0]


def test_that_more_images_are_not_read_while_a_case_is_missing(trained, tmp_path) -> None:
    SHORT.run(tmp_path, Workers(1))
    rows = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(rows[:-1]), encoding="utf-8")  # of the other case
    chosen = replace(SHORT, recommended="rsam")
    assert {as_samples(run.workload).examples for run in chosen.outstanding(chosen.cases, tmp_path)} == {256}


def test_that_the_report_leads_with_the_picture_and_the_verdicts(trained, tmp_path, cheap) -> None:
    SHORT.run(tmp_path, Workers(1))
    text = SHORT.report(tmp_path)
    first = text.split("<!-- details -->")[0]
    assert "![" in first and (tmp_path / "answer.svg").exists()
    assert (
        len(re.findall(r"^- \*\*C6\b", first, re.MULTILINE))
        == len(re.findall(r"^- \*\*C5\b", first, re.MULTILINE))
        == 1
    )
    assert "C5 for the gradient norm is no question of its own" in first
    assert RULES.strip() in text
    assert "Preliminary" not in text
    assert first.count("| C6    |") == 3 and first.count("| C5    |") == 1
    drawn = SHORT.claims(tmp_path)
    assert [(group.title[:2], len(group.lines)) for group in drawn] == [("C5", 1), ("C6", 3)]


def test_that_without_one_case_conclusions_are_preliminary_and_without_any_there_are_none(
    trained, tmp_path, cheap
) -> None:
    with pytest.raises(NothingToReport, match="no complete case"):
        SHORT.report(tmp_path)
    replace(SHORT, cases=SHORT.cases[:1]).run(tmp_path, Workers(1))
    text = SHORT.report(tmp_path)
    assert "**Preliminary**: without Fashion-MNIST mini" in text
    assert len(re.findall(r"^- \*\*C[56] undecided:", text, re.MULTILINE)) == 2
    assert {line.verdict for group in SHORT.claims(tmp_path) for line in group.lines} == {"undecided"}


def test_that_a_case_without_data_is_skipped_with_a_message(trained, directory, tmp_path, capsys) -> None:
    replace(SHORT, cases=(CASES[0],)).run(tmp_path, Workers(1))
    said = capsys.readouterr().err
    assert "skipped: CIFAR-10" in said and "--data-dir" in said
    assert trained == []


def test_that_only_a_variant_can_be_recommended() -> None:
    with pytest.raises(ValueError, match=r"recommended must be one of rsam, .*got 'sam'"):
        replace(FAIR, recommended="sam")


def test_that_the_study_is_on_the_command_line() -> None:
    assert STUDIES["fair"] is FAIR


def test_that_figures_of_the_gradient_norm_are_those_of_the_committed_rows() -> None:
    text = penalties.paragraph(RESULTS / "fair")
    shown = (RESULTS / "optimizers" / "README.md").read_text(encoding="utf-8")
    by_label = {row["measured"]: row for row in table_of(shown[shown.index("| claim") :].split("\n\n")[0])}
    accuracy = by_label["test accuracy, gradient norm penalty minus SAM, points"]["mean"]
    assert f"minus SAM's is {accuracy} ± " in text
    for measure, words in (("gradient norm", "gradient norm"), ("Hessian trace", "trace")):
        logarithm = float(by_label[f"log2 of the {measure} with its penalty over SGD's"]["mean"])
        # two decimals of the logarithm leave half a per cent
        (factor,) = re.findall(rf"changed the {words} by a factor of ([\d.]+\d)", text)
        assert float(factor) == pytest.approx(2**logarithm, abs=0.006)
    assert text.split("(")[-1].count(";") == 4  # between the figures of four cases, and in the last sentence


def test_that_the_argument_stands_without_figures(tmp_path) -> None:
    assert "first order" in penalties.paragraph(tmp_path / "fair")
