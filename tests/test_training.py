"""Runs in this process: what stops them, what is kept, what may change. Killed runs are in `test_train_script.py`."""

import csv
import dataclasses
import functools
import importlib.util
import json
import os
import resource
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter

from deblur_gan import files, run_data, training
from deblur_gan.checkpoint import BadRun, variables_of
from deblur_gan.gan import DeblurGAN
from deblur_gan.networks import generator_model
from deblur_gan.options import Options
from deblur_gan.recorder import Recorder
from deblur_gan.run_folder import RunFolder
from deblur_gan.training import Stopped, learning_rate, resume, train
from deblur_gan.weights import load_critic, load_generator, save_generator

ROOT = Path(__file__).parent.parent

# JAX compiles for half a minute; these do not depend on the backend.
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="does not depend on the backend")


def script():
    """The command of `scripts/train.py`, to be called without starting a process."""
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "scripts" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train


def small(**changes):
    """The default options, shrunk."""
    shrunk = {"crop_size": 16, "scale": 1.0, "ngf": 2, "n_blocks": 1, "ndf": 2, "batch_size": 2, "critic_updates": 1}
    losses = {"perceptual_weight": 0.0, "pixel_weight": 10.0}
    return Options(**{**shrunk, **losses, **changes})


def photograph(seed):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(40, 48, 3)), (2, 2, 0))
    return (127.5 + 127.5 * np.tanh(15 * noise)).astype(np.uint8)


@pytest.fixture
def pairs(tmp_path):
    folder = tmp_path / "images" / "train"
    for number in range(9):
        sharp = photograph(number)
        for kind, pixels in (("sharp", sharp), ("blur", gaussian_filter(sharp.astype(float), (0, 2, 0)))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / kind / f"{number}.png")
    return folder


@pytest.fixture
def eager(monkeypatch):
    """Compiling takes longer than the few steps that are taken here."""
    monkeypatch.setattr(training.DeblurGAN, "compile", functools.partialmethod(DeblurGAN.compile, run_eagerly=True))


