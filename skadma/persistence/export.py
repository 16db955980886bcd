"""Export a model: saved, with a card, its preprocessing and an ONNX file."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks.torch_state import NETWORK_LOCK
from .card import CardFacts, describe_preprocessing, make_card
from .folder import save_model
from .params import ModelError

INPUT, OUTPUT = "pixels", "probabilities"
OPSET = 18
"""The lowest that torch writes, which the most programs read."""
_TOLERANCE = 1e-4


def export_model(
    estimator: Any,
    folder: str | Path,
    facts: CardFacts,
    *,
    onnx: bool = False,
    opset: int = OPSET,
    overwrite: bool = False,
) -> None:
    """Write a saved model with a card, its preprocessing and, if asked for, ONNX.

    The folder is there whole or not at all, and `CNNClassifier.load` reads it.
    """
    if len(estimator.source_network_.example.shape) != 4:
        raise ModelError("The model is one of tables, and what is exported, of images.")

    def more(tmp_path: Path) -> None:
        text = json.dumps(describe_preprocessing(estimator), indent=1)
        (tmp_path / "preprocessing.json").write_text(text + "\n", "utf-8")
        card = make_card(estimator, facts, onnx=onnx)
        (tmp_path / "README.md").write_text(card, "utf-8")
        if onnx:
            export_onnx(estimator, tmp_path / "model.onnx", opset=opset)

    save_model(estimator, folder, overwrite=overwrite, more=more)


def check_onnx(opset: int) -> None:
    """Raise before the work is done if a package or the operator set is missing."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _import(package)
    if "external_data" not in inspect.signature(torch.onnx.export).parameters:
        raise ImportError(
            f"ONNX files need torch 2.6 or newer, this is {torch.__version__}."
        )
    newest = _import("onnx").defs.onnx_opset_version()
    if not OPSET <= opset <= newest:
        raise ModelError(
            f"opset={opset} is none of the operator sets that can be written: "
            f"{OPSET} to {newest}."
        )


def export_onnx(estimator: Any, path: Path, *, opset: int = OPSET) -> float:
    """Write a classifier as ONNX, and check its probabilities on images of noise.

    The graph takes uint8 pixels (n, 3, side, side), RGB, as they are after resizing and
    cropping, and gives float32 probabilities (n, n_classes). Returns the largest
    difference of a probability; ModelError if it is above the tolerance.
    """
    check_onnx(opset)
    side = estimator.source_network_.preprocessing.image_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 3, side, side), dtype=np.uint8)
    with NETWORK_LOCK, torch.no_grad():
        whole = _PixelsToProbabilities(estimator)
        expected = whole(torch.from_numpy(pixels)).numpy()
        _write(whole, torch.from_numpy(pixels[:2]), path, opset)
    try:
        session = _import("onnxruntime").InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
        batches = (pixels[:1], pixels[1:])
        found = np.concatenate([session.run(None, {INPUT: x})[0] for x in batches])
    except Exception as error:  # of a type that is onnxruntime's own
        raise ModelError(
            f"onnxruntime cannot run the exported network ({error}). With a lower "
            f"opset than {opset} it may; the lowest is {OPSET}."
        ) from error
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"The exported network's probabilities differ by {difference:.2g} from "
            f"those of the model, more than {_TOLERANCE:g}; it was not kept."
        )
    return difference


class _PixelsToProbabilities(nn.Module):
    """Normalisation, network and softmax, or the sigmoid of each label."""

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        network = copy.deepcopy(estimator.net_.module_).cpu().eval()
        graph = estimator.source_network_.graph
        self.multilabel = estimator.multilabel_
        self.normalize = network.normalize
        # A subgraph is a plain graph, AdaFilter's rewritten one included.
        self.scores = network.subgraph(graph, [graph.output], None).eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scores = self.scores(self.normalize(pixels))[0].flatten(1)
        return scores.sigmoid() if self.multilabel else scores.softmax(1)


def _write(whole: nn.Module, example: torch.Tensor, path: Path, opset: int) -> None:
    try:
        # The exporter prints its progress, and warns of its own internals.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                whole,
                (example,),
                str(path),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                dynamo=True,
                dynamic_shapes={INPUT: {0: torch.export.Dim("n")}},
                external_data=False,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:  # the exporter raises almost anything
        first = str(error).strip().split("\n", 1)[0]
        raise ModelError(
            f"torch cannot write this network as ONNX with opset={opset} "
            f"({type(error).__name__}: {first})."
        ) from error


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"ONNX files need the package {package}: pip install skadma[onnx]"
        ) from error
