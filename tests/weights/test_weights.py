import contextlib
import json
import pickle
import re
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT

import deblur_gan
from deblur_gan.architectures import GENERATORS
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.weights import (
    BadWeights,
    describe,
    hdf5,
    load,
    load_critic,
    load_generator,
    save_critic,
    save_generator,
)

tf_keras = pytest.importorskip("tf_keras")  # Keras 2

GOLDEN = ROOT / "tests" / "golden"


def output(model, x):
    found = keras.ops.convert_to_numpy(model(x))
    assert np.isfinite(found).all()
    return found


def images(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def shaken(model):
    """The model with every bias and statistic moved, so that nothing is left at its neutral start."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        layer.set_weights(
            [w + rng.uniform(0, 0.1, w.shape).astype(np.float32) if w.ndim == 1 else w for w in layer.get_weights()]
        )
    return model


# ---- what Keras 2.1.3 wrote


def test_published_generator_of_keras_2_1_3():
    golden = np.load(GOLDEN / "keras213_io.npz")
    generator = load_generator(GOLDEN / "keras213_generator.h5")
    np.testing.assert_allclose(output(generator, golden["x"]), golden["g"], atol=1e-5)
    assert describe(GOLDEN / "keras213_generator.h5") == {
        "network": "generator",
        "architecture": "meudec",
        "ngf": 4,
        "n_blocks": 2,
    }


def test_published_critic_of_keras_2_1_3():
    golden = np.load(GOLDEN / "keras213_io.npz")
    critic = load_critic(GOLDEN / "keras213_discriminator.h5")
    np.testing.assert_allclose(output(critic, golden["x"]), golden["d"], atol=1e-5)
    assert describe(GOLDEN / "keras213_discriminator.h5")["image_shape"] == [64, 64, 3]


# ---- Keras 2 as tf_keras


def keras2_generator(ngf, n_blocks):
    """Meudec's graph, written in Keras 2 with automatic names and a Lambda."""
    layers = tf_keras.layers

    def pad(x, by):
        return layers.Lambda(_mirror, arguments={"by": by})(x)

    def normalized(x, filters, size, **options):
        return layers.BatchNormalization()(layers.Conv2D(filters, size, **options)(x))

    inputs = layers.Input((None, None, 3))
    x = layers.Activation("relu")(normalized(pad(inputs, 3), ngf, 7))
    for filters in (2 * ngf, 4 * ngf):
        x = layers.Activation("relu")(normalized(x, filters, 3, strides=2, padding="same"))
    for _ in range(n_blocks):
        y = layers.Activation("relu")(normalized(pad(x, 1), 4 * ngf, 3))
        y = normalized(pad(layers.Dropout(0.5)(y), 1), 4 * ngf, 3)
        x = layers.Add()([x, y])
    for filters in (2 * ngf, ngf):
        x = layers.Activation("relu")(normalized(layers.UpSampling2D()(x), filters, 3, padding="same"))
    x = layers.Activation("tanh")(layers.Conv2D(3, 7)(pad(x, 3)))
    return tf_keras.Model(inputs, layers.Lambda(lambda z: z / 2)(layers.Add()([x, inputs])))


def _mirror(x, by):
    import tensorflow as tf

    return tf.pad(x, [[0, 0], [by, by], [by, by], [0, 0]], "REFLECT")


def test_keras_2_loads_our_generator(tmp_path):
    ours = shaken(generator_model("meudec", 4, 2))
    save_generator(ours, tmp_path / "g.h5")
    theirs = keras2_generator(4, 2)
    theirs.load_weights(tmp_path / "g.h5")
    x = images(2, 32, 48, 3)
    np.testing.assert_allclose(theirs(x).numpy(), output(ours, x), atol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_keras_2_file_is_read_without_running_its_lambda(tmp_path, whole):
    theirs = shaken(keras2_generator(4, 1))
    path = tmp_path / "theirs.h5"
    (theirs.save if whole else theirs.save_weights)(path)
    if whole:
        assert b"Lambda" in path.read_bytes()
    x = images(1, 16, 24, 3)
    np.testing.assert_allclose(output(load_generator(path), x), theirs(x).numpy(), atol=1e-5)


def test_nothing_in_a_file_is_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "g.h5"
    save_generator(generator_model("meudec", 4, 1), path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = np.void(pickle.dumps(Bomb()))
        file.attrs["training_config"] = np.void(pickle.dumps(Bomb()))
    load_generator(path)
    assert not (tmp_path / "executed").exists()


# ---- Keras 3


@pytest.mark.parametrize("extension", ["h5", "weights.h5", "keras"])
@pytest.mark.parametrize("architecture", ["meudec", "paper"])
def test_what_keras_3_saves_is_read(tmp_path, architecture, extension):
    generator = shaken(generator_model(architecture, 4, 2))
    path = tmp_path / f"g.{extension}"
    (generator.save_weights if extension == "weights.h5" else generator.save)(path)
    x = images(1, 16, 24, 3)
    np.testing.assert_array_equal(output(load_generator(path), x), output(generator, x))


@pytest.mark.parametrize("architecture", ["meudec", "paper"])
def test_saved_generator_comes_back_the_same(tmp_path, architecture):
    generator = shaken(generator_model(architecture, 4, 2))
    save_generator(generator, tmp_path / "g.h5", training={"data": "two photographs"})
    x = images(1, 16, 24, 3)
    expected = output(generator, x)
    np.testing.assert_array_equal(output(load_generator(tmp_path / "g.h5"), x), expected)
    np.testing.assert_array_equal(output(keras.models.load_model(tmp_path / "g.h5"), x), expected)
    fresh = generator_model(architecture, 4, 2)
    fresh.load_weights(tmp_path / "g.h5")
    np.testing.assert_array_equal(output(fresh, x), expected)
    assert describe(tmp_path / "g.h5") == {
        "network": "generator",
        "architecture": architecture,
        "ngf": 4,
        "n_blocks": 2,
        "value_range": [-1, 1],
        "package_version": deblur_gan.__version__,
        "training": {"data": "two photographs"},
    }


@pytest.mark.parametrize(
    ("architecture", "image_shape", "recorded"),
    [("meudec", (32, 64, 3), [32, 64, 3]), ("paper", (32, 64, 3), [None, None, 3])],
)
def test_saved_critic_comes_back_the_same(tmp_path, architecture, image_shape, recorded):
    critic = shaken(critic_model(architecture, 4, image_shape))
    save_critic(critic, tmp_path / "c.h5")
    x = images(2, *image_shape)
    np.testing.assert_array_equal(output(load_critic(tmp_path / "c.h5"), x), output(critic, x))
    assert describe(tmp_path / "c.h5")["image_shape"] == recorded


def test_a_mixed_precision_run_leaves_a_float32_file(tmp_path):
    generator = generator_model("paper", 4, 1, (16, 16, 3), dtype="mixed_bfloat16")
    save_generator(generator, tmp_path / "g.h5")
    loaded = keras.models.load_model(tmp_path / "g.h5")
    assert loaded.get_layer("block1_conv1").compute_dtype == "float32"
    assert loaded.input_shape == (None, None, None, 3)
    mixed = load_generator(tmp_path / "g.h5", dtype="mixed_bfloat16")
    assert mixed.get_layer("block1_conv1").compute_dtype == "bfloat16"


def test_a_file_says_nothing_that_only_a_newer_keras_knows(tmp_path):
    # Keras 3.15 gives its initializers arguments that 3.13 refuses; weights that are there need no initializer.
    save_generator(generator_model("meudec", 4, 1), tmp_path / "g.h5")
    with h5py.File(tmp_path / "g.h5") as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    assert layers and not [key for layer in layers for key in layer["config"] if "initializer" in key]


def test_half_precision_files_are_read(tmp_path):
    generator = generator_model("paper", 4, 1)
    save_generator(generator, tmp_path / "g.h5")
    with h5py.File(tmp_path / "g.h5", "r+") as file:
        group = file["model_weights/stem_conv"]
        kernel = group["stem_conv/kernel"][()]
        del group["stem_conv/kernel"]
        group["stem_conv/kernel"] = kernel.astype(np.float16)
    loaded = load_generator(tmp_path / "g.h5").get_layer("stem_conv").get_weights()[0]
    np.testing.assert_array_equal(loaded, kernel.astype(np.float16).astype(np.float32))


# ---- writing


def test_a_full_disk_is_an_oserror_and_leaves_the_old_file_and_nothing_else(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "g.h5"
    save_generator(generator_model("paper", 4, 1), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to let any file of this process grow further, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError):
            save_generator(generator_model("paper", 4, 2), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_holds_only_what_json_can_hold(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_generator(generator_model("paper", 4, 1), tmp_path / "g.h5", training={"val_psnr": np.inf})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["g.weights.h5", "g.keras", "g"])
def test_other_extensions_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.h5 and not in \.weights\.h5"):
        save_generator(generator_model("paper", 4, 1), tmp_path / name)


def test_the_wrong_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the model is a paper critic with ndf=4; a generator is required"):
        save_generator(critic_model("paper", 4, (32, 32, 3)), tmp_path / "g.h5")
    save_critic(critic_model("paper", 4, (32, 32, 3)), tmp_path / "c.h5")
    with pytest.raises(BadWeights, match=r"c\.h5: holds a paper critic with ndf=4; a generator is required"):
        load_generator(tmp_path / "c.h5")
    with pytest.raises(BadWeights, match="a critic is required"):
        load_critic(GOLDEN / "keras213_generator.h5")


# ---- files that do not fit, and hostile ones


@pytest.fixture
def path(tmp_path):
    save_generator(generator_model("paper", 4, 1), tmp_path / "g.h5")
    return tmp_path / "g.h5"


def replace(path, name, make):
    with h5py.File(path, "r+") as file:
        group = file["model_weights/stem_conv"]
        del group[name]
        make(group, name)


def record(path, **changes):
    """Changes what a file records about itself."""
    with h5py.File(path, "r+") as file:
        file.attrs["deblur_gan"] = json.dumps(json.loads(file.attrs["deblur_gan"]) | changes)


def refused(path, message):
    with pytest.raises(BadWeights, match=re.escape(str(path))) as caught:
        load_generator(path)
    assert re.search(message, str(caught.value))
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 300


def test_missing_file(tmp_path):
    refused(tmp_path / "nothing.h5", "no such file")
    refused(tmp_path, "is a folder")


def test_text_file_named_h5(tmp_path):
    (tmp_path / "g.h5").write_text("<html>404 not found</html>")
    refused(tmp_path / "g.h5", "not an HDF5 file")


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.9, 0.999])
def test_truncated_file(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, "damaged or not readable")


def test_hdf5_of_something_else(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["temperature"] = np.zeros(3)
    refused(tmp_path / "x.h5", "without the layers of a Keras model")


def test_another_network(tmp_path):
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, keras.layers.Conv2D(5, 3)(inputs)).save(tmp_path / "x.h5")
    refused(tmp_path / "x.h5", r"first kernel has shape \(3, 3, 3, 5\)")


@pytest.mark.parametrize(("recorded", "said"), [(True, "records a"), (False, "looks like a")])
def test_the_layer_and_the_shapes_that_do_not_fit_are_named(path, recorded, said):
    with h5py.File(path, "r+") as file:
        if not recorded:
            del file.attrs["deblur_gan"]
        group = file["model_weights/block1_conv2"]
        del group["block1_conv2/kernel"]
        group["block1_conv2/kernel"] = np.zeros((3, 3, 16, 15), np.float32)
    refused(
        path,
        rf"{said} paper generator with ngf=4, n_blocks=1, but layer 'block1_conv2' has an array of shape "
        r"\(3, 3, 16, 15\) where \(3, 3, 16, 16\) is required",
    )


def test_missing_batch_normalization(tmp_path):
    generator_model("meudec", 4, 1).save(tmp_path / "g.h5")
    with h5py.File(tmp_path / "g.h5", "r+") as file:
        file["model_weights/stem_norm"].attrs["weight_names"] = np.array([], "S1")
    refused(tmp_path / "g.h5", "looks like a meudec generator .*, but has 6 batch normalizations; 7 are required")


def test_numbers_that_are_not_finite(path):
    def make(group, name):
        group[name] = np.full((7, 7, 3, 4), np.nan, np.float32)

    replace(path, "stem_conv/kernel", make)
    refused(path, "'stem_conv/kernel' holds numbers that are not finite")


def test_absurd_shape_is_refused_before_it_is_built_or_read(path):
    replace(path, "stem_conv/kernel", lambda group, name: group.create_dataset(name, (7, 7, 3, 10**9), np.float32))
    refused(path, "declares shape")


def test_absurd_width_is_refused_before_it_is_built(path, monkeypatch):
    def make(group, name):
        group[name] = np.zeros((7, 7, 3, 100_000), np.float32)

    replace(path, "stem_conv/kernel", make)
    record(path, ngf=100_000)
    monkeypatch.setattr(load, "build", lambda *args: pytest.fail("was built"))
    refused(path, r"holds \d+ numbers; networks of at most 67108864 are read")
    with h5py.File(path, "r+") as file:
        del file.attrs["deblur_gan"]
    refused(path, r"holds \d+ numbers; networks of at most 67108864 are read")


def written(path, *kernels):
    """A file of layers that hold these kernels, of zeros, and their biases."""
    layers = [
        hdf5.Layer(f"c{number}", [("k", np.zeros(shape, np.float32)), ("b", np.zeros(shape[-1], np.float32))])
        for number, shape in enumerate(kernels)
    ]
    path.write_bytes(hdf5.file_of(layers, {"keras_version": "3", "backend": "jax"}))


@pytest.mark.parametrize("dense", [(1024 * 1024, 1), (64, 1024), (0, 1024), (15, 1024)])
def test_a_critic_of_another_shape_is_refused_before_it_is_built(tmp_path, monkeypatch, dense):
    channels = zip([3, 1, 1, 2, 4, 8], [1, 1, 2, 4, 8, 1], strict=True)
    written(tmp_path / "c.h5", *((4, 4, *pair) for pair in channels), dense, (1024, 1))
    monkeypatch.setattr(load, "build", lambda *args: pytest.fail("was built"))
    with pytest.raises(BadWeights, match=r"batch normalizations; 4 are required|no square image|holds \d+ numbers;"):
        load_critic(tmp_path / "c.h5")


@pytest.mark.parametrize("n_blocks", [64, 65])
def test_the_number_of_blocks_is_bounded(tmp_path, n_blocks):
    blocks = 2 * n_blocks * [(3, 3, 4, 4)]
    written(
        tmp_path / "g.h5", (7, 7, 3, 1), (3, 3, 1, 2), (3, 3, 2, 4), *blocks, (3, 3, 2, 4), (3, 3, 1, 2), (7, 7, 1, 3)
    )
    if n_blocks == 64:
        with pytest.raises(BadWeights, match=r"layer 'c131' has an array of shape \(4,\) where \(2,\) is required"):
            describe(tmp_path / "g.h5")
    else:
        with pytest.raises(BadWeights, match="has 65 residual blocks; at most 64 are read"):
            describe(tmp_path / "g.h5")


def test_the_size_of_a_network_is_bounded(path, monkeypatch):
    n_numbers = load_generator(path).count_params()
    monkeypatch.setattr(hdf5, "MAX_NUMBERS", n_numbers - 1)
    refused(path, f"holds {n_numbers} numbers; networks of at most {n_numbers - 1} are read")


def test_a_negative_variance_is_refused(tmp_path):
    generator = generator_model("meudec", 4, 1)
    generator.get_layer("down1_norm").moving_variance.assign([-1, *np.ones(7)])
    save_generator(generator, tmp_path / "g.h5")
    refused(tmp_path / "g.h5", "layer 'down1_norm' holds a negative variance")


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name == "names_squared.h5" else [])
        for path in sorted((ROOT / "tests" / "hostile").glob("*.[hk]*"))
    ],
)
def test_hostile_files_are_refused_in_one_line_at_once(hostile):
    for function in (load_generator, load_critic, describe):
        start = time.process_time()
        with contextlib.suppress(BadWeights):
            function(hostile)
            assert hostile.name == "stream_6GiB_twice.h5" and function is describe, "shapes alone are as they should be"
        assert time.process_time() - start < 10
    refused(hostile, ".")


