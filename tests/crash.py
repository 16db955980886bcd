"""Kill a campaign's processes, fill its disk, cut its power; nothing may be lost.

    python tests/crash.py --times 300

Each trial copies a campaign as it was before some step, lets a process do the step,
and breaks it off: by SIGKILL at a named point, at a random line of skadma's code or
after a random time; by a disk that is full; by a WAL file that lost its unsynced end.
Then another process opens the campaign. It must find the state before the step or after
it, after it if the step was acknowledged, and must come to the same labels, the same
model to the bit and the same next query as the run that nothing happened to.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import linecache
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from tqdm import tqdm  # noqa: E402

from skadma import Campaign, CNNClassifier  # noqa: E402
from skadma.campaign import LabelRow  # noqa: E402
from skadma.strategies import MarginSampling  # noqa: E402
from tests.conftest import TinyCNN  # noqa: E402

LABELS = "abc"
WATCHED = (
    "campaign", "files.py", "learner.py", "training.py", "classifier.py", "cache.py",
)  # fmt: skip
NAMED = {
    "before a transaction": ('self._execute("BEGIN IMMEDIATE")', 0),
    "between two rows": ('self._execute(f"INSERT INTO {table}', 3),
    "before the commit": ('self._execute("COMMIT")', 0),
    "between two tables": ("self._execute(statement)", 4),
    "before training": ("net.partial_fit(", 0),
    "trained, not saved": ("sha256 = save_model(", 0),
    "written, not synced": ("os.fsync(file.fileno())", 0),
    "synced, not renamed": ("part.replace(path)", 0),
    "renamed, folder not synced": ("sync_folder(path.parent)", 0),
    "saved, not recorded": ('"train",', 0),
    "chosen, not recorded": ('add_event("query"', 0),
    "decided, not trained": ("return self._trainer.model(", 0),
}
"""What the line about to run holds, and how many times to let it pass."""


def make_pool(folder: Path, seed: int = 0) -> None:
    """24 random pictures of three classes; the label is in the name."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(24):
        pixels = rng.integers(0, 90, (32, 32, 3))
        pixels[:, :, i % 3] += 120
        name = f"{i:02} ü {LABELS[i % 3]}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)


def truth(path: str) -> str:
    return path[-5]


def renamed_truth(path: str) -> str:
    """As the classes are called after the step "rename"."""
    return truth(path).replace("c", "e")


def create(base: Path) -> Campaign:
    estimator = CNNClassifier(
        TinyCNN, image_size=32, n_frozen_layers=1, max_epochs=2, lr=1e-2, head_lr=1e-2
    )
    return Campaign.create(
        base / "campaign",
        base / "pool",
        list(LABELS),
        estimator,
        MarginSampling(),
        n_instances=4,
        warm_start=WARM,
    )


def reopen(base: Path, who: str = "eva") -> Campaign:
    return Campaign.open(
        base / "campaign", pool=base / "pool", backbone=TinyCNN, who=who
    )


def teach(campaign: Campaign, truth: Callable[[str], str] = truth) -> None:
    answers = {p.path: truth(p.path) for p in campaign.query()}
    campaign.teach(answers, train=False)
    acknowledge(campaign)
    campaign.estimator()


def relabel(campaign: Campaign) -> None:
    path, decision, _ = min(campaign.decisions(), key=lambda row: row[0])
    wrong = LABELS[LABELS.index(decision.label) - 1]
    campaign.relabel(path, wrong)


def skip(campaign: Campaign) -> None:
    paths = [p.path for p in campaign.query()]
    marks = dict(zip(paths, ("?skip", "?cant-tell", "?not-an-image"), strict=False))
    campaign.teach(marks)


def repeat(campaign: Campaign) -> None:
    """Two people see labelled images again, as one file of answers tells."""
    due = campaign.repeats_due(1, "max")[:3]
    rows = [
        LabelRow(p.path, p.path, label, p.sha256, who=who)
        for p, label in zip(due, "aba", strict=True)
        for who in ("max", "ida")
    ]
    campaign.record_repeats(rows)
    acknowledge(campaign)


def answer(campaign: Campaign) -> None:
    """Label what was drawn, and use it."""
    campaign.audits.answer({p.path: truth(p.path) for p in campaign.audits.pending()})
    acknowledge(campaign)
    campaign.audits.estimate()


STEPS = {
    "start": None,
    "query": lambda campaign: campaign.query(),
    "teach": teach,
    "relabel": relabel,
    "query again": lambda campaign: campaign.query(),
    "undo": lambda campaign: campaign.undo(),
    "skip": skip,
    "teach again": teach,
    "repeat": repeat,
    "undo repeat": lambda campaign: campaign.undo(),
    "repeat again": repeat,
    "draw": lambda campaign: campaign.audits.draw(4),
    "answer": answer,
    "release": lambda campaign: campaign.audits.release(),
    "add classes": lambda campaign: campaign.add_classes(["d", "f"]),
    "rename": lambda campaign: campaign.rename_class("c", "e"),
    "add a pool": lambda campaign: campaign.add_pool(MORE),
    "undo the pool": lambda campaign: campaign.undo(),
    "add it again": lambda campaign: campaign.add_pool(MORE),
    "teach renamed": lambda campaign: teach(campaign, renamed_truth),
    "merge": lambda campaign: campaign.merge_classes(["a", "d"], "ad"),
    "undo the merge": lambda campaign: campaign.undo(),
}
MORE = Path()
WARM = False
ack_pipe = -1


