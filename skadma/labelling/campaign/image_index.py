"""The images in a folder: which files there are, and the content of each."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from ..._utils.atomic import file_digest
from ..._utils.processes import progress_bar
from ...images.decoding import UnreadableImageError, from_file
from ...images.folder import iter_images
from .event_log import CampaignError, EventLog

_logger = logging.getLogger(__name__)
NO_ROW = "the campaign's embeddings have no row of it: skadma features FILE adds rows"
"""The problem of an image in a campaign with a table of embeddings."""
_AT_LEAST = 32


@dataclass(frozen=True)
class Content:
    """What a scan found at a path."""

    sha256: str | None  # of the file's bytes; None where the file is missing
    size: int = 0  # in bytes
    mtime_ns: int = 0
    problem: str | None = None  # why it cannot be decoded


MISSING = Content(None)


def scan_folder(
    root: Path,
    known: Mapping[str, Content],
    *,
    progress: bool = False,
    name: str = "",
    leave_out: Sequence[str] = (),
    seconds: float = math.inf,
) -> dict[str, Content]:
    """Find what is new, changed or missing in a folder, by path.

    `known` is what was found before: a file of the same size and time of change is not
    read again, unless it could not be decoded. `name` is the folder's, for messages;
    subfolders to `leave_out` are not scanned. After so many `seconds`, `_AT_LEAST`
    files drawn at random and a readable one, the others are left to the next scan.
    """
    how = f"pools= or --pool {name}=FOLDER" if name else "pool= or --pool"
    if not root.is_dir():
        raise CampaignError(
            f"The pool {str(root)!r} is no folder. If it moved, say where it is with "
            f"{how}; if its disk is not mounted, mount it."
        )
    found = dict(_files(root, leave_out))
    before = {path for path, content in known.items() if content.sha256}
    if before and not before & found.keys() and not _moved(root, found, known):
        raise CampaignError(
            f"None of the {len(before)} images of the campaign is in the pool "
            f"{str(root)!r} any more. Is its disk mounted? If it moved, say where it "
            f"is with {how}."
        )
    unread = {
        path: state
        for path, state in found.items()
        if path not in known
        or known[path].sha256 is None
        or known[path].problem not in (None, NO_ROW)
        or (known[path].size, known[path].mtime_ns)
        != (state.st_size, state.st_mtime_ns)
    }
    if seconds < math.inf:
        unread = dict(random.sample([*unread.items()], len(unread)))
    gone = [path for path in before - found.keys() if not _is_forbidden(root / path)]
    changes = dict.fromkeys(sorted(gone), MISSING)
    now: dict[str, Content] = {}
    readable, until = False, monotonic() + seconds
    executor = ThreadPoolExecutor()
    try:
        with warnings.catch_warnings():
            # Pillow's, about what it can read after all.
            warnings.simplefilter("ignore")
            files = (root / path for path in unread)
            read = executor.map(_read, files, unread.values())
            shown: dict[str, Any] = {"disable": not progress, "unit": " images"}
            bar = progress_bar(read, "reading", len(unread), **shown)
            for path, content in zip(unread, bar, strict=True):
                now[path] = content
                readable = readable or content.problem is None
                if readable and len(now) >= _AT_LEAST and monotonic() > until:
                    break
    finally:
        executor.shutdown(cancel_futures=True)  # after Ctrl-C, too
    return changes | {p: found for p, found in now.items() if found != known.get(p)}


def scan_new_folder(
    root: Path, *, progress: bool, seconds: float = math.inf
) -> dict[str, Content]:
    """Read the images in a folder; refuse one without a readable image."""
    found = scan_folder(root, {}, progress=progress, seconds=seconds)
    if not any(content.problem is None for content in found.values()):
        raise CampaignError(f"There is no readable image in {str(root)!r}.")
    return found


def add_contents(log: EventLog, changes: Mapping[str, Content], event: int) -> None:
    """Write what a scan found, within a transaction."""
    numbers = {path: image for image, path in log.rows("SELECT id, path FROM images")}
    new = sorted(path for path in changes if path not in numbers)
    first = max(numbers.values(), default=0) + 1
    log.add("images", ((first + k, path, event) for k, path in enumerate(new)))
    numbers |= {path: first + k for k, path in enumerate(new)}
    log.add(
        "contents",
        (
            (event, numbers[path], c.sha256, c.size, c.mtime_ns, c.problem)
            for path, c in changes.items()
        ),
    )


def check_path(path: str) -> str:
    """Refuse, by ValueError, a path that could lead out of the folder."""
    if not path or path[0] == "/" or ".." in path.split("/") or "\0" in path:
        raise ValueError(f"the path {path!r} leads out of the pool")
    if os.name == "nt" and (":" in path or "\\" in path):
        raise ValueError(f"the path {path!r} leads out of the pool")
    return path


def _is_forbidden(path: Path) -> bool:
    """Whether permission is missing to see if a file is there: it is not gone then."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def _moved(
    root: Path, found: Mapping[str, os.stat_result], known: Mapping[str, Content]
) -> bool:
    """Whether some file is a known image under another path."""
    contents = {(content.size, content.sha256) for content in known.values()}
    sizes = {size for size, _ in contents}
    return any(
        (state.st_size, file_digest(root / path)) in contents
        for path, state in found.items()
        if state.st_size in sizes
    )


def _files(
    root: Path, leave_out: Sequence[str]
) -> Iterator[tuple[str, os.stat_result]]:
    """Paths of image files, sorted, with their status."""
    reported: set[str] = set()
    for path, state in iter_images(root):
        name, inside, _ = path.partition("/")
        if not inside or name not in leave_out:
            yield path, state
        elif name not in reported:
            reported.add(name)
            warnings.warn(
                f"The folder {name!r} of the pool {str(root)!r} is left out: it has "
                "the name of a pool that was added. Give it another one.",
                stacklevel=2,
            )


def _read(path: Path, state: os.stat_result) -> Content:
    size, changed = state.st_size, state.st_mtime_ns
    try:
        digest = file_digest(path)
    except OSError as error:
        _logger.info("%s cannot be read: %s", path, error)
        # No content, but a name for it, so that the path is known.
        name = hashlib.sha256(f"unreadable|{path}".encode()).hexdigest()
        return Content(name, size, changed, str(error))
    problem = None
    try:
        from_file(os.fspath(path), os.fspath(path))
    except UnreadableImageError as error:
        problem = error.reason
    return Content(digest, size, changed, problem)
