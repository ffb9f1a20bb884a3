"""What the table of architectures promises: its rows are true, and another row is all that another generator needs."""

import keras
import numpy as np
import pytest
from conftest import photograph

from deblur_gan import deblur, load_generator
from deblur_gan.architectures import CRITICS, GENERATORS, Architecture
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.training import train
from deblur_gan.training.options import Options
from deblur_gan.weights import describe


def shapes_of(model):
    """Shapes of the weights of each layer that has any, sorted: their order matters only among layers of one kind."""
    return sorted([tuple(weight.shape) for weight in layer.weights] for layer in model.layers if layer.weights)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_row_lists_the_shapes_and_sizes_of_its_generator(name):
    row = GENERATORS[name]
    generator = generator_model(name, ngf=3, n_blocks=2)
    assert shapes_of(generator) == sorted(row.shapes(ngf=3, n_blocks=2))
    side = -(-row.smallest_side // row.size_multiple) * row.size_multiple
    x = np.zeros((1, side, side + row.size_multiple, 3), np.float32)
    assert generator(x).shape == x.shape
    batch_normalized = any(isinstance(layer, keras.layers.BatchNormalization) for layer in generator.layers)
    assert batch_normalized == (row.normalization == "batch")
    assert {layer.name for layer in generator.layers}.issuperset(row.zero_layers)


@pytest.mark.parametrize("name", CRITICS)
def test_a_row_lists_the_shapes_of_its_critic(name):
    critic = critic_model(name, ndf=3, image_shape=(32, 48, 3))
    assert shapes_of(critic) == sorted(CRITICS[name].shapes(ndf=3, image_shape=(32, 48, 3)))


def toy(blurred, ngf, n_blocks, dtype, dropout):
    x = blurred
    for number in range(n_blocks):
        x = keras.layers.Conv2D(
            ngf, 3, padding="same", activation="relu", data_format="channels_last", name=f"conv{number}", dtype=dtype
        )(x)
    x = keras.layers.Conv2D(3, 3, padding="same", data_format="channels_last", name="last", dtype="float32")(x)
    return keras.layers.Add(name="restored", dtype="float32")([x, blurred])


def toy_shapes(ngf, n_blocks):
    channels = [3, *n_blocks * [ngf], 3]
    return [[(3, 3, *pair), (pair[1],)] for pair in zip(channels, channels[1:], strict=False)]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "openvino", reason="OpenVINO restores only")
@pytest.mark.filterwarnings("ignore")  # matplotlib's and TensorBoard's
def test_another_generator_costs_its_function_and_one_row(pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(
        GENERATORS, "toy", Architecture(f"{__name__}:toy", toy_shapes, size_multiple=2, zero_layers=("last",))
    )
    options = Options(
        data_dir=pairs, generator="toy", ngf=4, n_blocks=2, ndf=2, crop_size=16, batch_size=2, critic_updates=1,
        steps_per_epoch=2, n_epochs=1, n_val_images=1, perceptual_weight=0, pixel_weight=1, learning_rate=0.01,
        log_dir=tmp_path / "runs",
    )  # fmt: skip
    run_dir = train(options)
    (path,) = run_dir.glob("generator_001*.h5")
    found = describe(path)
    assert (found["network"], found["architecture"], found["ngf"], found["n_blocks"]) == ("generator", "toy", 4, 2)
    generator = load_generator(path)
    assert np.abs(generator.get_layer("last").get_weights()[0]).max() > 0, "it learnt, from the zeros of the row"
    blurred = photograph(1, 37, 45)
    restored = deblur(generator, blurred)
    assert restored.shape == blurred.shape and (restored != blurred).any()
