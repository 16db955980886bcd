"""``skadma query``, ``teach``, corrections and ``undo``: a round of labelling."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import (
    add_campaign_command,
    add_output,
    add_partial,
    open_campaign,
    positive,
    prepare_file,
    write_label_file,
)

if TYPE_CHECKING:
    from ..labelling.campaign import Campaign, TeachResult


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    query = add_campaign_command(
        commands, "query", _query, "choose the images to label next"
    )
    query.add_argument(
        "-n", dest="n_instances", type=positive, help="how many (default: as started)"
    )
    add_output(query, "label file to fill in")
    teach = add_campaign_command(
        commands, "teach", _teach, "take a label file, and train"
    )
    teach.add_argument(
        "labels",
        type=Path,
        help="CSV with the columns path and label, or Label Studio's JSON",
    )
    add_partial(teach)
    teach.add_argument(
        "--blind",
        action="store_true",
        help="they are answers to 'skadma repeats': they change no label",
    )
    relabel = add_campaign_command(commands, "relabel", _relabel, "correct a label")
    relabel.add_argument("image")
    relabel.add_argument("label")
    for command in (teach, relabel):
        command.add_argument(
            "--later", action="store_true", help="leave training to the next query"
        )
    for name, what in (
        ("skip", "leave images aside until no others are left"),
        ("cant-tell", "say that images cannot be labelled by looking at them"),
        ("not-an-image", "say that files are none of the task's images"),
    ):
        mark = add_campaign_command(commands, name, _mark, what)
        mark.add_argument("images", nargs="+")
    add_campaign_command(commands, "undo", _undo, "take the last decisions back")


def _query(options: argparse.Namespace) -> None:
    prepare_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        proposals = campaign.query(options.n_instances)
    rows = (
        (p.path, "", p.guess or "", _short(p.confidence), _short(p.score), p.sha256)
        for p in proposals
    )
    columns = ("guess", "confidence", "score")
    write_label_file(options.out, columns, rows, "images to label: fill in", "teach")


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.6g}"


def _teach(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        if options.blind:
            taught = campaign.record_repeats(options.labels, partial=options.partial)
            print(f"Safe: {taught.n_repeats} blind answers.", flush=True)
            print_refused(taught)
        else:
            taught = campaign.teach(
                options.labels, partial=options.partial, train=False
            )
            _finish(campaign, taught, options.later)


def _relabel(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        taught = campaign.relabel(options.image, options.label, train=False)
        _finish(campaign, taught, options.later)


def _mark(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        marks = dict.fromkeys(options.images, f"?{options.command}")
        _finish(campaign, campaign.teach(marks, train=False), True)


def _finish(campaign: Campaign, taught: TeachResult, later: bool) -> None:
    print_taught(taught)
    if not later:
        campaign.estimator()


def print_taught(taught: TeachResult) -> None:
    """Say that labels are on the disk, before training may take minutes."""
    print(
        f"Safe: {taught.n_new} new, {taught.n_changed} changed, {taught.n_same} as "
        "before.",
        flush=True,
    )
    print_refused(taught)


def print_refused(taught: TeachResult) -> None:
    """Say which rows were left out, and why."""
    for refused in taught.refused:
        print(f"left out: {refused}", flush=True)


def _undo(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        before = campaign.classes, campaign.pools
        images = campaign.undo()
        after = campaign.classes, campaign.pools
    if after != before:
        print(f"Taken back. The classes are {', '.join(after[0])}. The pools are:")
        print("\n".join(f"  {folder}" for folder in after[1].values()))
        return
    print(f"Taken back: the decisions about {len(images)} images.")
    for image in images[:20]:
        print(f"  {image}")
