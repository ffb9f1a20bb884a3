"""The HDF5 promise: which weight files are read, what is written, and how a file tells what it holds.

Files are read array by array and nothing in them is executed. What a file holds is told by the shapes of its arrays
alone, so a file published in 2017 and one written today take the same way.
"""

import contextlib
import io
import json
import logging
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from deblur_gan import __version__
from deblur_gan.files import whole_file
from deblur_gan.networks import critic_model, generator_model

METADATA_ATTRIBUTE = "deblur_gan"

# A bound on what a file can make this process allocate: twenty times the full-size generator.
MAX_BYTES = 2**30
MAX_LAYERS = 2000


class BadWeights(ValueError):
    """A file that cannot be used as weights; the message is one line that names it and says why."""


class _Layer(NamedTuple):
    """A layer that holds weights: its name and its arrays (NumPy's, or HDF5's still on disk)."""

    name: str
    arrays: list


def load_generator(path, dtype="float32"):
    """Builds the generator that a weight file holds, and fills it.

    Reads weights-only and whole-model `.h5` of Keras 2 and tf_keras, and `.h5`, `.weights.h5` and `.keras` of Keras 3.
    Of a whole model only the arrays are taken; its configuration, which may hold pickled code, is not looked at.

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

    A `meudec` critic fits one image size. Files of this package record it; of others a square image is assumed.

    Returns:
        `keras.Model`, see `critic_model`; architecture and `ndf` are the file's.

    Raises:
        BadWeights: if the file is missing, damaged, hostile, or holds something else than a critic.
    """
    return _load(path, "critic", dtype)


def save_generator(generator, path, training=None):
    """Writes a generator's weights, whole or not at all.

    The file is read by `load_weights` of Keras 2 and Keras 3, and by Keras 3 `load_model` after `import deblur_gan`.
    Its attribute `deblur_gan` holds JSON that says what the file is; see `describe`.

    Args:
        generator: `keras.Model` from `generator_model`.
        path: str or Path that ends in ".h5", not in ".weights.h5" (for which Keras 3 expects another layout).
        training: dict for the metadata, of what JSON can hold: what trained these weights.

    Raises:
        ValueError: if the extension is another, or the model is not one of `generator_model`.
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    _save(generator, path, "generator", training)


def save_critic(critic, path, training=None):
    """Writes a critic's weights; otherwise as `save_generator`."""
    _save(critic, path, "critic", training)


def describe(path):
    """Says what a weight file holds, without loading it.

    Args:
        path: str or Path.

    Returns:
        dict with `network` ("generator" or "critic"), `architecture`, `ngf` and `n_blocks` or `ndf` and `image_shape`;
        for files of this package also `value_range`, `package_version` and `training`.

    Raises:
        BadWeights: as `load_generator`, for anything but a generator or a critic.
    """
    with _open(path) as (file, metadata):
        return {**metadata, **_identify(path, _layers(path, file), metadata)}


def _load(path, network, dtype):
    with _open(path) as (file, metadata):
        layers = _layers(path, file)
        description = _identify(path, layers, metadata)
        if description["network"] != network:
            raise BadWeights(f"{path}: holds a {_name(description)}; a {network} is required")
        model = _build(description, dtype)
        for layer, found in _fitted(path, model, layers, description):
            layer.set_weights([_read(path, found.name, array) for array in found.arrays])
        return model


def _save(model, path, network, training):
    path = Path(path)
    if path.suffix != ".h5" or path.name.endswith(".weights.h5"):
        raise ValueError(f"{path}: the name of a weight file must end in .h5 and not in .weights.h5")
    layers = [_Layer(layer.name, layer.get_weights()) for layer in model.layers if layer.weights]
    description = _identify(f"the {model.name}", layers, {"image_shape": model.input_shape[1:]})
    if description["network"] != network:
        raise ValueError(f"the model is a {_name(description)}; a {network} is required")
    # Written from a fresh float32 graph of any size, so that no dtype policy or input size of a run gets into the file.
    plain = _build(description, "float32")
    for layer, found in _fitted(f"the {network}", plain, layers, description):
        layer.set_weights(found.arrays)
    metadata = {
        **description,
        "value_range": [-1, 1],
        "package_version": __version__,
        "training": training or {},
    }
    with whole_file(path) as temporary:
        with _without_hdf5_warning():
            plain.save(temporary)
        with h5py.File(temporary, "r+") as file:
            file.attrs[METADATA_ATTRIBUTE] = json.dumps(metadata)


