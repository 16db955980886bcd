"""Which shards are to be scanned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import shard_file
from .scanning import CONTENT, Column, Network, ShardTask

if TYPE_CHECKING:
    from .stored_images import ImagesOfStore


class ShardTasks(Sequence):
    """Shards to scan, made when they are asked for."""

    def __init__(
        self,
        store: ImagesOfStore,
        sizes: Sequence[int],
        columns: list[Column],
        shards: np.ndarray,
        part: tuple[int, int],
    ) -> None:
        self._store, self._sizes = store, sizes
        self.network: Network | None = None
        self._open: list[tuple[int, list[Column], bool]] = []
        for number in map(int, shards[shards % part[1] == part[0]]):
            missing = [
                column
                for column in columns
                if not shard_file(store.folder, column.name, number).exists()
            ]
            content = not shard_file(store.folder, CONTENT, number).exists()
            if missing or content:
                self._open.append((number, missing, content))

    @property
    def n_rows(self) -> int:
        """Images to scan."""
        return sum(self._sizes[number] for number, _, _ in self._open)

    def __len__(self) -> int:
        return len(self._open)

    def __getitem__(self, i: Any) -> Any:
        number, columns, content = self._open[i]
        start = sum(self._sizes[:number])
        store = self._store.whole.select(np.arange(start, start + self._sizes[number]))
        return ShardTask(
            store.folder.absolute(),
            number,
            store.images,
            store.keys,
            columns,
            content,
            self.network,
            self._store.skip_unreadable,
        )
