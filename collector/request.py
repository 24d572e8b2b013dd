"""One HTTP request as the collector's handlers see it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from starlette.types import Receive, Scope

from collector.arrival import Sender
from schemas.tenants import Tenant, Tenants

#: Path -> the type it gives to its events; None: they name their own.
EVENT_ROUTES: Final[dict[str, str | None]] = {
    "/v1/batch": None,
    "/v1/beacon": None,
    "/v1/track": "track",
    "/v1/identify": "identify",
    "/v1/page": "page",
    "/v1/screen": "screen",
    "/v1/group": "group",
    "/v1/alias": "alias",
}
# What CDNs and load balancers call the country of the client's address.
_COUNTRY_HEADERS: Final = (
    b"cf-ipcountry",
    b"cloudfront-viewer-country",
    b"x-vercel-ip-country",
    b"x-appengine-country",
    b"x-country-code",
    b"x-country",
)
_UNKNOWN_COUNTRIES: Final = frozenset(("XX", "ZZ"))


@dataclass(slots=True)
class Request:
    """What the handlers need of a request, read once; `tenant` is set when the write key is known.

    `body` is what came, or what receives it from an ASGI server.
    """

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    client: str
    body: bytes | Receive
    tenants: Tenants
    tenant: Tenant | None = None

    @classmethod
    def of_scope(cls, scope: Scope, receive: Receive, tenants: Tenants) -> "Request":
        """The request of an ASGI scope."""
        path: str = scope["path"]
        client = scope["client"][0] if scope.get("client") else ""
        headers = dict(scope["headers"])
        return cls(scope["method"], path.rstrip("/"), scope["query_string"], headers, client, receive, tenants)

    def header(self, name: bytes) -> bytes:
        """The header of this lower-case name, b"" where there is none."""
        return self.headers.get(name, b"")

    def sender(self) -> Sender:
        """What the request says of its sender: address, a CDN's country header, User-Agent."""
        return Sender(self.client, self._country(), _agent_of(self.header(b"user-agent")))

    def _country(self) -> str:
        if self.headers.keys().isdisjoint(_COUNTRY_HEADERS):
            return ""
        for name in _COUNTRY_HEADERS:
            if name in self.headers:
                country = self.headers[name].decode("latin-1").strip().upper()
                if len(country) == 2 and country.isascii() and country.isalpha() and country not in _UNKNOWN_COUNTRIES:
                    return country
        return ""


@lru_cache(maxsize=1024)
def _agent_of(header: bytes) -> str:
    return header.decode("utf-8", "replace").replace("\0", "")
