"""``skadma centers``: make source centres."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._options import add_output, positive, prepare_file


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    centers = commands.add_parser(
        "centers",
        help="make the source centres that ADMA compares with",
        description="Make a file of source centres for ADMA: from a folder with one "
        "subfolder per source class, or without any source data by synthesis.",
    )
    centers.set_defaults(run=_make)
    add = centers.add_argument
    add("folder", type=Path, nargs="?", help="one subfolder per source class")
    what = "from the network, without a folder"
    add("--synthesize", action="store_true", help=what)
    add_output(centers, "file, .safetensors")
    what = "only so many classes, which cover the source space"
    add("-n", "--n-centers", type=positive, help=what)
    what = "gradient steps of the synthesis (default: 140)"
    add("--steps", type=positive, help=what)
    what = "network (default: %(default)s)"
    add("--backbone", default="efficientnet_lite0", help=what)
    add("--weights", default="DEFAULT", help="its weights (default: %(default)s)")
    what = "in pixels (default: the network's)"
    add("--image-size", type=positive, help=what)


def _make(options: argparse.Namespace) -> None:
    from ..centers import SourceCenters  # its imports take seconds
    from ..classifier import CNNClassifier

    if (options.folder is None) != options.synthesize:
        raise ValueError("give a folder of source images, or --synthesize without one.")
    prepare_file(options.out, overwrite=options.overwrite)
    clf = CNNClassifier(
        options.backbone, weights=options.weights, image_size=options.image_size
    )
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
