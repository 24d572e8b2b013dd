"""Ports of 127.0.0.1 for the servers that tests start."""

import random
import socket
from typing import Final

#: Below those that the system gives to clients: a client could take one before the program that it is meant for starts.
_PORTS: Final = range(10_000, 32_000)
#: Not the module's generator: property tests seed it, and test processes that run side by side would choose alike.
_RANDOM: Final = random.SystemRandom()


def free_port() -> int:
    """A port that nobody listens on."""
    return free_port_base(1)


def free_port_base(count: int = 8) -> int:
    """The first of a run of ports that nobody listens on."""
    for base in _RANDOM.sample(_PORTS, 100):
        if all(_is_free(base + number) for number in range(count)):
            return base
    raise AssertionError("No run of free ports was found.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
