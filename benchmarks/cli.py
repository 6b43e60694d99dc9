"""The command line: ``python -m benchmarks list | run STUDY``."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runs.parallel import RunsFailed
from benchmarks.runs.results import ResultsError
from benchmarks.studies import STUDIES

EXAMPLES = """\
examples:
  python -m benchmarks list
  python -m benchmarks run quick
  python -m benchmarks run quick --results elsewhere --jobs 1

Finished runs are kept in DIR/STUDY. A second call reuses them, and an interrupted study goes on where it was;
delete that directory to start afresh.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        Exit status: 0, 1 after an error, 130 after Ctrl-C.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "list":
        width = max(map(len, STUDIES))
        print("\n".join(f"{study.name:{width}}  {study.summary}" for study in STUDIES.values()))
        return 0
    if options.study not in STUDIES:
        nearest = difflib.get_close_matches(options.study, STUDIES, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        parser.error(f"there is no study {options.study!r}; {hint}studies: {', '.join(STUDIES)}")
    return _run(options.study, options.results, options.jobs)


def _run(name: str, results: Path, jobs: int) -> int:
    directory = results / name
    again = f"python -m benchmarks run {name} --results {shlex.quote(str(results))} --jobs {jobs}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        print(STUDIES[name].run(directory, jobs))
    except KeyboardInterrupt:
        print(f"\ninterrupted; what had finished is kept in {directory}, go on with\n  {again}", file=sys.stderr)
        return 130
    except RunsFailed as error:
        by_reason: dict[str, list[str]] = {}
        for run, reason in error.failures:
            by_reason.setdefault(reason, []).append(str(run))
        for reason, runs in by_reason.items():
            print(*(f"failed: {run}" for run in runs), reason, sep="\n", file=sys.stderr)
        print(f"{error}; the others are kept in {directory}, retry the failed ones with\n  {again}", file=sys.stderr)
        return 1
    except (OSError, ResultsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Train small networks by several methods and compare them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,run}")
    commands.add_parser("list", help="list the studies")
    run = commands.add_parser(
        "run",
        help="run a study, or what is missing of it, and report",
        description="Run a study, or what is missing of it, and report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("study", metavar="STUDY", help=f"one of: {', '.join(STUDIES)}")
    run.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where results go (default: %(default)s)"
    )
    run.add_argument(
        "--jobs",
        type=_positive,
        default=_cores(),
        metavar="N",
        help="runs at a time (default: one a core, %(default)s)",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
