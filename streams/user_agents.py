"""User agent strings, read by ua-parser (its native matcher where installed) and a short list of our own."""

import re
from functools import lru_cache
from typing import Final

import ua_parser

from streams.core.enrich import UserAgent

_CACHE_SIZE: Final = 16_384
#: Longer than any real one; it bounds the cache's memory and a matcher's time.
_MAX_LENGTH: Final = 1024

#: Programs that fetch by themselves, beyond those ua-parser calls spiders. `cubot` is a maker of phones. Libraries that
#: apps and servers send their own product events with (okhttp, node, axios, Dart, CFNetwork) are not in it.
_BOT: Final = re.compile(
    r"(?<!cu)bot(?![a-z])|crawl|spider|slurp|scrap[ey]|headless|phantomjs|fetcher|validator|puppeteer|playwright|selenium|webdriver"
    r"|lighthouse|pagespeed|gtmetrix|pingdom|uptime|statuscake|site24x7|synthetic|monitor(?:ing|\b)|checkly|nagios"
    r"|zabbix|prometheus|blackbox.exporter|kube-probe|healthcheck|facebookexternalhit|meta-external|^whatsapp/|preview"
    r"|ia_archiver|mediapartners|google-(?:read|extended|inspection|safety)|chatgpt-user|perplexity-user|claude-user"
    r"|^curl/|^wget/|^python|^aiohttp|^httpx|^go-http-client|^java/|^apache-httpclient|^libwww|^lwp|^perl|^ruby"
    r"|^postman|^insomnia|^httpie|^k6/|^apachebench|^siege|^wrk|^guzzlehttp|^restsharp|^powershell",
    re.IGNORECASE,
)
#: Analytics libraries name themselves first; what they send are the events of real users, told by a server.
_LIBRARY: Final = re.compile(
    r"(?![\w.-]*(?:bot|crawl|spider))(?:[\w.-]*analytics[\w.-]*|segment|headrace|rudder|posthog|mixpanel|amplitude|snowplow)\b",
    re.IGNORECASE,
)
_TV: Final = re.compile(
    r"smart-?tv|apple ?tv|google ?tv|android tv|hbbtv|\broku|\baft[a-z]|bravia|web0s|netcast|viera|crkey|\btv\b",
    re.IGNORECASE,
)
_CONSOLE: Final = re.compile(r"playstation|xbox|nintendo", re.IGNORECASE)
_TABLET: Final = re.compile(r"ipad|tablet|kindle|\bsilk/(?!.*mobile)|playbook|android(?!.*mobi)", re.IGNORECASE)
#: An iPad that asks for desktop pages still says Mobile/ inside an app; in Safari nothing tells it from a Mac.
_IPAD_AS_MAC: Final = re.compile(r"macintosh.* mobile/", re.IGNORECASE)
_MOBILE: Final = re.compile(
    r"mobi|iphone|ipod|android|windows phone|opera mini|blackberry|bb10|symbian|kaios|cfnetwork", re.IGNORECASE
)
_DESKTOP: Final = re.compile(r"windows nt|macintosh|x11|\bcros\b|linux", re.IGNORECASE)
_DEVICE_TYPES: Final = (
    ("console", _CONSOLE),
    ("tv", _TV),
    ("tablet", _IPAD_AS_MAC),
    ("tablet", _TABLET),
    ("mobile", _MOBILE),
    ("desktop", _DESKTOP),
)


def parse_user_agent(ua: str) -> UserAgent:
    """What `ua` says; never raises, and an empty one says nothing (it is no bot). Remembers the latest 16,384."""
    return _parse(ua[:_MAX_LENGTH])


@lru_cache(maxsize=_CACHE_SIZE)
def _parse(ua: str) -> UserAgent:
    if not ua.strip():
        return UserAgent()
    # The native matcher takes UTF-8 only, and a lone surrogate has none.
    found = ua_parser.parse(ua.encode("utf-8", "replace").decode())
    library = _LIBRARY.match(ua) is not None
    spider = found.device is not None and found.device.family == "Spider"
    bot = not library and (spider or _BOT.search(ua) is not None)
    return UserAgent(
        browser=found.user_agent.family if found.user_agent else "",
        browser_version=_version(found.user_agent),
        os=found.os.family if found.os else "",
        os_version=_version(found.os),
        device_type="bot" if bot else "" if library else _device_type(ua),
        bot=bot,
    )


def _version(part: ua_parser.UserAgent | ua_parser.OS | None) -> str:
    """At most three numbers: the fourth only multiplies the distinct values."""
    if part is None:
        return ""
    numbers = (part.major, part.minor, part.patch)
    return ".".join(number for number in numbers if number)


def _device_type(ua: str) -> str:
    return next((device_type for device_type, pattern in _DEVICE_TYPES if pattern.search(ua)), "")
