"""Generators as files for other engines, each tried with its own engine before it appears.

Keras converts; for all formats but its own and PyTorch's, TensorFlow must be its backend. Beside the network a file
holds JSON that says how to use it and where it comes from; see `export_generator`.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import skimage

from deblur_gan import __version__
from deblur_gan.backend import import_openvino, keras
from deblur_gan.data.samples import write_sample_images
from deblur_gan.exporting.engines import FORMATS, OURS, Engine, load_exported
from deblur_gan.files import put_in_place, reason, workshop
from deblur_gan.images.photographs import find_images, read_rgb
from deblur_gan.restoring.deblur import FULL_CONTRAST, INSTANCE_TILE_SIZE, SIZE_MULTIPLE, SMALLEST_WHOLE_SIDE, deblur
from deblur_gan.weights import describe, load_generator, save_generator, save_pytorch

# Grey levels by which a float32 file may differ from `deblur`: one, where two roundings fall on either side.
LARGEST_DIFFERENCE = 1

# Under which name a file says what it is; in folders and archives, a file of this name and ".json".
METADATA_NAME = "deblur_gan"

# Crops of a photograph that no multiple of 4 divides, of two sizes: height and width.
_TRIED_SIZES = ((201, 301), (83, 66))


class CannotExport(ValueError):
    """A file that cannot be made; the message is one line that says why."""


def export_generator(weight_path, output, format, precision="float32", dropout=True):
    """Writes a generator in another format; the file appears whole, tried and compared with `deblur`, or not at all.

    Height and width stay free. Input and output are float32 `(B, H, W, 3)`, RGB in [-1, 1]; H and W are multiples of 4.

    - float16: the weights, and in ONNX all but input and output, are stored in half precision.
    - int8, ONNX: weights and inputs of the strided convolutions and of those in the residual blocks, which hold most
      of the weights, have 8 bits; the ranges of the inputs are taken from sample photographs.
    - int8, LiteRT: the weights of the convolutions have 8 bits; their inputs are quantized as they come.

    All formats but "pth" and "h5", which is what `save_generator` writes, hold JSON: how the file is used (`layout`,
    `channels`, `value_range`, `size_multiple`, `smallest_side`, and for instance normalization `full_contrast`) and
    where it comes from (what `describe` says of the weights, `source_sha256`, `precision`, `package_version`). It is
    called `METADATA_NAME`: in ONNX metadata, in OpenVINO runtime information, in LiteRT a file in the archive that is
    appended to the model, in SavedModel a file in `assets.extra`.

    Args:
        weight_path: str or Path of the generator's weights; see `load_generator`.
        output: str or Path that ends as the format requires; what stands there is replaced. Missing folders are made.
            OpenVINO's weights are put beside it, under the same name with ".bin".
        format: key of `FORMATS`.
        precision: one of the format's precisions.
        dropout: bool, see `save_pytorch`.

    Returns:
        int, the largest difference from `deblur` in grey levels, on crops of a photograph.

    Raises:
        CannotExport: if an argument is not as said above, something is not installed, the conversion fails, or a
            float32 file differs by more than `LARGEST_DIFFERENCE`.
        BadWeights: as `load_generator`.
        OSError: if the file cannot be written; what stood at `output` before is then still there.
    """
    output = Path(output)
    require_exportable(output, format, precision)
    generator, provenance = load_generator(weight_path), _provenance(weight_path, precision)
    output.parent.mkdir(parents=True, exist_ok=True)
    with workshop(output) as folder:
        made = folder / f"generator{FORMATS[format].suffix}"
        try:
            with _quiet():
                if format == "h5":
                    save_generator(generator, made, provenance.get("training"), precision)
                elif format == "pth":
                    save_pytorch(generator, made, dropout)
                else:
                    _WRITERS[format](_convertible(generator), made, precision, json.dumps(provenance))
                difference = _largest_difference(generator, load_exported(made, generator))
        except (OSError, MemoryError):
            raise
        # A converter or an engine fails with whatever it trips over.
        except Exception as error:
            raise CannotExport(f"{weight_path}: cannot be written as {format}, {precision} ({reason(error)})") from None
        if precision == "float32" and difference > LARGEST_DIFFERENCE:
            raise CannotExport(
                f"{weight_path}: as {format}, it differs from what it restores here by {difference} grey levels; "
                f"at most {LARGEST_DIFFERENCE} is allowed. Nothing was written"
            )
        if format == "openvino":
            put_in_place(made.with_suffix(".bin"), output.with_suffix(".bin"))
        put_in_place(made, output)
    return difference


def require_exportable(output, format, precision="float32"):
    """Refuses what cannot be made, before any work.

    Raises:
        CannotExport: see `export_generator`.
    """
    suffix, precisions, modules = FORMATS[format]
    if precision not in precisions:
        other = {"openvino": "; OpenVINO reads the int8 file of --format onnx", "h5": "", "pth": "", "saved_model": ""}[
            format
        ]
        raise CannotExport(f"--precision {precision}: {format} has {' and '.join(precisions)}{other}")
    if suffix and output.suffix != suffix:
        raise CannotExport(f"{output}: the name of a file in the format {format} must end in {suffix}")
    if suffix and output.is_dir():
        raise CannotExport(f"{output}: is a folder; the name of a file is required")
    if not suffix and output.exists() and not (output / "saved_model.pb").is_file():
        raise CannotExport(f"{output}: exists and is no SavedModel; it is not replaced")
    if format in OURS:
        return
    missing = " ".join(module for module in ("tensorflow", *modules) if importlib.util.find_spec(module) is None)
    if missing:
        raise CannotExport(f"--format {format}: {missing} is not installed; pip install {missing}")
    if keras.backend.backend() != "tensorflow":
        raise CannotExport(f"--format {format}: needs KERAS_BACKEND=tensorflow, not {keras.backend.backend()}")


def _provenance(weight_path, precision):
    """What a file says about itself; see `export_generator`."""
    description = describe(weight_path)
    with open(weight_path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    of_paper = {"full_contrast": FULL_CONTRAST, "tile_size": INSTANCE_TILE_SIZE}
    return {
        **description,
        "package_version": __version__,
        "precision": precision,
        "source_sha256": sha256,
        "layout": "NHWC",
        "channels": "RGB",
        "value_range": [-1, 1],
        "size_multiple": SIZE_MULTIPLE,
        "smallest_side": SMALLEST_WHOLE_SIDE,
        **(of_paper if description["architecture"] == "paper" else {}),
    }


def _largest_difference(generator, engine):
    photograph = read_rgb(Path(skimage.__file__).parent / "data" / "coffee.png")
    differences = [
        np.abs(deblur(generator, crop).astype(int) - deblur(engine, crop)).max()
        for crop in (photograph[-height:, -width:] for height, width in _TRIED_SIZES)
    ]
    return int(max(differences))


@contextlib.contextmanager
def _quiet():
    """Without what the converters log and warn about their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Doubling(keras.layers.UpSampling2D):
    """Nearest neighbour, without the loss of the number of channels that Keras' own has where the size is free."""

    def call(self, inputs):
        batch, height, width, channels = keras.ops.shape(inputs)
        rows = keras.ops.stack([inputs, inputs], axis=3)
        pixels = keras.ops.stack([rows, rows], axis=2)
        return keras.ops.reshape(pixels, (batch, 2 * height, 2 * width, channels))


