"""The folders with a campaign's images: the first pool, and those added later.

Paths of the first are relative to it. Those of another begin with its name, which no
folder of the first pool may have: what is there under such a name is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .event_log import CampaignError, Store
from .image_index import Content, scan_pool

FIRST = 0
"""Stands for the event that began with the first pool."""


@dataclass(frozen=True)
class AddedPool:
    """A folder that was added.

    Attributes
    ----------
    name : str
        Paths of its images begin with it.
    folder : str
        Where it was.
    event : int
        By which it was added.
    until : int or None
        The event that took it back.
    """

    name: str
    folder: str
    event: int
    until: int | None = None


class Pools:
    """The folders of a campaign, as its log has them.

    Parameters
    ----------
    added : sequence of AddedPool
        Those taken back too.

    Attributes
    ----------
    added : list of AddedPool
        Those that were not taken back.
    """

    def __init__(self, added: list[AddedPool] | None = None) -> None:
        self._ever = added or []
        self.added = [pool for pool in self._ever if pool.until is None]

    @property
    def names(self) -> list[str]:
        """Names of the pools that were added."""
        return [pool.name for pool in self.added]

    @property
    def events(self) -> list[int]:
        """The events that added them."""
        return [pool.event for pool in self.added]

    def owner(self, path: str, event: int | None = None) -> int:
        """Tell to which pool a path belongs, or belonged at an event.

        Returns
        -------
        int
            The event that added it; `FIRST` for the first pool.
        """
        name, slash, _ = path.partition("/")
        for pool in self._ever if slash else ():
            then = event is not None and event >= pool.event
            if pool.name == name and (
                pool.until is None
                if event is None
                else then and (pool.until is None or event < pool.until)
            ):
                return pool.event
        return FIRST

    def holds(self, path: str, event: int) -> bool:
        """Whether what was found at a path in an event is of a pool that is still one.

        Not so where the pool was taken back since, or the path means another one.
        """
        return not self._ever or self.owner(path, event) == self.owner(path)


def read_pools(store: Store) -> Pools:
    """Read which pools there are. Within ``store.reading`` and ``intact``.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the log says what no campaign writes.
    """
    found: dict[int, AddedPool] = {}
    for event, kind, text in store.rows(
        "SELECT id, kind, detail FROM events WHERE kind IN ('pool', 'undo') ORDER BY id"
    ):
        detail: dict[str, Any] = json.loads(text)
        if kind == "pool":
            folder = detail["folder"]
            if not isinstance(folder, str) or not folder or "\0" in folder:
                raise ValueError(f"the pool {folder!r} is no folder")
            try:
                name = check_name(detail["name"])
            except CampaignError as error:
                raise ValueError(str(error)) from error
            if any(p.name == name and p.until is None for p in found.values()):
                raise ValueError(f"there are two pools {name!r}")
            found[event] = AddedPool(name, folder, event)
        elif detail["undone"] in found:
            pool = found[detail["undone"]]
            found[pool.event] = AddedPool(pool.name, pool.folder, pool.event, event)
    return Pools(list(found.values()))


def check_name(name: Any) -> str:
    """Check the name of a pool: a folder's name, as it begins paths.

    Raises
    ------
    CampaignError
    """
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


class Places:
    """Where the pools are on this machine.

    Parameters
    ----------
    first : Path
        The first pool.
    moved : mapping of str to Path
        Where others are, by name, if not where they were added.
    """

    def __init__(self, first: Path, moved: Mapping[str, Path] | None = None) -> None:
        self.first = first
        self._moved = dict(moved or {})

    def check(self, pools: Pools) -> None:
        """Refuse places of pools that there are not.

        Raises
        ------
        CampaignError
        """
        for name in self._moved:
            if name not in pools.names:
                raise CampaignError(
                    f"There is no pool {name!r} that could have moved; there are the "
                    f"first one, without a name, and {pools.names}."
                )

    def folders(self, pools: Pools) -> dict[str, Path]:
        """List the folders by name; the first pool's is empty."""
        others = {p.name: self._moved.get(p.name, Path(p.folder)) for p in pools.added}
        return {"": self.first, **others}

    def file(self, path: str, pools: Pools) -> Path:
        """Say where an image is."""
        if pools.owner(path) == FIRST:
            return self.first / path
        name, *inside = PurePosixPath(path).parts  # "name//x" must not lead to /x
        return self.folders(pools)[name].joinpath(*inside)

    def find(self, file: Path, pools: Pools) -> str | None:
        """Say which path a file has in the campaign; None if it is in no pool."""
        for name, folder in self.folders(pools).items():
            if folder in file.parents:
                inside = file.relative_to(folder).as_posix()
                return f"{name}/{inside}" if name else inside
        return None

    def scan(self, pools: Pools, known: Mapping[str, Content]) -> dict[str, Content]:
        """Look at all pools for what is new, changed or gone.

        Parameters
        ----------
        pools : Pools
        known : mapping of str to Content
            What was found before, by path.

        Returns
        -------
        dict of str to Content
            The differences only.

        Raises
        ------
        CampaignError
            If one is not there, or none of its known images is.
        """
        changes: dict[str, Content] = {}
        events = {"": FIRST} | {pool.name: pool.event for pool in pools.added}
        for name, folder in self.folders(pools).items():
            prefix = f"{name}/" if name else ""
            mine = {
                path[len(prefix) :]: content
                for path, content in known.items()
                if pools.owner(path) == events[name]
            }
            found = scan_pool(
                folder, mine, name=name, leave_out=() if name else pools.names
            )
            changes |= {prefix + path: content for path, content in found.items()}
        return changes

    def choose_name(self, folder: Path, pools: Pools, paths: list[str]) -> str:
        """Name a pool after its folder; with a number, where that is taken."""
        plain = "".join(c for c in folder.name if c not in "\\:=" and c.isprintable())
        plain = plain.strip().lstrip(".?") or "pool"
        name, number = plain, 1
        while self.taken(name, pools, paths):
            number += 1
            name = f"{plain}-{number}"
        return name

    def taken(self, name: str, pools: Pools, paths: list[str]) -> bool:
        """Whether paths that begin with a name mean something already."""
        return (
            name in pools.names
            or (self.first / name).exists()
            or any(path.startswith(f"{name}/") for path in paths)
        )

    def check_apart(self, folder: Path, pools: Pools) -> None:
        """Refuse a folder that is, holds or is inside a pool: images would be twice.

        Raises
        ------
        CampaignError
        """
        real = folder.resolve()
        for known in self.folders(pools).values():
            other = known.resolve()
            if real == other or real in other.parents or other in real.parents:
                raise CampaignError(
                    f"{str(folder)!r} and the pool {str(known)!r} are one, or one is "
                    "in the other. What is new in a pool is found by itself."
                )
