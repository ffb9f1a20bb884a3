"""Keras' backend: chosen where nobody chose it, started quietly, one line where it cannot; in what it restores."""

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

# Keras' default is the first of them.
BACKENDS = ("tensorflow", "jax", "torch")
# Before, Keras ran neither transposed convolutions nor a second size of photographs on OpenVINO.
KERAS_FOR_OPENVINO = (3, 14)
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch", "openvino": "OpenVINO"}

# What one may ask to restore in.
PRECISIONS = ("auto", "float32", "bfloat16")

# What TensorFlow's libraries say before its log level counts: notes, warnings, and that two of them bring the same
# CUDA plugins. Other errors pass.
_NOTE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} \d\d:\d\d:|.*factory for plugin cu"
    rb"|INFO: Created TensorFlow Lite \w+ delegate"
)


def import_keras(training=False, restoring=False):
    """Imports Keras, and with it a backend.

    The environment variable `KERAS_BACKEND` selects it, or Keras' own `keras.json` where that names another than
    Keras' default. Where neither does, it is the first that is installed of TensorFlow, JAX, PyTorch and OpenVINO. To
    restore, OpenVINO comes first: it starts and restores fastest on a processor. It cannot train.

    Args:
        training: bool, whether the backend has to train.
        restoring: bool, whether the backend has only to restore.

    Raises:
        ImportError: if no backend is installed, or this one cannot train. Keras and backends that are damaged raise
            whatever their import trips over.
    """
    if "keras" not in sys.modules:
        selected, chosen = os.environ.get("KERAS_BACKEND"), _choice(training, restoring)
        os.environ["KERAS_BACKEND"] = chosen
        try:
            if chosen == "openvino":
                import_openvino()
            # Keras' OpenVINO backend knows it for windows of sound; it would take longer than all the rest.
            with _put_off("scipy.signal") if chosen == "openvino" else contextlib.nullcontext():
                importlib.import_module("keras")
        finally:
            # What this process chose is not for those that it starts.
            os.environ.pop("KERAS_BACKEND") if selected is None else os.environ.update(KERAS_BACKEND=selected)
    keras = sys.modules["keras"]
    if training and keras.backend.backend() not in BACKENDS:
        raise ImportError("it cannot train")


def __getattr__(name):
    """Returns Keras for `from deblur_gan.backend import keras`, which chooses a backend that is installed."""
    if name != "keras":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_keras()
    return sys.modules["keras"]


