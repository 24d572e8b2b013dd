"""An event as a client sends it to POST /v1/batch: Headrace's own form, and Segment's, which differs in a few names.

The JSON schema of this class is the one in the collector's /openapi.json.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

#: Characters.
MAX_EVENT_ID: Final = 200
MAX_VISITOR_ID: Final = 256
MAX_NAME: Final = 200
MAX_LABEL: Final = 1_000

SentType = Literal["page", "track", "identify", "alias", "group", "screen"]
# Programs send database ids as JSON numbers; their decimal text is the same id.
_VisitorId = Annotated[str, Field(max_length=MAX_VISITOR_ID, coerce_numbers_to_str=True)]
_Name = Annotated[str, Field(max_length=MAX_NAME)]
_TIME: Final = {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "number"}, {"type": "null"}]}
_Label = Annotated[str, Field(max_length=MAX_LABEL)]


class SentEvent(BaseModel):
    """One event as sent; None where the client sent nothing or null. Members that are not listed are ignored.

    What needs more than one field, the form of `timestamp` and the size of `properties` are the collector's to check
    (`collector.intake`).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        val_temporal_unit="milliseconds",
        hide_input_in_errors=True,
    )

    type: SentType = Field(description="screen is Segment's page of a native app")
    event_id: Annotated[str, Field(max_length=MAX_EVENT_ID, coerce_numbers_to_str=True)] | None = Field(
        None,
        validation_alias=AliasChoices("eventId", "messageId"),
        description="minted once by the client, best a UUIDv7; Segment: messageId; absent: the collector mints one",
    )
    timestamp: Annotated[Any, WithJsonSchema(_TIME)] = Field(
        None, description="when it happened: ISO 8601, or milliseconds since the epoch; absent: when it was received"
    )
    company_id: Annotated[str, Field(coerce_numbers_to_str=True)] | None = Field(
        None, description="the tenant; where given, it has to be the write key's"
    )
    user_id: _VisitorId | None = Field(None, description="who is logged in")
    anonymous_id: _VisitorId | None = Field(None, description="the browser or installation; this or userId is needed")
    previous_id: _VisitorId | None = Field(None, description="alias: the id that userId replaces")
    event_category: _Name | None = Field(None, description="default: by type")
    event_action: _Name | None = Field(None, description="default: by type; a track event needs it, or `event`")
    event_label: _Label | None = None
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    properties: dict[str, Any] | None = Field(None, description="at most 32 KiB as JSON, 250 levels deep")
    context: dict[str, Any] | None = Field(None, description="the context's flat fields, or Segment's nested objects")
    event: _Name | None = Field(None, description="Segment: the name of a track event")
    name: _Label | None = Field(None, description="Segment: the name of a page or screen; becomes eventLabel")
    category: _Name | None = Field(None, description="Segment: the category of a page or screen; goes to properties")
    traits: dict[str, Any] | None = Field(None, description="Segment: what identify and group say; taken as properties")
    group_id: _VisitorId | None = Field(None, description="Segment: the group of a group event; goes to properties")


_Id = Annotated[str, msgspec.Meta(max_length=MAX_VISITOR_ID)] | None
_Text = Annotated[str, msgspec.Meta(max_length=MAX_NAME)] | None
_LongText = Annotated[str, msgspec.Meta(max_length=MAX_LABEL)] | None
_EventId = Annotated[str, msgspec.Meta(max_length=MAX_EVENT_ID)] | None
SentContext = dict[str, Any] | None
#: The text of the context of an event that has none.
NO_CONTEXT: Final = msgspec.Raw()


class PlainFields(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """What plain events have, but for the context."""

    type: SentType
    event_id_as_sent: _EventId | msgspec.UnsetType = msgspec.field(name="eventId", default=msgspec.UNSET)
    message_id: _EventId = None
    timestamp: Any = None
    company_id: str | None = None
    user_id: _Id = None
    anonymous_id: _Id = None
    previous_id: _Id = None
    event_category: _Text = None
    event_action: _Text = None
    event_label: _LongText = None
    value: float | None = None
    properties: dict[str, Any] | None = None
    event: _Text = None
    name: _LongText = None
    category: _Text = None
    traits: dict[str, Any] | None = None
    group_id: _Id = None

    @property
    def event_id(self) -> str | None:
        """`eventId`, also where that is null; else `messageId`."""
        return self.message_id if self.event_id_as_sent is msgspec.UNSET else self.event_id_as_sent


class PlainEvent(PlainFields, frozen=True, gc=False):
    """A SentEvent whose ids are text, read at a quarter of the cost.

    What cannot be read as one may still be a SentEvent, which alone says what is wrong; what can is the same event.
    """

    context: SentContext = None


class PlainText(PlainFields, frozen=True, gc=False):
    """As PlainEvent, read from JSON text, where one context is often many events': it is left as it stands there."""

    context: msgspec.Raw = NO_CONTEXT


#: An event that was read, whatever was made of its context.
Sent = SentEvent | PlainFields
