"""class_weight="balanced" against none: elpv, 100 labels.

    python benchmarks/bench_class_weight.py [--seeds 5] [--image-size 64]

Macro recall (the mean of both classes' recalls, at the predicted labels) and AUC on
images that were not trained on, for labels drawn at random and for a draw in which a
tenth is defective. Both fits of a seed have the same images, labels and start.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from skadma import CNNClassifier
from skadma.bench.datasets import load_elpv

N_LABELS = 100


def draw(y: np.ndarray, n_defective: int | None, n_test: int, seed: int):
    """Indices to train on and to test on."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    test, rest = order[:n_test], order[n_test:]
    if n_defective is None:
        return rest[:N_LABELS], test
    defective, sound = rest[y[rest] == 1], rest[y[rest] == 0]
    sound = sound[: N_LABELS - n_defective]
    return np.concatenate([defective[:n_defective], sound]), test


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--test-size", type=int, default=400)
    options = parser.parse_args()
    X, labels = load_elpv()
    _, y = np.unique(labels, return_inverse=True)
    y = y if y.mean() < 0.5 else 1 - y  # 1 is the rarer class
    print(f"{len(y)} images, {y.mean():.0%} of them of the rarer class")
    print("| labels | class_weight | macro recall | recall of the rarer | AUC |")
    print("|---|---|---|---|---|")
    for name, n_defective in [("at random", None), ("10 of 100", 10)]:
        for weight in (None, "balanced"):
            found = []
            for seed in range(options.seeds):
                train, test = draw(y, n_defective, options.test_size, seed)
                clf = CNNClassifier(
                    "efficientnet_lite0", image_size=options.image_size,
                    max_epochs=10, class_weight=weight, random_state=seed,
                )  # fmt: skip
                clf.fit(X[train], y[train])
                proba = clf.predict_proba(X[test])[:, 1]
                said = proba > 0.5
                recall = balanced_accuracy_score(y[test], said)
                found.append(
                    (recall, said[y[test] == 1].mean(), roc_auc_score(y[test], proba))
                )
            cells = [
                f"{mean:.3f} ± {std:.3f}"
                for mean, std in zip(
                    np.mean(found, 0), np.std(found, 0, ddof=1), strict=True
                )
            ]
            print(f"| {name} | {weight} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
