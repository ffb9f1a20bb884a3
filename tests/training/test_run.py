"""Runs in this process: what stops them, what is kept, what may change. Killed runs are in `test_train_script.py`."""

import collections
import csv
import dataclasses
import errno
import functools
import json
import os
import random
import resource
import shutil
import signal
import time

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import photograph, write_pairs
from PIL import Image
from test_options import script

from deblur_gan import files
from deblur_gan.architectures import CRITICS
from deblur_gan.data import training_set as training_set_module
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.training import build, run, run_data, run_folder
from deblur_gan.training.callback import RunCallback
from deblur_gan.training.checkpoint import BadRun, Progress, variables_of
from deblur_gan.training.gan import LOSSES, DeblurGAN
from deblur_gan.training.options import Options
from deblur_gan.training.run import Stopped, learning_rate, resume, train
from deblur_gan.training.run_folder import RunFolder
from deblur_gan.weights import BadWeights, describe, load_generator, save_critic, save_generator

# JAX compiles for half a minute; these do not depend on the backend.
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="does not depend on the backend")


def small(**changes):
    """The default options, shrunk."""
    shrunk = {"crop_size": 16, "scale": 1.0, "ngf": 2, "n_blocks": 1, "ndf": 2, "batch_size": 2, "critic_updates": 1}
    losses = {"perceptual_weight": 0.0, "pixel_weight": 10.0}
    return Options(**{**shrunk, **losses, **changes})


@pytest.fixture
def eager(monkeypatch):
    """Compiling, and drawing curves, take longer than the few steps that are taken here."""
    monkeypatch.setattr(run_folder, "_curves", lambda rows: b"")
    monkeypatch.setattr(DeblurGAN, "compile", functools.partialmethod(DeblurGAN.compile, run_eagerly=True))


