"""``skadma centers``: make, show and check source centres."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import add_output, positive, prepare_file

if TYPE_CHECKING:
    from ..classifier import CNNClassifier


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    centers = commands.add_parser(
        "centers", help="make, show or check the source centres that ADMA compares with"
    )
    actions = centers.add_subparsers(dest="action", required=True)
    make = actions.add_parser(
        "make",
        help="from a folder of source images, or from the network alone",
        description="Make a file of source centres for ADMA: from a folder with one "
        "subfolder per source class, or without any source data by synthesis.",
    )
    make.set_defaults(run=_make)
    add = make.add_argument
    add("folder", type=Path, nargs="?", help="one subfolder per source class")
    what = "from the network, without a folder"
    add("--synthesize", action="store_true", help=what)
    add_output(make, "file, .safetensors")
    what = "only so many classes, which cover the source space"
    add("-n", "--n-centers", type=positive, help=what)
    what = "gradient steps of the synthesis (default: 140)"
    add("--steps", type=positive, help=what)
    show = actions.add_parser("show", help="write a contact sheet as PNG")
    show.set_defaults(run=_show)
    show.add_argument("file", type=Path)
    add_output(show, "file, .png")
    check = actions.add_parser(
        "check",
        help="check whether a file fits a network, and how well the network "
        "recognizes it",
    )
    check.set_defaults(run=_check)
    check.add_argument("file", type=Path)
    for action in (make, check):
        add = action.add_argument
        what = "network (default: %(default)s)"
        add("--backbone", default="efficientnet_lite0", help=what)
        add("--weights", default="DEFAULT", help="its weights (default: %(default)s)")
        what = "in pixels (default: the network's)"
        add("--image-size", type=positive, help=what)


def _classifier(options: argparse.Namespace) -> CNNClassifier:
    from ..classifier import CNNClassifier  # its imports take seconds

    return CNNClassifier(
        options.backbone, weights=options.weights, image_size=options.image_size
    )


def _make(options: argparse.Namespace) -> None:
    from ..centers import SourceCenters

    if (options.folder is None) != options.synthesize:
        raise ValueError("give a folder of source images, or --synthesize without one.")
    prepare_file(options.out, overwrite=options.overwrite)
    clf = _classifier(options)
    if options.synthesize:
        steps = {"n_steps": options.steps} if options.steps else {}
        centers = SourceCenters.synthesize(
            clf, n_centers=options.n_centers, verbose=True, **steps
        )
    else:
        centers = SourceCenters.from_dataset(
            clf, options.folder, n_centers=options.n_centers, verbose=True
        )
    centers.save(options.out)
    print(f"{centers!r}\n{options.out}")


def _show(options: argparse.Namespace) -> None:
    from ..centers import SourceCenters
    from ..centers._shipped import to_sheet

    prepare_file(options.out, overwrite=options.overwrite)
    centers = SourceCenters.load(options.file)
    if centers.inputs.dtype != "uint8":
        raise ValueError(f"{options.file} has no images but {centers!r}.")
    to_sheet(centers.inputs).save(options.out, format="PNG")
    print(f"{len(centers)} images: {options.out}")


def _check(options: argparse.Namespace) -> None:
    from ..centers import SourceCenters

    centers = SourceCenters.load(options.file)
    clf = _classifier(options)
    if options.image_size is None:
        clf.set_params(image_size=centers.image_size)
    accuracy = centers.source_accuracy(clf)
    source = clf.source_network()
    print(
        f"{centers!r}\nnetwork {centers.network}, weights {centers.fingerprint}, "
        f"{centers.image_size} x {centers.image_size} pixels: as {source.name}\n"
        f"{len(centers)} of {source.n_classes} classes; the network takes "
        f"{accuracy:.1%} of the centres for their own class"
    )
