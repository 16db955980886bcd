"""What tests run in other processes."""

import os
import signal
from pathlib import Path

from skadma.features.store.computing import compute_shard


def die_once(task, folder):
    """Compute a shard, but let the process that gets number 2 first be killed."""
    mark = Path(folder) / "killed"
    if task.number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with (Path(folder) / f"log-{os.getpid()}").open("a") as log:
        log.write(f"{task.number}\n")
    return compute_shard(task)


class DiesOnce:
    """`die_once` in a form that can be sent."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __call__(self, task):
        return die_once(task, self.folder)


def always_dies(task):
    """Kill the process."""
    os.kill(os.getpid(), signal.SIGKILL)


def double(task):
    """Work, or an error of one's own."""
    if task == 13:
        raise ValueError("thirteen")
    return 2 * task
