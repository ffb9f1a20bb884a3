"""Several processes, on one machine or on many, that train one model: how they meet, and what they tell each other."""

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

# Where a process finds the others: the variables of `keras.distribution.initialize`.
ADDRESSES, COUNT, NUMBER = (f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"))

# The longest path of Linux; JAX hands round arrays of one shape.
_LONGEST_TEXT = 4096


class Team:
    """The processes that train one model.

    Whatever one asks of the others, all must ask, in the same order: each waits for all. A process that dies takes the
    others with it: they end when its connections break, or when JAX misses its signs of life, after some minutes.

    Attributes:
        number: int, of this process, from 0 on.
        count: int.
        first: bool, whether it is the one that writes.
    """

    def __init__(self, number=0, count=1):
        self.number = number
        self.count = count
        self.first = number == 0

    def gather(self, values):
        """What each of the processes says.

        Args:
            values: list of int, as many in each process.

        Returns:
            int32 array `(count, len(values))`, in the order of the processes.
        """
        values = np.array(values, np.int32)
        return values[None] if self.count == 1 else np.asarray(multihost_utils.process_allgather(values))

    def text_of_first(self, text):
        """The `text` of the first process, at most 4096 bytes; what the others give does not matter."""
        content = os.fsencode(text)[:_LONGEST_TEXT]
        first = self.gather(list(content.ljust(_LONGEST_TEXT, b"\0")))[0]
        return os.fsdecode(bytes(first.astype(np.uint8)).rstrip(b"\0"))

    @contextlib.contextmanager
    def together(self):
        """Lets each process do something by itself; where one fails, none goes on.

        Raises:
            BadRun: if another process failed. What fails in this one is raised as it is.
        """
        failure = None
        try:
            yield
        except BaseException as error:
            failure = error
        (failed,) = self.gather([failure is not None]).T
        if failure is not None:
            raise failure
        if any(failed):
            raise BadRun(f"process {np.argmax(failed)} of {self.count} cannot begin; it says why")

    def require_same(self, text):
        """Raises `BadRun` unless all processes give the same `text`, which says what they are to work on."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:4]
        (found,) = self.gather([int.from_bytes(digest, signed=True)]).T
        if any(found != found[0]):
            raise BadRun(
                f"{COUNT} {self.count}: the processes were given other options or see other pictures; "
                "each needs the same command line and the same folders"
            )


@functools.cache
def join():
    """Meets the other processes, if there are any, the first time it is called; before that nothing may be computed.

    The environment variables `KERAS_DISTRIBUTION_JOB_ADDRESSES` (host:port of the first process),
    `KERAS_DISTRIBUTION_NUM_PROCESSES` and `KERAS_DISTRIBUTION_PROCESS_ID` (from 0 on) say where they are. Without them
    the processes are those of `keras.distribution.initialize`, if that was called.

    Returns:
        `Team`.

    Raises:
        BadRun: if the variables do not say it, the backend is not JAX, or the others cannot be reached.
    """
    given = {name: os.environ[name] for name in (ADDRESSES, COUNT, NUMBER) if os.environ.get(name)}
    if not given:
        return Team(jax.process_index(), jax.process_count()) if BACKEND == "jax" else Team()
    address, count, number = (given.get(name) for name in (ADDRESSES, COUNT, NUMBER))
    said = " ".join(f"{name}={value}" for name, value in given.items())
    if BACKEND != "jax":
        raise BadRun(f"{said}: several processes need KERAS_BACKEND=jax, not {BACKEND}")
    if len(given) < 3:
        missing = [name for name in (ADDRESSES, COUNT, NUMBER) if name not in given]
        raise BadRun(f"{said}: {', '.join(missing)} must be given with it")
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise BadRun(f"{said}: must be a number of processes, and the number of this one, from 0 on")
    address = address.split(",")[0]
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
        raise BadRun(f"{said}: {ADDRESSES} must be host:port of the first process")
    if int(count) > 1:
        _meet(address, int(count), int(number))
    return Team(int(number), int(count))


def _meet(address, count, number):
    # `keras.distribution.initialize` does this too, but imports TensorFlow to set its seed.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(address, count, number)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BadRun(f"{ADDRESSES}={address}: {count} processes do not meet there ({reason})") from None
    # JAX has taken SIGTERM for itself; Python still knows what it did before.
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is not None:
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
