"""Settings of the collector's HTTP side."""

from pydantic import Field

from schemas.settings import HeadraceSettings


class CollectorSettings(HeadraceSettings):
    """Where the collector listens and whom it believes."""

    collector_host: str = Field("127.0.0.1", description="address the collector listens on")
    collector_port: int = Field(8700, ge=0, le=65_535, description="port the collector listens on; 0: a free one")
    collector_trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="addresses or networks, separated by commas, whose X-Forwarded-For is believed; * is all",
    )
    collector_request_seconds: float = Field(
        30, gt=0, description="a connection on which no whole request has arrived after this is closed"
    )
    collector_connections: int = Field(
        8_000,
        ge=1,
        description="connections at the most, and not more than the process may have files; one more closes the one "
        "that has waited longest for its client",
    )
    collector_body_bytes: int = Field(
        256 << 20, ge=16 << 20, description="bytes of unanswered bodies in memory, bounded in the same way"
    )
    collector_stop_seconds: int = Field(
        30, ge=1, description="seconds that requests in flight get to finish when the collector stops"
    )
