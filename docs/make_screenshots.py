"""Make the pictures of docs/label.md: the real page, real photographs.

    python docs/make_screenshots.py

Needs ``pip install "skadma[demo,test]"`` and Chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from skadma.bench.datasets import load_elpv

CLASSES = ["defective", "sound"]
SIZE = {"width": 1180, "height": 800}


def main() -> None:
    """Label some photographs and take pictures of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    out = parser.parse_args().out
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        labels = write_photographs(Path(name) / "photos", 240)
        server, address = start(Path(name))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        try:
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(300_000)
            page.goto(address)
            picture(page, labels, out)
        finally:
            browser.close()
            server.terminate()
            server.wait()


def write_photographs(folder: Path, n: int) -> dict[str, str]:
    """Write photographs of solar cells, and say what each shows."""
    X, y = load_elpv()
    rng = np.random.default_rng(1)
    chosen = np.concatenate(
        [rng.choice(np.flatnonzero(y == c), n // 2, replace=False) for c in CLASSES]
    )
    folder.mkdir()
    for i in chosen:
        Image.fromarray(X[i]).save(folder / f"cell {i:04}.png")
    return {f"cell {i:04}.png": str(y[i]) for i in chosen}


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the server; its address."""
    command = [
        sys.executable,
        "-P",
        "-c",
        "from skadma.cli import main; main()",
        "label",
    ]
    command += [str(folder / "photos"), "--campaign", str(folder / "solar-cells")]
    command += ["--classes", *CLASSES, "--who", "ana", "--no-browser", "-n", "20"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


def save(page: Page, path: Path) -> None:
    """Write what is seen, in 96 colours, so that it is small."""
    with Image.open(io.BytesIO(page.screenshot())) as seen:
        # Others have no colours left for the labels beside grey photographs.
        method = Image.Quantize.MAXCOVERAGE
        few = seen.convert("RGB").quantize(96, method, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
    print(path)


def picture(page: Page, labels: dict[str, str], out: Path) -> None:
    """Label one by one, look at the grid, the gallery and the progress."""
    for i in range(30):
        page.wait_for_function(
            "() => window.skadmaPage?.views.single.visible && skadmaPage.queue.items[0]"
        )
        path = page.inner_text(".caption")
        key = "12"[CLASSES.index(labels[path])]
        if i == 25:
            key = "t"
        elif i % 15 == 8:
            key = "12"[key == "1"]  # people err
        page.wait_for_timeout(450)
        page.keyboard.press(key)
    page.wait_for_function("() => skadmaPage.queue.outbox.size === 0")
    page.wait_for_function("() => skadmaPage.views.single.visible")
    page.wait_for_timeout(1000)  # the small pictures of the strip
    save(page, out / "label_single.png")
    page.click("#view-grid")
    page.wait_for_function("() => document.querySelectorAll('.tile').length === 20")
    page.wait_for_function(
        "() => skadmaPage.queue.state.stage === 'idle' && skadmaPage.queue.items"
        ".slice(0, 20).filter((i) => i.guess).length > 11"
    )
    page.check("[data-focus=prefill]")
    page.locator(".tile").nth(6).click()
    page.wait_for_timeout(1500)
    save(page, out / "label_grid.png")
    page.uncheck("[data-focus=prefill]")
    page.click("#view-gallery")
    page.wait_for_function("() => document.querySelector('#gallery .tile')")
    page.wait_for_timeout(6000)  # the small pictures, and guesses
    save(page, out / "label_gallery.png")
    page.click("#view-progress")
    page.wait_for_selector("#part-agreement h2")
    page.wait_for_timeout(1500)
    page.set_viewport_size({"width": SIZE["width"], "height": 1500})
    save(page, out / "label_progress.png")


if __name__ == "__main__":
    main()
