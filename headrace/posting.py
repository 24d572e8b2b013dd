"""One HTTP connection pool to one collector: posts bodies, gzip where they go far, tells an answer from none."""

from ipaddress import ip_address
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

import aiohttp
import cramjam

from collector.limits import MAX_BODY

#: gzip's fastest: a tenth of the bytes for a fifth of the work of the usual level.
_LEVEL: Final = 1
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=10)


class NoAnswer(Exception):
    """The collector could not be reached or did not answer; one sentence with its URL."""


class Reply(NamedTuple):
    """An HTTP answer: status, body, and the seconds that Retry-After asks for (0 where it does not)."""

    status: int
    body: bytes
    retry_after: float = 0.0


class CollectorClient:
    """Posts to a collector's /v1/batch with a write key; an async context manager.

    Bodies are gzip, but for a collector on this machine: there it costs both sides more than the bytes it saves. One
    that is larger than the collector takes as sent is gzip there too.

    aiohttp, because a request costs it a third of what it costs httpx, and small batches are mostly requests.
    """

    def __init__(self, url: str, write_key: str, user_agent: str, connections: int) -> None:
        self._url = f"{url.rstrip('/')}/v1/batch"
        self._is_near = _is_loopback(url)
        self._connections = connections
        self._headers = {
            "authorization": f"Bearer {write_key}",
            "content-type": "application/json",
            "user-agent": user_agent,
        }
        self._gzip_headers = {**self._headers, "content-encoding": "gzip"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=self._connections)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, body: bytes) -> Reply:
        """The collector's answer to a JSON body. Raises NoAnswer."""
        assert self._session is not None, "use it as a context manager"
        headers = self._headers
        if not self._is_near or len(body) > MAX_BODY:
            body, headers = bytes(cramjam.gzip.compress(body, _LEVEL)), self._gzip_headers
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                return Reply(response.status, await response.read(), _seconds(response.headers.get("retry-after")))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            why = str(error) or type(error).__name__
            raise NoAnswer(f"The collector at {self._url} does not answer: {why}.") from error


def _is_loopback(url: str) -> bool:
    """Whether its host is a loopback address, or the name that every system has for one."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name; or no URL, as is told when it is used
        return False


def _seconds(header: str | None) -> float:
    """Retry-After's seconds; its other form, a date, counts as none."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
