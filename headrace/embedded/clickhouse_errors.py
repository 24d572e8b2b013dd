"""ClickHouse's errors as its HTTP interface reports them: number, text, HTTP status."""

import re

_CODE = re.compile(r"Code: (\d+)\. (.*)", re.S)

_NAMES = {
    48: "NOT_IMPLEMENTED",
    62: "SYNTAX_ERROR",
    229: "QUERY_IS_TOO_LARGE",
    271: "CANNOT_DECOMPRESS",
    372: "SESSION_NOT_FOUND",
    373: "SESSION_IS_LOCKED",
    1002: "UNKNOWN_EXCEPTION",
}

# ClickHouse's own table, src/Server/HTTP/exceptionCodeToHTTPStatus.cpp; what is not listed is a 500.
_CODES_BY_STATUS = {
    400: (6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676),
    401: (194,),
    403: (192, 193, 497, 512, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    408: (159,),
    411: (381,),
    413: (229,),
    415: (779,),
    501: (48,),
    503: (76, 209, 439),
}
_STATUS = {code: status for status, codes in _CODES_BY_STATUS.items() for code in codes}


class QueryError(Exception):
    """A query that ClickHouse refuses: `code` is ClickHouse's error number, `text` the whole message."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.text = f"Code: {code}. DB::Exception: {message}. ({_NAMES.get(code, 'UNKNOWN_EXCEPTION')})"
        super().__init__(self.text)

    @property
    def status(self) -> int:
        """The HTTP status ClickHouse answers this error with."""
        return _STATUS.get(self.code, 500)


def parse_engine_error(error: Exception) -> QueryError:
    """The QueryError behind what chdb raised; texts without a number become error 1002."""
    found = _CODE.search(str(error))
    if found is None:
        return QueryError(1002, str(error).rstrip("."))
    parsed = QueryError(int(found[1]), "")
    parsed.text = f"Code: {found[1]}. {found[2].strip()}"
    return parsed
