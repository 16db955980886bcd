"""The trainer of a campaign that has a table of embeddings in place of a network."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...training.probe_classifier import ProbeClassifier
from .embeddings import read_embeddings, table_digests
from .event_log import EventLog
from .settings import build_strategy, check_strategy
from .state import State
from .trainer import Table, Trainer


class TableTrainer(Trainer):
    """Make models and queries from a campaign's log and its embeddings."""

    most_rows = np.inf  # they are there

    def __init__(self, log: EventLog, settings: dict[str, Any]) -> None:
        self._log, self._folder = log, log.path.parent
        self.seed, self.warm_start = settings["random_state"], False
        self.is_probe, self._learnt = True, None
        strategy = build_strategy(settings["strategy"], self._folder)
        check_strategy(strategy)
        class_weight = settings["estimator"]["class_weight"]
        self._learner: Any = SimpleNamespace(
            estimator=ProbeClassifier(class_weight=class_weight),
            strategy=strategy,
            n_instances=settings["n_instances"],
        )

    @cached_property
    def _fingerprint(self) -> str:
        """Name the embedding; rows that were added later change no others."""
        return table_digests(self._log)[0]

    def model(self, state: State) -> Any:
        """Fit the probe of a state's labels. Without labels, unfitted."""
        learnt = self.learnt(state)
        assert learnt is not None
        return learnt.probe

    def inputs(self, images: Iterable[int], state: State) -> Any:
        """Rows of images."""
        learnt = self.learnt(state)
        assert learnt is not None
        contents = (str(state.contents[image].sha256) for image in images)
        return learnt.table.rows[learnt.numbers(contents)]

    def _table(self, usable: dict[str, int], state: State) -> Table:
        """Take the rows of images from the campaign's files."""
        contents = sorted(usable)
        known = self._learnt.table if self._learnt else None
        if known is not None and [*known.files] == contents:
            return known
        rows = read_embeddings(self._log)
        files = dict.fromkeys(contents, "")
        return Table(files, np.array([rows[sha256] for sha256 in contents]), None)
