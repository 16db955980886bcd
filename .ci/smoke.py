"""An installed skadma, without its repository: commands, data files, compiled part."""

import csv
import random
import subprocess
from importlib import resources
from pathlib import Path

from PIL import Image

import skadma
from skadma import CNNClassifier
from skadma.centers import shipped_centers
from skadma.strategies.adma import kendall


def run(*words):
    """Run a command; what it prints is shown."""
    print("$ skadma", *words, flush=True)
    subprocess.run(["skadma", *words], check=True)


skadma.show_versions()
assert kendall._kendall is not None, "the wheel has no compiled module"
package = resources.files("skadma")
assert (package / "labelling" / "page" / "static" / "index.html").is_file()
assert (package / "py.typed").is_file()
clf = CNNClassifier("efficientnet_lite0", image_size=64)
assert len(shipped_centers(clf)) == 1000

photos = Path("photos")
photos.mkdir()
for i in range(12):
    random.seed(i)
    pixels = bytes(random.randrange(120) + 120 * (i % 2) for _ in range(32 * 32 * 3))
    Image.frombytes("RGB", (32, 32), pixels).save(photos / f"{i:02}.png")
small = ("--set", "estimator__image_size=32", "estimator__max_epochs=1")
run("start", "photos", "--classes", "bright", "dark", *small)
run("query", "-n", "6", "-o", "next.csv")
with Path("next.csv").open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
for row in rows:
    row["label"] = "bright" if int(Path(row["path"]).stem) % 2 else "dark"
with Path("next.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
run("teach", "next.csv")
run("status")
run("predict", "photos", "--campaign", "skadma-campaign", "-o", "labels.csv")
assert len(Path("labels.csv").read_text("utf-8").splitlines()) == 13
run("label", "--help")