@pytest.fixture(autouse=True)
def heard():
    """A shell lets what it starts in the background ignore Ctrl-C, these tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("sizes", "flag"),
    [({"ngf": 100_000}, "--ngf"), ({"ndf": 100_000}, "--ndf"), ({"critic": "meudec", "crop_size": 8192}, "--ndf")],
)
def test_networks_too_large_to_be_saved_are_not_built(monkeypatch, sizes, flag):
    for name in ("generator_model", "critic_model"):
        monkeypatch.delattr(build, name)
    with pytest.raises(BadWeights, match=rf"^{flag} [^\n]*: holds \d+ numbers; networks of at most 67108864 are read$"):
        run.build_gan(small(**sizes))


def signalled(monkeypatch, number, epoch, batch):
    """Lets a signal come while step `batch` (counted from where the run began) is about to begin."""
    begin = RunCallback.on_train_batch_begin

    def begin_with_signal(self, current, logs=None):
        if (self.progress.epoch, current) == (epoch, batch):
            signal.raise_signal(number)
            deadline = time.monotonic() + 20
            while self.interruption.signal_number is None and time.monotonic() < deadline:
                time.sleep(0.001)
        begin(self, current, logs)

    monkeypatch.setattr(RunCallback, "on_train_batch_begin", begin_with_signal)


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


@pytest.mark.slow
@on_tensorflow
def test_what_stops_a_run_loses_nothing_and_it_goes_on(pairs, tmp_path, eager):
    run_dir = train(small(data_dir=pairs, n_epochs=1, save_every=1, log_dir=tmp_path / "weights"))
    assert RunFolder.last(tmp_path / "weights").path == run_dir
    after_one = content_of(run_dir)

    # No file may grow beyond the half of the state, as on a disk that fills up while it is written.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((run_dir / "state.npz").stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(
            Stopped, match=r"cannot be written to \(File too large\); --resume .* continues from the end of epoch 1$"
        ):
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
        Stopped,
        match=r"Stopped in epoch 2: .* (no longer|not) finite.*; --resume .* continues from the end of epoch 1$",
    ) as stopped:
        resume(run_dir, n_epochs=3, learning_rate=1e30)
    assert "\n" not in str(stopped.value) and str(run_dir) in str(stopped.value)
    assert content_of(run_dir)[run_dir / "state.npz"] == after_one[run_dir / "state.npz"]
    assert [row["epoch"] for row in log_of(run_dir)] == ["1"]

    moved = tmp_path / "elsewhere" / "train"
    shutil.copytree(pairs, moved)
    for path in moved.glob("sharp/*"):
        Image.fromarray(photograph(100)).save(path)
    with pytest.raises(BadRun, match="its training pairs are not those that the run began with"):
        resume(run_dir, n_epochs=2, data_dir=moved)
    shutil.rmtree(moved)
    shutil.copytree(pairs, moved)
    shutil.rmtree(pairs)
    pairs = moved
    assert resume(run_dir, n_epochs=2, learning_rate=1e-4, data_dir=moved) == run_dir
    assert [row["epoch"] for row in log_of(run_dir)] == ["1", "2"]
    assert log_of(run_dir)[0] == list(csv.DictReader(after_one[run_dir / "log.csv"].decode().splitlines()))[0]
    with pytest.raises(BadRun, match="all its 2 epochs are done"):
        resume(run_dir)

    for name, value, begun_with in (("batch_size", 4, 2), ("seed", 1, 0), ("generator", "paper", "meudec")):
        with pytest.raises(BadRun, match=rf"^--{name} {value}: .* began with {begun_with};"):
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
    for name in ("n\x7fepochs", "x" * 1000):  # a message holds text of the file
        options_file["options"] = {name: 1}
        (run_dir / "options.json").write_text(json.dumps(options_file))
        with pytest.raises(BadRun, match=r"options\.json: not the options of this version") as caught:
            resume(run_dir)
        assert str(caught.value).isprintable() and len(str(caught.value)) <= 300
    with pytest.raises(BadRun, match=r"holds no options\.json"):
        resume(tmp_path)
    with pytest.raises(BadRun, match="holds no run that can be resumed"):
        RunFolder.last(pairs)


@on_tensorflow
def test_a_file_that_becomes_unreadable_is_named(pairs, tmp_path, eager, monkeypatch):
    monkeypatch.setattr(run_data, "check_pairs", lambda *_, **__: [])
    broken = pairs / "blur" / "3.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(Stopped, match=r"3\.png: cannot be decoded .* continues from the start") as stopped:
        train(small(data_dir=pairs, n_val_images=0, log_dir=tmp_path / "weights"))
    assert "\n" not in str(stopped.value)


@on_tensorflow
def test_a_run_whose_folder_is_removed_promises_nothing(pairs, tmp_path, eager, monkeypatch):
    def removed(rows):
        (run_dir,) = (tmp_path / "weights").iterdir()
        shutil.rmtree(run_dir)
        return b""

    monkeypatch.setattr(run_folder, "_curves", removed)
    said = r"cannot be written to \(No such file or directory\); its folder is gone, so it cannot be resumed$"
    with pytest.raises(Stopped, match=said):
        train(small(data_dir=pairs, n_val_images=0, log_dir=tmp_path / "weights"))


@pytest.mark.slow
@on_tensorflow
def test_a_run_begins_from_a_file_and_saves_float32_averages(pairs, tmp_path, eager):
    """With a learning rate of nothing, what goes in comes out, through mixed precision and a moving average."""
    generator = generator_model("paper", 2, 1)
    save_generator(generator, tmp_path / "start.h5")
    options = small(
        synthetic=pairs / "sharp",
        generator="paper",
        init_from=str(tmp_path / "start.h5"),
        mixed_precision="float16",
        ema=0.5,
        learning_rate=1e-30,
        n_epochs=1,
        n_val_images=0,
        log_dir=tmp_path / "weights",
    )
    for other in ({"ngf": 3}, {"n_blocks": 2}, {"generator": "meudec"}):
        with pytest.raises(BadRun, match=r"add --generator paper --ngf 2 \(or a multiple of it\) --n_blocks 1$"):
            train(dataclasses.replace(options, **other))
    run_dir = train(options)
    assert json.loads((run_dir / "options.json").read_text())["training_photographs"] == 9
    (path,) = run_dir.glob("generator_001_*.h5")
    for start, end in zip(generator.get_weights(), load_generator(path).get_weights(), strict=True):
        np.testing.assert_allclose(start, end, atol=1e-7)
    assert not (run_dir / "generator_best.h5").exists()
    assert log_of(run_dir)[0]["val_psnr"] == ""


@on_tensorflow
def test_a_run_begins_from_a_narrower_file_where_that_one_stands(pairs, tmp_path):
    narrow = generator_model("paper", 2, 1)
    save_generator(narrow, tmp_path / "start.h5")
    options = small(generator="paper", ngf=6, dropout=0.0, init_from=str(tmp_path / "start.h5"))
    images = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(
        run.build_gan(options).generator.predict_on_batch(images), narrow.predict_on_batch(images), atol=1e-4
    )


@on_tensorflow
@pytest.mark.parametrize("architecture", CRITICS)
def test_a_run_begins_with_the_critic_of_a_file(architecture, tmp_path):
    critic = critic_model(architecture, 3, (16, 16, 3))
    start = tmp_path / "critic.h5"
    save_critic(critic, start)
    options = small(critic=architecture, ndf=3, init_critic_from=str(start))
    for begin, end in zip(critic.get_weights(), run.build_gan(options).critic.get_weights(), strict=True):
        np.testing.assert_array_equal(begin, end)

    (other,) = set(CRITICS) - {architecture}
    for change in ({"ndf": 2}, {"critic": other}):
        with pytest.raises(BadRun, match=rf"critic.h5: a critic of .* add --critic {architecture} --ndf 3$"):
            run.build_gan(dataclasses.replace(options, **change))
    with pytest.raises(BadWeights, match="critic.h5: contains a critic; give a generator as --init_from$"):
        run.build_gan(dataclasses.replace(options, init_from=str(start)))
    save_generator(generator_model("paper", 2, 1), start)
    with pytest.raises(BadWeights, match="critic.h5: contains a generator; give a critic as --init_critic_from$"):
        run.build_gan(options)


@pytest.mark.slow
@on_tensorflow
def test_a_resumed_run_needs_no_files_to_start_from(pairs, tmp_path, eager):
    starts = {"init_from": tmp_path / "generator.h5", "init_critic_from": tmp_path / "critic.h5"}
    save_generator(generator_model("paper", 2, 1), starts["init_from"])
    save_critic(critic_model("paper", 2, (16, 16, 3)), starts["init_critic_from"])
    options = small(
        generator="paper", data_dir=pairs, n_val_images=0, n_epochs=1, log_dir=tmp_path / "weights", **starts
    )
    run_dir = train(options)
    for path in starts.values():
        path.unlink()
    assert len(log_of(resume(run_dir, n_epochs=2))) == 2


@on_tensorflow
def test_a_critic_of_one_image_size_judges_only_crops_of_it(tmp_path):
    save_critic(critic_model("meudec", 2, (32, 32, 3)), tmp_path / "critic.h5")
    with pytest.raises(BadRun, match="judges images of 32x32 only; --crop_size is 16$"):
        run.build_gan(small(critic="meudec", ndf=2, init_critic_from=str(tmp_path / "critic.h5")))


@on_tensorflow
def test_frozen_normalization_computes_in_training_as_in_inference_and_stays(tmp_path):
    gan = run.build_gan(small(generator="meudec", dropout=0.0, freeze_normalization=True, critic_updates=0))
    batch = np.random.default_rng(0).uniform(-1, 1, (2, 2, 16, 16, 3)).astype("float32")
    before = {layer.name: layer.get_weights() for layer in gan.generator.layers if layer.weights}
    np.testing.assert_allclose(gan.generator(batch[0], training=True), gan.generator(batch[0]), atol=1e-6)
    gan.train_on_batch(*batch)
    for name, weights in before.items():
        for old, new in zip(weights, gan.generator.get_layer(name).get_weights(), strict=True):
            assert ("norm" in name) == np.array_equal(old, new), name


@on_tensorflow
def test_a_paper_generator_begins_as_the_identity(pairs, tmp_path, eager):
    options = small(
        data_dir=pairs,
        generator="paper",
        critic_updates=0,
        learning_rate=1e-30,
        n_epochs=1,
        log_dir=tmp_path / "weights",
    )
    (row,) = log_of(train(options))
    assert row["val_psnr"] == row["blurred_psnr"]


@on_tensorflow
def test_only_one_process_trains_a_run(pairs, tmp_path, eager, monkeypatch):
    options = small(data_dir=pairs, n_val_images=0, n_epochs=1, log_dir=tmp_path / "weights")
    begin, refused = RunCallback.on_epoch_begin, []

    def resumed_meanwhile(self, epoch, logs=None):
        (self.folder.path / "pictures" / ".being_written").touch()
        with pytest.raises(BlockingIOError, match="another process") as error:
            resume(self.folder.path)
        refused.append(error)
        (self.folder.path / "pictures" / ".being_written").unlink()
        begin(self, epoch, logs)

    monkeypatch.setattr(RunCallback, "on_epoch_begin", resumed_meanwhile)
    run_dir = train(options)
    assert len(refused) == options.n_epochs
    with pytest.raises(BadRun, match="epochs are done"):
        resume(run_dir)


@pytest.mark.slow
@on_tensorflow
def test_a_run_needs_nothing_that_windows_lacks(pairs, tmp_path, eager, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.delattr(os, "fsync")
    monkeypatch.delattr(os, "O_DIRECTORY")
    run_dir = train(small(data_dir=pairs, n_val_images=0, n_epochs=1, log_dir=tmp_path / "weights"))
    assert len(log_of(resume(run_dir, n_epochs=2))) == 2


@on_tensorflow
def test_dropout_is_that_of_the_options_also_from_a_file(pairs, tmp_path):
    save_generator(generator_model("meudec", 2, 1), tmp_path / "start.h5")
    for init_from in (None, str(tmp_path / "start.h5")):
        for dropout in (0.0, 0.25):
            options = small(data_dir=pairs, dropout=dropout, init_from=init_from)
            gan = run.build_gan(options)
            assert gan.generator.get_layer("block1_dropout").rate == dropout
            noise = keras.random.uniform((1, 16, 16, 3), seed=0)
            once, again = (keras.ops.convert_to_numpy(gan.generator(noise, training=True)) for _ in range(2))
            assert np.array_equal(once, again) == (dropout == 0)


@on_tensorflow
def test_without_critic_updates_the_generator_learns_alone(pairs, tmp_path, eager, monkeypatch):
    """Its run leaves no critic, which could only be one that has learnt nothing."""
    options = small(data_dir=pairs, critic_updates=0, n_epochs=1, log_dir=tmp_path / "weights")
    untouched, trained = (run.build_gan(options) for _ in range(2))  # the same seed gives the same initial weights
    monkeypatch.setattr(run, "build_gan", lambda _: trained)
    run_dir = train(options)
    for start, end in zip(untouched.critic.weights, trained.critic.weights, strict=True):
        np.testing.assert_array_equal(start, end)
    assert list(run_dir.glob("generator_001_*.h5")) and not list(run_dir.glob("critic*"))
    (row,) = log_of(run_dir)
    assert {float(row[name]) for name in ("critic_loss", "gradient_penalty", "adversarial_loss")} == {0.0}
    assert float(row["generator_loss"]) == pytest.approx(10 * float(row["pixel_loss"]))


@pytest.mark.slow
def test_interrupted_within_an_epoch_equals_uninterrupted(pairs, tmp_path, monkeypatch):
    """The means in the log too; after the second of four steps of the second epoch."""
    options = small(data_dir=pairs, n_epochs=2, log_dir=tmp_path / "weights")
    gan = run.build_gan(options)
    initial = [np.asarray(variable) for variable in variables_of(gan).values()]

    def build_again(options):
        """Compiled once for the three runs."""
        for variable, value in zip(variables_of(gan).values(), initial, strict=True):
            variable.assign(value)
        gan.reset_metrics()
        return gan

    monkeypatch.setattr(run, "build_gan", build_again)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        signalled(patch, signal.SIGINT, epoch=1, batch=2)
        with pytest.raises(Stopped, match=r"^interrupted; --resume .* continues from epoch 2, step 2$") as stopped:
            train(options)
    assert stopped.value.signal_number == signal.SIGINT
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    resumed = resume(RunFolder.last(tmp_path / "weights").path)
    expected = train(options)
    with np.load(resumed / "state.npz") as found, np.load(expected / "state.npz") as wanted:
        for name in set(wanted.files) - {"progress"}:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    for row, other in zip(log_of(resumed), log_of(expected), strict=True):
        assert {**row, "seconds": ""} == {**other, "seconds": ""}


@pytest.mark.slow
@on_tensorflow
def test_signals_end_the_command_with_a_state_and_their_exit_codes(pairs, tmp_path, eager, monkeypatch):
    flags = f"--data_dir {pairs} --log_dir {tmp_path / 'weights'} --n_val_images 0 --n_epochs 1 --crop_size 16 --ngf 2"
    flags += " --n_blocks 1 --ndf 2 --batch_size 2 --critic_updates 1 --perceptual_weight 0"
    resumed = ["--resume", "--log_dir", str(tmp_path / "weights")]
    for arguments, number, batch in ((flags.split(), signal.SIGTERM, 1), (resumed, signal.SIGINT, 2)):
        with monkeypatch.context() as patch:
            signalled(patch, number, epoch=0, batch=batch)
            result = CliRunner().invoke(script(), arguments)
        assert result.exit_code == 128 + number
        step = 1 if batch == 1 else 3  # the second run begins at step 1
        last_line = result.output.splitlines()[-1]
        assert last_line.startswith("Error: interrupted; --resume ")
        assert last_line.endswith(f" continues from epoch 1, step {step}")
    result = CliRunner().invoke(script(), resumed)
    assert result.exit_code == 0 and "continues from epoch 1, step 3" in result.output
    assert len(log_of(RunFolder.last(tmp_path / "weights").path)) == 1


@on_tensorflow
def test_weights_that_explode_behind_finite_losses_stop_a_run(pairs, tmp_path, eager):
    """The losses of a step are those of the weights before it."""
    exploding = {"critic_updates": 0, "learning_rate": 1e30, "steps_per_epoch": 1, "n_epochs": 1}
    options = small(data_dir=pairs, log_dir=tmp_path / "weights", **exploding)
    with pytest.raises(Stopped, match=r"^Stopped in epoch 1: .*not finite.*; --resume .* continues from the start$"):
        train(options)
    run_dir = RunFolder.last(tmp_path / "weights").path
    assert not list(run_dir.glob("*.h5")) and not (run_dir / "state.npz").exists() and not log_of(run_dir)


@on_tensorflow
def test_perfect_validation_images_are_left_out_of_psnr(pairs, tmp_path, eager, monkeypatch, capsys):
    """A generator that begins as the identity, and hardly learns, restores a pair of equal pictures perfectly."""
    monkeypatch.setattr(run_data, "check_pairs", lambda *_, **__: [])
    validation = tmp_path / "validation"
    for kind in ("blur", "sharp"):
        (validation / kind).mkdir(parents=True)
        shutil.copy(pairs / "sharp" / "0.png", validation / kind / "0.png")
    frozen = {"generator": "paper", "critic_updates": 0, "learning_rate": 1e-30, "steps_per_epoch": 1, "n_epochs": 1}
    options = small(data_dir=pairs, val_dir=validation, log_dir=tmp_path / "weights", **frozen)
    run_dir = train(options)
    (row,) = log_of(run_dir)
    assert row["val_psnr"] == row["blurred_psnr"] == "" and float(row["val_ssim"]) == 1
    assert not (run_dir / "generator_best.h5").exists()
    assert "1 validation images without PSNR" in capsys.readouterr().out
    for kind in ("blur", "sharp"):
        shutil.copy(pairs / kind / "1.png", validation / kind / "1.png")
    run_dir = train(options)
    (row,) = log_of(run_dir)
    blurred, sharp = (np.asarray(Image.open(validation / kind / "1.png"), float) for kind in ("blur", "sharp"))
    psnr = 10 * np.log10(255**2 / np.mean((blurred - sharp) ** 2))
    assert float(row["val_psnr"]) == pytest.approx(psnr) == float(row["blurred_psnr"])
    assert describe(run_dir / "generator_best.h5")["training"]["val_psnr"] == pytest.approx(psnr)


@pytest.mark.slow
@on_tensorflow
def test_both_optimizers_have_the_rate_of_the_epoch(pairs, tmp_path, eager, monkeypatch):
    rates = []

    def noted(self, batch, logs=None):
        optimizers = self.model.generator_optimizer, self.model.critic_optimizer
        rates.append([float(np.asarray(optimizer.learning_rate)) for optimizer in optimizers])

    monkeypatch.setattr(RunCallback, "on_train_batch_begin", noted)
    train(small(data_dir=pairs, n_val_images=0, steps_per_epoch=1, n_epochs=4, log_dir=tmp_path / "weights"))
    np.testing.assert_allclose(rates, np.outer([1e-4, 1e-4, 1e-4, 0.5e-4], [1, 1]), rtol=1e-6)


@on_tensorflow
def test_the_optimizers_are_adam_as_in_the_authors_code():
    """Their options: `--beta1` is 0.5 by default; the second moment is PyTorch's default."""
    gan = run.build_gan(small())
    assert gan.generator_optimizer is not gan.critic_optimizer
    for optimizer in (gan.generator_optimizer, gan.critic_optimizer):
        assert type(optimizer) is keras.optimizers.Adam and (optimizer.beta_1, optimizer.beta_2) == (0.5, 0.999)


