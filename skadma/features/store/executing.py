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
    current: Any = _made(executor) if is_factory else executor
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
    broken = False
    try:
        while True:
            if broken and not running:
                current, broken = _made(executor), False
            while not broken and len(running) < _N_SUBMITTED:
                job = again.popleft() if again else next(new, None)
                if job is None:
                    break
                running[_submitted(current, function, job[1])] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, task, n_lost = running.pop(future)
                try:
                    error, result = future.result()
                except Exception as lost:
                    broken = broken or isinstance(lost, BrokenExecutor)
                    if n_lost == _RETRIES or (broken and not is_factory):
                        raise StoreError(
                            f"A worker was lost {n_lost + 1} times at the same task "
                            f"({type(lost).__name__}: {lost}). It may want for memory. "
                            "What is done is kept: call again to go on. If that broke "
                            "the executor, give a function that makes one, such as "
                            "joblib's get_reusable_executor."
                        ) from lost
                    _log.warning("a worker was lost (%s); its task is repeated", lost)
                    again.append((number, task, n_lost + 1))
                    continue
                if error is not None:
                    raise error
                yield number, result
    finally:
        for future in running:
            future.cancel()


def _made(executor: Any) -> Any:
    with isolated_children():
        return executor()


def _submitted(executor: Any, function: Callable[[Any], Any], task: Any) -> Future[Any]:
    """Submit a task; return a future that fails if the executor is broken."""
    try:
        with isolated_children():  # it may start a process for this
            return executor.submit(_attempt, function, task)
    except BrokenExecutor as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


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
