"""Write strategies.md, the table of all strategies, from their classes.

python docs/make_strategies.py
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
second query on only the tail is computed, as the frozen layers' outputs are kept. Cost
and memory are in addition to those of the pass. *Labels* is the number of labels that
an image may have. This page is made by `docs/make_strategies.py`.

| strategy | what it does | needs | cost | memory | labels | source |
|---|---|---|---|---|---|---|
"""


def table() -> str:
    """Make the page."""
    rows = []
    for name, kind in sorted(vars(strategies).items()):
        if not hasattr(kind, "needs") or inspect.isabstract(kind):
            continue
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


if __name__ == "__main__":
    Path(__file__).with_name("strategies.md").write_text(table(), encoding="utf-8")
