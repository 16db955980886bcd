"""The image files in a folder and below, one at a time."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from .forms import image_suffixes


def iter_images(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Find image files by their names' endings.

    Hidden files and folders are passed over, and links to folders not followed. Only
    one folder's names are held at a time.

    Parameters
    ----------
    root : Path

    Yields
    ------
    path : str
        Relative to `root`, with slashes; in the order of ``sorted``.
    state : os.stat_result
    """
    return _walk(root, "", tuple(image_suffixes()))


def _walk(
    root: Path, prefix: str, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(root / prefix) as entries:
            found = {
                # A folder stands where its files' paths do: "a.png" before "a/".
                entry.name + ("/" if entry.is_dir() else ""): entry
                for entry in entries
                if not entry.name.startswith(".")
            }
    except OSError as error:
        warnings.warn(f"A folder is left out: {error}", stacklevel=2)
        return
    for name, entry in sorted(found.items(), key=itemgetter(0)):
        path = prefix + name
        if name.endswith("/"):
            if not entry.is_symlink():
                yield from _walk(root, path, suffixes)
        elif name.lower().endswith(suffixes):
            try:
                path.encode()
                state = entry.stat()
            except (UnicodeEncodeError, OSError) as error:
                warnings.warn(
                    f"{path!r} is left out: its name is not Unicode or it cannot be "
                    f"looked at ({error}).",
                    stacklevel=2,
                )
                continue
            if stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
                yield path, state
