"""The ``skadma`` command: one file per subcommand."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .. import __version__
from . import _bench, _centers, _demo


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
    for command in (_demo, _centers, _bench):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ImportError, ValueError, OSError) as error:
        parser.exit(1, f"skadma {options.command}: {error}\n")
    return 0
