"""The people of the demo traffic: visitors with a device, a place and a way in, and the accounts they log in to."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, NamedTuple
from uuid import UUID

LIBRARY: Final = "headrace-browser"
_VERSION: Final = "1.4.0"
#: A visitor has a share of the sessions in proportion to 1 / rank ** _STEEPNESS.
_STEEPNESS: Final = 0.6
_WITH_ACCOUNT: Final = 0.55
_SHARED_DEVICE: Final = 0.06
_BOTS: Final = 0.01


class _Device(NamedTuple):
    share: int
    app: str
    app_version: str
    screen: str
    user_agent: str


_CHROME: Final = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
_IOS: Final = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1"
_FIREFOX: Final = "Gecko/20100101 Firefox/145.0"
_SAFARI: Final = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15"
_WINDOWS: Final = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
_DEVICES: Final = (
    _Device(30, "portal", "5.2.0", "1920x1080", f"{_WINDOWS} {_CHROME}"),
    _Device(12, "portal", "5.2.0", "2560x1440", f"{_WINDOWS} {_CHROME} Edg/142.0.0.0"),
    _Device(12, "workshop", "3.8.1", "1366x768", f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) {_FIREFOX}"),
    _Device(10, "portal", "5.1.9", "1728x1117", f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_SAFARI}"),
    _Device(4, "workshop", "3.8.1", "1920x1080", f"Mozilla/5.0 (X11; Linux x86_64) {_CHROME}"),
    _Device(14, "mobile", "2.4.0", "390x844", f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) {_IOS}"),
    _Device(
        12,
        "mobile",
        "2.4.0",
        "412x915",
        f"Mozilla/5.0 (Linux; Android 10; K) {_CHROME.replace('Safari', 'Mobile Safari')}",
    ),
    _Device(6, "workshop", "3.8.0", "820x1180", f"Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) {_IOS}"),
)
_BOT: Final = _Device(
    0, "portal", "5.2.0", "", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
)
#: Share, country, time zone, locale; the addresses are those that RFC 5737 sets aside for documentation.
_PLACES: Final = (
    (26, "US", "America/New_York", "en-US"),
    (9, "US", "America/Los_Angeles", "en-US"),
    (20, "DE", "Europe/Berlin", "de-DE"),
    (10, "GB", "Europe/London", "en-GB"),
    (8, "FR", "Europe/Paris", "fr-FR"),
    (6, "PL", "Europe/Warsaw", "pl-PL"),
    (6, "BR", "America/Sao_Paulo", "pt-BR"),
    (6, "IN", "Asia/Kolkata", "en-IN"),
    (5, "JP", "Asia/Tokyo", "ja-JP"),
    (4, "AU", "Australia/Sydney", "en-AU"),
)
_NETWORKS: Final = ("192.0.2", "198.51.100", "203.0.113")
_PLANS: Final = ("starter", "professional", "enterprise")
_ROLES: Final = ("technician", "service-advisor", "workshop-owner", "parts-manager")
_OEMS: Final = ("Contoso Motors", "Fabrikam Automotive", "Northwind Trucks", "Tailspin Cars")


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody with a login. `legacy_id`, where there is one, is the id that an older system knows them by."""

    user_id: str
    legacy_id: str
    workshop: str
    plan: str
    role: str
    oem: str


@dataclass(slots=True)
class Visitor:
    """A browser or installation as it is now: who it is known as, who is logged in since when, who ever was.

    `user_since` is in ms since the epoch, `linked` holds userIds.
    """

    anonymous_id: str
    context: dict[str, Any]
    accounts: Sequence[Account]
    bot: bool
    user: Account | None = None
    user_since: int = 0
    linked: set[str] = field(default_factory=set)


def invent_visitors(count: int, rng: random.Random) -> list[Visitor]:
    """Visitors, of whom some share an account (one person, two devices) and some a device (two persons)."""
    accounts = [_invent_account(number, rng) for number in range(max(1, int(count * 0.5)))]
    return [_invent_visitor(accounts, rng) for _ in range(count)]


def session_shares(count: int) -> list[float]:
    """Cumulative weights for choosing the visitor of a session: few come often, most seldom."""
    return list(accumulate(1 / (rank + 1) ** _STEEPNESS for rank in range(count)))


def mint_uuid4(rng: random.Random) -> str:
    """A random UUID that is the generator's own."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def _invent_account(number: int, rng: random.Random) -> Account:
    return Account(
        user_id=f"user-{1000 + number}",
        legacy_id=f"crm-{number:06d}" if rng.random() < 0.3 else "",
        workshop=f"workshop-{number // 4}",
        plan=rng.choice(_PLANS),
        role=rng.choice(_ROLES),
        oem=rng.choice(_OEMS),
    )


def _invent_visitor(accounts: Sequence[Account], rng: random.Random) -> Visitor:
    bot = rng.random() < _BOTS
    device = _BOT if bot else rng.choices(_DEVICES, [device.share for device in _DEVICES])[0]
    _, country, zone, locale = rng.choices(_PLACES, [place[0] for place in _PLACES])[0]
    known = 0 if bot or rng.random() >= _WITH_ACCOUNT else 2 if rng.random() < _SHARED_DEVICE else 1
    context = {
        "app": device.app,
        "appVersion": device.app_version,
        "screenResolution": device.screen,
        "ip": f"{rng.choice(_NETWORKS)}.{rng.randrange(1, 255)}",
        "country": country,
        "timezone": zone,
        "locale": locale,
        "userAgent": device.user_agent,
        "library": LIBRARY,
        "libraryVersion": _VERSION,
    }
    return Visitor(mint_uuid4(rng), context, rng.sample(accounts, min(known, len(accounts))), bot)
