"""Draw settings at random from ranges, and widen the ranges where the best setting lies at an end."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scipy.stats import qmc

from benchmarks.run import Knob, Run

__all__ = ["EDGE", "WIDER", "Part", "Range", "Sample"]

#: Part of a range, in the logarithm, that counts as its end.
EDGE = 1 / 16
#: Part of its length by which a range is widened, and of the number of settings that are drawn there: settings are then
#: as dense as if the range had been wider from the start.
WIDER = 1 / 4
#: Knobs by the column of random numbers that they take, so that methods that share a knob share its values; the radius
#: of an ascent and the weight of a penalty take the same.
_COLUMNS = {Knob.LR: 0, Knob.WEIGHT_DECAY: 1, Knob.RHO: 2, Knob.PENALTY: 2, Knob.KERNEL_RATE: 3}


@dataclass(frozen=True)
class Range:
    """Range of a knob; settings are drawn uniformly in its logarithm.

    Attributes
    ----------
    knob : Knob
        The knob.
    low, high : float
        Ends, both positive.
    natural : bool
        Whether the lower end is a natural one: below it the knob does nothing any more.
    """

    knob: Knob
    low: float
    high: float
    natural: bool = False

    @property
    def length(self) -> float:
        """Length in the logarithm."""
        return math.log(self.high / self.low)

    def at(self, part: float) -> float:
        """Return the value at this part of the range, in the logarithm, to three digits."""
        return float(f"{self.low * math.exp(part * self.length):.3g}")

    def where(self, value: float) -> float:
        """Return at which part of the range a value lies, the inverse of :meth:`at`."""
        return math.log(value / self.low) / self.length


@dataclass(frozen=True)
class Part:
    """Settings drawn from one range per knob.

    Attributes
    ----------
    ranges : tuple of Range
        The ranges.
    number : int
        How many settings.
    seed : int
        Of the random numbers, scrambled Sobol points: they cover ranges more evenly than independent numbers do.
    """

    ranges: tuple[Range, ...]
    number: int
    seed: int = 0

    def settings(self, run: Run) -> list[Run]:
        """Turn the knobs of a run to each setting."""
        points = qmc.Sobol(1 + max(_COLUMNS.values()), rng=self.seed).random_base2(math.ceil(math.log2(self.number)))
        settings = []
        for point in points[: self.number]:
            setting = run
            for one in self.ranges:
                setting = one.knob.turn(setting, one.at(float(point[_COLUMNS[one.knob]])))
            settings.append(setting)
        return settings


@dataclass(frozen=True)
class Sample:
    """Random sample of settings from ranges, some of which may have been widened.

    Attributes
    ----------
    parts : tuple of Part
        The first sample, and one more for each end at which a range was widened.

    Examples
    --------
    >>> sample = Sample.of(Range(Knob.LR, 0.01, 1.0), Range(Knob.RHO, 0.0125, 0.8, natural=True), number=8)
    >>> [range.high for range in sample.widened(Knob.LR, upper=True).ranges]
    [3.16, 0.8]
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *ranges: Range, number: int = 32) -> Sample:
        """Draw so many settings from ranges."""
        return cls((Part(ranges, number),))

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """Knobs that are tuned."""
        return tuple(one.knob for one in self.parts[0].ranges)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Range of each knob, as wide as it is by now."""
        by_knob = zip(*(part.ranges for part in self.parts), strict=True)
        return tuple(
            replace(of_knob[0], low=min(r.low for r in of_knob), high=max(r.high for r in of_knob))
            for of_knob in by_knob
        )

    def settings(self, run: Run) -> list[Run]:
        """Turn the knobs of a run to each setting; those of the first sample come first."""
        return [setting for part in self.parts for setting in part.settings(run)]

    def ends(self, setting: Run) -> list[tuple[Knob, bool]]:
        """Name the knobs of a setting that lie at an end that is not a natural one, and whether it is the upper one."""
        found = []
        for one in self.ranges:
            where = one.where(one.knob.of(setting))
            if where > 1 - EDGE or (where < EDGE and not one.natural):
                found.append((one.knob, where > 0.5))
        return found

    def widened(self, knob: Knob, upper: bool) -> Sample:
        """Add settings from beyond an end of a knob's range; all others stay, so that their rows are kept."""
        first, now = (next(r for r in ranges if r.knob is knob) for ranges in (self.parts[0].ranges, self.ranges))
        factor = math.exp(WIDER * first.length)
        added = (
            replace(now, low=now.high, high=float(f"{now.high * factor:.3g}"))
            if upper
            else replace(now, low=float(f"{now.low / factor:.3g}"), high=now.low)
        )
        ranges = tuple(added if one.knob is knob else one for one in self.ranges)
        return Sample((*self.parts, Part(ranges, math.ceil(WIDER * self.parts[0].number), seed=len(self.parts))))

    def corner(self) -> Sample:
        """Keep two settings, for a smoke test."""
        return Sample((replace(self.parts[0], number=2),))
