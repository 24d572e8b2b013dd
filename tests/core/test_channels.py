"""Which channel a page view belongs to."""

import pytest

from streams.core.channels import Channel, channel_of_origin, classify_channel, site_of


def channel(
    *, source: str = "", medium: str = "", click_id: str = "", referrer: str = "", internal: bool = False
) -> str:
    return classify_channel(
        source=source, medium=medium, click_id=click_id, referrer_domain=referrer, internal=internal
    ).value


def test_without_a_referrer_or_a_tag_a_visit_is_direct() -> None:
    assert channel() == "direct"


def test_from_the_same_site_it_is_internal() -> None:
    assert channel(internal=True) == "internal"


@pytest.mark.parametrize(
    ("referrer", "expected"),
    [
        ("google.com", "organic_search"),
        ("google.co.uk", "organic_search"),
        ("news.google.de", "organic_search"),
        ("r.search.yahoo.com", "organic_search"),
        ("duckduckgo.com", "organic_search"),
        ("com.google.android.googlequicksearchbox", "organic_search"),
        ("l.facebook.com", "organic_social"),
        ("t.co", "organic_social"),
        ("out.reddit.com", "organic_social"),
        ("mail.google.com", "email"),
        ("com.google.android.gm", "email"),
        ("chatgpt.com", "ai_assistant"),
        ("gemini.google.com", "ai_assistant"),
        ("partner.example", "referral"),
        ("google.evil.example", "referral"),
        ("google.github.io", "referral"),
        ("nott.co", "referral"),
    ],
)
def test_the_referrer_decides_when_nothing_is_tagged(referrer: str, expected: str) -> None:
    assert channel(referrer=referrer) == expected


@pytest.mark.parametrize(
    ("source", "medium", "click_id", "expected"),
    [
        ("google", "cpc", "", "paid_search"),
        ("Google", " CPC ", "gclid", "paid_search"),
        ("facebook", "cpc", "fbclid", "paid_social"),
        ("facebook", "paid", "", "paid_social"),
        ("newsnetwork", "paid_social", "", "paid_social"),
        ("newsnetwork", "cpc", "", "paid_other"),
        ("newsnetwork", "cpc", "msclkid", "paid_search"),
        ("google", "organic", "", "organic_search"),
        ("google", "", "", "organic_search"),
        ("adroll", "display", "", "display"),
        ("", "", "dclid", "display"),
        ("", "", "gclid", "paid_search"),
        ("", "", "ttclid", "paid_social"),
        ("", "", "fbclid", "organic_social"),
        ("newsletter", "", "", "email"),
        ("acme", "email", "", "email"),
        ("acme", "affiliate", "", "affiliate"),
        ("acme", "sms", "", "message"),
        ("linkedin", "social", "", "organic_social"),
        ("chatgpt.com", "", "", "ai_assistant"),
        ("acme", "referral", "", "referral"),
        ("spring-fair", "qr-code", "", "campaign"),
        ("spring-fair", "", "", "campaign"),
    ],
)
def test_a_tag_or_a_click_decides_before_the_referrer(source: str, medium: str, click_id: str, expected: str) -> None:
    assert channel(source=source, medium=medium, click_id=click_id, referrer="partner.example") == expected


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("example.com", "example.com"),
        ("help.example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("help.example.co.uk", "example.co.uk"),
        ("acme.github.io", "acme.github.io"),
        ("192.168.0.1", "192.168.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("localhost", "localhost"),
        ("", ""),
    ],
)
def test_the_hosts_of_a_site_share_its_name(host: str, site: str) -> None:
    assert site_of(host) == site


def test_a_source_nobody_knows_has_no_channel() -> None:
    assert channel_of_origin("slack.com") is Channel.ORGANIC_SOCIAL
    assert channel_of_origin("nobody") is None
