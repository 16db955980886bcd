"""``skadma label``: a page to label on."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from .._utils.processes import end_with_parent
from ._campaign import (
    add_start_options,
    class_names,
    is_usual,
    settle_task,
    start_campaign,
)
from ._options import Commands, Options, add_command, campaign_options, open_campaign

if TYPE_CHECKING:
    from ..labelling.campaign import Campaign


def add_parser(commands: Commands) -> None:
    """Add the command."""
    what = "label in the browser, while the network learns"
    more = f"{what.capitalize()}. Serves a page to this machine only; the first line "
    more += "printed is its address. With a folder of images and --classes it starts "
    more += "the campaign where there is none yet."
    parser = add_command(commands, "label", _check_campaign, what, more)
    parser.set_defaults(run=_label)
    add = parser.add_argument
    what = "folder of images, with subfolders, to start a campaign about"
    add("photos", type=Path, nargs="?", help=what)
    add("--classes", nargs="+", help="all labels")
    what = "0: any that is free (default: the campaign's own, if it is free)"
    add("--port", type=int, help=what)
    add("--no-browser", action="store_true", help="only print the address")
    what = "be an ML backend of Label Studio as well; the address is printed"
    add("--label-studio", action="store_true", help=what)
    add_start_options(
        parser.add_argument_group("where the campaign is started; see 'skadma start'")
    )


def _label(options: Options) -> None:
    from ..labelling.page.server import serve

    with _open_or_start(options) as campaign:
        _check_campaign(campaign, options)
    serve(
        options.campaign,
        campaign_options(options),
        port=options.port,
        browser=not options.no_browser,
        label_studio=options.label_studio,
    )


def _open_or_start(options: Options) -> Campaign:
    from ..labelling.campaign.event_log import DATABASE

    if (options.campaign / DATABASE).exists():
        return open_campaign(options)
    if options.photos is None:
        raise ValueError(
            f"There is no campaign in {str(options.campaign)!r}. Start one with "
            "'skadma label PHOTOS --classes crack ok', or say where it is with "
            "--campaign FOLDER."
        )
    options.pool = [str(options.photos)]
    if is_usual(options):
        return start_campaign(options, options.photos, at_once=True)
    settle_task(options, options.photos)
    # In a process of its own: torch checks the settings, and would stay in the memory.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as executor:
        for message in executor.submit(_start_apart, options).result():
            warnings.warn(message, stacklevel=2)
    return open_campaign(options)


def _start_apart(options: Options) -> list[str]:
    """Start the campaign; return the warnings."""
    end_with_parent()
    with warnings.catch_warnings(record=True) as caught:
        start_campaign(options, options.photos, at_once=True).close()
    return [str(warning.message) for warning in caught]


def _check_campaign(campaign: Campaign, options: Options) -> None:
    """Refuse options that contradict the campaign."""
    photos, where = options.photos, f"The campaign in {str(options.campaign)!r}"
    # realpath takes a link to itself, too.
    pool = os.path.realpath(campaign.pool)
    if photos is not None and os.path.realpath(photos) != pool:
        raise ValueError(
            f"{where} is about {str(campaign.pool)!r}, not {str(photos)!r}. For "
            "another one give --campaign FOLDER; if its images moved, give --pool."
        )
    if options.classes and class_names(options.classes) != campaign.classes:
        raise ValueError(
            f"{where} has the classes {', '.join(campaign.classes)}. Leave --classes "
            "out, or start another one with --campaign FOLDER."
        )
    if options.label_studio and campaign.several_labels:
        raise ValueError(
            f"{where} has several labels per picture: leave --label-studio out."
        )
    if options.several_labels and not campaign.several_labels:
        raise ValueError(
            f"{where} has one label per picture, which stays so. Leave "
            "--several-labels out, or start another one with --campaign FOLDER."
        )
    if options.features is not None:  # the same again, or with rows of new images
        from ..features.table import read_table

        campaign.add_features(read_table(options.features, options.features_name))
