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

from ..networks import PretrainedNetwork
from ..networks.graph import UntracedNetwork
from ..networks.torch_state import NETWORK_LOCK
from .card import CardFacts, describe_preprocessing, make_card
from .folder import save_model
from .params import ModelError

_INPUT, _OUTPUT = "pixels", "probabilities"
_OPSET = 18
"""The lowest operator set that torch writes, which the most programs read."""
_TOLERANCE = 1e-4


def export_model(
    estimator: Any,
    folder: str | Path,
    facts: CardFacts,
    *,
    onnx: bool = False,
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
            export_onnx(estimator, tmp_path / "model.onnx")

    save_model(estimator, folder, overwrite=overwrite, more=more)


def check_onnx(source: PretrainedNetwork) -> None:
    """Raise before the work is done if a package is missing, or the network's way.

    Networks that cannot be traced may be no graph for torch's exporter either.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _import(package)
    if "external_data" not in inspect.signature(torch.onnx.export).parameters:
        raise ImportError(
            f"ONNX files need torch 2.6 or newer, this is {torch.__version__}."
        )
    first = next(source.module.children())
    if isinstance(first, UntracedNetwork):
        try:
            if isinstance(first.module, torch.jit.ScriptModule):
                raise ValueError("it is a script, give the module that it was made of")
            with NETWORK_LOCK, contextlib.redirect_stderr(io.StringIO()):
                torch.export.export(source.module, (source.example,), strict=False)
        except Exception as error:  # of any type
            raise _cannot(error) from error


def export_onnx(estimator: Any, path: Path) -> None:
    """Write a classifier as ONNX, and check its probabilities on images of noise.

    The graph takes uint8 pixels (n, 3, side, side), RGB, as they are after resizing and
    cropping, and gives float32 probabilities (n, n_classes). ModelError if one differs
    by more than the tolerance.
    """
    check_onnx(estimator.source_network_)
    side = estimator.source_network_.preprocessing.image_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 3, side, side), dtype=np.uint8)
    with NETWORK_LOCK, torch.no_grad():
        whole = _PixelsToProbabilities(estimator)
        expected = whole(torch.from_numpy(pixels)).numpy()
        _write(whole, torch.from_numpy(pixels[:2]), path)
    try:
        session = _import("onnxruntime").InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
        batches = (pixels[:1], pixels[1:])
        found = np.concatenate([session.run(None, {_INPUT: x})[0] for x in batches])
    except Exception as error:  # of a type that is onnxruntime's own
        raise ModelError(
            f"onnxruntime cannot run the exported network: {error}"
        ) from error
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"The exported network's probabilities differ by {difference:.2g} from "
            f"those of the model, more than {_TOLERANCE:g}; it was not kept."
        )


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


def _write(whole: nn.Module, example: torch.Tensor, path: Path) -> None:
    try:
        # The exporter prints its progress, and warns of its own internals.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                whole,
                (example,),
                str(path),
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                opset_version=_OPSET,
                dynamo=True,
                dynamic_shapes={_INPUT: {0: torch.export.Dim("n")}},
                external_data=False,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:  # the exporter raises almost anything
        raise _cannot(error) from error


def _cannot(error: Exception) -> ModelError:
    first = str(error.__cause__ or error).strip().split("\n", 1)[0]
    return ModelError(
        f"torch cannot write this network as ONNX ({type(error).__name__}: {first}). "
        "Without --onnx (onnx=True) the model is written as it is."
    )


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"ONNX files need the package {package}: pip install skadma[onnx]"
        ) from error
