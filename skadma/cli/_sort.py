"""``skadma sort``: photographs into a folder for each class."""

from __future__ import annotations

import sys
from pathlib import Path

from .._utils.processes import progress_bar
from ._options import Commands, Options, add_command, open_campaign


def add_parser(commands: Commands) -> None:
    """Add the command."""
    what = "sort photographs into a folder for each class"
    sort = add_command(
        commands,
        "sort",
        lambda campaign, options: None,
        what,
        f"{what.capitalize()}: by your labels, the others by the model. It shows what "
        "it would do, and asks. Nothing is overwritten; stopped, the same command goes "
        "on.",
    )
    sort.set_defaults(run=_sort, how="copy")
    add = sort.add_argument
    what = "folders of images (default: the campaign's)"
    add("photos", type=Path, nargs="*", metavar="PHOTOS", help=what)
    where = sort.add_mutually_exclusive_group(required=True).add_argument
    what = "a new folder, for the classes' folders"
    where("--into", type=Path, metavar="FOLDER", help=what)
    what = "take a move back by the file that it wrote"
    where("--undo", type=Path, metavar="FILE", help=what)
    how = sort.add_mutually_exclusive_group().add_argument
    for name in ("copy", "link", "move"):
        what = f"{name} the files" + " (default)" * (name == "copy")
        how(f"--{name}", dest="how", action="store_const", const=name, help=what)
    what = "pictures of which the model is less sure go into 'unsure' (default: 0.8)"
    add("--unsure", type=float, default=0.8, metavar="SHARE", help=what)
    add("--yes", action="store_true", help="do it without asking")


def _sort(options: Options) -> None:
    from ..labelling.sort import UNDO, plan_sort, run_sort, undo_sort, unfinished

    if options.undo:
        n, problems = undo_sort(options.undo)
        print(f"{n} files are back.", *problems, sep="\n")
        return
    with open_campaign(options) as campaign:
        roots = options.photos or [*campaign.pools.values()]
        if plan := unfinished(options.into.absolute(), roots):
            print(f"A sort was interrupted. Going on with it: {plan.how}")
        else:
            how, unsure = options.how, options.unsure
            plan = plan_sort(campaign, options.into, roots, how=how, unsure=unsure)
    print(plan)
    n = len(plan.files)
    if not options.yes and sys.stdin.isatty():
        print(f"{plan.how} {n} files into {plan.into}? [y/N] ", end="", flush=True)
        options.yes = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not options.yes:
        print("Nothing was done. --yes does it without asking.")
        return
    with progress_bar(total=n, unit=" files") as bar:
        problems = run_sort(plan, bar.update)
    left_out = [f"left out: {problem}" for problem in problems]
    print(f"{n - len(problems)} files are in {plan.into}.", *left_out, sep="\n")
    if plan.how == "move":
        print(f"To take it back: skadma sort --undo {plan.into / UNDO}")
        print(f"With --pool {plan.into} the other commands find the photographs.")
