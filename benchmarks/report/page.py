"""A report as one HTML page that needs nothing else: no network, no script, no file beside it."""

from __future__ import annotations

import base64
import html
import mimetypes
import re
from pathlib import Path

import markdown

__all__ = ["BLOCK", "shown_in_readme", "write_report"]

#: What a README shows of the report.
BLOCK = re.compile(r"(?<=<!-- report -->\n).*?(?=\n<!-- end -->)", re.DOTALL)

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 0 auto;
       padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #ddd; white-space: nowrap; text-align: left; }
th { border-bottom: 2px solid #888; }
tr:hover td { background: #f3f6fa; }
code { background: #f3f3f3; padding: 0 0.2em; } pre { overflow-x: auto; background: #f3f3f3; padding: 0.5rem; }
"""
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
    readme = directory / "README.md"
    if readme.exists():
        kept = readme.read_text(encoding="utf-8")
        readme.write_text(BLOCK.sub(lambda _: shown_in_readme(text), kept), encoding="utf-8")
    return plain, page


def shown_in_readme(text: str) -> str:
    """Leave out the title of a report, and name its figures, which are not committed."""
    body = text.rstrip().split("\n\n", 1)[1]
    return re.sub(r"^!\[([^\]]+)\]\([^)]+\)$", r"*Figure, drawn by `report`: \1.*", body, flags=re.MULTILINE)


def _page(text: str, directory: Path) -> str:
    body = markdown.markdown(text, extensions=["tables"])
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    body = re.sub(r'src="([^":]+)"', lambda match: f'src="{_inlined(directory / html.unescape(match[1]))}"', body)
    title = text.split("\n", 1)[0].lstrip("# ")
    return _PAGE.format(title=html.escape(title), style=_STYLE, body=body)


def _inlined(path: Path) -> str:
    kind, _ = mimetypes.guess_type(path.name)
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
