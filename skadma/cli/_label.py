"""``skadma label``: a page to label on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ._campaign import add_start_options, start_campaign
from ._options import add_command, campaign_options, open_campaign, port, share

if TYPE_CHECKING:
    from ..labelling.campaign import Campaign


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    what = "label in the browser, while the network learns"
    parser = add_command(
        commands,
        "label",
        _check_campaign,
        what,
        f"{what.capitalize()}. Serves a page to this machine only; the first line "
        "printed is its address. With a folder of images and --classes it starts the "
        "campaign where there is none yet.",
    )
    parser.set_defaults(run=_label)
    add = parser.add_argument
    what = "folder of images, with subfolders, to start a campaign about"
    add("photos", type=Path, nargs="?", help=what)
    add("--classes", nargs="+", help="all labels")
    add(
        "--port",
        type=port,
        help="0: any that is free (default: one that is free, the same for a campaign "
        "every time)",
    )
    add("--no-browser", action="store_true", help="only print the address")
    what = "keys of classes (default: 1 to 9); they can be changed on the page"
    add("--keys", nargs="+", default=[], metavar="CLASS=KEY", help=what)
    add(
        "--repeat",
        type=share,
        default=0,
        metavar="SHARE",
        help="show so many of the pictures again, blind, to tell how far people agree; "
        "such as 0.05 (default: %(default)s)",
    )
    what = "be an ML backend of Label Studio as well; the address is printed"
    add("--label-studio", action="store_true", help=what)
    add_start_options(
        parser.add_argument_group("where the campaign is started; see 'skadma start'")
    )


def _label(options: argparse.Namespace) -> None:
    from ..labelling.page.server import serve

    options.keys = _keys(options.keys)
    with _open_or_start(options) as campaign:
        _check_campaign(campaign, options)
    serve(
        options.campaign,
        campaign_options(options),
        port=options.port,
        browser=not options.no_browser,
        keys=options.keys,
        repeat=options.repeat,
        label_studio=options.label_studio,
    )


def _keys(items: list[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for item in items:
        name, _, key = item.rpartition("=")
        if not name or len(key) != 1 or key.isspace():
            raise ValueError(
                f"--keys {item}: it is CLASS=KEY with a single character, such as "
                "crack=c."
            )
        if key.lower() in keys.values() or name in keys:
            raise ValueError(f"--keys {item}: the class or the key is there twice.")
        keys[name] = key.lower()
    return keys


def _open_or_start(options: argparse.Namespace) -> Campaign:
    from ..labelling.campaign.event_log import DATABASE

    if (options.campaign / DATABASE).exists():
        return open_campaign(options)
    if options.photos is None or not options.classes:
        raise ValueError(
            f"There is no campaign in {str(options.campaign)!r}. Start one with "
            "'skadma label PHOTOS --classes crack ok', or say where it is with "
            "--campaign FOLDER."
        )
    options.pool = [str(options.photos)]
    return start_campaign(options, options.photos)


def _check_campaign(campaign: Campaign, options: argparse.Namespace) -> None:
    """Refuse options that contradict the campaign."""
    photos, classes = options.photos, ", ".join(campaign.classes)
    # realpath takes a link to itself, too.
    pool = os.path.realpath(campaign.pool)
    if photos is not None and os.path.realpath(photos) != pool:
        raise ValueError(
            f"The campaign in {str(options.campaign)!r} is about "
            f"{str(campaign.pool)!r}, not {str(photos)!r}. For another one give "
            "--campaign FOLDER; if its images moved, give --pool."
        )
    if options.classes and options.classes != campaign.classes:
        raise ValueError(
            f"The campaign in {str(options.campaign)!r} has the classes {classes}. "
            "Leave --classes out, or start another one with --campaign FOLDER."
        )
    unknown = [name for name in options.keys if name not in campaign.classes]
    if unknown:
        raise ValueError(f"--keys: {unknown[0]!r} is none of the classes {classes}.")
