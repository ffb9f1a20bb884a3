"""OpenVINO's own format: an .xml file and a .bin file next to it."""

import json

from deblur_gan.backend import import_openvino
from deblur_gan.exporting.conversion import METADATA_NAME, Engine, convert


def write(generator, path, precision, facts):
    """Writes both files with the facts as runtime information."""
    openvino = import_openvino()

    converted = path.with_name("converted.xml")
    convert(generator, converted, "openvino")
    model = openvino.Core().read_model(converted)
    model.outputs[0].tensor.set_names({"restored"})
    model.set_rt_info(json.dumps(facts), METADATA_NAME)
    openvino.save_model(model, path, compress_to_fp16=precision == "float16")


def load(path, generator):
    """Starts OpenVINO on the processor, in float32: unless told, it computes in bfloat16 if the processor can."""
    compiled = import_openvino().Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return Engine(lambda values: compiled(values)[0], generator.layers)
