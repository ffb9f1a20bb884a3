"""Identifies the network of a weight file: by what the file records, or else by the shapes of its arrays."""

import math
import re

from deblur_gan.architectures import CRITICS, GENERATORS, MAX_BLOCKS, NETWORKS
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.weights import hdf5
from deblur_gan.weights.hdf5 import BadWeights

# The attribute of a file in which this package records what the file holds, as JSON.
METADATA_ATTRIBUTE = "deblur_gan"

# The layers that hold weights, by the number of dimensions of each of their arrays.
_KINDS = {(4, 1): "convolutions", (1, 1, 1, 1): "batch normalizations", (2, 1): "dense layers"}


def identify(layers, record=None):
    """Finds out which network the layers are of, and compares the shape of every array with that network's.

    `record` is what `recorded` returns. Returns a dict, see `describe`. Raises `BadWeights` if the shapes are not those
    of the network that is recorded, or of any.
    """
    kinds = by_kind(layers)
    candidates = [record] if record else _candidates(kinds)
    for description in candidates:
        _require_bounded(description)
    misfits = [_misfits(kinds, description) for description in candidates]
    fewest = min(misfits, key=len)
    description = candidates[misfits.index(fewest)]
    if fewest:
        raise BadWeights(f"{'records' if record else 'looks like'} a {name_of(description)}, but {fewest[0]}")
    return description


def identify_model(model):
    """Returns the description of a `keras.Model`, as `identify` returns that of a file."""
    with hdf5.naming(f"the {model.name}"):
        return identify(layers_with_weights(model), getattr(model, "description", None))


def layers_with_weights(model):
    """Lists the layers of a `keras.Model` that hold weights, as `hdf5.Layer`."""
    return [hdf5.Layer(layer.name, layer.weights) for layer in model.layers if layer.weights]


def build(description, dtype):
    """Builds the network of a description, with initial weights."""
    function = generator_model if description["network"] == "generator" else critic_model
    return function(description["architecture"], **_sizes(description), dtype=dtype)


def require_bounded(source, description):
    """Refuses a network that is larger than any that is read or written, before anything of its size is built.

    Args:
        source: what the message begins with.
        description: dict, see `describe`.

    Raises:
        BadWeights: if it has more than `MAX_BLOCKS` residual blocks or `hdf5.MAX_NUMBERS` numbers.
    """
    with hdf5.naming(source):
        _require_bounded(description)


def _require_bounded(description):
    n_blocks = description.get("n_blocks", 0)
    if n_blocks > MAX_BLOCKS:
        raise BadWeights(f"has {n_blocks} residual blocks; at most {MAX_BLOCKS} are read")
    size = sum(math.prod(shape) for layer in _shapes(description) for shape in layer)
    if size > hdf5.MAX_NUMBERS:
        raise BadWeights(f"holds {size} numbers; networks of at most {hdf5.MAX_NUMBERS} are read")


def by_kind(layers):
    """Groups layers by the number of dimensions of each of their arrays: dict from tuple of int to list of `Layer`."""
    kinds = {}
    for layer in layers:
        kinds.setdefault(tuple(len(array.shape) for array in layer.arrays), []).append(layer)
    return kinds


def name_of(description):
    """Names a network in a message: "paper generator with ngf=64, n_blocks=9"."""
    sizes = ", ".join(f"{key}={description[key]}" for key in ("ngf", "n_blocks", "ndf") if key in description)
    return f"{description['architecture']} {description['network']} with {sizes}"


def recorded(metadata):
    """Reads what a file records about its network in its metadata: a dict of anything that JSON holds.

    Returns a dict, see `describe`, not yet compared with the arrays; None if nothing of use is recorded. Raises
    `BadWeights` if the architecture is not in the table.
    """
    network, architecture = metadata.get("network"), metadata.get("architecture")
    if not isinstance(network, str) or not isinstance(architecture, str) or network not in NETWORKS:
        return None
    if architecture not in NETWORKS[network]:
        # Text from a file is shown only if it is a plain name.
        name = architecture if re.fullmatch(r"[\w-]{1,40}", architecture, re.ASCII) else "of another name"
        raise BadWeights(
            f"holds a {network} of the architecture {name}; this version has {', '.join(NETWORKS[network])}"
        )
    sizes = {name: metadata.get(name) for name in (("ngf", "n_blocks") if network == "generator" else ("ndf",))}
    counts = list(sizes.values())
    if NETWORKS[network][architecture].fixed_size:
        sizes["image_shape"] = shape = metadata.get("image_shape")
        counts += shape if isinstance(shape, list) and len(shape) == 3 else [None]
    elif network == "critic":
        sizes["image_shape"] = [None, None, 3]
    if not all(type(count) is int and count > 0 for count in counts):
        return None
    return {"network": network, "architecture": architecture, **sizes}


