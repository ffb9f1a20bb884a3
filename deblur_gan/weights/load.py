"""Loads weight files, whoever wrote them, array by array; nothing in them is executed."""

import contextlib
import json
import math
import re

from deblur_gan.weights import hdf5, pytorch
from deblur_gan.weights.hdf5 import BadWeights
from deblur_gan.weights.identify import (
    METADATA_ATTRIBUTE,
    build,
    by_kind,
    identify,
    layers_with_weights,
    name_of,
    recorded,
)


def load_generator(path, dtype="float32"):
    """Builds the generator that a weight file holds, and loads its weights.

    Reads weights-only and whole-model `.h5` of Keras 2 and tf_keras, and `.h5`, `.weights.h5` and `.keras` of Keras 3.
    Of a whole model only the arrays are read, not its configuration, which may hold pickled code.
    With PyTorch installed, reads a state_dict of the authors' generator (`latest_net_G.pth`) with instance
    normalization, as `paper`. The file does not record if it was trained with `--learn_residual`, as it must be.

    Args:
        path: str or Path.
        dtype: Keras dtype policy to build with; see `generator_model`.

    Returns:
        `keras.Model`, see `generator_model`; architecture, `ngf` and `n_blocks` are the file's.

    Raises:
        BadWeights: if the file is missing, damaged or hostile, or holds something other than a generator.

    Example:
        >>> load_generator("weights/generator.h5").name
        'generator'
    """
    return _load(path, "generator", dtype)


def load_critic(path, dtype="float32"):
    """Builds the critic that a weight file holds, and loads its weights; see `load_generator`.

    Of PyTorch it reads `latest_net_D.pth`. A `meudec` critic fits one image size, which files of this package record.
    For other files it is assumed to be square.

    Returns:
        `keras.Model`, see `critic_model`; architecture and `ndf` are the file's.

    Raises:
        BadWeights: if the file is missing, damaged or hostile, or holds something other than a critic.

    Example:
        >>> load_critic("weights/critic.h5").name
        'critic'
    """
    return _load(path, "critic", dtype)


def describe(path):
    """Returns what a weight file holds, without loading it.

    Args:
        path: str or Path.

    Returns:
        dict with `network` ("generator" or "critic"), `architecture`, `ngf` and `n_blocks` or `ndf` and `image_shape`;
        for files of this package also `value_range`, `package_version` and `training` (numbers in it are finite);
        never anything else, whatever the file says.

    Raises:
        BadWeights: as `load_generator`, for anything but a generator or a critic.

    Example:
        >>> describe("weights/generator.h5")["architecture"]
        'paper'
    """
    with _opened(path) as (_, description, metadata):
        return {**metadata, **description}


def _load(path, network, dtype):
    with _opened(path) as (layers, description, _):
        if description["network"] != network:
            raise BadWeights(f"holds a {name_of(description)}; a {network} is required")
        model = build(description, dtype)
        found = by_kind(layers)
        for ranks, wanted in by_kind(layers_with_weights(model)).items():
            for layer, stored in zip(wanted, found[ranks], strict=True):
                values = [array.read() for array in stored.arrays]
                if len(values) == 4 and values[3].min() < 0:
                    raise BadWeights(f"layer {stored.name!r} holds a negative variance")
                model.get_layer(layer.name).set_weights(values)
        return model


@contextlib.contextmanager
def _opened(path):
    """Yields the layers of a file, not read yet, the description of its network, and its metadata."""
    if pytorch.recognized(path):
        with hdf5.naming(path):
            layers = pytorch.read_layers(path)
            yield layers, identify(layers), {}
        return
    with hdf5.opened(path) as root:
        found = _decode_metadata(root)
        layers = hdf5.layers(root)
        if layers is None and "layers" in root:
            layers = _layers_of_keras3(root.group("layers"))
        if layers is None:
            raise BadWeights("an HDF5 file without the layers of a Keras model")
        if not layers:
            raise BadWeights("holds no weights")
        yield layers, identify(layers, recorded(found)), _known_metadata(found)


def _decode_metadata(root):
    """Returns the dict that this package wrote into a file as JSON; an empty one if there is none, or it is damaged."""

    def finite(text):
        if not math.isfinite(float(text)):
            raise ValueError(text)
        return float(text)

    try:
        found = json.loads(root.strings(METADATA_ATTRIBUTE)[0], parse_float=finite, parse_constant=finite)
    except (IndexError, RecursionError, TypeError, ValueError):  # BadWeights too
        return {}
    return found if isinstance(found, dict) else {}


def _known_metadata(found):
    """Returns what `describe` returns of a file's metadata besides the network, each only if its type is right."""
    known = {"value_range": [-1, 1]} if found.get("value_range") == [-1, 1] else {}
    version, training = found.get("package_version"), found.get("training")
    if isinstance(version, str) and re.fullmatch(r"[\w.+-]{1,40}", version, re.ASCII):
        known["package_version"] = version
    if isinstance(training, dict):
        known["training"] = training
    return known


def _layers_of_keras3(root):
    """Lists the layers of a `.weights.h5` file in the order of the forward pass, by kind.

    Keras 3 numbers the layers within each class (conv2d, conv2d_1, ...), so their common order is lost. The order
    within convolutions and within normalizations is enough, except for transposed convolutions. These are a class of
    their own, and stand before the last convolution of a generator.
    """

    def of_class(name):
        members = []
        while (key := name + (f"_{len(members)}" if members else "")) in root:
            variables = root.group(f"{key}/vars")
            members.append(hdf5.Layer(key, [variables.array(str(number)) for number in range(len(variables))]))
        return members

    convolutions, transposed = of_class("conv2d"), of_class("transposed_conv3x3_stride2")
    if transposed:
        convolutions[-1:-1] = transposed
    return convolutions + of_class("batch_normalization") + of_class("dense")
