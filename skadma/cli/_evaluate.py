"""``skadma evaluate``: estimate from a few labels how good the model is."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import (
    add_campaign_command,
    add_output,
    add_partial,
    open_campaign,
    positive,
    prepare_file,
    print_next,
    write_label_file,
)
from ._teach import print_taught

if TYPE_CHECKING:
    from ..labelling.campaign import Campaign


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    evaluate = add_campaign_command(
        commands,
        "evaluate",
        _evaluate,
        "estimate from a few labels how good the model is",
        "Estimate from a few labels how good the model is: draw images (--draw), fill "
        "in their labels, give the file back. The labels are never trained with, "
        "until --release.",
    )
    evaluate.add_argument(
        "labels", type=Path, nargs="?", help="the file that --draw wrote, filled in"
    )
    evaluate.add_argument(
        "--draw", type=positive, metavar="N", help="draw N images to label; needs -o"
    )
    evaluate.add_argument(
        "--method",
        choices=("stratified", "random", "importance"),
        default="stratified",
        help="how to draw them (default: %(default)s)",
    )
    evaluate.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="a folder of other images to be good on, instead of the pool",
    )
    evaluate.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        help="of the intervals (default: %(default)s)",
    )
    add_partial(evaluate)
    evaluate.add_argument(
        "--release",
        action="store_true",
        help="end the audit: its labels are trained with from now on",
    )
    what = "label file to fill in; without --draw: what has no label"
    add_output(evaluate, what, required=False)


def _evaluate(options: argparse.Namespace) -> None:
    if options.draw and (options.labels or options.release):
        raise ValueError("--draw goes with neither a label file nor --release.")
    if options.release and (options.labels or options.out):
        raise ValueError("--release goes alone; give the label file before.")
    if options.draw and not options.out:
        raise ValueError("--draw needs -o FILE, where the drawn images are listed.")
    if options.images and (options.release or (options.out and not options.draw)):
        raise ValueError("--images goes with --draw N -o FILE, or with the label file.")
    if options.images and not (options.draw or options.labels):
        raise ValueError("--images needs --draw N -o FILE first, then the label file.")
    if options.out:
        prepare_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        if options.images:
            _evaluate_folder(campaign, options)
        elif options.release:
            released = campaign.audits.release(train=False)
            print(f"{released.n_new} labels of the audit are trained with from now on.")
        elif options.draw:
            _write(options, campaign.audits.draw(options.draw, method=options.method))
        else:
            _answer(campaign, options)


def _answer(campaign: Campaign, options: argparse.Namespace) -> None:
    """Take the label file, if there is one; list what has no label, or estimate."""
    if options.labels:
        print_taught(campaign.audits.answer(options.labels, partial=options.partial))
    pending = campaign.audits.pending()
    if options.out:
        _write(options, pending)
        return
    print(campaign.audits.estimate(confidence=options.confidence))
    if pending:
        print(
            f"{len(pending)} drawn images have no label yet; 'skadma evaluate -o FILE' "
            "lists them. Until then they are taken to be as the others."
        )


def _evaluate_folder(campaign: Campaign, options: argparse.Namespace) -> None:
    if options.draw:
        campaign.audits.draw_from_folder(
            options.images, options.draw, options.out, method=options.method
        )
        n, then = options.draw, f"evaluate --images {options.images}"
        print_next(n, "images to label: fill in", options.out, then)
    else:
        print(
            campaign.audits.estimate_on_folder(
                options.images, options.labels, confidence=options.confidence
            )
        )


def _write(options: argparse.Namespace, drawn: Iterable[Any]) -> None:
    rows = ((p.path, "", p.sha256) for p in drawn)
    write_label_file(options.out, (), rows, "images to label: fill in", "evaluate")
