"""The codec with the ids that this installation uses."""

import structlog

from schemas.codec import HAS_KERNEL, Codec
from schemas.registry import register_schemas
from schemas.settings import BrokerSettings

log = structlog.get_logger(__name__)


def registered_codec(broker: BrokerSettings) -> Codec:
    """Registers the schemas where a registry is set; else the ids are the files' own. Raises RegistryError."""
    if not broker.schema_registry_url:
        return Codec()
    password = broker.schema_registry_password.get_secret_value()
    return Codec(register_schemas(broker.schema_registry_url, broker.schema_registry_username, password))


def warn_without_kernel() -> None:
    """Log a line where the kernel is not compiled: fastavro does the same alone, and costs several times as much."""
    if not HAS_KERNEL:
        log.warning(
            "avro_kernel_not_compiled",
            effect="fastavro reads and writes all events, at several times the cost",
            remedy="install a C compiler, and Headrace again",
        )
