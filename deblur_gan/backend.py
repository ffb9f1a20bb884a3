"""Keras' backend: started for a command without its own notes, with one line where it cannot start, and its version."""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys

BACKENDS = ("tensorflow", "jax", "torch")

# What TensorFlow's libraries say before its log level counts: notes, warnings, and that two of them bring the same
# CUDA plugins. Other errors pass.
_NOTE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} \d\d:\d\d:|.*factory for plugin cu"
    rb"|INFO: Created TensorFlow Lite \w+ delegate"
)


def start_backend(training=False):
    """Imports Keras, and with it the backend that the environment variable `KERAS_BACKEND` selects.

    TensorFlow's C++ notes and warnings do not reach the screen unless `TF_CPP_MIN_LOG_LEVEL` is 0.

    Args:
        training: bool, whether the backend has to train; Keras has others that only restore.

    Raises:
        click.ClickException: if the backend does not exist, is not installed, cannot be imported or cannot train.
    """
    import click  # here, because the filter below is this file run alone

    try:
        with contextlib.nullcontext() if "keras" in sys.modules else without_notes():
            keras = importlib.import_module("keras")
        if training and keras.backend.backend() not in BACKENDS:
            raise ImportError("it cannot train")
    # A backend whose parts do not fit each other fails with whatever its import trips over.
    except Exception as error:
        selected = os.environ.get("KERAS_BACKEND")
        backend = f"KERAS_BACKEND={selected}" if selected else "Keras' default backend"
        found = ("installed" if importlib.util.find_spec(name) else "not installed" for name in BACKENDS)
        choice = ", ".join(f"{name} ({state})" for name, state in zip(BACKENDS, found, strict=True))
        reason = " ".join(str(error).split()) or type(error).__name__
        raise click.ClickException(f"{backend}: cannot be used ({reason}). There are {choice}") from None


def versions():
    """The libraries that what is computed may depend on: dict from str to str."""
    import keras
    import numpy as np

    from deblur_gan import __version__

    backend = keras.backend.backend()
    return {
        "deblur_gan": __version__,
        "keras": keras.__version__,
        # The module says it: what is installed may bear another name, such as tensorflow-cpu.
        backend: importlib.import_module(backend).__version__,
        "numpy": np.__version__,
    }


@contextlib.contextmanager
def without_notes():
    """Sends what is written to stderr through a process that leaves the notes of TensorFlow and LiteRT out.

    Whole lines arrive, so that no progress bar may be shown meanwhile. A process and not a thread, because what a
    library says before it aborts must arrive.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    sys.stderr.flush()
    screen = os.dup(2)
    # In a session of its own it outlives a Ctrl-C; it ends with its input.
    with subprocess.Popen([sys.executable, "-I", __file__], stdin=subprocess.PIPE, start_new_session=True) as filtering:
        os.dup2(filtering.stdin.fileno(), 2)
        filtering.stdin.close()
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        if not _NOTE.match(line):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
