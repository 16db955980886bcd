"""``skadma predict`` and ``export-model``: use the model, and hand it on."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._options import (
    add_campaign_command,
    add_output,
    open_campaign,
    prepare_file,
    prepare_folder,
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
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
    export = add_campaign_command(
        commands,
        "export-model",
        _export_model,
        "write the campaign's model to a folder, to hand it on",
        "Write the model of all labels so far to a folder: weights, labels, "
        "preprocessing, a model card and, with --onnx, an ONNX file.",
    )
    add_output(export, "folder")
    export.add_argument(
        "--onnx", action="store_true", help="write model.onnx (skadma[onnx])"
    )
    export.add_argument("--opset", type=int, help="ONNX operator set (default: 18)")
    export.add_argument(
        "--no-calibration",
        action="store_true",
        help="skip the five trainings that calibrate the probabilities",
    )


def _predict(options: argparse.Namespace) -> None:
    from ..classifier import CNNClassifier
    from ..labelling import predict_files
    from ..labelling.campaign import Campaign

    prepare_file(options.out, overwrite=options.overwrite)
    if options.model is not None:
        estimator = CNNClassifier.load(options.model)
    else:
        with Campaign.open(options.campaign) as campaign:
            estimator = campaign.estimator()
        if not hasattr(estimator, "net_"):
            raise ValueError(
                f"The campaign in {str(options.campaign)!r} has no labels yet, so no "
                "model."
            )
    done = predict_files(
        estimator,
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
    prepare_folder(options.out.absolute().parent)
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
