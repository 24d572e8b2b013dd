"""`make chaos`: a long run for each broker; prints the seed first and the table last."""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

from tests.chaos.kinds import KINDS
from tests.chaos.run import run
from tests.kafka.server import why_no_kafka
from tests.stack import BROKERS, new_stack


def main() -> int:
    """Exit code 1 where something was lost, doubled or wrong; the data folder is kept then."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="the schedule and the events")
    parser.add_argument("--minutes", type=float, default=8.0, help="of faults, for each broker")
    parser.add_argument("--broker", choices=(*BROKERS, "both"), default="both")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", default="", help="only these kinds of faults, separated by semicolons")
    options = parser.parse_args()
    brokers: tuple[str, ...] = BROKERS if options.broker == "both" else (options.broker,)
    print(f"seed {options.seed}", flush=True)
    if why := why_no_kafka():
        print(f"Not on Kafka: {why}.")
        brokers = tuple(broker for broker in brokers if broker != "kafka")
    return max((_run(broker, options) for broker in brokers), default=1)


def _run(broker: str, options: argparse.Namespace) -> int:
    kinds = [kind for kind in KINDS if not options.kinds or kind in options.kinds.split(";")]
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-chaos-{broker}-"))
    try:
        with new_stack(folder, broker, options.workers) as stack:
            report = run(stack, options.seed, options.minutes * 60, kinds, partial(print, flush=True))
    except Exception:
        traceback.print_exc()
        print(f"The run on {broker} with seed {options.seed} broke off; its data is in {folder}.")
        return 1
    print(f"\n{broker}, seed {options.seed}\n{report.table()}", flush=True)
    if report.outcome.faults:
        print("\n".join(report.outcome.faults))
        print(f"The run on {broker} with seed {options.seed} found something; its data is in {folder}.")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
