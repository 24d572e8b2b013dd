"""`headrace repair`: what keeps workers from going on, and the way out of it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Final

import typer
from faust.types import TP

from headrace.commands.options import AsJson, StackAt
from headrace.connections import clickhouse_at
from headrace.endpoints import Endpoints
from headrace.log_fit import LogFit
from headrace.log_identity import describe_topics, read_extents
from schemas.blocks import Partition
from schemas.fit import LedgerRefused, LogExtent, Misfit
from schemas.settings import BrokerSettings
from warehouse.extents import ClickHouseExtents
from warehouse.logs import ClickHouseLogs

_REMEDIES: Final[Mapping[str, str]] = {
    "new_log": "The topic is known as a new log from now on, and read from its beginning; copies count once.",
    "gap": "The ledger notes the gap as a block that holds nothing, and the partition goes on behind it.",
    "claim": "The claim is replaced by one of the single record that it starts at, where no row is stored.",
    "": "Nothing is done: restore the ledger from a backup.",
}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(repair)


def repair(
    port_base: StackAt = None,
    as_json: AsJson = False,
    apply: Annotated[bool, typer.Option("--apply", help="Do what is shown; stop the workers before.")] = False,
) -> None:
    """Show where the ledger does not fit the log, so that workers refuse to go on, and what mends it.

    Exit 0 when all fits, or was mended; 1 when something does not fit.
    """
    endpoints = Endpoints.found(port_base)
    broker = BrokerSettings(broker=endpoints.broker)
    with clickhouse_at(endpoints) as client:
        found = asyncio.run(_repair(broker, ClickHouseLogs(client), ClickHouseExtents(client), apply))
    if as_json:
        documents = [{"problem": problem, "repair": remedy, "done": done} for problem, remedy, done in found]
        print(json.dumps(documents))
    else:
        for problem, remedy, done in found:
            print(f"{problem}\n  {'done: ' if done else ''}{remedy}")
        print("" if found else "The ledger fits the log.", end="" if found else "\n")
    if not all(done for _, _, done in found):
        raise typer.Exit(1)


_Found = tuple[str, str, bool]  # what is wrong, what mends it, whether it was done


async def _repair(
    broker: BrokerSettings, logs: ClickHouseLogs, extents: ClickHouseExtents, apply: bool
) -> list[_Found]:
    fit, found = LogFit(broker, logs, extents), list[_Found]()
    for name, topic in (await describe_topics(broker)).items():
        try:
            assigned = await fit.identify([TP(name, number) for number in range(topic.partitions)])
            misfits = await fit.misfits(assigned)
        except LedgerRefused as error:
            assigned, misfits = {}, {TP(name, 0): Misfit("new_log", str(error))}
        if not apply:
            done = dict.fromkeys(misfits, False)
        elif any(misfit.repair == "new_log" for misfit in misfits.values()):
            logs.renew(topic.cluster, name, topic.topic_id)
            done = dict.fromkeys(misfits, True)
        else:
            log = await read_extents(broker, misfits)
            done = {tp: _mend(extents, assigned[tp].partition, misfit, log[tp]) for tp, misfit in misfits.items()}
        found += [(misfit.sentence, _REMEDIES[misfit.repair], done[tp]) for tp, misfit in misfits.items()]
    return found


def _mend(extents: ClickHouseExtents, partition: Partition, misfit: Misfit, log: LogExtent) -> bool:
    """Whether it could be done."""
    if misfit.repair == "gap":
        return bool(extents.fill_gaps(partition, log.begin))
    if misfit.repair == "claim":
        return extents.replace_claim(partition)
    return False
