"""``skadma predict``: label images with a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._options import add_features_name, add_output, prepare_file


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
        "inputs", type=Path, nargs="*", metavar="FOLDER_OR_FILE", help=what
    )
    what = "table of embeddings, for a model of them; the images are those of the table"
    predict.add_argument("--features", type=Path, metavar="FILE", help=what)
    add_features_name(predict.add_argument)
    add_output(predict, "CSV file")
    add = predict.add_mutually_exclusive_group(required=True).add_argument
    add("--model", type=Path, metavar="FOLDER", help="a saved model")
    add("--campaign", type=Path, metavar="FOLDER", help="the model of a campaign")
    what = "a column of probabilities per class"
    predict.add_argument("--proba", action="store_true", help=what)


def _predict(options: argparse.Namespace) -> None:
    from ..labelling.campaign import Campaign
    from ..labelling.predict import predict_files, predict_table

    prepare_file(options.out, overwrite=options.overwrite)
    how: dict[str, Any] = {"proba": options.proba, "overwrite": options.overwrite}
    model: Any = None
    features = None
    if options.campaign is not None:
        with Campaign.open(options.campaign) as campaign:
            model, features = campaign.estimator(), campaign.features
        if not hasattr(model, "n_labels_"):
            raise ValueError(
                f"The campaign in {str(options.campaign)!r} has no labels yet, so no "
                "model."
            )
    elif options.features is not None:
        from ..persistence import load_probe

        model, features = load_probe(options.model)
    else:
        from ..classifier import CNNClassifier

        model = CNNClassifier.load(options.model)
    if features is None and (options.features is not None or not options.inputs):
        raise ValueError("The model takes images: give folders, and no --features.")
    if features is not None and (options.features is None or options.inputs):
        raise ValueError("The model takes a table, which has paths: --features FILE.")
    if features is None:
        done = predict_files(model, options.inputs, options.out, progress=True, **how)
    else:
        from ..features.table import read_table

        table = read_table(options.features, options.features_name)
        table.check(features, model.n_features_in_, "The model")
        done = predict_table(model, table, options.out, **how)
    print(f"{done}: {options.out}")
