"""What the HTTP interface must know of a query before it runs it: where an INSERT's data begins, and its format.

Pure functions over bytes; the engine parses everything else.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_TOKEN = re.compile(
    rb"""(?P<skip>\s+|--[^\n]*|\#[!\ ][^\n]*|/\*.*?\*/)
       |(?P<quoted>'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")
       |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
       |(?P<other>.)""",
    re.S | re.X,
)
_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^;]*)?;?\s*$", re.I)
_DATA_START = re.compile(rb"[ \t\f]*\r?\n?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_READERS = frozenset(b"SELECT WITH SHOW DESCRIBE DESC EXISTS EXPLAIN CHECK VALUES FROM KILL BACKUP RESTORE".split())

TRANSPORT_PARAMETERS = frozenset(
    {
        "query",
        "database",
        "default_format",
        "user",
        "password",
        "quota_key",
        "query_id",
        "session_id",
        "session_timeout",
        "session_check",
        "close_session",
        "compress",
        "decompress",
        "buffer_size",
        "wait_end_of_query",
        "stacktrace",
        "role",
        "client_protocol_version",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "add_http_cors_header",
        "cancel_http_readonly_queries_on_client_close",
        "http_response_buffer_size",
        "http_wait_end_of_query",
        "http_write_exception_in_output_format",
        "http_response_headers",
    }
)
"""URL parameters that only steer the transport, and settings that mean nothing without a ClickHouse server's own."""


class Insert(NamedTuple):
    """An INSERT that carries data: the statement up to FORMAT, the format of the data, and where the data begins."""

    statement: bytes
    format: str
    data_at: int


class Token(NamedTuple):
    text: bytes
    end: int
    start: int


def _tokens(text: bytes) -> Iterator[Token]:
    """The tokens of `text` outside parentheses and comments; words in upper case."""
    depth = 0
    for match in _TOKEN.finditer(text):
        token, kind = match[0], match.lastgroup
        if kind == "other" and token in b"([{":
            depth += 1
        elif kind == "other" and token in b")]}":
            depth -= 1
        elif kind != "skip" and depth == 0:
            yield Token(token.upper() if kind == "word" else token, match.end(), match.start())


def find_keyword(text: bytes) -> bytes:
    """The first word of a query in upper case, opening parentheses skipped; empty where there is none."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "word":
            return match[0].upper()
        if match.lastgroup != "skip" and match[0] != b"(":
            break
    return b""


def split_insert(text: bytes) -> Insert | None:
    """The parts of an INSERT whose data is in `text` or follows it; None for every other query.

    As in ClickHouse, data begins after VALUES, or after the format's name, blanks, and one line break.
    """
    if find_keyword(text) != b"INSERT":
        return None
    before = b""
    tokens = _tokens(text)
    for token in tokens:
        is_name = before in (b"INTO", b"TABLE", b".")
        if not is_name and token.text in (b"SELECT", b"WITH", b"INFILE", b"WATCH"):
            return None
        if not is_name and token.text == b"VALUES":
            return Insert(text[: token.start], "Values", token.end)
        if not is_name and token.text == b"FORMAT":
            name = next(tokens, None)
            return name and _with_format(text, token, name)
        before = token.text
    return None


def _with_format(text: bytes, keyword: Token, name: Token) -> Insert:
    blank = _DATA_START.match(text, name.end)
    data_at = blank.end() if blank else name.end
    return Insert(text[: keyword.start], text[name.start : name.end].decode(), data_at)


def find_result_format(text: bytes, default: str) -> str:
    """The output format a query's result has: its FORMAT clause, else `default`."""
    found = _TRAILING_FORMAT.search(text)
    return found[1].decode() if found else default


def has_result(keyword: bytes) -> bool:
    """Whether statements that begin with `keyword` answer with rows."""
    return keyword in _READERS


def keeps_session_state(keyword: bytes, text: bytes) -> bool:
    """Whether a statement changes what later requests of its session see."""
    return keyword in (b"SET", b"USE") or (keyword == b"CREATE" and b"TEMPORARY" in text[:200].upper())


def parse_settings(parameters: Mapping[str, str], read_only: bool) -> dict[str, str]:
    """The ClickHouse settings of one request, from its URL parameters; the database is one of them.

    `read_only` is for GET, which changes nothing unless the request sets `readonly` itself, as in ClickHouse.
    """
    settings = {name: value for name, value in parameters.items() if not _steers_transport(name)}
    if parameters.get("database"):
        settings["database"] = parameters["database"]
    if read_only and settings.get("readonly", "0") == "0":
        settings["readonly"] = "2"
    return settings


def _steers_transport(name: str) -> bool:
    return name in TRANSPORT_PARAMETERS or name.startswith("param_")


def parse_query_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """The values for `{name:Type}` in the query, from the URL parameters `param_name`."""
    return {name[6:]: value for name, value in parameters.items() if name.startswith("param_")}


def set_statement(settings: Mapping[str, str]) -> str:
    """One SET for all of `settings`. Names that are no identifiers are quoted, for the engine to refuse by name."""
    return "SET " + ", ".join(
        f"{name if _NAME.fullmatch(name) else quote_name(name)} = {quote(value)}" for name, value in settings.items()
    )


def quote_name(name: str) -> str:
    """`name` as a name in ClickHouse's SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quote(text: str) -> str:
    """`text` as a string literal of ClickHouse's SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
