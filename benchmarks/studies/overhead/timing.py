"""Time several functions in turn, so that a slow moment of the machine hits all, and compare their times."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping

from tqdm import trange

from benchmarks.report.intervals import AsymmetricInterval, median_interval
from benchmarks.report.table import markdown_table

__all__ = ["Times", "compared", "interleaved", "median_ratio", "milliseconds", "ratios_to", "repeats_of", "rounded"]

#: Seconds of each part in each repeat.
Times = dict[str, list[float]]


def interleaved(
    parts: Mapping[str, Callable[[], object]],
    repeats: int,
    warm_up: int,
    what: str,
    before: Mapping[str, Callable[[], object]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time each function in each repeat, in seconds.

    Parameters
    ----------
    parts : mapping of str to callable
        Functions to time.
    repeats : int
        Number of timed repeats.
    warm_up : int
        Number of untimed repeats before.
    what : str
        Description in the progress bar; no bar if it is empty.
    before : mapping of str to callable, optional
        Functions to call before each part, untimed.
    clock : callable
        Returns the time in seconds.
    """
    times: Times = {name: [] for name in parts}
    for i in trange(warm_up + repeats, desc=what, unit="repeat", file=sys.stderr, disable=not what):
        for name, part in parts.items():
            if before is not None:
                before[name]()
            start = clock()
            part()
            if i >= warm_up:
                times[name].append(clock() - start)
    return times


def rounded(times: Times) -> Times:
    """Round to four significant digits, which is more than a clock repeats."""
    return {name: [float(f"{value:.4g}") for value in of] for name, of in times.items()}


def repeats_of(times: Times) -> int:
    """Count the repeats, which are as many for each part."""
    return len(next(iter(times.values())))


def median_ratio(times: Times, part: str, whole: str) -> AsymmetricInterval:
    """Return the median over repeats of the ratio of two parts, with its interval."""
    return median_interval([p / w for p, w in zip(times[part], times[whole], strict=True)])


def milliseconds(times: Times, part: str) -> float:
    """Return the median time of a part, in milliseconds."""
    return 1e3 * statistics.median(times[part])


def ratios_to(times: Times, whole: str) -> dict[str, AsymmetricInterval]:
    """Return the ratio of each other part to one."""
    return {name: median_ratio(times, name, whole) for name in times if name != whole}


def compared(times: Times, whole: str, header: tuple[str, str, str], decimals: int = 0) -> str:
    """Tabulate the median time of each part in milliseconds, and its ratio to one of them.

    Parameters
    ----------
    times : dict of str to list of float
        Seconds of each part in each repeat.
    whole : str
        Part whose ratio is 1.
    header : tuple of str
        Heads of the columns: part, milliseconds and ratio.
    decimals : int
        Of the milliseconds.
    """
    ratios = {name: f"{ratio:.2f}" for name, ratio in ratios_to(times, whole).items()}
    return markdown_table(
        header, [(name, f"{milliseconds(times, name):.{decimals}f}", ratios.get(name, "1")) for name in times]
    )
