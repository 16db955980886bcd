"""The folders with a campaign's images: the first one, and those added later.

Paths of images in the first are relative to it. Those in another begin with its name,
which no subfolder of the first may have: what is there under such a name is left out.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .event_log import CampaignError, EventLog
from .image_index import Content, scan_folder

FIRST = 0
"""Stands for the event that began with the first folder."""


@dataclass(frozen=True)
class Folder:
    """A folder added by an `event`, and perhaps removed by the event `until`."""

    name: str  # of the first: empty
    stored: str  # where it was then
    event: int
    until: float = math.inf


class Folders:
    """The folders with a campaign's images, as the log has them.

    `ever` has those too whose addition was undone, the first one first; `moved` those
    that are elsewhere by now, by name.
    """

    def __init__(self, ever: list[Folder], moved: Mapping[str, Path]) -> None:
        self._ever, self._moved = ever, moved
        self._present = [folder for folder in ever if folder.until == math.inf]
        self.roots = {  # where they are on this machine, by name
            folder.name: moved.get(folder.name) or absolute(folder.stored)
            for folder in self._present
        }

    def check(self, campaign: Path) -> None:
        """Refuse a place for a folder that was not added, or as no campaign has one.

        A campaign from elsewhere may name any folder, to have private files listed.
        """
        for name in self._moved.keys() - self.roots.keys():
            added = ", ".join([*self.roots][1:]) or "none"
            raise CampaignError(
                f"There is no pool {name!r} that could have moved. Pools that were "
                f"added: {added}; the first one has no name."
            )
        for folder in self._present:
            name, stored = folder.name, folder.stored
            if name not in self._moved and (
                "\0" in stored
                or not Path(stored).is_absolute()
                or is_within(campaign, Path(stored))
            ):
                option = f"--pool {name}=FOLDER" if name else "--pool FOLDER"
                raise CampaignError(
                    f"The campaign's pool {stored!r} is not scanned: it is relative, "
                    "or has the campaign itself in it, as of no campaign that was "
                    f"started here. Say where the images are by {option}."
                )

    def owner(self, path: str, event: int = sys.maxsize) -> int:
        """Give the event that added the folder of a path; `FIRST` for the first.

        With `event`, the folder to which the path belonged then.
        """
        name, slash, _ = path.partition("/")
        for folder in self._ever[1:] if slash else ():
            if folder.name == name and folder.event <= event < folder.until:
                return folder.event
        return FIRST

    def holds(self, path: str, event: int) -> bool:
        """Whether what an event found at a path is in a folder that still counts.

        Not so where the folder was removed since, or the path means another one.
        """
        return len(self._ever) == 1 or self.owner(path, event) == self.owner(path)

    def file(self, path: str) -> Path:
        """Give the file of an image."""
        if self.owner(path) == FIRST:
            return self.roots[""] / path
        name, *inside = PurePosixPath(path).parts  # "name//x" must not lead to /x
        return self.roots[name].joinpath(*inside)

    def find(self, path: str) -> Iterator[str]:
        """Give what a path may mean in the campaign, most likely first.

        It is absolute, or relative to a folder of the campaign or the current one.
        Links and ".." are followed, so that it may lead there by any way.
        """
        places = [Path(path)]
        if not places[0].is_absolute():
            places.insert(0, self.file(path))
        real_roots = {name: _resolved(root) for name, root in self.roots.items()}
        for place in places:
            if ".." not in place.parts:  # the common case, without a look at the disk
                yield from _inside(place, self.roots)
            # An image may be a link to a file elsewhere.
            yield from _inside(_resolved(place.parent) / place.name, real_roots)
            yield from _inside(_resolved(place), real_roots)

    def scan(self, known: Mapping[str, Content]) -> dict[str, Content]:
        """Find what is new, changed or missing in all folders, by path."""
        changes: dict[str, Content] = {}
        for folder in self._present:
            name, root = folder.name, self.roots[folder.name]
            prefix = f"{name}/" if name else ""
            inside = {
                path[len(prefix) :]: content
                for path, content in known.items()
                if self.owner(path) == folder.event
            }
            others = () if name else [*self.roots][1:]
            found = scan_folder(root, inside, name=name, leave_out=others)
            changes |= {prefix + path: content for path, content in found.items()}
        return changes

    def check_new(self, name: str, folder: Path, paths: Iterable[str]) -> None:
        """Refuse a folder that overlaps one of the campaign, or a name that is taken.

        `paths` are those of the campaign's images.
        """
        for known in self.roots.values():
            if is_within(folder, known) or is_within(known, folder):
                raise CampaignError(
                    f"{str(folder)!r} and the pool {str(known)!r} are one, or one is "
                    "in the other. What is new in a pool is found by itself."
                )
        taken = name in self.roots or (self.roots[""] / name).exists()
        if taken or any(path.startswith(f"{name}/") for path in paths):
            raise CampaignError(
                f"Paths that begin with {name!r} are there already, in the first pool "
                "or as another pool's name. Give the pool another name."
            )


def read_folders(log: EventLog) -> Folders:
    """Read from the log which folders there are."""
    with log.reading(), log.intact():
        found = {FIRST: Folder("", log.settings()["pool"], FIRST)}
        for event, kind, text in log.rows(
            "SELECT id, kind, detail FROM events WHERE kind IN ('pool', 'undo') "
            "ORDER BY id"
        ):
            detail: dict[str, Any] = json.loads(text)
            if kind == "pool":
                folder = detail["folder"]
                systems = PurePosixPath, PureWindowsPath  # it may have been another
                if "\0" in folder or not any(
                    system(folder).is_absolute() for system in systems
                ):
                    raise ValueError(f"the pool {folder!r} is no absolute path")
                try:
                    name = check_name(detail["name"])
                except CampaignError as error:
                    raise ValueError(str(error)) from error
                if any(f.name == name and f.until == math.inf for f in found.values()):
                    raise ValueError(f"there are two pools {name!r}")
                found[event] = Folder(name, folder, event)
            elif detail["undone"] in found:
                added = found[detail["undone"]]
                found[added.event] = replace(added, until=event)
        return Folders(list(found.values()), log.moved)


def check_name(name: Any) -> str:
    """Check the name of a pool: paths begin with it."""
    if (
        not isinstance(name, str)
        or name != name.strip()
        or name.startswith((".", "?"))
        or any(c in name for c in "/\\:=")
        or not name.isprintable()
        or len(PurePosixPath(name).parts) != 1
    ):
        raise CampaignError(
            f"{name!r} cannot be the name of a pool: it must be one word or more "
            "without / \\ : = and without a dot or a question mark in front."
        )
    return name


def absolute(path: str | Path) -> Path:
    """Make a path absolute and free of "..", which messages and the log would show."""
    whole = Path(path).absolute()
    return _resolved(whole) if ".." in whole.parts else whole


def check_outside(campaign: Path, pool: Path) -> None:
    """Refuse a pool with the campaign's own folder in it."""
    if is_within(campaign, pool):
        raise CampaignError(
            f"The campaign's folder {str(campaign)!r} is inside the pool "
            f"{str(pool)!r}: keep them apart, or its files count as images."
        )


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or in it, by whatever links either was given."""
    return _resolved(path).is_relative_to(_resolved(folder))


def _resolved(path: Path) -> Path:
    # Path.resolve raises where links lead in a circle.
    return Path(os.path.realpath(path))


def _inside(path: Path, roots: Mapping[str, Path]) -> Iterator[str]:
    """Paths in the campaign of a file below one of its folders."""
    for name, root in roots.items():
        if path != root and path.is_relative_to(root):
            inside = path.relative_to(root).as_posix()
            yield f"{name}/{inside}" if name else inside