@pytest.mark.slow
@on_tensorflow
@pytest.mark.parametrize("mixed_precision", [None, "bfloat16"])
def test_the_moving_average_is_what_is_saved_and_the_weights_stay_theirs(pairs, tmp_path, eager, mixed_precision):
    options = small(data_dir=pairs, steps_per_epoch=2, n_epochs=1, mixed_precision=mixed_precision)
    states = {}
    for ema in (0.0, 0.5):
        run_dir = train(dataclasses.replace(options, ema=ema, log_dir=tmp_path / "weights"))
        with np.load(run_dir / "state.npz") as state:
            states[ema] = {name: state[name] for name in state.files}
        (path,) = run_dir.glob("generator_001_*.h5")
        saved = load_generator(path).get_weights()
        product = "moving_average" if ema else "generator"
        # The layer holds its count of updates next to the network.
        kept = [states[ema].get(f"{product}/{i}") for i in range(len(saved) + 1)]
        kept = [value for value in kept if value is not None and value.dtype == np.float32]
        for number, (value, weight) in enumerate(zip(saved, kept, strict=True)):
            np.testing.assert_array_equal(value, weight, err_msg=str(number))
    generator = [name for name in states[0.0] if name.startswith("generator/")]
    for name in generator:  # validating and saving the average has changed nothing that is trained
        np.testing.assert_array_equal(states[0.0][name], states[0.5][name], err_msg=name)
    assert any(
        (states[0.5][name] != states[0.5][name.replace("generator", "moving_average")]).any() for name in generator
    )


