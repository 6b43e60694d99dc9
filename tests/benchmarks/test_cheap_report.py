"""The verdict on cheap ascents, what is recommended, and the report."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.run import Row, Run
from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.studies import STUDIES, NothingToReport
from benchmarks.studies.cheap import study
from benchmarks.studies.cheap.alignment import Cosines
from benchmarks.studies.cheap.budget import outstanding, predict
from benchmarks.studies.cheap.contest import Case, Plan
from benchmarks.studies.cheap.findings import Findings
from benchmarks.studies.cheap.report import recommendation, report, verdicts
from benchmarks.studies.cheap.rules import MARGIN, MOST_EVALUATIONS, RULES, judge, recommended
from benchmarks.studies.cheap.settings import LABELS, cases_from, from_fair
from benchmarks.studies.cheap.study import CheapStudy
from benchmarks.studies.cheap.timing import Times
from benchmarks.studies.cheap.variants import TWICE, VARIANTS, find
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.tuning import Protocol, Tuned
from benchmarks.studies.fair import FAIR
from benchmarks.workloads.samples import Samples
from tests.benchmarks.made_cheap import PLAN, SPHERES, made, made_case, made_times, play, variant_of

# -- rules -----------------------------------------------------------------------------------------------------------


def spread(mean: float) -> list[float]:
    """Make five differences of this mean and a deviation of 0.1.

    One-sided bounds are 2.132 * 0.1 / sqrt(5) = 0.095 away, ends of 95 % intervals 2.776 * 0.1 / sqrt(5) = 0.124.
    """
    return [mean + 0.1 * x for x in (-math.sqrt(2), 0, 0, 0, math.sqrt(2))]


@pytest.mark.parametrize(
    ("chosen", "gain", "evaluations", "outcome"),
    [
        (-0.1, 1.0, 1.125, "holds"),
        (-0.2, 0.13, 1.15, "holds"),
        (-0.1, 1.0, 1.16, "does not hold"),
        (-0.25, 1.0, 1.125, "undecided"),
        (-0.35, 1.0, 1.125, "undecided"),
        (-0.5, 1.0, 1.125, "does not hold"),
        (0.5, 0.11, 1.125, "nothing to keep"),
        (-0.5, -1.0, 1.125, "nothing to keep"),
    ],
)
def test_that_the_rule_judges(chosen: float, gain: float, evaluations: float, outcome: str) -> None:
    assert judge(spread(chosen), spread(gain), [1.0, evaluations, 1.1]).outcome == outcome


def test_that_the_numbers_of_the_rule_are_those_in_its_text() -> None:
    text = " ".join(RULES.split())
    assert f"against a loss of {MARGIN} points" in text
    assert f"at most {MOST_EVALUATIONS} in every case" in text
    assert (MARGIN, MOST_EVALUATIONS) == (0.3, 1.15)


def test_that_only_what_holds_is_recommended() -> None:
    outcomes = {"holds": "chosen", "nothing to keep": "base", "undecided": "whole", "does not hold": "whole"}
    assert {outcome: recommended(outcome) for outcome in outcomes} == outcomes


# -- findings --------------------------------------------------------------------------------------------------------

#: Points that variants gain on that without an ascent.
GAINS = {"whole": 3.0, "quarter_every2": 2.95, "eighth": 2.0, "quarter": 2.9, "momentum": 0.5}


def findings_of(gains: Mapping[str, float] = GAINS, best: Callable[[Run], float] = lambda run: 0.0) -> Findings:
    """Make findings from gains, the same on validation and test data, with a little noise by seed and variant."""

    def row(run: Run) -> Row:
        noise = (int(run.key, 16) % 7 - 3) / 100
        return made(run, 0.5 + (gains.get(variant_of(run).name, 0.0) + noise + best(run)) / 100)

    contest, _ = play(row, [made_case("one"), made_case("two", label_noise=0.4)])
    return made_times(contest)


def test_that_a_variant_that_loses_nothing_is_recommended_with_its_rho() -> None:
    # best at the lowest rho for the whole batch, at the highest for the variant
    found = findings_of(best=lambda run: run.rho if run.every > 1 else -run.rho)
    assert found.contest.choice.variant.name == "quarter_every2"
    assert found.verdict.outcome == "holds"
    assert found.verdict.evaluations == pytest.approx(1.125)
    assert found.rho_factor(found.recommended) == pytest.approx(4)
    said = recommendation(found)
    assert "`every=2` and `partial_closures(..., fraction=0.25)`" in said
    assert "with 4.0 times the rho of an ascent from the whole batch" in said and "0.4 on made up, one" in said
    assert "1.125 gradient evaluations per step and 1.12 times the processor time" in said
    assert ". " not in said and said.endswith(".")  # one sentence


def test_that_rsam_is_recommended_where_the_cheap_one_loses() -> None:
    found = findings_of({**GAINS, "quarter_every2": 2.0, "eighth": 2.2})
    assert (found.contest.choice.variant.name, found.verdict.outcome) == ("eighth", "does not hold")
    assert "an ascent from the whole batch in every step" in recommendation(found)


def test_that_no_ascent_is_recommended_where_it_gains_nothing() -> None:
    found = findings_of({})
    assert found.verdict.outcome == "nothing to keep"
    assert recommendation(found).startswith("**Recommended: no ascent**")
    assert "RSAM is not shown to gain anything" in verdicts(found)[0]


def test_that_a_variant_is_made_of_rsam_by_its_fields() -> None:
    case = made_case()
    whole = case.run(SPHERES, 0.2, 1)
    for v in VARIANTS:
        if v.kernels == "spheres" and v.passes == 1 and v.rho != "none":
            assert replace(whole, **v.fields) == case.run(v, 0.2, 1)
    assert SPHERES.fields == find("spheres", "base").fields == {}


def test_that_costs_are_counted_in_steps_without_an_ascent() -> None:
    found = findings_of()
    for v in VARIANTS:
        planned = 2.0 if v.name == TWICE else v.evaluations
        assert found.mean_evaluations(v) == pytest.approx(planned)
        # in the made times a gradient evaluation takes a step, so that both agree for late ascents, too
        assert found.time(v) == pytest.approx(planned)
    assert Findings(found.contest, {}).time(SPHERES) is None


def test_that_a_network_that_diverged_does_not_make_its_variant_cheap() -> None:
    found = findings_of()
    rows = found.contest.rows["one", SPHERES]
    rows[0] = replace(rows[0], diverged=True, gradients=3.0)
    assert found.mean_evaluations(SPHERES) == pytest.approx(2)


def test_that_the_transfer_of_rho_is_judged_over_cases_and_parts() -> None:
    # a transferred rho is 2 or 2.5 times as large: a point lost for each 0.1 beyond 0.4
    found = findings_of(best=lambda run: -10 * max(0.0, run.rho - 0.4) if run.part < 1 else run.rho)
    assert found.contest.rhos["one", find("spheres", "quarter_transferred")] == pytest.approx(0.8)
    assert found.contest.rhos["one", find("spheres", "eighth_transferred")] == pytest.approx(1.0)
    # 4 and 6 points lost
    assert found.transfer.interval.mean == pytest.approx(-5, abs=0.1)
    assert found.transfer.outcome == "does not hold"
    assert "No.**" in verdicts(found)[1]
    # one that was tuned to the same value loses nothing
    assert findings_of(best=lambda run: -run.rho / 100).transfer.outcome == "holds"


def test_that_the_report_says_all_and_ends_with_what_is_recommended(tmp_path: Path) -> None:
    found = findings_of()
    text = report(found, PLAN, [], "It took an hour.", tmp_path)
    assert (tmp_path / "answer.svg").read_text(encoding="utf-8").count("<svg") == 1
    assert text.startswith("# Cheaper ascents")
    assert "Preliminary" not in text and verdicts(found)[0] in text
    for v in VARIANTS:
        assert f"| {v.label} " in text
    assert RULES.strip() in text
    assert text.endswith(recommendation(found))
    # 2.95 - 3 = -0.05, but for noise of at most 0.03 on each
    row = re.search(r"\| quarter, every 2nd step +\|(.*)", text)
    assert row is not None
    difference = float(row[1].split("|")[4].split("±")[0])
    assert difference == pytest.approx(-0.05, abs=0.06)


def test_that_there_is_no_verdict_while_a_case_is_missing(tmp_path: Path) -> None:
    # of the cases that are there the verdict would be yes
    found = findings_of(best=lambda run: run.rho if run.every > 1 else -run.rho)
    text = report(found, PLAN, ["MNIST-1D"], "It took an hour.", tmp_path)
    assert "**Preliminary**: without MNIST-1D." in text
    assert text.count("**No verdict yet**, and nothing is recommended") == 2
    assert "? Yes" not in text and "**Recommended: " not in text
    assert "While one of the cases is missing there is no verdict" in RULES


# -- the study -------------------------------------------------------------------------------------------------------


NO_DATA = Samples("made up")


def asked_cases() -> list[Case]:
    """Make the cases of the study as they are with some settings."""
    cases = []
    for case in (case for case in FAIR.cases if case.name in LABELS):
        run, settings = replace(case.template, lr=0.03, rho=0.1), {}
        for kernels in ("spheres", "plain"):
            settings[kernels] = replace(run, workload=replace(run.workload, kernels=kernels))  # type: ignore[type-var]
        cases.append(Case(case.name, case.label, settings))  # type: ignore[arg-type]
    return cases


def results(directory: Path) -> tuple[Results[Row], Results[Cosines], Results[Times]]:
    kinds = {"rows": Row, "cosines": Cosines, "times": Times}
    return tuple(Results(directory / f"{name}.jsonl", kind) for name, kind in kinds.items())  # type: ignore[return-value]


def test_that_the_study_fits_its_budget(tmp_path: Path) -> None:
    assert sum(predict(asked_cases(), Plan(), *results(tmp_path))) / 3600 < 4
    assert len(asked_cases()) == 3


def test_that_what_is_there_is_not_predicted(tmp_path: Path) -> None:
    (rows, cosines, times), case = results(tmp_path), made_case()
    before = outstanding([case], PLAN, rows, cosines)
    tuned = [v for v in VARIANTS if v.rho == "tuned"]
    # three values of rho and a second seed; one network for cosines; five candidates and the whole batch; then 17
    # variants on spheres, 17 on plain weights, and as many seeds more of two as there may be
    assert len(before) == 4 * len(tuned) + 1 + 3 * 6 + 3 * 17 + 2 * 17 + 3 * 3
    for run in before[: 3 * len(tuned)]:
        rows.append(made(run, 0.5))
    assert outstanding([case], PLAN, rows, cosines)[0].seed == 101
    for row in made_times(play(lambda run: made(run, 0.5))[0]).times.values():
        times.append(row)
    assert len(predict([case], PLAN, rows, cosines, times)) == len(outstanding([case], PLAN, rows, cosines))


def test_that_settings_are_those_that_fair_chose_for_rsam_on_spheres_and_for_sam(tmp_path: Path) -> None:
    fair = {case.name: case for case in FAIR.cases}
    contests = []
    for name in ("cifar10", "mnist1d"):
        case, entries = fair[name], []
        for lr, (who, rank) in enumerate(
            [("rsam_stiefel", 0), ("rsam_angle", 0), ("rsam", 0), ("rsam", 1), ("sam", 0), ("asam", 0)], start=1
        ):
            (contestant,) = (c for c in case.contestants if c.name == who)
            setting = case.adopt(contestant, replace(case.template, method=contestant.method, lr=lr, kernel_rate=3.0))
            entries.append(Entry(case, contestant, Tuned(setting, 0.0, {}, ()), [], rank))
        contests.append(entries)
    found = cases_from(contests)
    assert [case.name for case in found] == ["cifar10", "mnist1d"]
    for case in found:
        assert {kernels: setting.lr for kernels, setting in case.settings.items()} == {"spheres": 3, "plain": 5}
        assert case.settings["spheres"].workload.kernels == "spheres"  # type: ignore[attr-defined]
        assert case.settings["plain"].workload.kernels == "plain"  # type: ignore[attr-defined]
        assert case.run(SPHERES, 0.2, 1).kernel_rate == 3.0
    assert from_fair(tmp_path / "cheap") == []  # nothing is there
    assert list(LABELS) == ["cifar10", "fashion_mnist_noise20", "mnist1d"]


def test_that_without_settings_the_study_says_so_and_does_not_run(tmp_path: Path, capsys) -> None:
    waiting = CheapStudy("cheap", "", {"Digits": Samples("digits")}, lambda directory: [])
    waiting.run(tmp_path, Workers())
    assert "Digits" in (said := capsys.readouterr().err) and "fair" in said
    # nor on the case whose settings are known: a variant is chosen over all of them
    one = made_case()
    data = {one.label: one.settings["spheres"].workload, "Digits": Samples("digits")}
    replace(waiting, asked=data, settings=lambda directory: [one]).run(tmp_path, Workers())
    assert "nothing is trained: Digits" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(NothingToReport):
        waiting.report(tmp_path)


def test_that_the_quick_study_asks_for_no_other_study_and_is_short(tmp_path: Path) -> None:
    quick = STUDIES["cheap"].quick()
    assert isinstance(quick, CheapStudy)
    cases = quick.settings(tmp_path)
    assert sum(predict(cases, quick.plan, *results(tmp_path))) < 240  # on one core


def test_that_the_study_trains_measures_and_reports(tmp_path: Path, monkeypatch) -> None:
    def collected(runs, make, results, workers):
        found = results.find(runs)
        for run in runs:
            if run not in found:
                results.append(make(run))
        return [results.find(runs)[run] for run in runs]

    monkeypatch.setattr(study, "collect", collected)
    monkeypatch.setattr(study, "present", lambda label, *_: label != "another")
    monkeypatch.setattr(study, "trainer", lambda *_: lambda run: made(run, 0.5 + int(run.key, 16) % 50 / 100))
    monkeypatch.setattr(study, "measure_alignment", lambda a: Cosines(a, [[0.5, 0.4]], 0.0))
    monkeypatch.setattr(study, "measure_times", lambda t: Times(t, [1.0] * len(t.runs), 1.0, 0.0))
    plan = Plan((1.0,), Protocol((100,), 1, (), final=()), (200, 201), shown=2, plain=2, most=2)
    asked = dict.fromkeys(("made up, made", "another"), NO_DATA)
    small = CheapStudy("cheap", "", asked, lambda directory: [made_case()], plan)
    with pytest.raises(NothingToReport):
        small.report(tmp_path)
    small.run(tmp_path, Workers())
    text = small.report(tmp_path)
    assert "**Preliminary**: without another." in text
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "cosines.jsonl", "times.jsonl", "answer.svg"}
    before = (tmp_path / "rows.jsonl").read_bytes()
    small.run(tmp_path, Workers())  # nothing is trained twice
    assert (tmp_path / "rows.jsonl").read_bytes() == before
    # of all that was asked for
    assert small.recommended(tmp_path) is None
    alone = replace(small, asked={"made up, made": NO_DATA})
    variant = alone.recommended(tmp_path)
    assert variant is not None and f"**Recommended: {variant.call}" in alone.report(tmp_path)


def test_that_the_report_is_on_the_cases_that_ran_together(tmp_path: Path) -> None:
    cases = [made_case("one"), made_case("two", label_noise=0.4), made_case("three", label_noise=0.1)]
    rows, cosines, _ = results(tmp_path)

    def row(run: Run) -> Row:
        """Make rows by which each case by itself would choose a variant of its own, with more seeds than it has."""
        best = {0.0: "eighth", 0.4: "momentum"}[run.workload.label_noise]  # type: ignore[attr-defined]
        gain = {best: 4.0 + run.seed % 3, "quarter_every2": 3.5}.get(variant_of(run).name, 0.0)
        return made(run, 0.5 + gain / 100)

    contest, recorder = play(row, cases[:2])
    assert contest.choice.variant.name == "quarter_every2"
    for run in dict.fromkeys(recorder.runs):
        rows.append(row(run))
    for one in contest.cosines.values():
        cosines.append(one)
    together = CheapStudy("cheap", "", dict.fromkeys([c.label for c in cases], NO_DATA), lambda directory: cases, PLAN)
    text = together.report(tmp_path)
    assert "without made up, three." in text
    assert "| quarter, every 2nd step, chosen " in text
