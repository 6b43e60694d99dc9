"""Parse and run the command line: ``python -m benchmarks list | run STUDY | report STUDY | claims``."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data import DatasetError
from benchmarks.data.directory import DIRECTORY, DOWNLOAD
from benchmarks.report.page import write_report
from benchmarks.runs.cluster import ClusterError
from benchmarks.runs.parallel import RunsFailed, Workers
from benchmarks.runs.results import ResultsError
from benchmarks.studies import STUDIES, NothingToReport, Study
from benchmarks.studies.claims import PICTURE, draw_claims, said, shown_in_readme
from benchmarks.studies.overhead import OVERHEAD
from benchmarks.studies.overhead.quoted import with_figures

EXAMPLES = """\
examples:
  python -m benchmarks list
  python -m benchmarks run quick
  python -m benchmarks run optimizers --quick
  python -m benchmarks run optimizers --scheduler tcp://host:8786
  python -m benchmarks report optimizers --results benchmarks/results
  python -m benchmarks run hyperbolic-nouns --jobs 1

Finished runs are kept in DIR/STUDY (DIR/STUDY-quick with --quick). A second call reuses them, and an interrupted study
goes on where it was; delete that directory to start afresh.

On many machines: `dask scheduler` on one of them, `dask worker ADDRESS --nthreads 1` in a copy of this repository on
each, and `run STUDY --scheduler ADDRESS` anywhere. Workers may come and go.
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
    if options.command == "claims":
        return _show_claims(options.results)
    if options.study not in STUDIES:
        nearest = difflib.get_close_matches(options.study, STUDIES, n=1, cutoff=0.6)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        parser.error(f"there is no study {options.study!r}; {hint}studies: {', '.join(STUDIES)}")
    study = STUDIES[options.study]
    directory = options.results / study.name
    if options.quick:
        study, directory = study.quick(), options.results / f"{study.name}-quick"
    if options.command == "report":
        return _report(study, directory, options)
    if options.data_dir is not None:
        os.environ[DIRECTORY] = str(options.data_dir.absolute())
    if options.download:
        os.environ[DOWNLOAD] = "1"
    workers = Workers(options.jobs, options.scheduler, options.keep_weights)
    again = shlex.join(["python", "-m", "benchmarks", *(arguments if arguments is not None else sys.argv[1:])])
    return _run(study, directory, workers, again) or _report(study, directory, options)


def _run(study: Study, directory: Path, workers: Workers, again: str) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        study.run(directory, workers)
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
    except (OSError, ResultsError, DatasetError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _report(study: Study, directory: Path, options: argparse.Namespace) -> int:
    try:
        text = study.report(directory)
        files = write_report(text, directory)
    except NothingToReport as error:
        print(f"error: {error}{_first(options)}", file=sys.stderr)
        return 1
    except (OSError, ResultsError, DatasetError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text, *files, sep="\n")
    return 0


def _show_claims(results: Path) -> int:
    """Write what the studies say of the claims into the README, the figures of costs, and the picture."""
    root = Path(__file__).parents[1]
    readme = root / "README.md"
    try:
        costs = OVERHEAD.rows(results / OVERHEAD.name)
    except NothingToReport as error:
        print(f"error: {error}; first `python -m benchmarks run overhead --results {results}`", file=sys.stderr)
        return 1
    text = with_figures(shown_in_readme(said(results), readme.read_text(encoding="utf-8")), costs)
    draw_claims(results, root / PICTURE)
    readme.write_text(text, encoding="utf-8")
    print(readme, root / PICTURE, sep="\n")
    return 0


def _first(options: argparse.Namespace) -> str:
    """Say what to do before a report can be had; nothing after a run that found no data, which has said so."""
    if options.command == "run":
        return ""
    words = ["python", "-m", "benchmarks", "run", options.study, "--results", str(options.results)]
    words += ["--quick"] if options.quick else []
    return f"; first `{shlex.join(words)}`"


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Train small networks by several methods, compare them, and report with figures.",
        epilog=EXAMPLES,
        formatter_class=form,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,run,report,claims}")
    commands.add_parser("list", help="list the studies")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("study", metavar="STUDY", help=f"one of: {', '.join(STUDIES)}")
    common.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where results go (default: %(default)s)"
    )
    common.add_argument("--quick", action="store_true", help="a short version of the study, in less than five minutes")
    text = "Run a study, or what is missing of it, and report."
    run = commands.add_parser(
        "run", parents=[common], help=text.lower()[:-1], description=text, epilog=EXAMPLES, formatter_class=form
    )
    text = "Report on the results that are there, as Markdown and as one HTML page, without running anything."
    commands.add_parser(
        "report", parents=[common], help="report on results", description=text, epilog=EXAMPLES, formatter_class=form
    )
    text = "Show in this repository's README what the results say of the claims, and the figures of costs."
    claims = commands.add_parser("claims", help=text.lower()[:-1], description=text)
    claims.add_argument(
        "--results", type=Path, default=Path("benchmarks/results"), metavar="DIR", help="default: %(default)s"
    )
    run.add_argument(
        "--jobs",
        type=_positive,
        default=_cores(),
        metavar="N",
        help="runs at a time on this machine (default: one per core, %(default)s)",
    )
    run.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="let the workers of this Dask scheduler do the runs; `local` starts a cluster of N on this machine",
    )
    run.add_argument(
        "--keep-weights",
        action="store_true",
        help="keep weights of networks measured on test data, in DIR/STUDY/weights of the machine that trained them",
    )
    run.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help=f"where data sets are that do not come with this repository (default: {DIRECTORY} of the environment, or "
        "data)",
    )
    run.add_argument("--download", action="store_true", help="let torchvision download missing data sets there")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _cores() -> int:
    """Count the cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
