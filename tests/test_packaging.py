"""The package: its page on PyPI, a build without a compiler, imports on first use."""

import ast
import importlib.util
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import skadma.strategies.adma
from skadma.strategies.adma import kendall

ROOT = Path(__file__).parents[1]


def page_of(folder, monkeypatch):
    """Run its setup.py without building anything."""
    setuptools = pytest.importorskip("setuptools")
    said = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: said.update(options))
    runpy.run_path(str(folder / "setup.py"))
    return said["long_description"]


@pytest.fixture
def checkout(tmp_path):
    for name in ("setup.py", "README.md", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def test_no_link_of_the_page_on_pypi_is_relative(checkout, monkeypatch):
    page = page_of(checkout, monkeypatch)
    targets = re.findall(r"\]\(([^)]*)\)", page)
    assert targets and all(target.startswith("https://") for target in targets)
    readme = (ROOT / "README.md").read_text("utf-8")
    words = re.findall(r"(?<!!)\[([^]\n]+)\]\(", readme)
    assert len(words) > 20
    assert all(each in page for each in words)
    assert "\n*The page: a photograph, a key for each label" in page


def test_links_lead_to_the_repository_where_there_is_one(checkout, monkeypatch):
    with (checkout / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write('\n[project.urls]\nSource = "https://example.org/skadma"\n')
    page = page_of(checkout, monkeypatch)
    targets = re.findall(r"(!?)\[[^]\n]*\]\(https://example.org/skadma/([^)]*)\)", page)
    assert len(targets) > 20
    for mark, target in targets:
        kind, name = target.split("/HEAD/")
        assert kind == ("raw" if mark else "blob")
        assert (ROOT / name.partition("#")[0]).is_file(), name


def test_without_a_compiler_the_counts_are_the_same(monkeypatch):
    """As where no wheel fits and the sdist is built without one."""
    monkeypatch.setitem(sys.modules, "skadma.strategies.adma._kendall", None)
    monkeypatch.delattr(skadma.strategies.adma, "_kendall", raising=False)
    spec = importlib.util.spec_from_file_location(
        "skadma.strategies.adma.other", kendall.__file__
    )
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)
    assert other._kendall is None
    a, b = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (2, 50, 40)) / 9)
    assert torch.equal(other.kendall_tau(a, b), kendall.kendall_tau(a, b))


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_importing_the_package_imports_nothing_large():
    version, *loaded = run_python(
        "import sys, skadma; print(skadma.__version__); dir(skadma)\n"
        "heavy = 'torch', 'torchvision', 'sklearn', 'skorch', 'pandas', 'numpy'\n"
        "print(*[name for name in heavy if name in sys.modules])"
    )
    assert version == skadma.__version__
    assert loaded == []


def test_public_names_and_submodules_are_imported_on_first_use():
    said = run_python(
        "import skadma\n"
        "print(skadma.strategies.MarginSampling.__name__)\n"
        "print(skadma.stopping.LabelBudget.__name__)\n"
        "from skadma import *\n"
        "print(CNNClassifier.__name__, ActiveLearner is skadma.ActiveLearner)\n"
        "print(set(skadma.__all__) < set(dir(skadma)), 'centers' in dir(skadma))\n"
        "print(hasattr(skadma, 'other'))"
    )
    names = ["MarginSampling", "LabelBudget", "CNNClassifier"]
    assert said == [*names, "True", "True", "True", "False"]


def test_type_checkers_see_the_public_names_and_submodules():
    text = (ROOT / "skadma" / "__init__.pyi").read_text("utf-8")
    stub = ast.parse(text).body
    imported = {
        alias.asname or alias.name
        for node in stub
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(skadma.__all__) <= imported
    rooms = {path.parent.name for path in (ROOT / "skadma").glob("[!_]*/__init__.py")}
    assert imported - set(skadma.__all__) == rooms | {"plotting", "stopping"}
    assert rooms <= set(dir(skadma))


def test_the_wheel_holds_every_file_that_is_no_module():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folder = ROOT / "skadma"
    wanted = {
        path
        for pattern in project["tool"]["setuptools"]["package-data"]["skadma"]
        for path in folder.glob(pattern)
    }
    others = {
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix not in {".py", ".pyc", ".so", ".c"}
        and ".mypy_cache" not in path.parts
    }
    assert wanted == others
