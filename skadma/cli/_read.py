"""``skadma status``, ``export`` and ``report``: what a campaign has so far."""

from __future__ import annotations

import argparse
import json

from .._utils.atomic import write_atomically
from .._utils.tables import write_table
from ._options import (
    add_campaign_command,
    add_output,
    open_campaign,
    positive,
    prepare_file,
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    add_campaign_command(commands, "status", _status, "count labels, and what is left")
    export = add_campaign_command(
        commands, "export", _export, "write all decisions to a CSV file"
    )
    add_output(export, "CSV file, or folder for Label Studio")
    export.add_argument(
        "--log",
        action="store_true",
        help="write every event instead, a line of JSON each",
    )
    export.add_argument(
        "--to",
        choices=("csv", "label-studio"),
        default="csv",
        help="label-studio: choose the images to label next, and write tasks for it "
        "and its labelling configuration (default: %(default)s)",
    )
    export.add_argument(
        "-n",
        dest="n_instances",
        type=positive,
        help="how many tasks (default: as started)",
    )
    export.add_argument(
        "--prefix",
        action="append",
        default=[],
        metavar="[NAME=]PREFIX",
        help="where the pool is below Label Studio's root of local files (default: the "
        "name of the pool's folder); NAME: of a pool that was added. More than once "
        "for several",
    )
    report = add_campaign_command(
        commands, "report", _report, "write a page about the campaign, one HTML file"
    )
    add_output(report, "HTML file")


def _status(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        print(campaign.status())


def _export(options: argparse.Namespace) -> None:
    if options.to == "label-studio":
        _export_tasks(options)
        return
    prepare_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        events = campaign.log()
        decisions = sorted(campaign.decisions(), key=lambda row: row[0])
    if options.log:
        lines = "".join(f"{json.dumps(event)}\n" for event in events)
        write_atomically(options.out, lambda path: path.write_text(lines, "utf-8"))
        print(f"{len(events)} events in {options.out}")
        return
    event = {event["id"]: event for event in events}
    write_table(
        options.out,
        ("path", "label", "who", "when", "file", "sha256"),
        (
            (path, d.mark, event[d.event]["who"], event[d.event]["at"], state, d.sha256)
            for path, d, state in decisions
        ),
    )
    print(f"{len(decisions)} decisions in {options.out}")


def _export_tasks(options: argparse.Namespace) -> None:
    from ..labelling.label_studio import label_config, make_tasks

    config_file = options.out / "label_config.xml"
    tasks_file = options.out / "tasks.json"
    for file in (config_file, tasks_file):
        prepare_file(file, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        config = label_config(campaign.classes)
        proposals = campaign.query(options.n_instances)
        prefixes = {name: pool.name for name, pool in campaign.pools.items()}
        n_labels = sum(campaign.status().labels.values())
    for item in options.prefix:
        name, _, prefix = item.partition("=")
        if name and name in prefixes:
            prefixes[name] = prefix
        else:
            prefixes[""] = item  # the first pool has no name
    version = f"skadma-{n_labels}-labels"
    tasks = make_tasks(proposals, prefixes.pop(""), version, pools=prefixes)
    text = json.dumps(tasks, indent=1)
    write_atomically(config_file, lambda path: path.write_text(config, "utf-8"))
    write_atomically(tasks_file, lambda path: path.write_text(text, "utf-8"))
    print(
        f"{len(tasks)} tasks in {tasks_file}, the labelling configuration in "
        f"{config_file}. What Label Studio exports as JSON goes back with: "
        "skadma teach EXPORT.json"
    )


def _report(options: argparse.Namespace) -> None:
    from ..labelling.campaign.report import make_report

    prepare_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        page = make_report(campaign)
    write_atomically(options.out, lambda path: path.write_text(page, "utf-8"))
    print(f"Open {options.out} in a browser.")
