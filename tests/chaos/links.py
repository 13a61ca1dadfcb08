"""TCP links that can be cut, closed, slowed down and held up: a proxy of ours between two processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from cds_plugin.demo.ports import LOOPBACK, free_ports

CHUNK_BYTES = 65536
CALL_SECONDS = 10.0


@dataclass(eq=False)
class Link:
    """Passes every connection on `port` to `target`; what may be done to it is done from any thread."""

    target: int
    port: int = field(default_factory=lambda: free_ports(1)[0])
    delay_seconds: float = 0.0
    """Added to every piece of data, in each direction."""
    connections: set[asyncio.Transport | asyncio.WriteTransport] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        """Take connections again, and pass on what comes."""
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._pass_on, LOOPBACK, self.port)

    async def cut(self) -> None:
        """Reset every connection that is open now."""
        for each in tuple(self.connections):
            each.abort()

    async def close(self) -> None:
        """Reset every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    async def hold(self) -> None:
        """Pass nothing on; connections stay open, and new ones are taken."""
        self._flowing.clear()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer.transport)
        try:
            await self._flowing.wait()
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            self._end(writer)
            return
        self.connections.add(far_writer.transport)
        ways = self._pump(reader, far_writer), self._pump(far_reader, writer)
        await asyncio.gather(*ways)
        self._end(writer)
        self._end(far_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy until the end; what ends by a reset ends the other side by one."""
        try:
            while data := await reader.read(CHUNK_BYTES):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()

    def _end(self, writer: asyncio.StreamWriter) -> None:
        self.connections.discard(writer.transport)
        writer.transport.abort() if writer.transport.is_closing() else writer.close()


class Links:
    """Runs links in one thread of its own; a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._links: list[Link] = []

    def __enter__(self) -> Links:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._links:
            self.do(each.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)

    def to(self, target: int) -> Link:
        """Return an open link to a port of loopback."""
        link = Link(target)
        self._links.append(link)
        self.do(link.open)
        return link

    def do(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something to a link and wait until it is done."""
        asyncio.run_coroutine_threadsafe(what(), self._loop).result(CALL_SECONDS)
