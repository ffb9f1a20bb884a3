"""Processes that train one model together, on one machine or several: rank, size and collectives.

Every collective must be called by all processes in the same order; each call waits for all of them. If a process dies,
JAX ends the others: at once when a connection breaks, else after some minutes without a heartbeat.
"""

import contextlib
import functools
import hashlib
import os
import signal
import threading

import numpy as np

from deblur_gan.backend import keras
from deblur_gan.training.checkpoint import BadRun

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax
    from jax.experimental import multihost_utils

# The variables of `keras.distribution.initialize`.
ADDRESSES, COUNT, NUMBER = (f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"))

# The longest path of Linux, in bytes; the arrays of a broadcast have one shape on all ranks.
_LONGEST_TEXT = 4096


@functools.cache
def initialize():
    """Connects this process to the others; call it before anything is computed. Later calls do nothing.

    It reads the environment variables `KERAS_DISTRIBUTION_JOB_ADDRESSES` (host:port of rank 0),
    `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID` (the rank). Without them the processes are
    those of `keras.distribution.initialize`, if that was called, else this process only. Raises `BadRun` if a variable
    is missing or malformed, the backend is not JAX, or rank 0 cannot be reached.
    """
    given = {name: os.environ[name] for name in (ADDRESSES, COUNT, NUMBER) if os.environ.get(name)}
    if not given:
        return
    address, count, number = (given.get(name) for name in (ADDRESSES, COUNT, NUMBER))
    settings = " ".join(f"{name}={value}" for name, value in given.items())
    if BACKEND != "jax":
        raise BadRun(f"{settings}: several processes need KERAS_BACKEND=jax, not {BACKEND}")
    if len(given) < 3:
        missing = [name for name in (ADDRESSES, COUNT, NUMBER) if name not in given]
        raise BadRun(f"{settings}: {', '.join(missing)} must be set, too")
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise BadRun(f"{settings}: must be a number of processes, and the rank of this one, counted from 0")
    address = address.split(",")[0]
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
        raise BadRun(f"{settings}: {ADDRESSES} must be host:port of rank 0")
    if int(count) == 1:
        return
    # `keras.distribution.initialize` calls the same function, but imports TensorFlow to set its seed.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(address, int(count), int(number))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BadRun(f"{ADDRESSES}={address}: {count} processes cannot connect there ({reason})") from None
    # JAX replaces the handler of SIGTERM in C, so Python's own is installed again.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is not None:
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def rank():
    """Returns the number of this process, an int from 0 on."""
    return jax.process_index() if BACKEND == "jax" else 0


def size():
    """Returns the number of processes, an int."""
    return jax.process_count() if BACKEND == "jax" else 1


def is_main():
    """Returns True on rank 0, the only process that prints progress, validates and writes."""
    return rank() == 0


def all_gather(values):
    """Gathers a list of int, as many on each rank: int32 array `(size, len(values))`, one row for each rank."""
    values = np.array(values, np.int32)
    return values[None] if size() == 1 else np.asarray(multihost_utils.process_allgather(values))


def broadcast(text):
    """Returns the `text` of rank 0 on all ranks; at most 4096 bytes. What other ranks pass is ignored."""
    if size() == 1:
        return text
    content = np.frombuffer(os.fsencode(text)[:_LONGEST_TEXT].ljust(_LONGEST_TEXT, b"\0"), np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(content)).astype(np.uint8)
    return os.fsdecode(received.tobytes().rstrip(b"\0"))


@contextlib.contextmanager
def all_or_none():
    """Stops all ranks if its block fails on one: by `BadRun`, on that rank by the error as it is."""
    failure = None
    try:
        yield
    except BaseException as error:
        failure = error
    (failed,) = all_gather([failure is not None]).T
    if failure is not None:
        raise failure
    if any(failed):
        raise BadRun(f"process {np.argmax(failed)} of {size()} cannot start; its output gives the reason")


def require_equal(text):
    """Raises `BadRun` on all ranks unless `text`, a str that describes the run, is the same on all."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:4]
    (found,) = all_gather([int.from_bytes(digest, signed=True)]).T
    if any(found != found[0]):
        raise BadRun(
            f"{COUNT} {size()}: the options or the images of the processes differ; "
            "start each with the same command line and the same folders"
        )
