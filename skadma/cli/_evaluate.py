"""``skadma evaluate`` and ``skadma suspects``: how good models and labels are."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._campaign import add_common, add_pool, open_campaign
from ._types import positive

if TYPE_CHECKING:
    from ..labelling.campaign import Campaign, SuspectLabel


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommands."""
    what = "estimate from a few labels how good the model is"
    evaluate = commands.add_parser(
        "evaluate",
        help=what,
        description=f"{what.capitalize()}: draw images (--draw), fill in their labels, "
        "give the file back. The labels are never trained with, until --release.",
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
    evaluate.add_argument(
        "--partial",
        action="store_true",
        help="leave out rows that cannot be taken, instead of refusing all",
    )
    evaluate.add_argument(
        "--release",
        action="store_true",
        help="end the audit: its labels are trained with from now on",
    )
    _add_output(evaluate, "label file to fill in; without --draw: what has no label")
    suspects = commands.add_parser(
        "suspects",
        help="list labels that are worth a second look",
        description="List labels that a model trained without them doubts, most "
        "doubtful first.",
    )
    suspects.add_argument(
        "-n",
        dest="n_labels",
        type=positive,
        default=20,
        help="how many (default: %(default)s)",
    )
    suspects.add_argument(
        "--refit",
        action="store_true",
        help="judge by the network itself, trained five times: better and slow",
    )
    _add_output(suspects, "label file to correct, for 'skadma teach'")
    for parser, run in ((evaluate, _evaluate), (suspects, _suspects)):
        add_common(parser)
        add_pool(parser)
        parser.set_defaults(run=run)


def _add_output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-o", "--out", type=Path, help=what)
    parser.add_argument(
        "--overwrite", action="store_true", help="write over a file that is there"
    )


def _evaluate(options: argparse.Namespace) -> None:
    if options.draw and (options.labels or options.release):
        raise ValueError("--draw goes with neither a label file nor --release.")
    if options.release and (options.labels or options.out):
        raise ValueError("--release goes alone; give the label file before.")
    if options.draw and not options.out:
        raise ValueError("--draw needs -o FILE, where the drawn images are listed.")
    if options.images and (options.release or (options.out and not options.draw)):
        raise ValueError("--images goes with --draw N -o FILE, or with the label file.")
    _check_output(options)
    with open_campaign(options) as campaign:
        if options.images:
            _evaluate_folder(campaign, options)
        elif options.release:
            released = campaign.audits.release(train=False)
            print(f"{released.n_new} labels of the audit are trained with from now on.")
        elif options.draw:
            drawn = campaign.audits.draw(options.draw, method=options.method)
            _write(options.out, drawn)
            _say_next(options, len(drawn))
        else:
            _take(campaign, options)


def _take(campaign: Campaign, options: argparse.Namespace) -> None:
    if options.labels:
        taken = campaign.audits.answer(options.labels, partial=options.partial)
        print(
            f"Safe: {taken.n_new} new, {taken.n_changed} changed, {taken.n_same} as "
            "before.",
            flush=True,
        )
        for refused in taken.refused:
            print(f"left out: {refused}", flush=True)
    pending = campaign.audits.pending()
    if options.out:
        _write(options.out, pending)
        _say_next(options, len(pending))
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
        _say_next(options, options.draw)
    elif options.labels:
        print(
            campaign.audits.estimate_on_folder(
                options.images, options.labels, confidence=options.confidence
            )
        )
    else:
        raise ValueError("--images needs --draw N -o FILE first, then the label file.")


def _say_next(options: argparse.Namespace, n: int) -> None:
    images = f" --images {options.images}" if options.images else ""
    print(
        f"{n} images to label: fill in the column 'label' of {options.out}, then: "
        f"skadma evaluate{images} {options.out}"
    )


def _write(path: Path, drawn: Iterable[Any]) -> None:
    from .._utils.tables import write_table

    write_table(
        path, ("path", "label", "sha256"), ((p.path, "", p.sha256) for p in drawn)
    )


def _check_output(options: argparse.Namespace) -> None:
    from .._utils.atomic import new_file

    if options.out:
        new_file(options.out, overwrite=options.overwrite)  # before minutes of work


def _suspects(options: argparse.Namespace) -> None:
    from .._utils.tables import write_table

    _check_output(options)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        doubts = campaign.second_look(options.n_labels, refit=options.refit)
    if options.out:
        write_table(
            options.out,
            ("path", "label", "suggested", "score", "likely", "others", "sha256"),
            (
                (
                    d.path,
                    d.label,
                    d.suggested or "",
                    "" if d.score is None else f"{d.score:.3f}",
                    "yes" if d.likely else "",
                    _others(d),
                    d.sha256,
                )
                for d in doubts
            ),
        )
        print(
            f"{len(doubts)} labels, most doubtful first: correct the column 'label' of "
            f"{options.out}, then: skadma teach {options.out}"
        )
        return
    for doubt in doubts:
        score = "     " if doubt.score is None else f"{doubt.score:.3f}"
        sure = "likely wrong" if doubt.likely else ""
        sure = _others(doubt) or sure
        suggested = doubt.suggested or "?"
        print(f"{score}  {doubt.label} -> {suggested}  {doubt.path}  {sure}".rstrip())
    if not doubts:
        print("No label is in doubt, or none can be judged yet.")


def _others(doubt: SuspectLabel) -> str:
    """What other people said in blind repeats."""
    return ", ".join(f"{who}: {mark}" for who, mark in doubt.others)
