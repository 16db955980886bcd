"""The model of a campaign: made, measured, handed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...classifier import CNNClassifier
from .audits import Audits
from .event_log import CampaignError
from .lock import locked
from .reading import CampaignReading
from .state import State
from .trainer import Trainer


class CampaignModelling(CampaignReading):
    """The methods of a campaign about its model."""

    folder: Path
    _trainer: Trainer
    _wait: float

    def estimator(self) -> CNNClassifier:
        """Return the model of all labels so far, trained if it was not yet.

        Returns
        -------
        CNNClassifier
            Not fitted where there are no labels.
        """
        return self._model()[1]

    def _model(self) -> tuple[State, CNNClassifier]:
        """The model, and of which state."""
        with locked(self.folder, self._wait, "training"):
            self.refresh_if_there()
            state = self._state()
            return state, self._trainer.model(state)

    @property
    def audits(self) -> Audits:
        """Draw images to measure the model with, and estimate how good it is."""
        return Audits(self)

    def export_model(
        self,
        folder: str | Path,
        *,
        onnx: bool = False,
        opset: int | None = None,
        calibration: bool | str = True,
        overwrite: bool = False,
        verbose: bool = False,
    ) -> None:
        """Write the model of all labels so far, to hand it on: see docs/persistence.md.

        Weights, labels, preprocessing and a model card;
        :meth:`skadma.CNNClassifier.load` and ``skadma predict`` read it. The card has
        the accuracy, if an audit's labels tell it.

        Parameters
        ----------
        folder : str or Path
            It is there whole or not at all.
        onnx : bool, default=False
            Write ``model.onnx`` as well; needs ``pip install skadma[onnx]``.
        opset : int, optional
            ONNX operator set; 18 if None.
        calibration : bool or str, default=True
            Set a temperature by out-of-fold probabilities, which takes five trainings,
            and write the model with it: the same labels, better probabilities. Where
            there are fewer than 60 labels, or it does not help, they stay as they are;
            the card says which. False: they stay as they are. A text, as Markdown: so
            they do, and it is what the card says of them.
        overwrite : bool, default=False
            Replace a model that is there already.
        verbose : bool, default=False
            Show a progress bar over the trainings.

        Raises
        ------
        CampaignError
            If there are no labels yet.
        ModelError
            If the folder is there, the disk is full, or there is no such ONNX.
        ImportError
            If a package that writes ONNX is missing.
        """
        from ...evaluation.calibrated import calibrated
        from ...persistence.export import OPSET, check_onnx, export_model
        from ...persistence.folder import refuse_folder
        from .export import card_facts  # which reads campaigns

        refuse_folder(Path(folder).absolute(), overwrite)  # before training
        opset = OPSET if opset is None else opset
        if onnx:
            check_onnx(opset)
        state, estimator = self._model()
        if not hasattr(estimator, "net_"):
            raise CampaignError("There are no labels yet, so there is no model.")
        text = calibration if isinstance(calibration, str) else None
        if calibration is True:
            images, labels = map(list, zip(*state.labelled(), strict=True))
            estimator, text = calibrated(
                estimator,
                labels,
                lambda: self._trainer.unseen_proba(
                    images, np.array(labels), state, refit=True, verbose=verbose
                ),
            )
        facts = card_facts(self, self._store.settings(), text)
        export_model(
            estimator, folder, facts, onnx=onnx, opset=opset, overwrite=overwrite
        )
