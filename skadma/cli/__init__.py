"""The ``skadma`` command: one file per subcommand."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from . import _campaign, _campaign_read, _demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of those of the shell.

    Returns
    -------
    int
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="skadma", description="Active adaptation of pretrained CNNs."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (_demo, _campaign, _campaign_read):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    if getattr(options, "verbose", False):
        logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
        logging.getLogger("skadma").setLevel(logging.INFO)

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"skadma {options.command}: warning: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            options.run(options)
    except (ImportError, ValueError, OSError) as error:
        parser.exit(1, f"skadma {options.command}: {error}\n")
    return 0
