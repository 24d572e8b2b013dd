"""What must not survive, and what must not be touched."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streams.core.redact import (
    DEFAULT_KEYS,
    DEFAULT_URL_PARAMETERS,
    RedactionPolicy,
    may_have_secret_keys,
    may_hold_secrets,
    redact_context,
    redact_properties,
    redact_text,
    redact_url,
)

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
CARDS = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "41111 11111 11111 1",
    "4222222222222",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "3782 822463 10005",
    "6011111111111117",
    "30569309025904",
    "3530111333300000",
    "6200000000000005",
    "6759649826438453",
]
SECRETS = [*CARDS, "bob.o'neil+x@mail.example.com", "bob%40example.com", "jürgen@müller.de", JWT]
#: Part of each secret that must be nowhere in what is left.
TRACES = {secret: secret.replace("bob.o'", "") for secret in SECRETS}
CLEAN = [
    "WVWZZZ1KZAW000123",
    "1HGBH41JXMN109186",
    "550e8400-e29b-41d4-a716-446655440000",
    "41111111-1111-1111-8111-111111111111",
    "deadbeef-dead-dead-4111-111111111111",
    "1764000000123",
    "1764000000123456",
    "4111111111111112",
    "41111111111111110000",
    "a4111111111111111",
    "0.4111111111111111",
    "2026-11-24 10:00 2026-11-25 10:00",
    "react@18.2.0",
    "eyJ is no token",
    "@home, 50 % = half",
    "https://example.com/a?tab=2&page=3#top",
    "[redacted:email]",
    "naïve ☃ \ud800",
    "",
]
SIGNS = [
    "?token=",
    "&a=%40",
    '"',
    "\\",
    "\\u0040",
    "//",
    "@",
    "=",
    '":',
    "{",
    "[",
    "password",
    "eyJ",
    "4111 ",
    "1",
    "+",
    "%",
]
PIECES = st.lists(st.text(max_size=6) | st.sampled_from([*SECRETS, *CLEAN, *SIGNS]), max_size=12).map("".join)
POLICIES = st.sampled_from(
    [RedactionPolicy(), RedactionPolicy(patterns=(re.compile(r"\w+"), re.compile(r"^b"), re.compile(r"x*|a$")))]
)


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_survives_in_text(secret: str) -> None:
    redacted = redact_text(f"before {secret} after")
    assert TRACES[secret] not in redacted
    assert redacted.startswith("before ")
    assert redacted.endswith(" after")


@pytest.mark.parametrize("text", CLEAN)
def test_clean_text_comes_back_as_the_same_object(text: str) -> None:
    assert redact_text(text) is text
    assert redact_url(text) is text


def test_the_placeholder_says_what_was_there() -> None:
    assert (
        redact_text(f"a@b.example {JWT} 4111 1111 1111 1111.") == "[redacted:email] [redacted:token] [redacted:card]."
    )


@pytest.mark.parametrize("after", [" 12/29", " 123", "-123", " 2026", ", 378282246310005"])
def test_a_card_is_found_with_what_is_written_after_it(after: str) -> None:
    assert "4111" not in redact_text("card 4111 1111 1111 1111" + after)
    assert "4111" not in redact_text("card 4111111111111111" + after)


def test_a_pattern_that_matches_nothing_gives_back_the_same_object() -> None:
    policy = RedactionPolicy(patterns=(re.compile("K"),))
    text = '{"a":"b","c":[1]}'
    assert redact_text(text, policy) is text
    assert redact_properties(text, policy) is text


def test_a_fraction_beside_a_card_stays() -> None:
    assert redact_text("0.4111111111111111 4111111111111111") == "0.4111111111111111 [redacted:card]"


def test_each_kind_can_be_left_in() -> None:
    text = f"a@b.example {JWT} 4111111111111111"
    assert redact_text(text, RedactionPolicy(emails=False, cards=False, tokens=False)) is text


def test_a_tenants_own_pattern_is_taken_out_of_strings_and_numbers() -> None:
    policy = RedactionPolicy(patterns=(re.compile(r"\bK-?\d{4}\b"), re.compile(r"\b77\d\d\b")))
    text = redact_properties('{"a":["see K-1234"],"K1234":7712,"b":7812}', policy)
    assert text == '{"a":["see [redacted:pattern]"],"[redacted:pattern]":"[redacted:pattern]","b":7812}'


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("https://e.com/r?token=abc&tab=2", "https://e.com/r?token=[redacted:parameter]&tab=2"),
        ("https://e.com/#/r?accessToken=abc", "https://e.com/#/r?accessToken=[redacted:parameter]"),
        ("https://e.com/#access_token=abc&x=1", "https://e.com/#access_token=[redacted:parameter]&x=1"),
        ("/r?user%5Bpassword%5D=a;b?c&x=1", "/r?user%5Bpassword%5D=[redacted:parameter]&x=1"),
        ("/r;jsessionid=abc?x=1", "/r;jsessionid=[redacted:parameter]"),
        ("https://bob:pw@e.com/x", "https://e.com/x"),
        ("https://bob:p@w@e.com/x@y", "https://e.com/x@y"),
        ("/r?utm_term=bob%2Bx%40e.com", "/r?utm_term=[redacted:email]"),
        ("/r?q=4111+1111+1111+1111", "/r?q=[redacted:card]"),
        ("/login?next=/r?token=abc", "/login?next=/r?token=[redacted:parameter]"),
        ("/login?next=%2Fr%3Ftoken%3Dabc&x=1", "/login?next=/r%3Ftoken%3D[redacted:parameter]&x=1"),
        ("/r?q=\ud800%20bob@e.com", "/r?q=%3F%20[redacted:email]"),
        ("/users/bob@e.com/edit", "/users/[redacted:email]/edit"),
        ("mailto:bob@e.com", "mailto:[redacted:email]"),
        ("/r?token=", "/r?token="),
    ],
)
def test_a_url_loses_its_secrets_and_nothing_else(url: str, redacted: str) -> None:
    assert redact_url(url) == redacted


@pytest.mark.parametrize("name", sorted(DEFAULT_URL_PARAMETERS))
def test_each_listed_parameter_is_replaced(name: str) -> None:
    assert redact_url(f"/?a=1&{name.upper()}=s3cr3t#x") == f"/?a=1&{name.upper()}=[redacted:parameter]#x"


def test_a_url_encoded_in_a_url_400_times_does_not_raise() -> None:
    url = "/?a=" + "".join(f"%{'25' * level}3Fa%{'25' * level}3D" for level in range(400))
    assert redact_url(url) is url


def test_a_context_loses_secrets_in_what_people_write_and_is_the_same_when_clean() -> None:
    clean = {"url": "https://e.com/?tab=1", "title": "Brakes", "userAgent": "x@y.example"}
    assert redact_context(clean) is clean
    assert redact_context({**clean, "referrer": "/?token=1"}) == {**clean, "referrer": "/?token=[redacted:parameter]"}


FREE_FIELDS = [
    "url",
    "path",
    "title",
    "referrer",
    *(f"utm{name}" for name in ["Source", "Medium", "Campaign", "Term", "Content"]),
]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*FREE_FIELDS, "userAgent"]), PIECES), POLICIES)
@example({"url": "/?tok", "path": "en=1"}, RedactionPolicy())
@example({"url": "4111 1111", "path": "1111 1111"}, RedactionPolicy())
def test_a_context_is_redacted_as_each_of_its_fields_alone(context: dict[str, str], policy: RedactionPolicy) -> None:
    alone = {name: redact_url(text, policy) if name in FREE_FIELDS else text for name, text in context.items()}
    redacted = redact_context(context, policy)
    assert redacted == alone
    assert (redacted is context) == (alone == context)


@pytest.mark.parametrize("key", sorted(DEFAULT_KEYS))
@pytest.mark.parametrize("value", ["s3cr3t", 5353, ["s3cr3t", {"a": "}"}], {"b": ['"s3cr3t']}, None, True, 1.5])
def test_the_value_of_a_secret_key_is_replaced_whatever_it_is(key: str, value: object) -> None:
    camel = re.sub("_(.)", lambda found: found[1].upper(), key)
    for name in (key, key.upper(), camel, key.replace("_", "-")):
        redacted = redact_properties(json.dumps({"first": [{name: value, "kept": 1}]}))
        assert json.loads(redacted) == {"first": [{name: "[redacted:key]", "kept": 1}]}


def test_a_secret_key_is_found_behind_escapes_and_space() -> None:
    assert redact_properties('{"p\\u0061ssword" :  "x","b":1}') == '{"p\\u0061ssword" :  "[redacted:key]","b":1}'


def test_a_raw_control_character_beside_an_escape_does_not_raise() -> None:
    assert redact_properties('{"a":"\\n\ta@b.example"}') == '{"a":"\\n\\t[redacted:email]"}'


def test_what_is_not_secret_keeps_its_bytes() -> None:
    text = '{ "a": 1e400, "n": 12345678901234567890123, "s": "\\/\\u00fc", "e": "a@b.example", "z": 1.0 }'
    assert redact_properties(text) == text.replace("a@b.example", "[redacted:email]")


def test_a_number_that_is_a_card_becomes_a_string() -> None:
    redacted = redact_properties('{"a":4111111111111111,"b":[5555555555554444],"c":1764000000123,"d":-0.5}')
    assert redacted == '{"a":"[redacted:card]","b":["[redacted:card]"],"c":1764000000123,"d":-0.5}'


@pytest.mark.parametrize("secret", SECRETS)
def test_each_kind_is_found_alone(secret: str) -> None:
    assert TRACES[secret] not in redact_properties(json.dumps({"a": secret}, ensure_ascii=False))


def test_a_secret_parameter_is_found_alone() -> None:
    assert redact_properties('{"href":"/r?code=1"}') == '{"href":"/r?code=[redacted:parameter]"}'


def test_an_address_as_a_key_and_a_url_as_a_value_are_redacted() -> None:
    redacted = redact_properties('{"a@b.example":{"href":"https:\\/\\/e.com\\/?code=1"}}')
    assert json.loads(redacted) == {"[redacted:email]": {"href": "https://e.com/?code=[redacted:parameter]"}}


def test_escaped_signs_hide_nothing() -> None:
    text = json.dumps(
        {"a": f"x\n{CARDS[0]}\té", "b": "a\\u0040b.example", "c": "\ud800 4111\t", "d": "a\u0040b.example"}
    )
    escaped = text.replace("@", "\\u0040").replace("4111111111111111", "\\u0034111111111111111")
    assert json.loads(redact_properties(escaped)) == {
        "a": "x\n[redacted:card]\té",
        "b": "a\\u0040b.example",
        "c": "\ud800 4111\t",
        "d": "[redacted:email]",
    }


@pytest.mark.parametrize("value", [*CLEAN, 1.5, None, 12345678901234567890123])
def test_clean_properties_come_back_as_the_same_object(value: object) -> None:
    for text in (json.dumps({"a": [value]}), json.dumps({"a": {"b": value}}, ensure_ascii=False)):
        assert redact_properties(text) is text


def test_neither_depth_nor_size_can_raise() -> None:
    deep = '{"a":' * 100_000 + '"a@b.example"' + "}" * 100_000
    assert redact_properties(deep) == deep.replace("a@b.example", "[redacted:email]")
    assert redact_properties('{"password":' + "[" * 200_000) == '{"password":"[redacted:key]"'


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.data(), st.sampled_from(SECRETS), st.booleans(), st.sampled_from(["plain", "key", "number", "secret key"]))
def test_a_planted_secret_survives_at_no_depth(data: st.DataObject, secret: str, ascii_only: bool, where: str) -> None:
    planted: Any = f"see {secret}, please"
    if where == "key":
        planted = {secret: 1}
    elif where == "number" and secret.isdigit():
        planted = int(secret)
    elif where == "secret key":
        planted = {data.draw(st.sampled_from(sorted(DEFAULT_KEYS))): data.draw(TREES), "x": secret}
    for name in data.draw(st.lists(st.text(max_size=5), max_size=20)):
        planted = {name: planted, "other": data.draw(SCALARS)} if data.draw(st.booleans()) else [planted]
    text = json.dumps({"top": planted}, ensure_ascii=ascii_only)
    redacted = redact_properties(text)
    assert TRACES[secret] not in json.dumps(json.loads(redacted), ensure_ascii=False)
    assert redact_properties(redacted) is redacted


@settings(deadline=None)
@given(PIECES, POLICIES)
@example("//a@/x@", RedactionPolicy())
@example("4111 1111 1111 1111 4222 2222 22222", RedactionPolicy())
@example('"a\\u0040b.example?token=\\q"', RedactionPolicy())
def test_redacting_any_text_twice_is_redacting_it_once(text: str, policy: RedactionPolicy) -> None:
    for redact in (redact_text, redact_url, redact_properties):
        once = redact(text, policy)
        assert redact(once, policy) == once


@settings(deadline=None)
@given(TREES)
def test_what_is_redacted_is_still_json(tree: object) -> None:
    text = json.dumps({"a": tree, "token": tree, "e": "a@b.example"})
    kept = json.loads(redact_properties(text))
    assert kept["token"] == "[redacted:key]"
    assert set(kept) == {"a", "token", "e"}


@settings(deadline=None)
@given(st.lists(st.one_of(PIECES, TREES.map(json.dumps), st.sampled_from(SECRETS)), max_size=5), POLICIES)
def test_lines_looked_at_together_hide_nothing_that_one_alone_shows(texts: list[str], policy: RedactionPolicy) -> None:
    if not may_hold_secrets("\n".join(texts), policy):
        assert [text for text in texts if redact_text(text, policy) is not text] == []
        values = [_parsed(text) for text in texts]
        if not may_have_secret_keys("\n".join(texts), values, policy):
            assert [text for text in texts if redact_properties(text, policy) is not text] == []
        for text, value in zip(texts, values, strict=True):
            if not may_have_secret_keys(text, [value], policy):
                assert redact_properties(text, policy) is text


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


PARAMETERS = st.lists(
    st.sampled_from([*sorted(DEFAULT_URL_PARAMETERS)[:5], "a", "user[password]", "a%5B", "\n", " ", *"?&#;=[]%+"]),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PARAMETERS.map("".join), max_size=4))
def test_a_secret_parameter_is_seen_in_lines_looked_at_together_as_often_as_before(texts: list[str]) -> None:
    policy = RedactionPolicy()
    for _ in range(2):
        for text in texts:
            if redact_url(text) is not text:
                assert may_hold_secrets("\n".join(texts), policy)
                assert may_hold_secrets(text, policy)


def test_the_memory_for_harmless_parameters_forgets_no_secret_one_and_is_bounded() -> None:
    policy = RedactionPolicy(url_parameters=frozenset({"pin"}))
    for _ in range(2):
        assert policy.allows_parameters(["a", "b%5B"])
        assert not policy.allows_parameters(["a", "user[P-i_n]"])
        assert not policy.allows_parameters(["%70in"])
    assert policy.allows_parameters(["x" * 100_000, *map(str, range(10_000))])
    assert not policy.allows_parameters(["pin"])
    for memory in (policy._harmless_parameters, policy._harmless):
        assert len(memory) <= 4096
        assert all(len(name) <= 64 for name in memory)


def test_the_memory_for_harmless_names_forgets_no_secret_one() -> None:
    policy = RedactionPolicy(keys=frozenset({"pin"}))
    for _ in range(2):
        assert policy.allows_names(["a", "b"])
        assert not policy.allows_names(["a", "P-i_n"])
    assert policy.allows_names([str(number) for number in range(10_000)])
    assert not policy.allows_names(["pin"])
    assert policy == RedactionPolicy(keys=frozenset({"pin"}))
