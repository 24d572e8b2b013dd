"""Takes out what must not be stored: e-mail addresses, card numbers, signed tokens, values of secret properties.

JSON is edited in place, token by token, not parsed and written again: what is clean keeps its bytes, numbers keep their
digits, and neither depth nor a broken document can raise. Redacting twice is redacting once. Every pattern below starts
only where a run of its characters starts, so the time is linear in the text.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import repeat
from typing import Any, Final
from urllib.parse import quote, unquote, unquote_plus

from streams.core.cards import may_hold_cards, redact_cards


def _read_names(kind: str) -> frozenset[str]:
    lines = files("streams").joinpath("data/secret_names.txt").read_text("ascii").splitlines()
    return frozenset(name for line in lines if line.startswith(f"{kind} ") for name in line.split()[1:])


DEFAULT_KEYS: Final = _read_names("key")
DEFAULT_URL_PARAMETERS: Final = _read_names("parameter")
#: The fields of a context in which people and applications write freely.
FREE_FIELDS: Final = (
    "url",
    "path",
    "title",
    "referrer",
    "utmSource",
    "utmMedium",
    "utmCampaign",
    "utmTerm",
    "utmContent",
)

_PLACEHOLDER: Final = re.compile(r"\[redacted:[a-z]+\]")
_EMAIL: Final = re.compile(
    r"(?<![\w.+-])(?:[\w.+-]|%(?!40))++(?:@|%40)(?:[\w-]+\.)+[^\W\d_][\w-]+"  # react@18.2.0 is none
)
#: JSON Web Tokens, RFC 7519: three parts signed, five encrypted; `eyJ` is `{"` in base64.
_TOKEN: Final = re.compile(
    r"(?:(?<![A-Za-z0-9_-])|(?<=%[0-9A-Fa-f]{2}))eyJ[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]{2,}+(?:\.[A-Za-z0-9_-]*+){0,3}"
)
_URL_USER: Final = re.compile(r"//(?:[^/?#\s]*@/*)+")
_URL_PARAMETER: Final = re.compile(r"(?<=[?&#;])([^=&#;?\s]++)=")
#: The same in half the time, for those who ask for the names alone.
_URL_PARAMETER_NAME: Final = re.compile(r"[?&#;]([^=&#;?\s]++)=")
#: Where a value ends: a secret one as late as it may, another one before anything that may start a parameter.
_SECRET_VALUE: Final = re.compile(r"[^&#]*+")
_OTHER_VALUE: Final = re.compile(r"[^&#;?]*+")
#: How often a url may be the encoded parameter of another one.
_URL_DEPTH: Final = 3
#: A string with, for a key, its colon; or a number.
_JSON_TOKEN: Final = re.compile(
    r'"((?:[^"\\]++|\\.)*+)(?:"(\s*+:\s*+)?|\\?\Z)|(?<![\w.+-])-?[0-9][0-9.eE+-]*+', re.DOTALL
)
_JSON_NESTING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[{\[]|[}\]]', re.DOTALL)
_JSON_ESCAPE: Final = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
_JSON_BARE: Final = re.compile(r"[^,}\]\s]*+")


#: Clients choose the names of properties and parameters, so the memory for them has to be bounded.
_REMEMBERED_NAMES: Final = 4096
_REMEMBERED_LENGTH: Final = 64


def fold_name(name: str) -> str:
    """One spelling of accessToken, access_token, Access-Token."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


@dataclass(frozen=True)
class RedactionPolicy:
    """What to take out. Names of keys and parameters count in any case, and with or without `_`, `-` and spaces.

    Each of `patterns` is searched in every string and number; with one, no text can skip the search.
    """

    emails: bool = True
    cards: bool = True
    tokens: bool = True
    keys: frozenset[str] = DEFAULT_KEYS
    patterns: tuple[re.Pattern[str], ...] = ()
    url_parameters: frozenset[str] = DEFAULT_URL_PARAMETERS
    #: Names of properties already found to be none of `keys`, as sent; few, since all events of a kind share theirs.
    _harmless: set[str] = field(default_factory=set, init=False, compare=False, repr=False)
    #: The same of parameters and `url_parameters`.
    _harmless_parameters: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", frozenset(map(fold_name, self.keys)))
        object.__setattr__(self, "url_parameters", frozenset(map(fold_name, self.url_parameters)))

    def allows_names(self, names: Collection[str]) -> bool:
        """Whether none of the names is one of `keys`."""
        return self._harmless.issuperset(names) or _note_harmless(
            names, self._harmless, lambda name: fold_name(name) in self.keys
        )

    def allows_parameters(self, names: Collection[str]) -> bool:
        """Whether none of the names, as they stand in urls, is one of `url_parameters`."""
        return self._harmless_parameters.issuperset(names) or _note_harmless(
            names, self._harmless_parameters, lambda name: _is_secret_parameter(name, self)
        )


