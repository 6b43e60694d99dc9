"""That the package imports what its metadata promises and no more, in one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rsam

ROOT = Path(rsam.__file__).parent
# what each part may import
MAY_IMPORT = {
    "errors": set(),
    "constrained": set(),
    "geometry": {"errors"},
    "evaluation": {"errors", "geometry"},
    "optim": {"constrained", "errors", "geometry"},
    "nn": {"constrained", "evaluation", "geometry", "optim"},
    "curvature": {"errors", "geometry", "evaluation"},
    "losses": {"errors", "geometry", "evaluation"},
    "margins": {"errors", "geometry", "evaluation"},
    "testing": {"errors", "geometry"},
    "integrations": {"geometry", "optim"},
}


def _imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rsam":
            parts = node.module.split(".")[1:] or [alias.name for alias in node.names]
            found.add(parts[0])
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_run_one_way_only(part) -> None:
    files = list((ROOT / part).rglob("*.py")) or [ROOT / f"{part}.py"]
    for file in files:
        assert _imports(file) <= {*MAY_IMPORT[part], part}, file


def test_every_part_is_listed() -> None:
    parts = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert parts - {"__init__", "__pycache__", "py"} == set(MAY_IMPORT)


def test_what_needs_an_extra_says_which() -> None:
    code = "import sys; sys.modules['curvlinops'] = None; import rsam; rsam.curvature"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'rsam[curvature]'" in done.stderr


def test_that_an_integration_without_its_framework_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    monkeypatch.delitem(sys.modules, "rsam.integrations.pytorch_lightning", raising=False)
    monkeypatch.delitem(vars(rsam.integrations), "pytorch_lightning", raising=False)
    with pytest.raises(ImportError, match="needs pytorch_lightning: pip install pytorch_lightning"):
        rsam.integrations.pytorch_lightning  # noqa: B018


def test_that_extras_are_there_without_being_imported() -> None:
    assert rsam.curvature.trace and rsam.testing.check_manifold
    with pytest.raises(AttributeError, match="curvatur"):
        rsam.curvatur  # noqa: B018
    with pytest.raises(AttributeError, match="lightening"):
        rsam.integrations.lightening  # noqa: B018


def test_importing_rsam_needs_no_extra() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['hypothesis', 'curvlinops', 'matplotlib', 'sklearn', "
        "'torchvision', 'tqdm', 'pytorch_optimizer', 'lightning', 'transformers', 'timm'])); import rsam; rsam.RSAM"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
