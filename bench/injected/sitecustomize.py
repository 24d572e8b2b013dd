"""Python runs this at the start of every process whose PYTHONPATH has this folder: it starts the sampler where asked.

BENCH_PROFILE names the program (the last word of its command line that is one, such as worker) and the folder.
"""

import os
import sys

_program, _, _folder = os.environ.get("BENCH_PROFILE", "").partition("=")
if _program and any(word.rpartition(".")[2] == _program for word in sys.orig_argv):
    from bench.sampler import Sampler

    Sampler(f"{_folder}/{os.getpid()}").start()
