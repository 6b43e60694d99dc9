"""The stages of the study of cheap ascents: tuning, pilot, choice and final networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import pytest

from benchmarks.run import Row, Run
from benchmarks.studies.cheap.contest import CANDIDATES, choose, differences
from benchmarks.studies.cheap.variants import BASE, TRANSFERRED, TWICE, VARIANTS, find
from tests.benchmarks.made_cheap import EPOCHS, PLAIN, PLAN, SPHERES, made, made_case, play, variant_of


def best_at(rho: float) -> Callable[[Run], Row]:
    """Make rows whose accuracy falls with the distance from a rho."""
    return lambda run: made(run, 0.8 - abs(run.rho - rho) / 10)


def test_that_candidates_are_those_on_spheres_within_the_budget() -> None:
    by_hand = {
        "eighth": 1.125,
        "quarter_every2": 1.125,
        "quarter_every3": 1 + 1 / 12,
        "eighth_every2": 1.0625,
        "momentum": 1,
    }
    assert {v.name: v.evaluations for v in CANDIDATES} == pytest.approx(by_hand)
    assert {v.kernels for v in CANDIDATES} == {"spheres"}


def test_that_variants_have_names_of_their_own() -> None:
    assert (
        len({(v.kernels, v.name) for v in VARIANTS}) == len({(v.kernels, v.label) for v in VARIANTS}) == len(VARIANTS)
    )


def test_that_everything_but_rho_is_taken_over() -> None:
    case = made_case()
    for v in VARIANTS:
        run = case.run(v, 0.3, 7)
        taken = replace(
            run, method="", rho=case.settings[v.kernels].rho, part=1.0, every=1, late=0.0, epochs=EPOCHS, seed=0
        )
        assert taken == case.settings[v.kernels]
        assert (run.seed, run.heldout, run.epochs) == (7, "test", EPOCHS * (2 if v.name == TWICE else 1))
        assert (run.part, run.every, run.late) == (v.part, v.every, v.late)
        assert run.rho == (0.0 if v.name in (BASE, TWICE) else 0.3)


def test_that_rho_is_tuned_around_that_which_was_chosen() -> None:
    contest, recorder = play(best_at(0.4))
    tried = {(variant_of(r), r.rho) for r in recorder.runs if r.seed == 100}
    for v in VARIANTS:
        rhos = sorted(rho for one, rho in tried if one == v)
        assert (
            rhos == pytest.approx([0.1, 0.2, 0.4] if v.kernels == "spheres" else [0.05, 0.1, 0.2]) or v.rho != "tuned"
        )
    assert contest.rhos["made", SPHERES] == pytest.approx(0.4)
    assert contest.rhos["made", PLAIN] == pytest.approx(0.2)
    assert contest.rhos["made", find("spheres", BASE)] == 0
    assert contest.rhos["made", find("plain", "peer_sam")] == contest.rhos["made", PLAIN]


def test_that_a_transferred_rho_is_as_long_along_the_whole_gradient() -> None:
    contest, recorder = play(best_at(0.4))
    for name, cosine in (("quarter_transferred", 0.5), ("eighth_transferred", 0.4)):
        moved = find("spheres", name)
        assert contest.rhos["made", moved] * cosine == pytest.approx(0.4)
        twin = find("spheres", TRANSFERRED[name])
        assert (moved.part, moved.method) == (twin.part, twin.method)
        assert [r.rho for r in recorder.runs if r.seed == 0 and r.part == moved.part].count(0.4 / cosine) == 1


def test_that_nothing_but_final_networks_sees_test_data() -> None:
    _, recorder = play(best_at(0.4))
    for run in recorder.runs:
        assert (run.heldout == "test") == (run.seed < PLAN.most)
        assert run.seed in {100, 101, *PLAN.pilot, *range(PLAN.most)}


def test_that_the_choice_is_the_best_on_validation_over_the_cases() -> None:
    cases = [made_case("one"), made_case("two", label_noise=0.4)]
    # the first is far better in one case, the second is better in the mean
    points = {("eighth", 0.0): 3.0, ("eighth", 0.4): -3.0, ("momentum", 0.0): 0.5, ("momentum", 0.4): 0.7}

    def row(run: Run) -> Row:
        v = variant_of(run)
        gain = points.get((v.name, run.workload.label_noise), 0.0) if v in CANDIDATES else 0.0  # type: ignore[attr-defined]
        return made(run, 0.8 + gain / 100)

    contest, _ = play(row, cases)
    assert contest.choice.variant.name == "momentum"
    assert contest.choice.validation[find("spheres", "momentum")] == pytest.approx(0.6)
    assert contest.choice.validation[find("spheres", "eighth")] == pytest.approx(0)


def test_that_the_cheaper_of_equal_ones_is_chosen() -> None:
    contest, _ = play(lambda run: made(run, 0.8))
    assert contest.choice.variant.name == "momentum"


@pytest.mark.parametrize(("spread", "seeds"), [(0.0, 3), (0.2, 5), (9.0, 6)])
def test_that_the_pilot_s_deviation_plans_the_final_seeds(spread: float, seeds: int) -> None:
    case, chosen = made_case(), find("spheres", "eighth")
    # differences of 1 - spread, 1 and 1 + spread points: their deviation is the spread
    pilot = {
        ("made", v): [
            made(case.run(v, 0.1, s), 0.8 + (1 + spread * i) / 100 * (v == chosen)) for i, s in enumerate(range(3), -1)
        ]
        for v in (SPHERES, *CANDIDATES)
    }
    choice = choose(pilot, ["made"], PLAN)
    assert choice.variant == chosen
    assert choice.deviation == pytest.approx(spread, abs=1e-9)
    assert choice.seeds == seeds
    # the last is ((1.6449 + 0.8416) 9 / 0.3)² with quantiles of the normal distribution, and a little more
    assert choice.needed == {0.0: 2, 0.2: 5, 9.0: 5566}[spread]


def test_that_only_what_is_judged_gets_more_seeds() -> None:
    number = {"made": 0}

    def row(run: Run) -> Row:  # so noisy that the plan asks for as many seeds as it may
        number["made"] += 1
        return made(run, 0.5 + (number["made"] * 7919 % 101) / 300)

    contest, _ = play(row)
    assert contest.choice.seeds == PLAN.most
    for (_, v), rows in contest.rows.items():
        expected = PLAN.shown if v.kernels == "spheres" else PLAN.plain
        judged = v in (find("spheres", BASE), SPHERES, contest.choice.variant)
        expected = PLAN.most if judged else expected
        assert [r.run.seed for r in rows] == list(range(expected))


def test_that_a_network_that_diverged_counts_as_one_that_guesses() -> None:
    case = made_case()
    lost = replace(made(case.run(SPHERES, 0.1, 0), 0.8), diverged=True)  # at good weights, or scored no more
    for row in (lost, replace(lost, scores={})):
        assert differences([row], [made(case.run(SPHERES, 0.1, 0), 0.7)]) == pytest.approx([-60])


def test_that_differences_are_paired_by_seed_in_points() -> None:
    case = made_case()
    one, other = (
        [made(case.run(SPHERES, 0.1, s), a) for s, a in enumerate(of)] for of in ((0.6, 0.7, 0.9), (0.5, 0.8))
    )
    assert differences(one, other) == pytest.approx([10.0, -10.0])
    assert fmean(differences(one, other)) == pytest.approx(0)
    with pytest.raises(AssertionError):
        differences(one[1:], other)
