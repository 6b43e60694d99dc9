"""That the picture of the disk shows the embedding of the best method."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.runs.training import prepare, train
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.tuning import Tuned
from benchmarks.studies.manifold_tasks import HYPERBOLIC, disk


def entries() -> list[Entry]:
    """Make entries of two methods on the case that is drawn, with one epoch each; the second is better."""
    case = next(c for c in HYPERBOLIC.cases if c.name == "mammals-poincare-2-reconstruction")
    found = []
    for contestant in case.contestants:
        if contestant.name in ("riemannian_sgd", "riemannian_adam"):
            run = replace(case.run(contestant, 0.1, 0.9), epochs=1, measures=())
            score = 0.2 if contestant.name == "riemannian_adam" else 0.1
            found.append(Entry(case, contestant, Tuned(run, 0, {}, ()), [replace(train(run), scores={"map": score})]))
    return found


def test_that_the_best_method_is_trained_once_more_and_drawn(monkeypatch, tmp_path) -> None:
    case = entries()
    disk.embed_in_disk([case], tmp_path)
    with np.load(tmp_path / "disk.npz") as file:
        before, after, method = file["before"], file["after"], str(file["method"])
    assert method == "riemannian_adam"
    best = case[1].rows[0].run
    np.testing.assert_array_equal(before, prepare(best).model.points.detach())  # type: ignore[union-attr, operator]
    assert np.abs(after - before).max() > 1e-3
    assert np.linalg.norm(after, axis=1).max() < 1

    monkeypatch.setattr(disk, "fit", None)  # the points are kept from before
    disk.embed_in_disk([case], tmp_path)
    text = disk.draw(tmp_path)
    assert "RiemannianAdam" in text and "](disk.svg)" in text
    first = (tmp_path / "disk.svg").read_bytes()
    disk.draw(tmp_path)
    assert (tmp_path / "disk.svg").read_bytes() == first


def test_that_a_damaged_embedding_is_not_drawn_and_made_again(tmp_path) -> None:
    case = entries()
    disk.embed_in_disk([case], tmp_path)
    whole = (tmp_path / "disk.npz").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["disk.npz"]
    for damaged in (whole[: len(whole) // 2], whole[:10], b"", whole[:300] + b"\0" * 20 + whole[320:]):
        (tmp_path / "disk.npz").write_bytes(damaged)
        assert disk.draw(tmp_path) == ""
    disk.embed_in_disk([case], tmp_path)
    assert "](disk.svg)" in disk.draw(tmp_path)


def test_that_without_an_embedding_there_is_no_picture(tmp_path) -> None:
    disk.embed_in_disk([], tmp_path)
    assert disk.draw(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
