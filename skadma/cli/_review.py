"""``skadma suspects``, ``cant-tell-list``, ``confirm``, ``repeats``, ``agreement``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .._utils.tables import write_table
from ._options import (
    add_campaign_command,
    add_output,
    open_campaign,
    positive,
    prepare_file,
)

if TYPE_CHECKING:
    from ..labelling.campaign import Doubt


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
        why = _others(doubt) or ("likely wrong" if doubt.likely else "")
        suggested = doubt.suggested or "?"
        print(f"{score}  {doubt.label} -> {suggested}  {doubt.path}  {why}".rstrip())
    if not doubts:
        print("No label is in doubt, or none can be judged yet.")


def _others(doubt: Doubt) -> str:
    """What other people answered in blind repeats."""
    return ", ".join(f"{who}: {mark}" for who, mark in doubt.others)


def _cant_tell_list(options: argparse.Namespace) -> None:
    prepare_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        unclear = campaign.cant_tell(exclude=campaign.who)
    write_table(
        options.out,
        ("path", "label", "who", "when", "sha256"),
        ((image.path, "", image.who, image.at, image.sha256) for image in unclear),
    )
    print(
        f"{len(unclear)} images for a second opinion: fill in the column 'label' of "
        f"{options.out} where you can tell, then: skadma teach {options.out}"
    )


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
    write_table(options.out, ("path", "label", "sha256"), rows)
    print(
        f"{len(due)} images to label again: fill in the column 'label' of "
        f"{options.out}, then: skadma teach --blind {options.out}"
    )


def _agreement(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        print(campaign.agreement())
