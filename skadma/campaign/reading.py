"""What a campaign tells: the methods that change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .agreement import Agreement, compare, due
from .answers import read_answers
from .history import list_decisions, list_events
from .naming import read_naming
from .pace import Pace, measure_pace
from .pools import Places, read_pools
from .second_look import CantTell, Doubt, list_cant_tell, list_doubts
from .state import Decision, State, read_state
from .status import Status, make_status
from .store import Store
from .trainer import Proposal, Trainer


class CampaignReading:
    """The methods of a campaign that change nothing."""

    pool: Path
    _places: Places
    _store: Store
    _trainer: Trainer

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

    # --- second looks -------------------------------------------------------

    def cant_tell(self, *, exclude: str | None = None) -> list[CantTell]:
        """List the images that were marked as ones that nobody can label.

        Parameters
        ----------
        exclude : str, optional
            Leave out what this person has answered, so as to ask for a second opinion.

        Returns
        -------
        list of CantTell
            Oldest first. Those whose file is there.
        """
        with self._store.reading():
            state = self._state()
            return list_cant_tell(read_answers(self._store, state), state, exclude)

    def second_look(self, n: int | None = None) -> list[Doubt]:
        """List labelled images whose label is in doubt.

        First those of which somebody said something else in a blind repeat, then by
        how little a model believes in the label that did not see it: a logistic
        regression on the pretrained network's penultimate outputs, five-fold. What was
        labelled anew or confirmed since is left out.

        Parameters
        ----------
        n : int, optional
            How many; all if None.

        Returns
        -------
        list of Doubt
            Most doubtful first. Warns of labels that cannot be judged.

        See Also
        --------
        skadma.evaluation.suspects : The ranking.
        """
        with self._store.reading():
            state = self._state()
            answers = read_answers(self._store, state)
        doubts = list_doubts(
            answers,
            state,
            state.classes,
            lambda images: self._trainer.source_features(images, state),
        )
        return doubts[:n]

    def repeats_due(self, share: float, who: str | None = None) -> list[Proposal]:
        """Choose labelled images to show somebody again, blind.

        So many that about `share` of the person's answers are repeats: half of them
        images that others labelled, if there are any, half the person's own, but none
        of the last ten. Nobody is shown an image again twice. The choice is a function
        of the log: asked again it is the same until something is answered.

        Parameters
        ----------
        share : float
            In [0, 1]. With 1, all that there are.
        who : str, optional
            Whoever works on the campaign if None.

        Returns
        -------
        list of Proposal
            Without guesses and scores. :meth:`record_repeat` takes the answers.
        """
        with self._store.reading():
            state = self._state()
            answers = read_answers(self._store, state)
        images = due(answers, state, share, self._store.who if who is None else who)
        return [
            Proposal(
                state.paths[image], None, None, None, str(state.contents[image].sha256)
            )
            for image in images
        ]

    def agreement(self) -> Agreement:
        """Tell how far people agree with each other and with themselves.

        Each blind repeat is compared with the decision that held when it was made,
        whatever was corrected afterwards. "?cant-tell" and "?not-an-image" count as
        answers, "?skip" does not. Cohen's kappa is scikit-learn's; its interval is
        Wilson's for the agreement, shifted and scaled by the agreement that chance
        would give, as found.

        Returns
        -------
        Agreement
            ``print`` shows it.
        """
        with self._store.reading():
            state = self._state()
            return compare(read_answers(self._store, state), state)

    def _state(self) -> State:
        return read_state(self._store)
