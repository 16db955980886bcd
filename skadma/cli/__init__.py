"""The ``skadma`` command: each file adds the commands of one subject."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

# Before torch is loaded, whose threads wait spinning otherwise and lose their time to
# any other process that computes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .. import __version__  # noqa: E402
from .._utils.processes import isolated_children  # noqa: E402
from . import _bench, _campaign, _centers, _label, _predict  # noqa: E402
from ._terminal import Parser, PrintableStream, describe_unforeseen  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the shell's; return the exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    shown: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in shown:  # each step of a command may warn of the same
            shown.add(str(message))
            stream: Any = PrintableStream(sys.stderr)
            print(f"skadma {options.command}: warning: {message}", file=stream)

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal cannot show must not look like a failure.
        sys.stdout.reconfigure(errors="backslashreplace")
    stdout: Any = PrintableStream(sys.stdout)
    try:
        with warnings.catch_warnings(), isolated_children(), redirect_stdout(stdout):
            warnings.showwarning = show
            with _logging(getattr(options, "verbose", False)):
                options.run(options)
    except (ImportError, ValueError, OSError) as error:
        no_file = isinstance(error, FileNotFoundError) and error.filename
        said = f"There is no {str(no_file)!r}." if no_file else error
        parser.exit(1, f"skadma {options.command}: {said}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"skadma {options.command}: interrupted, all saved is safe\n")
    except Exception as error:
        what = describe_unforeseen(error)
        parser.exit(1, f"skadma {options.command}: {what}\n")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands; what is slow is imported when they run."""
    what = "Label a folder of photographs while a network learns, and sort the rest."
    parser = Parser("skadma", "skadma COMMAND ...", what)
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        prog="skadma", dest="command", required=True, help=argparse.SUPPRESS
    )
    for command in (_bench, _centers, _campaign, _label, _predict):
        command.add_parser(commands)
    helps = {action.dest: action.help for action in commands._choices_actions}
    parser.epilog = "\n".join(
        "\n".join([f"{group}:", *(f"  {n:<14}{helps[n]}" for n in names.split()), ""])
        for group, names in GROUPS.items()
    )
    return parser


GROUPS = {
    "Label": "label start status undo classes pool features",
    "Check": "evaluate suspects confirm repeats agreement consensus report check",
    "Use": "predict sort export export-model finish",
    "Expert": "query teach relabel skip cant-tell not-an-image bench demo centers",
}
"""The commands by what they are for."""


@contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Show what skadma logs, for a while."""
    logger = logging.getLogger("skadma")
    handler = logging.StreamHandler(PrintableStream(sys.stderr))
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    before = logger.level
    if verbose:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
