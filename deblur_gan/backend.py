"""Chooses and starts a Keras backend, quietly, and the precision in which it restores."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import tempfile
import threading
import types
from pathlib import Path

# The backends that train; the first is Keras' default.
BACKENDS = ("tensorflow", "jax", "torch")
# Older versions run neither transposed convolutions nor a second size of photographs on OpenVINO.
KERAS_FOR_OPENVINO = (3, 14)
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch", "openvino": "OpenVINO"}

PRECISIONS = ("auto", "float32", "bfloat16")

_importing = threading.RLock()
_holding_stderr = threading.RLock()  # the file descriptor belongs to all threads

# Notes that TensorFlow's libraries print before its log level counts: information, warnings, and that two libraries
# register the same CUDA plugin. Other lines are errors.
_NOTE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} \d\d:\d\d:|.*factory for plugin cu"
    rb"|INFO: Created TensorFlow Lite \w+ delegate"
)


def import_keras(training=False, restoring=False, backend=None):
    """Imports Keras, and with it a backend that can train, or that has only to restore. Threads may call it at once.

    Without `backend`, the environment variable `KERAS_BACKEND` selects the backend, then Keras' own `keras.json` if it
    names another than Keras' default. Otherwise the first that is installed of TensorFlow, JAX, PyTorch and OpenVINO is
    imported. To restore, OpenVINO comes first: it starts and restores fastest on a processor. It cannot train. Once
    Keras is imported, its backend stays.

    Raises:
        ImportError: if no backend is installed, or the backend cannot train. A damaged installation raises whatever
            its import raises.
    """
    with _importing:
        if "keras" not in sys.modules:
            selected, chosen = os.environ.get("KERAS_BACKEND"), backend or _choice(training, restoring)
            os.environ["KERAS_BACKEND"] = chosen
            try:
                if chosen == "openvino":
                    import_openvino()
                # Keras' OpenVINO backend needs it for windows of sound only, and it takes longer than all the rest.
                with _put_off("scipy.signal") if chosen == "openvino" else contextlib.nullcontext():
                    importlib.import_module("keras")
            finally:
                # The choice is for this process, not for those that it starts.
                os.environ.pop("KERAS_BACKEND") if selected is None else os.environ.update(KERAS_BACKEND=selected)
    if training and sys.modules["keras"].backend.backend() not in BACKENDS:
        raise ImportError("it cannot train")


def __getattr__(name):
    """Returns Keras for `from deblur_gan.backend import keras`, which chooses a backend that is installed."""
    if name != "keras":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_keras()
    return sys.modules["keras"]


def import_openvino():
    """Imports OpenVINO without its telemetry, which would report the import and write an identifier into HOME."""
    sys.modules.setdefault("openvino_telemetry", None)  # OpenVINO then assumes that it is not installed
    return importlib.import_module("openvino")


def _choice(training, restoring):
    """Returns the name of the backend to import Keras with."""
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
    """Returns the backend in Keras' configuration file, which Keras itself writes with its default."""
    folder = Path(os.environ.get("KERAS_HOME") or Path("~", ".keras").expanduser())
    try:
        return json.loads((folder / "keras.json").read_bytes())["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return BACKENDS[0]


@contextlib.contextmanager
def _put_off(name):
    """Delays the import of a module until one of its names is used."""
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
    """Returns the dtype policy with which a generator restores in a precision. Imports Keras.

    In bfloat16 weights and output stay float32, but see `keep_model_precision`. "auto" is bfloat16 on processors that
    are faster in it: OpenVINO reports them itself; TensorFlow and PyTorch gain from the instructions AVX512-BF16 and
    AMX-BF16. JAX on a processor gains nothing, and on a GPU "auto" is float32.

    Returns:
        str, "float32" or "mixed_bfloat16", for `load_generator` and `generator_model`.

    Raises:
        ValueError: if `precision` is not one of `PRECISIONS`, or OpenVINO does not compute in it on this processor.
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
    """Returns the set of instruction set extensions that Linux lists; on other systems it is empty."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return set(found[1].split())
    return set()


def engine_and_precision(dtype):
    """Returns backend and precision as text, such as "OpenVINO in bfloat16", for a generator built with `dtype`."""
    import keras

    name = keras.backend.backend()
    return f"{TITLES.get(name, name)} in {dtype.removeprefix('mixed_')}"


@contextlib.contextmanager
def keep_model_precision():
    """Makes OpenVINO compute the Keras models that are compiled meanwhile in the precision they were built with.

    By default OpenVINO computes all models in bfloat16 on a processor that has it, and Keras passes no other wish when
    it compiles. So `openvino.compile_model` is wrapped until the context ends: without a configuration, a model that
    holds float32 only is computed in float32. A model that was built in bfloat16 is computed in bfloat16 throughout,
    which is faster and takes less memory than to change between the two. On other backends nothing happens.

    The caller holds a lock: two threads must not be in this context at once.
    """
    openvino = sys.modules.get("openvino")
    if openvino is None or sys.modules["keras"].backend.backend() != "openvino":
        yield
        return
    compile_model = openvino.compile_model

    def compile_in_model_precision(model, device_name="AUTO", config=None):
        if config is None and isinstance(model, openvino.Model):
            types = {output.get_element_type() for node in model.get_ops() for output in node.outputs()}
            config = {"INFERENCE_PRECISION_HINT": "bf16" if openvino.Type.bf16 in types else "f32"}
        return compile_model(model, device_name, config)

    openvino.compile_model = compile_in_model_precision
    try:
        yield
    finally:
        openvino.compile_model = compile_model


def start_backend(training=False, restoring=False, backend=None):
    """Imports Keras for a command: as `import_keras`, but quietly, and with one line if it fails.

    The C++ notes and warnings of TensorFlow do not reach the screen unless `TF_CPP_MIN_LOG_LEVEL` is 0. Raises
    `click.ClickException` if the backend does not exist, is not installed, cannot be imported or cannot train.
    """
    import click

    try:
        loud = "keras" not in sys.modules and (backend or _choice(training, restoring)) != "openvino"
        with without_notes() if loud else contextlib.nullcontext():
            import_keras(training, restoring, backend)
    # A damaged installation raises whatever its import raises.
    except Exception as error:
        selected = backend or os.environ.get("KERAS_BACKEND")
        reason = " ".join(str(error).split()) or type(error).__name__
        found = {name: importlib.util.find_spec(name) is not None for name in (*BACKENDS, "openvino")}
        if not selected and not any(found.values()):
            raise click.ClickException(f"Keras: {reason}") from None
        backend = f"KERAS_BACKEND={selected}" if selected else "Keras' default backend"
        choice = ", ".join(f"{name} ({'' if there else 'not '}installed)" for name, there in found.items())
        raise click.ClickException(f"{backend}: cannot be used ({reason}). There are {choice}") from None


def versions():
    """Returns the versions of the libraries that results may depend on: dict from name to version."""
    import keras
    import numpy as np

    from deblur_gan import __version__

    backend = keras.backend.backend()
    return {
        "deblur_gan": __version__,
        "keras": keras.__version__,
        # From the module: the installed package may have another name, such as tensorflow-cpu.
        backend: importlib.import_module(backend).__version__,
        "numpy": np.__version__,
    }


@contextlib.contextmanager
def without_notes():
    """Holds back stderr, and prints it afterwards without the notes of TensorFlow and LiteRT.

    It holds the file descriptor, because libraries write there without Python. Progress bars do not show meanwhile.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    with _holding_stderr, tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        screen = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
            held.seek(0)
            for line in held:
                if not _NOTE.match(line):
                    sys.stderr.write(line.decode(errors="replace"))
            sys.stderr.flush()
