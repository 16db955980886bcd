"""Run tasks by any executor of ``concurrent.futures``; repeat those of lost workers."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from functools import partial
from typing import Any

from .shards import StoreError

_log = logging.getLogger(__name__)

_RETRIES = 3
"""Times that the task of a lost worker is submitted again."""

_N_SUBMITTED = 256
"""Tasks submitted at once: a scheduler need not hold a million."""


def run_tasks(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    executor: Executor | Callable[[], Executor] | None,
) -> Iterator[tuple[int, Any]]:
    """Run tasks here (None) or by an executor; yield numbers and results as they end.

    An exception of `function` ends everything. A task that fails otherwise has lost
    its worker and is submitted again. If the executor itself breaks, as
    ``ProcessPoolExecutor`` does when a process is killed, a callable `executor` makes
    another one.
    """
    if executor is None:
        for number, task in enumerate(tasks):
            yield number, function(task)
        return
    make = executor if not hasattr(executor, "submit") else None
    submitter: Any = make() if callable(make) else executor
    if not hasattr(submitter, "submit"):
        raise TypeError(
            f"executor={executor!r} is no concurrent.futures.Executor, such as "
            "ProcessPoolExecutor() or dask's Client.get_executor(), nor a function "
            "that returns one."
        )
    new = enumerate(tasks)
    again: deque[tuple[int, Any]] = deque()
    n_lost: Counter[int] = Counter()
    running: dict[Future, tuple[int, Any]] = {}
    broken = False
    try:
        while True:
            while len(running) < _N_SUBMITTED and not broken:
                job = again.popleft() if again else next(new, None)
                if job is None:
                    break
                try:
                    future = submitter.submit(_attempt, function, job[1])
                    running[future] = job
                except BrokenExecutor as lost:
                    again.append(job)
                    broken = True
                    if make is None or not running:
                        _count_loss(n_lost, job[0], lost, make)
            if broken and not running and callable(make):
                submitter, broken = make(), False
                continue
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    error, result = future.result()
                except Exception as lost:
                    _count_loss(n_lost, job[0], lost, make)
                    again.append(job)
                    broken = broken or isinstance(lost, BrokenExecutor)
                    continue
                if error is not None:
                    raise error
                yield job[0], result
    finally:
        for future in running:
            future.cancel()


def _count_loss(n_lost: Counter[int], number: int, error: Exception, make: Any) -> None:
    """Count that a task's worker was lost; raise where it cannot be repeated."""
    n_lost[number] += 1
    if n_lost[number] > _RETRIES:
        raise StoreError(
            f"A worker was lost {_RETRIES + 1} times at the same task "
            f"({type(error).__name__}: {error}). It may want for memory. What is "
            "done is kept: call again to go on."
        ) from error
    _log.warning("a worker was lost (%s); its task is repeated", error)
    if isinstance(error, BrokenExecutor) and make is None:
        raise StoreError(
            f"The executor lost a worker and takes no more work ({error}). What is "
            "done is kept: call again with another one to go on, or give a "
            "function that makes one, such as joblib's get_reusable_executor."
        ) from error


def _attempt(function: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    """Return an exception of the function as a value; others are the executor's."""
    try:
        return None, function(task)
    except Exception as error:
        return error, None


# --- partitions of a pool -----------------------------------------------------------


def map_partitions(
    function: Callable[..., Any],
    partitions: Sequence[Any],
    *args: Any,
    executor: Executor | Callable[[], Executor] | None,
) -> list[Any]:
    """Return ``function(rows, *args)`` for the rows of each partition, in order."""
    task = partial(_run_on_partition, function, args)
    found = dict(run_tasks(task, partitions, executor))
    return [found[number] for number in range(len(partitions))]


def _run_on_partition(function: Callable[..., Any], args: tuple, rows: Any) -> Any:
    return function(rows, *args)
