"""Embeddings made elsewhere, in a campaign that has a table in place of a network.

Files in the campaign's folder hold rows by the SHA-256 of an image's content; the log's
events have the digests of these files. A row is never changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ..._utils.atomic import file_digest, write_atomically
from ...features.table import EmbeddingTable, TableError
from .event_log import CampaignError, EventLog
from .image_index import NO_ROW, Content

Rows = dict[str, np.ndarray]
"""Rows by the SHA-256 of an image's content."""
_FOLDER = "embeddings"
_AGREEMENT = 1e-2
"""How far two rows of an image may lie apart, as a share of their length."""


def is_of_table(settings: Mapping[str, Any]) -> bool:
    """Whether a campaign has a table in place of a network."""
    return "features" in settings["estimator"]


def rows_by_content(
    table: EmbeddingTable, contents: Mapping[str, Content], known: Rows
) -> Rows:
    """Give the rows that are not known yet; `contents` are by path, in order."""
    there = {path: c.sha256 for path, c in contents.items() if c.sha256}
    found: Rows = {}
    for (path, sha256), i in zip(there.items(), table.match([*there]), strict=True):
        row = table.rows[i]
        before = row if i < 0 else known.get(sha256, found.setdefault(sha256, row))
        if np.linalg.norm(row - before) > _AGREEMENT * np.linalg.norm(before):
            raise TableError(
                f"{str(table.file)!r} has another row for {path!r} than this image, or "
                "a copy of it, has already. Nothing was changed. Are the rows in "
                "another order, or of another embedding?"
            )
    return {sha256: row for sha256, row in found.items() if sha256 not in known}


def write_embeddings(campaign: Path, rows: Rows) -> str:
    """Write rows to a file of the campaign, and return its digest."""
    keys = np.frombuffer(bytes.fromhex("".join(rows)), dtype=np.uint8)
    arrays = {"contents": keys.reshape(-1, 32), "rows": np.stack([*rows.values()])}
    data = safetensors.numpy.save(arrays)
    digest = hashlib.sha256(data).hexdigest()
    path = campaign / _FOLDER / f"{digest}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda tmp_path: tmp_path.write_bytes(data))
    return digest


def read_embeddings(log: EventLog) -> Rows:
    """Read all rows of a campaign, by content; refuse a damaged file."""
    found: Rows = {}
    for digest in table_digests(log):
        path = log.path.parent / _FOLDER / f"{digest}.safetensors"
        if not path.is_file() or file_digest(path) != digest:
            raise CampaignError(
                f"The campaign's embeddings {str(path)!r} are missing or damaged. The "
                "labels are safe. Put the file back from a copy of the campaign."
            )
        with log.intact(), safetensors.safe_open(path, "np") as file:
            keys, rows = file.get_tensor("contents"), file.get_tensor("rows")
            found |= zip((key.tobytes().hex() for key in keys), rows, strict=True)
    return found


def table_digests(log: EventLog) -> list[str]:
    """Digests of the files with rows, oldest first."""
    with log.intact():
        details = log.rows("SELECT detail FROM events ORDER BY id")
        found = (json.loads(detail).get("embeddings") for (detail,) in details)
        return [str(digest) for digest in found if digest]


def without_rows(changes: dict[str, Content], rows: Rows) -> dict[str, Content]:
    """Note of which contents there is no row: they are no images to label yet."""
    return {
        path: replace(c, problem=NO_ROW)
        if c.sha256 and c.sha256 not in rows and not c.problem
        else c
        for path, c in changes.items()
    }


def with_rows(contents: dict[str, Content], rows: Rows) -> dict[str, Content]:
    """The contents that had no row, and have one now."""
    return {
        path: replace(c, problem=None)
        for path, c in contents.items()
        if c.problem == NO_ROW and c.sha256 in rows
    }
