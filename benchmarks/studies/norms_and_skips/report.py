"""The report: the landscapes, the answers, and what stands behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.report.intervals import Comparison
from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.studies.norms_and_skips.design import VARIANTS, Design, Factor
from benchmarks.studies.norms_and_skips.effects import (
    MEASURES,
    Networks,
    at_chance,
    at_loss,
    common,
    effects,
    matched,
    nearest,
)
from benchmarks.studies.norms_and_skips.figures import draw_densities, draw_landscapes, draw_through_training
from benchmarks.studies.norms_and_skips.measurement import CURVATURE
from benchmarks.studies.norms_and_skips.rules import FACTORS, OUTCOME, PRIMARY, RULES, Answer, answer
from benchmarks.studies.norms_and_skips.tables import effects_table, ends_table, trials_table
from benchmarks.studies.norms_and_skips.training import DRAWN, Trajectory
from benchmarks.studies.population.rules import CHANCE
from benchmarks.studies.study import preliminary

__all__ = ["answers", "report"]

TITLE = "Batch norm and skip connections"
QUESTION = "Do batch norm and skip connections flatten the loss, and does the generalisation gap follow?"


def report(
    design: Design, depths: Mapping[int, Networks], trials: Sequence[Trajectory], costs: str, directory: Path
) -> str:
    """Write figures, and say all in Markdown.

    Parameters
    ----------
    design : Design
        What was wanted.
    depths : mapping of int to Networks
        What is there, by depth; each with one network at least.
    trials : sequence of Trajectory
        Networks that learning rates were chosen by.
    costs : str
        What all runs took.
    directory : Path
        Where figures go.
    """
    picture = _landscapes(depths, directory)
    parts = opening(TITLE, QUESTION, picture, [*preliminary(_missing(design, depths)), *_verdicts(design, depths)])
    parts += [
        DETAILS,
        *([f"{picture}. {design.label}."] if picture else []),
        *_figures(depths, directory),
        "## Effects",
        "Means over seeds with 95 % intervals that are not corrected. Effects marked × are ratios, from logarithms; "
        "those marked + are differences. *interaction*: the effect of batch norm with skips compared with that without "
        "skips. Values that are not positive, as some traces, have no logarithm, so some rows have fewer seeds.",
    ]
    for depth, networks in depths.items():
        parts += _effects(depth, networks)
    parts += ["## Networks at the end", ends_table(depths)]
    if trials:
        parts += ["## Trials of learning rates, one seed", trials_table(trials)]
    return "\n\n".join([*parts, "## How it was done", _how(design, depths), costs, "## Rules", RULES.strip()])


def _effects(depth: int, networks: Networks) -> list[str]:
    """Show the effects at one training loss and at the end, there also without networks that learned nothing."""
    level = matched(networks)
    few = "" if level is not None else ", which too few seeds reach for a verdict"
    level = nearest(networks)[0] if level is None else level
    parts = [
        f"### {depth} layers, at training loss {level:g}{few}",
        effects_table(networks, level),
        f"### {depth} layers, at the end",
        effects_table(networks, None),
    ]
    if lost := at_chance(networks):
        named = ", ".join(f"{v.label} (seed {seed})" for v, seed in lost)
        seeds = {seed for _, seed in lost}
        rest = {key: t for key, t in networks.items() if key[1] not in seeds}
        parts += [
            f"Some of these networks learned nothing, with a training accuracy below {CHANCE:.0%}: {named}. Without "
            "all networks of these seeds:",
            effects_table(rest, None),
        ]
    return parts


def answers(design: Design, depths: Mapping[int, Networks]) -> dict[Factor, Answer]:
    """Judge both factors by the rules, of which effects on several seeds are known at one depth at least."""
    levels = {depth: matched(networks) for depth, networks in depths.items()}
    found: dict[Factor, Answer] = {}
    for factor in FACTORS:
        curvature, gap = (
            {
                depth: effects(networks, partial(at_loss, measure=MEASURES[name], level=level))[factor]
                for depth, networks in depths.items()
                if (level := levels[depth]) is not None
            }
            for name in (PRIMARY, OUTCOME)
        )
        if curvature and all(len(v) > 1 for v in (*curvature.values(), *gap.values())):
            found[factor] = answer(curvature, gap, len(design.depths))
    return found


# -- what is read first ----------------------------------------------------------------------------------------------


def _landscapes(depths: Mapping[int, Networks], directory: Path) -> str:
    """Draw the first picture, and describe it; return nothing if there is none."""
    if not draw_landscapes(depths, directory / ANSWER):
        return ""
    return (
        f"Loss around the four trained networks of seed {DRAWN}, on the same two random filter-normalised directions, "
        "from minus to plus the norm of each filter. Networks are at the end of training and so at different losses; "
        "they share one logarithmic colour scale"
    )


def _missing(design: Design, depths: Mapping[int, Networks]) -> list[str]:
    wanted = design.seeds * len(VARIANTS)
    lacking = {depth: wanted - len(depths.get(depth, {})) for depth in design.depths}
    return [f"{count} networks of {depth} layers" for depth, count in lacking.items() if count]


def _verdicts(design: Design, depths: Mapping[int, Networks]) -> list[str]:
    found = answers(design, depths)
    apart = {depth: common(networks) for depth, networks in depths.items() if matched(networks) is None}
    lacking = [
        f"**With {depth} layers** the four variants share no training loss at which to compare them: {counts}."
        for depth, counts in apart.items()
    ]
    every = not apart
    return [*(_sentence(name, found[factor], every) for factor, name in FACTORS.items() if factor in found), *lacking]


def _sentence(name: str, found: Answer, every: bool) -> str:
    """Say what was found about a factor, of every depth or of some."""
    plural = name.endswith("s")
    verb = {"lowers": "lower", "raises": "raise"}.get(found.curvature, "")
    if verb:
        said = f"**{name} {verb if plural else found.curvature} curvature**"
    else:
        they = "they lower or raise" if plural else "it lowers or raises"
        why = f" whether {they} curvature" if every else ", since the rule requires every depth"
        said = f"**{name}: undecided**{why}"
    factors = "; ".join(f"{_times(c)} with {depth} layers" for depth, c in found.of_curvature.items())
    gaps = "; ".join(f"{_points(c)} with {depth} layers" for depth, c in found.of_gap.items())
    what = {"undecided": "Whether the gap follows is undecided"}.get(found.gap, f"The gap {found.gap}")
    return (
        f"{said}. At equal training loss, the Hessian trace (filters in units of their norms) is multiplied by "
        f"{factors}. {what}: it changes by {gaps}. These intervals are corrected for all comparisons, unlike those in "
        "tables."
    )


def _times(found: Comparison) -> str:
    low, high = found.simultaneous.low, found.simultaneous.high
    return f"{math.exp(found.interval.mean):.3g} ({math.exp(low):.3g} to {math.exp(high):.3g})"


def _points(found: Comparison) -> str:
    return f"{found.interval.mean:+.2f} points ({found.simultaneous.low:+.2f} to {found.simultaneous.high:+.2f})"


def _figures(depths: Mapping[int, Networks], directory: Path) -> list[str]:
    found = []
    for kind, caption in (
        (
            "curvature",
            "Curvature during training, mean and 95 % interval over seeds, where most seeds have a positive value",
        ),
        ("gradient", "Loss and gradient along the gradient's direction, for steps of up to four learning rates"),
        ("learning", "Training loss, test error and gap"),
    ):
        draw_through_training(depths, kind, directory / f"{kind}.svg")
        found.append(f"![{caption}]({kind}.svg)")
    if draw_densities(depths, directory / "densities.svg"):
        found.append(
            f"![Eigenvalue densities of seed {DRAWN}, each smoothed by a fraction of its range](densities.svg)"
        )
    return found


def _how(design: Design, depths: Mapping[int, Networks]) -> str:
    wanted = design.seeds * len(VARIANTS)
    there = "; ".join(
        f"{depth} layers: {len(networks)} of {wanted} networks, {sum(t.diverged for t in networks.values())} diverged"
        for depth, networks in depths.items()
    )
    rates = "; ".join(
        f"{next(iter(networks.values())).run.lr:g} with {depth} layers" for depth, networks in depths.items()
    )
    chosen = (
        f". Of {', '.join(f'{rate:g}' for rate in sorted(design.rates))} it is the one at which the worst of the four "
        f"does best on {design.examples:,} unused training images, with one other seed"
    )
    return (
        f"{there}. ResNets of the CIFAR form with {design.width}, {2 * design.width} and {4 * design.width} filters, "
        f"and a first convolution of stride {design.stride}, which allows wider networks in the same time. "
        f"{design.epochs} epochs of SGD with momentum 0.9, batches of {design.batch_size}, weight decay "
        f"{design.DECAY:g} and a cosine schedule, without augmentation. One learning rate serves all four variants of "
        "a depth: "
        f"{rates}{chosen if len(design.rates) > 1 else ''}. Networks of a seed see the same images in the same order, "
        "and start from the same kernels and head, drawn as He et al. (2015) do. Biases start at 0 and batch norm at "
        "scale 1; without batch norm, no branch is scaled down. Shortcuts have no parameters. Curvature is that of the "
        f"mean loss on {CURVATURE} training images; batch norm uses the statistics of that batch, as in training. "
        "Steps along the gradient are in units of the initial learning rate."
    )
