"""The calibration of docs/calibrate_colours.py: its model of flat pictures is exact, and only colours change."""

import runpy

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, write_pairs

from deblur_gan.networks import critic_model, generator_model
from deblur_gan.weights import describe, load_generator, save_critic, save_generator

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="does not depend on the backend")
SCRIPT = runpy.run_path(str(ROOT / "docs" / "calibrate_colours.py"))


def trained(n_blocks=1):
    """A meudec generator with weights and statistics that are not those it starts with."""
    generator = generator_model("meudec", 4, n_blocks)
    rng = np.random.default_rng(0)
    generator.set_weights([weight + np.abs(rng.normal(0, 0.02, weight.shape)) for weight in generator.get_weights()])
    return generator


def test_the_model_of_flat_pictures_is_the_generator_on_them():
    generator = trained(n_blocks=2)
    colours = np.random.default_rng(1).uniform(-1, 1, (5, 1, 1, 3)).astype("float32")
    restored = generator.predict(np.tile(colours, (1, 96, 96, 1)), verbose=0)
    found = SCRIPT["on_flat_pictures"](generator).predict(colours, verbose=0)
    assert np.ptp(found, axis=0).min() > 0.1
    np.testing.assert_allclose(np.broadcast_to(found, (5, 8, 8, 3)), restored[:, 44:52, 44:52], atol=1e-5)


def test_casts_are_those_of_the_colours():
    """A generator whose output is the input, but for a hundredth of red."""
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1, use_bias=False)(inputs))
    model.set_weights([np.diag([0.99, 1, 1]).reshape(1, 1, 3, 3)])
    off = SCRIPT["casts"](model)
    assert off.shape == (125, 3)
    np.testing.assert_allclose(off[-1], [-1.275, 0, 0], atol=1e-4)
    np.testing.assert_allclose(off[0], [1.275, 0, 0], atol=1e-4)
    np.testing.assert_allclose(off[:, 1:], 0, atol=1e-4)


@pytest.mark.slow
def test_calibration_brings_colours_back_and_little_else():
    keras.utils.set_random_seed(0)
    generator = generator_model("meudec", 8, 1)
    photographs = np.random.default_rng(2).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    casts, restored = SCRIPT["casts"](generator), generator.predict(photographs, verbose=0)
    before = {layer.name: layer.get_weights() for layer in generator.layers}

    SCRIPT["calibrate"](generator, [photographs] * 200, 200, learning_rate=3e-3, n_colours=64, colour_weight=3.0)

    assert np.abs(SCRIPT["casts"](generator)).mean() < 0.5 * np.abs(casts).mean()
    calibrated = generator.predict(photographs, verbose=0)
    np.testing.assert_allclose(
        generator(photographs, training=True), calibrated, atol=1e-5
    )  # it trained without dropout
    moved = np.abs(calibrated - restored).mean()
    assert moved < 0.3 * np.abs(restored - photographs).mean()
    for layer in generator.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for old, new in zip(before[layer.name], layer.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_the_command_writes_what_it_trained_and_refuses_other_networks(tmp_path):
    save_generator(trained(), tmp_path / "meudec.h5", {"epoch": 3})
    save_generator(generator_model("paper", 2, 1), tmp_path / "paper.h5")
    save_critic(critic_model("meudec", 2, (16, 16, 3)), tmp_path / "critic.h5")
    write_pairs(tmp_path / "pairs", ["1", "2"])
    (tmp_path / "none" / "A").mkdir(parents=True)
    (tmp_path / "none" / "B").mkdir()

    def invoke(name, data_dir="pairs", output="new.h5"):
        arguments = ["--weight_path", tmp_path / f"{name}.h5", "--data_dir", tmp_path / data_dir]
        arguments += ["--output", tmp_path / output, "--n_steps", 2, "--batch_size", 1, "--crop_size", 32]
        return CliRunner().invoke(SCRIPT["main"], list(map(str, arguments)))

    for name, data_dir, line in (
        ("paper", "pairs", "holds a paper generator; give a meudec generator"),
        ("critic", "pairs", "holds a meudec critic; give a meudec generator"),
        ("meudec", "none", "contains no pairs"),
    ):
        result = invoke(name, data_dir)
        assert result.exit_code == 1 and line in result.output.splitlines()[-1], result.output
    for output in ("new.keras", "nowhere/new.h5"):
        result = invoke("meudec", output=output)
        assert result.exit_code == 2 and "must end in .h5, in a folder that exists" in result.output
    assert not (tmp_path / "new.h5").exists()

    result = invoke("meudec")
    assert result.exit_code == 0, result.output
    recorded = {"calibration_of": {"epoch": 3}, "n_steps": 2, "colour_weight": 30.0}
    assert describe(tmp_path / "new.h5")["training"] == recorded
    old, new = (load_generator(tmp_path / name) for name in ("meudec.h5", "new.h5"))
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(old.get_weights(), new.get_weights(), strict=True))
