"""What a user would do otherwise: 1,000 photographs until 90 and 95 % are right.

    SKADMA_DATA=... python benchmarks/bench_sort.py CELLS.csv page trash --draws 0 1
    SKADMA_DATA=... python benchmarks/bench_sort.py CELLS.csv torchvision trash
    SKADMA_DATA=... python benchmarks/bench_sort.py CELLS.csv fastai trash
    python benchmarks/bench_sort.py CELLS.csv --report

1,000 photographs are drawn from a set. One is right if its label is: the person's,
where she gave one, else the model's prediction. An oracle, which nobody has, stops each
way when 900 or 950 are right. The person makes no mistakes, and needs the seconds of
`HAND` in bench_label_page.py; what the page lets her wait is measured. All ways use
EfficientNet-Lite0 with the same weights, at 128 x 128 pixels, on one thread. Seconds of
the machine are processor time.

page          `skadma label` in Chromium with its usual settings: keys until 95 % are
              right, then the gallery until all have a label
brush         the same, but the gallery after 24 keys
page-random   the keys with `--strategy RandomSampling`
torchvision   labels at random; the recipe of torchvision's references/classification:
              SGD, momentum 0.9, weight decay 0.0001, cosine decay, random resized crops
              and flips; batches of 16 and few epochs, as there are few photographs
fastai        labels at random; `vision_learner` and `fine_tune` with its defaults; in
              an environment with fastai
random-probe  labels at random, skadma's usual classifier

Other processes may compute meanwhile: where the page's have less of the processor, the
hand waits, and its clock stands still. Waiting after a key counts as the processor
seconds of server and browser where these are fewer than the clock's; after a screen of
the gallery it is that of results/label_page.json.

CELLS.csv gets rows as they are measured, and what is there is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from skadma.bench.report import markdown_table

if TYPE_CHECKING:
    from playwright.sync_api import Page

BACKBONE, SIDE, N, BATCH = "efficientnet_lite0", 128, 1000, 16
SETS = {
    "trash": "trash/*/*.jpg",
    "dogs-vs-cats": "dogs-vs-cats/*/*.jpg",
    "cifar10": "cifar10-sample/*/*/*",
}
GRIDS = {
    "trash": (480, 640, 720, 800),
    "dogs-vs-cats": (40, 80, 160, 320),
    "cifar10": (640, 720, 800, 880),
}
"""Numbers of labels after which a network is trained, until 95 % are right."""
NAMES = {
    "page": "page: keys until 95 %, then the gallery",
    "brush": "page: 24 keys, then the gallery",
    "page-random": "page with random choice: keys",
    "random-probe": "random labels, skadma's classifier",
    "torchvision": "random labels, torchvision's recipe",
    "fastai": "random labels, fastai's fine_tune",
}
TARGETS: tuple[float, ...] = (0.9, 0.95, 1.0)
COLUMNS = ("set", "way", "draw", "n_labels", "right", "person", "machine", "browser")
TOLD = ("labels", "person, s", "machine, s")
DRAG = 0.7 + 2 * (1.1 + 0.1)
"""Seconds to look at a picture and drag it to a folder; none was measured.

