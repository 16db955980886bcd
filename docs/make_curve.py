"""Draw images/labels_against_accuracy.svg from benchmarks/results/label-efficiency.

python docs/make_curve.py
"""

from pathlib import Path

import matplotlib.pyplot as plt

from skadma.bench import read_results

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results" / "label-efficiency"
TITLES = {
    "cifar10": "cifar10, 10 classes",
    "dogs-vs-cats": "dogs or cats",
    "elpv": "solar cells: defect or not",
    "digits": "digits, 10 classes",
}
LINES = {
    "UncertaintyHerding": {"color": "#0b5cad", "lw": 2.4},
    "random": {"color": "#8a4b00", "lw": 1.8, "ls": "--"},
}


def draw():
    """Draw the mean over the seeds, and one standard deviation around it."""
    results = read_results(RESULTS)
    plt.rcParams.update({"svg.hashsalt": "skadma", "svg.fonttype": "path"})
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
    for ax, (dataset, title) in zip(axes, TITLES.items(), strict=True):
        for strategy, line in LINES.items():
            rows = results[
                (results["dataset"] == dataset) & (results["strategy"] == strategy)
            ]
            by_labels = rows.groupby("n_labels")["accuracy"]
            mean, deviation = by_labels.mean(), by_labels.std()
            ax.plot(mean.index, mean, label=strategy, **line)
            ax.fill_between(
                mean.index, mean - deviation, mean + deviation,
                color=line["color"], alpha=0.13, lw=0,
            )  # fmt: skip
        ax.set(title=title, xlabel="labels", xticks=range(40, 161, 40))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy on the test set")
    axes[-1].legend(loc="lower right")
    return figure


if __name__ == "__main__":
    draw().savefig(
        HERE / "images" / "labels_against_accuracy.svg",
        metadata={"Date": None}, facecolor="white",
    )  # fmt: skip
