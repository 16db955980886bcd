"""``skadma predict`` and ``export-model``: a model that is handed on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._campaign import add_common, add_output, add_pool, open_campaign

if TYPE_CHECKING:
    from ..classifier import CNNClassifier


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommands."""
    predict = commands.add_parser(
        "predict",
        help="write the labels of images to a CSV file",
        description="Write a model's labels of images to a CSV file: path, label, "
        "confidence, and why an image has none. Stopped, it goes on where it was.",
    )
    predict.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="FOLDER_OR_FILE",
        help="images, and folders of them with subfolders",
    )
    add_output(predict, "CSV file")
    model = predict.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, metavar="FOLDER", help="a saved model")
    model.add_argument(
        "--campaign", type=Path, metavar="FOLDER", help="the model of a campaign"
    )
    predict.add_argument(
        "--proba", action="store_true", help="a column of probabilities per class"
    )
    predict.set_defaults(run=_predict)
    export = commands.add_parser(
        "export-model",
        help="write the campaign's model to a folder, to hand it on",
        description="Write the model of all labels so far to a folder: weights, "
        "labels, preprocessing, a model card and, with --onnx, an ONNX file.",
    )
    add_common(export)
    add_pool(export)
    add_output(export, "folder")
    export.add_argument(
        "--onnx", action="store_true", help="write model.onnx (skadma[onnx])"
    )
    export.add_argument("--opset", type=int, help="ONNX operator set (default: 18)")
    export.add_argument(
        "--no-calibration",
        action="store_true",
        help="skip the five trainings that tell how far probabilities can be trusted",
    )
    export.set_defaults(run=_export_model)


def _predict(options: argparse.Namespace) -> None:
    from .._utils.atomic import new_file
    from ..labelling.predict import predict_files

    new_file(options.out, overwrite=options.overwrite)  # before a campaign may train
    done = predict_files(
        _estimator(options),
        options.inputs,
        options.out,
        proba=options.proba,
        overwrite=options.overwrite,
        progress=True,
    )
    print(f"{done}: {options.out}")


def _export_model(options: argparse.Namespace) -> None:
    if options.opset is not None and not options.onnx:
        raise ValueError("--opset is for --onnx.")
    with open_campaign(options) as campaign:
        campaign.export_model(
            options.out,
            onnx=options.onnx,
            opset=options.opset,
            calibration=not options.no_calibration,
            overwrite=options.overwrite,
            verbose=True,
        )
    print(
        f"The model is in {options.out}. Its README.md has lines to fill in: licences."
    )


def _estimator(options: argparse.Namespace) -> CNNClassifier:
    from ..classifier import CNNClassifier
    from ..labelling.campaign import Campaign

    if options.model is not None:
        return CNNClassifier.load(options.model)
    with Campaign.open(options.campaign) as campaign:
        estimator = campaign.estimator()
    if not hasattr(estimator, "net_"):
        raise ValueError(
            f"The campaign in {str(options.campaign)!r} has no labels yet, so no model."
        )
    return estimator
