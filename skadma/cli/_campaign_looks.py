"""``skadma second-look``, ``confirm``, ``repeats`` and ``agreement``: of the labels."""

from __future__ import annotations

import argparse
from typing import Any

from ._campaign import add_common, add_output, add_pool, open_campaign


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommands."""
    look = _command(
        commands, "second-look", _second_look, "list labels that are in doubt"
    )
    look.add_argument("-n", type=int, help="how many (default: all)")
    look.add_argument(
        "--cant-tell",
        action="store_true",
        help="instead, what others marked as nothing that one can label",
    )
    add_output(look, "label file to fill in where a label is wrong")
    confirm = _command(
        commands, "confirm", _confirm, "let labels stand after a second look"
    )
    confirm.add_argument("images", nargs="+")
    repeats = _command(
        commands, "repeats", _repeats, "choose labelled images to show again, blind"
    )
    repeats.add_argument(
        "--share",
        type=float,
        default=0.05,
        help="of your answers; 1: all images (default: %(default)s)",
    )
    add_output(repeats, "label file to fill in")
    _command(commands, "agreement", _agreement, "tell how far people agree")


def _command(
    commands: argparse._SubParsersAction, name: str, run: Any, what: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what.capitalize() + ".")
    add_common(parser)
    add_pool(parser)
    parser.set_defaults(run=run)
    return parser


def _second_look(options: argparse.Namespace) -> None:
    from ..campaign.labels_csv import write_table
    from ..files import new_file

    new_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        if options.cant_tell:
            unclear = campaign.cant_tell(exclude=campaign.who)[: options.n]
            header: tuple[str, ...] = ("path", "label", "who", "when", "sha256")
            rows: list[tuple[str, ...]] = [
                (u.path, "", u.who, u.at, u.sha256) for u in unclear
            ]
        else:
            header = (
                "path", "label", "given", "who", "suggested", "doubt", "likely",
                "others", "sha256",
            )  # fmt: skip
            rows = [
                (
                    d.path,
                    "",
                    d.label,
                    d.who,
                    d.suggested or "",
                    "" if d.score is None else f"{d.score:.3f}",
                    "yes" if d.likely else "",
                    ", ".join(f"{who}: {mark}" for who, mark in d.others),
                    d.sha256,
                )
                for d in campaign.second_look(options.n)
            ]
    write_table(options.out, header, rows)
    print(
        f"{len(rows)} images to look at: fill in the column 'label' of {options.out} "
        f"where it should be another, then: skadma teach {options.out}"
    )


def _confirm(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        for image in options.images:
            campaign.confirm(image)
    print(f"{len(options.images)} labels stand.")


def _repeats(options: argparse.Namespace) -> None:
    from ..campaign.labels_csv import write_table
    from ..files import new_file

    new_file(options.out, overwrite=options.overwrite)
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
