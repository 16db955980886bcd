"""Which images a feature store has, in which shards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..._utils.atomic import write_atomically
from .columns import StoreError

_FORMAT = "skadma-features-1"
_FEW = 8
"""A last shard of fewer images joins the one before: such few are computed otherwise
than the same images among others."""


@dataclass(frozen=True)
class Plan:
    """What a store is of.

    Attributes
    ----------
    network : str
        Names M0 and its preprocessing.
    layer : int
        Position of the layer whose outputs are kept.
    width : int
        Numbers of these.
    dtype : str
        Of these.
    shard_rows : int
    sizes : list of int
        Images of each shard.
    from_files : bool
        Whether keys lead to files.
    """

    network: str
    layer: int
    width: int
    dtype: str
    shard_rows: int
    sizes: list[int] = field(default_factory=list)
    from_files: bool = False

    @property
    def n_rows(self) -> int:
        """How many images there are."""
        return sum(self.sizes)


def read_plan(folder: Path) -> Plan | None:
    """Read the plan of a store; None where there is none yet.

    Raises
    ------
    StoreError
        If it is damaged, or not one of this version.
    """
    path = folder / "store.json"
    try:
        described = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(path)!r} cannot be read: {error}.") from error
    try:
        if described.pop("format") != _FORMAT:
            raise ValueError("its format is another")
        return Plan(**described)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise StoreError(
            f"{str(path)!r} is no feature store of this version of skadma: {error}."
        ) from error


def write_plan(folder: Path, plan: Plan) -> None:
    """Write a plan; from then on its shards are part of the store."""
    text = json.dumps({"format": _FORMAT, **asdict(plan)})
    write_atomically(folder / "store.json", lambda p: p.write_text(text, "utf-8"))


def write_images(folder: Path, number: int, keys: list[str], paths: Any) -> None:
    """Write which images a shard is of.

    Parameters
    ----------
    folder : Path
    number : int
    keys : list of str
    paths : list of str or None
        Where they are; None if the keys say it, or they are no files.
    """
    path = _images_file(folder, number)
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({"keys": keys, "paths": None if paths == keys else paths})
    write_atomically(path, lambda part: part.write_text(text, "utf-8"))
    _read_images.cache_clear()


def read_images(folder: Path, number: int) -> tuple[list[str], list[str]]:
    """Read the keys of a shard's images, and the paths where they are files.

    Raises
    ------
    StoreError
    """
    return _read_images(_images_file(folder, number))


@lru_cache(maxsize=32)
def _read_images(path: Path) -> tuple[list[str], list[str]]:
    try:
        described = json.loads(path.read_text("utf-8"))
        keys = described["keys"]
        return keys, described["paths"] or keys
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{str(path)!r} of a feature store cannot be read: {error}. Build it anew."
        ) from error


def _images_file(folder: Path, number: int) -> Path:
    return folder / "images" / f"{number:06d}.json"


def cut(n: int, shard_rows: int) -> list[int]:
    """Sizes of the shards of `n` images.

    Parameters
    ----------
    n : int
    shard_rows : int

    Returns
    -------
    list of int
    """
    sizes = [shard_rows] * (n // shard_rows)
    rest = n % shard_rows
    if rest and sizes and rest < _FEW:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


def check_keys(keys: Sequence[str]) -> list[str]:
    """Refuse keys that do not tell images apart.

    Raises
    ------
    ValueError
    """
    listed = [str(key) for key in keys]
    if len(set(listed)) < len(listed):
        seen: set[str] = set()
        twice = next(k for k in listed if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(
            f"The key {twice!r} is there twice. Each image needs one of its own: leave "
            "copies out, or give other keys=."
        )
    return listed
