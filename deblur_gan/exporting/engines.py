"""The formats that generators are exported to, and their engines: what an exported file restores with."""

import os
from pathlib import Path
from typing import NamedTuple

from deblur_gan.backend import import_openvino
from deblur_gan.weights import load_generator

PRECISIONS = ("float32", "float16", "int8")


class Format(NamedTuple):
    """A format of files.

    Attributes:
        suffix: str, what names end in; "" for a folder.
        precisions: tuple of the `PRECISIONS` that there are.
        modules: tuple of the modules, next to TensorFlow, that write it and run it; pip installs them by these names.
    """

    suffix: str
    precisions: tuple
    modules: tuple = ()


FORMATS = {
    "h5": Format(".h5", ("float32", "float16")),
    "pth": Format(".pth", ("float32",)),
    "onnx": Format(".onnx", PRECISIONS, ("onnx", "onnxruntime", "tf2onnx")),
    "openvino": Format(".xml", ("float32", "float16"), ("openvino",)),
    "litert": Format(".tflite", PRECISIONS, ("ai_edge_litert",)),
    "saved_model": Format("", ("float32",)),
}

# Those that this package reads itself, on any backend.
OURS = ("h5", "pth")


def load_exported(path, generator):
    """Starts a file that `export_generator` wrote, with its own engine on the processor, in float32 where the file is.

    Args:
        path: str or Path.
        generator: `keras.Model`, the generator that it was made from.

    Returns:
        What `deblur` and `measure` take in the place of `generator`.
    """
    path = Path(path)
    format = next(name for name, known in FORMATS.items() if known.suffix == path.suffix)
    return load_generator(path) if format in OURS else Engine(_ENGINES[format](str(path)), generator.layers)


class Engine:
    """An exported network in the place of a `keras.Model`.

    Args:
        run: function from float32 `(B, H, W, 3)` to the same.
        layers: those of the generator, by which `deblur` goes.
    """

    def __init__(self, run, layers):
        self._run, self.layers = run, layers

    def predict_on_batch(self, values):
        return self._run(values)


def _run_onnx(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda values: session.run(None, {"blurred": values})[0]


def _run_openvino(path):
    openvino = import_openvino()

    # A processor that has bfloat16 would compute in it.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda values: compiled(values)[0]


def _run_litert(path):
    from ai_edge_litert.interpreter import Interpreter

    # Of its own accord it takes one thread.
    n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    interpreter = Interpreter(path, num_threads=n_threads)
    (blurred,), (restored,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values):
        if interpreter.get_input_details()[0]["shape"].tolist() != list(values.shape):
            interpreter.resize_tensor_input(blurred["index"], values.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(blurred["index"], values)
        interpreter.invoke()
        return interpreter.get_tensor(restored["index"])

    return run


def _run_saved_model(path):
    import tensorflow as tf

    model = tf.saved_model.load(path)
    return lambda values: model.serve(values).numpy()


_ENGINES = {"onnx": _run_onnx, "openvino": _run_openvino, "litert": _run_litert, "saved_model": _run_saved_model}
