"""``skadma predict``: label images with a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._options import add_output, prepare_file


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    predict = commands.add_parser(
        "predict",
        help="write the labels of images to a CSV file",
        description="Write a model's labels of images to a CSV file: path, label, "
        "confidence, and why an image has none. Stopped, it goes on where it was.",
    )
    predict.set_defaults(run=_predict)
    what = "images, and folders of them with subfolders"
    predict.add_argument(
        "inputs", type=Path, nargs="+", metavar="FOLDER_OR_FILE", help=what
    )
    add_output(predict, "CSV file")
    add = predict.add_mutually_exclusive_group(required=True).add_argument
    add("--model", type=Path, metavar="FOLDER", help="a saved model")
    add("--campaign", type=Path, metavar="FOLDER", help="the model of a campaign")
    what = "a column of probabilities per class"
    predict.add_argument("--proba", action="store_true", help=what)


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
