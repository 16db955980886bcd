"""``skadma cant-tell-list``, ``confirm``, ``repeats`` and ``agreement``: of labels."""

from __future__ import annotations

import argparse
from typing import Any

from ._campaign import add_common, add_output, add_pool, open_campaign


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommands."""
    unclear = _command(
        commands,
        "cant-tell-list",
        _cant_tell_list,
        "list what others marked as nothing that one can label",
    )
    add_output(unclear, "label file to fill in")
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


def _cant_tell_list(options: argparse.Namespace) -> None:
    from .._utils.atomic import new_file
    from .._utils.tables import write_table

    new_file(options.out, overwrite=options.overwrite)
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
    from .._utils.atomic import new_file
    from .._utils.tables import write_table

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
