"""The folders with a campaign's images: the first one, and those added later.

Paths of images in the first are relative to it. Those in another begin with its name,
which no subfolder of the first may have: what is there under such a name is left out.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .event_log import CampaignError, EventLog
from .image_index import Content, scan_folder

FIRST = 0
"""Stands for the event that began with the first folder."""


@dataclass(frozen=True)
class AddedFolder:
    """A folder added by an `event`, and perhaps removed by the event `until`."""

    name: str
    folder: str
    event: int
    until: float = math.inf


class AddedFolders:
    """The folders that were added, as the log has them."""

    def __init__(self, ever: list[AddedFolder]) -> None:
        self._ever = ever  # those whose addition was undone too
        self.added = [folder for folder in self._ever if folder.until == math.inf]

    @property
    def names(self) -> list[str]:
        """Names of the added folders."""
        return [folder.name for folder in self.added]

    @property
    def events(self) -> list[int]:
        """The events that added them."""
        return [folder.event for folder in self.added]

    def owner(self, path: str, event: int = sys.maxsize) -> int:
        """Give the event that added the folder of a path; `FIRST` for the first.

        With `event`, the folder to which the path belonged then.
        """
        name, slash, _ = path.partition("/")
        for folder in self._ever if slash else ():
            if folder.name == name and folder.event <= event < folder.until:
                return folder.event
        return FIRST

    def holds(self, path: str, event: int) -> bool:
        """Whether what an event found at a path is in a folder that still counts.

        Not so where the folder was removed since, or the path means another one.
        """
        return not self._ever or self.owner(path, event) == self.owner(path)


def read_folders(log: EventLog) -> AddedFolders:
    """Read from the log which folders were added."""
    found: dict[int, AddedFolder] = {}
    with log.reading(), log.intact():
        for event, kind, text in log.rows(
            "SELECT id, kind, detail FROM events WHERE kind IN ('pool', 'undo') "
            "ORDER BY id"
        ):
            detail: dict[str, Any] = json.loads(text)
            if kind == "pool":
                folder = detail["folder"]
                if not isinstance(folder, str) or "\0" in folder:
                    raise ValueError(f"the pool {folder!r} is no folder")
                systems = PurePosixPath, PureWindowsPath  # it may have been another
                if not any(system(folder).is_absolute() for system in systems):
                    raise ValueError(f"the pool {folder!r} is no absolute path")
                try:
                    name = check_name(detail["name"])
                except CampaignError as error:
                    raise ValueError(str(error)) from error
                if any(f.name == name and f.until == math.inf for f in found.values()):
                    raise ValueError(f"there are two pools {name!r}")
                found[event] = AddedFolder(name, folder, event)
            elif detail["undone"] in found:
                added = found[detail["undone"]]
                found[added.event] = replace(added, until=event)
    return AddedFolders(list(found.values()))


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


def check_stored(name: str, folder: str, campaign: Path) -> None:
    """Refuse a folder of images as no campaign names it that was started here.

    A campaign from elsewhere may name any folder, to have private files listed.
    """
    unsafe = "\0" in folder or not Path(folder).is_absolute()
    if unsafe or is_within(campaign, Path(folder)):
        option = f"--pool {name}=FOLDER" if name else "--pool FOLDER"
        python = f"pools={{{name!r}: ...}}" if name else "pool=..."
        raise CampaignError(
            f"The campaign's pool {folder!r} is not scanned: it is relative, or has "
            "the campaign itself in it, as of no campaign that was started here. Say "
            f"where the images are by {option} ({python} in Python)."
        )


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or in it, by whatever links either was given."""
    return _resolved(path).is_relative_to(_resolved(folder))


def _resolved(path: Path) -> Path:
    return Path(
        os.path.realpath(path)
    )  # Path.resolve raises where links lead in a circle