@contextlib.contextmanager
def _without_hdf5_warning():
    """Keras advises against `.h5` on every save; here the old layout is the point."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _open(path):
    """Opens an HDF5 file, or the one inside a `.keras` archive; yields it and this package's metadata, if any."""
    path = Path(path)
    if not path.is_file():
        raise BadWeights(f"{path}: no such file")
    try:
        source = path
        if zipfile.is_zipfile(path):
            source = _weights_of_archive(path)
        elif not h5py.is_hdf5(path):
            raise BadWeights(f"{path}: not an HDF5 file; Keras weights (.h5, .weights.h5 or .keras) are required")
        with h5py.File(source, "r") as file:
            yield file, _metadata(file)
    except BadWeights:
        raise
    # h5py meets damage with whichever error its parser trips over.
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise BadWeights(f"{path}: damaged or not readable ({' '.join(str(error).split())})") from None


def _weights_of_archive(path):
    with zipfile.ZipFile(path) as archive:
        if "model.weights.h5" not in archive.namelist():
            raise BadWeights(f"{path}: an archive without model.weights.h5; a .keras file is required")
        with archive.open("model.weights.h5") as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadWeights(f"{path}: unpacks to more than the {MAX_BYTES >> 20} MiB that are read at most")
    return io.BytesIO(content)


