"""The real entry point, run and killed as a user would; `KILLS=10 pytest tests/test_train_script.py` kills more."""

import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import ROOT, child_environment, write_pairs
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event

from deblur_gan.restoring.deblur import deblur
from deblur_gan.weights import describe, load_critic, load_generator

N_KILLS = int(os.environ.get("KILLS", 2))
N_EPOCHS = 2 * N_KILLS

# What happens here does not depend on the backend, and TensorFlow starts fastest.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="runs the default backend"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    images = tmp_path_factory.mktemp("images")
    write_pairs(images / "train", [f"{number:03d}" for number in range(8)], kinds="AB")
    write_pairs(images / "val", ["008", "009"], kinds="AB", first=8)
    return images


def command(*arguments):
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *(str(argument) for argument in arguments)]


def flags(images, log_dir):
    sizes = ["--scale", "1", "--crop_size", "16", "--ngf", "2", "--n_blocks", "1", "--ndf", "2", "--batch_size", "2"]
    losses = ["--critic_updates", "1", "--perceptual_weight", "0", "--pixel_weight", "10"]
    epochs = f"--n_epochs {N_EPOCHS} --save_every 2 --checkpoint_minutes 0".split()
    return ["--data_dir", images / "train", "--log_dir", log_dir, *sizes, *losses, *epochs]


# One thread each: two of these run at a time, and two processes with two threads on two cores wait for each other.
ENVIRONMENT = child_environment(TF_DETERMINISTIC_OPS="1", TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")


def start(folder, arguments, output):
    return subprocess.Popen(
        command(*arguments), env=ENVIRONMENT, cwd=folder, stdout=output, stderr=subprocess.STDOUT, text=True
    )


def killed_run(images, log_dir, outputs):
    """SIGKILL at random moments after the first checkpoint of each start; returns the number of kills."""
    seed = int(os.environ.get("KILL_SEED", time.time()))
    print(f"KILL_SEED={seed}")
    moments = random.Random(seed)
    arguments = flags(images, log_dir)

    def written():
        return [path.stat().st_mtime_ns for path in log_dir.glob("*/state.npz")]

    for kills in itertools.count():
        before = written()
        with open(outputs / f"killed_{kills}", "w+") as output:
            process = start(log_dir, arguments, output)
            if kills < N_KILLS:
                while process.poll() is None and before == written():
                    time.sleep(0.005)
                time.sleep(moments.uniform(0, 0.6))
                process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                output.seek(0)
                assert process.returncode == 0, output.read()[-2000:]
                return kills
        arguments = ["--resume", "--log_dir", log_dir]


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory):
    """The folders of two runs with the same flags, at the same time: one undisturbed, one killed again and again."""
    log_dir, killed_dir, outputs = (tmp_path_factory.mktemp(name) for name in ("weights", "killed", "outputs"))
    with open(outputs / "undisturbed", "w+") as output:
        undisturbed = start(log_dir, flags(images, log_dir), output)
        kills = killed_run(images, killed_dir, outputs)
        undisturbed.wait()
        output.seek(0)
        text = output.read()
    assert undisturbed.returncode == 0, text[-2000:]
    assert kills > N_KILLS / 2  # on a very fast machine the last kills may come too late
    (run_dir,) = log_dir.iterdir()  # the only thing that was written
    assert f"epoch {N_EPOCHS}/{N_EPOCHS}: " in text and text.endswith(f"Done: {run_dir}\n")
    (killed,) = killed_dir.iterdir()
    return run_dir, killed


@pytest.fixture(scope="module")
def run_dir(runs):
    return runs[0]