def _sizes(description):
    return {name: value for name, value in description.items() if name not in ("network", "architecture")}


def _shapes(description):
    return NETWORKS[description["network"]][description["architecture"]].shapes(**_sizes(description))


def _candidates(kinds):
    """Lists descriptions of the networks that arrays may be of, going by the first kernel and the number of layers."""
    convolutions, dense = kinds.get((4, 1), []), kinds.get((2, 1), [])
    if not convolutions:
        raise BadWeights("holds no convolution; a DeblurGAN generator or critic is required")
    *begin, width = convolutions[0].arrays[0].shape
    if width > 0 and tuple(begin) in {_first_kernel(row, ngf=1, n_blocks=1) for row in GENERATORS.values()}:
        found = {name: _count_blocks(convolutions, row) for name, row in GENERATORS.items()}
        sizes = {name: {"ngf": width, "n_blocks": n_blocks} for name, n_blocks in found.items() if n_blocks}
        if not sizes:
            raise BadWeights(
                f"looks like a generator, but has {len(convolutions)} convolutions; 6 and two more for each residual "
                "block are required"
            )
        network = "generator"
    elif width > 0 and tuple(begin) in {_first_kernel(row, ndf=1, image_shape=(16, 16, 3)) for row in CRITICS.values()}:
        rows = {name: row for name, row in CRITICS.items() if row.fixed_size == bool(dense)}
        shapes = {name: _square(dense, row) if dense else [None, None, 3] for name, row in rows.items()}
        sizes = {name: {"ndf": width, "image_shape": shape} for name, shape in shapes.items()}
        network = "critic"
    else:
        raise BadWeights(
            f"its first kernel has shape {(*begin, width)}; that of a DeblurGAN generator has (7, 7, 3, ngf), that of "
            "a critic (4, 4, 3, ndf)"
        )
    return [{"network": network, "architecture": name, **found} for name, found in sizes.items()]


def _first_kernel(row, **sizes):
    return row.shapes(**sizes)[0][0][:3]


def _count_blocks(convolutions, row):
    """Returns the number of residual blocks that such a list of convolutions has; None if it fits none."""
    one, two = (sum(len(shapes[0]) == 4 for shapes in row.shapes(ngf=1, n_blocks=n)) for n in (1, 2))
    more_blocks, rest = divmod(len(convolutions) - one, max(two - one, 1))
    return None if rest or more_blocks < 0 else 1 + more_blocks


def _square(dense, row):
    """Returns the image size of a critic whose dense layer reads one number for each square of `size_multiple`."""
    n_inputs = dense[0].arrays[0].shape[0]
    side = math.isqrt(n_inputs)
    if side * side != n_inputs or not side:
        raise BadWeights(f"a critic whose dense layer reads {n_inputs} numbers, which are no square image")
    return [row.size_multiple * side, row.size_multiple * side, 3]


def _misfits(found, description):
    """Lists what does not fit between the layers of a file, by kind, and a network: list of str."""
    required = {}
    for shapes in _shapes(description):
        required.setdefault(tuple(map(len, shapes)), []).append(shapes)
    misfits = []
    for ranks in {**required, **found}:
        layers, wanted = found.get(ranks, []), required.get(ranks, [])
        if len(layers) != len(wanted):
            kind = _KINDS.get(ranks, f"layers with arrays of {ranks} dimensions")
            misfits.append(f"has {len(layers)} {kind}; {len(wanted)} are required")
            continue
        misfits += [
            f"layer {layer.name!r} has an array of shape {tuple(array.shape)} where {shape} is required"
            for layer, shapes in zip(layers, wanted, strict=True)
            for array, shape in zip(layer.arrays, shapes, strict=True)
            if tuple(array.shape) != shape
        ]
    return misfits
