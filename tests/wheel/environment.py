"""Make environments that hold a wheel, what its metadata require, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["install", "run"]


def install(wheel: Path, directory: Path, extra: str = "") -> Path:
    """Install a wheel with pip into a new environment, and link there what it and an extra require.

    Torch alone would take minutes and gigabytes to install anew; links to the packages of this environment are as good,
    if there are links to those alone that the metadata name, and those that these name in turn.

    Returns
    -------
    Path
        The interpreter of the environment.
    """
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    (packages,) = (directory / "lib").glob("python*/site-packages")
    (metadata,) = packages.glob("rsam-*.dist-info")
    for found in _closure(Distribution.at(metadata).requires or [], extra):
        for name in _top_level(found):
            if not (packages / name).exists():
                (packages / name).symlink_to(Path(found.locate_file(name)).resolve())
    subprocess.run([*pip, "check"], check=True)
    return python


def run(python: Path, script: str, directory: Path) -> str:
    """Run a script that sees neither this directory nor variables of the shell, and return what it prints."""
    command = [str(python), "-I", "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _closure(requirements: Iterable[str], extra: str) -> Iterator[Distribution]:
    """Yield the installed distributions of requirements, and of theirs."""
    seen: set[str] = set()
    waiting = [(text, extra) for text in requirements]
    while waiting:
        requirement, of = Requirement(waiting[0][0]), waiting.pop(0)[1]
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in seen or not _applies(requirement, of):
            continue
        found = distribution(name)
        assert requirement.specifier.contains(found.version, prereleases=True), f"{requirement}, not {found.version}"
        seen.add(name)
        yield found
        waiting += [(text, each) for text in found.requires or [] for each in ("", *requirement.extras)]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _top_level(found: Distribution) -> set[str]:
    """Return the files and directories of a distribution next to its metadata; scripts are elsewhere."""
    return {path.parts[0] for path in found.files or []} - {"..", "__pycache__"}
