"""Run all cells in processes, and write each result as soon as it is there."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import sklearn
import torch
from threadpoolctl import threadpool_limits

from .. import __version__
from .._utils.atomic import write_atomically
from .._utils.processes import end_with_parent, isolated_children, progress_bar
from .._utils.tables import escape_cell, unescape_cell
from .cells import Workbench
from .config import Cell, load_cells

RESULTS = "results.csv"
_CELLS = "cells"
_NAMES = ["dataset", "network", "strategy"]


def run_benchmark(
    config: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    jobs: int = 1,
    data: str | Path | None = None,
    verbose: bool = True,
) -> Path:
    """Run the cells that have no result yet, and collect the results.

    A cell's result is written when it is done, so that a run that was stopped, in
    whatever way, goes on where it was. Every process works with one thread: the
    results do not depend on `jobs`.

    Parameters
    ----------
    config : str, Path or dict
        A JSON file or its content; docs/benchmarks.md lists the settings.
    out : str or Path
        Folder for ``cells/``, ``results.csv`` and ``runs.jsonl`` (what was run, when,
        by which versions); made if missing.
    jobs : int, default=1
        Processes.
    data : str or Path, optional
        The folder that holds the data sets and centres; the environment variable
        ``SKADMA_DATA`` if None.
    verbose : bool, default=True
        Show a progress bar.

    Returns
    -------
    Path
        ``results.csv``.

    Raises
    ------
    ValueError
        If a setting is unknown or missing, or `out` holds results of the same name made
        with other settings.
    RuntimeError
        If cells failed; the others' results are there.
    """
    if jobs < 1:
        raise ValueError(f"jobs={jobs} must be at least 1.")
    out = Path(out)
    data = data or os.environ.get("SKADMA_DATA")
    root = Path(data) if data else None
    cells = load_cells(config)
    todo = [cell for cell in cells if not _is_done(cell, out)]
    n_done = len(cells) - len(todo)
    (out / _CELLS).mkdir(parents=True, exist_ok=True)
    run = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "skadma": __version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "n_cells": len(cells),
        "n_to_run": len(todo),
    }
    with (out / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")
    failed: list[str] = []
    with progress_bar(
        total=len(cells), initial=n_done, disable=not verbose, unit="cell"
    ) as bar:
        for cell, error in _run_cells(todo, out, root, jobs):
            bar.set_postfix_str(Path(cell.file_name).stem)
            bar.update()
            if error:
                failed.append(f"{Path(cell.file_name).stem}:\n{error}")
    _collect(out)
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(todo)} cells failed, run again when mended. The "
            f"first: {failed[0]}"
        )
    return out / RESULTS


def read_results(path: str | Path) -> pd.DataFrame:
    """Read a table of results.

    Parameters
    ----------
    path : str or Path
        ``results.csv``, or the folder that a run writes into, whose cells are collected
        first: those that are done by now, if the run is still going on.

    Returns
    -------
    pandas.DataFrame
        A row per cell and round.
    """
    path = Path(path)
    _collect(path)
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no {str(file)!r}; 'skadma bench run CONFIG --out DIR' makes one."
        )
    # Names stay what they are, a strategy called "0.1" or "None" too.
    names = dict.fromkeys(_NAMES, str)
    table = pd.read_csv(file, dtype=names, keep_default_na=False, na_values="")
    needed = {*_NAMES, "strategy_class", "seed", "n_labels", "accuracy"}
    if missing := sorted(needed - set(table)):
        raise ValueError(f"{str(file)!r} is no table of results: it has no {missing}.")
    return table.assign(**table[_NAMES].fillna("").map(unescape_cell))


# --- processes ------------------------------------------------------------------------

_workbench: Workbench  # of a process that is one of several


def _run_cells(
    cells: list[Cell], out: Path, root: Path | None, jobs: int
) -> Iterator[tuple[Cell, str]]:
    """Yield cells as they get done, with what went wrong."""
    if jobs == 1:
        workbench = Workbench(root)
        for cell in cells:
            yield cell, _run_cell(cell, out, workbench)
        return
    # Not forked: torch's threads do not survive that.
    context = multiprocessing.get_context("spawn")
    with isolated_children():
        executor = ProcessPoolExecutor(jobs, context, _start_process, (root,))
        futures = {executor.submit(_run_cell, cell, out): cell for cell in cells}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _start_process(root: Path | None) -> None:
    global _workbench
    _workbench = Workbench(root)
    end_with_parent()


def _run_cell(cell: Cell, out: Path, workbench: Workbench | None = None) -> str:
    """Write a cell's result, or return what went wrong."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            rows = (workbench or _workbench).run(cell)
    except Exception:  # the other cells may do
        return traceback.format_exc()
    finally:
        torch.set_num_threads(n_threads)
    content = json.dumps({**asdict(cell), "rows": rows})
    path = out / _CELLS / cell.file_name
    write_atomically(path, lambda tmp_path: tmp_path.write_text(content, "utf-8"))
    return ""


# --- files ----------------------------------------------------------------------------


def _collect(out: Path) -> None:
    """Put the cells' results, if there are any, together into the table."""
    files = sorted((out / _CELLS).glob("*.json"))
    rows = [row for file in files for row in _read_cell(file)["rows"]]
    if rows:
        table = pd.DataFrame(rows).drop(columns="indices").map(escape_cell)
        write_atomically(out / RESULTS, lambda tmp: table.to_csv(tmp, index=False))


def _read_cell(file: Path) -> dict[str, Any]:
    try:
        cell: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if isinstance(cell["settings"], dict) and all(
            isinstance(row, dict) for row in cell["rows"]
        ):
            return cell
    except (LookupError, RecursionError, TypeError, ValueError):
        pass
    raise ValueError(f"{str(file)!r} is no result of a cell: remove it, and run again.")


def _is_done(cell: Cell, out: Path) -> bool:
    file = out / _CELLS / cell.file_name
    if not file.is_file():
        return False
    there = _read_cell(file)["settings"]
    here = json.loads(json.dumps(cell.settings))
    differing = [key for key in here if here[key] != there.get(key)]
    if differing:
        raise ValueError(
            f"{str(file)!r} was made with other settings of {differing}: "
            f"{[there.get(k) for k in differing]} instead of "
            f"{[here[k] for k in differing]}. Take another folder, another name, or "
            "remove it."
        )
    return True
