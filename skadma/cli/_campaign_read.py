"""``skadma status``, ``export`` and ``report``: they tell of a campaign."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ._campaign import add_common, add_output, add_pool, open_campaign


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
            add_output(parser, "CSV file" if name == "export" else "HTML file")
        if name == "export":
            parser.add_argument(
                "--log",
                action="store_true",
                help="write every event instead, a line of JSON each",
            )


def _status(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        print(campaign.status())


def _export(options: argparse.Namespace) -> None:
    from ..files import new_file, write_atomically
    from ..tables import write_table

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


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _report(options: argparse.Namespace) -> None:
    from ..campaign.report import make_report
    from ..files import new_file, write_atomically

    new_file(options.out, overwrite=options.overwrite)
    with open_campaign(options) as campaign:
        campaign.refresh_if_there()
        page = make_report(campaign)
    write_atomically(options.out, lambda part: _write(part, page))
    print(f"Open {options.out} in a browser.")
