"""The context of each event of a request: its own, the request's, and what the HTTP headers say of the sender."""

from typing import Any, Final

from collector.arrival import Sender
from collector.limits import MAX_CONTEXT_TEXT
from collector.masking import mask_ip
from collector.segment import PAGE_FIELDS, Context, flatten_context, put_page
from schemas.sent import Sent, SentContext

#: Libraries that run in the end user's browser, so that the request's User-Agent is the end user's.
BROWSER_LIBRARIES: Final = frozenset(
    ("analytics.js", "@segment/analytics-next", "headrace-browser", "@headrace/browser", "headrace.js")
)
#: Libraries that run on the end user's device, so that the request's address and country are the end user's.
DEVICE_LIBRARIES: Final = BROWSER_LIBRARIES | {
    "analytics-android",
    "analytics-flutter",
    "analytics-ios",
    "analytics-kotlin",
    "analytics-react-native",
    "analytics-swift",
}


#: A context as sent, flat, and whether a page event's properties may have more of its address.
_Known = tuple[SentContext, Context, bool]


class Contexts:
    """Flattens the contexts of one request's events, each object once."""

    def __init__(self, shared: Any, sender: Sender) -> None:
        self._sender = sender
        self._shared = flatten_context(shared) if isinstance(shared, dict) else {}
        self._last = self._flatten(None)
        self._known: dict[int, _Known] = {}  # by the id of the sent one, which it keeps alive

    def of(self, own: SentContext, sent: Sent) -> Context:
        """The context of an event, whose own is `own`. Do not change it: equal ones that follow share one object."""
        known = self._last
        if own is not known[0]:
            known = self._last = self._known.get(id(own)) or self._learn(own)
        _, flat, lacks_page = known
        return put_page(flat, sent) if lacks_page and sent.type == "page" else flat

    def _learn(self, own: SentContext) -> _Known:
        known = self._flatten(own)
        if known[1] == self._last[1]:
            known = own, *self._last[1:]
        self._known[id(own)] = known
        return known

    def _flatten(self, own: SentContext) -> _Known:
        flat = self._with_sender({**self._shared, **flatten_context(own)} if own else self._shared)
        return own, flat, not all(map(flat.get, PAGE_FIELDS))

    def _with_sender(self, context: Context) -> Context:
        # A server's SDK speaks for its users: the request's own address and User-Agent are then the server's.
        library = context.get("library", "")
        on_device = not library or library.lower() in DEVICE_LIBRARIES
        # Every browser says Mozilla; curl and HTTP libraries send for somebody else, and are no robots that visit.
        is_browser = self._sender.user_agent.startswith("Mozilla/")
        from_browser = is_browser and (not library or library.lower() in BROWSER_LIBRARIES)
        put: Context = {}
        if ip := mask_ip(context.get("ip", self._sender.ip if on_device else "")):
            put["ip"] = ip
        if on_device and self._sender.country and "country" not in context:
            put["country"] = self._sender.country
        if from_browser and "userAgent" not in context:
            put["userAgent"] = self._sender.user_agent[:MAX_CONTEXT_TEXT]
        kept = {name: text for name, text in context.items() if name != "ip"} if "ip" in context else context
        return {**kept, **put}


def differences(context: Context, base: Context) -> Context:
    """The fields in which `context` differs from `base`; "" for a field that only `base` has."""
    if context is base:
        return {}
    changed = {name: text for name, text in context.items() if base.get(name) != text}
    changed.update((name, "") for name in base if name not in context)
    return changed
