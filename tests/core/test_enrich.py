"""What enrichment adds to a context, and what it leaves alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.context import CONTEXT_FIELDS
from streams.core.enrich import COUNTRIES, PAGE_FIELDS, UserAgent, enrich, enrich_page, split_url
from streams.core.pages import Pages
from streams.core.redact import DEFAULT_POLICY, FREE_FIELDS, redact_context

CHROME = UserAgent("Chrome", "124.0.0", "Windows", "10", "desktop")


def enriched(**context: str) -> dict[str, str]:
    return enrich(context, user_agent_parser=lambda ua: CHROME if ua else UserAgent(), country_of_ip=lambda _: "")


def test_an_empty_context_stays_empty_in_every_field() -> None:
    assert enriched() == dict.fromkeys((*CONTEXT_FIELDS, "bot"), "")


def test_the_user_agent_fills_what_the_client_left_open() -> None:
    context = enriched(userAgent="x")
    assert [context[name] for name in ("browser", "browserVersion", "os", "osVersion", "deviceType", "bot")] == [
        "Chrome",
        "124.0.0",
        "Windows",
        "10",
        "desktop",
        "",
    ]


def test_what_the_client_sent_is_never_overwritten() -> None:
    sent = {name: f"own {name}" for name in CONTEXT_FIELDS} | {"country": "CH"}
    assert enriched(**sent) == sent | {"bot": ""}


def test_a_version_is_not_put_beside_a_name_it_does_not_belong_to() -> None:
    context = enriched(userAgent="x", browser="Our App", os="Windows")
    assert (context["browserVersion"], context["osVersion"]) == ("", "10")


def test_a_bot_is_marked_whatever_the_client_says() -> None:
    context = enrich(
        {"userAgent": "x", "bot": ""},
        user_agent_parser=lambda _: UserAgent(device_type="bot", bot=True),
        country_of_ip=lambda _: "",
    )
    assert (context["bot"], context["deviceType"]) == ("1", "bot")
    assert enriched(userAgent="x", bot="1")["bot"] == ""


@pytest.mark.parametrize(
    ("context", "country"),
    [
        ({"country": "de", "ip": "1.2.3.0"}, "DE"),
        ({"country": "XK"}, "XK"),
        ({"country": "XX", "ip": "1.2.3.0", "timezone": "Asia/Tokyo"}, "NL"),
        ({"country": "T1", "timezone": "Asia/Tokyo"}, "JP"),
        ({"country": "Germany"}, ""),
        ({"timezone": "Asia/Calcutta"}, "IN"),
        ({"timezone": "America/Argentina/Buenos_Aires"}, "AR"),
        ({"timezone": "Africa/Asmera"}, "ER"),
        ({"timezone": "UTC"}, ""),
        ({"timezone": "Mars/Olympus"}, ""),
    ],
)
def test_the_country_is_the_clients_then_the_addresss_then_the_time_zones(
    context: dict[str, str], country: str
) -> None:
    known = {"1.2.3.0": "NL"}
    found = enrich(context, user_agent_parser=lambda _: UserAgent(), country_of_ip=lambda ip: known.get(ip, "??"))
    assert found["country"] == country


def test_there_are_249_countries_and_kosovo() -> None:
    assert len(COUNTRIES) == 250


def test_the_url_gives_path_and_campaign() -> None:
    page = enrich_page(
        {
            "url": "https://Example.com/a/b?utm_source=Acme%20Inc&UTM_Medium=email&utm_campaign=f%C3%BCr+alle&utm_source=2"
        }
    )
    assert page == {
        "path": "/a/b",
        "referrerDomain": "",
        "channel": "email",
        "utmSource": "Acme Inc",
        "utmMedium": "email",
        "utmCampaign": "für alle",
        "utmTerm": "",
        "utmContent": "",
    }


def test_a_sent_campaign_field_stays_and_the_url_fills_the_others() -> None:
    page = enrich_page({"url": "https://example.com/?utm_source=a&utm_medium=cpc", "utmSource": "google"})
    assert (page["utmSource"], page["utmMedium"], page["channel"]) == ("google", "cpc", "paid_search")


@pytest.mark.parametrize(
    ("url", "referrer", "domain", "channel"),
    [
        ("https://example.com/", "", "", "direct"),
        ("https://example.com/", "https://www.google.com/", "google.com", "organic_search"),
        ("https://www.example.com/", "https://example.com/x", "", "internal"),
        ("https://app.example.com/", "https://help.example.com/x", "", "internal"),
        ("https://a.github.io/", "https://b.github.io/", "b.github.io", "referral"),
        ("https://example.com/?gclid=1", "https://example.com/", "", "paid_search"),
        ("https://example.com/?gclid=", "", "", "direct"),
        ("https://example.com/?fbclid=1", "https://l.facebook.com/", "l.facebook.com", "organic_social"),
        ("https://example.com/", "android-app://com.google.android.gm/", "com.google.android.gm", "email"),
        ("", "https://partner.example/", "partner.example", "referral"),
        ("", "", "", ""),
    ],
)
def test_the_referrer_gives_its_domain_and_the_channel(url: str, referrer: str, domain: str, channel: str) -> None:
    page = enrich_page({"url": url, "referrer": referrer})
    assert (page["referrerDomain"], page["channel"]) == (domain, channel)


def test_a_sent_referrer_domain_counts_for_the_channel() -> None:
    page = enrich_page({"url": "https://www.example.com/", "referrerDomain": "www.example.com"})
    assert (page["referrerDomain"], page["channel"]) == ("www.example.com", "internal")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://www.Example.com:8443/a?b=c#d", ("example.com", "/a", "b=c")),
        ("https://user:pw@example.com", ("example.com", "/", "")),
        ("http://[2001:db8::1]:80/x", ("2001:db8::1", "/x", "")),
        ("http://[::1", ("::1", "/", "")),
        ("//cdn.example.com/x", ("cdn.example.com", "/x", "")),
        ("/a/b?c", ("", "/a/b", "c")),
        ("file:///x", ("", "/x", "")),
        ("https://example.com./?x=https://a/b", ("example.com", "/", "x=https://a/b")),
        ("http://exa\x00mple.com/", ("", "/", "")),
        ("about:blank", ("", "", "")),
        ("", ("", "", "")),
    ],
)
def test_a_url_is_split_however_odd_it_is(url: str, parts: tuple[str, str, str]) -> None:
    assert split_url(url) == parts


HOSTILE = [
    "http://[::1",
    "http://\ud800\x00/\udfff?utm_source=%ff%ud800",
    "?" * 10**6,
    "utm_" * 300_000,
    "\ud800" * 10**6,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_in_every_field_never_raises(text: str) -> None:
    context = enriched(**dict.fromkeys(CONTEXT_FIELDS, text))
    assert context["url"] == text
    assert set(enrich_page({"url": text, "referrer": text})) == set(PAGE_FIELDS)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(CONTEXT_FIELDS), st.text() | st.text("a.:/@[]?#&=%")))
def test_any_context_comes_back_whole_with_every_field(context: dict[str, str]) -> None:
    found = enriched(**context)
    assert set(found) == {*CONTEXT_FIELDS, "bot"}
    kept = {name: value for name, value in context.items() if value and name != "country"}
    assert kept.items() <= found.items()


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(CONTEXT_FIELDS), st.text()))
def test_enriching_twice_is_enriching_once(context: dict[str, str]) -> None:
    once = enriched(**context)
    assert enriched(**once) == once


def test_a_page_is_the_same_when_it_is_remembered_and_when_it_is_too_long_for_that() -> None:
    pages, urls = Pages(DEFAULT_POLICY), ("/a?utm_source=news", "/b?token=1", f"/c?utm_term={'x' * 9_000}")
    for url in (*urls, *urls):
        context = {**dict.fromkeys(CONTEXT_FIELDS, ""), "url": f"https://shop.example{url}", "title": "to a@b.example"}
        redacted = redact_context(context)
        expected = {**redacted, **enrich_page(redacted)}
        page = pages.of(context)
        assert page == {name: expected[name] for name in page}
        assert set(page) == {*FREE_FIELDS, *PAGE_FIELDS}
