"""Write files and folders completely or not at all; digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout


def write_atomically(
    path: Path, write: Callable[[Path], object], *, durable: bool = True
) -> None:
    """Write a file under another name, flush it to the disk, then rename it.

    After a kill or a power loss there is the old file or the new one, never half.
    `write` gets the path to write to. Without `durable`, a power loss (not a kill) may
    leave less than the file: for what can be computed again.
    """
    # Threads may write the same file, too.
    tmp = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        write(tmp)
        if durable:
            with tmp.open("r+b") as file:
                os.fsync(file.fileno())
        tmp.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            tmp.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def alone(lock_file: Path, what: Path) -> Iterator[None]:
    """Be the only process that writes something; raise BlockingIOError if it is not."""
    try:
        with FileLock(lock_file, timeout=0):
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows removes it on release
                    lock_file.unlink()
    except Timeout as error:
        raise BlockingIOError(f"another process is writing {str(what)!r}") from error


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder under another name, flush it to the disk, then rename it.

    After a kill there is the old folder or the new one, or, in the moment between two
    renames, the old one under the name ``.<name>.old``. What a killed process left
    (``.<name>.part``) is removed by the next one. `write` gets the folder to write
    into.
    """
    tmp, old, lock_file = (
        folder.with_name(f".{folder.name}.{end}") for end in ("part", "old", "lock")
    )
    with alone(lock_file, folder):
        try:
            shutil.rmtree(tmp, ignore_errors=True)
            tmp.mkdir()
            write(tmp)
            for path in tmp.iterdir():
                with path.open("r+b") as file:
                    os.fsync(file.fileno())
            sync_folder(tmp)
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                folder.replace(old)
                try:
                    tmp.replace(folder)
                except BaseException:
                    old.replace(folder)
                    raise
            else:
                tmp.replace(folder)
            sync_folder(folder.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(tmp, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove half-written files of killed processes; nobody else may be writing."""
    for tmp in folder.glob(".*.part"):
        tmp.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Remove what processes left that were killed as they wrote a file."""
    name = re.compile(re.escape(f".{path.name}.") + r"(\d+)\.\d+\.part")
    for tmp in path.parent.glob(".*.part"):
        found = name.fullmatch(tmp.name)
        if found and os.name == "posix":  # elsewhere nobody tells
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                tmp.unlink(missing_ok=True)
            except (OSError, OverflowError):
                pass  # it is running, as another user


def new_file(path: Path, *, overwrite: bool = False) -> Path:
    """Raise FileExistsError for a file that must not be overwritten."""
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(
            f"There is a file {str(path)!r} already; what it holds may be "
            "nowhere else. Choose another name, or say --overwrite."
        )
    return path


def file_digest(path: Path) -> str:
    """Compute a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
