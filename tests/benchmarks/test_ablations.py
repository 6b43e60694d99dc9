"""That the ablations make the right runs, and report them as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn.functional import cross_entropy

from benchmarks.run import Knob, Row, Run
from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.studies import NothingToReport
from benchmarks.studies.ablations import ABLATIONS, NO_BATCH_NORM, AblationsStudy, moved, study
from benchmarks.studies.ablations.report import decomposition, forest, same_settings, sentences, tuning, without
from benchmarks.studies.ablations.trials import ASCENTS, BASE_OF, COMPARED, Trials, wanted
from benchmarks.studies.comparison import study as comparison_study
from benchmarks.studies.comparison.cases import Case, Grid
from benchmarks.studies.comparison.contest import Entry, compete
from benchmarks.studies.comparison.study import ComparisonStudy
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.images.contestants import CONTESTANTS
from benchmarks.studies.images.report import RULES
from benchmarks.workloads.images import as_images
from benchmarks.workloads.networks import MODELS
from tests.benchmarks.entries import Recorder, made_case, made_row

METHODS_HERE = ("sgd", "sam", "riemannian_sgd", "rsam", "rsam_pullback", "rsam_project", "ambient_sam")
BEST = {
    "rsam": (0.1, 0.2),
    "rsam_pullback": (0.1, 0.2),
    "rsam_project": (0.01, 0.4),
    "ambient_sam": (0.1, 0.4),
}
PROTOCOL = Protocol(first=(100,), kept=2, second=(101,), final=(0, 1, 2))


def with_grid(case: Case) -> Case:
    """Give each contestant a grid of four settings."""
    grids = [replace(c, grid=Grid(c.grid.knob, (0.01, 0.1), (0.2, 0.4))) for c in case.contestants]
    return replace(case, contestants=tuple(grids))


CASE = with_grid(made_case(METHODS_HERE))


def accuracy_of(run: Run) -> float:
    """Return a validation accuracy that is best at the given setting, or a test accuracy that depends on the run."""
    setting = (run.lr, CONTESTANTS[run.method].grid.knob.of(run))
    if run.heldout == "validation":
        return 0.6 + 0.1 * (setting == BEST.get(run.method, (0.1, 0.4))) - 0.01 * run.lr
    seed = int(replace(run, measures=()).key, 16)
    return round(float(np.random.default_rng(seed).uniform(0.7, 0.8)), 4)


def made(run: Run) -> Row:
    """Make a row without training."""
    rng = np.random.default_rng(int(replace(run, measures=()).key, 16))
    measures = ("gradient_norm", "trace", "top_eigenvalue", "sharpness", "distance") if run.measures else ()
    return made_row(run, accuracy_of(run), measures={name: float(rng.uniform(1, 2)) for name in measures})


def entries_of(case=CASE) -> list[Entry]:
    return compete(case, Recorder(made), PROTOCOL)


def trials_of(entries: list[Entry]) -> Trials:
    runs = wanted(entries)
    return Trials(entries, {s: [made(replace(runs[s], seed=seed)) for seed in PROTOCOL.final] for s in runs})


def cells(table: str) -> list[list[str]]:
    return [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def shown(values: list[float]) -> str:
    """Format the mean and half of Student's interval, by SciPy."""
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    return f"{np.mean(values):.2f} ± {(high - low) / 2:.2f}"


def percents(method: str, setting: tuple[float, float]) -> np.ndarray:
    run = CASE.run(next(c for c in CASE.contestants if c.name == method), *setting)
    return 100 * np.array([accuracy_of(replace(run, seed=seed)) for seed in PROTOCOL.final])


def test_that_all_ways_are_tried_at_each_setting_that_one_of_them_chose() -> None:
    runs = wanted(entries_of())
    for name in ASCENTS["spheres"]:
        assert {(0.1, 0.2), (0.01, 0.4), (0.1, 0.4)} <= {(r.lr, r.rho) for r in runs if r.method == name}
    assert {r.method for r in runs} == {*ASCENTS["spheres"], "sam", "sgd", "riemannian_sgd"}


def test_that_every_setting_that_tuning_kept_is_tried() -> None:
    entries = entries_of()
    for entry in entries:
        if entry.name in COMPARED:
            kept = entry.tuned.kept
            assert len(kept) == PROTOCOL.kept
            assert entry.tuned.setting in kept
            assert set(kept) <= set(wanted(entries))


