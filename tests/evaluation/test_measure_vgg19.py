"""The distance of docs/measure_vgg19.py: its features are those of Keras' own VGG19 with Keras' own preprocessing."""

import runpy

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from PIL import Image

from deblur_gan.backend import keras

SCRIPT = runpy.run_path(str(ROOT / "docs" / "measure_vgg19.py"))


@pytest.fixture(scope="module")
def vgg19():
    """Keras' own network up to block3_conv4, with random weights that give distances of about 1."""
    full = keras.applications.VGG19(weights=None, include_top=False, input_shape=(32, 32, 3))
    last = full.get_layer("block3_conv4")
    last.set_weights([1000 * weight for weight in last.get_weights()])
    return keras.Model(full.input, last.output)


@pytest.fixture
def vgg_weights(vgg19, tmp_path):
    vgg19.save(tmp_path / "vgg19.h5")
    return tmp_path / "vgg19.h5"


def features(vgg19, images):
    return vgg19.predict(keras.applications.vgg19.preprocess_input(np.array(images, "float32")), verbose=0)


def test_features_are_those_of_keras(vgg19, vgg_weights):
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected = features(vgg19, images)
    found = SCRIPT["vgg19_features"](vgg_weights).predict(images, verbose=0)
    assert expected.std() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.std())


def test_a_photograph_that_stays_as_it_is_stays_as_far_from_the_sharp_one(vgg19, vgg_weights, tmp_path):
    """A grey photograph is restored to itself, so it gains nothing and both ratios are 1."""
    images = [np.full((32, 32, 3), level, np.uint8) for level in (100, 140)]
    for side, image in zip(("blur", "sharp"), images, strict=True):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "pairs" / side / "1.png")
    blurred, sharp = features(vgg19, images)
    distance = np.sqrt(np.mean((blurred - sharp) ** 2)) / 127.5

    arguments = ["--data_dir", str(tmp_path / "pairs"), "--vgg_weights", str(vgg_weights)]
    result = CliRunner().invoke(SCRIPT["main"], arguments, catch_exceptions=False)

    _, gain, found, *ratios = (cell.strip() for cell in result.output.splitlines()[-1].strip("|").split("|"))
    assert gain == "+0.00 (+0.00)"
    assert distance > 0.1
    assert float(found) == pytest.approx(distance, abs=2e-3)
    assert ratios == ["1.000", "1.000"]


def test_other_weights_are_refused_in_one_line(vgg19, tmp_path):
    cut = keras.Model(vgg19.input, vgg19.get_layer("block3_conv3").output)
    cut.save(tmp_path / "cut.h5")
    (tmp_path / "no.h5").write_bytes(b"no")
    for name, line in (("cut.h5", "ends before block3_conv4"), ("no.h5", "")):
        arguments = ["--data_dir", str(tmp_path), "--vgg_weights", str(tmp_path / name)]
        result = CliRunner().invoke(SCRIPT["main"], arguments)
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
        (message,) = result.output.splitlines()
        assert name in message and line in message
