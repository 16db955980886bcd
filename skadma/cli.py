"""The ``skadma`` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import __version__


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
    demo = commands.add_parser(
        "demo",
        help="ADMA beside random choice on photographs of solar cells",
        description="Adapt efficientnet_lite0 with its ImageNet weights to telling "
        "defective solar cells from sound ones (elpv-dataset), with labels chosen by "
        "ADMA and, side by side, at random. Takes about a minute on 2 cores.",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("skadma-demo"),
        help="folder for curves.png and results.csv (default: %(default)s)",
    )
    demo.add_argument(
        "--rounds", type=_positive, default=8, help="default: %(default)s"
    )
    demo.add_argument(
        "--labels",
        type=_positive,
        default=20,
        help="labels in a round (default: %(default)s)",
    )
    demo.add_argument(
        "--pool",
        type=_positive,
        default=600,
        help="photographs to choose from (default: %(default)s)",
    )
    demo.add_argument(
        "--test",
        type=_positive,
        default=400,
        help="photographs to test on (default: %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options = parser.parse_args(arguments)
    from .demo import run_demo  # its imports take seconds, --help should not

    try:
        run_demo(
            options.out,
            n_rounds=options.rounds,
            n_instances=options.labels,
            n_pool=options.pool,
            n_test=options.test,
            seed=options.seed,
        )
    except (ImportError, ValueError, OSError) as error:
        parser.exit(1, f"skadma {options.command}: {error}\n")
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
