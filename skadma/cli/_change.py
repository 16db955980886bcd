"""``skadma classes`` and ``skadma pool``: change a campaign's classes and folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._options import add_campaign_command, open_campaign


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the commands."""
    what = "list the classes, add, rename or merge some"
    classes = commands.add_parser("classes", help=what, description=f"{what}.")
    actions = classes.add_subparsers(dest="action", required=True)
    add_campaign_command(actions, "list", _list, "list the classes with their labels")
    add = add_campaign_command(actions, "add", _add, "add classes")
    add.add_argument("names", nargs="+", metavar="CLASS")
    rename = add_campaign_command(
        actions, "rename", _rename, "give a class and its labels another name"
    )
    rename.add_argument("old")
    rename.add_argument("new")
    merge = add_campaign_command(
        actions, "merge", _merge, "make one class of several, labels included"
    )
    merge.add_argument("names", nargs="+", metavar="CLASS")
    merge.add_argument(
        "--into", required=True, metavar="CLASS", help="one of them or a new name"
    )
    what = "add a folder of images"
    pool = commands.add_parser("pool", help=what, description=f"{what}.")
    actions = pool.add_subparsers(dest="action", required=True)
    more = add_campaign_command(actions, "add", _add_pool, what)
    more.add_argument("folder", type=Path)
    more.add_argument(
        "--name", help="paths of its images begin with it (default: the folder's)"
    )


def _list(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        labels = campaign.status().labels
        former = campaign.former_classes()
    for name, n in labels.items():
        was = [old for old, now in former.items() if now == name]
        print(f"{n:>6}  {name}" + (f" (was {', '.join(was)})" if was else ""))


def _add(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        campaign.add_classes(options.names)
        _print_classes(campaign.classes)


def _rename(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        campaign.rename_class(options.old, options.new)
        _print_classes(campaign.classes)


def _merge(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        campaign.merge_classes(options.names, options.into)
        _print_classes(campaign.classes)


def _print_classes(classes: list[str]) -> None:
    print(
        f"The classes are {', '.join(classes)}. The next query trains with them; "
        "'skadma undo' takes it back."
    )


def _add_pool(options: argparse.Namespace) -> None:
    with open_campaign(options) as campaign:
        name = campaign.add_pool(options.folder, options.name, verbose=True)
        print(f"Paths of its images begin with {name}/")
        print(campaign.status())
