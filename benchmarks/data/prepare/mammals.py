"""Cut ``mammals.tsv`` from Debian's package ``wordnet-base``, with the same bytes each time.

::

    apt-get install wordnet-base
    python -m benchmarks.data.prepare.mammals [SOURCE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.data.dataset import DatasetError
from benchmarks.data.wordnet import DEBIAN, PATH, kinds_of, number, read_nouns

ROOT = "mammal"
_HEADER = """\
# Kinds of mammal in WordNet 3.0: name, and the lines (from 0, after these) of what it is directly a kind of.
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. See LICENSE.wordnet.
"""


def cut(source: Path, target: Path) -> None:
    """Write all kinds of mammal.

    Parameters
    ----------
    source : Path
        A file ``data.noun``.
    target : Path
        The file to write.

    Raises
    ------
    FileNotFoundError
        If the source does not exist; says how to install it.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source}: apt-get install wordnet-base")
    names, parents = read_nouns(source)
    mammals = number(names, parents, kinds_of(ROOT, names, parents))
    lines = [
        f"{name}\t{' '.join(map(str, above))}\n" for name, above in zip(mammals.names, mammals.parents, strict=True)
    ]
    target.write_text(_HEADER + "".join(lines), encoding="utf-8")


def main() -> None:
    """Cut the hierarchy from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data.prepare.mammals",
        description=f"Cut {PATH.name} from Debian's package wordnet-base; the same bytes each time.",
    )
    parser.add_argument("source", type=Path, nargs="?", default=DEBIAN, help="default: %(default)s")
    try:
        cut(parser.parse_args().source, PATH)
    except (FileNotFoundError, DatasetError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