@on_tensorflow
def test_a_full_cache_is_blamed_and_not_the_run(pairs, tmp_path, eager, monkeypatch):
    def full(self, step):
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/of/mine.npy")

    monkeypatch.setattr(run_data.TrainingSet, "batch", full)
    with pytest.raises(Stopped, match=r"^/cache/of/mine\.npy: No space left on device; --resume "):
        train(small(data_dir=pairs, n_val_images=0, log_dir=tmp_path / "weights"))


def test_shares_are_those_of_the_folders(pairs, tmp_path, monkeypatch):
    """Of 2 pairs and 9 photographs with 3:1, three of four samples are pairs, each pair as often as the other."""
    few = write_pairs(tmp_path / "few", range(2), first=70)
    options = small(data_dir=few, synthetic=pairs / "sharp", shares="3:1", n_val_images=0)
    training_set, _ = run_data.build_datasets(options, run_data.find_data(options, check=False))
    handed = []
    monkeypatch.setattr(training_set_module, "read_rgb", lambda path: handed.append(path) or photograph(0))
    for index in range(8):
        training_set.sample(0, index)
    counts = collections.Counter(path.parent.parent for path in handed)
    assert counts == {few: 2 * 6, pairs: 2}
    assert all(handed.count(path) == 3 for path in (few / "sharp").iterdir())
    options = small(data_dir=(few, pairs), shares="3:1", n_val_images=0, n_images=1)
    with pytest.raises(BadRun, match="^--shares 3:1: a folder of --data_dir has no pairs left"):
        run_data.build_datasets(options, run_data.find_data(options, check=False))