def _note_harmless(names: Iterable[str], known: set[str], is_secret: Callable[[str], bool]) -> bool:
    """Whether no name is secret; then they are known from now on."""
    new = [name for name in names if name not in known]
    if any(map(is_secret, new)):
        return False
    room = _REMEMBERED_NAMES - len(known)
    known.update([name for name in new if len(name) <= _REMEMBERED_LENGTH][: max(room, 0)])
    return True


DEFAULT_POLICY: Final = RedactionPolicy()


def redact_text(text: str, policy: RedactionPolicy = DEFAULT_POLICY) -> str:
    """`text` without addresses, cards, tokens and what the patterns match; the same object when it has none."""
    redacted = text
    if policy.tokens and "J" in redacted and "eyJ" in redacted:
        redacted = _TOKEN.sub("[redacted:token]", redacted)
    if policy.emails and ("@" in redacted or "%40" in redacted):
        redacted = _EMAIL.sub("[redacted:email]", redacted)
    if policy.cards and may_hold_cards(redacted):
        redacted = redact_cards(redacted)
    for pattern in policy.patterns:
        redacted = _redact_pattern(redacted, pattern)
    return text if redacted == text else redacted


def redact_url(url: str, policy: RedactionPolicy = DEFAULT_POLICY) -> str:
    """`redact_text`, and the values of listed parameters in query and fragment; a user and password are dropped.

    An encoded value is looked into as a url of its own (`?next=%2Freset%3Ftoken%3D...`).
    """
    return _redact_url(url, policy, _URL_DEPTH)


def redact_context(context: Mapping[str, str], policy: RedactionPolicy = DEFAULT_POLICY) -> Mapping[str, str]:
    """The context with its urls, title and campaign fields redacted, whichever of them it has; the same when clean."""
    get = context.get
    if not may_hold_secrets("\n".join(map(get, FREE_FIELDS, repeat(""))), policy):
        return context  # as nearly every one is
    changed = {}
    for name in FREE_FIELDS:
        if (value := get(name)) and (redacted := redact_url(value, policy)) is not value:
            changed[name] = redacted
    return {**context, **changed} if changed else context


def redact_properties(json_text: str, policy: RedactionPolicy = DEFAULT_POLICY) -> str:
    """The JSON text of an object without secrets in its strings, numbers and keys, at any depth.

    The value of a secret key, whatever its type, is replaced whole. A string is treated as a possible url. Clean text
    comes back as the same object. JSON inside a string is text: its keys are not looked at.
    """
    if not (may_hold_secrets(json_text, policy) or may_have_secret_keys(json_text, (), policy)):
        return json_text
    pieces: list[str] = []
    copied = position = 0
    while found := _JSON_TOKEN.search(json_text, position):
        start, position = found.span()
        replacement = _redact_token(found, policy)
        if found[2] is not None and fold_name(_decode(found[1])) in policy.keys:
            position = _end_of_value(json_text, found.end())
            replacement = (replacement or found.group()) + '"[redacted:key]"'
        if replacement is not None:
            pieces += json_text[copied:start], replacement
            copied = position
    redacted = "".join(pieces) + json_text[copied:]
    return json_text if redacted == json_text else redacted


def may_hold_secrets(text: str, policy: RedactionPolicy) -> bool:
    """Whether a closer look at a text, or at lines of JSON texts, is due because of anything but the keys in it.

    To look at all texts of a record at once costs a tenth of looking at each, and to look for one character a twentieth
    of looking for several. An escape can hide any of the signs.
    """
    return (
        bool(policy.patterns)
        or "@" in text
        or ("J" in text and "eyJ" in text)
        or ("\\" in text and "\\u" in text)
        or ("%" in text and "%40" in text)
        or may_hold_cards(text)
        or _may_hold_parameters(text, policy)
    )