def log_of(run_dir):
    with open(run_dir / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def events_of(run_dir):
    """All records of the one event file, read without TensorBoard's own help against duplicates."""
    (path,) = (run_dir / "tensorboard").iterdir()
    content, events = path.read_bytes(), []
    while content:
        length = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_run_folder_holds_what_was_promised(run_dir):
    n_epochs = len(log_of(run_dir))
    names = {path.name for path in run_dir.iterdir()}
    losses = {int(row["epoch"]): float(row["generator_loss"]) for row in log_of(run_dir)}
    saved = [epoch for epoch in losses if epoch % 2 == 0]
    assert names == {
        *("options.json", "log.csv", "curves.png", "pictures", "tensorboard", "generator_best.h5", "state.npz"),
        *(f"generator_{epoch:03d}_{losses[epoch]:.4f}.h5" for epoch in saved),
        *(f"critic_{epoch:03d}.h5" for epoch in saved),
    }
    assert sorted(path.name for path in (run_dir / "pictures").iterdir()) == [
        f"epoch_{epoch:03d}.png" for epoch in range(1, n_epochs + 1)
    ]
    options = json.loads((run_dir / "options.json").read_text())
    assert options["options"]["batch_size"] == 2 and options["versions"]["keras"] == keras.__version__
    assert options["training_pairs"] == 8 and options["validation_images"] == ["008", "009"]


def test_learning_rate_halves_towards_the_end(run_dir):
    rates = [float(row["learning_rate"]) for row in log_of(run_dir)]
    half = len(rates) // 2
    assert rates[:half] == [1e-4] * half
    assert rates[half:] == pytest.approx([1e-4 * (1 - i / half) for i in range(half)])


def test_saved_networks_are_those_that_were_logged(run_dir, images):
    """The best file, used as a user uses it, gives the PSNR that made it the best."""
    scores = [float(row["val_psnr"]) for row in log_of(run_dir)]
    generator = load_generator(run_dir / "generator_best.h5")
    errors = []
    for name in ("008.png", "009.png"):
        blurred, sharp = (np.asarray(Image.open(images / "val" / letter / name)) for letter in "AB")
        errors.append(np.mean((deblur(generator, blurred) - sharp.astype(float)) ** 2))
    assert np.mean(10 * np.log10(255**2 / np.array(errors))) == pytest.approx(max(scores), abs=1e-6)
    training = describe(run_dir / "generator_best.h5")["training"]
    assert training["epoch"] == 1 + int(np.argmax(scores)) and training["options"]["pixel_weight"] == 10
    assert not any(str(images) in str(value) for value in training["options"].values())
    assert load_critic(run_dir / "critic_002.h5").count_params() > 0


def test_tensorboard_gets_the_numbers_of_the_log(run_dir):
    first, *events = events_of(run_dir)
    assert first.file_version == "brain.Event:2"
    assert [event.step for event in events] == list(range(1, len(log_of(run_dir)) + 1))
    for event, row in zip(events, log_of(run_dir), strict=True):
        *scalars, picture = event.summary.value
        assert {value.tag: value.simple_value for value in scalars} == {
            value.tag: pytest.approx(float(row[value.tag]), rel=1e-6) for value in scalars
        }
        assert {"critic_loss", "generator_loss", "val_psnr", "learning_rate"} <= {value.tag for value in scalars}
        stored = run_dir / "pictures" / f"epoch_{event.step:03d}.png"
        assert picture.image.encoded_image_string == stored.read_bytes()


def test_killed_and_resumed_equals_uninterrupted(runs):
    """Every byte that counts is the same."""
    run_dir, resumed = runs
    with np.load(resumed / "state.npz") as found, np.load(run_dir / "state.npz") as expected:
        assert set(found.files) == set(expected.files)
        for name in set(found.files) - {"progress"}:
            assert found[name].tobytes() == expected[name].tobytes(), name
    without_time = [{**row, "seconds": None} for row in log_of(run_dir)]
    assert [{**row, "seconds": None} for row in log_of(resumed)] == without_time
    assert [event.summary for event in events_of(resumed)] == [event.summary for event in events_of(run_dir)]
    assert {path.relative_to(resumed) for path in resumed.rglob("*")} == {
        path.relative_to(run_dir) for path in run_dir.rglob("*")
    }
    for path in resumed.glob("generator_*.h5"):
        for a, b in zip(
            load_generator(path).get_weights(), load_generator(run_dir / path.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)