@on_tensorflow
def test_the_first_of_two_equally_good_generators_is_the_best(pairs, tmp_path, eager):
    """One that hardly learns scores the same after both epochs."""
    frozen = {"generator": "paper", "critic_updates": 0, "learning_rate": 1e-30, "steps_per_epoch": 1, "n_epochs": 2}
    run_dir = train(small(data_dir=pairs, log_dir=tmp_path / "weights", **frozen))
    first, second = log_of(run_dir)
    assert first["val_psnr"] == second["val_psnr"]
    assert describe(run_dir / "generator_best.h5")["training"]["epoch"] == 1


@on_tensorflow
def test_building_leaves_the_random_numbers_of_others_alone():
    state = random.getstate()
    gan, other = (run.build_gan(small(seed=3)) for _ in range(2))
    assert random.getstate() == state
    for one, two in zip(gan.generator.weights, other.generator.weights, strict=True):
        np.testing.assert_array_equal(one, two)


@on_tensorflow
def test_a_state_of_another_backend_is_refused_with_its_name(pairs, tmp_path, eager):
    """As its optimizers count in another type of integer there."""
    run_dir = train(small(data_dir=pairs, n_epochs=1, steps_per_epoch=1, n_val_images=0, log_dir=tmp_path))
    with np.load(run_dir / "state.npz") as archive:
        arrays = {**archive, "optimizers/0": archive["optimizers/0"].astype("int32")}
    np.savez(run_dir / "state.npz", **arrays)
    refused = r"state\.npz: not of the networks that options\.json describes \(optimizers/0\)"
    with pytest.raises(BadRun, match=f"{refused}$"):
        resume(run_dir, n_epochs=2)
    content = json.loads((run_dir / "options.json").read_text())
    content["versions"]["torch"] = content["versions"].pop("tensorflow")
    (run_dir / "options.json").write_text(json.dumps(content))
    with pytest.raises(BadRun, match=f"{refused}; the run began with KERAS_BACKEND=torch$"):
        resume(run_dir, n_epochs=2)


