"""Derive ``emg.npz`` from the table that geomstats ships, with the same bytes each time.

::

    pip download --no-deps geomstats && unzip -j geomstats-*.whl '*/emg.csv'
    python -m benchmarks.data.prepare.emg emg.csv
"""

from __future__ import annotations

import argparse
import csv
from itertools import groupby
from pathlib import Path

import numpy as np

from benchmarks.data.emg import PATH, SESSIONS, SIGNS

#: Samples of 4 ms in a window, and samples dropped at both ends of a sign, where the hand moves.
WINDOW, MARGIN = 250, 500


def cut(source: Path, target: Path) -> None:
    """Write the covariance of each window.

    Parameters
    ----------
    source : Path
        geomstats' ``emg.csv``: one line per sample with eight channels, hand sign and session.
    target : Path
        The npz file to write: lower triangles row by row, signs, sessions and stretches of one sign.

    Raises
    ------
    FileNotFoundError
        If the source does not exist; says how to get it.
    ValueError
        If the file is not that table.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source}: pip download --no-deps geomstats, and unzip emg.csv from the wheel")
    rows, columns = np.tril_indices(8)
    covariances, signs, sessions, segments = [], [], [], []
    with source.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        wanted = ["time", *(f"c{i}" for i in range(8)), "label", "exp"]
        if table.fieldnames != wanted:
            raise ValueError(f"{source}: columns {table.fieldnames} where {wanted} should be")
        for segment, ((sign, session), lines) in enumerate(groupby(table, lambda line: (line["label"], line["exp"]))):
            if sign not in SIGNS or session not in SESSIONS:
                raise ValueError(f"{source}, line {table.line_num}: no such sign or session: {sign!r}, {session!r}")
            signal = np.array([[float(line[f"c{i}"]) for i in range(8)] for line in lines])[MARGIN:-MARGIN]
            for start in range(0, len(signal) - WINDOW + 1, WINDOW):
                covariances.append(np.cov(signal[start : start + WINDOW].T)[rows, columns])
                signs.append(SIGNS.index(sign))
                sessions.append(SESSIONS.index(session))
                segments.append(segment)
    np.savez_compressed(
        target,
        covariances=np.array(covariances, dtype=np.float32),
        signs=np.array(signs, dtype=np.uint8),
        sessions=np.array(sessions, dtype=np.uint8),
        segments=np.array(segments, dtype=np.uint8),
    )


def main() -> None:
    """Derive the array from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data.prepare.emg",
        description=f"Derive {PATH.name} from the emg.csv that geomstats ships; the same bytes each time.",
    )
    parser.add_argument("source", type=Path, nargs="?", default=Path("emg.csv"), help="default: %(default)s")
    try:
        cut(parser.parse_args().source, PATH)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
