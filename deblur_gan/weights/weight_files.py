"""Weight files: which are read, what is written, and how a file tells what it holds.

Files are read array by array and nothing in them is executed. What a file holds is told by the shapes of its arrays
alone, so a file published in 2017 and one written today take the same way.
"""

import contextlib
import json
import math
import re
from pathlib import Path

import numpy as np

from deblur_gan import __version__
from deblur_gan.backend import keras
from deblur_gan.files import write_bytes
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.weights import hdf5, pytorch

METADATA_ATTRIBUTE = "deblur_gan"

# What takes Keras three seconds to build.
MAX_BLOCKS = 64


class BadWeights(ValueError):
    """A file that cannot be used as weights; the message is one line that names it and says why."""


def load_generator(path, dtype="float32"):
    """Builds the generator that a weight file holds, and fills it.

    Reads weights-only and whole-model `.h5` of Keras 2 and tf_keras, and `.h5`, `.weights.h5` and `.keras` of Keras 3.
    Of a whole model only the arrays are taken; its configuration, which may hold pickled code, is not looked at.
    Reads also a PyTorch state_dict of the authors' generator (`latest_net_G.pth`) with instance normalization, as
    `paper`. It does not say whether it was trained with `--learn_residual`, as this network is; without, it is another.

    Args:
        path: str or Path.
        dtype: Keras dtype policy to build with; see `generator_model`.

    Returns:
        `keras.Model`, see `generator_model`; architecture, `ngf` and `n_blocks` are the file's.

    Raises:
        BadWeights: if the file is missing, damaged, hostile, or holds something else than a generator.
    """
    return _load(path, "generator", dtype)


def load_critic(path, dtype="float32"):
    """Builds the critic that a weight file holds, and fills it; otherwise as `load_generator`.

    Of PyTorch it reads `latest_net_D.pth`. A `meudec` critic fits one image size. Files of this package record it; of
    others a square image is assumed.

    Returns:
        `keras.Model`, see `critic_model`; architecture and `ndf` are the file's.

    Raises:
        BadWeights: if the file is missing, damaged, hostile, or holds something else than a critic.
    """
    return _load(path, "critic", dtype)


def save_generator(generator, path, training=None, dtype="float32"):
    """Writes a generator's weights, whole or not at all.

    The file is read by `load_weights` of Keras 2 and Keras 3, and by Keras 3 `load_model` after `import deblur_gan`.
    Its attribute `deblur_gan` holds JSON that says what the file is; see `describe`.

    Args:
        generator: `keras.Model` from `generator_model`.
        path: str or Path that ends in ".h5", not in ".weights.h5" (for which Keras 3 expects another layout).
        training: dict for the metadata, of what JSON can hold, finite numbers only: what trained these weights.
        dtype: "float32", or "float16" for half the size; such a file is loaded as any other.

    Raises:
        ValueError: if the extension is another, the model is not one of `generator_model`, `training` holds something
            else, or a weight is too large for `dtype`.
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    _save(generator, path, "generator", training, dtype)


def save_critic(critic, path, training=None, dtype="float32"):
    """Writes a critic's weights; otherwise as `save_generator`."""
    _save(critic, path, "critic", training, dtype)


def save_pytorch(model, path, dropout=True):
    """Writes a `paper` network as a PyTorch state_dict, which the authors' code loads with `strict=True`.

    Args:
        model: `keras.Model` from `generator_model` or `critic_model`.
        path: str or Path, "latest_net_G.pth" for instance; whole or not at all.
        dropout: bool, whether their generator is built with dropout, which names its layers otherwise; it is unless
            they say `--no_dropout`. A critic has none.

    Raises:
        ValueError: if the model is another.
        OSError: as `save_generator`.
    """
    layers = _with_weights(model)
    description = _identify(f"the {model.name}", layers, model.input_shape[1:])
    if description["architecture"] != "paper":
        raise ValueError(f"the model is a {_name(description)}; the authors' code has the paper networks alone")
    names = pytorch.convolutions(description["network"], description.get("n_blocks", 0), dropout)
    values = [[np.asarray(array, np.float32) for array in model.get_layer(name).get_weights()] for name, _ in layers]
    write_bytes(path, pytorch.file_of(names, values))


