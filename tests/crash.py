"""Kill a campaign's processes, fill its disk, cut its power; nothing may be lost.

    python tests/crash.py --times 1000

Each trial copies a campaign as it was before some step, lets a process do the step,
and breaks it off: by SIGKILL at a named point, at a random line of skadma's code or
after a random time; by a disk that is full; by a WAL file that lost its unsynced end.
Then another process opens the campaign. It must find the state before the step or after
it, after it if the step was acknowledged, and must come to the same labels, the same
model to the bit and the same next query as the run that nothing happened to.

Three processes of other kinds are killed as well: the page's server while it records,
predictions for a folder, and a feature store that is built.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from tests.crash_processes import PageServer, Predictions, Store  # noqa: E402
from tests.crash_steps import STEPS, Run, decided, make_pool, outcome  # noqa: E402
from tests.crash_ways import (  # noqa: E402
    NAMED,
    Killer,
    count_lines,
    kill_later,
    run_step,
    small_disk,
    told,
)


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
        make_pool(Run.more, seed=1)
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
            with kill_later(self.random.uniform(0, self.seconds[step])):
                broken, said = run_step(step, base)
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


PROCESSES = {"page": PageServer, "predict": Predictions, "store": Store}
WAYS = ("named", "line", "time", "power", "full", "disk", *PROCESSES)


def main() -> int:
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
    Run.warm_start = options.warm_start
    # A shell's background job ignores Ctrl-C, and so would the servers it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)  # a process that forks must have no threads
    tried: collections.Counter[str] = collections.Counter()
    broken_off: collections.Counter[str] = collections.Counter()
    lost: collections.Counter[str] = collections.Counter()
    begin = time.perf_counter()
    # Memory outlives a killed process as a disk does, and is faster.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as scratch:
        Run.more = Path(scratch, "more")
        trials = Trials(Path(scratch), options.seed)
        points = [(step, point) for step in options.steps for point in NAMED]
        trials.random.shuffle(points)
        processes: dict[str, Any] = {}
        for number in tqdm(range(options.times), unit=" trials", disable=None):
            way = options.ways[number % len(options.ways)]
            try:
                broken = None
                if way in PROCESSES:
                    if way not in processes:
                        processes[way] = PROCESSES[way](Path(scratch))
                    broken = processes[way].trial(trials.random)
                elif way == "named":
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
