"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path


def write_atomically(
    path: Path, write: Callable[[Path], object], *, durable: bool = True
) -> None:
    """Write a file under another name, bring it to the disk, then rename it.

    After a kill or a power loss there is the old file or the new one, never half.

    Parameters
    ----------
    path : Path
    write : callable
        Writes to the path that it is given.
    durable : bool
        Wait for the disk. Without it, a power loss (not a kill) may leave less than
        the file: for what can be computed again.
    """
    # Threads may write the same file, too.
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        write(part)
        if durable:
            with part.open("r+b") as file:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder under another name, bring it to the disk, then rename it.

    After a kill there is the old folder or the new one, or, in the moment between two
    renames, the old one under the name ``.<name>.old``.

    Parameters
    ----------
    folder : Path
        If it is there, it is replaced.
    write : callable
        Writes into the folder that it is given.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f".{folder.name}.old")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        write(part)
        for path in part.iterdir():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        sync_folder(part)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.replace(old)
            try:
                part.replace(folder)
            except BaseException:
                old.replace(folder)
                raise
        else:
            part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written; nobody else may be writing."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def new_file(path: Path, *, overwrite: bool = False) -> Path:
    """Refuse to write over a file, which may hold labels that are nowhere else.

    Raises
    ------
    FileExistsError
    """
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"There is a file {str(path)!r} already; what it holds may be "
            "nowhere else. Choose another name, or say --overwrite."
        )
    return path


def file_digest(path: Path) -> str:
    """Compute a file's SHA-256."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