def describe(path):
    """Says what a weight file holds, without loading it.

    Args:
        path: str or Path.

    Returns:
        dict with `network` ("generator" or "critic"), `architecture`, `ngf` and `n_blocks` or `ndf` and `image_shape`;
        for files of this package also `value_range`, `package_version` and `training` (numbers in it are finite);
        never anything else, whatever the file says.

    Raises:
        BadWeights: as `load_generator`, for anything but a generator or a critic.
    """
    with _opened(path) as (_, description, metadata):
        return {**metadata, **description}


def require_bounded(source, description):
    """Refuses a network that is larger than any that is read or written, before anything of its size is built.

    Args:
        source: what the message begins with.
        description: dict, see `describe`.

    Raises:
        BadWeights: if it has more than `MAX_BLOCKS` residual blocks or `hdf5.MAX_NUMBERS` numbers.
    """
    n_blocks = description.get("n_blocks", 0)
    if n_blocks > MAX_BLOCKS:
        raise BadWeights(f"{source}: has {n_blocks} residual blocks; at most {MAX_BLOCKS} are read")
    size = sum(math.prod(shape) for kind in _shapes(description) for layer in kind for shape in layer)
    if size > hdf5.MAX_NUMBERS:
        raise BadWeights(f"{source}: holds {size} numbers; networks of at most {hdf5.MAX_NUMBERS} are read")


def _load(path, network, dtype):
    with _opened(path) as (layers, description, _):
        if description["network"] != network:
            raise BadWeights(f"{path}: holds a {_name(description)}; a {network} is required")
        model = _build(description, dtype)
        for wanted, found in zip(_by_kind(_with_weights(model)), _by_kind(layers), strict=True):
            for layer, stored in zip(wanted, found, strict=True):
                values = [array.read() for array in stored.arrays]
                if len(values) == 4 and values[3].min() < 0:
                    raise BadWeights(f"{path}: layer {stored.name!r} holds a negative variance")
                model.get_layer(layer.name).set_weights(values)
        return model


def _save(model, path, network, training, dtype):
    path = Path(path)
    if path.suffix != ".h5" or path.name.endswith(".weights.h5"):
        raise ValueError(f"{path}: the name of a weight file must end in .h5 and not in .weights.h5")
    layers = _with_weights(model)
    description = _identify(f"the {model.name}", layers, model.input_shape[1:])
    if description["network"] != network:
        raise ValueError(f"the model is a {_name(description)}; a {network} is required")
    metadata = {**description, "value_range": [-1, 1], "package_version": __version__, "training": training or {}}
    # The configuration of a fresh float32 graph of any size, so that no dtype policy or input size of a run gets
    # into the file.
    plain = _build(description, "float32")
    config = json.loads(plain.to_json())
    # Weights that are there need no initializer, and an older Keras refuses what a newer one says of them.
    for layer in config["config"]["layers"]:
        layer["config"] = {key: value for key, value in layer["config"].items() if not key.endswith("_initializer")}
    attributes = {
        "keras_version": keras.__version__,
        "backend": keras.backend.backend(),
        "model_config": json.dumps({key: config[key] for key in ("class_name", "config")}),
        METADATA_ATTRIBUTE: json.dumps(metadata, allow_nan=False),
    }
    values = {
        layer.name: [_stored(path, array, dtype) for array in model.get_layer(name).get_weights()]
        for kind, stored in zip(_by_kind(_with_weights(plain)), _by_kind(layers), strict=True)
        for layer, (name, _) in zip(kind, stored, strict=True)
    }
    named = [
        hdf5.Layer(layer.name, list(zip([w.path for w in layer.weights], values.get(layer.name, []), strict=True)))
        for layer in plain.layers
    ]
    write_bytes(path, hdf5.file_of(named, attributes))


def _stored(path, array, dtype):
    if np.abs(array).max() > np.finfo(dtype).max:
        raise ValueError(f"{path}: a weight of {np.abs(array).max():.3g} is too large for {dtype}")
    return np.asarray(array, dtype)


def _with_weights(model):
    return [hdf5.Layer(layer.name, layer.weights) for layer in model.layers if layer.weights]


