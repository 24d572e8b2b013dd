"""A TCP proxy that cuts, slows, swallows and loses what passes it, between any two parts that are told its address."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

_T = TypeVar("_T")
_CHUNK = 1 << 16
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Mode = Literal["pass", "refuse", "answer 503", "delay", "hold", "strand", "swallow", "lose answers"]
"""What happens to connections, new ones and those there are:

pass: nothing. refuse: closed at once. answer 503: as a server of HTTP that is overloaded. delay: each piece comes
`DELAY` late. hold: nothing arrives until the mode ends, then all of it (a network that loses packets and comes back).
strand: so, but only over the connections that there are, also when their client has died meanwhile; new ones pass.
swallow: taken and never answered; these connections are cut when the mode ends. lose answers: the request arrives
whole, and the connection is cut when its answer comes.
"""
DELAY = 0.3  # seconds
_Pair = tuple[asyncio.StreamWriter, asyncio.StreamWriter]


class Link:
    """One proxy before each of `upstreams`, all in the same mode; runs in a thread of its own until `close`.

    With `kafka`, the ports of the upstreams in the broker's answers become those of the proxies: a client follows the
    addresses that the brokers advertise.
    """

    def __init__(self, upstreams: list[tuple[str, int]], *, kafka: bool = False) -> None:
        self._upstreams, self._kafka = upstreams, kafka
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._mode: Mode = "pass"
        self._changed = asyncio.Event()
        self._pairs: set[_Pair] = set()
        self._stranded: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._advertised: list[tuple[bytes, bytes]] = []
        self._servers = self._call(self._listen())
        self.ports: list[int] = [server.sockets[0].getsockname()[1] for server in self._servers]
        if kafka:
            self._advertised = [
                (host.encode() + real.to_bytes(4, "big"), host.encode() + ours.to_bytes(4, "big"))
                for (host, real), ours in zip(upstreams, self.ports, strict=True)
            ]

    def set(self, mode: Mode) -> None:
        """Change the mode; what was swallowed is cut."""
        self._call(self._set(mode))

    def cut(self) -> None:
        """Break every connection there is."""
        self._call(self._cut())

    def close(self) -> None:
        """Stop listening and break every connection."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> list[asyncio.Server]:
        return [await asyncio.start_server(self._accept(*at), "127.0.0.1", 0) for at in self._upstreams]

    async def _set(self, mode: Mode) -> None:
        before, self._mode = self._mode, mode
        self._stranded = set(self._pairs) if mode == "strand" else set()
        self._changed.set()
        self._changed = asyncio.Event()
        if "swallow" in (before, mode) or mode == "refuse":
            await self._cut()

    async def _cut(self) -> None:
        for pair in list(self._pairs):
            _abort(pair)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, host: str, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._serve(reader, writer, host, port))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return accept

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        if self._mode == "refuse":
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, up_writer)
        self._pairs.add(pair)
        try:
            await _first(self._requests(reader, pair), self._answers(up_reader, pair))
        finally:
            self._pairs.discard(pair)
            _abort(pair)

    async def _requests(self, reader: asyncio.StreamReader, pair: _Pair) -> None:
        writer, upstream = pair
        while chunk := await reader.read(_CHUNK):
            if self._mode == "answer 503":
                writer.write(_UNAVAILABLE)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
                return
            if await self._arrives(pair):
                upstream.write(chunk)
                await upstream.drain()

    async def _answers(self, upstream: asyncio.StreamReader, pair: _Pair) -> None:
        writer, _ = pair
        while chunk := await self._read_answer(upstream):
            if self._mode == "lose answers":
                return
            if await self._arrives(pair):
                writer.write(chunk)
                await writer.drain()
        if writer.can_write_eof():
            writer.close()
            await writer.wait_closed()

    async def _arrives(self, pair: _Pair) -> bool:
        """Wait as the mode says; whether what waited is passed on."""
        if self._mode == "delay":
            await asyncio.sleep(DELAY)
        while self._mode == "hold" or pair in self._stranded:
            await self._changed.wait()
        return self._mode != "swallow"

    async def _read_answer(self, upstream: asyncio.StreamReader) -> bytes:
        if not self._kafka:
            return await upstream.read(_CHUNK)
        size = await upstream.readexactly(4)
        answer = size + await upstream.readexactly(int.from_bytes(size, "big"))
        for theirs, ours in self._advertised:
            answer = answer.replace(theirs, ours)
        return answer


def _abort(pair: _Pair) -> None:
    for writer in pair:
        writer.transport.abort()


async def _first(*pumps: Coroutine[Any, Any, None]) -> None:
    """Return when one has ended, however: a broken connection is what this module is for."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
