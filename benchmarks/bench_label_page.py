"""How fast the labelling page is, in a real Chromium, on photographs of solar cells.

    python benchmarks/bench_label_page.py

From a key to the next picture on the screen, while nothing is learnt and while the
network trains; and seconds a label by keys and in the grid, by a hand that knows the
labels. What the hand needs is assumed (`HAND`), what the page adds is measured. Needs
``pip install "skadma[demo,test]"`` and Chromium.
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
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from skadma import __version__
from skadma.bench.datasets import load_elpv

CLASSES = ["defective", "sound"]
HAND = {"look_at_one": 0.7, "look_at_a_tile": 0.25, "click": 0.6, "enter": 0.5}
"""Seconds that a person is taken to need."""
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
    options = parser.parse_args()
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
    command = [
        sys.executable,
        "-P",
        "-c",
        "from skadma.cli import main; main()",
        "label",
    ]
    command += [str(folder / "photos"), "--campaign", str(folder / name), "-n", str(n)]
    command += ["--classes", *CLASSES, "--no-browser"]
    command += ["--set", "estimator__image_size=128", "estimator__max_epochs=8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(400_000)
        page.goto(server.stdout.readline().strip())
        try:
            if name == "idle":
                return {"idle": latencies(page, labels, keys)["idle"]}
            return busy_page(page, labels, keys)
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