@contextlib.contextmanager
def _opened(path):
    """What a file holds: its layers, in the order of the forward pass and not read yet; what they are; its metadata."""
    try:
        if pytorch.recognized(path):
            with pytorch.opened(path) as layers:
                yield layers, _identify(path, layers), {}
        else:
            with hdf5.opened(path) as root:
                yield _contents(path, root)
    except hdf5.BadFile as error:
        raise BadWeights(str(error)) from None


def _contents(path, root):
    metadata = _metadata(root)
    layers = hdf5.layers(root)
    if layers is None and "layers" in root:
        layers = _layers_of_keras3(root.group("layers"))
    if layers is None:
        raise BadWeights(f"{path}: an HDF5 file, but without the layers of a Keras model in it")
    if not layers:
        raise BadWeights(f"{path}: holds no weights")
    description = _identify(path, layers, metadata.pop("image_shape", None))
    return layers, description, metadata


def _metadata(root):
    """What this package wrote about a file, of the right types; all else, and all of a damaged one, is left out."""

    def finite(text):
        if not math.isfinite(float(text)):
            raise ValueError(text)
        return float(text)

    try:
        found = json.loads(root.strings(METADATA_ATTRIBUTE)[0], parse_float=finite, parse_constant=finite)
        version, training, shape = (found.get(key) for key in ("package_version", "training", "image_shape"))
        known = {"value_range": [-1, 1]} if found.get("value_range") == [-1, 1] else {}
    except (hdf5.BadFile, AttributeError, IndexError, RecursionError, TypeError, ValueError):
        return {}
    if isinstance(version, str) and re.fullmatch(r"[\w.+-]{1,40}", version, re.ASCII):
        known["package_version"] = version
    if isinstance(training, dict):
        known["training"] = training
    if isinstance(shape, list):
        known["image_shape"] = shape
    return known


def _layers_of_keras3(root):
    """Keras 3 numbers the layers within each class (conv2d, conv2d_1, ...), which loses their common order.

    The order within convolutions and within normalizations is enough, but transposed convolutions, a class of their
    own, stand before the last convolution of a generator.
    """

    def of_class(name):
        members = []
        while (key := name + (f"_{len(members)}" if members else "")) in root:
            variables = root.group(f"{key}/vars")
            members.append(hdf5.Layer(key, [variables.array(str(number)) for number in range(len(variables))]))
        return members

    convolutions, transposed = of_class("conv2d"), of_class("conv2d_transpose")
    if transposed:
        convolutions[-1:-1] = transposed
    return convolutions + of_class("batch_normalization") + of_class("dense")


def _identify(source, layers, recorded_shape=None):
    """Tells from the shapes which network the layers are of, and compares every one of them with that network's.

    Args:
        source: what messages begin with.
        layers: list of `Layer`.
        recorded_shape: a critic's image size, if it is known; it must fit the shapes.

    Returns:
        dict, see `describe`.
    """
    convolutions, norms, dense, other = _by_kind(layers)
    if other:
        shapes = ", ".join(str(tuple(array.shape)) for array in other[0].arrays)
        raise BadWeights(
            f"{source}: layer {other[0].name!r} holds arrays {shapes}; "
            "convolutions, batch normalizations and dense layers, each with biases, are required"
        )
    if not convolutions:
        raise BadWeights(f"{source}: holds no convolution; a DeblurGAN generator or critic is required")
    first = tuple(convolutions[0].arrays[0].shape)
    if first[:3] == (7, 7, 3) and first[3] > 0:
        if len(convolutions) < 8 or len(convolutions) % 2:
            raise BadWeights(
                f"{source}: looks like a generator, but has {len(convolutions)} convolutions; 6 and two more "
                "for each residual block are required"
            )
        architecture, n_blocks = "meudec" if norms else "paper", (len(convolutions) - 6) // 2
        description = {"network": "generator", "architecture": architecture, "ngf": first[3], "n_blocks": n_blocks}
    elif first[:3] == (4, 4, 3) and first[3] > 0:
        architecture, shape = "meudec" if dense else "paper", [None, None, 3]
        if dense:
            shape = _image_shape(source, dense[0].arrays[0].shape[0], recorded_shape)
        description = {"network": "critic", "architecture": architecture, "ndf": first[3], "image_shape": shape}
    else:
        raise BadWeights(
            f"{source}: its first kernel has shape {first}; a DeblurGAN generator begins with (7, 7, 3, ngf), "
            "a critic with (4, 4, 3, ndf)"
        )
    require_bounded(source, description)
    _compare(f"{source}: looks like a {_name(description)}, but", (convolutions, norms, dense), _shapes(description))
    return description


