"""What is read from user agent strings as browsers, apps, libraries and bots send them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.enrich import UserAgent
from streams.user_agents import parse_user_agent

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
CHROME = f"{WEBKIT} Chrome/124.0.0.0"
SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4"


@pytest.mark.parametrize(
    ("ua", "expected"),
    [
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36",
            UserAgent("Chrome", "124.0.0", "Windows", "10", "desktop"),
        ),
        (
            f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36 Edg/124.0.2478.51",
            UserAgent("Edge", "124.0.2478", "Windows", "10", "desktop"),
        ),
        (
            f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {SAFARI} Safari/605.1.15",
            UserAgent("Safari", "17.4", "Mac OS X", "10.15.7", "desktop"),
        ),
        (
            "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
            UserAgent("Firefox", "125.0", "Ubuntu", "", "desktop"),
        ),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) {SAFARI} Mobile/15E148 Safari/604.1",
            UserAgent("Mobile Safari", "17.4", "iOS", "17.4.1", "mobile"),
        ),
        (
            f"Mozilla/5.0 (iPad; CPU OS 17_4 like Mac OS X) {SAFARI} Mobile/15E148 Safari/604.1",
            UserAgent("Mobile Safari", "17.4", "iOS", "17.4", "tablet"),
        ),
        (
            f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {CHROME} Mobile Safari/537.36",
            UserAgent("Chrome Mobile", "124.0.0", "Android", "14", "mobile"),
        ),
    ],
)
def test_a_browser_is_read_whole(ua: str, expected: UserAgent) -> None:
    assert parse_user_agent(ua) == expected


@pytest.mark.parametrize(
    ("ua", "device_type"),
    [
        (f"Mozilla/5.0 (Linux; Android 13; SM-X700) {CHROME} Safari/537.36", "tablet"),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_6) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
            "tablet",
        ),
        ("Mozilla/5.0 (Android 14; Tablet; rv:125.0) Gecko/125.0 Firefox/125.0", "tablet"),
        ("Mozilla/5.0 (PlayStation 5 3.03/SmartTV) AppleWebKit/605.1.15 (KHTML, like Gecko)", "console"),
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; Xbox; Xbox One) {CHROME} Edge/44.18363.8131", "console"),
        ("Mozilla/5.0 (SMART-TV; Linux; Tizen 5.0) AppleWebKit/538.1 (KHTML, like Gecko) Version/5.0 TV", "tv"),
        (f"Mozilla/5.0 (Web0S; Linux/SmartTV) {CHROME} Safari/537.36", "tv"),
        (f"Mozilla/5.0 (Linux; Android 9; AFTKA) {CHROME} Safari/537.36", "tv"),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {CHROME} Safari/537.36", "desktop"),
        (f"Mozilla/5.0 (Linux; Android 9; CUBOT_X19) {CHROME} Mobile Safari/537.36", "mobile"),
        ("Dalvik/2.1.0 (Linux; U; Android 12; Pixel 6 Build/SD1A.210817.023) Mobile", "mobile"),
        ("HelperApp/1 CFNetwork/1408.0.4 Darwin/22.5.0", "mobile"),
        ("okhttp/4.9.1", ""),
    ],
)
def test_the_kind_of_device_is_known_and_no_person_is_a_bot(ua: str, device_type: str) -> None:
    found = parse_user_agent(ua)
    assert (found.device_type, found.bot) == (device_type, False)


@pytest.mark.parametrize(
    "ua",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        f"Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X) {CHROME} Mobile Safari/537.36 (compatible; Googlebot/2.1)",
        f"Mozilla/5.0 {WEBKIT}; compatible; GPTBot/1.2; +https://openai.com/gptbot",
        f"Mozilla/5.0 {WEBKIT}; compatible; ChatGPT-User/1.0; +https://openai.com/bot",
        f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/120.0.0.0 Safari/537.36",
        f"Mozilla/5.0 (X11; Linux x86_64) {CHROME} Safari/537.36 Chrome-Lighthouse",
        "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
        "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
        "facebookexternalhit/1.1",
        "AcmeCrawler/1.0",
        "Acme-Analytics-Bot/1.0",
        "Feedly/1.0 (+http://www.feedly.com/fetcher.html; like FeedFetcher-Google)",
        "Qwantify/1.0",
        "curl/8.1.2",
        "Wget/1.21",
        "python-requests/2.31.0",
        "Python-urllib/3.11",
        "aiohttp/3.9",
        "Go-http-client/1.1",
        "Java/17.0.1",
        "Apache-HttpClient/4.5",
        "PostmanRuntime/7.36",
        "kube-probe/1.29",
    ],
)
def test_a_program_that_fetches_by_itself_is_a_bot(ua: str) -> None:
    found = parse_user_agent(ua)
    assert (found.device_type, found.bot) == ("bot", True)


@pytest.mark.parametrize(
    "ua",
    [
        "analytics-python/2.3.3",
        "analytics-python/2.3.3 python-requests/2.31.0",
        "analytics-node-next/latest",
        "analytics-java/3.4 Java/17.0.1",
        "analytics-ruby/2.4.0",
        "segment-analytics-go",
        "headrace-node/1.0.0",
        "headrace-node/1.0.0 (monitoring service)",
        "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
        "node",
        "axios/1.6.0",
        "Dart/3.2 (dart:io)",
        "",
        "  ",
    ],
)
def test_a_server_that_tells_of_its_users_is_no_bot_and_no_device(ua: str) -> None:
    found = parse_user_agent(ua)
    assert (found.device_type, found.bot) == ("", False)


def test_an_empty_string_says_nothing() -> None:
    assert parse_user_agent("") == UserAgent()


@settings(deadline=None)
@given(st.text())
def test_no_text_raises(ua: str) -> None:
    assert isinstance(parse_user_agent(ua), UserAgent)


@pytest.mark.parametrize("ua", ["Mozilla/5.0 " * 100_000, "\ud800" * 10**6, "(" * 10**6, "Android " * 10**5])
def test_a_megabyte_is_read_no_further_than_a_real_one(ua: str) -> None:
    assert parse_user_agent(ua) is parse_user_agent(ua[:1024])
