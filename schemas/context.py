"""The fields of an event's context, in the order in which every layer keeps them."""

from typing import Final

#: Sent by clients or derived from what they sent; strings, '' where unknown.
CONTEXT_FIELDS: Final = (
    "app",
    "appVersion",
    "browser",
    "browserVersion",
    "os",
    "osVersion",
    "deviceType",
    "screenResolution",
    "ip",
    "country",
    "timezone",
    "locale",
    "url",
    "path",
    "title",
    "referrer",
    "referrerDomain",
    "channel",
    "utmSource",
    "utmMedium",
    "utmCampaign",
    "utmTerm",
    "utmContent",
    "userAgent",
    "library",
    "libraryVersion",
)
