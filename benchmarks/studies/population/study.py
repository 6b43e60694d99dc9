"""The study of a population of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

from benchmarks.data import load
from benchmarks.report.forest import Group
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.population.design import PLACES, Design, Member, Place, members
from benchmarks.studies.population.figures import claim_groups
from benchmarks.studies.population.report import report
from benchmarks.studies.population.rules import FROZEN, HELD_BACK
from benchmarks.studies.population.training import Trajectory, follow
from benchmarks.studies.population.verdicts import all_findings
from benchmarks.studies.study import ROWS, NothingToReport, announce, cost, preliminary, present

__all__ = ["PopulationStudy"]

#: Seconds of the processor that a network of full length takes, and a short one, for the hours that are printed.
_SECONDS = {"cifar10": (140, 60), "mnist1d": (30, 12), "fashion_mnist": (60, 33)}


@dataclass(frozen=True)
class PopulationStudy:
    """Trains networks that nobody tuned, and measures margins and curvature on the way.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    designs : tuple of Design
        Which networks.
    places : mapping of str to Place
        Data sets by the names that designs use.
    """

    name: str
    summary: str
    designs: tuple[Design, ...]
    places: Mapping[str, Place] = field(default_factory=lambda: PLACES)

    def run(self, directory: Path, workers: Workers) -> None:
        """Train the networks that are missing, those of a base configuration on all data sets one after the other."""
        designs = [design for design in self.designs if self._is_present(self.places[design.place])]
        wanted = sorted(chain.from_iterable(map(members, designs)), key=lambda m: (m.label_noise > 0, m.base))
        runs = [member.run(self.places) for member in wanted]
        results = self._results(directory)
        found = results.find(runs)
        missing = [member for member, run in zip(wanted, runs, strict=True) if run not in found]
        announce([self._seconds(member) for member in missing])
        collect(runs, follow, results, workers)

    def report(self, directory: Path) -> str:
        """Report on the networks that are there."""
        results = self._results(directory)
        found = self.networks(directory)
        by_place = self._by_place({member: t for member, t in found.items() if not member.label_noise})
        if not by_place:
            raise NothingToReport(f"{results.path} has no rows")
        return report(
            by_place,
            preliminary(self._missing(found)),
            cost(results, tuned=False),
            directory,
            FROZEN,
            {m: t for m, t in found.items() if m.place == HELD_BACK and not m.label_noise},
            self._by_place({member: t for member, t in found.items() if member.label_noise}),
        )

    def claims(self, directory: Path) -> list[Group]:
        """Lay out what decides the claims, as soon as there are enough networks."""
        found = self.networks(directory)
        right = {member: t for member, t in found.items() if not member.label_noise}
        by_place = self._by_place(right)
        groups = claim_groups(all_findings(by_place), all_findings(by_place, learned=True))
        if not self._missing(found):
            return groups
        return [replace(group, verdict=f"{group.verdict}, preliminary") for group in groups]

    def _by_place(self, networks: Mapping[Member, Trajectory]) -> dict[str, dict[Member, Trajectory]]:
        """Sort networks by the label of their data set, and leave out the set that is held back."""
        return {
            place.label: of_place
            for key, place in self.places.items()
            if key != HELD_BACK and (of_place := {m: t for m, t in networks.items() if m.place == key})
        }

    def quick(self) -> PopulationStudy:
        """Shorten the study to a few small networks."""
        places = {
            "images": Place("Fashion-MNIST mini", "fashion_mnist_mini", 1_000, (3, 4, 5, 6), 4),
            "signals": Place("MNIST-1D", "mnist1d", 1_000, (4, 6, 8, 10), 8),
        }
        designs = tuple(Design(name, bases=4, varied=2) for name in places)
        return PopulationStudy(self.name, self.summary, designs, places)

    def networks(self, directory: Path) -> dict[Member, Trajectory]:
        """Find the networks that are trained."""
        wanted: Sequence[Member] = [m for design in self.designs for m in members(design)]
        found = self._results(directory).find([m.run(self.places) for m in wanted])
        return {m: found[run] for m in wanted if (run := m.run(self.places)) in found}

    def _missing(self, found: Mapping[Member, Trajectory]) -> list[str]:
        """Say how many networks of each design are not there."""
        missing = []
        for design in self.designs:
            wanted = members(design)
            count = sum(member not in found for member in wanted)
            noise = " with wrong labels" if any(design.label_noise) else ""
            if count:
                missing.append(f"{count} of {len(wanted)} networks{noise} on {self.places[design.place].label}")
        return missing

    @staticmethod
    def _is_present(place: Place) -> bool:
        return present(place.label, partial(load, place.dataset))

    def _seconds(self, member: Member) -> float:
        """Predict what a network takes."""
        full, quarter = _SECONDS.get(member.place, (5, 3))
        return full if member.hyperparameters["length"] == "full" else quarter

    def _results(self, directory: Path) -> Results[Trajectory]:
        return Results(directory / ROWS, Trajectory)
