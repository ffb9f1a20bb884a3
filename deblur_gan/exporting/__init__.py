"""Generators as files for other engines: a row in the table `FORMATS` and a module of the same name for each format.

Such a module has `write(generator, path, precision, facts)`, and `load(path, generator)`, which returns what `deblur`
takes in place of a generator.
"""

from typing import NamedTuple


class Format(NamedTuple):
    """A format of files.

    `suffix` ends their names, "" for a folder. `precisions` begins with the most precise. `needs` are the modules that
    write and run it, as pip installs them. A format that needs TensorFlow is converted by Keras on TensorFlow.
    """

    suffix: str
    precisions: tuple
    needs: tuple = ()


FORMATS = {
    "h5": Format(".h5", ("float32", "float16")),
    "pth": Format(".pth", ("float32",), ("torch",)),
    "onnx": Format(".onnx", ("float32", "float16", "int8"), ("tensorflow", "onnx", "onnxruntime", "tf2onnx")),
    "openvino": Format(".xml", ("float32", "float16"), ("tensorflow", "openvino")),
    "litert": Format(".tflite", ("float32", "float16", "int8"), ("tensorflow", "ai_edge_litert")),
    "saved_model": Format("", ("float32",), ("tensorflow",)),
}
