"""That the distributions hold what they should, and that the wheel works with what it declares, and nothing else.

``make wheel-test`` runs these tests, not ``make test``.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.wheel.environment import install, run

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {str(path.relative_to(ROOT)) for path in (ROOT / "rsam").rglob("*.py")}

#: What the guide shows a new user: a constrained layer trained, and a trace with its interval.
ALONE = """
import importlib.metadata, importlib.util
import geoopt, torch, rsam
for name in ("hypothesis", "sklearn", "tqdm", "matplotlib"):
    assert importlib.util.find_spec(name) is None, name + " is there, though nothing requires it"
print(rsam.__version__, importlib.metadata.version("rsam"))

def says(ask):
    try:
        ask()
    except ImportError as error:
        return str(error)

torch.manual_seed(0)
model = rsam.nn.constrain(torch.nn.Linear(5, 3), rsam.geometry.KernelStiefel(), torch.nn.Linear)
data = torch.randn(40, 5), torch.randint(3, (40,))
loss = torch.nn.CrossEntropyLoss()
optimizer = rsam.RSAM(model.parameters(), lr=0.1, rho=0.05)

def closure():
    optimizer.zero_grad()
    value = loss(model(data[0]), data[1])
    value.backward()
    return value

losses = [float(optimizer.step(closure)) for _ in range(20)]
assert losses[-1] < losses[0]
assert torch.allclose(model.weight @ model.weight.T, torch.eye(3), atol=1e-5)
hessian = rsam.curvature.RiemannianHessian(model, loss, model.parameters(), data)
trace = rsam.curvature.trace(hessian, 10)
low, high = trace.interval()
assert low < float(trace) < high
print(says(lambda: rsam.curvature.trace(hessian, 2, progressbar=True)))
print(says(lambda: rsam.testing))
print(says(lambda: rsam.margins))
print(says(lambda: rsam.integrations.lightning))
"""
WITH = {
    "testing": """
import geoopt, rsam
rsam.testing.check_manifold(geoopt.Sphere(), (3,), max_examples=3)
rsam.testing.check_optimizer(lambda params: rsam.RSAM(params, lr=0.1), max_examples=1)
""",
    "curvature": """
import torch, rsam
model, data = torch.nn.Linear(12, 1), (torch.randn(20, 12), torch.zeros(20, 1))
hessian = rsam.curvature.RiemannianHessian(model, torch.nn.MSELoss(), model.parameters(), data)
rsam.curvature.trace(hessian, 3, progressbar=True)
rsam.curvature.spectral_density(hessian, 5).plot()
""",
    "margins": """
import torch, rsam
rsam.margins.GapModel
classifier = torch.nn.Linear(2, 3)
rsam.margins.distances(classifier, (torch.randn(4, 2), torch.tensor([0, 1, 2, 0])))
""",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """Build both distributions, and return them."""
    directory = tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(directory), str(ROOT)], check=True)
    (source,), (wheel,) = directory.glob("*.tar.gz"), directory.glob("*.whl")
    return source, wheel


def test_that_the_package_index_would_take_them(built) -> None:
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], check=True)


def test_that_the_wheel_holds_the_package_alone(built) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == MODULES | {"rsam/py.typed"}
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)


def test_that_the_source_holds_what_the_wheel_is_built_of(built) -> None:
    with tarfile.open(built[0]) as source:
        names = {str(Path(*Path(member.name).parts[1:])) for member in source if member.isfile()}
    assert {*MODULES, "rsam/py.typed", "LICENSE", "README.md", "pyproject.toml"} <= names
    assert not {name for name in names if name.startswith(("tests", "benchmarks"))}


def test_that_the_wheel_alone_trains_measures_and_names_the_extras_that_more_needs(built, tmp_path) -> None:
    python = install(built[1], tmp_path / "alone")
    lines = run(python, ALONE, tmp_path).splitlines()
    assert lines == [
        f"{PROJECT['version']} {PROJECT['version']}",
        "a progress bar needs tqdm: pip install 'rsam[curvature]'",
        "rsam.testing needs hypothesis: pip install 'rsam[testing]'",
        "rsam.margins needs sklearn: pip install 'rsam[margins]'",
        "rsam.integrations.lightning needs lightning: pip install 'rsam[lightning]'",
    ]


@pytest.mark.parametrize("extra", WITH)
def test_that_an_extra_brings_all_that_its_part_needs(built, tmp_path, extra) -> None:
    run(install(built[1], tmp_path / extra, extra), WITH[extra], tmp_path)
