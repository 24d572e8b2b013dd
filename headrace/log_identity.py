"""The identity of the log: offsets of two logs are never mistaken for each other."""

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.settings import BrokerSettings


class BrokerUnavailable(Exception):
    """The broker does not answer; the message names its address."""


async def find_log_id(broker: BrokerSettings) -> str:
    """HEADRACE_LOG_ID where it is set, else the broker's cluster id. Raises BrokerUnavailable."""
    if broker.log_id:
        return broker.log_id
    admin = AIOKafkaAdminClient(**broker.client_options())
    try:
        await admin.start()
        described = await admin.describe_cluster()
    except (KafkaError, OSError) as error:
        raise BrokerUnavailable(f"The broker at {broker.broker} does not answer: {error!r}.") from error
    finally:
        await admin.close()
    identity = described.get("cluster_id")
    if not identity:
        raise BrokerUnavailable(f"The broker at {broker.broker} has no cluster id: set HEADRACE_LOG_ID.")
    return str(identity)
