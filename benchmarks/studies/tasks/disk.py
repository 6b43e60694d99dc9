"""The hierarchy in the disk, before and after training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from benchmarks.data.arrays import read_arrays
from benchmarks.data.dataset import DatasetError
from benchmarks.data.wordnet import load_hierarchy
from benchmarks.machine import alone
from benchmarks.report.svg import save_svg
from benchmarks.studies.tasks.protocol import Entry
from benchmarks.tasks.methods import METHODS
from benchmarks.tasks.training import prepare, train

__all__ = ["draw", "embed_in_disk"]

_CASE, _FILE = "mammals-poincare-2-reconstruction", "disk.npz"
#: Kinds whose descendants have a colour.
_KINDS = ("carnivore", "ungulate", "rodent", "primate", "cetacean", "bat", "marsupial")


def embed_in_disk(cases: Sequence[Sequence[Entry]], directory: Path) -> None:
    """Train the best method's embedding in two dimensions once more, and keep its points before and after."""
    entries = next((case for case in cases if case[0].case.name == _CASE), None)
    if entries is None:
        return
    best = max(entries, key=lambda entry: fmean(row.scores.get("map", 0.0) for row in entry.rows))
    row = next((row for row in best.rows if not row.diverged), best.rows[0])
    trial = replace(row.run, curvature=False)
    if str(_load(directory / _FILE).get("key")) == trial.key:
        return
    with alone():
        problem = prepare(trial)
        before = problem.model.points.detach().cpu().numpy().copy()  # type: ignore[operator]
        train(trial, problem, 0.0)
    after = problem.model.points.detach().cpu().numpy()  # type: ignore[operator]
    with (directory / _FILE).with_suffix(".part").open("wb") as file:
        np.savez_compressed(file, before=before, after=after, method=trial.method, key=trial.key)
    os.replace(file.name, directory / _FILE)  # whole or not at all


def _load(path: Path) -> dict[str, np.ndarray]:
    """What is kept; nothing where the file is missing or damaged, so that it is made again."""
    try:
        return read_arrays(path, ("before", "after", "method", "key"), "run the study again")
    except DatasetError:
        return {}


def draw(directory: Path) -> str:
    """Draw the disk; empty where there is none, or it is damaged: ``run`` makes it again then."""
    kept = _load(directory / _FILE)
    if not kept:
        return ""
    hierarchy = load_hierarchy("mammals")
    before, after, method = kept["before"], kept["after"], str(kept["method"])
    direct = [(node, parent) for node, parents in enumerate(hierarchy.parents) for parent in parents]
    figure = Figure(figsize=(7, 3.9), layout="constrained")
    titles = ("before, 700 times enlarged", "after training")
    for axes, points, title in zip(figure.subplots(1, 2), (before * 700, after), titles, strict=True):
        lines = [(points[node], points[parent]) for node, parent in direct]
        axes.add_collection(LineCollection(lines, colors="grey", linewidths=0.15, alpha=0.5))
        axes.scatter(*points.T, s=1, color="lightgrey")
        for i, kind in enumerate(_KINDS):
            top = hierarchy.names.index(kind)
            below = hierarchy.edges[hierarchy.edges[:, 1] == top, 0].numpy()
            axes.scatter(*points[below].T, s=2, color=f"C{i}", label=kind)
            axes.annotate(kind, points[top], fontsize=5)
        axes.scatter(*points[hierarchy.root], s=12, color="black", marker="*", label=hierarchy.names[hierarchy.root])
        axes.add_patch(Circle((0, 0), 1, fill=False, linewidth=0.5))
        axes.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), aspect="equal", title=title)
        axes.title.set_fontsize("small")
        axes.axis("off")
    figure.legend(
        *figure.axes[1].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize="x-small",
        markerscale=3,
    )
    save_svg(figure, directory / "disk.svg")
    return (
        "## The mammals in the disk\n\n"
        f"Two dimensions, reconstruction, {METHODS[method].label}, one seed: lines join what is directly a kind of "
        "something with it.\n\n![The mammals in the disk](disk.svg)"
    )
