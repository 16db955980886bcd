"""``skadma suspects``, ``cant-tell-list``, ``confirm``, ``repeats``, ``agreement``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ._options import (
    add_campaign_command,
    add_output,
    open_campaign,
    positive,
    prepare_file,
    write_label_file,
)

if TYPE_CHECKING:
    from ..labelling.campaign import SuspectLabel


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    suspects = add_campaign_command(
        commands,
        "suspects",
        _suspects,
        "list labels that are worth a second look",
        "List labels that a model trained without them doubts, most doubtful first.",
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
    add_output(suspects, "label file to correct, for 'skadma teach'", required=False)
    unclear = add_campaign_command(
        commands,
        "cant-tell-list",
        _cant_tell_list,
        "list what others marked as nothing that one can label",
    )
    add_output(unclear, "label file to fill in")
    confirm = add_campaign_command(
        commands, "confirm", _confirm, "let labels stand after a second look"
    )
    confirm.add_argument("images", nargs="+")
    repeats = add_campaign_command(
        commands, "repeats", _repeats, "choose labelled images to show again, blind"
    )
    repeats.add_argument(
        "--share",
        type=float,
        default=0.05,
        help="of your answers; 1: all images (default: %(default)s)",
    )
    add_output(repeats, "label file to fill in")
    add_campaign_command(commands, "agreement", _agreement, "tell how far people agree")


def _suspects(options: argparse.Namespace) -> None:
    if options.out:
        prepare_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        suspects = campaign.second_look(options.n_labels, refit=options.refit)
    if options.out:
        rows = (
            (
                s.path,
                s.label,
                s.suggested or "",
                "" if s.score is None else f"{s.score:.3f}",
                "yes" if s.likely else "",
                _others(s),
                s.sha256,
            )
            for s in suspects
        )
        columns = ("suggested", "score", "likely", "others")
        what = "labels, most doubtful first: correct"
        write_label_file(options.out, columns, rows, what, "teach")
        return
    for s in suspects:
        score = "     " if s.score is None else f"{s.score:.3f}"
        why = _others(s) or ("likely wrong" if s.likely else "")
        print(f"{score}  {s.label} -> {s.suggested or '?'}  {s.path}  {why}".rstrip())
    if not suspects:
        print("No label is in doubt, or none can be judged yet.")


def _others(suspect: SuspectLabel) -> str:
    """What other people answered in blind repeats."""
    return ", ".join(f"{who}: {mark}" for who, mark in suspect.others)


def _cant_tell_list(options: argparse.Namespace) -> None:
    prepare_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        unclear = campaign.cant_tell(exclude=campaign.who)
    rows = ((image.path, "", image.who, image.at, image.sha256) for image in unclear)
    what = "images for a second opinion: where you can tell, fill in"
    write_label_file(options.out, ("who", "when"), rows, what, "teach")


def _confirm(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        for image in options.images:
            campaign.confirm(image)
    print(f"{len(options.images)} labels stand.")


def _repeats(options: argparse.Namespace) -> None:
    prepare_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        due = campaign.repeats_due(options.share)
    rows = ((image.path, "", image.sha256) for image in due)
    what = "images to label again: fill in"
    write_label_file(options.out, (), rows, what, "teach --blind")


def _agreement(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        print(campaign.agreement())
