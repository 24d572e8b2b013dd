"""Where a visit comes from: one closed list of channels, decided by the campaign, the click id and the referrer."""

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final


class Channel(StrEnum):
    """What the field `channel` can hold when the client sent none; '' where nothing is known of a page."""

    DIRECT = "direct"
    INTERNAL = "internal"
    ORGANIC_SEARCH = "organic_search"
    PAID_SEARCH = "paid_search"
    ORGANIC_SOCIAL = "organic_social"
    PAID_SOCIAL = "paid_social"
    PAID_OTHER = "paid_other"
    DISPLAY = "display"
    AFFILIATE = "affiliate"
    EMAIL = "email"
    MESSAGE = "message"
    AI_ASSISTANT = "ai_assistant"
    REFERRAL = "referral"
    CAMPAIGN = "campaign"


def _read_names() -> Mapping[str, Mapping[str, Channel]]:
    """Kind -> name -> channel, as the data file explains."""
    names: dict[str, dict[str, Channel]] = {}
    for line in files("streams").joinpath("data/channels.txt").read_text("ascii").splitlines():
        if not line.startswith("#"):
            kind, channel, *listed = line.split()
            names.setdefault(kind, {}).update(dict.fromkeys(listed, Channel(channel)))
    return MappingProxyType(names)


_NAMES: Final = _read_names()
_CHANNEL_OF_ORIGIN: Final = _NAMES["origin"]
_CHANNEL_OF_MEDIUM: Final = _NAMES["medium"]
#: Query parameter -> channel.
CHANNEL_OF_CLICK_ID: Final = _NAMES["click"]
_SEARCH_LABELS: Final = _NAMES["search"]
_SHARED_HOSTS: Final = _NAMES["shared-host"]
_SECOND_LEVEL: Final = _NAMES["second-level"]


@lru_cache(maxsize=4096)
def site_of(host: str) -> str:
    """The name a site's hosts share (`help.example.co.uk` -> `example.co.uk`); an IP address is its own site.

    A short rule in place of the public suffix list, which is larger than this program and changes weekly.
    """
    labels = host.split(".")
    if len(labels) < 3 or labels[-1].isdigit() or ":" in host:
        return host
    suffix = ".".join(labels[-2:])
    country_suffix = len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
    return ".".join(labels[-3:]) if country_suffix or suffix in _SHARED_HOSTS else suffix


@lru_cache(maxsize=4096)
def channel_of_origin(name: str) -> Channel | None:
    """The unpaid channel of a campaign source or referring host, lower case; None when it is nobody we know."""
    rest = name
    while rest:
        if found := _CHANNEL_OF_ORIGIN.get(rest):
            return found
        rest = rest.partition(".")[2]
    label, _, suffix = site_of(name).partition(".")
    return Channel.ORGANIC_SEARCH if label in _SEARCH_LABELS and suffix and suffix not in _SHARED_HOSTS else None


def classify_channel(*, source: str, medium: str, click_id: str, referrer_domain: str, internal: bool) -> Channel:
    """The channel of a page view that has a url.

    `source` and `medium` are the utm values, `click_id` the name of the click parameter in the url ('' for none),
    `referrer_domain` the other site it came from, `internal` whether the referrer is the same site.
    """
    source, medium = source[:256].strip().lower(), medium[:256].strip().lower()
    origin = channel_of_origin(source or referrer_domain)
    tagged = _CHANNEL_OF_MEDIUM.get(medium)
    if tagged is Channel.PAID_OTHER or medium.startswith("paid"):
        return _paid(origin, medium, click_id)
    if tagged:
        return tagged
    if found := CHANNEL_OF_CLICK_ID.get(click_id):
        return found
    if source or medium:
        return origin or Channel.CAMPAIGN
    if referrer_domain:
        return origin or Channel.REFERRAL
    return Channel.INTERNAL if internal else Channel.DIRECT


def _paid(origin: Channel | None, medium: str, click_id: str) -> Channel:
    """A campaign tagged as paid: the medium may name the kind (`paid_social`), else the source does."""
    if "social" in medium or origin is Channel.ORGANIC_SOCIAL or click_id == "fbclid":
        return Channel.PAID_SOCIAL
    if "search" in medium or origin is Channel.ORGANIC_SEARCH:
        return Channel.PAID_SEARCH
    return CHANNEL_OF_CLICK_ID.get(click_id, Channel.PAID_OTHER)
