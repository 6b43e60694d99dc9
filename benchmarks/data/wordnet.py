"""Load hierarchies of nouns from WordNet: a node is a kind of each of its ancestors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.dataset import DatasetError, MissingDataset
from benchmarks.data.directory import data_directory

__all__ = ["HIERARCHIES", "Hierarchy", "kinds_of", "load_hierarchy", "number", "read_nouns"]

PATH = Path(__file__).parent / "mammals.tsv"
#: The file of Debian's package ``wordnet-base``.
DEBIAN = Path("/usr/share/wordnet/data.noun")
HIERARCHIES = ("mammals", "animals", "nouns")
#: WordNet's symbols of a hypernym, and of an instance's hypernym ("city" of "Paris").
POINTERS = ("@", "@i")


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Directed acyclic graph.

    Attributes
    ----------
    names : tuple of str
        Names of the nodes: the first word of each set of synonyms; not all differ.
    parents : tuple of tuples of int
        Direct hypernyms of each node.
    """

    names: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]

    @cached_property
    def edges(self) -> Tensor:
        """Transitive closure: sorted pairs of a node and one of its ancestors, shape ``(edges, 2)``.

        Raises
        ------
        ValueError
            If the graph has a cycle.
        """
        above: dict[int, frozenset[int]] = {}
        entered: set[int] = set()
        for start in range(len(self.names)):
            stack = [start]
            while stack:  # no recursion, since some chains are long
                node = stack[-1]
                waiting = [p for p in self.parents[node] if p not in above]
                if node in above or not waiting:
                    direct = self.parents[node]
                    above.setdefault(node, frozenset(direct).union(*(above[p] for p in direct)))
                    stack.pop()
                elif node in entered:  # entered again before its parents were finished
                    raise ValueError(f"{self.names[node]!r} is a kind of itself")
                else:
                    entered.add(node)
                    stack += waiting
        pairs = [(node, ancestor) for node in range(len(self.names)) for ancestor in sorted(above[node])]
        return torch.from_numpy(np.array(pairs, dtype=np.int64).reshape(-1, 2))

    @cached_property
    def root(self) -> int:
        """Node with the most descendants."""
        return int(torch.bincount(self.edges[:, 1]).argmax())


@lru_cache(maxsize=2)
def load_hierarchy(name: str) -> Hierarchy:
    """Load a hierarchy by name.

    Parameters
    ----------
    name : {"mammals", "animals", "nouns"}
        The mammals come with this repository (1182 nodes, 6542 pairs); all nouns (82115 nodes, 743241 pairs), and the
        animals among them (4017 nodes, 29795 pairs), are read from Debian's package ``wordnet-base``, or from
        ``data.noun`` in ``--data-dir``.

    Returns
    -------
    Hierarchy
        The same object in each call.

    Raises
    ------
    MissingDataset
        If the nouns are not on this machine.
    DatasetError
        If a file is damaged; names it.
    """
    if name == "mammals":
        return _read_table(PATH)
    if name not in HIERARCHIES:
        raise ValueError(f"there is no hierarchy {name!r}; there are {', '.join(HIERARCHIES)}")
    for path in (data_directory() / "data.noun", DEBIAN):
        if path.is_file():
            names, parents = read_nouns(path)
            return number(names, parents, sorted(names) if name == "nouns" else kinds_of("animal", names, parents))
    raise MissingDataset(
        f"{name} of WordNet: no {data_directory() / 'data.noun'}; `apt-get install wordnet-base`, or put WordNet 3's "
        "data.noun there (another directory: --data-dir)"
    )


def read_nouns(path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read names and hypernyms of all sets of synonyms, by their offset in a file ``data.noun`` (see ``wndb(5WN)``).

    Raises
    ------
    DatasetError
        If lines are missing, or a line, which the message names, differs from the format of the manual page.
    """
    names: dict[str, str] = {}
    parents: dict[str, list[str]] = {}
    mentioned: set[str] = set()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not a file of WordNet ({error}); get the file again") from error
    for number_, line in enumerate(lines, start=1):
        if line.startswith("  "):  # the licence
            continue
        try:
            cells = line.split("|")[0].split()
            words = int(cells[3], 16)
            pointers = cells[5 + 2 * words :]
            count = int(cells[4 + 2 * words])
            fields = [pointers[4 * i : 4 * i + 4] for i in range(count)]
            names[cells[0]] = cells[4]
            parents[cells[0]] = [offset for symbol, offset, _, _ in fields if symbol in POINTERS]
            mentioned.update(offset for _, offset, part_of_speech, _ in fields if part_of_speech == "n")
        except (IndexError, ValueError) as error:
            raise DatasetError(
                f"{path}, line {number_}: not a set of synonyms ({error}); get the file again"
            ) from error
    if lost := mentioned - names.keys():
        raise DatasetError(f"{path}: {len(lost)} sets of synonyms are missing that others point to; get the file again")
    return names, parents


def kinds_of(name: str, names: Mapping[str, str], parents: Mapping[str, Iterable[str]]) -> list[str]:
    """Find the first node of a name and all its descendants, in order."""
    kinds: dict[str, list[str]] = {}
    for offset, above in parents.items():
        for parent in above:
            kinds.setdefault(parent, []).append(offset)
    root = min(offset for offset, word in names.items() if word == name)
    descendants, waiting = {root}, [root]
    while waiting:
        new = [offset for offset in kinds.get(waiting.pop(), []) if offset not in descendants]
        descendants.update(new)
        waiting += new
    return sorted(descendants)


def number(names: Mapping[str, str], parents: Mapping[str, Iterable[str]], order: Iterable[str]) -> Hierarchy:
    """Cut out the subgraph of these nodes, numbered in this order."""
    chosen = list(order)
    index = {offset: i for i, offset in enumerate(chosen)}
    inside = tuple(tuple(sorted(index[p] for p in parents[offset] if p in index)) for offset in chosen)
    return Hierarchy(tuple(names[offset] for offset in chosen), inside)


def _read_table(path: Path) -> Hierarchy:
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        parents = tuple(tuple(int(p) for p in row[1].split()) for row in rows)
        if not rows or not all(0 <= p < len(rows) for above in parents for p in above):
            raise ValueError("lines are missing")
        return Hierarchy(tuple(row[0] for row in rows), parents)
    except (OSError, IndexError, ValueError) as error:
        raise DatasetError(f"{path} is missing or damaged ({error}); get it back with `git checkout {path}`") from error
