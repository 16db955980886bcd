"""A model with its card, and what other programs need to run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .card import CardFacts, describe_preprocessing, make_card
from .errors import ModelError
from .folder import save_model
from .onnx import OPSET, export_onnx

if TYPE_CHECKING:
    from ..classifier import CNNClassifier


def export_model(
    estimator: CNNClassifier,
    folder: str | Path,
    facts: CardFacts,
    *,
    onnx: bool = False,
    opset: int = OPSET,
    overwrite: bool = False,
) -> None:
    """Write a saved model with a card, its preprocessing and, if asked for, ONNX.

    Parameters
    ----------
    estimator : CNNClassifier
        Fitted, for images.
    folder : str or Path
        It is there whole or not at all. :meth:`CNNClassifier.load` reads it.
    facts : CardFacts
    onnx : bool, default=False
        Write ``model.onnx`` as well.
    opset : int, default=18
        ONNX operator set.
    overwrite : bool, default=False
        Replace a model that is there already.

    Raises
    ------
    ModelError
        If it cannot be written, or the folder is there.
    ImportError
        If a package that writes ONNX is missing.
    """
    if len(estimator.source_network_.example.shape) != 4:
        raise ModelError("The model is one of tables, and what is exported, of images.")

    def more(part: Path) -> None:
        text = json.dumps(describe_preprocessing(estimator), indent=1)
        (part / "preprocessing.json").write_text(text + "\n", "utf-8")
        card = make_card(estimator, facts, onnx=onnx)
        (part / "README.md").write_text(card, "utf-8")
        if onnx:
            export_onnx(estimator, part / "model.onnx", opset=opset)

    save_model(estimator, folder, overwrite=overwrite, more=more)
