"""How fast commands and the page start, their memory, and passes beside busy processes.

    python benchmarks/bench_start.py [OUT.json] [--only commands|page|passes]

Makes 1,000 pictures of 64 x 64 pixels. Processor time and memory are those of the
commands, by `getrusage`; they depend little on what else the machine does. Seconds on
the clock do, so they come with the machine's load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from skadma import Campaign

MAIN = "import sys; from skadma.cli import main; sys.exit(main())"
USAGE = """
import os, sys
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(pid, 0)
print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 // 10**6)
sys.exit(bool(status))
"""
"""In a small process, as the memory of one that starts another counts for both."""
PASS = """
import time, numpy as np
from skadma import CNNClassifier
images = np.random.default_rng(0).integers(0, 256, (64, 128, 128, 3), np.uint8)
network = CNNClassifier("efficientnet_lite0", image_size=128, memory=False)
seconds = []
for _ in range(9):
    began = time.perf_counter()
    network.embed(images, -2)
    seconds.append(time.perf_counter() - began)
print(sorted(seconds)[4])
"""


def paint(folder: Path, n: int) -> Path:
    """Make `n` different pictures."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(n):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((64, 64))
        picture.save(folder / f"{i:04}.jpg", quality=80)
    return folder


def usage(*arguments: str) -> dict[str, float]:
    """Run a command; its processor time and its largest memory."""
    python = [sys.executable, "-c"]
    command = [*python, USAGE, *python, MAIN, *arguments]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, memory = said.split()
    return {"processor_s": round(float(seconds), 3), "memory_mb": int(memory)}


def resident(pid: int) -> int:
    """Memory of a process now, in millions of bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024 // 10**6


def processor(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def page(photos: Path, folder: Path) -> dict[str, float]:
    """To the first picture, to the first choice, and until all images were seen."""
    began = time.perf_counter()
    command = [sys.executable, "-c", MAIN, "label", str(photos), "--classes", "a", "b",
               "--campaign", str(folder), "--no-browser"]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    origin, _, token = server.stdout.readline().strip().partition("/#")
    with httpx.Client(base_url=origin, timeout=600) as client:
        client.headers.update({"Origin": origin, "X-Skadma": "1"})
        entered = client.post("/api/session", json={"token": token}).json()
        client.headers["X-Skadma"] = entered["token"]
        client.headers["X-Skadma-Campaign"] = client.get("/api/about").json()["id"]

        def sync() -> dict:
            body = {"tab": "bench", "have": [], "want": 6}
            return client.post("/api/sync", json=body).json()

        told = sync()
        client.get(f"/img/{told['items'][0]['sha256']}?size=view").raise_for_status()
        found = {
            "first_picture_s": round(time.perf_counter() - began, 2),
            "first_picture_processor_s": processor(server.pid),
        }

        def until(what: str, done: Callable[[dict], bool]) -> int:
            while not done(told := sync()):
                time.sleep(0.3)
            assert told["problem"] is None
            tasks = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
            trains = max(map(int, tasks.split()), key=resident)
            found[f"{what}_s"] = round(time.perf_counter() - began, 2)
            found[f"{what}_processor_s"] = processor(trains)
            return trains

        until("first_choice", lambda told: told["n_left"] or told["stage"] == "idle")
        trains = until(
            "all_images", lambda told: not told["n_left"] and told["stage"] == "idle"
        )
        found["server_memory_mb"] = resident(server.pid)
        found["child_memory_mb"] = resident(trains)
        files = [f for f in folder.rglob("*") if f.is_file()]
        found["folder_mb"] = round(sum(f.stat().st_size for f in files) / 1e6, 1)
    server.send_signal(signal.SIGINT)
    server.wait()
    return found


def passes() -> dict[str, float]:
    """Seconds of a pass over 64 images, alone and beside busy processes."""
    found = {}
    for n_busy in (0, 1, 2):
        for policy in ("unset", "PASSIVE"):
            env = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
            env |= {"OMP_WAIT_POLICY": policy} if policy != "unset" else {}
            busy = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"])
                for _ in range(n_busy)
            ]
            try:
                command = [sys.executable, "-c", PASS]
                said = subprocess.run(
                    command, env=env, check=True, capture_output=True, text=True
                )
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
            found[f"{n_busy} busy, {policy}"] = round(float(said.stdout), 3)
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--only", choices=("commands", "page", "passes"))
    options = parser.parse_args()
    out = options.out or Path(__file__).parent / "results" / "start.json"
    found = json.loads(out.read_text()) if options.only and out.exists() else {}
    found["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as work:
        photos = paint(Path(work, "photos"), 1000)
        campaign = ("--campaign", f"{work}/campaign")
        if options.only in (None, "page"):
            found["page"] = page(photos, Path(work, "campaign"))
            found["page"]["load"] = round(os.getloadavg()[0], 1)
        if options.only in (None, "commands"):
            if not Path(work, "campaign").exists():
                classes = ["a", "b"]
                Campaign.create(campaign[1], photos, classes, at_once=True).close()
                usage("status", *campaign)  # which reads the other pictures
            found["version"] = usage("--version")
            found["status of 1,000 images"] = usage("status", *campaign)
    if options.only in (None, "passes"):
        found["pass over 64 images, s"] = passes()
        found["pass over 64 images, s"]["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps(found, indent=2))
    out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
