"""That settings are drawn alike for all methods, and that ranges are widened as the rule says."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.run import Knob, Row, Run
from benchmarks.studies.comparison.cases import Case, Contestant, Grid
from benchmarks.studies.comparison.contest import compete, count, outstanding
from benchmarks.studies.comparison.sampling import Range, Sample
from benchmarks.studies.comparison.tuning import Protocol
from tests.benchmarks.entries import Recorder, made_row
from tests.benchmarks.fakes import Nothing

RUN = Run(Nothing(), "sgd", 0, 0.0, 2)  # type: ignore[arg-type]
LR = Range(Knob.LR, 0.001, 0.1)
DECAY = Range(Knob.WEIGHT_DECAY, 5e-4, 0.1, natural=True)
RHO = Range(Knob.RHO, 0.0125, 0.8, natural=True)
RATE = Range(Knob.KERNEL_RATE, 1.0, 10.0)


def values(sample: Sample, knob: Knob) -> list[float]:
    return [knob.of(run) for run in sample.settings(RUN)]


def test_that_settings_fill_each_range_evenly_in_the_logarithm() -> None:
    sample = Sample.of(LR, DECAY, RATE, RHO)
    for one in (LR, DECAY, RATE, RHO):
        logs = np.log(values(sample, one.knob))
        edges = np.linspace(math.log(one.low) - 1e-2, math.log(one.high) + 1e-2, 9)
        # Sobol points put equally many into each eighth; three digits may move one over an edge
        assert np.abs(np.histogram(logs, edges)[0] - 4).max() <= 1
    assert len(set(sample.settings(RUN))) == 32
    # the columns are independent: 32 random pairs correlate by less than 0.5
    pairs = np.log([values(sample, knob) for knob in sample.knobs])
    assert np.abs(np.corrcoef(pairs) - np.eye(4)).max() < 0.5


def test_that_methods_that_share_a_knob_share_its_values() -> None:
    plain, ascent = Sample.of(LR, DECAY), Sample.of(LR, DECAY, RATE, RHO)
    for knob in plain.knobs:
        assert values(plain, knob) == values(ascent, knob)
    assert values(plain, Knob.RHO) == [0.0] * 32 and values(plain, Knob.KERNEL_RATE) == [1.0] * 32


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        ((0.09, 0.01, 1), [(Knob.LR, True)]),
        ((0.0011, 0.01, 1), [(Knob.LR, False)]),
        ((0.01, 5.1e-4, 1), []),  # towards no decay the end is natural
        ((0.01, 0.095, 1), [(Knob.WEIGHT_DECAY, True)]),
        ((0.074, 0.01, 1), []),  # 0.1 ** (1 + 1 / 8) = 0.075
        ((0.0011, 0.095, 1), [(Knob.LR, False), (Knob.WEIGHT_DECAY, True)]),
    ],
)
def test_that_an_end_is_the_last_sixteenth_of_a_range_unless_it_is_natural(value, ends) -> None:
    lr, decay, _ = value
    assert Sample.of(LR, DECAY).ends(replace(RUN, lr=lr, weight_decay=decay)) == ends


def test_that_a_widened_range_keeps_its_settings_and_adds_as_dense_ones_beyond_its_end() -> None:
    sample = Sample.of(LR, DECAY)
    wide = sample.widened(Knob.LR, upper=True)
    old, new = wide.settings(RUN)[:32], wide.settings(RUN)[32:]
    assert old == sample.settings(RUN)
    assert len(new) == 8  # a quarter of the length, a quarter of the settings
    assert all(0.1 <= run.lr <= 0.1 * math.sqrt(10) * 1.01 for run in new)  # a quarter of two decades
    assert max(run.weight_decay for run in new) > 0.02 and min(run.weight_decay for run in new) < 0.002
    again = wide.widened(Knob.LR, upper=True).widened(Knob.LR, upper=False)
    assert again.settings(RUN)[:40] == wide.settings(RUN)
    low, high = next((r.low, r.high) for r in again.ranges if r.knob is Knob.LR)
    assert (low, high) == pytest.approx((0.001 / math.sqrt(10), 1.0), rel=1e-2)
    assert all(run.lr >= 0.316 for run in again.settings(RUN)[40:48])


# ---- in a contest

PROTOCOL = Protocol(first=(100,), kept=4, second=(101,), final=(0, 1), best=3, rounds=2)
SAMPLED = (
    Contestant("sgd", "SGD", "sgd", Sample.of(LR, DECAY, number=16)),
    Contestant("sam", "SAM", "sam", Sample.of(LR, DECAY, RHO, number=16)),
    Contestant("adamw", "AdamW", "adamw", Sample.of(replace(LR, low=1e-5, high=1e-3), DECAY, number=16)),
)
CASE = Case("made", "made up", RUN, SAMPLED)


def likes_large_rates(limit: float):
    """Score runs by their learning rate, up to a limit; AdamW likes middling ones."""

    def row(run: Run) -> Row:
        score = -abs(math.log(run.lr / (1e-4 if run.method == "adamw" else limit)))
        return made_row(run, accuracy=1 + score / 20)

    return row


def test_that_a_range_is_widened_for_all_that_share_it_and_old_runs_stay() -> None:
    once = replace(PROTOCOL, rounds=1)
    # the second contestant shares both ranges with the first, the third one of them
    case = replace(CASE, contestants=(SAMPLED[0], replace(SAMPLED[0], name="sam", method="sam"), SAMPLED[2]))
    narrow, wide = Recorder(likes_large_rates(0.01)), Recorder(likes_large_rates(0.25))
    assert all(e.contestant in case.contestants for e in compete(case, narrow, once))
    entries = compete(case, wide, once)
    tuned = {run for run in wide.runs if run.heldout == "validation"}
    assert set(narrow.calls[0]) <= tuned
    counts = Counter(run.method for run in tuned if run.seed == 100)
    assert (counts["sgd"], counts["sam"], counts["adamw"]) == (20, 20, 16)
    best = {e.name: e.rows[0].run.lr for e in entries if e.rank == 0}
    assert best["sgd"] > 0.1 and best["sam"] > 0.1
    again = Recorder(likes_large_rates(0.25))
    compete(case, again, replace(PROTOCOL, rounds=0))
    assert max(run.lr for run in again.runs) <= 0.1


def test_that_the_best_settings_are_trained_in_their_order() -> None:
    entries = compete(CASE, Recorder(likes_large_rates(0.01)), PROTOCOL)
    for name in ("sgd", "sam", "adamw"):
        of_name = [e for e in entries if e.name == name]
        assert [e.rank for e in of_name] == [0, 1, 2]
        scores = of_name[0].tuned.scores
        settings = [replace(e.rows[0].run, seed=0, heldout="test") for e in of_name]
        assert [scores[s] for s in settings] == sorted(scores.values(), reverse=True)[:3]
        assert all([row.run.seed for row in e.rows] == [0, 1] for e in of_name)
        assert len(of_name[0].tuned.by_seed[settings[0]]) == 2


def test_that_runs_ahead_are_as_many_as_will_be_made() -> None:
    rows: dict[Run, Row] = {}

    def find(runs):
        return {run: rows[run] for run in runs if run in rows}

    ahead = outstanding(CASE, find, PROTOCOL)
    assert len(ahead) == count([CASE], PROTOCOL) == 3 * (16 + 4) + 3 * 3 * 2
    assert Counter(run.method for run in ahead) == dict.fromkeys(("sgd", "sam", "adamw"), 16 + 4 + 3 * 2)
    collect = Recorder(likes_large_rates(0.25))
    compete(CASE, collect, PROTOCOL)
    made = collect.runs
    rows.update({run: likes_large_rates(0.25)(run) for run in made[:48]})
    # the first seeds are there; that a range will be widened shows with the second ones
    assert len(outstanding(CASE, find, PROTOCOL)) == len(ahead) - 48
    rows.update({run: likes_large_rates(0.25)(run) for run in made if run.heldout == "validation"})
    assert set(outstanding(CASE, find, PROTOCOL)) == {run for run in made if run.heldout == "test"}


def test_that_contestants_must_have_equally_many_settings_before_ranges_are_widened() -> None:
    uneven = replace(CASE, contestants=(SAMPLED[0], replace(SAMPLED[1], grid=Grid(Knob.RHO, (0.1,), (0.2,)))))
    with pytest.raises(ValueError, match="different sizes"):
        compete(uneven, Recorder(), PROTOCOL)


def test_that_more_best_settings_than_are_kept_are_refused() -> None:
    with pytest.raises(ValueError, match="best must be at most kept, 2, got 3"):
        Protocol(kept=2, best=3)
