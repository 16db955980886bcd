"""How fast the labelling page is, in a real Chromium, on photographs of solar cells.

    python benchmarks/bench_label_page.py

From a key to the next picture on the screen, while nothing is learnt and while the
network trains; and seconds a label by keys and in the grid, by a hand that knows the
labels. What the hand needs is assumed (`HAND`), what the page adds is measured. Needs
``pip install "skadma[demo,test]"`` and Chromium.

    SKADMA_DATA=... python benchmarks/bench_label_page.py --sort

The seconds until 1,000 photographs of waste (TrashNet, six classes) have their label:
by keys, in the grid, and with the brush in the gallery. Only these are measured then,
and the other results stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from skadma import __version__
from skadma.bench.datasets import load_elpv

CLASSES = ["defective", "sound"]
HAND = {
    "look_at_one": 0.7,
    "look_at_a_tile": 0.25,
    "look_at_a_tile_of_one_class": 0.12,
    "click": 0.6,
    "point_and_key": 0.9,
    "enter": 0.5,
}
"""Seconds that a person is taken to need."""
WASTE = ["cardboard", "glass", "metal", "paper", "plastic", "trash"]
RESULTS = Path(__file__).parent / "results" / "label_page.json"
_WATCH = """() => {
  window.latencies = [];
  let began = null;
  document.addEventListener("keydown", (event) => { began ??= event.timeStamp; }, true);
  const stage = document.querySelector("#stage");
  new MutationObserver(async () => {
    const image = stage.querySelector("img");
    if (began === null || !image) return;
    const start = began;
    began = null;
    const stages = skadmaPage.queue.state.stage;
    await image.decode();
    requestAnimationFrame(() => {  // what follows it is after the paint
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => latencies.push([performance.now() - start, stages]);
      port2.postMessage(0);
    });
  }).observe(stage, { childList: true });
}"""


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--keys", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--sort", action="store_true", help="1,000 photographs alone")
    options = parser.parse_args()
    if options.sort:
        results = json.loads(RESULTS.read_text("utf-8")) | {"hand": HAND}
        results["thousand_photographs"] = sort_photographs(1000)
        options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        print(json.dumps(results["thousand_photographs"], indent=1))
        return
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        labels = write_photographs(Path(name) / "photos", 600)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        # A round that is never full: nothing is learnt after the first choice.
        idle = with_server(browser, Path(name), "idle", 300, labels, options.keys)
        busy = with_server(browser, Path(name), "busy", 20, labels, options.keys)
        browser.close()
    results = {
        "skadma": __version__,
        "processors": os.cpu_count(),
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "hand": HAND,
        "key_to_picture_ms": {
            "idle": summary(idle["idle"]),
            "while it trains or chooses": summary(busy["busy"]),
        },
        "seconds_per_label": busy["pace"],
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(json.dumps(results, indent=1))


def write_photographs(folder: Path, n: int) -> dict[str, str]:
    """Write photographs of solar cells, and say what each shows."""
    X, y = load_elpv()
    chosen = np.random.default_rng(0).choice(len(X), n, replace=False)
    folder.mkdir()
    for i in chosen:
        Image.fromarray(X[i]).save(folder / f"{i:04}.png")
    return {f"{i:04}.png": str(y[i]) for i in chosen}


def with_server(
    browser: Browser, folder: Path, name: str, n: int, labels: dict[str, str], keys: int
) -> dict[str, Any]:
    """Serve a campaign, and measure on its page."""
    options = ["-n", str(n), "--classes", *CLASSES]
    options += ["--set", "estimator__image_size=128", "estimator__max_epochs=8"]
    with served(browser, folder / "photos", folder / name, options) as page:
        if name == "idle":
            return {"idle": latencies(page, labels, keys)["idle"]}
        return busy_page(page, labels, keys)


@contextmanager
def served(
    browser: Browser, photos: Path, campaign: Path, options: list[str]
) -> Iterator[Page]:
    """Start `skadma label`, and open its page."""
    command = [sys.executable, "-P", "-c", "from skadma.cli import main; main()"]
    command += ["label", str(photos), "--campaign", str(campaign), "--no-browser"]
    command += options
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(400_000)
        page.goto(server.stdout.readline().strip())
        try:
            yield page
        finally:
            page.close()
            server.terminate()


def busy_page(page: Page, labels: dict[str, str], keys: int) -> dict[str, Any]:
    """Latency while it learns, then the pace of both views."""
    found = latencies(page, labels, keys)
    n_keys, by_keys = pace_by_keys(page, labels)
    n_grid, by_grid, n_wrong = pace_in_grid(page, labels)
    return {
        "busy": found["busy"],
        "pace": {
            "keys": {"labels": n_keys, "seconds": round(by_keys, 2)},
            "grid, with the model's guess": {
                "labels": n_grid,
                "seconds": round(by_grid, 2),
                "guesses_wrong": n_wrong,
            },
        },
    }


def right_key(page: Page, labels: dict[str, str]) -> str:
    """Wait for a picture; the key of its label."""
    page.wait_for_function(
        "() => window.skadmaPage?.views.single.visible && skadmaPage.queue.items[0]"
    )
    return "12"[CLASSES.index(labels[page.inner_text(".caption")])]


def latencies(page: Page, labels: dict[str, str], n: int) -> dict[str, list[float]]:
    """Milliseconds from a key to the next picture, by what the child did meanwhile."""
    right_key(page, labels)
    page.wait_for_function("() => skadmaPage.queue.state.stage === 'idle'")
    page.evaluate(_WATCH)
    for _ in range(n):
        key = right_key(page, labels)
        page.wait_for_timeout(300)
        page.keyboard.press(key)
    page.wait_for_timeout(1000)
    found = page.evaluate("() => latencies")
    return {
        "idle": [ms for ms, stage in found if stage == "idle"],
        "busy": [ms for ms, stage in found if stage != "idle"],
    }


def pace_by_keys(page: Page, labels: dict[str, str], n: int = 40) -> tuple[int, float]:
    """Seconds a label, one by one."""
    begin = time.perf_counter()
    for _ in range(n):
        key = right_key(page, labels)
        time.sleep(HAND["look_at_one"])
        page.keyboard.press(key)
    page.wait_for_function("() => skadmaPage.queue.outbox.size === 0")
    return n, (time.perf_counter() - begin) / n


def pace_in_grid(
    page: Page, labels: dict[str, str], n_grids: int = 3
) -> tuple[int, float, int]:
    """Seconds a label in the grid, clicking only what is wrong."""
    page.click("#view-grid")
    page.check("[data-focus=prefill]")
    page.wait_for_function(
        "() => skadmaPage.queue.items.slice(0, 20).filter((i) => i.guess).length > 15"
    )
    n = wrong = 0
    begin = time.perf_counter()
    for _ in range(n_grids):
        page.wait_for_function(
            "() => document.querySelectorAll('.tile').length === 20 &&"
            " [...document.querySelectorAll('.tile img')].every((i) => i.complete)"
        )
        tiles = page.eval_on_selector_all(
            ".tile",
            "all => all.map((e) => [e.dataset.sha256, e.title, e.dataset.mark])",
        )
        time.sleep(HAND["look_at_a_tile"] * len(tiles))
        for sha256, path, mark in tiles:
            if mark and mark != labels[path]:
                wrong += 1
            while mark != labels[path]:
                time.sleep(HAND["click"])
                tile = page.locator(f'.tile[data-sha256="{sha256}"]')
                tile.click()
                mark = tile.get_attribute("data-mark")
        time.sleep(HAND["enter"])
        n += len(tiles)
        page.locator(".tile").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("() => skadmaPage.queue.outbox.size === 0")
    return n, (time.perf_counter() - begin) / n, wrong


def sort_photographs(n: int) -> dict[str, Any]:
    """Seconds until `n` photographs have their label, three ways."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        photos, labels = Path(name) / "photos", {}
        photos.mkdir()
        files = sorted((Path(os.environ["SKADMA_DATA"]) / "trash").glob("*/*.jpg"))
        for i in np.random.default_rng(0).choice(len(files), n, replace=False):
            labels[f"{i:04}.jpg"] = files[i].parent.name
            shutil.copy(files[i], photos / f"{i:04}.jpg")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        found: dict[str, Any] = {"load_before": round(load, 1)}
        for way in (with_brush, in_grid):
            campaign, options = Path(name) / way.__name__, ["--classes", *WASTE]
            with served(browser, photos, campaign, options) as page:
                start = first_labels(page, labels)
                found[way.__name__] = way(page, labels, start)
        browser.close()
    by_keys = found["with_brush"]["first_labels"]["seconds"] / FIRST
    found["keys"] = {"seconds": round(n * by_keys), "measured": f"{FIRST} keys"}
    return found


