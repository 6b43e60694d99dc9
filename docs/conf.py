"""Configure the site that ``make docs`` builds from the guide, the docstrings, the examples and the results."""

from __future__ import annotations

import functools
import pkgutil
import re
import shutil
import sys
import tomllib
from pathlib import Path
from posixpath import relpath
from typing import Any

import matplotlib
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).parent
ROOT = DOCS.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))  # this source, whatever else is installed
matplotlib.use("agg")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT.get("urls", {}).get("Repository")

project = PROJECT["name"]
release = version = PROJECT["version"]
project_copyright = f"the authors of {project}"

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "gallery/*.py", "gallery/*.ipynb"]
templates_path = ["_templates"]
default_role = "literal"
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!rsam\b).*")]  # other libraries, whose inventories need a network
suppress_warnings = ["myst.header"]  # reports put levels of headings below their title that are not the next ones

# Pages
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
if REPOSITORY:
    html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": "docs/"}
myst_heading_anchors = 4
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

# Reference: one page for each module, of the names in its __all__
autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # numpydoc's Parameters say more
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Gallery: building it runs the examples
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\w+\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "write_computation_times": False,
    "min_reported_time": 1e9,  # seconds of one machine say nothing
    "thumbnail_size": (400, 280),
    "image_scrapers": ("matplotlib",),
}


def copy_results() -> None:
    """Write one page for each study from its committed report and picture."""
    pages = DOCS / "results"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir()
    for report in sorted(RESULTS.glob("*/README.md")):
        study = report.parent.name
        text = report.read_text(encoding="utf-8")
        (pages / f"{study}.md").write_text(relink(text, report, f"results/{study}"), encoding="utf-8")


def relink(text: str, origin: Path, page: str) -> str:
    """Point the links of a file at pages of the site, at files that Sphinx copies, or at the repository.

    Parameters
    ----------
    text : str
        Markdown.
    origin : Path
        The file that it is from, to which its links are relative.
    page : str
        The page that shows it, relative to the root of the site.
    """

    def point(found: re.Match[str]) -> str:
        label, target, anchor = found.groups(default="")
        path = (origin.parent / target).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            return found[0]
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".md" and path.is_relative_to(RESULTS):
            name = f"docs/results/{path.parent.name}.md"
        elif not path.is_relative_to(DOCS) and path.suffix != ".svg":
            return f"[{label}]({REPOSITORY}/blob/main/{name}{anchor})" if REPOSITORY else label
        return f"[{label}]({relpath(name, Path('docs', page).parent.as_posix())}{anchor})"

    return re.sub(r"\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)", point, text)


def mend_source(app: Sphinx, page: str, source: list[str]) -> None:
    """Point links to files outside of the site, end blocks of code after their code, and say what thumbnails show."""
    path = DOCS / f"{page}.md"
    if path.exists():
        text = source[0] if page.startswith("results/") else relink(source[0], path, page)
        source[0] = re.sub(r"\n\n```$", "\n```", text, flags=re.MULTILINE)
    if page == "gallery/index":
        thumbnail = r":alt:(\s+:doc:`/gallery/(\w+)`)"
        source[0] = re.sub(thumbnail, lambda found: f":alt: {found[2].replace('_', ' ')}{found[1]}", source[0])


def visit_math(self: Any, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script or a network."""
    block = isinstance(node, nodes.math_block)
    formula = re.sub(r"\\[bB]igg?[lr]?(?![a-z])", "", node.astext())  # MathML stretches delimiters by itself
    self.body.append(tex2mathml(formula, as_block=block))
    raise nodes.SkipNode


@functools.cache
def import_name(name: str) -> Any:
    """Return the object of a dotted name, or None."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return None


def refer(app: Sphinx, page: str, target: str, text: nodes.Node) -> nodes.Element | None:
    """Refer to the documentation of a name, or of another name under which the package exports the same object."""
    objects = app.env.get_domain("py").objects
    last = target.rsplit(".", 1)[-1]
    aliases = (name for name in objects if name.rsplit(".", 1)[-1] == last and import_name(name) is import_name(target))
    name = target if target in objects else next(aliases, None)
    if name is None:
        return None
    return make_refnode(app.builder, page, objects[name].docname, objects[name].node_id, text)


def find_alias(app: Sphinx, env: Any, node: nodes.Element, text: nodes.Node) -> nodes.Element | None:
    """Resolve what Sphinx does not find."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("rsam."):
        return None
    return refer(app, node["refdoc"], target, text)


def link_names(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Link full names in code of the text, such as rsam.nn.constrain, to the reference."""
    for literal in list(tree.findall(nodes.literal)):
        name = re.match(r"rsam(\.\w+)+", literal.astext())
        if name and not isinstance(literal.parent, nodes.reference | nodes.title):
            reference = refer(app, page, name[0], literal.deepcopy())
            if reference is not None:
                literal.replace_self(reference)


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("builder-inited", lambda app: copy_results())
    app.connect("source-read", mend_source)
    app.connect("missing-reference", find_alias)
    app.connect("doctree-resolved", link_names)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))


html_math_renderer = "mathml"
