"""CORS headers by each tenant's allowed origins. Credentials are never allowed: a write key is not a cookie."""

from collections.abc import Iterable
from typing import Final

from collector.answers import Answer, Headers
from collector.auth import key_in_query
from collector.request import Request
from schemas.tenants import Tenant, Tenants

_PREFLIGHT: Final[Headers] = (
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding"),
    (b"access-control-max-age", b"7200"),
)
_VARY: Final = (b"vary", b"Origin")


def cors_headers(origin: bytes, tenant: Tenant | None, tenants: Tenants) -> Headers:
    """What lets a page of `origin` read the answer; None, no known tenant, counts as any: a page can read its 401."""
    if not origin:
        return ()
    asked = (tenant,) if tenant is not None else tenants.by_company.values()
    if not _allows(origin.decode("latin-1"), asked):
        return (_VARY,)
    return (_VARY, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"Retry-After"))


def answer_preflight(request: Request) -> Answer:
    """The answer to OPTIONS: by the tenant of ?k=, and for any tenant's origin where the URL names no known key."""
    request.tenant = request.tenants.by_write_key.get(key_in_query(request.query))
    allowed = len(cors_headers(request.header(b"origin"), request.tenant, request.tenants)) > 1
    return Answer(204, headers=_PREFLIGHT if allowed else ())


def _allows(origin: str, tenants: Iterable[Tenant]) -> bool:
    return any("*" in tenant.allowed_origins or origin in tenant.allowed_origins for tenant in tenants)
