"""What a campaign tells of itself and its pool."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

from .answers import read_answers
from .event_log import CampaignError, Store
from .folders import Places, read_pools
from .history import list_decisions, list_events
from .image_index import Content
from .naming import read_naming
from .pace import Pace, measure_pace
from .state import Decision, State, add_contents, read_state
from .status import Status, make_status

_log = logging.getLogger(__name__)


class CampaignReading:
    """The methods of a campaign that tell of it, as the pool is now or was last."""

    pool: Path
    _places: Places
    _store: Store

    @property
    def who(self) -> str:
        """Whose name events carry."""
        return self._store.who

    @property
    def classes(self) -> list[str]:
        """All labels there are, as they are called today."""
        with self._store.reading(), self._store.intact():
            return read_naming(self._store).classes

    def former_classes(self) -> dict[str, str]:
        """List names that classes had before, with their names of today.

        Returns
        -------
        dict of str to str
        """
        with self._store.reading(), self._store.intact():
            return read_naming(self._store).former

    @property
    def pools(self) -> dict[str, Path]:
        """The folders of images by name; that of the first is empty."""
        with self._store.reading(), self._store.intact():
            return self._places.folders(read_pools(self._store))

    def files(self, paths: Iterable[str]) -> list[Path]:
        """Say where images are.

        Parameters
        ----------
        paths : iterable of str
            As the campaign names them.

        Returns
        -------
        list of Path
        """
        with self._store.reading(), self._store.intact():
            pools = read_pools(self._store)
        return [self._places.file(path, pools) for path in paths]

    def status(self) -> Status:
        """Count what there is, as of the last look at the pool.

        Returns
        -------
        Status
            ``print`` shows it.
        """
        with self._store.reading():
            state = self._state()
            return make_status(self._store, state, self._places)

    def candidates(self) -> list[str]:
        """List the images that a query chooses from, one of each content.

        Returns
        -------
        list of str
            Paths. Those that were skipped, where nothing else is left.
        """
        with self._store.reading():
            state = self._state()
        return [state.paths[image] for image in state.candidates()]

    def decisions(self) -> list[tuple[str, Decision, str]]:
        """List what holds for each image.

        Copies of an image are listed too: its label serves them all.

        Returns
        -------
        list of (str, Decision, str)
            Path, decision, and whether the file is still what the decision was about:
            "as labelled", "changed" or "missing".
        """
        with self._store.reading():
            return list(list_decisions(self._state()))

    def log(self) -> list[dict[str, Any]]:
        """List every event: number, time, who, what, and decisions or proposals.

        Returns
        -------
        list of dict
            Of plain values, oldest first.
        """
        with self._store.reading():
            return list_events(self._store)

    def labels_per_hour(self) -> list[Pace]:
        """Measure how fast people label.

        From somebody's answer before, or the last query, to an answer. What took more
        than 120 seconds a label had a pause in it, and what took less than 0.2 was
        not labelled here: neither counts.

        Returns
        -------
        list of Pace
            By person; without those of whom nothing was timed.
        """
        with self._store.reading():
            return measure_pace(self._store, read_answers(self._store, self._state()))

    def refresh(self) -> int:
        """Look at the pools for new, changed and missing images; others do it as well.

        Returns
        -------
        int
            How many differ from what was found before.
        """
        with self._store.reading():
            state = self._state()
        begin = perf_counter()
        changes = self._places.scan(state.pools, _known(state))
        if not changes:
            return 0
        with self._store.transaction():
            now = self._state()  # another process may have looked as well
            known = _known(now)
            changes = {
                path: content
                for path, content in changes.items()
                if known.get(path) != content
                and now.pools.owner(path) == state.pools.owner(path)
            }
            if changes:
                event = self._store.add_event("scan", n_changes=len(changes))
                add_contents(self._store, changes, event)
            changed = [now.paths[i] for i, _ in self._state().changed_since()]
        for path in changed:
            if path in changes:
                warnings.warn(
                    f"{path!r} has changed since it was labelled. The label stays with "
                    "what it was given for; the file counts as a new image.",
                    stacklevel=2,
                )
        _log.info("pools: %d changes in %.1f s", len(changes), perf_counter() - begin)
        return len(changes)

    def refresh_if_there(self) -> None:
        """Look at the pools, or warn where one is not to be found."""
        try:
            self.refresh()
        except (CampaignError, OSError) as error:
            warnings.warn(f"as of the last look at the pools: {error}", stacklevel=2)

    def _state(self) -> State:
        return read_state(self._store)


def _known(state: State) -> dict[str, Content]:
    """What was last found, by path."""
    return {state.paths[image]: content for image, content in state.contents.items()}
