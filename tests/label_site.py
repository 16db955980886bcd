"""A real 'skadma label' in a process of its own, and a real Chromium."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_MAIN = "import sys; from skadma.cli import main; sys.exit(main())"
CLASSES = ["crack", "ok"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TINY = [
    "--backbone", "squeezenet1_1", "--training", "fine-tune", "--weights", "none",
    "--strategy", "margin-sampling",
    "--set", "estimator__image_size=32", "estimator__max_epochs=1",
]  # fmt: skip


def paint(folder, n, side=32, seed=0):
    """Make `n` different pictures, dark or bright."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.integers(0, 120, (side, side, 3)) + 120 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    return folder


class Site:
    """The server, as a person starts it."""

    def __init__(self, folder, pool, *options, n=10, classes=CLASSES, port=None,
                 program=("-c", _MAIN), cwd=None, browser=False,
                 usual=False):  # fmt: skip
        self.folder = Path(folder)
        self.cwd = cwd
        self.command = [
            sys.executable, *program, "label", str(pool),
            "--classes", *classes, "--campaign", str(folder),
            "-n", str(n), *([] if usual else TINY), *options,
            *([] if browser else ["--no-browser"]),
            *(["--port", str(port)] if port else []),
        ]  # fmt: skip
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"}, cwd=self.cwd,
        )  # fmt: skip
        self.errors = []
        self.drain = threading.Thread(
            target=self._drain, args=(self.process,), daemon=True
        )
        self.drain.start()
        self.first_address = self.process.stdout.readline().strip()
        assert self.first_address.startswith("http://127.0.0.1:"), "".join(self.errors)
        self.origin = self.first_address.partition("/#")[0]
        self.port = int(self.origin.rpartition(":")[2])
        self.said = []

    def address(self):
        """Another address, which lets one browser in: Enter prints it."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        while not (line := self.process.stdout.readline()).startswith(self.origin):
            assert line, "".join(self.errors)
            self.said.append(line)
        return line.strip()

    def token(self):
        return self.address().partition("/#")[2]

    def _drain(self, process):
        for line in process.stderr:
            self.errors.append(line)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        said = self.process.stdout.read()
        self.drain.join(15)  # what is said at the very end, too
        self.process.stdout.close()
        self.process.stdin.close()
        return said

    def log(self):
        """The campaign's events, read by another process's eyes."""
        from skadma import Campaign

        with Campaign.open(self.folder) as campaign:
            return campaign.log()

    def given(self):
        """(picture's path, mark) in the order of the log, undone or not."""
        return [
            (d["path"], d["label"]) for e in self.log() for d in e.get("decisions", [])
        ]

    def held(self):
        """What holds, by path."""
        from skadma import Campaign

        with Campaign.open(self.folder) as campaign:
            return {path: d.mark for path, d, _ in campaign.decisions()}

    def client(self, **headers):
        """An HTTP client that has been let in, as the page is."""
        import httpx

        client = httpx.Client(
            base_url=self.origin,
            headers={"Origin": self.origin, "X-Skadma": "1", **headers},
            timeout=30,
        )
        answer = client.post("/api/session", json={"token": self.token()})
        assert answer.status_code == 200
        client.headers["X-Skadma"] = answer.json()["token"]
        client.headers["X-Skadma-Campaign"] = client.get("/api/about").json()["id"]
        return client


@pytest.fixture(scope="session")
def chromium():
    """A browser, or a reason why there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install skadma[test]"
    )
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
        )
        yield browser
        browser.close()


@pytest.fixture
def serve():
    """What starts a server; all of them end with the test."""
    sites = []

    def start(*arguments, **options):
        sites.append(Site(*arguments, **options))
        return sites[-1]

    yield start
    for site in sites:
        if site.process.poll() is None:
            site.kill()


@pytest.fixture
def pages(chromium):
    """What opens the page, each time in a profile of its own; none may complain."""
    opened = []

    def open_page(site, **options):
        context = chromium.new_context(**options)
        context.set_default_timeout(120_000)  # processors are shared
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on(
            "console", lambda m: m.type == "error" and page.complaints.append(m.text)
        )
        opened.append(page)
        page.goto(site.address())
        until(page, "window.skadmaPage")
        return page

    yield open_page
    for page in opened:
        page.context.close()
    complaints = [text for page in opened for text in page.complaints]
    assert complaints == [], complaints


def until(page, expression):
    """Wait for something to be true in the page."""
    # As a function: the page's policy allows no string to be evaluated.
    page.wait_for_function(f"() => {expression}")


def shown(page, other_than=None):
    """Wait until a picture is seen; its SHA-256."""
    page.wait_for_function(
        "other => { const s = document.querySelector('#stage');"
        " return s && s.dataset.shown && s.dataset.shown !== other"
        " && s.querySelector('img'); }",
        arg=other_than,
    )
    return page.get_attribute("#stage", "data-shown")


def press(page, key):
    """Press a key, and wait for the next picture."""
    before = shown(page)
    page.keyboard.press(key)
    return shown(page, before)


def loaded(page, n):
    """Wait until the picture that is shown and the next `n` are in the browser."""
    until(page, f"skadmaPage.queue.items.length > {n}")
    page.evaluate(
        """(n) => Promise.all(skadmaPage.queue.items.slice(0, n + 1)
          .map((item) => skadmaPage.queue.image(item).ready))""",
        n,
    )


def saved(page):
    """Wait until nothing is being saved."""
    until(page, "skadmaPage.queue.outbox.size === 0")


def marks_of(events):
    return [(d["sha256"], d["label"]) for e in events for d in e.get("decisions", [])]


def strip(page):
    return page.eval_on_selector_all(
        ".recent li[data-target]", "all => all.map(e => e.dataset.mark)"
    )