Pointing takes 1.1 s and a press or release of the button 0.1 s in the keystroke-level
model (Card, Moran and Newell, 1980).
"""
EVERY = 10
_GUESSES = """async () => {
  const { transport, state } = skadmaPage.queue;
  const { rows } = await transport.call("gallery", { start: 0, n: 2000, contents: [] });
  const asked = { kind: "guesses", have: 0, contents: [] };
  let found = {};
  for (let i = 0; i < 100; i++) {
    found = await transport.call("overview", asked);
    if (found.values && found.n_known >= state.n_known) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return rows.map(([, path, mark], i) => [path, mark ?? found.values?.[i]?.[0]]);
}"""
"""Path, and the label that holds or the model's guess."""


def photographs(name: str, draw: int) -> tuple[list[Path], np.ndarray, list[str]]:
    """Draw 1,000 photographs of a set: files, classes as numbers, and their names.

    Of a picture that is there twice one is drawn at most: the page asks about it once.
    """
    there = sorted(Path(os.environ["SKADMA_DATA"]).glob(SETS[name]))
    files = sorted({file.read_bytes(): file for file in there}.values())
    chosen = np.random.default_rng(draw).choice(len(files), N, replace=False)
    files = [files[i] for i in chosen]
    classes, y = np.unique([f.parent.name for f in files], return_inverse=True)
    return files, y, classes.tolist()


# --- the page -------------------------------------------------------------------------


def with_page(name: str, draw: int, write: Callable[..., None], way: str) -> None:
    """Label on the page until all have a label."""
    import bench_label_page as hand
    from playwright.sync_api import sync_playwright

    known = json.loads(hand.RESULTS.read_text("utf-8"))["thousand_photographs"]
    screen = known["with_brush"]["page_seconds"] / known["with_brush"]["screens"]
    files, y, classes = photographs(name, draw)
    labels = {f"{i:04}{f.suffix}": classes[y[i]] for i, f in enumerate(files)}
    options = ["--classes", *classes, "--set", f"estimator__image_size={SIDE}"]
    if way == "page-random":
        options += ["--strategy", "RandomSampling"]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for path, file in zip(labels, files, strict=True):
            shutil.copy(file, photos / path)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        with hand.served(browser, photos, Path(folder) / "campaign", options) as page:
            _ready(page)
            # From the command to a picture, as where no one else computes.
            seconds = processor_seconds()["server"]

            def check(n: int, seconds: float) -> float:
                """Write how many are right."""
                found = dict(page.evaluate(_GUESSES))
                right = float(
                    np.mean([found.get(path) == labels[path] for path in labels])
                )
                spent = processor_seconds()
                machine = spent["server"] + spent["training"]
                write(n, right, seconds, machine, spent["browser"])
                return right

            n, right = 0, 0.0
            enough = hand.FIRST if way == "brush" else len(labels)
            while n < enough and right < 0.95:
                key = hand.key_of(labels[page.inner_text(".caption")], classes)
                time.sleep(hand.HAND["look_at_one"])
                seconds += hand.HAND["look_at_one"]
                _let_learn(page, seconds)
                shown = page.get_attribute("#stage", "data-shown")
                before, begin = processor_seconds(), time.perf_counter()
                page.keyboard.press(key)
                n += 1
                if n < len(labels):
                    _ready(page, shown)
                waited = time.perf_counter() - begin
                spent = processor_seconds()
                needed = sum(spent[k] - before[k] for k in ("server", "browser"))
                seconds += min(waited, needed)
                if n % EVERY == 0 or n == enough:
                    page.wait_for_function("() => skadmaPage.queue.outbox.size === 0")
                    right = check(n, seconds)
            if way == "page-random" or n == len(labels):
                return

            before = processor_seconds()
            _let_learn(page)  # the gallery needs guesses
            spent = processor_seconds()
            seconds += sum(spent[k] - before[k] for k in ("server", "training"))
            n_screens = 0

            def after_screen(seconds: float) -> None:
                nonlocal n_screens
                n_screens += 1
                _let_learn(page)
                page.wait_for_function(
                    """() => {
                      const { gallery } = skadmaPage.views;
                      const known = gallery.news?.n_known ?? gallery.nKnown;
                      return known >= skadmaPage.queue.state.n_known;
                    }"""
                )
                given = page.evaluate(
                    "() => skadmaPage.views.gallery.rows.filter((r) => r.mark).length"
                )
                check(given, seconds + n_screens * screen)

            hand.with_brush(page, labels, seconds, classes, after_screen)


def _ready(page: Page, before: str | None = None) -> None:
    """Wait until a picture is shown, another one than before."""
    page.wait_for_function(
        """(before) => {
          const stage = document.querySelector("#stage");
          return stage?.dataset.shown && stage.dataset.shown !== before &&
            stage.querySelector("img") && skadmaPage.queue.items[0];
        }""",
        arg=before,
    )


def _let_learn(page: Page, seconds: float = np.inf) -> None:
    """Wait until the model knows all labels, or had `seconds` of a processor.

    So others that compute on this machine take nothing from the page. The hand's clock
    stands still.
    """
    known = """() => {
      const { n_known, n_labels, n_left } = skadmaPage.queue.state;
      return n_known === n_labels && !n_left;
    }"""
    while not page.evaluate(known):
        spent = processor_seconds()
        if spent["server"] + spent["training"] >= seconds:
            break
        time.sleep(0.5)


def processor_seconds() -> dict[str, float]:
    """Seconds of the server, of the processes that it started, and of the browser."""
    import psutil

    found = {"server": 0.0, "training": 0.0, "browser": 0.0}
    for child in psutil.Process().children():
        is_server = "label" in child.cmdline()
        for process in [child, *child.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                user, system, *of_ended = process.cpu_times()[:4]
                kind = "training" if is_server else "browser"
                found[kind] += sum(of_ended)
                found["server" if process == child and is_server else kind] += (
                    user + system
                )
    return found


# --- random labels and a recipe -------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Photographs of which some have labels; the classes of the rest are asked for."""

    images: list[Any]
    y: np.ndarray
    labeled: np.ndarray
    rest: np.ndarray
    n_classes: int
    seed: int


def small_images(files: Sequence[Path]) -> list[Any]:
    """Read photographs, the shorter side at most 160 pixels."""
    from PIL import Image

    images = []
    for file in files:
        with Image.open(file) as image:
            pixels = image.convert("RGB")
        scale = 160 / min(pixels.size)
        if scale < 1:
            size = [round(scale * side) for side in pixels.size]
            pixels = pixels.resize(size, Image.Resampling.BICUBIC)
        images.append(pixels)
    return images


def load_network() -> tuple[Any, Any]:
    """EfficientNet-Lite0 with the weights that skadma takes, and its input."""
    from skadma.networks.registry import build_backbone

    built = build_backbone(BACKBONE, "DEFAULT", SIDE)
    built.module.load_state_dict(built.state_dict or {})
    return built.module, built.preprocessing


def torchvision_recipe(task: Task) -> np.ndarray:
    """Ten epochs, or 200 steps if these are more; the classes of the rest."""
    import torch
    from torchvision.transforms import v2

    torch.manual_seed(task.seed)
    module, preprocessing = load_network()
    module.classifier = torch.nn.Linear(module.classifier.in_features, task.n_classes)
    module.to(memory_format=torch.channels_last)  # a quarter faster
    last = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(preprocessing.mean, preprocessing.std),
    ]
    crop = [v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip()]
    train = v2.Compose([*crop, *last])
    middle = [v2.Resize(round(SIDE / 0.875)), v2.CenterCrop(SIDE)]
    test = v2.Compose([*middle, *last])
    labeled, targets = torch.as_tensor(task.labeled), torch.as_tensor(task.y)
    epochs = max(10, -(-200 * BATCH // len(labeled)))
    lr = 0.1 * BATCH / (8 * 32)  # the recipe's 0.1 is for eight batches of 32 at once
    optimizer = torch.optim.SGD(
        module.parameters(), lr, momentum=0.9, weight_decay=1e-4
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loss = torch.nn.CrossEntropyLoss()
    for _ in range(epochs):
        module.train()
        for some in labeled[torch.randperm(len(labeled))].split(BATCH):
            if len(some) == 1:
                continue  # batch norm needs two
            inputs = torch.stack([train(task.images[i]) for i in some])
            optimizer.zero_grad()
            inputs = inputs.to(memory_format=torch.channels_last)
            loss(module(inputs), targets[some]).backward()
            optimizer.step()
        schedule.step()
    module.eval()
    found = []
    with torch.inference_mode():
        for some in torch.as_tensor(task.rest).split(50):
            inputs = torch.stack([test(task.images[i]) for i in some])
            found.append(module(inputs).argmax(dim=1))
    return torch.cat(found).numpy()


def fastai_recipe(task: Task) -> np.ndarray:
    """Five epochs, or 100 steps if these are more; the classes of the rest."""
    import torch
    from fastai.callback import progress, schedule  # noqa: F401  methods of Learner
    from fastai.callback.core import Callback, CancelValidException
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import IndexSplitter, Normalize
    from fastai.torch_core import set_seed
    from fastai.vision.augment import Resize, aug_transforms
    from fastai.vision.core import PILImage
    from fastai.vision.data import ImageBlock
    from fastai.vision.learner import vision_learner

    set_seed(task.seed)
    _, preprocessing = load_network()
    arrays = [np.asarray(each) for each in task.images]
    normalize = Normalize.from_stats(preprocessing.mean, preprocessing.std, cuda=False)
    block = DataBlock(
        (ImageBlock, CategoryBlock(vocab=list(range(task.n_classes)), sort=False)),
        get_x=lambda i: PILImage.create(arrays[i]),
        get_y=lambda i: int(task.y[i]),
        splitter=IndexSplitter([0]),  # what it validates on, which is left out
        item_tfms=Resize(160),
        batch_tfms=[*aug_transforms(size=SIDE, min_scale=0.75), normalize],
    )
    items = [int(task.labeled[0]), *task.labeled.tolist()]
    loaders = block.dataloaders(items, bs=BATCH, num_workers=0, device="cpu")

    class NoValidation(Callback):
        """All labels are learnt from."""

        def before_validate(self) -> None:
            raise CancelValidException

    def lite0(pretrained: bool = True) -> Any:
        return load_network()[0]

    learner = vision_learner(
        loaders, lite0, normalize=False, n_out=task.n_classes, cbs=[NoValidation()]
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(max(5, -(-100 * BATCH // len(task.labeled))))
    loader = loaders.test_dl(task.rest.tolist(), bs=50, num_workers=0)
    learner.model.eval()
    with torch.inference_mode():
        found = [learner.model(inputs[0]).argmax(dim=1).cpu() for inputs in loader]
    return np.asarray(torch.cat([torch.as_tensor(each) for each in found]))


def random_probe(task: Task) -> np.ndarray:
    """Skadma's usual classifier; the classes of the rest."""
    from skadma import CNNClassifier

    clf = CNNClassifier(
        f"layers/{BACKBONE}",
        training="probe",
        image_size=SIDE,
        classes=np.arange(task.n_classes),
        random_state=task.seed,
    )
    arrays = [np.asarray(each) for each in task.images]
    clf.fit([arrays[i] for i in task.labeled], task.y[task.labeled])
    return np.asarray(clf.predict([arrays[i] for i in task.rest]))


RECIPES: dict[str, Callable[[Task], np.ndarray]] = {
    "torchvision": torchvision_recipe,
    "fastai": fastai_recipe,
    "random-probe": random_probe,
}


def with_recipe(
    name: str, draw: int, write: Callable[..., None], way: str, grid: Sequence[int]
) -> None:
    """Label at random, and train after each number of labels."""
    import torch

    torch.set_num_threads(1)
    files, y, classes = photographs(name, draw)
    images = small_images(files)
    order = np.random.default_rng(1000 + draw).permutation(N)
    for n in grid:
        begin = process_time()
        labeled, rest = order[:n], order[n:]
        found = RECIPES[way](Task(images, y, labeled, rest, len(classes), draw))
        right = float(n + np.sum(found == y[rest])) / N
        write(n, right, "", round(process_time() - begin, 2), "")
        if right >= 0.95:
            break


# --- the report -----------------------------------------------------------------------


def reached(curve: pd.DataFrame, target: float) -> list[str]:
    """Labels and seconds when a share is right first, linear between measurements."""
    rows = curve[["n_labels", "person", "machine"]].to_numpy(float)
    above = np.flatnonzero(curve["right"].to_numpy() >= target)
    if not len(above):
        return [f"> {value:.0f}" for value in rows[-1]]
    i = above[0]
    if not i:
        return [f"<= {value:.0f}" for value in rows[0]]
    before, after = curve["right"].iloc[[i - 1, i]]
    row = rows[i - 1] + (target - before) / (after - before) * (rows[i] - rows[i - 1])
    return [f"{value:.0f}" for value in row]


def report(cells: pd.DataFrame) -> str:
    """Make a table for each set of its first draw, as Markdown."""
    text = []
    for name, of_set in cells.groupby("set", sort=False):
        keys = of_set[of_set["way"].isin(["page", "brush", "page-random"])]
        steps = keys.groupby(["way", "draw"])[["n_labels", "person"]].diff()
        steps = steps[steps["n_labels"] == EVERY]
        per_key = steps["person"].sum() / steps["n_labels"].sum()
        rows = []
        curves = dict([*of_set[of_set["draw"] == 0].groupby("way")])
        for way in (way for way in NAMES if way in curves):
            curve = curves[way].sort_values("n_labels")
            targets = TARGETS[:2] if way in RECIPES else TARGETS
            if way in RECIPES:
                curve["person"] = curve["n_labels"] * per_key
            if way == "random-probe":  # the network looks at the pictures once
                curve["machine"] = curve["machine"].cumsum()
            rows.append(
                [NAMES[way], *(each for t in targets for each in reached(curve, t))]
            )
        for way, each in (
            ("by hand, a key each", per_key),
            ("by hand, a drag each (assumed)", DRAG),
        ):
            numbers = [(N * t, N * t * each, 0) for t in TARGETS]
            rows.append([way, *(f"{each:.0f}" for row in numbers for each in row)])
        heads = [f"{t:.0%}: {what}" for t in TARGETS for what in TOLD]
        full = [row + [""] * (1 + len(heads) - len(row)) for row in rows]
        text += [
            f"\n{name}, {per_key:.2f} s a key\n",
            markdown_table(["", *heads], full),
        ]
    return "\n".join(text)


def main() -> None:
    """Measure what is missing, or write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cells", type=Path)
    ways = ["page", "brush", "page-random", *RECIPES]
    parser.add_argument("way", nargs="?", choices=ways)
    parser.add_argument("set", nargs="?", choices=SETS)
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--labels", type=int, nargs="+", help="of a recipe")
    parser.add_argument("--report", action="store_true", help="print the tables")
    options = parser.parse_args()
    if options.report:
        print(report(pd.read_csv(options.cells)))
        return
    for draw in options.draws:
        key = options.set, options.way, draw
        done = set()
        if options.cells.is_file():
            with options.cells.open(newline="") as file:
                done = {
                    int(row["n_labels"])
                    for row in csv.DictReader(file)
                    if (row["set"], row["way"], int(row["draw"])) == key
                }

        def write(*values: Any, key: Any = key) -> None:
            values = tuple(round(v, 3) if isinstance(v, float) else v for v in values)
            print(*key, *values, flush=True)
            new = not options.cells.is_file()
            with options.cells.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([COLUMNS] * new + [(*key, *values)])

        if options.way in RECIPES:
            grid = options.labels or GRIDS[options.set]
            missing = [n for n in grid if n not in done]
            with_recipe(options.set, draw, write, options.way, missing)
        elif not done:
            with_page(options.set, draw, write, options.way)


if __name__ == "__main__":
    main()
