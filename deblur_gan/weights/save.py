"""Writes weight files: `.h5` of this package, and state_dicts of the authors' PyTorch code."""

import json
from pathlib import Path

import numpy as np

from deblur_gan import __version__
from deblur_gan.backend import keras, without_notes
from deblur_gan.files import write_bytes
from deblur_gan.weights import hdf5, pytorch
from deblur_gan.weights.identify import METADATA_ATTRIBUTE, build, identify_model, name_of


def save_generator(generator, path, training=None, dtype="float32"):
    """Writes a generator's weights, whole or not at all.

    `load_weights` of Keras 2 and Keras 3 reads the file, as does Keras 3 `load_model` after
    `import deblur_gan.networks`. The attribute `deblur_gan` holds JSON with the facts that `describe` returns.

    Args:
        generator: `keras.Model` from `generator_model`.
        path: str or Path that ends in ".h5", not in ".weights.h5" (for which Keras 3 expects another layout).
        training: dict for the metadata, of what JSON can hold, finite numbers only: what trained these weights.
        dtype: "float32", or "float16" for half the size; both are loaded alike.

    Raises:
        ValueError: if the extension is another, the model is not one of `generator_model`, `training` holds something
            else, or a weight is too large for `dtype`.
        OSError: if the file cannot be written; what stood at `path` before is then still there.

    Example:
        >>> save_generator(generator_model("paper", ngf=4, n_blocks=1), "generator.h5")
    """
    _save(generator, path, "generator", training, dtype)


def save_critic(critic, path, training=None, dtype="float32"):
    """Writes a critic's weights; see `save_generator`.

    Example:
        >>> save_critic(critic_model("paper", ndf=4), "critic.h5")
    """
    _save(critic, path, "critic", training, dtype)


def save_pytorch(model, path, dropout=True):
    """Writes a `paper` network as a PyTorch state_dict, which the authors' code loads with `strict=True`.

    Args:
        model: `keras.Model` from `generator_model` or `critic_model`.
        path: str or Path, "latest_net_G.pth" for instance; whole or not at all.
        dropout: bool, False for a generator that they build with `--no_dropout`, which names the layers differently.
            A critic has none.

    Raises:
        ValueError: if the model is another, or PyTorch is not installed.
        OSError: as `save_generator`.

    Example:
        >>> save_pytorch(load_generator("weights/generator.h5"), "latest_net_G.pth")
    """
    description = identify_model(model)
    if description["architecture"] != "paper":
        raise ValueError(f"the model is a {name_of(description)}; the authors' code has only the paper networks")
    names = pytorch.convolutions(description["network"], description.get("n_blocks", 0), dropout)
    values = [
        [np.asarray(array, np.float32) for array in layer.get_weights()] for layer in model.layers if layer.weights
    ]
    with hdf5.naming(path):
        content = pytorch.file_of(names, values)
    write_bytes(path, content)


def _save(model, path, network, training, dtype):
    path = Path(path)
    if path.suffix != ".h5" or path.name.endswith(".weights.h5"):
        raise ValueError(f"{path}: the name of a weight file must end in .h5 and not in .weights.h5")
    description = identify_model(model)
    if description["network"] != network:
        raise ValueError(f"the model is a {name_of(description)}; a {network} is required")
    # The configuration is that of a new float32 graph, so that it holds neither the precision nor the crop size of a
    # run.
    plain = build(description, "float32")
    plain.set_weights(model.get_weights())
    with without_notes():  # on other backends Keras imports TensorFlow here, if it is installed
        config = json.loads(plain.to_json())
    # Initializers are not needed, and an older Keras refuses the arguments of those of a newer one.
    for layer in config["config"]["layers"]:
        layer["config"] = {key: value for key, value in layer["config"].items() if not key.endswith("_initializer")}
    metadata = {**description, "value_range": [-1, 1], "package_version": __version__, "training": training or {}}
    attributes = {
        "keras_version": keras.__version__,
        "backend": keras.backend.backend(),
        "model_config": json.dumps({key: config[key] for key in ("class_name", "config")}),
        METADATA_ATTRIBUTE: json.dumps(metadata, allow_nan=False),
    }
    layers = [
        hdf5.Layer(layer.name, [(weight.path, _converted(path, weight, dtype)) for weight in layer.weights])
        for layer in plain.layers
    ]
    write_bytes(path, hdf5.file_of(layers, attributes))


def _converted(path, weight, dtype):
    array = keras.ops.convert_to_numpy(weight)
    if np.abs(array).max() > np.finfo(dtype).max:
        raise ValueError(f"{path}: a weight of {np.abs(array).max():.3g} is too large for {dtype}")
    return array.astype(dtype)
