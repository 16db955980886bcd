"""Write strategies.md, the table of all strategies, from their classes.

python docs/make_strategies.py
"""

import inspect
import re
from pathlib import Path

import numpydoc.docscrape

from skadma import strategies

HEAD = """# Strategies

Made by `docs/make_strategies.py`. n images in the pool, b to choose, C classes, K
centres, d features. A pass is a pass over the pool, of which only what was not kept is
run: the tail, once the pool has been looked at. Cost and memory are beside the pass's.
*Labels*: how many an image may have.

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
