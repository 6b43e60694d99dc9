"""That hierarchies are those of WordNet, with all ancestors of each node."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from benchmarks.data import DatasetError, MissingDataset, wordnet
from benchmarks.data.prepare.mammals import cut
from benchmarks.data.wordnet import Hierarchy, load_hierarchy, read_nouns

MANY = " ".join(f"mouse{i} {i}" for i in range(16))
NOUNS = f"""\
  1 This software and database is being provided to you, the LICENSEE, by | Princeton
  2 University
00000010 03 n 01 entity 0 001 ~ 00000020 n 0000 | all there is
00000020 05 n 02 mammal 0 mammalian 1 003 @ 00000010 n 0000 + 00000090 a 0201 ~ 00000030 n 0000 | with hair
00000030 05 n 10 {MANY} 002 @ 00000020 n 0000 #m 00000010 n 0000 | sixteen words; @ 00000010 n 0000
00000040 05 n 01 pet 0 001 @ 00000010 n 0000 | a tame one
00000050 05 n 01 hamster 0 002 @ 00000030 n 0000 @ 00000040 n 0000 | of two kinds
00000060 05 n 01 Algernon 0 002 %p 00000040 n 0000 @i 00000050 n 0000 | one of them
00000070 05 n 01 mammal 0 001 @ 00000040 n 0000 | the same word again
"""


@pytest.fixture(autouse=True)
def fresh(directory, monkeypatch) -> Iterator[None]:
    """Forget the hierarchies that another test has loaded."""
    load_hierarchy.cache_clear()
    monkeypatch.setattr(wordnet, "DEBIAN", directory / "usr" / "data.noun")
    yield
    load_hierarchy.cache_clear()


def write(directory: Path, text: str = NOUNS, name: str = "data.noun") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def closure_by_powers(hierarchy: Hierarchy) -> np.ndarray:
    """Compute the transitive closure by powers of the adjacency matrix, until no pair is new."""
    nodes = len(hierarchy.names)
    pairs = [(node, parent) for node, above in enumerate(hierarchy.parents) for parent in above]
    rows, columns = np.array(pairs).reshape(-1, 2).T
    direct = csr_array((np.ones(len(rows)), (rows, columns)), shape=(nodes, nodes))
    reached, before = (direct > 0).astype(float), -1
    while reached.nnz != before:
        before = reached.nnz
        reached = ((reached + reached @ direct) > 0).astype(float)
    return np.argwhere(reached.toarray() > 0)  # sorted, as edges must be


def test_that_mammals_are_as_many_as_in_the_literature_and_their_closure_is_that_by_matrix_powers() -> None:
    mammals = load_hierarchy("mammals")
    assert len(mammals.names) == len(mammals.parents) == 1182
    assert mammals.edges.shape == (6542, 2) and mammals.edges.dtype == torch.int64
    assert mammals.names[mammals.root] == "mammal"
    assert (mammals.edges[:, 1] == mammals.root).sum() == 1181
    assert [i for i, above in enumerate(mammals.parents) if not above] == [mammals.root]
    assert load_hierarchy("mammals") is mammals
    np.testing.assert_array_equal(mammals.edges, closure_by_powers(mammals))


@pytest.mark.parametrize("density", [0.0, 0.03, 0.2, 0.9])
def test_that_the_closure_of_a_random_graph_is_the_one_by_matrix_powers(density) -> None:
    generator = np.random.default_rng(round(100 * density))
    nodes = 40
    order = generator.permutation(nodes)  # so that parents may have larger or smaller numbers
    above = np.triu(generator.random((nodes, nodes)) < density, 1)
    direct = above[np.ix_(order, order)]
    graph = Hierarchy(("x",) * nodes, tuple(tuple(np.flatnonzero(row).tolist()) for row in direct))
    np.testing.assert_array_equal(graph.edges, closure_by_powers(graph))
    assert graph.edges.shape == (len(graph.edges), 2)


def test_that_a_long_chain_does_not_reach_the_recursion_limit() -> None:
    before, length = sys.getrecursionlimit(), 1200
    sys.setrecursionlimit(1000)  # some libraries raise the limit
    try:
        # the first node is the lowest, so that the first walk follows the whole chain
        chain = Hierarchy(("x",) * length, (*((i + 1,) for i in range(length - 1)), ()))
        edges = chain.edges
    finally:
        sys.setrecursionlimit(before)
    assert torch.equal(edges, torch.triu_indices(length, length, 1).T)
    assert chain.root == length - 1


def test_that_nouns_are_read_with_the_hypernyms_of_kinds_and_of_instances(directory) -> None:
    names, parents = read_nouns(write(directory))
    short = {offset[-2:]: name for offset, name in names.items()}
    assert short == {
        "10": "entity", "20": "mammal", "30": "mouse0", "40": "pet", "50": "hamster", "60": "Algernon", "70": "mammal",
    }  # fmt: skip
    assert {child[-2:]: [p[-2:] for p in above] for child, above in parents.items()} == {
        "10": [], "20": ["10"], "30": ["20"], "40": ["10"], "50": ["30", "40"], "60": ["50"], "70": ["40"],
    }  # fmt: skip


def test_that_nouns_are_found_in_the_data_directory_first_and_then_in_debian_s(directory) -> None:
    wordnet.DEBIAN.parent.mkdir()
    wordnet.DEBIAN.write_text(NOUNS.replace("Algernon", "Brain"), encoding="utf-8")
    assert load_hierarchy("nouns").names[5] == "Brain"
    load_hierarchy.cache_clear()
    write(directory)
    nouns = load_hierarchy("nouns")
    assert nouns.names == ("entity", "mammal", "mouse0", "pet", "hamster", "Algernon", "mammal")
    assert nouns.parents == ((), (0,), (1,), (0,), (2, 3), (4,), (3,))
    assert nouns.names[nouns.root] == "entity"
    np.testing.assert_array_equal(nouns.edges, closure_by_powers(nouns))


@pytest.mark.parametrize(
    "damaged",
    [
        "00000040 05 n 01 pet",  # cut short
        "00000040 05 n 01 pet 0 002 @ 00000010 n 0000 | one pointer of two",
        "00000040 05 n zz pet 0 001 @ 00000010 n 0000 | no number of words",
        "00000040 05 n 01 pet 0 x @ 00000010 n 0000 | no number of pointers",
    ],
)
def test_that_a_damaged_line_is_named(directory, damaged) -> None:
    lines = NOUNS.splitlines()
    lines[5] = damaged
    path = write(directory, "\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match=r"data\.noun, line 6: not a set of synonyms"):
        read_nouns(path)


def test_that_a_file_that_ends_early_is_noticed(directory) -> None:
    # cut after a whole line; the second set of synonyms refers to the third
    path = write(directory, "".join(NOUNS.splitlines(keepends=True)[:4]))
    with pytest.raises(DatasetError, match=r"data\.noun: 1 sets of synonyms are missing"):
        read_nouns(path)


def test_that_missing_nouns_say_how_to_get_them(directory) -> None:
    with pytest.raises(MissingDataset, match=r"apt-get install wordnet-base.*data\.noun.*--data-dir") as caught:
        load_hierarchy("nouns")
    assert str(directory / "data.noun") in str(caught.value)
    write(directory)  # a failure is not remembered
    assert len(load_hierarchy("nouns").names) == 7


def test_that_an_unknown_hierarchy_lists_the_known() -> None:
    with pytest.raises(ValueError, match="no hierarchy 'verbs'; there are mammals, animals, nouns"):
        load_hierarchy("verbs")


@pytest.mark.parametrize("text", [None, "mammal\t\ndog\n", "mammal\t\ndog\tx\n", b"mammal\t\nd\xf6g\t0\n"])
def test_that_a_missing_or_damaged_table_is_named(directory, monkeypatch, text) -> None:
    path = directory / "mine.tsv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setattr(wordnet, "PATH", path)
    with pytest.raises(DatasetError, match=r"mine\.tsv is missing or damaged .*git checkout .*mine\.tsv"):
        load_hierarchy("mammals")


def test_that_a_table_without_its_end_is_named(directory, monkeypatch) -> None:
    rows = wordnet.PATH.read_text(encoding="utf-8").splitlines(keepends=True)
    monkeypatch.setattr(wordnet, "PATH", write(directory, "".join(rows[:600]), "mine.tsv"))
    with pytest.raises(DatasetError, match=r"mine\.tsv is missing or damaged"):
        load_hierarchy("mammals")


def test_that_nouns_in_another_encoding_are_named(directory) -> None:
    path = directory / "data.noun"
    path.write_bytes("00000010 03 n 01 café 0 000 | a drink\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"data\.noun"):
        read_nouns(path)


def test_that_cutting_keeps_kinds_of_the_first_mammal_and_what_joins_them(directory, monkeypatch) -> None:
    path = directory / "cut.tsv"
    cut(write(directory), path)
    monkeypatch.setattr(wordnet, "PATH", path)
    found = load_hierarchy("mammals")
    # the hamster is a pet too, but pets are not in the subgraph
    assert found.names == ("mammal", "mouse0", "hamster", "Algernon")
    assert found.parents == ((), (0,), (1,), (2,))


def test_that_cutting_debian_s_nouns_gives_the_bytes_in_the_repository(directory) -> None:
    source = Path("/usr/share/wordnet/data.noun")
    if not source.is_file():
        pytest.skip("wordnet-base is not installed")
    cut(source, directory / "cut.tsv")
    assert (directory / "cut.tsv").read_bytes() == wordnet.PATH.read_bytes()


def test_that_animals_are_a_part_of_the_nouns(directory) -> None:
    write(directory, NOUNS.replace(" pet ", " animal "))
    animals = load_hierarchy("animals")
    assert animals.names == ("animal", "hamster", "Algernon", "mammal")
    assert animals.parents == ((), (0,), (1,), (0,))


def test_that_a_missing_source_says_what_to_install(directory) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone: apt-get install wordnet-base"):
        cut(directory / "gone", directory / "cut.tsv")
    assert not (directory / "cut.tsv").exists()


@pytest.mark.parametrize("parents", [((0,),), ((1,), (2,), (0,)), ((1, 2), (2,), (3,), (1,))])
def test_that_a_cycle_is_refused(parents) -> None:
    with pytest.raises(ValueError, match="is a kind of itself"):
        _ = Hierarchy(tuple("abcd"[: len(parents)]), parents).edges
