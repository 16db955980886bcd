"""How tests/crash.py breaks steps off: kills, and disks that are full."""

from __future__ import annotations

import contextlib
import json
import linecache
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
import warnings
from functools import cache
from pathlib import Path

import skadma

from .crash_steps import Run, do_step

PACKAGE = Path(skadma.__file__).parent
WATCHED = tuple(
    PACKAGE / name
    for name in (
        "labelling/campaign", "_utils/atomic.py", "learner.py", "training",
        "classifier.py", "features/cache.py", "persistence/network_file.py",
        "labelling/predict.py", "features/store",
    )
)  # fmt: skip
"""Files and folders of which each line is a point to kill at."""
NAMED = {
    "before a transaction": ('self._execute("BEGIN IMMEDIATE")', 0),
    "between two rows": ('self._execute(f"INSERT INTO {table}', 3),
    "before the commit": ('self._execute("COMMIT")', 0),
    "between two tables": ("self._execute(statement)", 4),
    "before training": ("net.fit_loop(", 0),
    "trained, not saved": ("sha256 = write_network(", 0),
    "written, not synced": ("os.fsync(file.fileno())", 0),
    "synced, not renamed": ("tmp.replace(path)", 0),
    "renamed, folder not synced": ("sync_folder(path.parent)", 0),
    "saved, not recorded": ("n_labels=len(labelled)", 0),
    "chosen, not recorded": ('add_event("query"', 0),
    "decided, not trained": ("return state, self.model(", 0),
}
"""What the line about to run holds, and how many times to let it pass."""


def in_child(task) -> tuple[int, str]:
    """Run something in a process of its own; its signal or status, and what it said."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            warnings.simplefilter("ignore")
            task(write)
            status = 0
        except BaseException:
            if os.environ.get("CRASH_TRACE"):
                traceback.print_exc()
            os.write(write, ("error " + traceback.format_exc()).encode()[-3000:])
        finally:
            os._exit(status)
    os.close(write)
    IN_FLIGHT.append(pid)
    said = b""
    while block := os.read(read, 65536):
        said += block
    os.close(read)
    _, status = os.waitpid(pid, 0)
    IN_FLIGHT.pop()
    return status, said.decode(errors="replace")


IN_FLIGHT: list[int] = []


def told(function, *arguments):
    """What a function returns in a process of its own."""

    def task(write: int) -> None:
        os.write(write, json.dumps(function(*arguments)).encode())

    status, said = in_child(task)
    if status:
        raise AssertionError(said)
    return json.loads(said)


@cache
def is_watched(file: str) -> bool:
    """Whether lines of a source file are points to kill at."""
    return any(Path(file).is_relative_to(path) for path in WATCHED)


class Killer:
    """Count lines of skadma as they are about to run, and stop at one of them."""

    def __init__(self, at: int | None = None, text: str = "", after: int = 0) -> None:
        self.at, self.text, self.after = at, text, after
        self.n = 0

    def start(self) -> None:
        sys.settrace(self._enter)

    def _enter(self, frame, event, arg):
        return self._line if is_watched(frame.f_code.co_filename) else None

    def _line(self, frame, event, arg):
        if event == "line":
            if not self.text:
                self.n += 1
                if self.n == self.at:
                    os.kill(os.getpid(), signal.SIGKILL)
            else:
                line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
                if self.text in line:
                    if self.n == self.after:
                        os.kill(os.getpid(), signal.SIGKILL)
                    self.n += 1
        return self._line


def run_step(step: str, base: Path, killer: Killer | None = None, limit: int = 0):
    def task(write: int) -> None:
        Run.ack_pipe = write
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if killer is not None:
            killer.start()
        try:
            do_step(step, base)
        finally:
            sys.settrace(None)

    return in_child(task)


def count_lines(step: str, base: Path) -> int:
    return count_lines_of(lambda: do_step(step, base))


def count_lines_of(work) -> int:
    """Count the lines to kill at that are run, in a process of its own."""

    def task(write: int) -> None:
        killer = Killer()
        killer.start()
        work()
        sys.settrace(None)
        os.write(write, str(killer.n).encode())

    status, said = in_child(task)
    assert status == 0, said
    assert int(said) > 0, "no line to kill at is run"
    return int(said)


@contextlib.contextmanager
def kill_later(seconds: float | None):
    """Kill the process in flight after some time; never if None."""

    def alarm(*_) -> None:
        if not IN_FLIGHT:  # it is being forked
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(IN_FLIGHT[-1], signal.SIGKILL)

    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0 if seconds is None else seconds + 0.001)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextlib.contextmanager
def small_disk(base: Path, kilobytes: int):
    """Move the campaign to a file system with so little room left; False if one can't.

    Afterwards it is back where it was.
    """
    folder, aside = base / "campaign", base / "aside"
    used = sum(p.stat().st_size + 8192 for p in folder.rglob("*") if p.is_file())
    size = used // 1024 + kilobytes
    if folder.exists():
        folder.rename(aside)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        if mounted and aside.exists():
            shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield mounted
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if mounted:
            shutil.copytree(folder, aside)
            subprocess.run(["umount", str(folder)], check=True)
            folder.rmdir()
            aside.rename(folder)
