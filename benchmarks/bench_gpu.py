"""Everything that runs a network, on a GPU if there is one, compared with the CPU.

    python benchmarks/bench_gpu.py [--device auto] [--images 2000] [--size 128]

EfficientNet-Lite0 on random textures of four classes. Fits, probes, scans, queries
(ADMA, UncertaintyHerding), saves on the device and loads on the CPU. Prints images per
second, and of 20 chosen images how many the CPU chooses too; where fewer than 18 are
the same, how far the probabilities are apart. Exits with 1 if a model that was saved
on the device does not predict the same on the CPU. Under five minutes.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from skadma import CNNClassifier
from skadma.strategies import ADMA, UncertaintyHerding

N_CHOSEN, N_SAME, TOLERANCE = 20, 18, 0.02
N_LABELS = 40


def textures(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Waves of four orientations with noise, and their classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, n)
    down, right = np.mgrid[:size, :size]
    X = np.empty((n, size, size, 3), np.uint8)
    for i, angle in enumerate(y * np.pi / 4 + rng.normal(0, 0.1, n)):
        wave = np.sin((down * np.sin(angle) + right * np.cos(angle)) / 4)
        noise = rng.normal(0, 60, (size, size, 3))
        X[i] = np.clip(128 + 50 * wave[..., None] + noise, 0, 255)
    return X, y


def timed(device: torch.device, name: str, n: int, step: Callable[[], Any]) -> Any:
    """Run a step and print its seconds and images per second."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter()

    start = now()
    result = step()
    seconds = now() - start
    print(f"{name:34} {seconds:8.2f} s {n / seconds:10.1f} images/s", flush=True)
    return result


def run_all(
    device: str, X: np.ndarray, y: np.ndarray, size: int
) -> tuple[CNNClassifier, dict[str, np.ndarray]]:
    """Fit, probe, scan and query on a device: the fitted model, and what was found."""
    print(f"-- {device}")
    clf = CNNClassifier(
        "efficientnet_lite0", image_size=size, device=device, memory=False,
        max_epochs=5, random_state=0,
    )  # fmt: skip
    at = clf.torch_device()
    labelled, pool = np.arange(N_LABELS), np.arange(N_LABELS, len(X))
    known = {"X_labeled": X[labelled], "y_labeled": y[labelled]}
    timed(at, "first image", 1, lambda: clf.embed(X[:1], -2))
    probe = clone(clf).set_params(training="probe")
    timed(at, "probe", N_LABELS, lambda: probe.fit(X[labelled], y[labelled]))
    timed(at, "fit, 5 epochs", 5 * N_LABELS, lambda: clf.fit(X[labelled], y[labelled]))
    found = {
        "probabilities": timed(
            at, "scan", len(pool), lambda: clf.predict_proba(X[pool])
        ),
        "probe": probe.predict_proba(X[pool]),
    }
    for strategy in (ADMA(random_state=0), UncertaintyHerding(random_state=0)):
        name = type(strategy).__name__
        found[name] = timed(
            at,
            name,
            len(pool),
            lambda s=strategy: s.query(clf, X[pool], N_CHOSEN, **known),
        )
    return clf, found


def loaded_elsewhere(clf: CNNClassifier) -> dict[str, CNNClassifier]:
    """The model from a folder and from a pickle, both put on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        clf.save(Path(folder, "model"))
        saved = CNNClassifier.load(Path(folder, "model"))
    models = {"saved": saved, "pickled": pickle.loads(pickle.dumps(clf))}
    return {
        name: m.set_params(device="cpu", memory=False) for name, m in models.items()
    }


def main() -> int:
    """Measure, compare and print; 1 if a loaded model predicts something else."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    X, y = textures(options.images, options.size)
    clf, found = run_all(options.device, X, y, options.size)
    _, expected = run_all("cpu", X, y, options.size)
    print("-- compared")
    for name in ("ADMA", "UncertaintyHerding"):
        same = len({*found[name]} & {*expected[name]})
        print(f"{name}: {same} of {N_CHOSEN} the same")
        if same < N_SAME:
            for key in ("probabilities", "probe"):
                off = np.abs(found[key] - expected[key])
                print(f"  because: {key} differ by {off.max():.2g} ({off.mean():.2g})")
    failed = 0
    some = X[N_LABELS : N_LABELS + 64]
    for name, model in loaded_elsewhere(clf).items():
        off = np.abs(model.predict_proba(some) - clf.predict_proba(some)).max()
        print(f"{name} there, loaded on the CPU: probabilities differ by {off:.2g}")
        failed |= not off <= TOLERANCE
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
