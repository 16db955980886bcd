"""The script that a person with a GPU runs, here on the CPU."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bench_gpu.py"


@pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks are not installed")
def test_the_script_for_gpus_runs_on_the_cpu():
    command = [sys.executable, SCRIPT, "--device=cpu", "--images=90", "--size=32"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\d+) of 20 the same", done.stdout) == ["20", "20"]
    assert re.findall(r"differ by (\S+)", done.stdout) == ["0", "0"]
    assert len(re.findall("images/s", done.stdout)) == 12
