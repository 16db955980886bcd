"""One process at a time chooses and trains."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from .event_log import CampaignBusyError

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, wait: float, what: str) -> Iterator[None]:
    """Be the only process that chooses or trains; the lock ends with the process."""
    note = folder / "campaign.lock.txt"
    lock = filelock.FileLock(folder / "campaign.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        try:
            holder = note.read_text("utf-8")
        except OSError:
            holder = "another process"
        _log.info("waiting for %s", holder)
        try:
            lock.acquire(timeout=wait)
        except filelock.Timeout as error:
            raise CampaignBusyError(
                f"{holder} works on the campaign and did not end in {wait:g} s. "
                "What was decided is safe; try again later."
            ) from error
    try:
        try:
            note.write_text(f"'{what}' in process {os.getpid()}", "utf-8")
        except OSError as error:  # a full disk; it only serves a message
            _log.debug("%s", error)
        yield
    finally:
        lock.release()