# What every conversion starts from; the name is that of the input in the file.
_INPUT = [keras.InputSpec(dtype="float32", shape=(None, None, None, 3), name="blurred")]


def _convertible(generator):
    def layer_of(layer):
        return _Doubling.from_config(layer.get_config()) if type(layer) is keras.layers.UpSampling2D else layer

    return keras.models.clone_model(generator, clone_function=layer_of)


# ---- writing: each function takes the network, the path, the precision and what the file says about itself


def _write_onnx(generator, path, precision, provenance):
    import onnx

    generator.export(str(path), format="onnx", verbose=False, input_signature=_INPUT)
    model = onnx.load(path)
    _name_tensors(model.graph)
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True)
    if precision == "int8":
        model = _quantized_onnx(model, path.parent)
    model.metadata_props.add(key=METADATA_NAME, value=provenance)
    onnx.save(model, path)


def _name_tensors(graph):
    """Says what input, output and their axes are, where the converter counts."""
    made_up, output = graph.output[0].name, "restored"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [output if name == made_up else name for name in names]
    graph.output[0].name = output
    for tensor in (graph.input[0], graph.output[0]):
        for axis, name in zip(tensor.type.tensor_type.shape.dim, ("batch", "height", "width"), strict=False):
            axis.dim_param = name


def _quantized_onnx(model, folder):
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):
        def __init__(self, batches):
            self._batches = iter(batches)

        def get_next(self):
            return next(({"blurred": values} for values in self._batches), None)

    kernels = {array.name: tuple(array.dims) for array in model.graph.initializer}
    convolutions = [(node.name, kernels[node.input[1]]) for node in model.graph.node if node.op_type == "Conv"]
    # Of the upsampling convolutions and of the outer ones 8 bits take what a photograph gains: 0.6 of 1.2 dB.
    chosen = [name for name, (outputs, inputs, *size) in convolutions if size == [3, 3] and outputs >= inputs]
    onnx.save(model, folder / "named.onnx")  # older versions lose the weights of a model that is not in a file
    quantize_static(
        folder / "named.onnx",
        folder / "quantized.onnx",
        Samples(_sample_values()),
        quant_format=QuantFormat.QDQ,
        nodes_to_quantize=chosen,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return onnx.load(folder / "quantized.onnx")


def _sample_values():
    """Blurred photographs as the network sees them: list of float32 `(1, H, W, 3)`."""
    seen = []

    def look(values):
        seen.append(values)
        return values

    with tempfile.TemporaryDirectory() as folder:
        write_sample_images(folder)
        for path in find_images(Path(folder) / "train" / "A"):
            deblur(Engine(look, []), read_rgb(path))
    return seen


def _write_openvino(generator, path, precision, provenance):
    openvino = import_openvino()

    converted = path.with_name("converted.xml")
    generator.export(str(converted), format="openvino", verbose=False, input_signature=_INPUT)
    model = openvino.Core().read_model(converted)
    model.outputs[0].tensor.set_names({"restored"})
    model.set_rt_info(provenance, METADATA_NAME)
    openvino.save_model(model, path, compress_to_fp16=precision == "float16")


def _write_litert(generator, path, precision, provenance):
    import tensorflow as tf

    # Built-in operations alone: an engine without TensorFlow's has to run it.
    target = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    if precision == "float16":
        target["supported_types"] = [tf.float16]
    options = {} if precision == "float32" else {"optimizations": [tf.lite.Optimize.DEFAULT]}
    generator.export(str(path), format="litert", verbose=False, input_signature=_INPUT, target_spec=target, **options)
    with zipfile.ZipFile(path, "a") as archive:  # as TensorFlow Lite's metadata keeps files with a model
        archive.writestr(f"{METADATA_NAME}.json", provenance)


def _write_saved_model(generator, path, precision, provenance):
    generator.export(str(path), format="tf_saved_model", verbose=False, input_signature=_INPUT)
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / f"{METADATA_NAME}.json").write_text(provenance, encoding="utf-8")


_WRITERS = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "litert": _write_litert,
    "saved_model": _write_saved_model,
}
