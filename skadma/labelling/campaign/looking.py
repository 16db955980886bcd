"""Second looks at a campaign's labels: the methods about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .agreement import Agreement, compare, due
from .answers import read_answers
from .decide import Said, Taught, find_image
from .event_log import CampaignError
from .labels_csv import LabelRow
from .reading import CampaignReading
from .record import add_said, read_rows, record
from .second_look import CantTell, Doubt, list_cant_tell, list_doubts
from .trainer import Proposal, Trainer, unguessed


class CampaignLooks(CampaignReading):
    """The methods of a campaign about second looks at its labels."""

    _trainer: Trainer

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

    def second_look(self, n: int | None = None, *, refit: bool = False) -> list[Doubt]:
        """List labelled images whose label is in doubt.

        First those of which somebody said something else in a blind repeat, then by
        how little a model believes in the label that did not see it: a logistic
        regression on the pretrained network's penultimate outputs, five-fold. What was
        labelled anew or confirmed since is left out.

        Parameters
        ----------
        n : int, optional
            How many; all if None.
        refit : bool, default=False
            Judge by the network itself instead, adapted five times: better where the
            images are far from those it was pretrained with, and slow.

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
            lambda images, labels: self._trainer.unseen_proba(
                images, labels, state, refit=refit
            ),
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
        return unguessed(state, images)

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

    def record_repeat(self, image: str, label: str, *, sha256: str = "") -> None:
        """Write down what somebody said, blind, of an image that is decided.

        It changes no decision and is not trained with: :meth:`agreement` counts it.
        The same answer again changes nothing, another one replaces it. ``undo`` takes
        it back.

        Parameters
        ----------
        image : str
            Its path.
        label : str
            A class or a mark, as in :meth:`teach`.
        sha256 : str, optional
            What was looked at. If it is given, the pool is not searched for changes.

        Raises
        ------
        CampaignError
            If the image has no decision yet, is unknown or another picture by now, or
            the class is unknown.
        """
        self.record_repeats([LabelRow(repr(image), image, label, sha256)])

    def record_repeats(
        self,
        answers: Mapping[str, str] | Sequence[LabelRow] | str | Path,
        *,
        partial: bool = False,
    ) -> Taught:
        """Write down what somebody said, blind, of images that are decided.

        Parameters
        ----------
        answers : mapping of str to str, sequence of LabelRow, or path
            As :meth:`teach` takes them.
        partial : bool, default=False
            Leave out the rows that cannot be taken instead of refusing all.

        Returns
        -------
        Taught
            Its `n_repeats` are those that were new.

        Raises
        ------
        LabelFileError
            As in :meth:`teach`; also if an image has no decision yet.
        """
        name, rows, at_once = read_rows(answers, self.former_classes())
        if not all(row.sha256 for row in rows):
            self.refresh()
        with self._store.transaction():
            return record(
                self._store,
                name,
                [],
                rows,
                self._places,
                at_once=at_once,
                partial=partial,
            )

    def confirm(self, image: str) -> None:
        """Let a decision stand after a second look: :meth:`second_look` drops it.

        Parameters
        ----------
        image : str
            Its path.

        Raises
        ------
        CampaignError
            If nothing was decided about the image yet.
        """
        with self._store.transaction():
            state = self._state()
            number = find_image(image, state.numbers, state, self._places)
            held = None if number is None else state.decision_of(number)
            if number is None or held is None:
                raise CampaignError(f"{image!r} has no decision that could stand.")
            add_said(
                self._store, "confirm", image, [Said(number, held.sha256, held.mark)]
            )
