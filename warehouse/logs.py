"""Which log id a topic's records are stored under: the cluster's, until the topic is another one than before."""

from typing import Final

from schemas.fit import REPAIR, LedgerRefused
from warehouse.client import ClickHouse, available

_LAST: Final = """
SELECT topicId, logId, number FROM logs WHERE clusterId = {cluster:String} AND topic = {topic:String}
ORDER BY number DESC LIMIT 1
"""


class ClickHouseLogs:
    """The register of logs. Raises StoreUnavailable."""

    def __init__(self, client: ClickHouse) -> None:
        self._client = client

    def find(self, cluster: str, topic: str, topic_id: str) -> str:
        """The log id of a topic, noted at the first time; raises LedgerRefused where the topic was created anew."""
        last = self._last(cluster, topic)
        if last is None:
            self._note(cluster, topic, topic_id, cluster, 1)
            last = self._last(cluster, topic) or (topic_id, cluster, 1)
        known, log_id, _ = last
        if known != topic_id and known and topic_id:
            raise LedgerRefused(
                f"The topic {topic} is not the one that was read before (its id was {known} and is {topic_id}): it was "
                f"deleted and created anew, and what was not stored of the old one is gone. {REPAIR}."
            )
        return log_id

    def renew(self, cluster: str, topic: str, topic_id: str) -> str:
        """Know the topic, as it is now, under a new log id, which is answered."""
        _, _, number = self._last(cluster, topic) or ("", "", 0)
        log_id = f"{cluster}.{number + 1}"
        self._note(cluster, topic, topic_id, log_id, number + 1)
        return log_id

    def _last(self, cluster: str, topic: str) -> tuple[str, str, int] | None:
        rows = available(lambda: self._client.rows(_LAST, {"cluster": cluster, "topic": topic}))
        return (rows[0][0], rows[0][1], int(rows[0][2])) if rows else None

    def _note(self, cluster: str, topic: str, topic_id: str, log_id: str, number: int) -> None:
        names = ("clusterId", "topic", "topicId", "logId", "number")
        columns: list[list[str | int]] = [[cluster], [topic], [topic_id], [log_id], [number]]
        # Under one token, so that of several workers the first decides.
        available(lambda: self._client.insert("logs", names, columns, f"{cluster}/{topic}/{number}"))