def test_a_resumed_run_says_where_its_learning_rate_rises():
    begun_with = Options(n_epochs=200)
    note = run._note_on_learning_rate(begun_with, Options(n_epochs=300), 200)
    assert note.startswith("learning rate: 6.7e-05 from epoch 201 on, after 1e-06 in epoch 200")
    assert "--schedule constant --learning_rate 1e-06" in note and "\n" not in note
    kept = Options(n_epochs=300, schedule="constant", learning_rate=1e-6)
    for options, epoch in ((begun_with, 150), (kept, 200), (Options(n_epochs=300), 0), (Options(n_epochs=300), 100)):
        assert run._note_on_learning_rate(begun_with, options, epoch) == ""


def test_the_line_of_progress_has_the_losses_of_the_generator_in_80_columns(capsys):
    callback = RunCallback(None, Progress(epoch=198), Options(n_epochs=200), 1000, None)
    logs = dict(zip(LOSSES, (123.45, -23.456, 0.65432, 0.034567, 0.0, -12.345, 0.98765), strict=True))
    callback.show(999, logs)
    callback.bar.dynamic_ncols = lambda file: (80, 24)
    callback.bar.initial = 0
    callback.bar.start_t -= 7_000_000
    capsys.readouterr()
    callback.bar.refresh()
    callback.close()
    line = capsys.readouterr().err.split("\r")[1].rstrip()
    assert line.startswith("epoch 199/200") and len(line) <= 80
    assert " 9:4" in line and "loss 123 adv -23.5 perc 0.654 pixel 0.0346" in line


