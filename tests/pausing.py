"""Children of the test that stand still for a while."""

import os
import signal
import subprocess


def pause(process: "subprocess.Popen[bytes]") -> None:
    """SIGSTOP, and return once no thread of the child runs any more: with busy cores that takes tens of milliseconds.

    A child that has ended is left as it is.
    """
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def resume(process: "subprocess.Popen[bytes]") -> None:
    """SIGCONT."""
    process.send_signal(signal.SIGCONT)
