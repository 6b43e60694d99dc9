"""That ranks and precision are those of Nickel and Kiela, in any order and by chunks of any size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from benchmarks.workloads.hyperbolic import ranking as module
from benchmarks.workloads.hyperbolic.ranking import ranking

NODES = 40


def made_up(seed: int, part: float = 0.4) -> tuple[np.ndarray, Tensor, Tensor]:
    """Make distances between random points, edges to score, and known edges, in random order."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(NODES, 3))
    table = np.linalg.norm(points[:, None] - points[None], axis=2)
    pairs = np.argwhere((generator.random((NODES, NODES)) < 0.15) & ~np.eye(NODES, dtype=bool))
    known = torch.from_numpy(generator.permutation(pairs))
    known = known[known[:, 0] % 7 != 3]  # some nodes have no edges
    scored = known[torch.from_numpy(generator.random(len(known)) < part)]
    return table, scored, known


def rows_of(table: np.ndarray) -> Callable[[Tensor], Tensor]:
    return lambda some: torch.from_numpy(table)[some]


def slowly(table: np.ndarray, scored: Tensor, known: Tensor) -> dict[str, float]:
    """Compute ranks and precision by their definitions, one edge at a time."""
    related = set(map(tuple, known.tolist()))
    ranks, precisions = [], []
    for u in sorted({u for u, _ in scored.tolist()}):
        targets = [v for start, v in scored.tolist() if start == u]
        wrong = [w for w in range(NODES) if w != u and (u, w) not in related]
        of_node = []
        for v in targets:
            nearer = sum(table[u, w] < table[u, v] for w in wrong)
            right = sum(table[u, w] <= table[u, v] for w in targets)
            ranks.append(nearer + 1)
            of_node.append(right / (right + nearer))
        precisions.append(sum(of_node) / len(of_node))
    return {"mean_rank": sum(ranks) / len(ranks), "map": sum(precisions) / len(precisions)}


@pytest.mark.parametrize("part", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_that_rank_and_precision_are_those_of_a_slow_loop(seed, part) -> None:
    table, scored, known = made_up(seed, part)
    # precision is a sum of about 40 terms in single precision
    assert ranking(rows_of(table), NODES, scored, known) == pytest.approx(slowly(table, scored, known), rel=1e-6)


@pytest.mark.parametrize("part", [0.3, 1.0])
def test_that_precision_is_scikit_learn_s(part) -> None:
    table, scored, known = made_up(5, part)
    expected = []
    for u in scored[:, 0].unique().tolist():
        target = np.zeros(NODES, dtype=bool)
        target[scored[scored[:, 0] == u, 1]] = True
        allowed = np.ones(NODES, dtype=bool)
        allowed[known[known[:, 0] == u, 1]] = False
        allowed[u] = False
        allowed |= target
        expected.append(average_precision_score(target[allowed], -table[u, allowed]))
    assert ranking(rows_of(table), NODES, scored, known)["map"] == pytest.approx(np.mean(expected), rel=1e-6)


@pytest.mark.parametrize("entries", [1, 2 * NODES, 7 * NODES + 3])
def test_that_chunks_give_what_the_whole_gives(monkeypatch, entries) -> None:
    table, scored, known = made_up(1)
    whole = ranking(rows_of(table), NODES, scored, known)
    asked = []

    def recorded(some: Tensor) -> Tensor:
        asked.append(some)
        return rows_of(table)(some)

    monkeypatch.setattr(module, "_ENTRIES", entries)
    # the order of the sums differs
    assert ranking(recorded, NODES, scored, known) == pytest.approx(whole, rel=1e-6)
    assert max(map(len, asked)) == max(1, entries // NODES) and len(asked) > 1
    assert torch.equal(torch.cat(asked), scored[:, 0].unique())


def test_that_the_order_of_the_edges_does_not_matter() -> None:
    table, scored, known = made_up(2)
    actual = ranking(rows_of(table), NODES, scored, known)
    assert ranking(rows_of(table), NODES, scored.flip(0), known.flip(0)) == pytest.approx(actual, rel=1e-6)


def test_that_a_perfect_embedding_has_rank_and_precision_1_and_the_worst_the_least() -> None:
    _, scored, known = made_up(3, part=1.0)
    related = torch.zeros(NODES, NODES, dtype=torch.bool)
    related[known[:, 0], known[:, 1]] = True
    noise = torch.rand(NODES, NODES, generator=torch.Generator().manual_seed(0)).double()
    perfect = noise + 2 * ~related
    assert ranking(lambda some: perfect[some], NODES, scored, known) == {"mean_rank": 1.0, "map": 1.0}
    worst = noise + 2 * related
    actual = ranking(lambda some: worst[some], NODES, scored, known)
    counts = related.sum(1)
    # behind all wrong answers, which are all nodes except the node itself and those it is related to
    ranks = (counts * (NODES - counts)).sum() / counts.sum()
    assert actual["mean_rank"] == pytest.approx(float(ranks), rel=1e-6)


def test_that_nodes_without_scored_edges_do_not_count() -> None:
    table, scored, known = made_up(4)
    asked = []

    def recorded(some: Tensor) -> Tensor:
        asked.extend(some.tolist())
        return rows_of(table)(some)

    one = scored[scored[:, 0] == scored[0, 0]]
    assert ranking(recorded, NODES, one, known) == pytest.approx(slowly(table, one, known), rel=1e-6)
    assert asked == [int(scored[0, 0])]
    # known edges of other nodes change nothing
    own = known[known[:, 0] == scored[0, 0]]
    assert ranking(rows_of(table), NODES, one, own) == ranking(rows_of(table), NODES, one, known)


def test_that_known_edges_and_the_node_itself_are_no_wrong_answers() -> None:
    # nodes on a line from node 0: 1 and 2 are nearer than the scored 3, and 4 is farther
    table = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
    scored = torch.tensor([[0, 3]])

    def scores(*known: list[int]) -> dict[str, float]:
        return ranking(rows_of(table), 5, scored, torch.tensor([[0, 3], *known]))

    assert scores() == pytest.approx({"mean_rank": 3.0, "map": 1 / 3})
    assert scores([0, 1]) == {"mean_rank": 2.0, "map": 0.5}
    assert scores([0, 1], [0, 2]) == {"mean_rank": 1.0, "map": 1.0}
    assert scores([1, 0], [2, 0]) == pytest.approx({"mean_rank": 3.0, "map": 1 / 3})  # the other way round


def test_that_an_embedding_in_one_point_ranks_nothing() -> None:
    # of ten nodes one is right, one is the node itself, and the other eight are equally near
    actual = ranking(lambda some: torch.zeros(len(some), 10), 10, torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))
    assert actual == {"mean_rank": 9.0, "map": pytest.approx(1 / 9)}


def test_that_distances_that_are_no_numbers_are_not_ranked() -> None:
    table, scored, known = made_up(0)
    table[int(scored[0, 0]), 5] = np.nan
    with pytest.raises(torch.linalg.LinAlgError, match="not a number"):
        ranking(rows_of(table), NODES, scored, known)
