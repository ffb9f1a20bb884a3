import h5py
import keras
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from deblur_gan.images.pixels import from_uint8, to_uint8
from deblur_gan.training import gradients
from deblur_gan.training.losses import PerceptualLoss, gradient_penalty, grid_loss, mean_score, psnr


def images(n_images=3, size=8, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n_images, size, size, 3)).astype("float32")


def value(tensor):
    return keras.ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("n_patches", [1, 5])
def test_penalty_of_a_linear_critic_has_a_closed_form(n_patches):
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.1, (n_patches, 8, 8, 3)).astype("float32")

    def critic(batch):
        patches = keras.ops.convert_to_tensor(weights)
        return keras.ops.sum(keras.ops.expand_dims(batch, 1) * patches, axis=(2, 3, 4))

    expected = (np.linalg.norm(weights.mean(axis=0)) - 1) ** 2
    assert value(gradient_penalty(critic, keras.ops.convert_to_tensor(images()))) == pytest.approx(expected, abs=1e-6)


def test_penalty_takes_the_norm_of_each_image_alone():
    batch = images() * np.array([0.1, 1, 3], "float32").reshape(3, 1, 1, 1)

    def critic(batch):
        return keras.ops.sum(batch**2, axis=(1, 2, 3)) / 2  # its gradient is the image

    norms = np.linalg.norm(batch.reshape(3, -1), axis=1)
    found = value(gradient_penalty(critic, keras.ops.convert_to_tensor(batch)))
    assert found == pytest.approx(np.mean((norms - 1) ** 2), rel=1e-5)
    scaled = value(gradient_penalty(critic, keras.ops.convert_to_tensor(batch), scale=1024.0))
    assert scaled == pytest.approx(found, rel=1e-6)


def test_penalty_of_a_constant_critic_has_finite_gradients():
    critic = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(2, 3, kernel_initializer="zeros"),
            keras.layers.LeakyReLU(),
            keras.layers.Conv2D(1, 3, kernel_initializer="zeros"),
        ]
    )
    batch = keras.ops.convert_to_tensor(images())
    penalty, found = gradients.of_weights(lambda: 2 * (gradient_penalty(critic, batch),), critic)
    assert value(penalty) == pytest.approx(1, abs=1e-5)
    assert len(found) == 4
    assert all(np.isfinite(value(gradient)).all() for gradient in found)


def test_mean_score_averages_images_and_patches():
    assert value(mean_score(np.arange(8, dtype="float16").reshape(2, 2, 2, 1))) == 3.5


