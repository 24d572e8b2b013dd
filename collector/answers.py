"""What the collector answers: one status for each reason, and the bodies."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from starlette.types import Send

from schemas.reasons import Reason

Headers = tuple[tuple[bytes, bytes], ...]

#: The status of a request that is refused whole.
STATUS: Final[Mapping[Reason, int]] = {
    Reason.INVALID_JSON: 400,
    Reason.INVALID_GZIP: 400,
    Reason.UNAUTHORIZED: 401,
    Reason.BODY_TOO_LARGE: 413,
    Reason.TOO_MANY_EVENTS: 413,
    Reason.RATE_LIMITED: 429,
    Reason.UNAVAILABLE: 503,
}


class Refused(NamedTuple):
    """Why one event is not taken: the reason, the field at fault ("" for the event itself) and a sentence."""

    reason: Reason
    field: str
    message: str


class RequestRefused(Exception):
    """The whole request is refused. `letter` is what to keep of its body in a dead letter, None to keep nothing."""

    def __init__(
        self, reason: Reason, message: str, retry_after: int | None = None, letter: bytes | None = None
    ) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry_after, self.letter = reason, message, retry_after, letter


class Answer(NamedTuple):
    """An HTTP answer before the headers that every answer gets."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: Headers = ()


def answer_json(status: int, body: Any, headers: Headers = ()) -> Answer:
    """An answer whose body is JSON."""
    return Answer(status, orjson.dumps(body), headers=headers)


def answer_error(status: int, error: str, message: str, headers: Headers = ()) -> Answer:
    """An answer that is no success: `error` for programs, `message` for people."""
    return answer_json(status, {"error": error, "message": message}, headers)


def answer_refusal(refused: RequestRefused) -> Answer:
    """The answer to a request that is refused whole."""
    headers: Headers = ()
    if refused.retry_after is not None:
        headers = ((b"retry-after", b"%d" % max(1, refused.retry_after)),)
    if refused.reason is Reason.UNAUTHORIZED:
        headers = ((b"www-authenticate", b'Bearer realm="headrace"'),)
    return answer_error(STATUS[refused.reason], refused.reason, refused.message, headers)


def answer_verdicts(event_ids: Sequence[str], refused: Mapping[int, Refused], brief: bool = False) -> Answer:
    """200 with the verdict of every event, in the order in which they were sent; brief: only how many of each.

    `refused` is by place among the events; the others are accepted.
    """
    if event_ids and not refused and not brief and b"\\" not in (ids := orjson.dumps(event_ids)):
        return Answer(200, _all_accepted(len(event_ids), ids))
    body: dict[str, Any] = {"accepted": len(event_ids) - len(refused), "rejected": len(refused)}
    if not brief:
        results: list[dict[str, str]] = [{"eventId": event_id, "status": "accepted"} for event_id in event_ids]
        for at, why in refused.items():
            told = {"status": "rejected", "reason": why.reason, "field": why.field, "message": why.message}
            results[at] = {"eventId": event_ids[at], **told}
        body["results"] = results
    return answer_json(200, body)


def _all_accepted(count: int, ids: bytes) -> bytes:
    """The same body out of the ids' JSON: without escapes, `","` can only stand between two of them."""
    results = ids[1:-1].replace(b'","', b'","status":"accepted"},{"eventId":"')
    return b'{"accepted":%d,"rejected":0,"results":[{"eventId":%b,"status":"accepted"}]}' % (count, results)


async def send_answer(send: Send, answer: Answer, cors: Headers) -> None:
    """Write the answer to the ASGI server, CORS headers last."""
    fixed = (b"content-length", b"%d" % len(answer.body)), (b"content-type", answer.content_type)
    headers = [*(fixed if answer.status != 204 else ()), *answer.headers, *cors]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