FIRST = 24
"""Labels by keys before the model's guesses are used."""


def first_labels(page: Page, labels: dict[str, str]) -> float:
    """Give the first labels by keys; the seconds that takes."""
    seconds = FIRST * HAND["look_at_one"]
    for _ in range(FIRST):
        page.wait_for_function(
            "() => window.skadmaPage?.views.single.visible && skadmaPage.queue.items[0]"
        )
        key = key_of(labels[page.inner_text(".caption")], WASTE)
        begin = time.perf_counter()
        page.keyboard.press(key)
        seconds += time.perf_counter() - begin
    page.wait_for_function("() => skadmaPage.queue.outbox.size === 0")
    return seconds


def key_of(label: str, classes: Sequence[str]) -> str:
    """The key of one of up to ten classes: the tenth has 0."""
    return str((1 + classes.index(label)) % 10)


def with_brush(
    page: Page,
    labels: dict[str, str],
    start: float,
    classes: Sequence[str] = WASTE,
    after_screen: Callable[[float], object] = lambda hand: None,
) -> dict[str, Any]:
    """Screens of one likely class: the wrong ones by pointer and key, then Enter.

    `after_screen` is called with the hand's seconds so far.
    """
    gallery = "skadmaPage.views.gallery"
    begin = time.perf_counter()
    page.click("#view-gallery")
    page.check("[data-focus=prefill]")
    page.wait_for_function(f"() => {gallery}.model > 0")
    waited = time.perf_counter() - begin
    page.select_option("#size", "96")
    n_tiles = n_wrong = n_screens = 0
    hand = 0.0
    while True:
        left = page.evaluate(
            f"""() => {{
              {gallery}.choose();
              const left = {gallery}.rows.filter((row) => !row.mark && row.guess);
              return left.map((row) => row.guess);
            }}"""
        )
        if not left:
            break
        most = max(classes, key=left.count)
        if page.input_value("#which") != f"likely:{most}":
            page.select_option("#which", f"likely:{most}")
        begin = time.perf_counter()
        page.wait_for_function(
            "() => [...document.querySelectorAll('#gallery .tile img')].every("
            "(image) => image.naturalWidth)"
        )
        waited += time.perf_counter() - begin
        seen = page.evaluate(
            f"""() => {{
              const [first, end] = {gallery}.tiles.seen;
              return {gallery}.list.slice(first, end).map((row) => row.path);
            }}"""
        )
        for i, path in enumerate(seen):
            if labels[path] != most:
                n_wrong += 1
                page.locator(f'#gallery [data-index="{i}"]').hover()
                page.keyboard.press(key_of(labels[path], classes))
        page.locator('#gallery [data-index="0"]').hover()
        n_tiles, n_screens = n_tiles + len(seen), n_screens + 1
        begin = time.perf_counter()
        page.keyboard.press("Enter")
        page.wait_for_function("() => skadmaPage.queue.outbox.size === 0")
        waited += time.perf_counter() - begin
        time.sleep(2)  # less than the hand needs: the model learns meanwhile
        hand = (
            n_tiles * HAND["look_at_a_tile_of_one_class"]
            + n_wrong * HAND["point_and_key"]
            + n_screens * (HAND["enter"] + HAND["click"])
        )
        after_screen(start + hand)
    right = page.evaluate(f"() => {gallery}.rows.map((row) => [row.path, row.mark])")
    slow = n_tiles * (HAND["look_at_a_tile"] - HAND["look_at_a_tile_of_one_class"])
    return {
        "first_labels": {"labels": FIRST, "seconds": round(start, 1)},
        "screens": n_screens,
        "tiles": n_tiles,
        "guesses_wrong": n_wrong,
        "page_seconds": round(waited, 1),
        "right": round(
            float(np.mean([labels[path] == mark for path, mark in right])), 3
        ),
        "seconds": round(start + hand + waited),
        "seconds_if_a_tile_takes_as_in_the_grid": round(start + hand + slow + waited),
    }


