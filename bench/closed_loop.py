"""Clients in a closed loop, and clients in a race: each a process, all started at the same moment.

It is the same code for us and for what we are compared with, which runs in an environment of its own: so it imports
nothing but the standard library. A client is made in its process by a function of a module, from plain arguments.
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
"""For a client to start or to answer: longer than any does."""

Decide = Callable[[], str | None]
"""Decides once; what was in the way, or None."""
Try = Callable[[int], bool]
"""Goes for the prize of a round, by its number; whether it won."""


def closed_loop(
    make: Callable[..., Decide], arguments: Sequence[Any], *, clients: int, warm_up_s: float, seconds: float
) -> dict[str, Any]:
    """What clients get done that each decide again as soon as they have decided.

    A client is measured from the first decision after its warm-up to the end of the last that began within `seconds`,
    so that slow ones count in full; rates of the clients are added up.

    Returns:
        decisions_per_s: those with nothing in the way; latencies_ms: theirs, in no order; failures: the others.
    """
    results = _in_processes(_loop, [(make, arguments, warm_up_s, seconds)] * clients)
    return {
        "decisions_per_s": sum(len(latencies_ms) / elapsed_s for latencies_ms, _, elapsed_s in results),
        "latencies_ms": [latency_ms for latencies_ms, _, _ in results for latency_ms in latencies_ms],
        "failures": dict(sum((failures for _, failures, _ in results), Counter[str]())),
    }


def race(make: Callable[..., Try], arguments: Sequence[Any], *, racers: int, rounds: int) -> list[int]:
    """How many won, by round; in each all racers go at the same moment."""
    results = _in_processes(_race, [(make, arguments, rounds)] * racers)
    return [sum(won) for won in zip(*results, strict=True)]


def _loop(
    barrier: Barrier, make: Callable[..., Decide], arguments: Sequence[Any], warm_up_s: float, seconds: float
) -> tuple[list[float], Counter[str], float]:
    decide = make(*arguments)
    decide()  # whatever is done once a process
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
    """The answers of a function that runs in a process for each tuple of arguments, after a barrier for all."""
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
        RuntimeError: a process has ended without one, as one does that is killed or cannot even be imported.
    """
    while True:
        try:
            return answers.get(timeout=1.0)
        except Empty:
            # A process that has answered ends with status 0, whether its answer was good or bad.
            if any(process.exitcode for process in processes):
                raise RuntimeError("a client ended without an answer") from None


def _answer(answers: Queue[Any], function: Callable[..., Any], barrier: Barrier, *arguments: Any) -> None:
    try:
        answers.put((function(barrier, *arguments), None))
    except Exception as error:  # noqa: BLE001  # whatever it is, whoever waits has to be told
        barrier.abort()
        answers.put((None, RuntimeError(f"{type(error).__name__}: {error}")))
