"""``skadma status``, ``export`` and ``report``: they tell of a campaign."""

from __future__ import annotations

import argparse
import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from ._campaign import add_common, add_output, add_pool, open_campaign
from ._types import positive


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommands."""
    for name, run, what in (
        ("status", _status, "count labels, and what is left"),
        ("export", _export, "write all decisions to a CSV file"),
        ("report", _report, "write a page about the campaign, one HTML file"),
    ):
        parser = commands.add_parser(
            name, help=what, description=what.capitalize() + "."
        )
        add_common(parser)
        add_pool(parser)
        parser.set_defaults(run=run)
        if name != "status":
            add_output(
                parser,
                "CSV file, or folder for Label Studio"
                if name == "export"
                else "HTML file",
            )
        if name == "export":
            parser.add_argument(
                "--log",
                action="store_true",
                help="write every event instead, a line of JSON each",
            )
            parser.add_argument(
                "--to",
                choices=("csv", "label-studio"),
                default="csv",
                help="label-studio: choose the images to label next, and write tasks "
                "for it and its labelling configuration (default: %(default)s)",
            )
            parser.add_argument(
                "-n",
                dest="n_instances",
                type=positive,
                help="how many tasks (default: as started)",
            )
            parser.add_argument(
                "--prefix",
                action="append",
                default=[],
                metavar="[NAME=]PREFIX",
                help="where the pool is below Label Studio's root of local files "
                "(default: the name of the pool's folder); NAME: of a pool that was "
                "added. More than once for several",
            )


def _status(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        print(campaign.status())


def _export(options: argparse.Namespace) -> None:
    from .._utils.atomic import new_file, write_atomically
    from .._utils.tables import write_table

    if options.to == "label-studio":
        _export_tasks(options)
        return
    new_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        events = campaign.log()
        decisions = sorted(campaign.decisions(), key=lambda row: row[0])
    if options.log:
        lines = "".join(json.dumps(event) + "\n" for event in events)
        write_atomically(options.out, lambda part: _write(part, lines))
        print(f"{len(events)} events in {options.out}")
        return
    by_number: dict[int, dict[str, Any]] = {event["id"]: event for event in events}
    write_table(
        options.out,
        ("path", "label", "who", "when", "file", "sha256"),
        (
            (
                path,
                decision.mark,
                by_number[decision.event]["who"],
                by_number[decision.event]["at"],
                state,
                decision.sha256,
            )
            for path, decision, state in decisions
        ),
    )
    print(f"{len(decisions)} decisions in {options.out}")


def _export_tasks(options: argparse.Namespace) -> None:
    from .._utils.atomic import new_file, write_atomically
    from ..labelling.label_studio import label_config, make_tasks

    files = [options.out / name for name in ("label_config.xml", "tasks.json")]
    for file in files:
        new_file(file, overwrite=options.overwrite)  # before minutes of work
    with open_campaign(options) as campaign:
        config = label_config(campaign.classes)
        proposals = campaign.query(options.n_instances)
        prefixes = {name: pool.name for name, pool in campaign.pools.items()}
        prefixes |= _prefixes(options.prefix, campaign.pools)
        n_labels = sum(campaign.status().labels.values())
    version = f"skadma-{n_labels}-labels"
    tasks = make_tasks(proposals, prefixes.pop(""), version, pools=prefixes)
    options.out.mkdir(parents=True, exist_ok=True)
    for file, text in zip(files, (config, json.dumps(tasks, indent=1)), strict=True):
        write_atomically(file, lambda part, text=text: _write(part, text))  # type: ignore[misc]
    print(
        f"{len(tasks)} tasks in {files[1]}, the labelling configuration in {files[0]}. "
        "What Label Studio exports as JSON goes back with: skadma teach EXPORT.json"
    )


def _prefixes(items: Sequence[str], pools: Container[str]) -> dict[str, str]:
    """Where pools are below Label Studio's root, by name; the first's is empty."""
    prefixes = {}
    for item in items:
        name, _, prefix = item.partition("=")
        if name in pools and name:
            prefixes[name] = prefix
        else:
            prefixes[""] = item
    return prefixes


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _report(options: argparse.Namespace) -> None:
    from .._utils.atomic import new_file, write_atomically
    from ..labelling.campaign.report import make_report

    new_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        page = make_report(campaign)
    write_atomically(options.out, lambda part: _write(part, page))
    print(f"Open {options.out} in a browser.")
