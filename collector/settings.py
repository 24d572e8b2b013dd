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
    collector_stop_seconds: int = Field(
        30, ge=1, description="seconds that requests in flight get to finish when the collector stops"
    )
