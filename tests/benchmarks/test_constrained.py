"""The ascent against other remedies: settings, early stopping, verdicts and the report."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from benchmarks.run import Row, Run
from benchmarks.runs.measurement import FIFTHS
from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.studies import STUDIES, NothingToReport
from benchmarks.studies.cheap.study import CheapStudy
from benchmarks.studies.cheap.variants import Variant, find
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.constrained import study
from benchmarks.studies.constrained.added import add_ascent
from benchmarks.studies.constrained.contest import compete, stopped, validation
from benchmarks.studies.constrained.design import ASCENT, BASE, Case, Design
from benchmarks.studies.constrained.rules import ASKED, DECIDING, RECOMMENDED, RHOS, RULES, TRIALS, answer
from benchmarks.studies.constrained.study import ConstrainedStudy, _missing, _seconds
from benchmarks.workloads.samples import as_samples
from tests.benchmarks.entries import Recorder, made_row

SEEDS = (0, 1, 2)
PROTOCOL = Protocol((1000,), kept=3, second=(1001,), final=SEEDS, best=2)
DESIGN = Design(
    {"one": "fashion_mnist_mini", "two": "digits"}, DECIDING, 256, epochs=5, trials=8, protocol=PROTOCOL, recommended={}
)
CASE = Case("one", 0.1, "spheres")
#: Networks without what was added: RiemannianSGD trains twice as long at the best setting of :func:`by_method`, so that
#: RSAM's without its ascent is another one.
BEFORE = 8 * (2 * 8 + 2 * 3 + 5 * 3)


# -- settings --------------------------------------------------------------------------------------------------------


def test_that_both_methods_try_the_same_settings_but_for_the_ascent_and_its_epochs() -> None:
    design = Design()
    settings = design.settings(CASE if "one" in design.datasets else Case("Fashion-MNIST", 0.1, "spheres"))
    assert {method: len(of_method) for method, of_method in settings.items()} == {ASCENT: TRIALS, BASE: TRIALS}
    assert len({setting.key for of_method in settings.values() for setting in of_method}) == 2 * TRIALS
    for ascent, base in zip(settings[ASCENT], settings[BASE], strict=True):
        assert replace(ascent, method=BASE, rho=0.0, epochs=base.epochs) == base
        assert ascent.epochs == design.epochs or RECOMMENDED
        assert ascent.rho > 0 == base.rho


def test_that_a_cheap_ascent_may_train_twice_as_long_and_is_taken_off_again() -> None:
    cheap = replace(DESIGN, recommended={"method": "rsam_angle", "part": 0.25, "every": 2})
    settings = cheap.settings(CASE)
    assert [run.epochs for run in settings[ASCENT]] == [run.epochs for run in settings[BASE]]
    for ascent, base in zip(settings[ASCENT], settings[BASE], strict=True):
        assert (ascent.method, ascent.part, ascent.every) == ("rsam_angle", 0.25, 2)
        assert cheap.without_ascent(ascent) == base


@pytest.mark.parametrize("kernels", ["spheres", "stiefel"])
def test_that_remedies_are_used_in_half_of_the_settings_within_the_ranges_of_the_rules(kernels) -> None:
    text = " ".join(RULES.split())
    settings = Design().settings(Case("Fashion-MNIST", 0.2, kernels))[BASE]
    workloads = [as_samples(run.workload) for run in settings]
    assert {w.kernels for w in workloads} == {kernels} and {w.label_noise for w in workloads} == {0.2}
    for values, words in (
        ([w.label_smoothing for w in workloads], r"label smoothing \(none or ([\d.]+) to ([\d.]+)\)"),
        ([w.dropout for w in workloads], r"dropout before the head \(none or ([\d.]+) to ([\d.]+)\)"),
    ):
        low, high = map(float, re.search(words, text).groups())  # type: ignore[union-attr]
        used = [value for value in values if value]
        assert len(used) == TRIALS / 2
        assert low <= min(used) < max(used) <= high
    assert sorted(run.epochs for run in settings) == [18] * (TRIALS // 2) + [36] * (TRIALS // 2)
    for values, words in (
        ([run.lr for run in settings], r"Learning rate \(([\d.]+) to ([\d.]+)\)"),
        ([run.kernel_rate for run in settings], r"factor for kernels \((\d+) to (\d+)\)"),
        ([run.weight_decay for run in settings], r"not constrained \(([\d.]+) to ([\d.]+)\)"),
        (
            [run.rho for run in Design().settings(Case("Fashion-MNIST", 0.2, kernels))[ASCENT]],
            r"\(([\d.]+) to ([\d.]+), or twice",
        ),
    ):
        low, high = map(float, re.search(words, text).groups())  # type: ignore[union-attr]
        assert low <= min(values) < max(values) <= high
        # Sobol points fill every quarter of a range
        assert set(np.floor(4 * np.log(np.array(values) / low) / np.log(high / low)).clip(0, 3)) == {0, 1, 2, 3}


def test_that_no_remedy_is_tied_to_another_one_or_to_an_end_of_another_range() -> None:
    settings = Design().settings(Case("Fashion-MNIST", 0.2, "spheres"))
    workloads = [as_samples(run.workload) for run in settings[BASE]]
    smoothing, dropout = ([getattr(w, name) > 0 for w in workloads] for name in ("label_smoothing", "dropout"))
    longer = [run.epochs > Design().epochs for run in settings[BASE]]
    combinations = [*zip(smoothing, dropout, longer, strict=True)]
    assert {combinations.count(one) for one in itertools.product((False, True), repeat=3)} == {TRIALS / 8}
    for knob in ("lr", "kernel_rate", "weight_decay", "rho"):
        values = np.array([getattr(run, knob) for run in settings[ASCENT]])
        for remedy in (smoothing, dropout, longer):
            # eight settings of sixteen have it, four of them above the middle if the two were independent
            assert 3 <= (values > np.median(values))[remedy].sum() <= 5


# -- contest ---------------------------------------------------------------------------------------------------------


def curved(run: Run, accuracy: list[float], on_validation: list[float] | None = None) -> Row:
    """Make a row that was scored five times."""
    curves = {"accuracy": accuracy, **({} if on_validation is None else {"validation_accuracy": on_validation})}
    return replace(made_row(run, accuracy[-1]), curves=curves)


def test_that_networks_are_stopped_where_validation_is_best_and_early_of_equal_ones() -> None:
    run = DESIGN.settings(CASE)[BASE][0]
    row = curved(run, [0.1, 0.2, 0.3, 0.4, 0.5], [0.6, 0.8, 0.7, 0.8, 0.75])
    assert stopped(row) == pytest.approx(20)
    assert validation(curved(run, [0.1, 0.5, 0.4, 0.3, 0.2])) == pytest.approx(50)
    nothing = replace(made_row(run, diverged=True), curves={})
    assert stopped(nothing) == validation(nothing) == 10


def quality(run: Run, best: int, second: int) -> float:
    """Make two settings better than the others, of which the one with the smaller number does worse with one seed."""
    for setting in (run for of_method in DESIGN.settings(CASE).values() for run in of_method):
        if replace(setting, seed=run.seed, heldout=run.heldout) == run:
            number = DESIGN.settings(CASE)[run.method].index(setting)
            return {best: 0.7 if run.seed == 1000 else 0.8, second: 0.72}.get(number, 0.5)
    return 0.4  # without the ascent


def test_that_the_two_best_settings_over_all_seeds_go_on_and_are_averaged() -> None:
    def row(run: Run) -> Row:
        value = quality(run, best=4, second=5)
        if run.heldout == "validation":
            return curved(run, [0.1, value, value, 0.1, 0.1])
        gain = 0.02 if run.method == ASCENT else 0.0
        return curved(run, [0.1, value + gain + run.seed / 100, 0.9, 0.9, 0.9], [0.5, 0.6, 0.1, 0.1, 0.1])

    recorder = Recorder(row)
    (found,) = compete([CASE], DESIGN, recorder)
    for method in (ASCENT, BASE):
        settings = DESIGN.settings(CASE)[method]
        assert found.settings[method] == [settings[4], settings[5]]  # (0.7 + 0.8) / 2, 0.72
    assert [len(call) for call in recorder.calls] == [2 * 8, 2 * 3, 5 * 3]
    assert {run.heldout for run in recorder.runs if run.seed >= 1000} == {"validation"}
    assert {run.heldout for run in recorder.calls[-1]} == {"test"} and {run.measures for run in recorder.runs} == {
        (FIFTHS,)
    }
    assert found.of(ASCENT) == pytest.approx([78 + s for s in SEEDS])  # (80 + 72) / 2 and 2 more
    assert found.against_remedy() == pytest.approx([2, 2, 2])
    assert found.same == replace(DESIGN.settings(CASE)[BASE][4], epochs=DESIGN.epochs)


def test_that_an_ascent_on_top_takes_the_best_rho_on_validation_of_each_setting() -> None:
    gains = dict(zip(RHOS, (0.01, 0.03, 0.02, -0.2), strict=True))  # on validation; on test images the rho itself

    def row(run: Run) -> Row:
        value = quality(run, best=4, second=5)
        is_on_top = run.method == ASCENT and run.rho in RHOS
        if is_on_top and run.lr == second.lr and run.rho == RHOS[0]:
            value += 0.1  # the second setting has a best rho of its own
        if run.heldout == "validation":
            return curved(run, [0.1, value + (gains[run.rho] if is_on_top else 0), 0.1, 0.1, 0.1])
        tested = 0.5 + run.seed / 10 + (run.rho if is_on_top else 0)
        return curved(run, [0.1, 0.2, tested, 0.9, 0.9], [0.5, 0.6, 0.7, 0.1, 0.1])

    first, second = DESIGN.settings(CASE)[BASE][4:6]
    recorder = Recorder(row)
    found = compete([CASE], DESIGN, recorder)
    before = len(recorder.runs)
    (added,) = add_ascent(found, DESIGN, recorder)
    assert [setting.rho for setting in added.settings[ASCENT]] == [RHOS[1], RHOS[0]]
    assert added.against_remedy() == pytest.approx([100 * (RHOS[1] + RHOS[0]) / 2] * 3)
    new = recorder.runs[before:]
    assert {replace(run, seed=0, heldout=first.heldout, method=BASE, rho=0.0) for run in new} == {first, second}
    assert {run.heldout for run in new if run.seed in SEEDS} == {"test"}
    clean = [replace(f, case=replace(f.case, label_noise=0.0)) for f in found]
    assert add_ascent(clean, DESIGN, recorder) == []


# -- verdicts --------------------------------------------------------------------------------------------------------


def differences(**of_set: tuple[float, float]) -> dict[float, dict[str, list[float]]]:
    """Make differences at 10 and 20 % of each data set, which vary by some hundredths over four seeds."""
    return {
        noise: {name: [means[i] + s for s in (0.03, -0.03, 0.01, -0.01)] for name, means in of_set.items()}
        for i, noise in enumerate(DECIDING)
    }


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        ((1.0, 1.0), (0.6, 0.6), "better"),
        ((2.0, 2.0), (0.1, -0.2), "undecided"),  # a data set with a negative mean
        ((1.0, 0.7), (1.0, 0.1), "not better"),  # 0.4 at 20 %
        ((0.2, 0.2), (0.2, 0.2), "not better"),
        ((1.0, 0.5), (1.0, 0.5), "undecided"),  # exactly what is asked
        ((1.0, 0.53), (1.0, 0.53), "undecided"),  # intervals reach 0.054 either way
        ((1.0, 0.47), (1.0, 0.47), "undecided"),
        ((0.56, 1.0), (0.56, 1.0), "better"),
        ((0.44, 1.0), (0.44, 1.0), "not better"),
    ],
)
def test_that_the_ascent_has_to_be_better_at_both_levels(one, two, verdict) -> None:
    found = answer(differences(one=one, two=two), differences(one=(1, 1), two=(1, 1)))
    assert found.verdict == verdict
    assert found.at_equal_settings


@pytest.mark.parametrize(("means", "helps"), [((0.06, 0.06), True), ((0.05, 1.0), False), ((1.0, 0.05), False)])
def test_that_the_ascent_has_to_help_at_equal_settings_at_both_levels(means: tuple[float, float], helps: bool) -> None:
    assert answer(differences(one=(1, 1)), differences(one=means, two=means)).at_equal_settings is helps


def test_that_scatter_leaves_it_undecided_and_intervals_are_those_of_two_comparisons() -> None:
    random = np.random.default_rng(0)
    values = {noise: {name: list(0.8 + random.normal(size=8)) for name in "ab"} for noise in DECIDING}
    found = answer(values, values)
    assert found.verdict == "undecided" and not found.at_equal_settings
    for noise, comparison in found.against_remedy.items():
        pooled = np.mean([values[noise]["a"], values[noise]["b"]], axis=0)
        reference = scipy.stats.ttest_1samp(pooled, 0).confidence_interval(1 - 0.05 / 2)
        assert (comparison.simultaneous.low, comparison.simultaneous.high) == pytest.approx(tuple(reference))


# -- the study -------------------------------------------------------------------------------------------------------


def by_method(gain: float) -> Callable[[Run], Row]:
    """Make rows in which the ascent is better by some points, and seeds differ a little."""

    def row(run: Run) -> Row:
        better = gain / 100 if run.method == ASCENT else 0.0
        scatter = 0.001 * (run.seed % 2) * (1 if run.method == ASCENT else -1)
        # settings differ a little by their learning rate, so that some are better
        value = 0.6 + better + scatter + 1e-4 * run.lr
        return curved(run, [0.1, 0.1, value, 0.2, 0.2], [0.1, 0.1, 0.9, 0.2, 0.2])

    return row


@pytest.fixture
def trained(monkeypatch, cheap) -> list[Run]:
    runs: list[Run] = []

    def here(wanted, train, results: Results[Row], workers) -> list[Row]:
        found = results.find(wanted)
        for run in wanted:
            if run not in found:
                runs.append(run)
                results.append(train(run))
        found = results.find(wanted)
        return [found[run] for run in wanted]

    monkeypatch.setattr(study, "collect", here)
    monkeypatch.setattr(study, "trainer", lambda directory, workers: by_method(2.0))
    return runs


def test_that_the_study_trains_what_is_missing_and_reports_verdicts(trained, tmp_path) -> None:
    made = ConstrainedStudy("made", "", DESIGN)
    nothing = Results(tmp_path / "rows.jsonl", Row)
    predicted = _missing(DESIGN.cases(["one", "two"]), DESIGN, nothing)
    with pytest.raises(NothingToReport, match="no complete case"):
        made.report(tmp_path)
    made.run(tmp_path, Workers())
    assert len(trained) == len(set(trained)) == len(predicted)
    # and then an ascent on top of the two best settings of RiemannianSGD
    assert len(trained) == BEFORE + 8 * 2 * (len(RHOS) * 2 + 3)
    assert "RSAM is the one that ascends from the whole batch in every step." in made.report(tmp_path)
    text = made.report(tmp_path)
    assert text.count("the ascent is better than the best remedy**: 2.0") == 2
    assert text.count("At equal settings it helps: 2.0") == 2
    assert "the ascent adds 2.0" in text
    assert "Preliminary" not in text and text.split("\n\n")[2].startswith("![")
    trained.clear()
    made.run(tmp_path, Workers())
    assert trained == []


def test_that_without_a_deciding_case_there_is_no_verdict_on_its_manifold(trained, tmp_path) -> None:
    made = ConstrainedStudy("made", "", DESIGN)
    made.run(tmp_path, Workers())
    file = tmp_path / "rows.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    text = made.report(tmp_path)
    assert "**Preliminary**: without two, 20 % wrong labels, Stiefel manifolds, ascent on top." in text
    assert text.count("the ascent is better than the best remedy**") == 2
    file.write_text("".join(lines[: BEFORE - 1]))  # the last case is one on Stiefel
    text = made.report(tmp_path)
    assert re.search(r"[*]Preliminary[*][*]: without .*; two, 20 % wrong labels, Stiefel manifolds[.]", text)
    assert "**No verdict yet** on Stiefel manifolds." in text
    assert "**On spheres the ascent is better" in text


def test_that_the_study_skips_data_that_are_missing(directory: Path, trained, capsys) -> None:
    design = replace(DESIGN, datasets={"CIFAR-10": "imagefolder:cifar10"})
    ConstrainedStudy("made", "", design).run(directory / "results", Workers())
    assert "skipped: CIFAR-10" in capsys.readouterr().err
    assert trained == []


def test_that_the_predicted_hours_fit_and_all_cases_are_there(tmp_path: Path) -> None:
    design = STUDIES["constrained"].design
    cases = design.cases([*design.datasets])
    assert len({(c.dataset, c.label_noise, c.kernels) for c in cases}) == 2 * 4 * 2
    assert {c.label_noise for c in cases} == {0, 0.1, 0.2, 0.4}
    nothing = Results(tmp_path / "rows.jsonl", Row)
    predicted = _missing(cases, design, nothing)
    # all that the protocol may need; RSAM's setting without its ascent is seldom one that RiemannianSGD chose itself
    most = 16 * (2 * (16 + 3 * 2) + 5 * 8) + 8 * 2 * (4 * 3 + 8)
    assert 0.98 * most < len(predicted) <= most
    # stand-ins choose twice the epochs more often than real networks did
    assert 4 < sum(map(_seconds, predicted)) / 3600 < 5.5


def test_that_a_factor_at_its_lower_end_is_named_and_decay_there_is_not() -> None:
    setting = DESIGN.settings(CASE)[BASE][0]
    assert DESIGN.ends(replace(setting, lr=0.03, kernel_rate=1.0, weight_decay=5e-4)) == ["kernel rate"]


def test_that_the_report_says_which_ascent_it_is(trained, tmp_path) -> None:
    cheap = ConstrainedStudy("made", "", replace(DESIGN, recommended={"part": 0.25, "every": 2}))
    cheap.run(tmp_path, Workers())
    assert "RSAM is the one with `part=0.25`, `every=2`." in cheap.report(tmp_path)


@pytest.mark.parametrize(("asked", "warned"), [("quarter_every2", False), ("eighth", True), ("whole", True)])
def test_that_the_report_warns_of_an_ascent_that_was_not_asked_for(asked, warned, trained, tmp_path, monkeypatch):
    directories = []

    def recommended(self, directory: Path) -> Variant:
        directories.append(directory)
        return find("spheres", asked)

    monkeypatch.setattr(CheapStudy, "recommended", recommended)
    cheap = ConstrainedStudy("made", "", replace(DESIGN, recommended={"part": 0.25, "every": 2}))
    cheap.run(tmp_path / "constrained", Workers())
    assert ("**Not by the rules**" in cheap.report(tmp_path / "constrained")) is warned
    assert directories == [tmp_path / "cheap"]


def test_that_the_rules_say_what_is_computed() -> None:
    text, design = " ".join(RULES.split()), Design()
    assert f"tried at {TRIALS} settings" in text and f"lies above {ASKED} points" in text
    assert ASKED == 0.5 and DECIDING == (0.1, 0.2)
    assert (len(design.protocol.final), design.protocol.kept, len(design.protocol.second)) == (8, 3, 2)
    assert "best three with two more" in text and "Eight other seeds" in text and "The two best settings" in text
    assert design.protocol.best == 2 and design.examples == 2000
