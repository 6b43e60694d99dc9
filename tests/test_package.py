"""That the package imports only what its metadata declare, in one direction."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import torch

import rsam

ROOT = Path(rsam.__file__).parent
# parts that each part may import
MAY_IMPORT = {
    "errors": set(),
    "removed": set(),
    "constrained": set(),
    "geometry": {"errors", "removed"},
    "evaluation": {"errors", "geometry", "removed"},
    "optim": {"constrained", "errors", "geometry"},
    "nn": {"constrained", "evaluation", "geometry", "optim", "removed"},
    "curvature": {"errors", "geometry", "evaluation"},
    "losses": {"errors", "geometry", "evaluation"},
    "margins": {"errors", "geometry", "evaluation"},
    "testing": {"errors", "geometry", "removed"},
    "integrations": {"geometry", "optim"},
}


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a syntax tree, without blocks for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            child = ast.Module(child.orelse, [])
        yield child
        yield from _statements(child)


def _imported(file: Path) -> Iterator[str]:
    """Return the full names of modules and their members that a file imports, at any time."""
    for node in _statements(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _imports(file: Path) -> set[str]:
    """Return the modules of rsam that a file imports."""
    names = {name if name in MODULES else name.rpartition(".")[0] for name in _imported(file)}
    return names & MODULES.keys()


def _name(file: Path) -> str:
    parts = ("rsam", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(file): file for file in ROOT.rglob("*.py")}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_run_one_way_only(part) -> None:
    for module, file in MODULES.items():
        if module.split(".")[1:2] == [part]:
            imported = {name.split(".")[1] for name in _imports(file) if "." in name}
            assert imported <= {*MAY_IMPORT[part], part}, file


def test_that_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: _imports(file) for module, file in MODULES.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def _asked_for(file: Path) -> Iterator[str]:
    """Return the full names of modules that a file imports by name where they are needed."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "optional":
            yield ast.literal_eval(node.args[0])


def _extra(module: str) -> str:
    """Return the extra that a module may need."""
    part, last = f"{module}.".split(".")[1], module.rpartition(".")[2].removesuffix("_passes")  # of lightning
    return {"evaluation": "curvature", "integrations": last.replace("_", "-")}.get(part, part)


def test_that_what_is_imported_is_declared_and_in_the_extra_of_the_part_that_needs_it() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    extras = {
        extra: {re.split(r"[<>=\[]", one)[0] for one in requirements}
        for extra, requirements in project["optional-dependencies"].items()
    }
    known = {*sys.stdlib_module_names, "rsam", *(one.partition(">")[0] for one in project["dependencies"])}
    assert {"torch", "geoopt", "numpy"} <= known
    for module, file in MODULES.items():
        packages = {name.split(".")[0] for name in (*_imported(file), *_asked_for(file))} - known
        names = {{"sklearn": "scikit-learn"}.get(package, package.replace("_", "-")) for package in packages}
        assert names <= extras.get(_extra(module), set()), file


def test_every_part_is_listed() -> None:
    parts = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert parts - {"__init__", "__pycache__", "py"} == set(MAY_IMPORT)


WITHOUT_EXTRAS = """
import sys
extras = "hypothesis curvlinops matplotlib sklearn torchvision tqdm pytorch_optimizer lightning transformers timm"
sys.modules.update(dict.fromkeys(extras.split()))  # as if they were not installed
import torch, rsam
assert rsam.RSAM and "rsam.testing" not in sys.modules
sys.modules.update(dict.fromkeys(["scipy.stats", "scipy.sparse.linalg"]))  # geoopt has imported its part of SciPy
model, loss, data = torch.nn.Linear(2, 1), torch.nn.MSELoss(), (torch.ones(3, 2), torch.zeros(3, 1))
measured = model, loss, list(model.parameters()), data
hessian = rsam.curvature.RiemannianHessian(*measured)
rsam.curvature.gradient_norm(*measured)
rsam.curvature.sharpness(*measured)
rsam.curvature.fisher_trace(*measured)
rsam.curvature.trace(hessian - 0.5 * hessian)
rsam.curvature.top_eigenvalues(hessian)
"""


def test_that_rsam_is_imported_and_measures_curvature_without_extras() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], check=True, capture_output=True)


def test_that_property_tests_without_hypothesis_name_their_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "rsam.testing", raising=False)
    monkeypatch.delitem(vars(rsam), "testing", raising=False)
    with pytest.raises(ImportError, match=r"rsam.testing needs hypothesis: pip install 'rsam\[testing\]'"):
        rsam.testing  # noqa: B018


@pytest.mark.parametrize("module", ["tqdm", "scipy.stats", "scipy.sparse.linalg", "matplotlib.figure"])
def test_that_what_needs_the_extra_of_curvature_says_so(module, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    model = torch.nn.Linear(30, 1)
    data = torch.linspace(-1, 1, 90).reshape(3, 30), torch.ones(3, 1)
    hessian = rsam.curvature.RiemannianHessian(model, torch.nn.MSELoss(), model.parameters(), data)
    grid = torch.linspace(0, 1, 3)
    need = {
        "tqdm": lambda: rsam.curvature.trace(hessian, 2, progressbar=True),
        "scipy.stats": lambda: rsam.curvature.trace(hessian, 2).interval(),
        "scipy.sparse.linalg": lambda: rsam.curvature.top_eigenvalues(hessian),
        "matplotlib.figure": lambda: rsam.curvature.SpectralDensity(grid, grid, grid).plot(),
    }
    package = module.partition(".")[0]
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'rsam\[curvature\]'"):
        need[module]()


@pytest.mark.parametrize("name", ["accelerate", "hypll", "lightning", "pytorch_lightning", "timm", "transformers"])
def test_that_an_integration_without_its_framework_says_so(name, monkeypatch) -> None:
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"rsam.integrations.{name}", raising=False)
    monkeypatch.delitem(vars(rsam.integrations), name, raising=False)
    message = rf"needs {name}: pip install 'rsam\[{name.replace('_', '-')}\]'"
    with pytest.raises(ImportError, match=message):
        importlib.import_module(f"rsam.integrations.{name}")
    with pytest.raises(ImportError, match=message):
        getattr(rsam.integrations, name)


def test_that_the_version_is_that_of_the_metadata() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    assert rsam.__version__ == project["version"]


def test_that_extras_are_there_without_being_imported() -> None:
    assert rsam.curvature.trace and rsam.testing.check_manifold
    with pytest.raises(AttributeError, match="curvatur"):
        rsam.curvatur  # noqa: B018
    with pytest.raises(AttributeError, match="lightening"):
        rsam.integrations.lightening  # noqa: B018
