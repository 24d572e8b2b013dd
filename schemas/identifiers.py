"""Which ids name a visitor, and the key under which that visitor's events travel."""

from functools import lru_cache

# What programs send where they know nobody. Values that client libraries print for "no value", names given to everybody
# who is not logged in, and names of fields that a template left unfilled.
PLACEHOLDERS = frozenset(
    (
        *("null", "undefined", "none", "nil", "nan", "(null)", "<nil>", "[object object]", "false", "true", "-1"),
        *("guest", "anonymous", "anon", "unknown", "not_authenticated", "n/a", "na"),
        *("id", "email", "user_id", "userid", "anonymous_id", "anonymousid", "distinct_id", "distinctid"),
    )
)
_LONGEST = max(map(len, PLACEHOLDERS))


def is_placeholder(value: str) -> bool:
    """Whether `value` stands for nobody: empty, a listed placeholder in any case, or only zeros and dashes.

    The last covers "0", "-", "0000" and all-zero UUIDs. Whitespace around the value does not count.
    """
    trimmed = value.strip()
    if len(trimmed) > _LONGEST:
        return trimmed[-1] in "0-" and not trimmed.strip("0-")
    return trimmed.lower() in PLACEHOLDERS or not trimmed.strip("0-")


@lru_cache(maxsize=1024)  # asked again and again of the same few
def visitor_of(anonymous_id: str, user_id: str) -> str:
    """The visitor of an event: its anonymousId, its userId where there is none, "" where both are placeholders."""
    if not is_placeholder(anonymous_id):
        return anonymous_id
    return "" if is_placeholder(user_id) else user_id


def record_key(company_id: str, visitor: str) -> str:
    """The visitor key "companyId:visitor", the log's record key. Exact only while no companyId contains a colon."""
    return f"{company_id}:{visitor}"


def event_key(company_id: str, event_id: str) -> str:
    """The key of a tenant's event. Exact while no companyId contains a NUL."""
    return f"{company_id}\0{event_id}"
