"""``skadma demo`` and ``skadma bench``: strategies side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ._options import positive


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    demo = commands.add_parser(
        "demo",
        help="strategies side by side on photographs of solar cells",
        description="Adapt efficientnet_lite0 with its ImageNet weights to telling "
        "defective solar cells from sound ones (elpv-dataset), with labels chosen by "
        "UncertaintyHerding, by ADMA and, side by side, at random. Takes about a "
        "minute on 2 cores.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.set_defaults(run=_demo)
    add = demo.add_argument
    what = "folder for curves.png and results.csv"
    add("--out", type=Path, default=Path("skadma-demo"), help=what)
    what = "one or several, of which each draws other photographs"
    add("--seed", type=int, nargs="+", default=[0, 1, 2], help=what)
    bench = commands.add_parser(
        "bench",
        help="measure label efficiency: data sets x networks x strategies x seeds",
        description="Simulate active learning on labelled data sets, and report which "
        "strategy needs how many labels. docs/benchmarks.md says what there is to set.",
    )
    actions = bench.add_subparsers(dest="action", required=True)
    what = "run what has no result yet: a run that was stopped goes on where it was"
    run = actions.add_parser("run", help=what, description=what)
    run.set_defaults(run=_run)
    run.add_argument("config", type=Path, help="a JSON file")
    what = "folder for the results"
    run.add_argument("--out", type=Path, required=True, help=what)
    what = "processes, of one thread each (default: %(default)s)"
    run.add_argument("--jobs", type=positive, default=1, help=what)
    what = "folder of the data sets and centres (default: $SKADMA_DATA)"
    run.add_argument("--data", type=Path, help=what)
    what = "write report.md and curves.png into the results' folder, print the report"
    report = actions.add_parser("report", help=what, description=what)
    report.set_defaults(run=_report)
    report.add_argument("results", type=Path, help="folder of the results")
    what = (
        "the strategy that all others are tested against (default: the one with the "
        "largest mean area under the accuracy curve)"
    )
    report.add_argument("--against", help=what)


def _demo(options: argparse.Namespace) -> None:
    from ..bench.demo import run_demo  # its imports take seconds, --help should not

    run_demo(options.out, seeds=options.seed)


def _run(options: argparse.Namespace) -> None:
    from ..bench import run_benchmark

    try:
        path = run_benchmark(
            options.config, options.out, jobs=options.jobs, data=options.data
        )
    except RuntimeError as error:  # some cells failed
        sys.exit(f"skadma bench: {error}")
    print(f"Results: {path}. Tables and figures: skadma bench report {options.out}")


def _report(options: argparse.Namespace) -> None:
    from ..bench import write_report

    print(write_report(options.results, against=options.against).read_text("utf-8"))
