"""Fills what a context leaves open, from what it says: user agent, url, referrer, address, time zone.

What the client sent is kept; only `bot` is always computed, and a country that is no country is replaced. Nothing here
raises on any text, and no work depends on more than the first 8 KiB of a url.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_plus

from schemas.context import CONTEXT_FIELDS
from streams.core.channels import CHANNEL_OF_CLICK_ID, classify_channel, site_of

MAX_URL_LENGTH: Final = 8192
_MAX_PARAMETERS: Final = 100
_EMPTY_CONTEXT: Final[Mapping[str, str]] = dict.fromkeys(CONTEXT_FIELDS, "")  # a proxy takes long to copy
_UTM_FIELDS: Final = MappingProxyType(
    {
        "utm_source": "utmSource",
        "utm_medium": "utmMedium",
        "utm_campaign": "utmCampaign",
        "utm_term": "utmTerm",
        "utm_content": "utmContent",
    }
)
#: What `enrich_page` answers.
PAGE_FIELDS: Final = ("path", "referrerDomain", "channel", *_UTM_FIELDS.values())


@dataclass(frozen=True, slots=True)
class UserAgent:
    """What a user agent string says; '' where it says nothing.

    `device_type` is desktop, mobile, tablet, tv, console, bot or ''.
    """

    browser: str = ""
    browser_version: str = ""
    os: str = ""
    os_version: str = ""
    device_type: str = ""
    bot: bool = False


def _read_zones() -> dict[str, str]:
    """Time zone -> country; a country without zones stands under its own code, so that values are all countries."""
    text = files("streams").joinpath("data/zone_country.txt").read_text("ascii")
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {zone: country for country, *zones in lines for zone in (zones or [country])}


_COUNTRY_OF_ZONE: Final = MappingProxyType(_read_zones())
#: ISO 3166-1 alpha-2, and XK, which MaxMind and CDNs answer for Kosovo.
COUNTRIES: Final = frozenset({*_COUNTRY_OF_ZONE.values(), "XK"})


def enrich_page(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields of `PAGE_FIELDS` for one page: `fields` may hold url, referrer and any of the answer's own.

    For an event whose page differs from its record's, pass the event's page, not the record's derived fields: what is
    given is kept.
    """
    get = fields.get
    url = get("url", "")[:MAX_URL_LENGTH]
    host, path, query = split_url(url)
    tags = _campaign_tags(query)
    sent_domain = get("referrerDomain", "")
    referrer_host = _host(sent_domain[:256]) or split_url(get("referrer", "")[:MAX_URL_LENGTH])[0]
    internal = bool(referrer_host) and (referrer_host == host or site_of(referrer_host) == site_of(host))
    page = {
        "path": get("path") or path,
        "referrerDomain": sent_domain or ("" if internal else referrer_host),
        "channel": get("channel", ""),
    }
    for field in _UTM_FIELDS.values():
        page[field] = get(field) or (tags.get(field, "") if tags else "")
    if not page["channel"] and (url or page["referrerDomain"] or page["utmSource"] or page["utmMedium"]):
        page["channel"] = classify_channel(
            source=page["utmSource"],
            medium=page["utmMedium"],
            click_id=tags.get("clickId", ""),
            referrer_domain="" if internal else referrer_host,
            internal=internal,
        ).value
    return page


def enrich(
    context: Mapping[str, str],
    *,
    user_agent_parser: Callable[[str], UserAgent],
    country_of_ip: Callable[[str], str],
    page_of: Callable[[Mapping[str, str]], Mapping[str, str]] = enrich_page,
) -> dict[str, str]:
    """The context with every field of `CONTEXT_FIELDS`, and `bot` as '1' or ''.

    None of the callables may raise: an address or user agent it does not know is '' or `UserAgent()`.
    """
    enriched = {**_EMPTY_CONTEXT, **context}
    agent = user_agent_parser(enriched["userAgent"])
    _fill_user_agent(enriched, agent)
    enriched["bot"] = "1" if agent.bot else ""
    enriched["country"] = _country(enriched, country_of_ip)
    enriched.update(page_of(enriched))
    return enriched


def split_url(url: str) -> tuple[str, str, str]:
    """Host (lower case, without user, port and www.), path and query of a url; '' for what it lacks.

    Not `urllib`, which raises on `http://[::1` and costs three times as much.
    """
    before_fragment = url.partition("#")[0]
    before_query, _, query = before_fragment.partition("?")
    scheme, found, rest = before_query.partition("//")
    if not found or (scheme and scheme[-1] != ":"):
        return "", before_query if before_query.startswith("/") else "", query
    authority, slash, path = rest.partition("/")
    return _host(authority), f"/{path}" if slash or authority else "", query


@lru_cache(maxsize=4096)
def _host(authority: str) -> str:
    host = authority.rpartition("@")[2].lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    else:
        host = host.partition(":")[0].removeprefix("www.").rstrip(".")
    return host if len(host) <= 253 and host.isprintable() and " " not in host else ""


def _campaign_tags(query: str) -> dict[str, str]:
    """The utm fields of a query, and under `clickId` the name of its first click parameter; the first of each wins."""
    tags: dict[str, str] = {}
    if "utm_" not in query.lower() and "id=" not in query:
        return tags
    for pair in query.split("&", _MAX_PARAMETERS)[:_MAX_PARAMETERS]:
        name, _, value = pair.partition("=")
        name = name.lower()
        if field := _UTM_FIELDS.get(name):
            tags.setdefault(field, unquote_plus(value).strip() if "%" in value or "+" in value else value)
        elif value and name in CHANNEL_OF_CLICK_ID:
            tags.setdefault("clickId", name)
    return tags


def _fill_user_agent(enriched: dict[str, str], agent: UserAgent) -> None:
    enriched["browser"] = enriched["browser"] or agent.browser
    enriched["os"] = enriched["os"] or agent.os
    enriched["deviceType"] = enriched["deviceType"] or agent.device_type
    # A version belongs to the name it was read with: a client's own name keeps its own version, or none.
    if not enriched["browserVersion"] and enriched["browser"] == agent.browser:
        enriched["browserVersion"] = agent.browser_version
    if not enriched["osVersion"] and enriched["os"] == agent.os:
        enriched["osVersion"] = agent.os_version


def _country(context: Mapping[str, str], country_of_ip: Callable[[str], str]) -> str:
    """What a CDN or client said, else what the address says, else what the time zone says; '' for no country."""
    if len(sent := context["country"]) == 2 and (code := sent.upper()) in COUNTRIES:
        return code
    if (ip := context["ip"]) and (code := country_of_ip(ip)) in COUNTRIES:
        return code
    return _COUNTRY_OF_ZONE.get(context["timezone"], "")
