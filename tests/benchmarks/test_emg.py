"""That covariances of muscle signals are what they claim, and no split divides a session or a stretch."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.data import DatasetError, emg
from benchmarks.data.emg import SESSIONS, SIGNS, load_emg
from benchmarks.data.prepare.emg import MARGIN, WINDOW, cut
from benchmarks.workloads.spd import network

COLUMNS = ["time", *(f"c{i}" for i in range(8)), "label", "exp"]


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget the matrices that another test has loaded."""
    load_emg.cache_clear()
    yield
    load_emg.cache_clear()


def test_that_there_are_as_many_matrices_of_each_session_sign_and_stretch() -> None:
    covariances, signs, sessions, segments = load_emg()
    assert covariances.shape == (2400, 8, 8) and covariances.dtype == torch.float64
    assert sessions.bincount().tolist() == [600] * len(SESSIONS)
    assert signs.bincount().tolist() == [480] * len(SIGNS)
    assert segments.bincount().tolist() == [20] * 120
    for labels in (signs, sessions):
        assert all(len(labels[segments == segment].unique()) == 1 for segment in range(120))


def test_that_matrices_are_symmetric_positive_definite_and_in_units_of_the_mean_variance_of_first_sessions() -> None:
    covariances, _, sessions, _ = load_emg()
    assert torch.equal(covariances, covariances.mT)
    assert torch.linalg.cholesky_ex(covariances).info.eq(0).all()
    first = [SESSIONS[i].endswith("s1") for i in sessions]
    variances = np.einsum("nii->ni", covariances.numpy()[first])
    assert variances.mean() == pytest.approx(1, rel=1e-12)
    assert len(covariances.flatten(1).unique(dim=0)) == 2400


def test_that_a_resting_hand_moves_least() -> None:
    # this would fail if signs were mixed up
    covariances, signs, sessions, _ = load_emg()
    power = covariances.diagonal(dim1=1, dim2=2).sum(1)
    for session in range(len(SESSIONS)):
        means = [float(power[(sessions == session) & (signs == sign)].mean()) for sign in range(len(SIGNS))]
        assert min(means) == means[SIGNS.index("rest")]


def test_that_the_triangle_is_read_row_by_row(fresh, monkeypatch, tmp_path) -> None:
    factor = np.random.default_rng(0).normal(size=(3, 8, 8))
    full = factor @ factor.transpose(0, 2, 1)
    lower = np.array([[matrix[i, j] for i in range(8) for j in range(i + 1)] for matrix in full])
    ones = np.array([0, 1, 2], np.uint8)
    np.savez(tmp_path / "small.npz", covariances=lower, signs=ones, sessions=ones, segments=ones)
    monkeypatch.setattr(emg, "PATH", tmp_path / "small.npz")
    actual, *labels = load_emg()
    np.testing.assert_allclose(actual, full / np.mean([np.trace(m) / 8 for m in full[:2]]), rtol=1e-12)
    assert [label.tolist() for label in labels] == [[0, 1, 2]] * 3


@pytest.mark.parametrize("damage", ["gone", "cut short", "no archive", "other arrays"])
def test_that_a_missing_or_damaged_file_is_named(fresh, monkeypatch, tmp_path, damage) -> None:
    path = tmp_path / "mine.npz"
    content = emg.PATH.read_bytes()
    if damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "no archive":
        path.write_bytes(b"some text")
    elif damage == "other arrays":
        np.savez(path, covariances=np.zeros((1, 36)))
    monkeypatch.setattr(emg, "PATH", path)
    what = "missing; " if damage == "gone" else r"damaged \(.+\); "
    with pytest.raises(DatasetError, match=rf"mine\.npz is {what}restore it with `git checkout -- .*mine\.npz"):
        load_emg()


@pytest.mark.parametrize("damage", ["empty", "broken stream", "other shape", "other length", "encrypted", "one array"])
def test_that_rarer_damage_is_named_too(fresh, monkeypatch, tmp_path, damage) -> None:
    path = tmp_path / "mine.npz"
    with np.load(emg.PATH) as file:
        arrays = dict(file)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "broken stream":
        content = bytearray(emg.PATH.read_bytes())
        # the data of the first member begin after its header of 30 bytes, its name and its extra field
        start = 30 + int.from_bytes(content[26:28], "little") + int.from_bytes(content[28:30], "little")
        content[start] = 0xFF  # a block type that deflate does not have
        path.write_bytes(content)
    elif damage == "encrypted":
        content = bytearray(emg.PATH.read_bytes())
        content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the directory entry of the first member
        path.write_bytes(content)
    elif damage == "one array":
        with path.open("wb") as file:
            np.save(file, arrays["signs"])
    elif damage == "other shape":
        np.savez(path, **{**arrays, "covariances": arrays["covariances"][:, :-1]})
    else:
        np.savez(path, **{**arrays, "signs": arrays["signs"][:-1]})
    monkeypatch.setattr(emg, "PATH", path)
    with pytest.raises(DatasetError, match=r"mine\.npz is damaged"):
        load_emg()


