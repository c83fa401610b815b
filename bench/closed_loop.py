"""Clients in a closed loop, and clients in a race: each client is a process, and all start at the same moment.

Vacancy and Placement are measured by this same code. Placement runs in its own environment, so this module imports only
the standard library. A function of a module creates each client in the client's process, from plain arguments.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from queue import Empty
from typing import Any

_CONTEXT = multiprocessing.get_context("spawn")
_PATIENCE_S = 300.0
"""Time limit for a client to start or to answer; no client needs that long."""

Decide = Callable[[], str | None]
"""Makes one decision; returns what prevented it, or None."""
Try = Callable[[int], bool]
"""Claims the prize of a round, given its number; returns whether it won."""


def closed_loop(
    make: Callable[..., Decide], arguments: Sequence[Any], *, clients: int, warm_up_s: float, seconds: float
) -> dict[str, Any]:
    """The results of clients that each start a decision as soon as the previous one has ended.

    A client is measured from the first decision after its warm-up to the end of the last decision that began within
    `seconds`, so that slow decisions count in full. The clients' rates are added.

    Returns:
        decisions_per_s: successful decisions; latencies_ms: their latencies, unordered; failures: the other decisions.
    """
    results = _in_processes(_loop, [(make, arguments, warm_up_s, seconds)] * clients)
    return {
        "decisions_per_s": sum(len(latencies_ms) / elapsed_s for latencies_ms, _, elapsed_s in results),
        "latencies_ms": [latency_ms for latencies_ms, _, _ in results for latency_ms in latencies_ms],
        "failures": dict(sum((failures for _, failures, _ in results), Counter[str]())),
    }


def race(make: Callable[..., Try], arguments: Sequence[Any], *, racers: int, rounds: int) -> list[int]:
    """The number of winners by round; in each round all racers start at the same moment."""
    results = _in_processes(_race, [(make, arguments, rounds)] * racers)
    return [sum(won) for won in zip(*results, strict=True)]


def _loop(
    barrier: Barrier, make: Callable[..., Decide], arguments: Sequence[Any], warm_up_s: float, seconds: float
) -> tuple[list[float], Counter[str], float]:
    decide = make(*arguments)
    decide()  # work that is done once per process
    barrier.wait(_PATIENCE_S)
    end_s = time.perf_counter() + warm_up_s
    while time.perf_counter() < end_s:
        decide()
    latencies_ms: list[float] = []
    failures: Counter[str] = Counter()
    start_s = now_s = time.perf_counter()
    while now_s < start_s + seconds:
        failure = decide()
        began_s, now_s = now_s, time.perf_counter()
        if failure is None:
            latencies_ms.append((now_s - began_s) * 1e3)
        else:
            failures[failure] += 1
    return latencies_ms, failures, now_s - start_s


def _race(barrier: Barrier, make: Callable[..., Try], arguments: Sequence[Any], rounds: int) -> list[bool]:
    attempt = make(*arguments)
    won = []
    for number in range(rounds):
        barrier.wait(_PATIENCE_S)
        won.append(attempt(number))
    return won


def _in_processes(function: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> list[Any]:
    """The answers of a function that runs in one process per tuple of arguments, after a common barrier."""
    barrier = _CONTEXT.Barrier(len(arguments))
    answers: Queue[tuple[Any, BaseException | None]] = _CONTEXT.Queue()
    processes = [
        _CONTEXT.Process(target=_answer, args=(answers, function, barrier, *each), daemon=True) for each in arguments
    ]
    try:
        for process in processes:
            process.start()
        received = [_next(answers, processes) for _ in processes]
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()
    for _, error in received:
        if error is not None:
            raise error
    return [answer for answer, _ in received]


def _next(answers: Queue[Any], processes: Sequence[BaseProcess]) -> Any:
    """The next answer.

    Raises:
        RuntimeError: a process ended without an answer, because it was killed or its import failed.
    """
    while True:
        try:
            return answers.get(timeout=1.0)
        except Empty:
            # A process that has answered ends with status 0, even if its answer is an error.
            if any(process.exitcode for process in processes):
                raise RuntimeError("a client ended without an answer") from None


def _answer(answers: Queue[Any], function: Callable[..., Any], barrier: Barrier, *arguments: Any) -> None:
    try:
        answers.put((function(barrier, *arguments), None))
    except Exception as error:  # noqa: BLE001  # the waiting process must learn of any error
        barrier.abort()
        answers.put((None, RuntimeError(f"{type(error).__name__}: {error}")))
