"""Reads what the sampler wrote: the CPU of each stack."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

Stack = tuple[str, ...]
#: Where a thread waits or lets go of the interpreter's lock by itself, and is found more often than it is there.
_WAITS: Final = (
    "EpollSelector.select (selectors)",
    "Runner.run (asyncio.runners)",
    "_worker (concurrent.futures.thread)",
    "SocketIO.readinto (socket)",
    "_SelectorSocketTransport.write (asyncio.selector_events)",
    "_SelectorSocketTransport._read_ready__data_received (asyncio.selector_events)",
    "BaseSelectorEventLoop._write_to_self (asyncio.selector_events)",
    "HTTPConnection.send (http.client)",
    "Condition.wait (threading)",
    "Event.wait (threading)",
)


def read_stacks(path: Path) -> Counter[Stack]:
    """Nanoseconds by stack, outermost frame first, without the thread's name."""
    used: dict[str, Counter[Stack]] = defaultdict(Counter)
    for line in path.read_text().splitlines():
        stack, _, spent = line.rpartition(" ")
        thread, *frames = stack.split(";")
        used[thread][tuple(frames)] += int(spent)
    stacks: Counter[Stack] = Counter()
    for of_thread in used.values():
        stacks.update(spread_waits(of_thread))
    return stacks


def spread_waits(used: Counter[Stack]) -> Counter[Stack]:
    """What one thread used before its waits, spread over what it was seen doing in the proportion of that."""
    busy = Counter({stack: spent for stack, spent in used.items() if stack[-1] not in _WAITS})
    if not busy:
        return used
    share = used.total() / busy.total()
    return Counter({stack: round(spent * share) for stack, spent in busy.items()})


def folded(stacks: Counter[Stack]) -> str:
    """`frame;frame;… number` lines, the form that flame graph programs read; the number is in µs."""
    return "".join(f"{';'.join(stack)} {spent // 1000}\n" for stack, spent in sorted(stacks.items()))
