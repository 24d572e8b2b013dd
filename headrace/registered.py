"""The codec with the ids that this installation uses."""

from schemas.codec import Codec
from schemas.registry import register_schemas
from schemas.settings import BrokerSettings


def registered_codec(broker: BrokerSettings) -> Codec:
    """Registers the schemas where a registry is set; else the ids are the files' own. Raises RegistryError."""
    if not broker.schema_registry_url:
        return Codec()
    password = broker.schema_registry_password.get_secret_value()
    return Codec(register_schemas(broker.schema_registry_url, broker.schema_registry_username, password))