def import_openvino():
    """Imports OpenVINO, and keeps it from reporting that to its makers, with an identifier that it leaves in HOME.

    Returns:
        The module.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # as if it were not installed; OpenVINO provides for that
    return importlib.import_module("openvino")


def _choice(training, restoring):
    """The name of the backend that Keras is to be imported with."""
    if selected := os.environ.get("KERAS_BACKEND"):
        return selected
    if (configured := _configured()) != BACKENDS[0]:
        return configured
    order = BACKENDS if training else ("openvino", *BACKENDS) if restoring else (*BACKENDS, "openvino")
    for name in order:
        if importlib.util.find_spec(name) and (name != "openvino" or _keras_version() >= KERAS_FOR_OPENVINO):
            return name
    raise ImportError(f"none of {', '.join(order)} is installed, and it needs one: pip install {order[0]}")


def _keras_version():
    return tuple(int(number) for number in importlib.metadata.version("keras").split(".")[:2])


def _configured():
    """The backend that Keras' configuration file names; Keras makes the file, with its default."""
    folder = Path(os.environ.get("KERAS_HOME") or Path("~", ".keras").expanduser())
    try:
        return json.loads((folder / "keras.json").read_bytes())["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return BACKENDS[0]


@contextlib.contextmanager
def _put_off(name):
    """Lets what is imported meanwhile import a module without loading it, unless something of it is used."""
    placeholder = types.ModuleType(name)

    def used(attribute):
        if sys.modules.get(name) is placeholder:
            del sys.modules[name]
        return getattr(importlib.import_module(name), attribute)

    if name not in sys.modules:
        placeholder.__getattr__ = used
        sys.modules[name] = placeholder
    try:
        yield
    finally:
        if sys.modules.get(name) is placeholder:
            del sys.modules[name]


def dtype_to_restore_in(precision="auto"):
    """What to build a generator with, so that it restores in a precision; Keras is imported for it.

    In bfloat16 weights and output stay float32, but see `compile_as_built`. "auto" is bfloat16 where it is
    faster, which is not measured but asked: OpenVINO says itself whether the processor has it; TensorFlow and PyTorch
    gain from it on a processor with the instructions AVX512-BF16 or AMX-BF16. JAX on a processor gains nothing, other
    processors have to imitate it, and of a GPU nobody is asked: there it is float32.

    Args:
        precision: str, one of `PRECISIONS`.

    Returns:
        str, "float32" or "mixed_bfloat16", as `load_generator` and `generator_model` take it.

    Raises:
        ValueError: if `precision` is another, or bfloat16 is asked of OpenVINO on a processor without.
    """
    import keras

    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: must be one of {', '.join(PRECISIONS)}")
    if precision == "float32":
        return "float32"
    if keras.backend.backend() == "openvino":
        gains = "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bfloat16" and not gains:
            raise ValueError("precision 'bfloat16': OpenVINO does not compute in it on this processor; take float32")
    else:
        gains = (
            precision == "auto"
            and keras.backend.backend() != "jax"
            and "cpu" in str(keras.ops.zeros(1).device).lower()
            and not _instructions().isdisjoint({"amx_bf16", "avx512_bf16"})
        )
    return "mixed_bfloat16" if gains or precision == "bfloat16" else "float32"


def _instructions():
    """Set of str, the extensions of the processor, as Linux calls them; elsewhere it is empty."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return set(found[1].split())
    return set()


def engine_and_precision(dtype):
    """str, what restores and in what, such as "OpenVINO in bfloat16", of a generator built with `dtype`."""
    import keras

    name = keras.backend.backend()
    return f"{TITLES.get(name, name)} in {dtype.removeprefix('mixed_')}"


def compile_as_built():
    """Makes OpenVINO compute a Keras model in the precision it was built with.

    By itself it computes all in bfloat16 where the processor can. Keras says nothing to the contrary when it compiles,
    so `openvino.compile_model` is replaced for this process: where nothing is said, a model that holds float32 alone is
    computed in float32. One that was built in bfloat16 is computed in it wherever OpenVINO can: that is faster and
    takes less memory than to change between the two within it.
    """
    openvino = import_openvino()
    if hasattr(openvino.compile_model, "as_built"):
        return
    compile_model = openvino.compile_model

    @functools.wraps(compile_model)
    def compiled(model, device_name="AUTO", config=None):
        if config is None and isinstance(model, openvino.Model):
            types = {output.get_element_type() for node in model.get_ops() for output in node.outputs()}
            config = {"INFERENCE_PRECISION_HINT": "bf16" if openvino.Type.bf16 in types else "f32"}
        return compile_model(model, device_name, config)

    compiled.as_built = True
    openvino.compile_model = compiled


def start_backend(training=False, restoring=False):
    """Imports Keras for a command: `import_keras`, but quiet, and with one line where it fails.

    TensorFlow's C++ notes and warnings do not reach the screen unless `TF_CPP_MIN_LOG_LEVEL` is 0.

    Args:
        training: as `import_keras`.
        restoring: as `import_keras`.

    Raises:
        click.ClickException: if the backend does not exist, is not installed, cannot be imported or cannot train.
    """
    import click  # here, because the filter below is this file run alone

    try:
        loud = "keras" not in sys.modules and _choice(training, restoring) != "openvino"
        with without_notes() if loud else contextlib.nullcontext():
            import_keras(training, restoring)
    # A backend whose parts do not fit each other fails with whatever its import trips over.
    except Exception as error:
        selected = os.environ.get("KERAS_BACKEND")
        reason = " ".join(str(error).split()) or type(error).__name__
        found = {name: importlib.util.find_spec(name) is not None for name in (*BACKENDS, "openvino")}
        if not selected and not any(found.values()):
            raise click.ClickException(f"Keras: {reason}") from None
        backend = f"KERAS_BACKEND={selected}" if selected else "Keras' default backend"
        choice = ", ".join(f"{name} ({'' if there else 'not '}installed)" for name, there in found.items())
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
