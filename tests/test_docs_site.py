"""What the documentation says exists, and its built pages are for everybody."""

import argparse
import ast
import importlib
import os
import pkgutil
import re
import shlex
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import skadma
from skadma import ActiveLearner
from skadma.cli import main
from skadma.strategies.adma import kendall

from .conftest import tiny_classifier

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "CONTRIBUTING.md"
PAGES = [ROOT / "README.md", GUIDE, ROOT / "benchmarks" / "README.md",
         *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip
WRITTEN = {"skadma/strategies/_widest.py", "skadma/cli/_mine.py"}
"""What a reader of CONTRIBUTING.md writes."""
SITE = Path(os.environ.get("SKADMA_SITE", ROOT / "build" / "site"))
BUILT = ["index", "choose", "label_efficiency", "generated/skadma.CNNClassifier",
         "auto_examples/index", "auto_examples/plot_01_first_query"]  # fmt: skip


def public_names():
    """List what each public module exports."""
    found = {f"skadma.{name}" for name in skadma.__all__}
    for module in pkgutil.iter_modules(skadma.__path__, "skadma."):
        exported = getattr(importlib.import_module(module.name), "__all__", ())
        if not module.name.rpartition(".")[2].startswith("_"):
            found |= {f"{module.name}.{name}" for name in exported}
    return found


def listed_names():
    """List what docs/api.rst has, by module."""
    found, module = [], ""
    for line in (ROOT / "docs" / "api.rst").read_text("utf-8").splitlines():
        if heading := re.match(r"\.\. (?:current)?module:: (\S+)", line):
            module = heading[1]
        elif name := re.fullmatch(r"   (\w+)", line):
            found.append(f"{module}.{name[1]}")
    return found


def test_the_api_reference_has_every_public_object_once():
    """By itself or under the shorter name that skadma gives it."""
    listed = listed_names()
    assert len(listed) == len(set(listed)) > 100
    at_the_top = {name.rpartition(".")[2] for name in listed if name.count(".") == 1}
    missing = {
        name
        for name in public_names() - set(listed)
        if name.rpartition(".")[2] not in at_the_top
    }
    assert missing == set()
    for name in listed:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def blocks(page, language):
    """List the blocks of code of a page."""
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_pages_parses(page):
    for block in blocks(page, "python"):
        if not block.startswith(">>>"):
            ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_the_pages_name_exist(page):
    text = page.read_text("utf-8")
    named = re.findall(r"\b(?:benchmarks|docs|skadma|tests)/[\w./*-]*\w", text)
    named += [f"benchmarks/{name}" for name in re.findall(r"`(\w+_\w+\.py)`", text)
              if page.parent.name == "benchmarks"]  # fmt: skip
    missing = {name for name in named if not list(ROOT.glob(name))} - WRITTEN
    links = re.findall(r"\]\(([^)#\s]+)", text)
    missing |= {x for x in links if "://" not in x and not (page.parent / x).exists()}
    assert missing == set()


class Understood(Exception):  # noqa: N818
    """The parser took the command."""


def commands():
    """List the lines of the pages that call skadma."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    if part.strip().startswith("skadma ") and "|" not in part:
                        yield pytest.param(part.strip(), id=f"{page.stem}: {part}")


@pytest.mark.parametrize("command", list(commands()))
def test_commands_in_the_pages_are_understood(command, monkeypatch):
    """By the command's own parser, options and all."""
    words = shlex.split(command, comments=True)
    words = [re.sub(r"^\[|\]$", "", word) for word in words if word != "..."]
    parse = argparse.ArgumentParser.parse_args

    def stop(self, arguments):
        parse(self, arguments)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(Understood):
        main(words[1:])


def run_block(number, package):
    """Run a block of CONTRIBUTING.md as if it were a module of a package."""
    module = types.ModuleType(f"{package}._example")
    module.__package__ = package
    exec(compile(blocks(GUIDE, "python")[number], GUIDE.name, "exec"), vars(module))
    return module


def test_the_guide_s_strategy_works(pictures):
    X, y = pictures
    strategy = run_block(0, "skadma.strategies").WidestProbabilities(random_state=0)
    clf = tiny_classifier().fit(X[:6], y[:6])
    spread = clf.predict_proba(X).var(axis=1)
    assert strategy.query(clf, X, 4).tolist() == np.argsort(spread)[:4].tolist()
    learner = ActiveLearner(tiny_classifier(), strategy, n_rounds=2, n_instances=4)
    assert learner.fit(X, y).labeled_.sum() == 8


def test_the_guide_s_subcommand_works(tmp_path, capsys):
    (tmp_path / "a.txt").touch()
    parser = argparse.ArgumentParser()
    run_block(1, "skadma.cli").add_parser(parser.add_subparsers())
    options = parser.parse_args(["mine", str(tmp_path)])
    options.run(options)
    assert capsys.readouterr().out == "1\n"


def test_show_versions_says_what_a_report_needs(capsys):
    skadma.show_versions()
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said["skadma"] == skadma.__version__
    assert said["torch"] == metadata.version("torch")
    assert said["Kendall's tau"].startswith("C" if kendall._kendall else "SciPy")


@pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", BUILT)
def test_axe_finds_no_violation_on_a_built_page(name, scheme, chromium):
    """Without the network: a page that fetched something would show here, too."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = chromium.new_page(color_scheme=scheme)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((SITE / f"{name}.html").as_uri())
    results = axe.run(page)
    page.close()
    assert results.violations_count == 0, results.generate_report()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
