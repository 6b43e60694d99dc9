"""That the package imports what its metadata promises and no more, in one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rsam

ROOT = Path(rsam.__file__).parent
# each part may import those to the left of it
ORDER = ["geometry", "optim", "nn", "testing"]


def _imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rsam":
            parts = node.module.split(".")[1:] or [alias.name for alias in node.names]
            found.add(parts[0])
    return found


@pytest.mark.parametrize("part", ORDER)
def test_imports_run_down_the_list_only(part) -> None:
    files = list((ROOT / part).rglob("*.py")) or [ROOT / f"{part}.py"]
    allowed = {*ORDER[: ORDER.index(part) + 1]}
    for file in files:
        assert _imports(file) <= allowed, file


def test_importing_rsam_needs_no_extra() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['hypothesis', 'curvlinops', 'matplotlib', 'sklearn', "
        "'torchvision', 'tqdm', 'pytorch_optimizer'])); import rsam; rsam.RSAM"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
