"""Arguments that several commands have in common, and what they mean."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .._utils.atomic import new_file, remove_abandoned
from .._utils.tables import write_table

if TYPE_CHECKING:
    from ..labelling.campaign import Campaign

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Options = argparse.Namespace

# --- types of arguments -----------------------------------------------------------


def positive(text: str) -> int:
    """Take an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


# --- the campaign -------------------------------------------------------------------


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[Campaign, Options], None],
    what: str,
    description: str = "",
    *,
    refresh: bool = False,
    pool: bool = True,
) -> argparse.ArgumentParser:
    """Add a command about a campaign.

    With `refresh` it looks at the images first; `pool` is the option for images that
    moved. The default `prepare` checks the options before any work.
    """
    description = description or f"{what[:1].upper()}{what[1:]}."
    parser = commands.add_parser(name, help=what, description=description)
    parser.set_defaults(run=partial(_run, run), prepare=_prepare, refresh=refresh)
    add = parser.add_argument
    add(
        "--campaign",
        type=Path,
        default=Path("skadma-campaign"),
        metavar="FOLDER",
        help="the campaign's folder (default: %(default)s)",
    )
    add("--who", help="your name in the log (default: the user's)")
    wait = "how long to wait for another process (default: %(default)s)"
    add("--wait", type=float, default=60, metavar="SECONDS", help=wait)
    add("-v", "--verbose", action="store_true", help="log what happens in each phase")
    if pool:
        what = "where images are, if they moved; NAME: those of a pool that was added"
        named = "[NAME=]FOLDER"
        add("--pool", action="append", default=[], metavar=named, help=what)
    return parser


def _run(run: Callable[[Campaign, Options], None], options: Options) -> None:
    options.prepare(options)
    with open_campaign(options) as campaign:
        if options.refresh:
            campaign.refresh_if_there()
        options.as_of = campaign.last_event  # as of which files name the classes
        run(campaign, options)


def _prepare(options: Options) -> None:
    if getattr(options, "out", None):
        prepare_file(options.out, overwrite=options.overwrite)


def campaign_options(options: Options) -> dict[str, Any]:
    """What `Campaign.open` takes beside the folder."""
    opened = {"pool": None, "pools": {}, "who": options.who, "wait": options.wait}
    for item in options.pool:
        name, equals, folder = item.partition("=")
        if equals and not Path(item).is_dir():
            opened["pools"][name] = Path(folder)
        else:
            opened["pool"] = Path(item)
    return opened


def open_campaign(options: Options) -> Campaign:
    """Open the campaign that the options name."""
    from ..labelling.campaign import Campaign  # takes seconds, --help should not

    return Campaign.open(options.campaign, **campaign_options(options))


def add_partial(parser: argparse.ArgumentParser) -> None:
    """Add the option for label files with rows that cannot be taken."""
    what = "leave out rows that cannot be taken, instead of refusing all"
    parser.add_argument("--partial", action="store_true", help=what)


def add_features_name(add: Callable[..., Any]) -> None:
    """Add the option that names the embedding of a table."""
    add(
        "--features-name", metavar="NAME", help="of the embedding (default: the file's)"
    )


# --- output --------------------------------------------------------------------------


def add_output(
    parser: argparse.ArgumentParser, what: str, *, required: bool = True
) -> None:
    """Add the options for a file to write."""
    parser.add_argument("-o", "--out", type=Path, required=required, help=what)
    parser.add_argument(
        "--overwrite", action="store_true", help="write over a file that is there"
    )


def prepare_file(path: Path, *, overwrite: bool) -> None:
    """Check that a file can be written, and make its folder, before any work."""
    new_file(path, overwrite=overwrite)
    remove_abandoned(path)
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: give a file's name.")
    folder = path.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"Nothing can be written to {str(folder)!r}: {error}") from error


def write_label_file(
    options: Options,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    what: str,
    then: str,
) -> None:
    """Write a label file, and print what to do with it.

    The event as of which classes are named is in the file: an answer stays with its
    class when names change.
    """
    rows = [(*row, options.as_of) for row in rows]
    write_table(options.out, ("path", "label", *columns, "sha256", "as_of"), rows)
    print(
        f"{len(rows)} {what} the column 'label' of {options.out}, then: skadma {then} "
        f"{options.out}"
    )
