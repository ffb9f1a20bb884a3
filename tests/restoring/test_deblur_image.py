import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from PIL import Image

from deblur_gan.commands import restore
from deblur_gan.restoring.deblur import deblur
from deblur_gan.weights import load_generator

GOLDEN = ROOT / "tests" / "golden"


def run(*arguments, cwd):
    """The command as a process of its own, on the backend of this one."""
    command = [sys.executable, ROOT / "scripts" / "deblur_image.py", *arguments]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def command():
    """The command inside this process, which has Keras already."""
    spec = importlib.util.spec_from_file_location("deblur_image", ROOT / "scripts" / "deblur_image.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.deblur_image


@pytest.mark.slow
def test_a_folder_as_a_user_has_it(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    photographs = {name: rng.integers(0, 256, (37, 53, 3), dtype=np.uint8) for name in ("a.png", "B.BMP")}
    for name, pixels in photographs.items():
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.jpg").write_text("404 not found")
    (tmp_path / "photos" / "notes.txt").write_text("not a photograph")

    weights = GOLDEN / "keras213_generator.h5"
    result = run("--weight_path", weights, "--input_dir", "photos", "--precision", "float32", cwd=tmp_path)

    assert result.returncode == 1
    assert "Restored 2 of 3 photographs into restored/" in result.stdout
    assert "photos/broken.jpg: not an image that can be read" in result.stderr
    assert "Traceback" not in result.stderr
    generator = load_generator(weights)
    for name, pixels in photographs.items():
        found = np.asarray(Image.open(tmp_path / "restored" / name)).astype(int)
        assert np.abs(found - deblur(generator, pixels)).max() <= 1
    assert sorted(path.name for path in (tmp_path / "restored").iterdir()) == ["B.BMP", "a.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "restored"]


def test_without_a_folder_it_restores_samples_and_says_so_twice(tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    monkeypatch.setattr(restore, "home", lambda: clone)
    # Restoring them with the default weights is tested in tests/weights/test_shipped_weights.py.
    monkeypatch.setattr("deblur_gan.restoring.deblur.deblur", lambda generator, image, *_, **options: image)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = CliRunner().invoke(command(), [])
        assert result.exit_code == 0, result.output
        assert f"restoring the sample photographs in {clone / 'images' / 'test' / 'A'}" in result.output
        assert f"Their sharp originals are in {clone / 'images' / 'test' / 'B'}/" in result.output
        samples = {path.name: Image.open(path).size for path in (clone / "images" / "test" / "A").iterdir()}
        assert samples
        assert {path.name: Image.open(path).size for path in (tmp_path / "restored").iterdir()} == samples


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--input_dir", "missing"], 2, "'--input_dir': Path 'missing' does not exist"),
        (["--input_dir", ".", "--weight_path", "missing.h5"], 2, "'--weight_path': Path 'missing.h5' does not exist"),
        (["--input_dir", ".", "--tile_size", "4"], 2, "--tile_size"),
        (
            ["--input_dir", ".", "--weight_path", str(GOLDEN / "keras213_discriminator.h5")],
            1,
            "holds a meudec critic with ndf=4; a generator is required",
        ),
    ],
)
def test_what_does_not_work_is_said_in_one_line(tmp_path, monkeypatch, arguments, code, message):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command(), arguments)
    assert result.exit_code == code
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