def write_table(path: Path, stretches: list[tuple[str, str, np.ndarray]], columns: list[str] = COLUMNS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for sign, session, signal in stretches:
            writer.writerows([i, *map(repr, map(float, row)), sign, session] for i, row in enumerate(signal))
    return path


def test_that_cutting_takes_windows_between_margins(tmp_path) -> None:
    generator = np.random.default_rng(0)
    lengths = [2 * MARGIN + 3 * WINDOW + 10, 2 * MARGIN + WINDOW - 1, 2 * MARGIN + WINDOW, 2 * MARGIN + WINDOW]
    signals = [generator.normal(size=(n, 8)) @ generator.normal(size=(8, 8)) + 5 for n in lengths]
    # the second stretch is one sample too short, the last differs from the one before in its session only
    kinds = [("rest", "mg_s1"), ("ok", "mg_s1"), ("paper", "rr_s1"), ("paper", "rr_s2")]
    source = write_table(tmp_path / "emg.csv", [(*kind, s) for kind, s in zip(kinds, signals, strict=True)])
    cut(source, tmp_path / "cut.npz")
    windows = [signals[0][500 + 250 * k : 750 + 250 * k] for k in range(3)] + [signals[i][500:750] for i in (2, 3)]
    expected = [np.cov(window, rowvar=False) for window in windows]
    with np.load(tmp_path / "cut.npz") as arrays:
        lower = [[matrix[i, j] for i in range(8) for j in range(i + 1)] for matrix in expected]
        np.testing.assert_allclose(arrays["covariances"], lower, rtol=1e-6, atol=1e-5)  # single precision
        assert arrays["signs"].tolist() == [0, 0, 0, 2, 2]
        assert arrays["sessions"].tolist() == [0, 0, 0, 1, 3]
        assert arrays["segments"].tolist() == [0, 0, 0, 2, 3]
    cut(source, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "cut.npz").read_bytes()


def test_that_other_tables_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.csv: pip download --no-deps geomstats"):
        cut(tmp_path / "gone.csv", tmp_path / "cut.npz")
    source = write_table(tmp_path / "emg.csv", [], [*COLUMNS[:-1], "session"])
    with pytest.raises(ValueError, match=r"emg\.csv: columns .*'session'.* where .*'exp'.* should be"):
        cut(source, tmp_path / "cut.npz")
    signal = np.ones((2, 8))
    for kind in (("lizard", "mg_s1"), ("rest", "mg_s3")):
        write_table(source, [("rest", "mg_s1", signal), (*kind, signal)])
        with pytest.raises(ValueError, match=rf"emg\.csv, line 4: no such sign or session: '{kind[0]}', '{kind[1]}'"):
            cut(source, tmp_path / "cut.npz")
    assert not (tmp_path / "cut.npz").exists()


def examples(monkeypatch, seed: int, heldout: str) -> tuple[list[int], list[int]]:
    """Return the numbers of the matrices to train on, and of those to score on."""
    monkeypatch.setattr(network, "accuracies", lambda model, sets: sets)
    problem = network.HandSigns("stiefel", 4).prepare(seed, heldout)  # type: ignore[arg-type]
    covariances, signs, *_ = load_emg()
    place = {matrix.numpy().tobytes(): i for i, matrix in enumerate(covariances)}

    def numbers_of(inputs: torch.Tensor, targets: torch.Tensor) -> list[int]:
        numbers = [place[matrix.numpy().tobytes()] for matrix in inputs]
        assert torch.equal(signs[numbers], targets)
        return numbers

    train = [number for batch in problem.batches(0) for number in numbers_of(*batch)]
    assert sorted(train) == sorted(numbers_of(*problem.scores()["train_"]))
    assert set(numbers_of(*problem.measured)) <= set(train)
    return train, numbers_of(*problem.scores()[""])


def test_that_training_and_test_share_no_session_and_are_all(monkeypatch) -> None:
    sessions = load_emg()[2]
    train, test = examples(monkeypatch, 0, "test")
    assert {SESSIONS[i] for i in sessions[train].tolist()} == {"mg_s1", "rr_s1"}
    assert {SESSIONS[i] for i in sessions[test].tolist()} == {"mg_s2", "rr_s2"}
    assert sorted(train + test) == list(range(2400))


def test_that_validation_holds_out_each_repeat_once_and_shows_no_test_session(monkeypatch) -> None:
    _, signs, sessions, segments = load_emg()
    shown: list[int] = []
    for seed in range(6):
        train, held = examples(monkeypatch, seed, "validation")
        assert not set(segments[train].tolist()) & set(segments[held].tolist())
        assert set(sessions[train + held].tolist()) == {0, 1}
        assert len(train) == 1000 and len(held) == 200
        # one stretch of each sign for each person
        assert {(int(signs[i]), int(sessions[i])) for i in held} == {(s, p) for s in range(5) for p in range(2)}
        shown += held
    assert sorted(shown) == np.flatnonzero(sessions.numpy() < 2).tolist()