def log_of(run_dir):
    with open(run_dir / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def content_of(run_dir):
    return {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_learning_rate_is_constant_then_falls_linearly_towards_zero():
    rates = [learning_rate(1e-4, "linear", 300, epoch) for epoch in range(300)]
    assert set(rates[:151]) == {1e-4}
    np.testing.assert_allclose(np.diff(rates[150:]), -1e-4 / 150)
    assert rates[-1] == pytest.approx(1e-4 / 150)
    assert {learning_rate(1e-4, "constant", 300, epoch) for epoch in range(300)} == {1e-4}


@on_tensorflow
def test_what_stops_a_run_loses_nothing_and_it_goes_on(pairs, tmp_path, eager):
    run_dir = train(small(data_dir=(str(pairs),), n_epochs=1, save_every=1, log_dir=str(tmp_path / "weights")))
    assert RunFolder.last(tmp_path / "weights").path == run_dir
    after_one = content_of(run_dir)

    # No file may grow beyond the half of the state, as on a disk that fills up while it is written.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((run_dir / "state.npz").stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(Stopped, match=r"cannot be written to \(File too large\); saved up to epoch 1, step 0"):
            resume(run_dir, n_epochs=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept = content_of(run_dir)
    for path, content in after_one.items():
        if path.name in ("log.csv", "options.json", "curves.png") or "tfevents" in path.name:
            continue
        assert kept[path] == content, path
    assert not [path for path in kept if path.name.startswith(".")]

    with pytest.raises(
        Stopped, match=r"Stopped in epoch 2: .* (no longer|not) finite.*; saved up to epoch 1, step 0"
    ) as stopped:
        resume(run_dir, n_epochs=3, learning_rate=1e30)
    assert "\n" not in str(stopped.value) and str(run_dir) in str(stopped.value)
    assert content_of(run_dir)[run_dir / "state.npz"] == after_one[run_dir / "state.npz"]
    assert [row["epoch"] for row in log_of(run_dir)] == ["1"]

    assert resume(run_dir, n_epochs=2, learning_rate=1e-4) == run_dir
    assert [row["epoch"] for row in log_of(run_dir)] == ["1", "2"]
    assert log_of(run_dir)[0] == list(csv.DictReader(after_one[run_dir / "log.csv"].decode().splitlines()))[0]
    with pytest.raises(BadRun, match="all its 2 epochs are done"):
        resume(run_dir)

    for name, value, begun_with in (("batch_size", 4, 2), ("seed", 1, 0), ("generator", "paper", "meudec")):
        with pytest.raises(BadRun, match=rf"^--{name} {value}: .* was begun with {begun_with};"):
            resume(run_dir, **{name: value}, n_epochs=3)

    options_file = json.loads((run_dir / "options.json").read_text())
    held_out = options_file["validation_images"]
    assert options_file["training_pairs"] == 8 and len(held_out) == 1
    trained_on = next(path for path in (pairs / "sharp").iterdir() if path.stem not in held_out)
    trained_on.rename(tmp_path / "away.png")
    with pytest.raises(BadRun, match="training pairs are not those"):
        resume(run_dir, n_epochs=3)
    (tmp_path / "away.png").rename(trained_on)

    state = run_dir / "state.npz"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1  # one flipped bit
    state.write_bytes(content)
    with pytest.raises(BadRun, match=r"state\.npz: damaged"):
        resume(run_dir, n_epochs=3)
    (run_dir / "options.json").write_text("{}")
    with pytest.raises(BadRun, match=r"options\.json: not the options of a run"):
        resume(run_dir)
    with pytest.raises(BadRun, match=r"holds no options\.json"):
        resume(tmp_path)
    with pytest.raises(BadRun, match="holds no run"):
        RunFolder.last(pairs)


@on_tensorflow
def test_a_file_that_becomes_unreadable_is_named(pairs, tmp_path, eager, monkeypatch):
    monkeypatch.setattr(run_data, "check_pairs", lambda *_, **__: [])
    broken = pairs / "blur" / "3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(Stopped, match=r"3\.png: cannot be decoded .* goes on from there") as stopped:
        train(small(data_dir=(str(pairs),), n_val_images=0, log_dir=str(tmp_path / "weights")))
    assert "\n" not in str(stopped.value)


@on_tensorflow
def test_a_run_begins_from_a_file_and_saves_float32_averages(pairs, tmp_path, eager):
    """With a learning rate of nothing, what goes in comes out, through mixed precision and a moving average."""
    generator = generator_model("paper", 2, 1)
    save_generator(generator, tmp_path / "start.h5")
    options = small(
        synthetic=(str(pairs / "sharp"),),
        generator="paper",
        init_from=str(tmp_path / "start.h5"),
        mixed_precision="float16",
        ema=0.5,
        learning_rate=1e-30,
        n_epochs=1,
        n_val_images=0,
        log_dir=str(tmp_path / "weights"),
    )
    with pytest.raises(BadRun, match="give --generator paper --ngf 2 --n_blocks 1 with it"):
        train(dataclasses.replace(options, ngf=4))
    run_dir = train(options)
    assert json.loads((run_dir / "options.json").read_text())["training_photographs"] == 9
    (path,) = run_dir.glob("generator_001_*.h5")
    for start, end in zip(generator.get_weights(), load_generator(path).get_weights(), strict=True):
        np.testing.assert_allclose(start, end, atol=1e-7)
    assert not (run_dir / "generator_best.h5").exists()
    assert log_of(run_dir)[0]["val_psnr"] == ""


@on_tensorflow
def test_a_paper_generator_begins_as_the_identity(pairs, tmp_path, eager):
    options = small(
        data_dir=(str(pairs),),
        generator="paper",
        critic_updates=0,
        learning_rate=1e-30,
        n_epochs=1,
        log_dir=str(tmp_path / "weights"),
    )
    (row,) = log_of(train(options))
    assert row["val_psnr"] == row["blurred_psnr"]


@on_tensorflow
def test_only_one_process_trains_a_run(pairs, tmp_path, eager, monkeypatch):
    options = small(data_dir=(str(pairs),), n_val_images=0, n_epochs=1, log_dir=str(tmp_path / "weights"))
    begin, refused = Recorder.on_epoch_begin, []

    def resumed_meanwhile(self, epoch, logs=None):
        (self.folder.path / "pictures" / ".being_written").touch()
        with pytest.raises(BlockingIOError, match="another process") as error:
            resume(self.folder.path)
        refused.append(error)
        (self.folder.path / "pictures" / ".being_written").unlink()
        begin(self, epoch, logs)

    monkeypatch.setattr(Recorder, "on_epoch_begin", resumed_meanwhile)
    run_dir = train(options)
    assert len(refused) == options.n_epochs
    with pytest.raises(BadRun, match="epochs are done"):
        resume(run_dir)


@on_tensorflow
def test_a_run_needs_nothing_that_windows_lacks(pairs, tmp_path, eager, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.delattr(os, "fsync")
    monkeypatch.delattr(os, "O_DIRECTORY")
    run_dir = train(small(data_dir=(str(pairs),), n_val_images=0, n_epochs=1, log_dir=str(tmp_path / "weights")))
    assert len(log_of(resume(run_dir, n_epochs=2))) == 2


@on_tensorflow
def test_dropout_is_that_of_the_options_also_from_a_file(pairs, tmp_path):
    save_generator(generator_model("meudec", 2, 1), tmp_path / "start.h5")
    for init_from in (None, str(tmp_path / "start.h5")):
        for dropout in (0.0, 0.25):
            options = small(data_dir=(str(pairs),), dropout=dropout, init_from=init_from)
            gan = training.build_gan(options)
            assert gan.generator.get_layer("block1_dropout").rate == dropout
            noise = keras.random.uniform((1, 16, 16, 3), seed=0)
            once, again = (keras.ops.convert_to_numpy(gan.generator(noise, training=True)) for _ in range(2))
            assert np.array_equal(once, again) == (dropout == 0)


@on_tensorflow
def test_without_critic_updates_the_generator_learns_alone(pairs, tmp_path, eager):
    options = small(data_dir=(str(pairs),), critic_updates=0, n_epochs=1, log_dir=str(tmp_path / "weights"))
    run_dir = train(options)
    untouched = training.build_gan(options).critic  # the same seed gives the same initial weights
    for start, end in zip(untouched.weights, load_critic(run_dir / "critic_001.h5").weights, strict=True):
        np.testing.assert_array_equal(start, end)
    (row,) = log_of(run_dir)
    assert {float(row[name]) for name in ("critic_loss", "gradient_penalty", "adversarial_loss")} == {0.0}
    assert float(row["generator_loss"]) == pytest.approx(10 * float(row["pixel_loss"]))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch keeps its random state to itself")
def test_interrupted_within_an_epoch_equals_uninterrupted(pairs, tmp_path, monkeypatch):
    """The means in the log too; after the second of four steps of the second epoch."""
    options = small(data_dir=(str(pairs),), n_epochs=2, checkpoint_minutes=0.0, log_dir=str(tmp_path / "weights"))
    gan = training.build_gan(options)
    initial = [np.asarray(variable) for variable in variables_of(gan).values()]

    def build_again(options):
        """Compiled once for the three runs."""
        variables = [variable for variable in variables_of(gan).values()]
        for variable, value in zip(variables, initial, strict=True):
            variable.assign(value)
        return gan

    monkeypatch.setattr(training, "build_gan", build_again)
    begin = Recorder.on_train_batch_begin

    def interrupted(self, batch, logs=None):
        begin(self, batch, logs)
        if self.progress.epoch == 1 and batch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_begin", interrupted)
        with pytest.raises(Stopped, match="interrupted; saved up to epoch 1, step 2"):
            train(options)
    resumed = resume(RunFolder.last(tmp_path / "weights").path)
    expected = train(options)
    with np.load(resumed / "state.npz") as found, np.load(expected / "state.npz") as wanted:
        for name in set(wanted.files) - {"progress"}:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    for row, other in zip(log_of(resumed), log_of(expected), strict=True):
        assert {**row, "seconds": ""} == {**other, "seconds": ""}


def test_mistakes_on_the_command_line_are_one_line(pairs, tmp_path):
    def error_of(*arguments):
        result = CliRunner().invoke(script(), [str(argument) for argument in arguments])
        assert not isinstance(result.exception, Exception), result.exception
        lines = result.output.strip().splitlines()
        return result.exit_code, lines[-1]

    log_dir = ["--log_dir", tmp_path / "weights"]
    code, line = error_of("--data_dir", tmp_path / "nowhere", *log_dir)
    assert code == 1 and "nowhere: no such folder" in line and "organize_gopro_dataset.py" in line
    code, line = error_of("--data_dir", pairs, "--crop_size", 30, *log_dir)
    assert code == 2 and "--crop_size 30: must be a multiple of 4" in line
    code, line = error_of("--data_dir", pairs, "--vgg_weights", tmp_path / "none.h5", *log_dir)
    assert code == 1 and "none.h5: no such file" in line
    code, line = error_of("--data_dir", pairs, "--init_from", tmp_path / "none.h5", *log_dir)
    assert code == 1 and "none.h5: no such file" in line
    code, line = error_of("--synthetic", tmp_path / "images", *log_dir)
    assert code == 1 and "no photographs" in line
    code, line = error_of("--resume", *log_dir)
    assert code == 1 and "holds no run" in line
    code, line = error_of("--generator", "other")
    assert code == 2 and "--generator" in line
    shutil.copy(pairs / "sharp" / "2.png", pairs / "blur" / "2.png")
    code, line = error_of("--data_dir", pairs, *log_dir)
    assert code == 1 and "not fit for training for 1 reasons" in line
    assert not (tmp_path / "weights").exists()
