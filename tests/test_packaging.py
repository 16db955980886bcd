"""What is built of the repository: its page on PyPI, and a build without a compiler."""

import importlib.util
import re
import runpy
import sys
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
    assert "\n*Accuracy against number of labels on four data sets" in page


def test_links_lead_to_the_repository_where_there_is_one(checkout, monkeypatch):
    with (checkout / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write('\n[project.urls]\nSource = "https://example.org/skadma"\n')
    page = page_of(checkout, monkeypatch)
    targets = re.findall(r"(!?)\[[^]\n]*\]\(https://example.org/skadma/([^)]*)\)", page)
    assert len(targets) > 20
    for mark, target in targets:
        kind, name = target.split("/HEAD/")
        assert kind == ("raw" if mark else "blob")
        assert (ROOT / name).is_file(), name


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