def may_have_secret_keys(json_texts: str, values: Sequence[Any], policy: RedactionPolicy) -> bool:
    """Whether a closer look at lines of JSON text is due because of their keys; `values` is what each was parsed into.

    A value is None where it was not parsed; without `values` the text alone decides.
    """
    objects = json_texts.count("{")
    if values and objects == len(values) and "[" not in json_texts and set(map(type, values)) == {dict}:
        return not policy.allows_names(set().union(*values))  # nothing nested
    return not policy.keys.isdisjoint(fold_name(json_texts).split('"'))


def _redact_token(found: re.Match[str], policy: RedactionPolicy) -> str | None:
    """The new text of a JSON string or number, None when it stays; a number becomes a string."""
    body, colon = found[1], found[2] or ""
    if body is None:
        number = found.group()
        redacted = redact_text(number, policy)
        return None if redacted is number else f'"{redacted}"'
    text = _decode(body)
    redacted = redact_url(text, policy)
    if redacted is text:
        return None
    return f'"{redacted}"{colon}' if text is body else json.dumps(redacted) + colon


def _decode(body: str) -> str:
    """The text of a JSON string, the same object when nothing in it is escaped; a broken escape is a backslash."""
    if "\\" not in body:
        return body
    whole = _JSON_ESCAPE.sub(lambda found: found.group() if found[1] else r"\\", body)
    text: str = json.loads(f'"{whole}"', strict=False)
    return text


def _end_of_value(json_text: str, start: int) -> int:
    """Where the JSON value at `start` ends; at the end of the text if it never does."""
    if json_text[start : start + 1] not in ('"', "{", "["):
        bare = _JSON_BARE.match(json_text, start)
        return bare.end() if bare else start
    depth = 0
    for found in _JSON_NESTING.finditer(json_text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found.group(), 0)
        if depth <= 0:
            return found.end()
    return len(json_text)


def _redact_url(url: str, policy: RedactionPolicy, depth: int) -> str:
    redacted = url
    if "@" in redacted:
        redacted = _URL_USER.sub("//", redacted)
    if _may_hold_parameters(redacted, policy):
        redacted = _redact_parameters(redacted, policy, depth)
    redacted = redact_text(redacted, policy)
    return url if redacted == url else redacted


def _may_hold_parameters(text: str, policy: RedactionPolicy) -> bool:
    """Whether a parameter in a url or in JSON text is secret, or encoded and so able to hide anything."""
    if "=" not in text:
        return False
    encoded = "%" in text or "+" in text
    return encoded or not policy.allows_parameters(_URL_PARAMETER_NAME.findall(text))


def _redact_parameters(url: str, policy: RedactionPolicy, depth: int) -> str:
    pieces: list[str] = []
    position = 0
    while found := _URL_PARAMETER.search(url, position):
        secret = _is_secret_parameter(found[1], policy)
        value = (_SECRET_VALUE if secret else _OTHER_VALUE).match(url, found.end())
        text = value.group() if value else ""
        replaced = "[redacted:parameter]" if secret and text else _redact_encoded(text, policy, depth)
        pieces += url[position : found.end()], replaced
        position = found.end() + len(text)
    return "".join(pieces) + url[position:]


def _is_secret_parameter(name: str, policy: RedactionPolicy) -> bool:
    if "%" in name:
        name = unquote(name)
    if "[" in name:  # user[password]=... is how forms nest
        return not policy.url_parameters.isdisjoint(map(fold_name, name.replace("]", "").split("[")))
    return fold_name(name) in policy.url_parameters


def _redact_encoded(value: str, policy: RedactionPolicy, depth: int) -> str:
    if not depth or ("%" not in value and "+" not in value):
        return value
    decoded = unquote_plus(value)
    redacted = _redact_url(decoded, policy, depth - 1)
    return value if redacted is decoded else quote(redacted, safe="[]:/", errors="replace")


def _redact_pattern(text: str, pattern: re.Pattern[str]) -> str:
    """Replaces matches that start outside a placeholder: a pattern as wide as `\\w+` must not redact `redacted`."""
    pieces: list[str] = []
    position = 0
    skips = [found.span() for found in _PLACEHOLDER.finditer(text)] + [(len(text), len(text))]
    for skip_start, skip_end in skips:
        while position < skip_start and (found := pattern.search(text, position)) and found.start() < skip_start:
            end = max(found.end(), found.start() + 1)
            replaced = "[redacted:pattern]" if found.group() else text[found.start() : end]
            pieces += text[position : found.start()], replaced
            position = end
        pieces.append(text[position:skip_end])
        position = max(position, skip_end)
    return "".join(pieces)
