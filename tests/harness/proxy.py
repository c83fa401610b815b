"""A network between a client and a server that can be cut: a TCP proxy on loopback."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import Self

from vacancy.jobs import ports


class Proxy:
    """Forwards to a port of this machine; a context manager.

    A cut is one as a firewall makes it that loses its state: the client is not told. What was connected stays silent
    for ever, also once the cut is mended; who connects meanwhile gets through when it is mended. The server has found
    out by then, as its keep-alive does.

    Args:
        target: the server's port.
    """

    def __init__(self, target: int) -> None:
        self.port = ports.free_port()
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._cut = asyncio.Event()
        """Is set, and replaced, at each cut."""
        self._whole = asyncio.Event()
        self._accepts = math.inf
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._whole.set()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Lets nothing through any more."""

        def silence() -> None:
            self._whole.clear()
            self._cut.set()
            self._cut = asyncio.Event()

        self._loop.call_soon_threadsafe(silence)

    def mend(self) -> None:
        """Lets new connections through."""
        self._loop.call_soon_threadsafe(self._whole.set)

    def accept(self, connections: float) -> None:
        """Closes new connections at once from now on, after so many."""
        self._loop.call_soon_threadsafe(setattr, self, "_accepts", connections)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._connected, ports.HOST, self.port)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._accepts < 1:
                return
            self._accepts -= 1
            await self._whole.wait()
            cut = asyncio.ensure_future(self._cut.wait())
            server_reader, server_writer = await asyncio.open_connection(ports.HOST, self._target)
            both_ways = [
                asyncio.ensure_future(_forward(reader, server_writer)),
                asyncio.ensure_future(_forward(server_reader, writer)),
            ]
            try:
                await asyncio.wait([cut, *both_ways], return_when=asyncio.FIRST_COMPLETED)
                was_cut = cut.done()
            finally:
                for waiting in (cut, *both_ways):
                    waiting.cancel()
            await asyncio.gather(cut, *both_ways, return_exceptions=True)
            if was_cut:
                await self._whole.wait()
            server_writer.close()
            if was_cut:
                await asyncio.Event().wait()  # for ever
        except (OSError, asyncio.CancelledError):
            pass  # the server is away, or the proxy ends: so does the connection
        finally:
            writer.close()
            self._tasks.discard(task)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes on what comes, until it ends."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
