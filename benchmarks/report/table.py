"""Write tables that read well in a terminal and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[-<]? ?\d|nan")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write an aligned Markdown table: words to the left, numbers to the right.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    rows : sequence of sequences of str
        Cells.

    Returns
    -------
    str
        Lines without a newline at the end.
    """
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    to_the_right = [i > 0 and any(_NUMBER.match(cell) for cell in column[1:]) for i, column in enumerate(columns)]
    rule = ["-" * (width - right) + ":" * right for width, right in zip(widths, to_the_right, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, to_the_right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(header), line(rule), *map(line, rows)])
