"""Write a report as one HTML page that needs no network and no other file, and a script only to sort."""

from __future__ import annotations

import base64
import html
import mimetypes
import re
from pathlib import Path

import markdown

from benchmarks.report.opening import ANSWER, DETAILS

__all__ = ["PAGE", "shown_in_readme", "write_report"]

#: What a study has found, in the directory of its rows; committed.
PAGE = "README.md"

_STYLE, _SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def write_report(text: str, directory: Path) -> tuple[Path, Path]:
    """Write a report twice: as it is, and as a page with its images in it; and into the README, if there is one.

    Parameters
    ----------
    text : str
        Markdown, whose first line is the title; images are files in the directory.
    directory : Path
        Where ``report.md`` and ``report.html`` go; a ``README.md`` there shows the report between two comments.

    Returns
    -------
    tuple of Path
        The two files.
    """
    plain, page = directory / "report.md", directory / "report.html"
    plain.write_text(text.rstrip() + "\n", encoding="utf-8")
    page.write_text(_page(text, directory), encoding="utf-8")
    readme = directory / PAGE
    if readme.exists():
        readme.write_text(shown_in_readme(text, readme.read_text(encoding="utf-8")), encoding="utf-8")
    return plain, page


def shown_in_readme(text: str, readme: str) -> str:
    """Put a report into a README: without its title, and with the names alone of figures that are not committed.

    Parameters
    ----------
    text : str
        The report.
    readme : str
        Has the comments ``<!-- report -->`` and ``<!-- end -->``, between which the report goes. What comes after
        :data:`~benchmarks.report.opening.DETAILS` goes between this comment and another ``<!-- end -->``, if the
        README has it.

    Returns
    -------
    str
        The README with the present report, and all else as it was.
    """
    body = text.rstrip().split("\n\n", 1)[1]
    body = re.sub(
        rf"^!\[([^\]]+)\]\((?!{re.escape(ANSWER)}\))[^)]+\)$",
        r"*Figure, drawn by `report`: \1.*",
        body,
        flags=re.MULTILINE,
    )
    first, _, details = body.partition(f"\n\n{DETAILS}\n\n")
    if DETAILS not in readme:
        first, details = "\n\n".join(filter(None, (first, details))), ""
    for comment, part in (("<!-- report -->", first), (DETAILS, details)):
        block = re.compile(rf"(?<={re.escape(comment)}\n).*?(?=\n<!-- end -->)", re.DOTALL)
        readme = block.sub(lambda _, part=part: part, readme, count=1)  # type: ignore[misc]
    return readme


def _page(text: str, directory: Path) -> str:
    body = markdown.markdown(text, extensions=["tables"])
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")
    body = re.sub(r'src="([^":]+)"', lambda match: f'src="{_inlined(directory / html.unescape(match[1]))}"', body)
    title = text.split("\n", 1)[0].lstrip("# ")
    return _PAGE.format(title=html.escape(title), style=_STYLE, body=body, script=_SCRIPT)


def _inlined(path: Path) -> str:
    kind, _ = mimetypes.guess_type(path.name)
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