def acknowledge(campaign: Campaign) -> None:
    """Tell the parent that decisions are safe, and how long the WAL is by now."""
    if ack_pipe >= 0:
        wal = campaign.folder / "campaign.sqlite-wal"
        size = wal.stat().st_size if wal.exists() else 0
        os.write(ack_pipe, f"{size}\n".encode())


def do_step(step: str, base: Path) -> None:
    campaign = create(base) if step == "start" else reopen(base)
    with campaign:
        if step != "start":
            STEPS[step](campaign)
    if ack_pipe >= 0:
        os.write(ack_pipe, b"done\n")


def what_was_said(campaign: Campaign) -> list:
    """What holds, and what was said blind of it."""
    decisions = [(p, d.mark, s) for p, d, s in campaign.decisions()]
    agreement = campaign.agreement()
    status = campaign.status()
    pending = [p.path for p in campaign.audits.pending()]
    pairs = [(p.first, p.second, str(p)) for p in agreement.pairs]
    return (
        sorted(decisions)
        + sorted(pairs)
        + [(d.path, d.second, d.other) for d in agreement.disagreements]
        + [(status.audit, status.audit_answered, str(pending))]
        + [("classes", name, n) for name, n in status.labels.items()]
        + [("former", *names) for names in campaign.former_classes().items()]
        + [("pool", name, status.n_images) for name in campaign.pools]
    )


def outcome(base: Path) -> dict:
    """All that must not depend on what happened on the way."""
    with reopen(base) as campaign:
        decisions = what_was_said(campaign)
        known = campaign.status().audit_answered
        estimate = str(campaign.audits.estimate()) if known else ""
        query = [list(vars(p).values()) for p in campaign.query()]
        network = campaign.estimator()
        bits = ""
        if hasattr(network, "net_"):
            values = network.net_.module_.state_dict().values()
            joined = b"".join(v.numpy().tobytes() for v in values)
            bits = hashlib.sha256(joined).hexdigest()
    return {"decisions": decisions, "query": query, "model": bits, "estimate": estimate}


def decided(base: Path) -> list:
    with reopen(base) as campaign:
        return what_was_said(campaign)


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


# --- ways to break a step off ---------------------------------------------------------


class Killer:
    """Count lines of skadma as they are about to run, and stop at one of them."""

    def __init__(self, at: int | None = None, text: str = "", after: int = 0) -> None:
        self.at, self.text, self.after = at, text, after
        self.n = 0

    def start(self) -> None:
        sys.settrace(self._enter)

    def _enter(self, frame, event, arg):
        name = frame.f_code.co_filename
        _, found, rest = name.partition(f"{os.sep}skadma{os.sep}")
        return self._line if found and rest.startswith(WATCHED) else None

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
        global ack_pipe
        ack_pipe = write
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
    def task(write: int) -> None:
        killer = Killer()
        killer.start()
        do_step(step, base)
        sys.settrace(None)
        os.write(write, str(killer.n).encode())

    status, said = in_child(task)
    assert status == 0, said
    return int(said)


