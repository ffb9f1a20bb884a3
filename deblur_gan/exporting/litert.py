"""LiteRT (TensorFlow Lite)."""

import json
import os
import zipfile

from deblur_gan.exporting.conversion import METADATA_NAME, Engine, convert


def write(generator, path, precision, facts):
    """Writes a .tflite file and appends a zip archive with the facts, as TensorFlow Lite appends its metadata."""
    import tensorflow as tf

    # Only built-in operations: engines do not contain TensorFlow's.
    target = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    if precision == "float16":
        target["supported_types"] = [tf.float16]
    options = {} if precision == "float32" else {"optimizations": [tf.lite.Optimize.DEFAULT]}
    convert(generator, path, "litert", target_spec=target, **options)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{METADATA_NAME}.json", json.dumps(facts))


def load(path, generator):
    """Starts LiteRT on all cores; by default it uses one thread."""
    from ai_edge_litert.interpreter import Interpreter

    n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    interpreter = Interpreter(str(path), num_threads=n_threads)
    (blurred,), (restored,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(values):
        if interpreter.get_input_details()[0]["shape"].tolist() != list(values.shape):
            interpreter.resize_tensor_input(blurred["index"], values.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(blurred["index"], values)
        interpreter.invoke()
        return interpreter.get_tensor(restored["index"])

    return Engine(run, generator.layers)
