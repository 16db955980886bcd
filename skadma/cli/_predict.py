"""``skadma predict`` and ``skadma sort``: use a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ._options import (
    Commands,
    Options,
    add_command,
    add_features_name,
    add_output,
    open_campaign,
    prepare_file,
)


def add_parser(commands: Commands) -> None:
    """Add the commands."""
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
    what = "sort photographs into a folder for each class"
    more = f"{what.capitalize()}: by your labels, the others by the model. It shows "
    more += "what it would do, and asks. Nothing is overwritten; stopped, the same "
    more += "command goes on."
    sort = add_command(commands, "sort", lambda campaign, options: None, what, more)
    sort.set_defaults(run=_sort, how="copy")
    add = sort.add_argument
    what = "folders of images (default: the campaign's)"
    add("photos", type=Path, nargs="*", metavar="PHOTOS", help=what)
    where = sort.add_mutually_exclusive_group(required=True).add_argument
    what = "a new folder, for the classes' folders"
    where("--into", type=Path, metavar="FOLDER", help=what)
    what = "take a move back by the file that it wrote"
    where("--undo", type=Path, metavar="FILE", help=what)
    how = sort.add_mutually_exclusive_group().add_argument
    for name in ("copy", "link", "move"):
        what = f"{name} the files" + " (default)" * (name == "copy")
        how(f"--{name}", dest="how", action="store_const", const=name, help=what)
    what = "pictures of which the model is less sure go into 'unsure' (default: 0.8)"
    add("--unsure", type=float, default=0.8, metavar="SHARE", help=what)
    add("--yes", action="store_true", help="do it without asking")


def _predict(options: Options) -> None:
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


def _sort(options: Options) -> None:
    from ..labelling import sort

    if options.undo:
        plan = sort.read_plan(options.undo)
    else:
        with open_campaign(options) as campaign:
            roots = options.photos or [*campaign.pools.values()]
            plan = sort.unfinished(options.into.absolute(), roots) or sort.plan_sort(
                campaign, options.into, roots, how=options.how, unsure=options.unsure
            )
    print(plan)
    n, where = len(plan.files), "back" if options.undo else f"into {plan.into}"
    if not options.yes and sys.stdin.isatty():
        print(f"{plan.how} {n} files {where}? [y/N] ", end="", flush=True)
        options.yes = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not options.yes:
        print("Nothing was done. --yes does it without asking.")
        return
    if options.undo:
        n, problems = sort.undo_sort(plan)
        print(f"{n} files are back.", *problems, sep="\n")
        return
    problems = sort.run_sort(plan, progress=True)
    left_out = [f"left out: {problem}" for problem in problems]
    print(f"{n - len(problems)} files are in {plan.into}.", *left_out, sep="\n")
    if plan.how == "move":
        print(f"To take it back: skadma sort --undo {plan.into / sort.UNDO}")
        print(f"With --pool {plan.into} the other commands find the photographs.")