def test_compressed_bomb_is_refused_before_it_is_read(path):
    def make(group, name):
        group.create_dataset(name, (7, 7, 3, 10**7), np.float32, compression="gzip", chunks=(7, 7, 3, 1000))

    replace(path, "stem_conv/kernel", make)
    refused(path, "declares shape .* but holds fewer numbers")


def test_links_and_foreign_storage_are_refused(path, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kernel"] = np.zeros((7, 7, 3, 4), np.float32)
    kernel = "stem_conv/kernel"

    def external_link(group, name):
        group[name] = h5py.ExternalLink(tmp_path / "secret.h5", "kernel")

    def soft_link_to_itself(group, name):
        group[name] = h5py.SoftLink(f"{group.name}/{name}")

    def external_storage(group, name):
        (tmp_path / "secret.bin").write_bytes(bytes(4 * 7 * 7 * 3 * 4))
        group.create_dataset(
            name, (7, 7, 3, 4), np.float32, external=[(tmp_path / "secret.bin", 0, h5py.h5f.UNLIMITED)]
        )

    def virtual(group, name):
        layout = h5py.VirtualLayout((7, 7, 3, 4), np.float32)
        layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "kernel", (7, 7, 3, 4))
        group.create_virtual_dataset(name, layout)

    def nothing(group, name):
        pass

    def text(group, name):
        group[name] = "a string"

    for make, message in (
        (external_link, "not a group as Keras writes it"),
        (soft_link_to_itself, "a link at"),
        (external_storage, "in another file"),
        (virtual, "in another file"),
        (nothing, "nothing at"),
        (text, "not an array of floating-point numbers"),
    ):
        save_generator(generator_model("paper", 4, 1), path)
        replace(path, kernel, make)
        refused(path, message)


