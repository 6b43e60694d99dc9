"""The verdicts and the report of the population, on made-up networks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import rsam
from benchmarks.report.intervals import Interval
from benchmarks.studies.population.claims import (
    Carried,
    carried_over,
    curvature_and_outcome,
    early_share,
    given_the_loss,
    partial_r2,
    predicted,
    primary,
    usable,
)
from benchmarks.studies.population.design import Design, Member, members
from benchmarks.studies.population.features import (
    BASELINES,
    FEATURES,
    at_end,
    at_fraction,
    at_level,
    at_matched_level,
    matched_level,
    matrix,
    of_length,
)
from benchmarks.studies.population.figures import draw_times
from benchmarks.studies.population.measurement import LAYERS, STATISTICS, Checkpoint
from benchmarks.studies.population.ranks import Correlation
from benchmarks.studies.population.report import report
from benchmarks.studies.population.rules import RULES
from benchmarks.studies.population.tables import CURVATURES, axes, carried, correlations, joint_parts, prediction
from benchmarks.studies.population.training import Trajectory
from benchmarks.studies.population.verdicts import (
    findings,
    judge_added,
    judge_c1,
    judge_c2,
    judge_c3,
    judge_c4,
    verdicts,
)

Gap = Callable[[dict[str, list[float | None]], float], float]


def _checkpoint(random: np.random.Generator, fraction: float, gap: Gap, levels: tuple[float, ...]) -> Checkpoint:
    margins: dict[str, list[float | None]] = {
        layer: list(random.normal(size=len(STATISTICS))) for layer in (*LAYERS, "constrained")
    }
    loss = random.uniform(0.1, 0.5)
    accuracy = 1 - loss / 2 + 0.01 * random.normal()
    scores = {"train_loss": loss, "train_accuracy": accuracy, "test_loss": 1.0}
    scores["test_accuracy"] = accuracy - gap(margins, loss) / 100
    others = ("norm", "distance", "log_path", "log_spectral", "loss_sum", "kv_input", "kv_last")
    names = (*others, "mixup_accuracy", "mixup_loss", "moved_accuracy", "moved_loss", "confidence")
    numbers: dict[str, float | None] = {name: random.uniform(1, 2) for name in names}
    # curvature that ranks by test error
    curvature: dict[str, float | None] = {name: 1 - scores["test_accuracy"] for name in CURVATURES}
    predictions = "".join(map(str, random.integers(0, 10, 20)))
    return Checkpoint(fraction, levels, scores, margins, numbers, curvature, predictions)


def _population(gap: Gap, early: Gap | None = None, bases: int = 60) -> dict[Member, Trajectory]:
    """Make networks whose gaps are functions of their margins and loss, early in training by another function."""
    random = np.random.default_rng(0)
    found = {}
    for member in members(Design("mnist1d", bases=bases)):
        checkpoints = [_checkpoint(random, 0.2, early or gap, (1.0,)), _checkpoint(random, 1.0, gap, (0.3,))]
        found[member] = Trajectory(None, False, checkpoints, [], 1.0, 1.0, "cpu", "2")  # type: ignore[arg-type]
    return found


def _by_margins(margins: dict[str, list[float | None]], loss: float) -> float:
    # the logarithm's median at the first block
    return 20 + 5 * (margins["first"][STATISTICS.index("log median")] or 0.0)


def test_that_margins_that_decide_the_gap_are_found_to() -> None:
    networks = _population(_by_margins, early=lambda margins, loss: 20 * loss)
    found = findings(networks)
    assert found is not None
    assert found.margins.adjusted.mean == pytest.approx(1)
    assert found.baseline.held_out.high < 0.2
    assert found.added.mean == pytest.approx(1, abs=0.01)
    assert found.early.high < 0.5
    assert found.carried.r2.mean == pytest.approx(1)
    assert found.curvature.average.mean == 1
    text = "\n".join(verdicts({"one": found, "two": found}))
    for claim, verdict in (("C1", "holds"), ("C2", "holds"), ("C3", "does not hold"), ("C4", "holds")):
        assert f"**{claim} {verdict}**" in text
    assert "Whether margins add to loss and accuracy: yes" in text


def test_that_verdicts_stand_beside_what_the_loss_alone_says() -> None:
    found = findings(_population(lambda margins, loss: 60 * loss))
    assert found is not None
    assert found.loss.average.low > 0.9  # the test error is a function of the loss, but for a noise of 0.01
    assert found.early_baseline.mean == pytest.approx(1, abs=0.05)  # early as late
    _, second, _, fourth = verdicts({"one": found, "two": found})
    assert f"loss and accuracy alone {found.early_baseline:.2f}" in second
    assert f"by the training loss alone {found.loss.average:.2f}" in fourth


def _without_margins(networks: dict[Member, Trajectory], count: int) -> None:
    """Make some networks, short ones among them, such whose outputs are constant: without margins and without a gap."""
    for trajectory in [t for m, t in networks.items() if m.axis in ("base", "length")][:count]:
        last = trajectory.checkpoints[-1]
        last.scores.update(train_loss=2.3, train_accuracy=0.1, test_accuracy=0.1)
        for numbers in last.margins.values():
            numbers[:] = [None] * len(numbers)


def test_that_networks_at_chance_are_left_out_beside_the_verdicts() -> None:
    networks = _population(_by_margins)
    at_chance = [t for m, t in networks.items() if m.axis in ("base", "length")][:12]
    for trajectory in at_chance:  # with margins that are far from all others', and a gap of 0
        last = trajectory.checkpoints[-1]
        last.scores.update(train_loss=2.3, train_accuracy=0.1, test_accuracy=0.1)
        last.margins["first"] = [100.0] * len(STATISTICS)
    everyone, learned = findings(networks), findings(networks, learned=True)
    assert everyone is not None and learned is not None
    assert everyone.margins.networks - learned.margins.networks == 12
    assert learned.margins.adjusted.mean == pytest.approx(1) and learned.carried.r2.mean == pytest.approx(1)
    assert everyone.margins.adjusted.mean < 0.9 and everyone.carried.r2.mean < 0.9


def test_that_baselines_are_asked_about_the_networks_with_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    networks = _population(_by_margins, bases=20)
    _without_margins(networks, 4)
    found = findings(networks)
    assert found is not None
    assert found.margins.networks == found.baseline.networks == len(networks) - 4
    assert (found.carried.fitted, found.carried.others) == (
        found.carried_baseline.fitted,
        found.carried_baseline.others,
    )
    header, _, *rows = prediction(networks).splitlines()
    assert header.split("|")[2].strip() == "networks"
    counts = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in rows}
    assert counts["margins"] == counts["loss and accuracy"] == str(len(networks) - 4)
    assert int(counts["disagreement of twins"]) < len(networks) - 4


def test_that_the_baseline_is_drawn_for_the_networks_that_have_margins(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = _population(_by_margins, bases=3)
    _without_margins(networks, 4)
    asked: dict[str, list[int]] = {"margins": [], "loss and accuracy": []}
    monkeypatch.setattr(
        "benchmarks.studies.population.figures.predicted", lambda points, name: asked[name].append(len(points))
    )
    draw_times({"made up": networks}, tmp_path / "times.svg")
    assert asked["margins"] == asked["loss and accuracy"]
    assert asked["margins"][-1] == len(usable(of_length(at_end(networks), "full"), "margins"))


def test_that_what_is_carried_over_stands_beside_the_baseline_on_the_same_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    monkeypatch.setattr("benchmarks.studies.population.tables._CARRIED", [("margins at loss 0.3",)])
    networks = _population(_by_margins, bases=20)
    short = [m for m in networks if m.hyperparameters["length"] == "quarter"]
    for member in short[:3]:  # they never reach 0.3
        networks[member].checkpoints[-1] = replace(networks[member].checkpoints[-1], levels=())
    (row,) = [[cell.strip() for cell in row.split("|")] for row in carried(networks).splitlines()[2:]]
    full, brief = (usable(of_length(at_end(networks), n), "margins at loss 0.3") for n in ("full", "quarter"))
    found = carried_over(full, brief, "loss and accuracy")
    assert found is not None
    assert row[2:7] == [str(len(short) - 3), "1.00 ± 0.00", "0.0 ± 0.0", row[5], f"{found.r2:.2f}"]


def test_that_margins_that_only_follow_the_loss_add_nothing() -> None:
    random = np.random.default_rng(2)
    networks = _population(lambda margins, loss: 40 * loss + random.normal())
    added = partial_r2(at_end(networks), ["margins"], ["loss and accuracy"])
    assert added is not None and added.low < 0
    found = predicted(at_end(networks), "loss and accuracy")
    assert found is not None and found.held_out.mean > 0.9


def test_that_gaps_at_random_are_not_predicted() -> None:
    random = np.random.default_rng(1)
    networks = _population(lambda margins, loss: 20 + random.normal())
    for name in ("margins", "margins, relative", "constrained margins", "loss and accuracy"):
        found = predicted(at_end(networks), name)
        assert found is not None and found.held_out.mean < 0.05
        inside = predicted(at_end(networks), name, within=True)
        assert inside is not None and inside.held_out.mean < 0.05


def test_that_a_bias_of_short_networks_is_found() -> None:
    networks = _population(_by_margins)
    for member, trajectory in networks.items():
        if member.hyperparameters["length"] == "quarter":
            trajectory.checkpoints[-1].scores["test_accuracy"] += 0.07
    full, short = (of_length(at_end(networks), n) for n in ("full", "quarter"))
    found = carried_over(full, short, "margins")
    assert found is not None and found.bias.mean == pytest.approx(7) and found.error.mean == pytest.approx(7)
    share = early_share(at_fraction(networks, 0.2), at_end(networks), "margins")
    assert share is not None


def test_that_every_set_of_features_has_numbers() -> None:
    points = at_level(_population(_by_margins, bases=3), 0.3)
    twins = {p.member.values for p in points if "seed" in p.member.axis}
    for name in (*FEATURES, *BASELINES):
        numbers = matrix(points, name)
        assert len(numbers) == len(points)
        wanted = [name != "disagreement of twins" or p.member.values in twins for p in points]
        assert np.array_equal(np.isfinite(numbers).all(1), wanted)


def test_that_disagreement_guesses_the_test_error() -> None:
    networks = _population(_by_margins, bases=1)
    predictions = {"base": "0123", "seed": "0129", "length": "0000"}
    found = {
        member: replace(trajectory, checkpoints=[replace(trajectory.checkpoints[-1], predictions=predictions[axis])])
        for member, trajectory in networks.items()
        if (axis := member.axis) in predictions
    }
    base = next(point for point in at_end(found) if point.member.axis == "base")
    accuracy = base.checkpoint.scores["train_accuracy"]
    # one of four differs from the twin's; on average over both relatives, two of four
    assert matrix([base], "disagreement of twins")[0, 0] == pytest.approx(accuracy - 3 / 4)
    assert matrix([base], "disagreement of relatives")[0, 0] == pytest.approx(accuracy - 2 / 4)


def test_that_margins_at_a_loss_do_not_look_ahead() -> None:
    networks = _population(_by_margins, bases=2)
    early, late = at_fraction(networks, 0.2), at_end(networks)
    assert np.isnan(matrix(early, "margins at loss 0.3")).all()  # which falls below that later
    assert np.array_equal(matrix(early, "margins at loss 1.0"), matrix(early, "margins"))
    assert np.array_equal(matrix(late, "margins at loss 1.0"), matrix(early, "margins"))


def test_that_networks_meet_at_the_lowest_loss_that_half_of_them_reach() -> None:
    networks = _population(_by_margins, bases=4)  # all fall below 1, and below 0.3
    assert matched_level(networks) == 0.3
    few = dict.fromkeys(list(networks)[: len(networks) // 2 + 1])
    for member in few:
        last = networks[member].checkpoints[-1]
        networks[member].checkpoints[-1] = replace(last, levels=())
    assert matched_level(networks) == 1.0
    assert len(at_matched_level(networks)) == len(networks)


def test_that_output_margins_over_norms_forget_the_scale_of_the_last_layer() -> None:
    points = at_end(_population(_by_margins, bases=1))
    names = ("output margins over spectral norms", "output margins over path norm")
    before = matrix(points, *names)
    for point in points:  # logits twice as large, by weights twice as large
        logarithms = slice(STATISTICS.index("log Q1"), STATISTICS.index("log Q3") + 1)
        margins = point.checkpoint.margins["output"]
        margins[logarithms] = [(m or 0.0) + np.log(2) for m in margins[logarithms]]
        for norm in ("log_spectral", "log_path"):
            point.checkpoint.others[norm] = (point.checkpoint.others[norm] or 0.0) + np.log(2)
    np.testing.assert_allclose(matrix(points, *names), before)


def test_that_ranks_forget_scale_and_shift() -> None:
    points = at_end(_population(_by_margins, bases=2))
    ranks = matrix(points, "margins, ranks")
    assert sorted(ranks[:, 0]) == pytest.approx(np.arange(1, len(points) + 1) / len(points))
    for point in points:
        for layer in LAYERS:
            margins = point.checkpoint.margins[layer]
            margins[:] = [3 * (m or 0.0) + 5 for m in margins]
    assert np.array_equal(matrix(points, "margins, ranks"), ranks)


def test_that_a_measure_that_follows_the_loss_says_nothing_beside_it() -> None:
    random = np.random.default_rng(5)
    networks = _population(lambda margins, loss: 60 * loss + random.normal())
    points = at_level(networks, 0.3)
    for point in points:
        point.checkpoint.curvature["euclidean_trace"] = point.checkpoint.scores["train_loss"] + 1e-2 * random.normal()
    plain = curvature_and_outcome(points, "euclidean_trace")
    given = given_the_loss(points, "euclidean_trace")
    assert plain is not None and plain.average.low > 0.5
    assert given is not None and given.average.low < 0 < given.average.high
    # what is not the loss stays
    kept = given_the_loss(points, "riemannian_trace")
    assert kept is not None and kept.average.mean == pytest.approx(1)


def test_that_holms_family_is_all_but_the_primary_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.ranks.SAMPLES", 50)
    families = []

    def holm(p: dict) -> dict:
        families.append(set(p))
        return dict.fromkeys(p, 0.04)

    monkeypatch.setattr("benchmarks.studies.population.tables.holm", holm)
    found = correlations(_population(_by_margins, bases=20))  # all of which reach 1 and 0.3
    [family] = families
    assert len(family) == 2 * 2 * len(CURVATURES) - 1
    assert ("test_error", CURVATURES["riemannian_trace"], 0.3) not in family
    first, *_, last = found["test_error"].splitlines()[2:]
    _, name, at_1, at_03, *_ = [cell.strip() for cell in first.split("|")]
    assert name == CURVATURES["riemannian_trace"] and at_1.endswith("*") and not at_03.endswith("*")
    assert last.startswith("| baseline: ") and "*" not in last


def test_that_axes_are_bounded_by_the_pairs_that_do_not_meet() -> None:
    networks = _population(_by_margins, bases=12)
    lost = [m for m in networks if m.axis == "length" and m.base < 2] + [m for m in networks if m.axis == "dropout"]
    for member in lost:  # they never reach 0.3
        networks[member].checkpoints[-1] = replace(networks[member].checkpoints[-1], levels=())
    rows = {row.split("|")[1].strip(): row.split("|") for row in axes(networks, primary(networks)).splitlines()}
    _, _, met, other, coefficient, bounds, _ = (cell.strip() for cell in rows["length"])
    assert (met, other, coefficient) == ("10", "2", "1.00 ± 0.00")
    assert bounds == "0.67 to 1.00"  # (10 - 2) / 12, and 12 / 12
    _, _, met, other, coefficient, *_ = (cell.strip() for cell in rows["dropout"])
    assert (met, coefficient) == ("0", "left out") and int(other) > 0


def test_that_the_joint_model_says_what_each_adds() -> None:
    rows = joint_parts(_population(lambda margins, loss: _by_margins(margins, loss)))
    shares = [float(share.split(" ")[0]) for _, share in rows]
    # the made-up curvature is a function of the test error; margins are not told how much of it is training error
    assert shares[0] > 0.4 and shares[0] > shares[1]


def _estimate(value: float, reach: float = 0.05) -> Interval:
    return Interval(value, reach)


def test_that_verdicts_follow_their_rules() -> None:
    assert judge_c1([_estimate(0.9), _estimate(0.85)]) == "holds"
    assert judge_c1([_estimate(0.9), _estimate(0.8)]) == "does not hold"
    assert judge_added([_estimate(0.1), _estimate(0.2)]) == "yes"
    assert judge_added([_estimate(0.1), _estimate(0.04)]) == judge_added([_estimate(0.1)]) == "not shown"
    assert judge_c2([_estimate(0.4), _estimate(0.3)]) == "holds"
    assert judge_c2([_estimate(0.4), _estimate(0.6)]) == "does not hold"
    assert judge_c2([_estimate(0.4), _estimate(0.48)]) == "undecided"

    def carried(r2: float, bias: float) -> Carried:
        return Carried(9, 9, _estimate(r2), _estimate(5.0), _estimate(bias, 0.5))

    assert judge_c3([carried(0.2, 0), carried(0.9, -3)]) == "holds"
    assert judge_c3([carried(0.7, 0), carried(0.8, 1)]) == "does not hold"
    assert judge_c3([carried(0.7, 0), carried(0.2, 0)]) == "undecided"

    def correlation(mean: float, axis: float) -> Correlation:
        return Correlation(_estimate(mean), {"width": _estimate(axis)}, {"width": 9}, 0.1)

    assert judge_c4([correlation(0.4, 0.1), correlation(0.3, -0.2)]) == "holds"
    assert judge_c4([correlation(0.4, 0.1), correlation(0.3, -0.4)]) == "undecided"
    assert judge_c4([correlation(0.4, 0.1), correlation(0.1, 0.4)]) == "does not hold"


def test_that_no_claim_holds_on_one_set_alone() -> None:
    good = Carried(9, 9, _estimate(0.9), _estimate(5.0), _estimate(0.0, 0.5))
    assert judge_c1([_estimate(0.9)]) == "undecided"
    assert judge_c1([_estimate(0.5)]) == "does not hold"  # on either
    assert judge_c2([_estimate(0.3)]) == "undecided"
    assert judge_c3([good]) == "undecided"
    assert judge_c3([replace(good, r2=_estimate(0.1))]) == "undecided"
    assert judge_c4([Correlation(_estimate(0.4), {}, {}, 0.1)]) == "undecided"


def test_that_the_report_opens_with_its_picture_and_verdicts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    monkeypatch.setattr("benchmarks.studies.population.ranks.SAMPLES", 50)
    networks = _population(_by_margins, bases=20)
    text = report({"made up": networks}, ["**Preliminary**."], "Nothing.", tmp_path)
    title, question, picture, verdict, *rest = text.split("\n\n")
    assert title.startswith("# ") and question.endswith("?") and picture.endswith("(answer.svg)")
    assert verdict.startswith("- **Preliminary**.\n- **C1 ") and verdict.count("\n- **C") == 4
    for name in re.findall(r"\]\(([^)]+\.svg)\)", text):
        assert (tmp_path / name).exists()
    assert RULES.split("\n")[0] in text
    assert any(part.startswith("| features") for part in rest)


def test_that_networks_with_wrong_labels_are_reported_apart(tmp_path) -> None:
    networks = _population(_by_margins, bases=3)
    _without_margins(networks, 2)
    noisy = {replace(m, label_noise=0.2): t for m, t in networks.items() if m.axis == "base"}
    text = report({"made up": networks}, [], "", tmp_path, wrong_labels={"made up": noisy})
    apart = text.split("## made up, 20% wrong labels")[1].split("\n## ")[0]
    assert f"{len(networks)} networks, of which 0 diverged. 2 of the others have no margins" in text
    assert "3 networks, of which 0 diverged" in apart and "apart from all verdicts" in apart


def test_that_too_few_networks_have_no_verdict(tmp_path) -> None:
    text = report({"made up": _population(_by_margins, bases=2)}, [], "Nothing.", tmp_path)
    assert "Too few networks for verdicts" in text


def test_that_frozen_features_are_read_on_the_set_that_was_held_back(tmp_path) -> None:
    networks = {replace(m, place="fashion_mnist"): t for m, t in _population(_by_margins, bases=20).items()}
    read = partial(report, {"made up": _population(_by_margins, bases=2)}, [], "Nothing.", tmp_path)
    assert "**C3 overcome** by margins, chosen without Fashion-MNIST" in read(["margins"], networks)
    assert "**C3 not overcome** by confidence" in read(["confidence"], networks)
    assert "chosen without" not in read([], networks)
    short = len(of_length(at_end(networks), "quarter"))
    _without_margins(networks, 4)  # two of them short: their gap of 0 would be an easy one for the baseline
    text = read(["margins"], networks)
    assert f"on {short - 2} of its {short} short networks" in text
    full, quarter = (of_length(usable(at_end(networks), "margins"), n) for n in ("full", "quarter"))
    baseline = carried_over(full, quarter, "loss and accuracy", leave_out=False)
    assert baseline is not None and f"accuracy alone {baseline.r2:.2f} and" in text
    few = {member: trajectory for member, trajectory in networks.items() if member.base < 2}
    assert "**C3 not overcome** by margins: too few networks on Fashion-MNIST" in read(["margins"], few)


def test_that_one_fit_for_all_is_that_of_the_gap_model() -> None:
    random = np.random.default_rng(4)
    networks = _population(lambda margins, loss: _by_margins(margins, loss) + random.normal(), bases=20)
    full, short = (of_length(at_end(networks), n) for n in ("full", "quarter"))
    found = carried_over(full, short, "margins", leave_out=False)
    errors = rsam.margins.GapModel().fit(matrix(full, "margins"), [p.gap for p in full]).predict(
        matrix(short, "margins")
    ) - [p.gap for p in short]
    assert found is not None
    assert found.bias.mean == pytest.approx(errors.mean())
    assert found.r2.mean == pytest.approx(1 - (errors**2).sum() / (len(short) * np.var([p.gap for p in short])))
