"""That the HTML page of a report is complete and self-contained."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.report.opening import DETAILS, opening
from benchmarks.report.page import write_report


class Page(HTMLParser):
    """Parser that collects a page's references, text and cells, and the elements around its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[str] = []
        self.cells: list[str] = []
        self.title = ""
        self.tags: list[str] = []
        self.around_tables: list[tuple[str, str | None]] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.references += [attributes[name] or "" for name in ("src", "href", "srcset", "data") if name in attributes]
        if tag == "table":
            self.around_tables.append(self._open[-1])
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in ("meta", "link", "img", "br", "hr"):
            self._open.append((tag, attributes.get("class")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "title":
            self.title += data
        if any(tag in ("td", "th") for tag, _ in self._open):
            self.cells[-1] += data


def test_that_the_page_of_a_report_holds_its_images_and_refers_to_nothing_else(whole, tmp_path) -> None:
    text, directory, _ = whole
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)  # other tests use the directory too
    plain, page = write_report(text, tmp_path)
    assert plain.read_text(encoding="utf-8").strip() == text.strip()
    actual = Page(page)
    images = [reference for reference in actual.references if reference.startswith("data:image/svg+xml;base64,")]
    assert [base64.b64decode(image.split(",")[1]) for image in images] == [
        (directory / name).read_bytes() for name in re.findall(r"\]\(([^)]+\.svg)\)", text)
    ]
    assert len(images) == 10
    assert all(reference.startswith("data:") for reference in actual.references)
    markup = re.sub(r'"data:[^"]*"', "", page.read_text(encoding="utf-8"))
    for outside in ("://", "@import", "url(", "<script ", "import(", "fetch(", ".svg"):
        assert outside not in markup
    assert actual.title == "Who wins?"
    assert "iframe" not in actual.tags


def test_that_the_page_has_the_tables_of_the_report_cell_by_cell(whole, tmp_path) -> None:
    text, directory, _ = whole
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    actual = Page(write_report(text, tmp_path)[1])
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| --")]
    expected = [cell.strip().replace("**", "") for line in lines for cell in line.split("|")[1:-1]]
    assert actual.cells == expected
    assert actual.around_tables == [("div", "scroll")] * len(re.findall(r"^\| -", text, re.MULTILINE))


def test_that_tables_scroll_by_themselves(tmp_path) -> None:
    page = write_report("# T\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n", tmp_path)[1]
    assert Page(page).around_tables == [("div", "scroll")]
    style = page.read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", style)


def test_that_special_characters_survive(tmp_path) -> None:
    text = '# a < b & "c" {0}\n\n| p | q & r |\n| --- | ---: |\n| < 0.001 | x & y |\n| a<b | 1 > 0 ± é |\n'
    plain, page = write_report(text, tmp_path)
    assert plain.read_text(encoding="utf-8") == text
    actual = Page(page)
    assert actual.title == 'a < b & "c" {0}'
    assert actual.cells == ["p", "q & r", "< 0.001", "x & y", "a<b", "1 > 0 ± é"]


def test_that_the_title_cannot_end_the_head(tmp_path) -> None:
    page = write_report("# a</title><b>b\n\ntext\n", tmp_path)[1].read_text(encoding="utf-8")
    assert "<title>a&lt;/title&gt;&lt;b&gt;b</title>" in page.split("<body>")[0]


def test_that_braces_and_backslashes_are_left_as_they_are(tmp_path) -> None:
    assert "{title} \\1 {0}" in write_report("# T\n\n{title} \\1 {0}\n", tmp_path)[1].read_text(encoding="utf-8")


def test_that_images_of_every_kind_are_in_the_page(tmp_path) -> None:
    (tmp_path / "a b.png").write_bytes(b"\x89PNG 1")
    (tmp_path / "c&d.svg").write_bytes(b"<svg/>")
    page = write_report("# T\n\n![one](<a b.png>)\n\n![two](c&d.svg)\n", tmp_path)[1]
    one, two = (reference for reference in Page(page).references if len(reference) > len("data:,"))
    assert one == "data:image/png;base64," + base64.b64encode(b"\x89PNG 1").decode()
    assert two == "data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()


def test_that_an_image_that_is_not_there_is_an_error(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lost\.svg"):
        write_report("# T\n\n![lost](lost.svg)\n", tmp_path)


def test_that_a_readme_beside_the_report_shows_it_without_title_names_its_figures_and_keeps_the_rest(tmp_path) -> None:
    (tmp_path / "README.md").write_text("# Ours\n\nAbove.\n\n<!-- report -->\nold\n<!-- end -->\nBelow.\n")
    (tmp_path / "figure.svg").write_text("<svg/>")
    # a backslash must not be read as a reference to a group
    write_report("# Title\n\n## Part\n\nOne \\1.\n\n![Figure](figure.svg)\n\nTwo.\n", tmp_path)
    shown = "## Part\n\nOne \\1.\n\n*Figure, drawn by `report`: Figure.*\n\nTwo."
    expected = f"# Ours\n\nAbove.\n\n<!-- report -->\n{shown}\n<!-- end -->\nBelow.\n"
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == expected


def test_that_the_first_picture_is_shown_in_a_readme_and_details_come_after_other_words(tmp_path) -> None:
    (tmp_path / "answer.svg").write_text("<svg/>")
    text = "\n\n".join([*opening("Title", "Why?", "the answer", ["**So.**"]), "Table.", DETAILS, "## More", "Words."])
    first = "Why?\n\n![the answer](answer.svg)\n\n- **So.**\n\nTable."
    one, two = "# Ours\n\n<!-- report -->\n{}\n<!-- end -->\nBelow.\n", "\n<!-- details -->\n{}\n<!-- end -->\nLast.\n"
    readme = tmp_path / "README.md"
    for before, after in (
        (one.format(""), one.format(f"{first}\n\n## More\n\nWords.")),
        (one.format("") + two.format(""), one.format(first) + two.format("## More\n\nWords.")),
        (one.format("old") + two.format("old\n\nold"), one.format(first) + two.format("## More\n\nWords.")),
    ):
        readme.write_text(before, encoding="utf-8")
        for _ in range(2):  # writing it again changes nothing
            write_report(text, tmp_path)
            assert readme.read_text(encoding="utf-8") == after


def test_that_there_is_no_readme_where_there_was_none(tmp_path) -> None:
    write_report("# Title\n\nText.", tmp_path)
    assert not (tmp_path / "README.md").exists()
