"""ONNX, for ONNX Runtime and other engines."""

import json
import tempfile
from pathlib import Path

from deblur_gan.data.samples import write_sample_images
from deblur_gan.exporting.conversion import METADATA_NAME, Engine, convert
from deblur_gan.images.photographs import find_images, read_rgb
from deblur_gan.restoring.deblur import deblur


def write(generator, path, precision, facts):
    """Writes ONNX with the facts as custom metadata; in float16, input and output stay float32."""
    import onnx

    convert(generator, path, "onnx")
    model = onnx.load(path)
    _name_tensors(model.graph)
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    if precision == "int8":
        model = _quantize(model, path.parent)
    model.metadata_props.add(key=METADATA_NAME, value=json.dumps(facts))
    onnx.save(model, path)


def load(path, generator):
    """Starts ONNX Runtime on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Engine(lambda values: session.run(None, {"blurred": values})[0], generator.layers)


def _name_tensors(graph):
    """Names the output and the axes of input and output, which the converter only numbers."""
    numbered, output = graph.output[0].name, "restored"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [output if name == numbered else name for name in names]
    graph.output[0].name = output
    for tensor in (graph.input[0], graph.output[0]):
        for axis, name in zip(tensor.type.tensor_type.shape.dim, ("batch", "height", "width"), strict=False):
            axis.dim_param = name


def _quantize(model, folder):
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):
        def __init__(self, batches):
            self._batches = iter(batches)

        def get_next(self):
            return next(({"blurred": values} for values in self._batches), None)

    kernels = {array.name: tuple(array.dims) for array in model.graph.initializer}
    convolutions = [(node.name, kernels[node.input[1]]) for node in model.graph.node if node.op_type == "Conv"]
    # In 8 bits the upsampling and the outer convolutions lose what a photograph gains: 0.6 of 1.2 dB.
    chosen = [name for name, (outputs, inputs, *size) in convolutions if size == [3, 3] and outputs >= inputs]
    onnx.save(model, folder / "named.onnx")  # older versions lose the weights of a model that is not in a file
    quantize_static(
        folder / "named.onnx",
        folder / "quantized.onnx",
        Samples(_sample_inputs()),
        quant_format=QuantFormat.QDQ,
        nodes_to_quantize=chosen,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(folder / "quantized.onnx")


def _sample_inputs():
    """Returns what the network gets of the sample photographs: list of float32 `(1, H, W, 3)`."""
    inputs = []

    def note(values):
        inputs.append(values)
        return values

    with tempfile.TemporaryDirectory() as folder:
        write_sample_images(folder)
        for path in find_images(Path(folder) / "train" / "A"):
            deblur(Engine(note, []), read_rgb(path))
    return inputs