class Trials:
    """The run that nothing happens to, and trials against it."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch = scratch
        self.random = random.Random(seed)
        self.before: dict[str, Path] = {}
        self.after: dict[str, Path] = {}
        self.expected: dict[str, dict] = {}
        self.lines: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        base = scratch / "run"
        make_pool(base / "pool")
        make_pool(MORE, seed=1)
        for number, step in enumerate(STEPS):
            self.before[step] = self._copy(base, f"before-{number}")
            begin = time.perf_counter()
            status, said = run_step(step, base)
            assert status == 0, said
            self.seconds[step] = time.perf_counter() - begin
            self.after[step] = self._copy(base, f"after-{number}")
            self.expected[step] = told(
                outcome, self._copy(self.after[step], f"look-{number}")
            )
            self.lines[step] = count_lines(
                step, self._copy(self.before[step], f"count-{number}")
            )

    def _copy(self, base: Path, name: str) -> Path:
        copy = self.scratch / name
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(base, copy, symlinks=True)
        return copy

    def trial(self, way: str, step: str, point: str = "") -> bool | None:
        """Break a step off and check all.

        False where the step ended before, None where it cannot be tried here.
        """
        base = self._copy(self.before[step], "trial")
        killer, limit, broken = None, 0, None
        if way == "named":
            killer = Killer(text=NAMED[point][0], after=NAMED[point][1])
        elif way in ("line", "power"):
            killer = Killer(at=self.random.randint(1, self.lines[step]))
        elif way == "full":
            limit = self.random.choice([1, 5, 20, 40, 60, 100, 200]) * 1024
        if way == "time":
            broken, said = self._kill_later(step, base)
        elif way == "disk":
            with small_disk(base, self.random.randint(8, 200)) as full:
                if not full:
                    return None
                broken, said = run_step(step, base)
        else:
            broken, said = run_step(step, base, killer, limit)
        if broken and not os.WIFSIGNALED(broken):
            expected = way in ("full", "disk")
            assert expected and ("Error" in said), f"{way} {step}: {said}"
        if way == "power":
            self._cut_power(base, said)
        self._check(base, step, said, f"{way} {step} {point}")
        return broken != 0

    def _kill_later(self, step: str, base: Path) -> tuple[int, str]:
        delay = self.random.uniform(0, self.seconds[step])

        def alarm(*_) -> None:
            if not IN_FLIGHT:  # it is being forked
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(IN_FLIGHT[-1], signal.SIGKILL)

        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, delay + 0.001)
        try:
            return run_step(step, base)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _cut_power(self, base: Path, said: str) -> None:
        """Lose, or garble, what the WAL has beyond what was acknowledged."""
        wal = base / "campaign" / "campaign.sqlite-wal"
        if not wal.exists() or "done" in said.split():
            return
        sizes = [int(line) for line in said.split() if line.isdigit()]
        size, safe = wal.stat().st_size, sizes[-1] if sizes else 0
        keep = self.random.randint(safe, max(size, safe))
        with wal.open("r+b") as file:
            file.truncate(keep)
            if self.random.random() < 0.5:  # blocks that were allotted, not written
                file.seek(keep)
                file.write(bytes(size - keep))
        (base / "campaign" / "campaign.sqlite-shm").unlink(missing_ok=True)

    def _check(self, base: Path, step: str, said: str, what: str) -> None:
        acknowledged = "done" in said.split() or any(s.isdigit() for s in said.split())
        target = self.expected[step]
        try:
            found = told(decided, base)
        except AssertionError as error:
            # Only a start that was broken off may leave nothing to open.
            assert step == "start" and "done" not in said.split(), f"{what}: {error}"
            assert "CampaignError" in str(error), f"{what}: {error}"
            found = None
        if found is not None and step != "start":
            before = [
                tuple(row)
                for row in told(decided, self._copy(self.before[step], "look"))
            ]
            after = [tuple(row) for row in target["decisions"]]
            rows = [tuple(row) for row in found]
            assert rows in (before, after), f"{what}: half applied: {rows}"
            if acknowledged:
                assert rows == after, f"{what}: acknowledged and lost: {rows}"
            redo = rows != after or (before == after and "query" in step)
        else:
            redo = found is None
        if redo:
            status, error = run_step(step, base)
            assert status == 0, f"{what}: not to be done again: {error}"
        result = told(outcome, base)
        assert result == target, f"{what}: another outcome\n{result}\n{target}"
        assert not list((base / "campaign").glob("*.part"))


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


WAYS = ("named", "line", "time", "power", "full", "disk")


def main() -> int:
    global WARM, MORE
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=300, help="trials in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm-start", action="store_true")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument(
        "--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP",
        help="those to break off",
    )  # fmt: skip
    options = parser.parse_args()
    WARM = options.warm_start
    torch.set_num_threads(1)  # a process that forks must have no threads
    tried: collections.Counter[str] = collections.Counter()
    broken_off: collections.Counter[str] = collections.Counter()
    lost: collections.Counter[str] = collections.Counter()
    begin = time.perf_counter()
    # Memory outlives a killed process as a disk does, and is faster.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as scratch:
        MORE = Path(scratch, "more")
        trials = Trials(Path(scratch), options.seed)
        points = [(step, point) for step in options.steps for point in NAMED]
        trials.random.shuffle(points)
        for number in tqdm(range(options.times), unit=" trials", disable=None):
            way = options.ways[number % len(options.ways)]
            try:
                broken = None
                if way == "named":
                    for _ in range(len(points)):  # the next that a step comes to
                        points.append(points.pop(0))
                        broken = trials.trial(way, *points[-1])
                        if broken:
                            break
                else:
                    step = trials.random.choice(options.steps)
                    broken = trials.trial(way, step)
                tried[way] += broken is not None
                broken_off[way] += bool(broken)
            except AssertionError as error:
                tried[way] += 1
                lost[way] += 1
                print(f"trial {number}: {error}", file=sys.stderr)
    seconds = time.perf_counter() - begin
    print("way     tried  broken off  lost")
    for way in options.ways:
        print(f"{way:<8}{tried[way]:>5}{broken_off[way]:>12}{lost[way]:>6}")
    print(f"{sum(tried.values())} trials in {seconds:.0f} s, seed {options.seed}")
    return 1 if lost.total() else 0


if __name__ == "__main__":
    sys.exit(main())
