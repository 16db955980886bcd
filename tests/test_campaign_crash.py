"""The short form of tests/crash.py: processes are killed, disks full, power is cut.

``python tests/crash.py --times 1000`` is the full form; docs/reliability.md has its
result.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import skadma
from skadma import Campaign, CNNClassifier
from skadma.strategies import RandomSampling

from . import crash_ways
from .crash_steps import make_pool
from .crash_ways import NAMED, WATCHED, count_lines, is_watched

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="kills forked processes"
)


WAYS = ["named", "line", "time", "power", "full", "disk"]
CHANGES = [
    "add classes", "rename", "add a pool", "undo the pool", "merge", "undo the merge",
]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "0"],
        ["--seed", "1", "--warm-start"],
        ["--seed", "2", "--steps", *CHANGES],
    ],
)
def test_nothing_is_lost(options, request):
    """12 trials, two of each way to break a step off."""
    done = subprocess.run(
        [sys.executable, "tests/crash.py", "--times", "12", *options, "--ways", *WAYS],
        cwd=request.config.rootpath, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\w+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    counts = {way: tuple(map(int, numbers)) for way, *numbers in rows}
    # Only root may mount a small disk.
    assert {way: n for way, (n, _, _) in counts.items() if way != "disk"} == (
        dict.fromkeys(WAYS[:-1], 2)
    )
    assert sum(lost for _, _, lost in counts.values()) == 0
    for way in ("named", "line"):  # these do break off what they are aimed at
        assert counts[way][1] == counts[way][0]


@pytest.mark.parametrize("way", ["page", "predict", "store"])
def test_processes_of_other_kinds_lose_nothing(way, request):
    if way == "page":
        pytest.importorskip("httpx")
        pytest.importorskip("uvicorn")
    done = subprocess.run(
        [sys.executable, "tests/crash.py", "--times", "3", "--seed", "1",
         "--steps", "query", "--ways", way],
        cwd=request.config.rootpath, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{way} +3 +[1-3] +0$", done.stdout, re.MULTILINE)


def test_the_named_points_are_there():
    """Or they would silently not be tried."""
    assert all(path.exists() for path in WATCHED)
    watched = [
        path.read_text("utf-8")
        for path in Path(skadma.__file__).parent.rglob("*.py")
        if is_watched(str(path))
    ]
    for point, (text, _) in NAMED.items():
        assert sum(text in content for content in watched) == 1, point


def test_a_step_without_lines_to_kill_at_is_an_error(monkeypatch, tmp_path):
    """Or a trial would end before it is broken off, and nothing would be tried."""
    make_pool(tmp_path / "pool")
    monkeypatch.setattr(crash_ways, "is_watched", lambda file: False)
    with pytest.raises(AssertionError, match="no line to kill at"):
        count_lines("start", tmp_path)


def test_the_package_may_lie_below_a_folder_of_its_name(request, tmp_path):
    """As in a clone that is named skadma."""
    root = request.config.rootpath
    clone = tmp_path / "skadma" / "clone"
    clone.mkdir(parents=True)
    (clone / "skadma").symlink_to(root / "skadma")
    (clone / "tests").symlink_to(root / "tests")
    make_pool(tmp_path / "run" / "pool")
    count = (
        "import sys; sys.path.insert(0, '.'); from pathlib import Path; "
        "from tests.crash_ways import count_lines; "
        "print(count_lines('start', Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", count, str(tmp_path / "run")],
        cwd=clone, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


_SABOTAGE = """
import sys
from skadma.labelling.campaign.event_log import EventLog
from tests import crash

add = EventLog.add

def each_row_by_itself(self, table, rows):
    for row in rows:
        add(self, table, [row])
        if table == "decisions":
            self._execute("COMMIT")
            self._execute("BEGIN IMMEDIATE")

EventLog.add = each_row_by_itself
crash.NAMED = {"between two rows": crash.NAMED["between two rows"]}
crash.STEPS = {step: crash.STEPS[step] for step in ("start", "query", "teach")}
sys.argv = ["crash.py", "--times", "3", "--ways", "named"]
sys.exit(crash.main())
"""


def test_the_trials_notice_a_loss(request):
    """With a store that commits each row by itself."""
    done = subprocess.run(
        [sys.executable, "-c", _SABOTAGE],
        cwd=request.config.rootpath, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "half applied" in done.stderr or "were changed after" in done.stderr


def test_synced_before_it_says_so(tmp_path):
    """What a power loss needs: the log reaches the disk before 'Safe' is printed."""
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    make_pool(tmp_path / "pool")
    estimator = CNNClassifier("squeezenet1_1", weights=None, image_size=32)
    Campaign.create(
        tmp_path / "c", tmp_path / "pool", ["a", "b"], estimator, RandomSampling()
    ).close()
    (tmp_path / "labels.csv").write_text("path,label\n00 ü a.png,a\n", "utf-8")
    command = (
        "from skadma.cli import main; main(['teach', 'labels.csv', '--later', "
        "'--campaign', 'c'])"
    )
    trace = tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", trace,
         "-e", "trace=pwrite64,fdatasync,fsync,write",
         sys.executable, "-c", command],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    calls = trace.read_text(errors="replace").splitlines()
    (said,) = [i for i, call in enumerate(calls) if "Saved 1 label" in call]
    to_wal = [
        i
        for i, call in enumerate(calls)
        if "pwrite64" in call and "campaign.sqlite-wal" in call and i < said
    ]
    synced = [
        i
        for i, call in enumerate(calls)
        if "sync(" in call and "campaign.sqlite-wal" in call and i < said
    ]
    assert to_wal
    assert synced
    assert max(synced) > max(to_wal)
