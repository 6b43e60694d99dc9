"""That the site of ``make docs`` has no broken link, fits the screens of a desk and a phone, and can be searched.

No network is needed: the browser finds this machine alone.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest

from tests.browser import CHROMIUM, QUIET, SCREENS

SITE = Path(__file__).parents[2] / "docs" / "_build"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_static" not in path.parts)
pytestmark = pytest.mark.skipif(not PAGES, reason="no site: make docs")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

#: Where the sidebars of the theme leave the least room, too.
WIDTHS = {**SCREENS, "small window": (1100, 800)}
#: Opens every page in a frame, once, and measures it at each width.
VISIT = """
const frame = document.body.appendChild(document.createElement("iframe"));
frame.style.border = 0;
const pause = () => new Promise(resolve => setTimeout(resolve, 50));
(async () => {
  const found = {};
  for (const page of PAGES) {
    await new Promise(resolve => { frame.onload = resolve; frame.src = "/" + page; });
    const document = frame.contentDocument, images = [...document.images];
    images.forEach(image => { image.loading = "eager"; });
    await Promise.all(images.map(image => image.decode().catch(() => null)));
    const requests = frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
    const outside = requests.filter(name => !name.startsWith(location.origin) && !name.startsWith("data:"));
    found[page] = { outside, broken: images.filter(image => !image.naturalWidth).map(image => image.src), widths: {} };
    for (const [name, [width, height]] of Object.entries(WIDTHS)) {
      Object.assign(frame, { width, height });
      await pause();
      found[page].widths[name] = document.documentElement.scrollWidth;
    }
  }
  return found;
})().catch(String).then(found => fetch("/told", { method: "POST", body: JSON.stringify(found) }));
"""
#: Searches, and waits for results that stay the same.
SEARCH = """
const frame = document.body.appendChild(document.createElement("iframe"));
frame.src = "/search.html?q=RSAM";
let before = 0;
setInterval(() => {
  const results = [...frame.contentDocument.querySelectorAll("#search-results ul.search li a")].map(a => a.textContent);
  if (results.length && results.length === before) fetch("/told", { method: "POST", body: JSON.stringify(results) });
  before = results.length;
}, 1000);
"""


class Page(HTMLParser):
    """What a page points at, and what in it can be pointed at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.anchors |= {name for name in (values.get("id"), values.get("name")) if name}
        self.links += [link for link in (values.get("href"), values.get("src")) if link]
        if tag == "img":
            self.images.append(values)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site, a page with a script, and takes what the script tells."""

    told: queue.Queue[Any]
    script: str

    def do_GET(self) -> None:
        if self.path != "/ask":
            return super().do_GET()
        self._reply(f"<!DOCTYPE html><link rel=icon href='data:,'><body><script>{self.script}</script>".encode())

    def do_POST(self) -> None:
        self.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._reply(b"")

    def _reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def served(site: Path, script: str) -> Iterator[tuple[str, queue.Queue[Any]]]:
    """Serve a site and a script; yield the address of the script, and what it tells."""
    told: queue.Queue[Any] = queue.Queue()
    handler = type("Asking", (Handler,), {"told": told, "script": script})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/ask", told
    finally:
        server.shutdown()
        server.server_close()


def asked(site: Path, directory: Path, script: str, **values: Any) -> tuple[Any, list[str]]:
    """Return what a script tells that runs beside the pages of a site, and the lines of the console."""
    constants = "".join(f"const {name} = {json.dumps(value)};" for name, value in values.items())
    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    log = directory / "log"
    with served(site, constants + script) as (address, told), log.open("w", encoding="utf-8") as errors:
        command = [str(CHROMIUM), *QUIET, alone, f"--user-data-dir={directory / 'profile'}", "--window-size=1400,1000"]
        browser = subprocess.Popen([*command, "--remote-debugging-port=0", address], stderr=errors)
        try:
            answer = told.get(timeout=480)
        finally:
            browser.terminate()
            browser.wait(timeout=60)
    return answer, [line for line in log.read_text(encoding="utf-8").splitlines() if "CONSOLE" in line]


@functools.cache
def parsed(page: str) -> Page:
    return Page(SITE / page)


@pytest.mark.parametrize("page", PAGES)
def test_that_links_lead_somewhere_and_images_have_alternative_text(page) -> None:
    broken = []
    for link in parsed(page).links:
        target, anchor = urldefrag(urljoin(f"http://site/{page}", link))
        if urlparse(target).netloc != "site" or urlparse(target).scheme != "http":
            continue
        path = unquote(urlparse(target).path).lstrip("/")
        if path.endswith("/") or not path:
            path += "index.html"
        if not (SITE / path).is_file() or (
            anchor and path.endswith(".html") and unquote(anchor) not in parsed(path).anchors
        ):
            broken.append(link)
    assert broken == []
    assert [image for image in parsed(page).images if not (image.get("alt") or "").strip()] == []


@needs_browser
def test_that_pages_fit_all_screens_with_their_images_and_a_silent_console(tmp_path) -> None:
    found, console = asked(SITE, tmp_path, VISIT, PAGES=PAGES, WIDTHS=WIDTHS)
    assert isinstance(found, dict), found
    assert found.keys() == set(PAGES)
    expected = {"outside": [], "broken": [], "widths": {name: width for name, (width, _) in WIDTHS.items()}}
    assert {page: seen for page, seen in found.items() if seen != expected} == {}
    assert console == []


@needs_browser
def test_that_the_search_finds_the_optimizer_without_a_network(tmp_path) -> None:
    results, console = asked(SITE, tmp_path, SEARCH)
    assert any("RSAM" in result for result in results)
    # Sphinx takes the dots in the anchors of modules for classes, and then shows the beginning of the page
    assert [line for line in console if "Anchored content block not found" not in line] == []


@needs_browser
def test_that_wide_pages_missing_images_errors_and_the_network_would_be_seen(tmp_path) -> None:
    (tmp_path / "wrong.html").write_text(
        "<!DOCTYPE html><body><div style='width: 2000px'>wide</div><img src='none.png' alt='none'>"
        "<script src='http://example.org/a.js'></script><script>nothing.like.that()</script>",
        encoding="utf-8",
    )
    found, console = asked(tmp_path, tmp_path, VISIT, PAGES=["wrong.html"], WIDTHS=WIDTHS)
    assert min(found["wrong.html"]["widths"].values()) >= 2000
    assert len(found["wrong.html"]["broken"]) == 1
    assert any("nothing is not defined" in line for line in console)
    assert found["wrong.html"]["outside"] == ["http://example.org/a.js"]
