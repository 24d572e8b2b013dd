"""What the consumer of the workers does otherwise than Faust's."""

from faust.types import TP

from streams.ledger_transport import LedgerConsumer


class Revoking:
    """A consumer's thread in the middle of a rebalance, as aiokafka answers then."""

    def highwater(self, tp: TP) -> int:
        raise AssertionError(f"{tp} is not assigned")


def test_the_end_of_a_partition_that_a_rebalance_took_is_unknown_and_ends_no_worker() -> None:
    consumer = LedgerConsumer.__new__(LedgerConsumer)
    consumer._thread = Revoking()
    assert consumer.highwater(TP("events.collected", 0)) is None
