"""Run tasks by any executor of ``concurrent.futures``; repeat those of lost workers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any

from ..._utils.processes import isolated_children
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
    is_factory = callable(executor) and not hasattr(executor, "submit")
    current: Any = executor
    if is_factory:
        with isolated_children():
            current = executor()  # type: ignore[operator]
    if not hasattr(current, "submit"):
        raise TypeError(
            f"executor={current!r} is no concurrent.futures.Executor, such as "
            "ProcessPoolExecutor() or dask's Client.get_executor(), nor a function "
            "that returns one."
        )
    # (number, task, times that its worker was lost)
    new = ((number, task, 0) for number, task in enumerate(tasks))
    again: deque[tuple[int, Any, int]] = deque()
    running: dict[Future[Any], tuple[int, Any, int]] = {}

    def repeat(job: tuple[int, Any, int], error: Exception) -> None:
        nonlocal current
        number, task, n_lost = job
        if n_lost == _RETRIES:
            raise StoreError(
                f"A worker was lost {_RETRIES + 1} times at the same task "
                f"({type(error).__name__}: {error}). It may want for memory. What is "
                "done is kept: call again to go on."
            ) from error
        _log.warning("a worker was lost (%s); its task is repeated", error)
        again.append((number, task, n_lost + 1))
        if isinstance(error, BrokenExecutor) and not is_factory:
            raise StoreError(
                f"The executor lost a worker and takes no more work ({error}). What is "
                "done is kept: call again with another one to go on, or give a "
                "function that makes one, such as joblib's get_reusable_executor."
            ) from error
        if isinstance(error, BrokenExecutor) and not running:
            with isolated_children():
                current = executor()  # type: ignore[operator]

    try:
        while True:
            while len(running) < _N_SUBMITTED:
                job = again.popleft() if again else next(new, None)
                if job is None:
                    break
                try:
                    with isolated_children():  # it may start a process for this
                        running[current.submit(_attempt, function, job[1])] = job
                except BrokenExecutor as broken:
                    if running:  # their failures come first
                        again.appendleft(job)
                        break
                    repeat(job, broken)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    error, result = future.result()
                except Exception as lost:
                    repeat(job, lost)
                    continue
                if error is not None:
                    raise error
                yield job[0], result
    finally:
        for future in running:
            future.cancel()


def _attempt(function: Callable[[Any], Any], task: Any) -> tuple[Exception | None, Any]:
    """Return an exception of the function as a value; others are the executor's."""
    try:
        return None, function(task)
    except Exception as error:
        return error, None


def run_all(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    executor: Executor | Callable[[], Executor] | None,
) -> list[Any]:
    """Run tasks as :func:`run_tasks` does; return the results in order."""
    found = dict(run_tasks(function, tasks, executor))
    return [found[number] for number in range(len(tasks))]
