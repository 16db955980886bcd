"""``skadma predict`` and ``skadma sort``: use a model."""

from __future__ import annotations

import sys
from pathlib import Path

from ._options import (
    Commands,
    Options,
    add_command,
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
        "inputs", type=Path, nargs="+", metavar="FOLDER_OR_FILE", help=what
    )
    add_output(predict, "CSV file")
    add = predict.add_mutually_exclusive_group(required=True).add_argument
    add("--model", type=Path, metavar="FOLDER", help="a saved model")
    add("--campaign", type=Path, metavar="FOLDER", help="the model of a campaign")
    what = "a column of probabilities per class"
    predict.add_argument("--proba", action="store_true", help=what)
    what = "sort photographs into a folder for each class"
    sort = add_command(
        commands,
        "sort",
        lambda campaign, options: None,
        what,
        f"{what.capitalize()}: by your labels, the others by the model. It shows what "
        "it would do, and asks. Nothing is overwritten; stopped, the same command goes "
        "on.",
    )
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


def _sort(options: Options) -> None:
    from ..labelling.sort import UNDO, plan_sort, run_sort, undo_sort, unfinished

    if options.undo:
        n, problems = undo_sort(options.undo)
        print(f"{n} files are back.", *problems, sep="\n")
        return
    with open_campaign(options) as campaign:
        roots = options.photos or [*campaign.pools.values()]
        if plan := unfinished(options.into.absolute(), roots):
            print(f"A sort was interrupted. Going on with it: {plan.how}")
        else:
            how, unsure = options.how, options.unsure
            plan = plan_sort(campaign, options.into, roots, how=how, unsure=unsure)
    print(plan)
    n = len(plan.files)
    if not options.yes and sys.stdin.isatty():
        print(f"{plan.how} {n} files into {plan.into}? [y/N] ", end="", flush=True)
        options.yes = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not options.yes:
        print("Nothing was done. --yes does it without asking.")
        return
    problems = run_sort(plan, progress=True)
    left_out = [f"left out: {problem}" for problem in problems]
    print(f"{n - len(problems)} files are in {plan.into}.", *left_out, sep="\n")
    if plan.how == "move":
        print(f"To take it back: skadma sort --undo {plan.into / UNDO}")
        print(f"With --pool {plan.into} the other commands find the photographs.")
