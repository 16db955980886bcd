"""Write what the docs list of all strategies, from their classes.

    python docs/make_strategies.py

That is the table in strategies.md and, between two comments, the lists in api.rst.
"""

import inspect
import re
from pathlib import Path

import numpydoc.docscrape

from skadma import strategies

HEAD = """# Strategies

All strategies with what they need and what they cost; the chooser is
[Which strategy for me?](choose.md)

n is the number of images in the pool, b of those to choose, C of classes, K of source
centres, d of features. A *pass* is a pass of the pool through the network; from the
second query on only the trainable layers are computed, as the frozen layers' outputs
are cached. Cost and memory are in addition to those of the pass. *Labels* is the number
of labels that an image may have. `strategy.query(estimator, X_pool, n)` raises
ValueError where fewer than n images of the pool are usable; `ActiveLearner` and
campaigns take what is left. This page is made by `docs/make_strategies.py`.

| strategy | what it does | needs | cost | memory | labels | source |
|---|---|---|---|---|---|---|
"""


DOCS = Path(__file__).parent
BEGIN = ".. begin: made by docs/make_strategies.py"
END = ".. end: made by docs/make_strategies.py"


def every() -> list[tuple[str, type]]:
    """List the strategies by their names."""
    named = ((name, getattr(strategies, name)) for name in strategies.__all__)
    return [
        (name, kind)
        for name, kind in named
        if hasattr(kind, "needs") and not inspect.isabstract(kind)
    ]


def table() -> str:
    """Make strategies.md."""
    rows = []
    for name, kind in every():
        doc = numpydoc.docscrape.ClassDoc(kind)
        what = re.sub(r" \[\d\]_", "", doc["Summary"][0])
        source = re.match(r"\.\. \[1\] (.*?)(?= \.\. \[2\]|$)", " ".join(
            line.strip() for line in doc["References"]
        ))  # fmt: skip
        cited = source[1] if source else ""
        rows.append(
            f"| `{name}` | {what} | {kind.needs} | {kind.cost} | {kind.memory} | "
            f"{'any' if kind.multilabel else 'one'} | {cited} |"
        )
    return HEAD + "\n".join(rows) + "\n"


def lists() -> str:
    """Make the lists of api.rst, by what strategies need."""
    groups: dict[str, list[str]] = {
        "From features and probabilities:": [],
        "From features:": [],
        "From probabilities:": [],
        "From the source task's classes, or from nothing:": [],
    }
    of_both, of_features, of_proba, others = groups.values()
    for name, kind in every():
        if "centres" in kind.needs:
            others.append(name)
        elif "features" in kind.needs:
            (of_both if "probabilities" in kind.needs else of_features).append(name)
        else:
            (of_proba if "probabilities" in kind.needs else others).append(name)
    parts = []
    for title, names in groups.items():
        listed = "".join(f"   {name}\n" for name in names)
        parts.append(
            f"{title}\n\n.. autosummary::\n   :toctree: generated/\n\n{listed}"
        )
    return "\n".join(parts)


def api() -> str:
    """Make api.rst, of what it is and of the lists."""
    before, _, rest = (DOCS / "api.rst").read_text("utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{lists()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for name, text in (("strategies.md", table()), ("api.rst", api())):
        (DOCS / name).write_text(text, encoding="utf-8")