def _metadata(file):
    try:
        metadata = json.loads(file.attrs[METADATA_ATTRIBUTE])
    except (KeyError, TypeError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _layers(path, file):
    """The layers of a file that hold weights, in the order of the forward pass, their arrays still on disk."""
    root = file
    if "layer_names" not in file.attrs and "layer_names0" not in file.attrs and "model_weights" in file:
        root = _member(path, file, "model_weights")
    if "layer_names" in root.attrs or "layer_names0" in root.attrs:
        layers = _layers_of_keras2(path, root)
    elif "layers" in file:
        layers = _layers_of_keras3(path, _member(path, file, "layers"))
    else:
        raise BadWeights(f"{path}: an HDF5 file, but without the layers of a Keras model in it")
    if not layers:
        raise BadWeights(f"{path}: holds no weights")
    size = sum(array.nbytes for layer in layers for array in layer.arrays)
    if size > MAX_BYTES:
        raise BadWeights(f"{path}: declares {size >> 20} MiB of weights; at most {MAX_BYTES >> 20} MiB are read")
    return layers


def _layers_of_keras2(path, root):
    layers = []
    for name in _names(path, root, "layer_names"):
        group = _member(path, root, name)
        arrays = [_array(path, group, weight) for weight in _names(path, group, "weight_names")]
        if arrays:
            layers.append(_Layer(name, arrays))
    return layers


def _layers_of_keras3(path, root):
    """Keras 3 numbers the layers within each class (conv2d, conv2d_1, ...), which loses their common order.

    The order within convolutions and within normalizations is enough, but transposed convolutions, a class of their
    own, stand before the last convolution of a generator.
    """

    def of_class(name):
        members = []
        while (key := name + (f"_{len(members)}" if members else "")) in root and len(members) < MAX_LAYERS:
            variables = _member(path, root, f"{key}/vars")
            members.append(_Layer(key, [_array(path, variables, str(i)) for i in range(len(variables))]))
        return members

    convolutions, transposed = of_class("conv2d"), of_class("conv2d_transpose")
    if transposed:
        convolutions[-1:-1] = transposed
    return convolutions + of_class("batch_normalization") + of_class("dense")


def _names(path, group, attribute):
    """A list of names in an attribute; Keras 2 splits long ones into `attribute0`, `attribute1` and so on."""
    if attribute in group.attrs:
        pieces = [attribute]
    else:
        pieces = []
        while f"{attribute}{len(pieces)}" in group.attrs:
            pieces.append(f"{attribute}{len(pieces)}")
    names = []
    for piece in pieces:
        count = math.prod(group.attrs.get_id(piece).shape)
        if len(names) + count > MAX_LAYERS:
            raise BadWeights(f"{path}: declares more than {MAX_LAYERS} names in {attribute}")
        names += [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[piece]]
    return names


def _member(path, group, name):
    """What stands at `name` below `group`, refusing links that lead out of the file or around in it."""
    for part in name.strip("/").split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            found = "nothing" if link is None else "a link"
            raise BadWeights(f"{path}: {found} at {name!r} where weights are required")
        group = group[part]
    return group


def _array(path, group, name):
    array = _member(path, group, name)
    if not isinstance(array, h5py.Dataset) or array.dtype.kind != "f":
        raise BadWeights(f"{path}: {name!r} is not an array of floating-point numbers")
    if array.external or array.is_virtual:
        raise BadWeights(f"{path}: {name!r} keeps its numbers in another file, which is not read")
    # Compression may make the stored size smaller; anything else means that numbers are missing.
    if array.compression is None and array.id.get_storage_size() < array.nbytes:
        raise BadWeights(f"{path}: {name!r} declares shape {array.shape} but holds fewer numbers")
    return array


def _read(path, layer_name, array):
    values = np.asarray(array[()], np.float32)
    if not np.isfinite(values).all():
        raise BadWeights(f"{path}: layer {layer_name!r} holds numbers that are not finite")
    return values


def _identify(source, layers, metadata):
    """Tells from the shapes which network the layers are of; the metadata adds only a critic's image size."""
    convolutions, norms, dense, other = _by_kind(layers)
    if other:
        shapes = ", ".join(str(array.shape) for array in other[0].arrays)
        raise BadWeights(
            f"{source}: layer {other[0].name!r} holds arrays {shapes}; "
            "convolutions, batch normalizations and dense layers, each with biases, are required"
        )
    if not convolutions:
        raise BadWeights(f"{source}: holds no convolution; a DeblurGAN generator or critic is required")
    first = convolutions[0].arrays[0].shape
    if first[:3] == (7, 7, 3):
        if len(convolutions) < 8 or len(convolutions) % 2:
            raise BadWeights(
                f"{source}: looks like a generator, but has {len(convolutions)} convolutions; 6 and two more "
                "for each residual block are required"
            )
        description = {
            "network": "generator",
            "architecture": "meudec" if norms else "paper",
            "ngf": int(first[3]),
            "n_blocks": (len(convolutions) - 6) // 2,
        }
        # Each residual block holds two 3x3 kernels of 4 ngf by 4 ngf channels.
        at_least = 288 * description["n_blocks"] * description["ngf"] ** 2
    elif first[:3] == (4, 4, 3):
        description = {
            "network": "critic",
            "architecture": "meudec" if dense else "paper",
            "ndf": int(first[3]),
            "image_shape": _critic_image_shape(source, dense, metadata),
        }
        # The fifth convolution holds a 4x4 kernel of 4 ndf by 8 ndf channels.
        at_least = 512 * description["ndf"] ** 2
    else:
        raise BadWeights(
            f"{source}: its first kernel has shape {first}; a DeblurGAN generator begins with (7, 7, 3, ngf), "
            "a critic with (4, 4, 3, ndf)"
        )
    # Before anything of that size is built.
    found = sum(array.size for layer in layers for array in layer.arrays)
    if found < at_least:
        raise BadWeights(f"{source}: looks like a {_name(description)}, but holds only {found} numbers")
    return description


def _by_kind(layers):
    convolutions, norms, dense, other = [], [], [], []
    for layer in layers:
        ranks = [len(array.shape) for array in layer.arrays]
        kind = {(4, 1): convolutions, (1, 1, 1, 1): norms, (2, 1): dense}.get(tuple(ranks), other)
        kind.append(layer)
    return convolutions, norms, dense, other


def _critic_image_shape(source, dense, metadata):
    recorded = metadata.get("image_shape")
    if not dense:
        return [None, None, 3]
    inputs = dense[0].arrays[0].shape[0]  # one number for every 16x16 pixels
    if isinstance(recorded, (list, tuple)) and len(recorded) == 3:
        height, width = recorded[:2]
        if isinstance(height, int) and isinstance(width, int) and -(-height // 16) * -(-width // 16) == inputs:
            return [height, width, 3]
    side = math.isqrt(inputs)
    if side * side != inputs:
        raise BadWeights(f"{source}: a meudec critic whose dense layer takes {inputs} numbers, not a square image")
    return [16 * side, 16 * side, 3]


def _name(description):
    sizes = ", ".join(f"{key}={description[key]}" for key in ("ngf", "n_blocks", "ndf") if key in description)
    return f"{description['architecture']} {description['network']} with {sizes}"


def _build(description, dtype):
    if description["network"] == "generator":
        return generator_model(description["architecture"], description["ngf"], description["n_blocks"], dtype=dtype)
    return critic_model(description["architecture"], description["ndf"], description["image_shape"], dtype=dtype)


def _fitted(source, model, layers, description):
    """Pairs the layers of `model` with those of a file, kind by kind, and refuses what does not fit."""
    with_weights = [layer for layer in model.layers if layer.weights]
    pairs = []
    wanted_kinds = _by_kind([_Layer(layer.name, layer.weights) for layer in with_weights])
    by_name = {layer.name: layer for layer in with_weights}
    for kind, wanted, found in zip(
        ("convolutions", "batch normalizations", "dense layers"), wanted_kinds, _by_kind(layers), strict=False
    ):
        if len(wanted) != len(found):
            raise BadWeights(
                f"{source}: looks like a {_name(description)}, but has {len(found)} {kind} "
                f"where {len(wanted)} are required"
            )
        for layer, stored in zip(wanted, found, strict=True):
            for variable, array in zip(layer.arrays, stored.arrays, strict=True):
                if tuple(variable.shape) != tuple(array.shape):
                    raise BadWeights(
                        f"{source}: looks like a {_name(description)}, but layer {stored.name!r} has an array of shape "
                        f"{tuple(array.shape)} where {layer.name} requires {tuple(variable.shape)}"
                    )
            pairs.append((by_name[layer.name], stored))
    return pairs