def test_what_cannot_fit_is_refused_from_arithmetic(pairs, tmp_path, monkeypatch):
    monkeypatch.delattr(run, "find_data")
    for sizes in ({"batch_size": 2**31 - 1}, {"crop_size": 2**20}, {"crop_size": 2**30, "batch_size": 10**9}):
        with pytest.raises(BadRun, match=r"^--batch_size \d+ --crop_size \d+: the batches prepared ahead need [^\n]*$"):
            train(small(data_dir=pairs, log_dir=tmp_path / "weights", **sizes))
    assert not (tmp_path / "weights").exists()


@on_tensorflow
def test_a_run_prints_few_options_and_refuses_what_another_version_wrote(pairs, tmp_path, eager, capsys):
    options = small(data_dir=pairs, n_epochs=1, log_dir=tmp_path / "weights", critic_updates=0, steps_per_epoch=1)
    run_dir = train(options)
    printed = capsys.readouterr().out
    assert f"--data_dir {pairs}" in printed and "--ngf 2" in printed and "--seed" not in printed
    assert len(printed.splitlines()) < 20
    result = CliRunner().invoke(script(), ["--resume", str(run_dir), "--n_epochs", "0"])
    assert result.exit_code == 2
    for name, content in (("log.csv", b"epoch,loss\n1,2\n"), ("options.json", None)):
        whole = (run_dir / name).read_bytes()
        values = [content] if content else []
        if name == "options.json":
            for key, value in (("crop_size", 11805916207174113034240), ("batch_size", 10**12), ("dropout", 10**400)):
                edited = json.loads(whole)
                edited["options"][key] = value
                values.append(json.dumps(edited).encode())
            edited = json.loads(whole)
            del edited["fingerprints"]
            values.append(json.dumps(edited).encode())
        for value in values:
            (run_dir / name).write_bytes(value)
            result = CliRunner().invoke(script(), ["--resume", str(run_dir), "--n_epochs", "2"])
            assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
            assert result.output.startswith("Error: ") and result.output.count("\n") == 1 and len(result.output) < 400
        (run_dir / name).write_bytes(whole)
    (run_dir / "state.npz").rename(tmp_path / "state.npz")
    assert len(log_of(resume(run_dir, n_epochs=2))) == 2  # the state may be missing after one epoch only
    (run_dir / "state.npz").unlink()
    with pytest.raises(BadRun, match=r"state\.npz: missing"):
        resume(run_dir, n_epochs=3)