def in_grid(page: Page, labels: dict[str, str], start: float) -> dict[str, Any]:
    """The grid's pictures, which the model chooses: clicks correct its guesses."""
    page.click("#view-grid")
    page.check("[data-focus=prefill]")
    n_tiles = n_wrong = n_clicks = n_screens = 0
    waited = 0.0
    for _ in range(10):  # the others are taken to be like these
        begin = time.perf_counter()
        page.wait_for_function(
            "() => document.querySelectorAll('.tile').length === 20 &&"
            " [...document.querySelectorAll('.tile img')].every((i) => i.complete)"
        )
        waited += min(time.perf_counter() - begin, 1)
        tiles = page.eval_on_selector_all(
            ".tile", "all => all.map((e) => [e.title, e.dataset.mark])"
        )
        for i, (path, mark) in enumerate(tiles):
            if mark == labels[path]:
                continue
            n_wrong += 1
            ring = [*WASTE, ""]
            clicks = (ring.index(labels[path]) - ring.index(mark)) % len(ring)
            n_clicks += clicks
            page.locator(".tile").nth(i).focus()
            page.keyboard.press(key_of(labels[path], WASTE))
        n_tiles, n_screens = n_tiles + len(tiles), n_screens + 1
        page.locator(".tile").first.focus()
        begin = time.perf_counter()
        page.keyboard.press("Enter")
        page.wait_for_function("() => skadmaPage.queue.outbox.size === 0")
        waited += time.perf_counter() - begin
        time.sleep(2)
    looked = n_tiles * HAND["look_at_a_tile"] + n_screens * HAND["enter"] + waited
    by_clicks, by_keys = n_clicks * HAND["click"], n_wrong * HAND["point_and_key"]
    scale = (len(labels) - FIRST) / n_tiles
    return {
        "measured_tiles": n_tiles,
        "guesses_wrong": n_wrong,
        "clicks": n_clicks,
        "seconds": round(start + scale * (looked + by_clicks)),
        "seconds_by_pointer_and_key": round(start + scale * (looked + by_keys)),
    }


def summary(milliseconds: list[float]) -> dict[str, float]:
    """Median, 95 % and the worst."""
    return {
        "keys": len(milliseconds),
        "median": round(float(np.median(milliseconds)), 1),
        "95 %": round(float(np.percentile(milliseconds, 95)), 1),
        "max": round(max(milliseconds), 1),
    }


if __name__ == "__main__":
    main()