def _inside(path: Path, roots: Mapping[str, Path]) -> Iterator[str]:
    """Paths in the campaign of a file below one of its folders."""
    for name, root in roots.items():
        if path != root and path.is_relative_to(root):
            inside = path.relative_to(root).as_posix()
            yield f"{name}/{inside}" if name else inside


class FolderPaths:
    """Where the folders are on this machine.

    `moved` has added folders, by name, that are not where they were added.
    """

    def __init__(self, first: Path, moved: Mapping[str, Path] | None = None) -> None:
        self.first = first
        self._moved = dict(moved or {})

    def check(self, folders: AddedFolders) -> None:
        """Refuse a place for a folder that was not added."""
        for name in self._moved:
            if name not in folders.names:
                raise CampaignError(
                    f"There is no pool {name!r} that could have moved. Pools that "
                    f"were added: {', '.join(folders.names) or 'none'}; the first one "
                    "has no name."
                )

    def by_name(self, folders: AddedFolders) -> dict[str, Path]:
        """List the folders by name; that of the first is empty."""
        others = {
            f.name: self._moved.get(f.name, Path(f.folder)) for f in folders.added
        }
        return {"": self.first, **others}

    def file(self, path: str, folders: AddedFolders) -> Path:
        """Give the file of an image."""
        if folders.owner(path) == FIRST:
            return self.first / path
        name, *inside = PurePosixPath(path).parts  # "name//x" must not lead to /x
        return self.by_name(folders)[name].joinpath(*inside)

    def find(self, path: str, folders: AddedFolders) -> Iterator[str]:
        """Give what a path may mean in the campaign, most likely first.

        It is absolute, or relative to a folder of the campaign or the current one.
        Links and ".." are followed, so that it may lead there by any way.
        """
        places = [Path(path)]
        if not places[0].is_absolute():
            places.insert(0, self.file(path, folders))
        roots = self.by_name(folders)
        real_roots = {name: _resolved(root) for name, root in roots.items()}
        for place in places:
            if ".." not in place.parts:  # the common case, without a look at the disk
                yield from _inside(place, roots)
            # An image may be a link to a file elsewhere.
            yield from _inside(_resolved(place.parent) / place.name, real_roots)
            yield from _inside(_resolved(place), real_roots)

    def scan(
        self, folders: AddedFolders, known: Mapping[str, Content]
    ) -> dict[str, Content]:
        """Find what is new, changed or missing in all folders, by path."""
        changes: dict[str, Content] = {}
        events = {"": FIRST} | {added.name: added.event for added in folders.added}
        for name, folder in self.by_name(folders).items():
            prefix = f"{name}/" if name else ""
            inside = {
                path[len(prefix) :]: content
                for path, content in known.items()
                if folders.owner(path) == events[name]
            }
            found = scan_folder(
                folder, inside, name=name, leave_out=() if name else folders.names
            )
            changes |= {prefix + path: content for path, content in found.items()}
        return changes

    def choose_name(self, folder: Path, folders: AddedFolders, paths: list[str]) -> str:
        """Name a folder as its path does, with a number where that name is taken."""
        plain = "".join(c for c in folder.name if c not in "\\:=" and c.isprintable())
        plain = plain.strip().lstrip(".?") or "pool"
        name, number = plain, 1
        while self.taken(name, folders, paths):
            number += 1
            name = f"{plain}-{number}"
        return name

    def taken(self, name: str, folders: AddedFolders, paths: list[str]) -> bool:
        """Whether paths that begin with a name mean something already."""
        return (
            name in folders.names
            or (self.first / name).exists()
            or any(path.startswith(f"{name}/") for path in paths)
        )

    def check_apart(self, folder: Path, folders: AddedFolders) -> None:
        """Refuse a folder that is, holds or is inside another of the campaign."""
        for known in self.by_name(folders).values():
            if is_within(folder, known) or is_within(known, folder):
                raise CampaignError(
                    f"{str(folder)!r} and the pool {str(known)!r} are one, or one is "
                    "in the other. What is new in a pool is found by itself."
                )