def test_that_without_its_ascent_a_method_is_its_base_at_the_same_rate_and_decay() -> None:
    entries = entries_of()
    of = {entry.name: entry for entry in entries}
    rows = cells(without([trials_of(entries)]))
    assert [row[1] for row in rows] == [CONTESTANTS[name].label for name in ("sam", "rsam")]
    for row, name in zip(rows, ("sam", "rsam"), strict=True):
        lr, rho = BEST.get(name, (0.1, 0.4))
        # the method's own decay, over which it is not tuned
        setting = of[name].tuned.setting
        bare = replace(setting, method=BASE_OF[name], rho=0.0)
        assert (setting.lr, setting.rho) == (lr, rho)
        theirs = [made(replace(bare, seed=seed, measures=setting.measures[1:])) for seed in PROTOCOL.final]
        assert row[2] == shown(list(percents(name, (lr, rho)) - [100 * accuracy_of(other.run) for other in theirs]))
        logs = [
            np.log(ours.measures["trace"] / other.measures["trace"])
            for ours, other in zip(of[name].rows, theirs, strict=True)
        ]
        assert row[4] == f"{np.exp(np.mean(logs)):.3g}"


def test_that_methods_are_tried_with_the_decay_that_was_chosen_for_their_base() -> None:
    entries = entries_of()
    of = {entry.name: entry for entry in entries}
    for row, name in zip(cells(without([trials_of(entries)])), ("sam", "rsam"), strict=True):
        decay = of[BASE_OF[name]].tuned.setting.weight_decay
        setting = replace(of[name].tuned.setting, weight_decay=decay)
        assert decay == 0.4 != of[name].tuned.setting.weight_decay
        decayed = [100 * accuracy_of(replace(setting, seed=seed)) for seed in PROTOCOL.final]
        ours = [100 * row.scores["accuracy"] for row in of[name].rows]
        assert row[-1] == f"0.4: {shown(list(np.array(decayed) - ours))}"


def test_that_the_grids_moved_hold_what_the_comparison_could_not_try() -> None:
    for name in METHODS_HERE:
        before, after = CONTESTANTS[name].grid, moved(CONTESTANTS[name]).grid
        assert len(set(after.pairs())) == len(before.pairs())
        assert max(after.rates) == pytest.approx(10 * max(before.rates))
        if before.knob is Knob.RHO:
            assert min(after.values) < min(before.values) < max(after.values)


def test_that_picture_and_sentences_say_what_the_tables_say() -> None:
    cases = [trials_of(entries_of())]
    ((_, _, *parts),) = cells(decomposition(cases))
    (group,) = forest(cases)
    assert group.title == CASE.label
    assert [line.verdict for line in group.lines] == [parts[3], parts[0]]  # RSAM − SAM, and the constraint alone
    ways = [cell.split(" ± ") for row in cells(same_settings(cases)) for cell in row[5:] if cell]
    *of_parts, last = sentences(cases)
    for sentence, part in zip(of_parts, parts, strict=True):
        mean, half = map(float, part.split(" ± "))
        assert sentence.endswith(f" {int(mean > half)} lie above 0 and {int(mean < -half)} below.")
    assert f" of {len(ways)} intervals exclude 0" in last
    assert f"more than {max(abs(float(mean)) for mean, _ in ways):.2f} points" in last


def test_that_the_decomposition_adds_up() -> None:
    place, constraint, ascent, sam, total = cells(decomposition([trials_of(entries_of())]))[0][1:]
    assert place == "spheres"
    mean = {text: float(text.split()[0]) for text in (constraint, ascent, sam, total)}
    # the sum of four numbers that are rounded to a hundredth
    assert mean[total] == pytest.approx(mean[constraint] + mean[ascent] - mean[sam], abs=0.021)
    other = percents("rsam", BEST["rsam"]) - percents("riemannian_sgd", (0.1, 0.4))
    assert ascent == shown(list(other))


def test_that_ways_are_compared_at_equal_settings() -> None:
    rows = cells(same_settings([trials_of(entries_of())]))
    assert [(row[2], row[3]) for row in rows] == [("0.1", "0.2"), ("0.01", "0.4"), ("0.1", "0.4")]
    for row in rows:
        setting = float(row[2]), float(row[3])
        rsam = percents("rsam", setting)
        assert row[4] == shown(list(rsam))
        for text, name in zip(row[5:], ASCENTS["spheres"][1:], strict=True):
            assert text == shown(list(rsam - percents(name, setting)))


def test_that_the_spread_of_tuning_is_over_the_settings_that_it_kept() -> None:
    entries = entries_of()
    sam, rsam = cells(tuning([trials_of(entries)]))
    kept = next(e for e in entries if e.name == "rsam").tuned.kept
    values = [percents("rsam", (run.lr, run.rho)) for run in kept]
    assert rsam[2] == shown(list(percents("rsam", BEST["rsam"])))
    assert rsam[3] == shown(list(np.mean(values, axis=0)))
    assert [rsam[4], rsam[5]] == [f"{edge(fmean(v) for v in values):.2f}" for edge in (min, max)]
    of_sam = next(e for e in entries if e.name == "sam").tuned.kept
    means = np.mean([percents("sam", (run.lr, run.rho)) for run in of_sam], axis=0)
    assert rsam[6] == shown(list(percents("rsam", BEST["rsam"]) - percents("sam", (0.1, 0.4))))
    assert rsam[7] == shown(list(np.mean(values, axis=0) - means))
    assert sam[6:] == ["", ""]


