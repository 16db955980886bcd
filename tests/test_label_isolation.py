"""Files beside the photographs do not run, whatever their names."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from .label_site import _MAIN, paint

# What Python, multiprocessing and our own modules import first.
NAMES = ("struct", "random", "socket", "pickle", "tqdm", "torch", "_utils", "json",
         "sitecustomize", "usercustomize", "numpy", "skadma")  # fmt: skip
TRAP = "open({!r}, 'a').write(__name__ + '\\n')\nraise SystemExit(__name__)\n"


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A folder of photographs with such files, and where they would leave a trace."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    photos = paint(tmp_path / "photos", 12)
    trace = tmp_path / "trace.txt"
    for name in NAMES:
        (photos / f"{name}.py").write_text(TRAP.format(str(trace)))
    run = subprocess.run(
        [sys.executable, "-c", "import struct"], cwd=photos, capture_output=True
    )
    assert run.returncode and trace.exists()  # the trap works
    trace.unlink()
    return photos, trace


def program(tmp_path, text):
    """A script in a folder of its own, as the installed command is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "skadma").write_text(text)
    return str(folder / "skadma")


def chosen(client):
    """The first pictures, which a child has chosen."""
    for _ in range(600):
        answer = client.post("/api/sync", json={"tab": "t", "have": [], "want": 4})
        if answer.json()["stage"] == "idle" and answer.json()["items"]:
            return answer.json()["items"]
        assert answer.json()["problem"] is None
        time.sleep(0.2)
    raise AssertionError("no picture in two minutes")


def test_the_commands_processes(trap, tmp_path, serve):
    """`skadma label` from within the photographs, and Label Studio's backend."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    httpx = pytest.importorskip("httpx")
    photos, trace = trap
    main = program(tmp_path, f"if __name__ == '__main__':\n    {_MAIN}")
    site = serve(tmp_path / "c", ".", "--label-studio", n=4, program=[main], cwd=photos)
    items = chosen(site.client())
    assert len(items) == 4
    answer = httpx.post(
        f"{site.said[1].split()[-1]}/predict", json={"tasks": []}, timeout=120
    )
    assert answer.json() == {"results": []}
    assert not trace.exists(), trace.read_text()
    for child in spawned(site.process.pid):
        assert (child / "cwd").resolve() != photos.resolve()


def spawned(pid):
    """The processes that do the work of this one, where there is /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_bytes()
            if parent == str(pid) and b"spawn_main" in command:
                yield folder


STORE = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from skadma.features.store.executing import run_tasks
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    make = lambda: ProcessPoolExecutor(1, context)
    print(list(run_tasks(abs, [-1, -2], make)))
"""
BENCH = """
from pathlib import Path
from skadma.bench import runner
if __name__ == "__main__":
    print([why for _, why in runner._run_cells(["no cell"], Path("x"), None, 2)])
"""


@pytest.mark.parametrize(("text", "said"), [(STORE, "[(0, 1), (1, 2)]"),
                                            (BENCH, "AttributeError")])  # fmt: skip
def test_other_processes(trap, tmp_path, text, said):
    """Those of an executor, and of the benchmark."""
    photos, trace = trap
    run = subprocess.run(
        [sys.executable, program(tmp_path, text)], cwd=photos, capture_output=True,
        text=True,
    )  # fmt: skip
    assert said in run.stdout, run.stderr
    assert not trace.exists(), trace.read_text()


def test_weights_of_a_path_from_here(tmp_path, serve):
    """Children have a folder of their own; the campaign keeps where the file is."""
    from skadma.networks.registry import build_backbone

    pytest.importorskip("uvicorn")
    paint(tmp_path / "photos", 12)
    module = build_backbone("squeezenet1_1", None).module
    torch.save(module.state_dict(), tmp_path / "own.pth")
    weights = ["--weights", "own.pth"]
    site = serve("c", "photos", *weights, n=4, cwd=tmp_path)
    assert len(chosen(site.client())) == 4
