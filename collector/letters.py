"""Dead letters of the collector: rejected events, whole, and bodies that could not be read, bounded."""

from collector.answers import Refused
from collector.arrival import Arrival
from collector.limits import MAX_EVENT_LETTER, MAX_RAW_LETTER
from collector.masking import mask_ips_in
from collector.sink import Outgoing
from schemas.reasons import Reason
from schemas.records import DeadLetter
from schemas.topics import DEAD_LETTER


def letter_of_event(
    arrival: Arrival, key: str, index: int, event_id: str, refused: Refused, payload: bytes
) -> Outgoing:
    """The dead letter of a rejected event: its JSON untouched but for masked addresses.

    One over 512 KiB, more than a record on the log may hold, is cut and then `raw`.
    """
    whole = len(payload) <= MAX_EVENT_LETTER
    letter = _letter(arrival, key, refused, payload[:MAX_EVENT_LETTER])
    letter["eventId"], letter["position"] = event_id, index
    letter["contentType"], letter["truncated"] = "json" if whole else "raw", not whole
    return Outgoing(DEAD_LETTER, key, letter, 0)


def letter_of_body(arrival: Arrival, key: str, reason: Reason, message: str, body: bytes) -> Outgoing:
    """The dead letter of a body that is not JSON or not gzip: at most its first 64 KiB."""
    letter = _letter(arrival, key, Refused(reason, "", message), body[:MAX_RAW_LETTER])
    letter["truncated"] = len(body) > MAX_RAW_LETTER
    return Outgoing(DEAD_LETTER, key, letter, 0)


def _letter(arrival: Arrival, key: str, refused: Refused, payload: bytes) -> DeadLetter:
    return {
        "key": key,
        "companyId": arrival.company_id,
        "source": "collector",
        "reason": refused.reason.value,
        "field": refused.field,
        "message": refused.message,
        "eventId": "",
        "logId": "",
        "topic": "",
        "partition": -1,
        "offset": -1,
        "position": -1,
        "receivedAt": arrival.received_at,
        "failedAt": arrival.received_at,
        "journal": "",
        "sequence": 0,
        "contentType": "raw",
        "payload": mask_ips_in(payload),
        "truncated": False,
    }
