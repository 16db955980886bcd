"""Start other processes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_lock = threading.Lock()
_n_within = 0
_before: str | None = None


@contextmanager
def isolated_children() -> Iterator[None]:
    """Let Python processes that start within import nothing from the current folder.

    They run ``python -c`` or ``python -m``, for which the current folder comes first in
    ``sys.path``: a file ``struct.py`` that came with somebody's images would run.
    """
    global _n_within, _before
    with _lock:
        if _n_within == 0:
            _before = os.environ.get("PYTHONSAFEPATH")
            os.environ["PYTHONSAFEPATH"] = "1"
        _n_within += 1
    try:
        yield
    finally:
        with _lock:
            _n_within -= 1
            if _n_within == 0:
                os.environ.pop("PYTHONSAFEPATH")
                if _before is not None:
                    os.environ["PYTHONSAFEPATH"] = _before


def end_with_parent() -> None:
    """End this process with the one that started it, however that ends."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def progress_bar(*arguments: Any, **options: Any) -> Any:
    """Make a bar of tqdm, whose lock may start a process."""
    from tqdm.auto import tqdm

    with isolated_children():
        return tqdm(*arguments, **options)


def release_freed_memory() -> None:
    """Give the system back what this process has freed, most of which glibc keeps."""
    with suppress(AttributeError, TypeError):  # another library, another system
        ctypes.CDLL(None).malloc_trim(0)
