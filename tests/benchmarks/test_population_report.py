"""The tables and the report of the population, on made-up networks."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks.methods import METHODS
from benchmarks.report.opening import DETAILS
from benchmarks.studies.population.claims import (
    carried_over,
    predicted,
    primary,
    usable,
)
from benchmarks.studies.population.features import (
    FEATURES,
    above_chance,
    at_end,
    of_length,
)
from benchmarks.studies.population.figures import draw_gaps, draw_times
from benchmarks.studies.population.measurement import STATISTICS
from benchmarks.studies.population.report import _of_fitting, report
from benchmarks.studies.population.rules import RULES
from benchmarks.studies.population.tables import (
    CURVATURES,
    axes,
    by_time,
    carried,
    correlations,
    joint_parts,
    prediction,
    reached,
    summary,
)
from benchmarks.studies.population.training import FRACTIONS
from benchmarks.studies.population.verdicts import all_findings, findings
from tests.benchmarks.comparisons import table_of
from tests.benchmarks.made_population import by_margins, population, without_margins


def test_that_baselines_are_asked_about_the_networks_with_margins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    networks = population(by_margins, bases=20)
    without_margins(networks, 4)
    found = findings(networks)
    assert found is not None
    assert found.margins.networks == found.baseline.networks == len(networks) - 4
    assert (found.carried.fitted, found.carried.others) == (
        found.carried_baseline.fitted,
        found.carried_baseline.others,
    )
    for table in prediction(networks).values():
        rows = table_of(table)
        counts = {row["features"]: int(row["networks"]) for row in rows}
        assert counts["margins"] == counts["loss and accuracy"] == len(networks) - 4
        assert counts["confidence"] == len(networks) - 4
        assert f"all: {len(networks) - 4}" in rows[0]


def test_that_tables_leave_out_what_is_nowhere_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    networks = population(by_margins, bases=3)
    for table in [*prediction(networks).values(), *by_time(networks), *carried(networks)]:
        rows = table_of(table)
        assert rows and all(any(list(row.values())[2:]) for row in rows)
        assert all(any(row[column] for row in rows) for column in rows[0])
    ends = at_end(networks)
    unknown = {name for name in FEATURES if not predicted(ends, name) and not predicted(ends, name, within=True)}
    assert "disagreement of twins" in unknown and "confidence" not in unknown
    assert not unknown & {row["features"] for row in table_of(prediction(networks)["k-fold R²"])}


def test_that_the_baseline_is_drawn_for_the_networks_that_have_margins(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = population(by_margins, bases=3)
    without_margins(networks, 4)
    kept = usable(of_length(at_end(networks), "full"), "margins")[0]
    kept.checkpoint.scores["train_accuracy"] = 0.15
    asked: dict[str, list[int]] = {"margins": [], "loss and accuracy": []}
    monkeypatch.setattr(
        "benchmarks.studies.population.figures.predicted", lambda points, name: asked[name].append(len(points))
    )
    draw_times({"made up": networks}, tmp_path / "times.svg")
    assert asked["margins"] == asked["loss and accuracy"]
    with_margins = usable(of_length(at_end(networks), "full"), "margins")
    at_the_end = asked["margins"][len(FRACTIONS) - 1 :: len(FRACTIONS)]  # of all networks, and of those above chance
    assert (
        at_the_end == [len(with_margins), len(above_chance(with_margins))] == [len(with_margins), len(with_margins) - 1]
    )


def test_that_gaps_are_drawn_with_the_r2_of_the_tables(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    random = np.random.default_rng(3)
    networks = population(lambda margins, loss: by_margins(margins, loss) + 5 * random.normal(), bases=20)
    next(t for m, t in networks.items() if m.axis == "length").checkpoints[-1].margins["first"] = [40.0] * len(
        STATISTICS
    )
    texts: list[str] = []
    arrows: list[int] = []

    def keep(figure: Figure, path: Path, **_: object) -> None:
        for panel in figure.axes:
            texts.extend(panel.get_legend_handles_labels()[1])
            arrows.append(sum(len(line.get_xdata()) for line in panel.lines if line.get_marker() != "None"))

    monkeypatch.setattr(Figure, "savefig", keep)
    draw_gaps({"made up": networks}, tmp_path / "gaps.svg")
    found = findings(networks)
    assert found is not None
    assert texts == [f"made up, R² {e.mean:.2f}" for e in (found.margins.held_out, found.carried.r2)]
    assert arrows == [1, 1]  # the network whose margins are far from all others', predicted beyond the axis


def test_that_what_is_carried_over_stands_beside_the_baseline_on_the_same_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    monkeypatch.setattr("benchmarks.studies.population.tables.CARRIED", [("margins at loss 0.3",)])
    networks = population(by_margins, bases=20)
    short = [m for m in networks if m.hyperparameters["length"] == "quarter"]
    for member in short[:3]:  # they never reach 0.3
        networks[member].checkpoints[-1] = replace(networks[member].checkpoints[-1], levels=())
    (row,), (back,) = map(table_of, carried(networks))
    full, brief = (usable(of_length(at_end(networks), n), "margins at loss 0.3") for n in ("full", "quarter"))
    found, reverse = carried_over(full, brief, "loss and accuracy"), carried_over(brief, full, "loss and accuracy")
    assert found is not None and reverse is not None
    assert (row["networks"], row["R²"], row["error"]) == (str(len(short) - 3), "1.00 ± 0.00", "0.0 ± 0.0")
    assert back["networks"] == str(reverse.others)
    for one, baseline in ((row, found), (back, reverse)):
        assert one["R² minus that of loss and accuracy"].split(" ")[0] == f"{1 - baseline.r2.mean:.2f}"


def test_that_networks_are_summarised_by_length_and_counted_by_who_reaches_a_loss() -> None:
    networks = population(by_margins, bases=4)
    short = [m for m in networks if m.hyperparameters["length"] == "quarter"]
    for i, (member, trajectory) in enumerate(networks.items()):
        trajectory.checkpoints[-1].scores.update(train_accuracy=0.99 if i < 3 else 0.5, test_accuracy=0.4)
        if member in short:  # they never reach 0.3
            trajectory.checkpoints[-1] = replace(trajectory.checkpoints[-1], levels=())
    everyone, full, quarter = summary(networks)
    assert everyone == ["all", str(len(networks)), "50.0 to 99.0, median 50.0", "10.0 to 59.0, median 10.0", "3"]
    assert (full[:2], quarter[:2]) == (["full length", f"{len(networks) - len(short)}"], ["a quarter", f"{len(short)}"])
    rows = {row["networks with"]: row for row in table_of(reached(networks))}
    for value, part in (("full", "100"), ("quarter", "0")):
        row = rows[f"length {value}"]
        assert [row[f"{level}, %"] for level in (1.0, 0.3, 0.1)] == ["100", part, "0"]
    of_depth = {d: [m for m in networks if m.hyperparameters["depth"] == d] for d in (3, 4, 5)}
    for depth, members in of_depth.items():
        if members:
            part = 100 * sum(m not in short for m in members) / len(members)
            row = rows[f"depth {depth}"]
            assert (row["number"], row["0.3, %"]) == (str(len(members)), f"{part:.0f}")


def test_that_holms_family_is_all_but_the_primary_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.ranks.SAMPLES", 50)
    families = []

    def holm(p: dict) -> dict:
        families.append(set(p))
        return dict.fromkeys(p, 0.04)

    monkeypatch.setattr("benchmarks.studies.population.tables.holm", holm)
    found = correlations(population(by_margins, bases=20))  # all of which reach 1 and 0.3
    [family] = families
    assert len(family) == 2 * 2 * len(CURVATURES) - 1
    assert ("test_error", CURVATURES["riemannian_trace"], 0.3) not in family
    first, *_, last = found["test_error"].splitlines()[2:]
    _, name, at_1, at_03, *_ = [cell.strip() for cell in first.split("|")]
    assert name == CURVATURES["riemannian_trace"] and at_1.endswith("*") and not at_03.endswith("*")
    assert last.startswith("| baseline: ") and "*" not in last


def test_that_axes_are_bounded_by_the_pairs_that_do_not_meet() -> None:
    networks = population(by_margins, bases=12)
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
    rows = joint_parts(population(lambda margins, loss: by_margins(margins, loss)))
    shares = [float(share.split(" ")[0]) for _, share in rows]
    # the made-up curvature is a function of the test error; margins are not told how much of it is training error
    assert shares[0] > 0.4 and shares[0] > shares[1]


def test_that_the_report_opens_with_its_picture_and_verdicts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    monkeypatch.setattr("benchmarks.studies.population.ranks.SAMPLES", 50)
    networks = population(by_margins, bases=20)
    text = report({"made up": networks}, ["**Preliminary**."], "Nothing.", tmp_path)
    title, question, picture, verdict, *rest = text.split("\n\n")
    assert title.startswith("# ") and question.endswith("?") and picture.endswith("(answer.svg)")
    assert verdict.startswith("- **Preliminary**.\n- **C1 ") and verdict.count("\n- **C") == 4
    for name in re.findall(r"\]\(([^)]+\.svg)\)", text):
        assert (tmp_path / name).exists()
    assert RULES.split("\n")[0] in text
    assert any(part.startswith("| features") for part in rest)


def test_that_the_opening_says_what_margins_predict_among_networks_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = population(by_margins, bases=12)
    assert _of_fitting({"made up": networks}) == []  # too few fit
    monkeypatch.setattr("benchmarks.studies.population.tables.FIT", 0.0)
    (sentence,) = _of_fitting({"made up": networks})
    by_all = f"all: {len(usable(at_end(networks), 'margins'))}"
    everywhere = {row["features"]: row[by_all] for row in table_of(prediction(networks)["k-fold R²"])}
    for features in ("margins", "constrained margins"):
        assert f"{everywhere[features]} of {features}" in sentence
    assert f"(loss and accuracy alone: {everywhere['loss and accuracy']})" in sentence


def test_that_networks_with_wrong_labels_are_reported_apart(tmp_path) -> None:
    networks = population(by_margins, bases=3)
    without_margins(networks, 2)
    noisy = {replace(m, label_noise=0.2): t for m, t in networks.items() if m.axis == "base"}
    text = report({"made up": networks}, [], "", tmp_path, wrong_labels={"made up": noisy})
    apart = text.split("## made up, 20% wrong labels")[1].split("\n## ")[0]
    assert f"{len(networks)} networks, of which 0 diverged. 2 of the others have no margins" in text
    (optimizer,) = {m.hyperparameters["optimizer"] for m in list(networks)[:2]}
    assert f"R²:** 2 networks on made up (2 of {METHODS[optimizer].label}) have no margins" in text.split(DETAILS)[0]
    assert "3 networks, of which 0 diverged" in apart and "apart from all verdicts" in apart


def test_that_too_few_networks_of_any_set_have_no_verdict(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = population(by_margins, bases=2)
    text = report({"made up": few}, [], "Nothing.", tmp_path)
    assert "Too few networks for verdicts" in text
    monkeypatch.setattr("benchmarks.studies.population.verdicts.findings", lambda networks, learned: networks or None)
    assert list(all_findings({"one": few, "two": few})) == ["one", "two"]  # type: ignore[dict-item]
    assert all_findings({"one": few, "two": {}}) == {}


def test_that_frozen_features_are_read_on_the_set_that_was_held_back(tmp_path) -> None:
    networks = {replace(m, place="fashion_mnist"): t for m, t in population(by_margins, bases=20).items()}
    read = partial(report, {"made up": population(by_margins, bases=2)}, [], "Nothing.", tmp_path)
    text = read({"margins": "distances"}, networks)
    short = len(of_length(at_end(networks), "quarter"))
    assert f"**C3 overcome** by margins (distances), chosen without Fashion-MNIST: on its {short} short" in text
    assert "By the rule estimates decide it" in text and "tried on made up." in text
    assert "**C3 not overcome** by confidence" in read({"confidence": "of all"}, networks)
    assert "chosen without" not in read({}, networks)
    without_margins(networks, 4)  # two of them short: their gap of 0 would be an easy one for the baseline
    text = read({"margins": "distances"}, networks)
    assert f"on {short - 2} of its {short} short networks" in text
    full, quarter = (of_length(usable(at_end(networks), "margins"), n) for n in ("full", "quarter"))
    baseline = carried_over(full, quarter, "loss and accuracy", leave_out=False)
    assert baseline is not None and f"accuracy alone: {baseline.r2:.2f} and" in text
    few = {member: trajectory for member, trajectory in networks.items() if member.base < 2}
    text = read({"margins": "distances"}, few)
    assert "**C3 not overcome** by margins (distances): too few networks on Fashion-MNIST" in text
