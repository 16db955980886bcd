"""``skadma demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._options import positive, prepare_folder


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    demo = commands.add_parser(
        "demo",
        help="strategies side by side on photographs of solar cells",
        description="Adapt efficientnet_lite0 with its ImageNet weights to telling "
        "defective solar cells from sound ones (elpv-dataset), with labels chosen by "
        "UncertaintyHerding, by ADMA and, side by side, at random. Takes about a "
        "minute on 2 cores.",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("skadma-demo"),
        help="folder for curves.png and results.csv (default: %(default)s)",
    )
    demo.add_argument("--rounds", type=positive, default=8, help="default: %(default)s")
    demo.add_argument(
        "--labels",
        type=positive,
        default=20,
        help="labels in a round (default: %(default)s)",
    )
    demo.add_argument(
        "--pool",
        type=positive,
        default=600,
        help="photographs to choose from (default: %(default)s)",
    )
    demo.add_argument(
        "--test",
        type=positive,
        default=400,
        help="photographs to test on (default: %(default)s)",
    )
    demo.add_argument(
        "--seed",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="one or several, of which each draws other photographs (default: 0 1 2)",
    )
    demo.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from ..bench.demo import run_demo  # its imports take seconds, --help should not

    prepare_folder(options.out)
    run_demo(
        options.out,
        n_rounds=options.rounds,
        n_instances=options.labels,
        n_pool=options.pool,
        n_test=options.test,
        seeds=options.seed,
    )