# ---- the study

OWN = with_grid(made_case(METHODS_HERE, "own", main=False, label_noise=0.4))
TINY = AblationsStudy(
    "ablations",
    "",
    ComparisonStudy("optimizers", "", "", "", (CASE,), (), RULES, PROTOCOL),
    ComparisonStudy("ablations", "", "", "", (OWN,), (), RULES, PROTOCOL),
)


def here(runs, train: Callable[[Run], Row], results: Results[Row], workers, *, bar=None) -> list[Row]:
    """Run ``collect`` in this process."""
    actual = results.find(runs)
    for run in runs:
        if run not in actual:
            actual[run] = train(run)
            results.append(actual[run])
    return [actual[run] for run in runs]


@pytest.fixture
def trained(monkeypatch) -> list[Run]:
    """Replace training by made-up rows, and record the runs."""
    runs: list[Run] = []

    def train(run: Run) -> Row:
        runs.append(run)
        measures = {"gradient_norm": 1.0, "trace": 1.0, "top_eigenvalue": 1.0, "sharpness": 1.0, "distance": 1.0}
        return made_row(run, accuracy_of(run), measures=measures)

    for module in (study, comparison_study):
        monkeypatch.setattr(module, "collect", here)
        monkeypatch.setattr(module, "trainer", lambda directory, workers: train)
    return runs


def test_that_the_comparison_is_trained_first_where_it_is_looked_for_and_nothing_twice(trained, tmp_path) -> None:
    directory = tmp_path / "ablations"
    directory.mkdir()
    TINY.run(directory, Workers())
    assert len(trained) == len(set(trained))
    assert TINY.compared.entries(tmp_path / "optimizers")[1] == []
    text = TINY.report(directory)
    first = len(trained)
    TINY.run(directory, Workers())
    assert len(trained) == first
    # the report shows its own case with all tables, and the ablations of both cases
    assert "## made up, own" in text
    assert "Preliminary" not in text
    assert "## made up, made" not in text
    assert len(cells(text[text.index("| case") :].split("\n\n")[0])) == 2
    assert (directory / "own-intervals.svg").is_file()


def test_that_runs_at_other_settings_measure_no_more_than_is_shown(trained, tmp_path) -> None:
    directory = tmp_path / "ablations"
    directory.mkdir()
    TINY.run(directory, Workers())
    extra = [run for run in trained if run.heldout == "test" and not run.measures]
    assert extra
    assert {run.seed for run in extra} == set(PROTOCOL.final)
    # the bases at the settings of the methods built on them
    measured = [run for run in trained if run.measures and "curves" not in run.measures]
    assert {run.method for run in measured} == {"sgd", "riemannian_sgd"}


def test_that_a_case_that_lacks_a_run_is_left_out(trained, tmp_path) -> None:
    directory = tmp_path / "ablations"
    directory.mkdir()
    with pytest.raises(NothingToReport, match=r"ablations.rows\.jsonl"):
        TINY.report(directory)
    TINY.run(directory, Workers())
    lines = (directory / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    extra = [line for line in lines if '"heldout": "test"' in line and '"measures": []' in line]
    lines.remove(next(line for line in extra if '"label_noise": 0.4' in line))
    (directory / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    text = TINY.report(directory)
    assert "made up, own" not in text.split("## The constraint")[1].split("## made up")[0]
    assert "**Preliminary**: without made up, own." in text


def test_that_the_quick_version_takes_results_of_the_quick_comparison(tmp_path) -> None:
    assert ABLATIONS._compared(Path("results/ablations-quick")) == Path("results/optimizers-quick")
    assert ABLATIONS._compared(Path("results/ablations")) == Path("results/optimizers")


# ---- the role of batch norm


def normal_part(model: torch.nn.Module) -> float:
    """Return the largest cosine, over all filters, between the gradient of a filter and the filter itself."""
    images, labels = torch.randn(64, 1, 28, 28), torch.arange(64) % 10
    cross_entropy(model.train()(images), labels).backward()
    shares = []
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            weight, grad = module.weight.detach().flatten(1), module.weight.grad.flatten(1)
            shares.append((weight * grad).sum(1).abs() / (weight.norm(dim=1) * grad.norm(dim=1)))
    return float(torch.cat(shares).max())


def test_that_gradients_under_batch_norm_are_tangent_to_the_filters_spheres_and_without_are_not() -> None:
    # zero, except for the 1e-5 that batch norm adds to variances, at most a thousandth of these
    torch.manual_seed(0)
    assert normal_part(MODELS["small_cnn"]((1, 28, 28), 10)) < 1e-2
    assert normal_part(MODELS[as_images(NO_BATCH_NORM.template.workload).model]((1, 28, 28), 10)) > 0.1