def test_endless_names_are_refused(path):
    with h5py.File(path, "r+") as file:
        names = np.array(["stem_conv"] * (hdf5.MAX_LAYERS // 2 + 1), dtype="S9")
        for piece in range(2):
            file["model_weights"].attrs[f"layer_names{piece}"] = names
        del file["model_weights"].attrs["layer_names"]
    refused(path, "declares 2002 names in layer_names; at most 2000")


def test_archives_are_bounded(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(tmp_path / "a.keras", "without model.weights.h5")
    with zipfile.ZipFile(tmp_path / "b.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**21))
    monkeypatch.setattr(hdf5, "MAX_NUMBERS", 2**17)
    refused(tmp_path / "b.keras", "more than the 1 MiB")


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        ("not JSON", {}),
        ("[1, 2]", {}),
        ("[" * 100_000, {}),
        ('{"ngf": "huge", "architecture": 7}', {}),
        (
            '{"path": "official.h5", "sha256": "0", "network": "x", "training": {"epoch": 9}}',
            {"training": {"epoch": 9}},
        ),
        ('{"package_version": "<script>", "training": "much", "value_range": [0, 255], "image_shape": 3}', {}),
        ('{"package_version": "0.1.0", "training": {"val_psnr": Infinity}}', {}),
        ('{"package_version": "0.1.0", "training": {"val_psnr": 1e999}}', {}),
        ('{"package_version": "0.1.0", "value_range": [-1, 1]}', {"package_version": "0.1.0", "value_range": [-1, 1]}),
    ],
)
def test_metadata_never_decides_what_is_built_or_said_of_a_file(path, metadata, kept):
    with h5py.File(path, "r+") as file:
        file.attrs["deblur_gan"] = metadata
    assert load_generator(path).count_params() == generator_model("paper", 4, 1).count_params()
    assert describe(path) == {"network": "generator", "architecture": "paper", "ngf": 4, "n_blocks": 1, **kept}


@pytest.mark.parametrize(
    ("shape", "message"),
    [([32, 64, 3], None), ([32, 80, 3], r"'dense' has an array of shape \(8, 1024\) where \(10, 1024\) is required")]
    + [(shape, "no square image") for shape in ([True, 64, 3], [-32, -64, 3], [32, "64", 3], [32], [1e3, 2, 3])],
)
def test_a_recorded_image_size_must_fit_the_dense_layer(tmp_path, shape, message):
    save_critic(critic_model("meudec", 2, (64, 32, 3)), tmp_path / "c.h5")
    record(tmp_path / "c.h5", image_shape=shape)
    if message is None:
        assert describe(tmp_path / "c.h5")["image_shape"] == shape
    else:
        with pytest.raises(BadWeights, match=message):
            describe(tmp_path / "c.h5")


# ---- the recorded architecture


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ngf": 5}, r"records a paper generator with ngf=5, n_blocks=1, but layer 'stem_conv' has"),
        ({"n_blocks": 2}, "ngf=4, n_blocks=2, but has 8 convolutions; 10 are required"),
        ({"n_blocks": 10**9}, "has 1000000000 residual blocks; at most 64 are read"),
        ({"architecture": "meudec"}, "a meudec generator with ngf=4, n_blocks=1, but"),
        ({"architecture": "unet"}, "a generator of the architecture unet; this version has meudec, paper"),
        ({"architecture": "\x1b[31m" * 1000}, "a generator of the architecture of another name; this version has"),
        ({"network": "critic", "ndf": 4}, "a paper critic with ndf=4, but has 8 convolutions; 5 are required"),
    ],
)
def test_shapes_are_held_to_the_recorded_architecture(path, changes, message):
    record(path, **changes)
    refused(path, message)


def test_the_record_tells_apart_what_shapes_cannot(path, monkeypatch):
    monkeypatch.setitem(GENERATORS, "twin", GENERATORS["paper"])
    save_generator(generator_model("twin", 4, 1), path)
    assert describe(path)["architecture"] == "twin"
    save_generator(load_generator(path), path)
    assert describe(path)["architecture"] == "twin"


def test_a_weight_too_large_for_float16_is_refused_and_nothing_is_written(tmp_path):
    generator = generator_model("paper", 4, 1)
    bias = generator.get_layer("stem_conv").bias
    bias.assign([65504, 0, 0, 0])
    save_generator(generator, tmp_path / "g.h5", dtype="float16")
    assert load_generator(tmp_path / "g.h5").get_layer("stem_conv").bias[0] == 65504
    before = (tmp_path / "g.h5").read_bytes()
    bias.assign([0, 0, -65600, 0])
    with pytest.raises(ValueError, match=r"g\.h5: a weight of 6\.56e\+04 is too large for float16"):
        save_generator(generator, tmp_path / "g.h5", dtype="float16")
    assert (tmp_path / "g.h5").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
