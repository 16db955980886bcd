"""Image files of a folder and below: the one rule for reading folders.

Files count by the ending of their name. Hidden files and folders (names that begin with
a dot) are passed over, and links to folders are not followed.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from .decoding import image_suffixes

_ONE_ENTRY = {
    errno.EACCES,
    errno.EINVAL,  # Windows, for a link to itself
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
}
"""Errors that concern a single file or link; any other may be a failing disk."""

_LINKED = "link to a folder"


def iter_images(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Find image files: paths relative to `root`, with slashes, in sorted order.

    The names of one folder at a time are held. Subfolders without permission and files
    whose state cannot be read are left out, each with a warning. OSError if `root`
    cannot be listed, or a disk fails on the way: files that cannot be seen for the
    moment must not pass for files that are gone.
    """
    return _walk(Path(root), "", tuple(image_suffixes()), None)


def find_left_out(root: Path) -> dict[str, list[str]]:
    """List what :func:`iter_images` passes over, but for hidden names, by the reason.

    A reason is an ending such as ".heic", "no ending", "link to a folder", or an
    error's text. Paths are relative to `root`.
    """
    left_out: dict[str, list[str]] = {}
    for _ in _walk(Path(root), "", tuple(image_suffixes()), left_out):
        pass
    return left_out


def image_files(folder: Path) -> list[str]:
    """List the paths of :func:`iter_images`, with `folder` in front."""
    return [str(Path(folder) / path) for path, _ in iter_images(folder)]


def images_by_class(root: Path) -> dict[str, list[str]]:
    """List the image files of each class, a subfolder or a link to one, in order.

    Classes without images are listed too.
    """
    entries = _list(Path(root), "", (), follow_links=True)
    names = sorted(name[:-1] for name in entries)
    return {name: image_files(Path(root) / name) for name in names}


def _walk(
    root: Path,
    prefix: str,
    suffixes: tuple[str, ...],
    left_out: dict[str, list[str]] | None,
) -> Iterator[tuple[str, os.stat_result]]:
    """Find image files; what is left out goes into the dict, or into warnings."""
    try:
        entries = _list(root, prefix, suffixes, left_out=left_out)
    except PermissionError as error:
        if not prefix:
            raise
        _leave_out(prefix, error, left_out)
        return
    for name in sorted(entries):
        path = prefix + name
        if name.endswith("/"):
            yield from _walk(root, path, suffixes, left_out)
            continue
        try:
            path.encode()
            state = entries[name].stat()
        except UnicodeEncodeError as error:
            _leave_out(path, error, left_out)
        except OSError as error:
            if error.errno not in _ONE_ENTRY:
                raise _named(error, root / prefix) from error
            _leave_out(path, error, left_out)
        else:
            if stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
                yield path, state
            elif left_out is not None:
                is_folder = stat.S_ISDIR(state.st_mode)
                reason = _LINKED if is_folder else "no regular file"
                _leave_out(path, reason, left_out)


def _list(
    root: Path,
    prefix: str,
    suffixes: tuple[str, ...],
    *,
    follow_links: bool = False,
    left_out: dict[str, list[str]] | None = None,
) -> dict[str, os.DirEntry[str]]:
    """Subfolders, with a slash behind their names, and files with these endings.

    The slash sorts a folder where the paths of its files belong: "a.png" before "a/".
    """
    found = {}
    try:
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    is_folder = entry.is_dir(follow_symlinks=follow_links)
                except OSError as error:
                    if error.errno not in _ONE_ENTRY:
                        raise
                    _leave_out(prefix + entry.name, error, left_out)
                    continue
                if is_folder:
                    found[f"{entry.name}/"] = entry
                elif entry.name.lower().endswith(suffixes):
                    found[entry.name] = entry
                elif left_out is not None:
                    _leave_out(prefix + entry.name, _kind(entry), left_out)
    except OSError as error:
        raise _named(error, root / prefix) from error
    return found


def _named(error: OSError, folder: Path) -> OSError:
    """Return the same error with a folder's path, which it may come without."""
    return OSError(error.errno, error.strerror or str(error), str(folder))


def _kind(entry: os.DirEntry[str]) -> str:
    """Why a name counts as no image file."""
    if entry.is_symlink() and Path(entry).is_dir():
        return _LINKED
    return Path(entry.name).suffix.lower() or "no ending"


def _leave_out(
    path: str, error: Exception | str, left_out: dict[str, list[str]] | None
) -> None:
    reason = str(getattr(error, "strerror", None) or error)
    if left_out is None:
        warnings.warn(f"{path!r} is left out: {reason}.", stacklevel=4)
    else:
        # Names that are not Unicode could be written to no file.
        path, reason = (
            text.encode(errors="backslashreplace").decode() for text in (path, reason)
        )
        left_out.setdefault(reason, []).append(path)