def with_grid(sharp, amplitude, seed=0):
    """Adds a pattern of 4x4 pixels whose root mean square is `amplitude` levels, and a constant to each image."""
    rng = np.random.default_rng(seed)
    pattern = rng.normal(size=(4, 4, 3))
    pattern -= pattern.mean(axis=(0, 1))
    pattern *= amplitude / 127.5 / np.sqrt((pattern**2).mean())
    constant = rng.uniform(-0.1, 0.1, (len(sharp), 1, 1, 3))
    repeats = [-(-side // 4) for side in sharp.shape[1:3]]
    tiled = np.tile(pattern, (*repeats, 1))[: sharp.shape[1], : sharp.shape[2]]
    return (sharp + constant + tiled).astype("float32")


def test_grid_loss_is_the_energy_of_a_pattern_in_flat_windows():
    flat = np.full((2, 80, 100, 3), 0.25, "float32")  # three columns and two rows of windows; the rest is left out
    assert value(grid_loss(flat, flat)) == 0
    assert value(grid_loss(flat, with_grid(flat, 0))) == pytest.approx(0, abs=1e-8)
    assert value(grid_loss(flat, with_grid(flat, 0.3))) == pytest.approx(0.3**2, rel=1e-3)
    textured = flat.copy()
    textured[:, :, 32:] += images(2, 100)[:, :80, :68] / 4
    assert value(grid_loss(textured, with_grid(textured, 0.3))) == pytest.approx(0.3**2 / 3, rel=1e-3)
    # The sharp image's own pattern is none of the generator's, and noise has hardly any.
    assert value(grid_loss(with_grid(flat, 0.3), with_grid(flat, 0.3))) == 0
    noise = np.random.default_rng(0).normal(0, 1 / 127.5, flat.shape).astype("float32")
    assert value(grid_loss(flat, flat + noise)) == pytest.approx(1 / 64, rel=0.3)  # of 64 pixels of a phase


def test_the_gradient_of_the_grid_loss_removes_the_pattern_and_nothing_else():
    sharp = np.full((1, 64, 64, 3), -0.5, "float32")
    restored = with_grid(sharp, 1.0)

    def loss(restored):
        return grid_loss(sharp, restored), ()

    _, gradient = gradients.of_inputs(loss, keras.ops.convert_to_tensor(restored))
    gradient = value(gradient)
    pattern = restored - restored.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(gradient * np.sum(gradient * pattern) / np.sum(gradient**2), pattern, atol=1e-5)
    step = gradient * np.sum(gradient * pattern) / np.sum(gradient**2) / 2
    assert value(grid_loss(sharp, restored - step)) == pytest.approx(value(grid_loss(sharp, restored)) / 4, rel=1e-3)


def test_psnr_is_that_of_the_written_files():
    sharp, restored = images(2), 1.2 * images(2, seed=1)
    expected = [
        peak_signal_noise_ratio(to_uint8(a), to_uint8(b), data_range=255) for a, b in zip(sharp, restored, strict=True)
    ]
    assert value(psnr(sharp, restored)) == pytest.approx(expected, abs=1e-3)
    assert value(psnr(sharp, from_uint8(to_uint8(sharp)))) == pytest.approx([148, 148], abs=1e-3)


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_perceptual_loss_sees_what_keras_applications_see(network):
    """For VGG19, the features of Keras' own preprocessing; for VGG16, Meudec's of none."""
    keras.utils.set_random_seed(0)
    loss = PerceptualLoss(network, weights=None)
    application = {"vgg16": keras.applications.vgg16, "vgg19": keras.applications.vgg19}[network]
    full = {"vgg16": keras.applications.VGG16, "vgg19": keras.applications.VGG19}[network](
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    for layer in loss.features.layers:
        full.get_layer(layer.name).set_weights(layer.get_weights()) if layer.weights else None
    features = keras.Model(full.input, full.get_layer("block3_conv3").output)

    sharp, restored = images(2, 32), images(2, 32, seed=1)
    inputs, unit = (sharp, restored), 1.0
    if network == "vgg19":
        inputs, unit = [application.preprocess_input(127.5 * (batch + 1)) for batch in inputs], 127.5
    expected = np.mean(((value(features(inputs[0])) - value(features(inputs[1]))) / unit) ** 2)
    assert value(loss(sharp, restored)) == pytest.approx(expected, rel=1e-4)
    assert value(loss(sharp, sharp)) == 0


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
def test_perceptual_loss_in_bfloat16_is_that_of_float32_within_its_rounding(network):
    """Seven convolutions and the image are rounded to 2^-8 each, and the difference is squared."""
    whole, half = (PerceptualLoss(network, weights=None, dtype=dtype) for dtype in ("float32", "mixed_bfloat16"))
    half.features.set_weights(whole.features.get_weights())
    sharp, restored = images(2, 32), images(2, 32, seed=1)
    found = half(sharp, restored)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert value(found) == pytest.approx(value(whole(sharp, restored)), rel=2 * 8 * 2**-8)
    assert half.features.get_layer("block3_conv3").compute_dtype == "bfloat16"


SHAPES = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]


def write_vgg(path, shapes, nested=False):
    """Writes convolutions as Keras does: empty layers among them, weights under names that differ with the version."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if nested else file
        root.attrs["layer_names"] = [b"input_1"] + [f"layer_{number}".encode() for number in range(len(shapes))]
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for number, shape in enumerate(shapes):
            group = root.create_group(f"layer_{number}")
            kernel = (3, 3, *shape) if len(shape) == 2 and shape[1] < 4096 else shape
            group.create_dataset("W:0", data=rng.normal(0, 0.05, kernel).astype("float32"))
            group.create_dataset("b:0", data=np.zeros(shape[-1], "float32"))
            group.attrs["weight_names"] = [b"W:0", b"b:0"]


@pytest.mark.parametrize(
    ("network", "beyond", "nested"),
    [
        ("vgg16", [], False),
        ("vgg16", [(256, 512)], False),
        ("vgg19", [], True),
        ("vgg19", [(256, 256)], True),
        ("vgg19", [(256, 256), (256, 512), (4096, 10)], False),
    ],
)
def test_reads_files_cut_off_or_whole(tmp_path, network, beyond, nested):
    write_vgg(tmp_path / "vgg.h5", SHAPES + beyond, nested)
    loss = PerceptualLoss(network, tmp_path / "vgg.h5")
    with h5py.File(tmp_path / "vgg.h5") as file:
        root = file.get("model_weights", file)
        np.testing.assert_array_equal(loss.features.get_layer("block3_conv3").get_weights()[0], root["layer_6/W:0"][()])


def test_unusable_weights_are_named_in_one_line(tmp_path, monkeypatch):
    write_vgg(tmp_path / "16.h5", [*SHAPES, (256, 512)])
    write_vgg(tmp_path / "short.h5", SHAPES[:5])
    write_vgg(tmp_path / "other.h5", [(3, 8), (8, 3)])
    write_vgg(tmp_path / "nan.h5", SHAPES)
    with h5py.File(tmp_path / "nan.h5", "r+") as file:
        file["layer_6/W:0"][2, 2, 255, 255] = np.nan
    write_vgg(tmp_path / "claims.h5", SHAPES)
    write_vgg(tmp_path / "link.h5", SHAPES)
    with h5py.File(tmp_path / "claims.h5", "r+") as file, h5py.File(tmp_path / "link.h5", "r+") as linked:
        del file["layer_2/W:0"], linked["layer_2/W:0"]
        file.create_dataset("layer_2/W:0", (3, 3, 64, 2**36), "float32")
        linked["layer_2/W:0"] = h5py.ExternalLink(tmp_path / "16.h5", "layer_2/W:0")
    (tmp_path / "text.h5").write_text("no weights")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for name, reason in {
        "16.h5": "holds vgg16, not vgg19",
        "short.h5": "block3_conv2",
        "other.h5": "block1_conv1",
        "nan.h5": "'W:0' holds numbers that are not finite",
        "claims.h5": "holds fewer numbers",
        "link.h5": "not a group as Keras writes it",
        "text.h5": "not an HDF5 file",
        "empty.h5": "not a Keras .h5 file",
        "missing.h5": "no such file",
    }.items():
        with pytest.raises(ValueError, match=f"{name}.*{reason}") as caught:
            PerceptualLoss("vgg19", str(tmp_path / name))
        assert len(str(caught.value).splitlines()) == 1

    def no_network(**kwargs):
        raise Exception("URL fetch failure on https://...: None -- [Errno -2]\nName or service not known")

    monkeypatch.setattr(keras.applications, "VGG16", no_network)
    with pytest.raises(ValueError, match="URL fetch failure.*--vgg_weights") as caught:
        PerceptualLoss("vgg16")
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match="vgg11.*vgg16, vgg19"):
        PerceptualLoss("vgg11")
