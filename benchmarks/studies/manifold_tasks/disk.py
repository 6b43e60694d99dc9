"""Draw the hierarchy in the disk, before and after training."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle

from benchmarks.data.arrays import read_arrays
from benchmarks.data.dataset import DatasetError
from benchmarks.data.wordnet import load_hierarchy
from benchmarks.machine import alone
from benchmarks.report.svg import drawing
from benchmarks.runs.training import fit, prepare
from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.manifold_tasks.cases import HYPERBOLIC

__all__ = ["draw", "embed_in_disk"]

_CASE, _FILE = "mammals-poincare-2-reconstruction", "disk.npz"
_LABELS = {c.name: c.label for case in HYPERBOLIC if case.name == _CASE for c in case.contestants}
#: Nodes whose descendants are coloured.
_KINDS = ("carnivore", "ungulate", "rodent", "primate", "cetacean", "bat", "marsupial")


def embed_in_disk(cases: Cases, directory: Path) -> None:
    """Train the best method's embedding in two dimensions once more, and keep its points before and after."""
    entries = next((case for case in cases if case[0].case.name == _CASE), None)
    if entries is None:
        return
    best = max(entries, key=lambda entry: fmean(row.scores.get("map", 0.0) for row in entry.rows))
    row = next((row for row in best.rows if not row.diverged), best.rows[0])
    run = replace(row.run, measures=())
    if str(_load(directory / _FILE).get("key")) == run.key:
        return
    with alone():
        problem = prepare(run)
        before = problem.model.points.detach().cpu().numpy().copy()  # type: ignore[operator]
        fit(run, problem, 0.0)
    after = problem.model.points.detach().cpu().numpy()  # type: ignore[operator]
    with (directory / _FILE).with_suffix(".part").open("wb") as file:
        np.savez_compressed(file, before=before, after=after, method=best.name, key=run.key)
    os.replace(file.name, directory / _FILE)  # so that no half-written file is left


def _load(path: Path) -> dict[str, np.ndarray]:
    """Load the stored points; return None if the file is missing or damaged, so that it is made again."""
    try:
        return read_arrays(path, ("before", "after", "method", "key"), "run the study again")
    except DatasetError:
        return {}


def draw(directory: Path) -> str:
    """Draw the disk; return "" if its file is missing or damaged, until ``run`` makes it again."""
    stored = _load(directory / _FILE)
    if not stored:
        return ""
    hierarchy = load_hierarchy("mammals")
    before, after, method = stored["before"], stored["after"], str(stored["method"])
    direct = [(node, parent) for node, parents in enumerate(hierarchy.parents) for parent in parents]
    with drawing(directory / "disk.svg", 9.2) as figure:
        titles = ("before training, enlarged 700 times", "after training")
        for axes, points, title in zip(figure.subplots(2, 1), (before * 700, after), titles, strict=True):
            lines = [(points[node], points[parent]) for node, parent in direct]
            axes.add_collection(LineCollection(lines, colors="grey", linewidths=0.15, alpha=0.5))
            axes.scatter(*points.T, s=1, color="lightgrey")
            for i, kind in enumerate(_KINDS):
                top = hierarchy.names.index(kind)
                below = hierarchy.edges[hierarchy.edges[:, 1] == top, 0].numpy()
                axes.scatter(*points[below].T, s=2, color=f"C{i}", label=kind)
                axes.annotate(kind, points[top], fontsize=7)
            root = points[hierarchy.root]
            axes.scatter(*root, s=12, color="black", marker="*", label=hierarchy.names[hierarchy.root])
            axes.add_patch(Circle((0, 0), 1, fill=False, linewidth=0.5))
            axes.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), aspect="equal", title=title)
            axes.axis("off")
        handles, labels = figure.axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, markerscale=3)
    return (
        "## The mammals in the disk\n\n"
        f"Reconstruction in two dimensions by {_LABELS[method]}, one seed. Lines join each kind of mammal to the kinds "
        "that directly include it.\n\n![The mammals in the disk](disk.svg)"
    )