def _compare(complaint, found, required):
    for kind, layers, shapes in zip(
        ("convolutions", "batch normalizations", "dense layers"), found, required, strict=True
    ):
        if len(layers) != len(shapes):
            raise BadWeights(f"{complaint} has {len(layers)} {kind} where {len(shapes)} are required")
        for layer, wanted in zip(layers, shapes, strict=True):
            for array, shape in zip(layer.arrays, wanted, strict=True):
                if tuple(array.shape) != shape:
                    raise BadWeights(
                        f"{complaint} layer {layer.name!r} has an array of shape {tuple(array.shape)} "
                        f"where {shape} is required"
                    )


def _shapes(description):
    """The shapes of a network's arrays: of its convolutions, of its batch normalizations, of its dense layers."""
    meudec, dense = description["architecture"] == "meudec", []
    if description["network"] == "generator":
        n = description["ngf"]
        kernels = [(7, 7, 3, n), (3, 3, n, 2 * n), (3, 3, 2 * n, 4 * n)]
        kernels += 2 * description["n_blocks"] * [(3, 3, 4 * n, 4 * n)]
        widths = [kernel[3] for kernel in kernels] + [2 * n, n, 3]
        # A transposed convolution keeps its outputs before its inputs.
        kernels += [(3, 3, 4 * n, 2 * n), (3, 3, 2 * n, n)] if meudec else [(3, 3, 2 * n, 4 * n), (3, 3, n, 2 * n)]
        kernels.append((7, 7, n, 3))
        normalized = widths[:-1]
    else:
        n = description["ndf"]
        widths = [n, n, 2 * n, 4 * n, 8 * n, 1] if meudec else [n, 2 * n, 4 * n, 8 * n, 1]
        kernels = [(4, 4, *channels) for channels in zip([3, *widths], widths, strict=False)]
        normalized = widths[1:-1]
        if meudec:
            height, width, _ = description["image_shape"]
            dense = [[(-(-height // 16) * -(-width // 16), 1024), (1024,)], [(1024, 1), (1,)]]
    convolutions = [[kernel, (width,)] for kernel, width in zip(kernels, widths, strict=True)]
    return convolutions, [4 * [(width,)] for width in normalized] if meudec else [], dense


def _by_kind(layers):
    """The layers that are convolutions, batch normalizations, dense layers, and anything else."""
    convolutions, norms, dense, other = [], [], [], []
    for layer in layers:
        ranks = tuple(len(array.shape) for array in layer.arrays)
        {(4, 1): convolutions, (1, 1, 1, 1): norms, (2, 1): dense}.get(ranks, other).append(layer)
    return convolutions, norms, dense, other


def _image_shape(source, inputs, recorded):
    """The image size of a critic whose dense layer takes one number for every 16x16 pixels."""
    if recorded is not None and len(recorded) == 3:
        height, width = recorded[:2]
        fitting = all(type(side) is int and side > 0 for side in (height, width))
        if fitting and -(-height // 16) * -(-width // 16) == inputs:
            return [height, width, 3]
    side = math.isqrt(inputs)
    if side * side != inputs or not side:
        raise BadWeights(f"{source}: a meudec critic whose dense layer takes {inputs} numbers, not a square image")
    return [16 * side, 16 * side, 3]


def _name(description):
    sizes = ", ".join(f"{key}={description[key]}" for key in ("ngf", "n_blocks", "ndf") if key in description)
    return f"{description['architecture']} {description['network']} with {sizes}"


def _build(description, dtype):
    if description["network"] == "generator":
        return generator_model(description["architecture"], description["ngf"], description["n_blocks"], dtype=dtype)
    return critic_model(description["architecture"], description["ndf"], description["image_shape"], dtype=dtype)