def test_mistakes_on_the_command_line_are_one_line(pairs, tmp_path):
    def error_of(*arguments):
        result = CliRunner().invoke(script(), [str(argument) for argument in arguments])
        assert not isinstance(result.exception, Exception), result.exception
        lines = result.output.strip().splitlines()
        return result.exit_code, lines[-1]

    log_dir = ["--log_dir", tmp_path / "weights"]
    code, line = error_of("--data_dir", tmp_path / "nowhere", *log_dir)
    assert code == 1 and "nowhere: no such folder" in line and "deblur-gan organize" in line
    code, line = error_of("--data_dir", pairs, "--crop_size", 30, *log_dir)
    assert code == 2 and "--crop_size 30: must be a multiple of 4" in line
    code, line = error_of("--data_dir", pairs, "--vgg_weights", tmp_path / "none.h5", *log_dir)
    assert code == 1 and "none.h5: no such file" in line
    code, line = error_of("--data_dir", pairs, "--init_from", tmp_path / "none.h5", *log_dir)
    assert code == 1 and "none.h5: no such file" in line
    code, line = error_of("--synthetic", tmp_path / "images", *log_dir)
    assert code == 1 and "no photographs" in line
    code, line = error_of("--resume", *log_dir)
    assert code == 1 and "holds no run that can be resumed" in line
    code, line = error_of("--generator", "other")
    assert code == 2 and "--generator" in line
    shutil.copy(pairs / "sharp" / "2.png", pairs / "blur" / "2.png")
    code, line = error_of("--data_dir", pairs, *log_dir)
    assert code == 1 and "cannot be trained on for 1 reasons" in line
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_first_step_is_one_line(monkeypatch, number, code):
    def interrupted(options):
        signal.raise_signal(number)
        time.sleep(20)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pytest itself may ignore it, as under nohup
    monkeypatch.setattr(run, "train", interrupted)
    result = CliRunner().invoke(script(), ["--data_dir", "images"])
    signal.signal(signal.SIGTERM, before)
    assert result.exit_code == code and result.output.splitlines() == ["Error: interrupted before the first step"]
