"""The mean of docs/average_weights.py restores like the mean of the weights, and records what each was trained with."""

import runpy

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT

from deblur_gan.networks import critic_model, generator_model
from deblur_gan.weights import describe, load_generator, save_critic, save_generator

SCRIPT = runpy.run_path(str(ROOT / "docs" / "average_weights.py"))


def average(*arguments):
    return CliRunner().invoke(SCRIPT["main"], list(map(str, arguments)))


@pytest.mark.parametrize("architecture", ["paper", "meudec"])
def test_every_weight_is_the_mean(architecture, tmp_path):
    generators = [generator_model(architecture, 2, 1) for _ in range(3)]
    paths = [tmp_path / f"generator_{number}.h5" for number in range(3)]
    for number, (generator, path) in enumerate(zip(generators, paths, strict=True)):
        generator.set_weights([weight + number for weight in generator.get_weights()])
        save_generator(generator, path, {"epoch": number} if number else None)

    result = average(*paths, "--output", tmp_path / "mean.h5")
    assert result.exit_code == 0, result.output
    each = zip(*(generator.get_weights() for generator in generators), strict=True)
    for weights, found in zip(each, load_generator(tmp_path / "mean.h5").get_weights(), strict=True):
        np.testing.assert_allclose(found, sum(weights) / 3, rtol=2**-10)
    assert describe(tmp_path / "mean.h5")["training"] == {"mean_of": [{}, {"epoch": 1}, {"epoch": 2}]}


def test_what_has_no_mean_is_refused_in_one_line(tmp_path):
    save_generator(generator_model("paper", 2, 1), tmp_path / "two.h5")
    save_generator(generator_model("paper", 3, 1), tmp_path / "three.h5")
    save_critic(critic_model("paper", 2), tmp_path / "critic.h5")
    (tmp_path / "no.h5").write_bytes(b"no")
    for names, line in (
        (("two", "three"), "three.h5: holds a paper generator with ngf=3, n_blocks=1, but "),
        (("two", "critic"), "critic.h5: holds a paper critic with ndf=2, but "),
        (("critic", "critic"), "critic.h5: holds a paper critic with ndf=2; a generator is required"),
        (("two", "no"), "no.h5: "),
    ):
        result = average(*(tmp_path / f"{name}.h5" for name in names), "--output", tmp_path / "mean.h5")
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
        (message,) = result.output.splitlines()
        assert line in message
    result = average(tmp_path / "two.h5", "--output", tmp_path / "mean.keras")
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert not list(tmp_path.glob("mean*"))
