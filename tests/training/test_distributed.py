"""Two processes on one machine train as one does, stop together and are resumed; each is the real entry point."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import QUICK_TO_COMPILE, ROOT, child_environment, free_port, write_pairs

from deblur_gan.training import distributed
from deblur_gan.training.callback import RunCallback, Stopped
from deblur_gan.training.checkpoint import BadRun, Progress
from deblur_gan.training.distributed import ADDRESSES, COUNT, NUMBER
from deblur_gan.training.options import Options
from deblur_gan.weights import load_critic, load_generator

# Far more than it takes; whatever goes wrong, nothing waits for ever.
SECONDS = 400

STEPS = 12

FLAGS = f"""
    --scale 1 --crop_size 16 --ngf 2 --n_blocks 1 --ndf 2 --batch_size 4
    --critic_updates 1 --perceptual_weight 0 --pixel_weight 10 --learning_rate 1e-5
    --n_epochs 2 --steps_per_epoch {STEPS} --checkpoint_minutes 0
"""


@contextlib.contextmanager
def started(folder, count, *arguments):
    """Starts `train.py` in one process, or in several that meet; none is left behind."""
    hidden = folder.parent / "hidden"
    hidden.mkdir(exist_ok=True)
    # Keras imports TensorFlow on every backend when it saves a model: a fifth of the time of such a process.
    (hidden / "tensorflow.py").write_text("raise ImportError('hidden')")
    environment = child_environment(
        KERAS_BACKEND="jax",
        JAX_PLATFORMS="cpu",
        XLA_FLAGS=QUICK_TO_COMPILE,
        PYTHONPATH=f"{ROOT}{os.pathsep}{hidden}",
    )
    if count > 1:
        environment |= {ADDRESSES: f"127.0.0.1:{free_port()}", COUNT: str(count)}
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, arguments)]
    team = []
    try:
        for number in range(count):
            own = {**environment, NUMBER: str(number)} if count > 1 else environment
            with open(folder / f"{number}.txt", "w") as output:
                team.append(subprocess.Popen(command, env=own, stdout=output, stderr=subprocess.STDOUT))
        yield team
    finally:
        for process in team:
            process.kill()
            process.wait()


def ended(folder, team):
    """The exit codes of all, and what each printed."""
    deadline = time.monotonic() + SECONDS
    codes = [process.wait(max(0.1, deadline - time.monotonic())) for process in team]
    return codes, [(folder / f"{number}.txt").read_text() for number in range(len(team))]


def state_of(log_dir):
    (path,) = log_dir.glob("*/state.npz")
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def steps_done(log_dir):
    """Returns the steps before the last checkpoint; 0 before the first."""
    if not list(log_dir.glob("*/state.npz")):
        return 0
    progress = json.loads(str(state_of(log_dir)["progress"]))
    return STEPS * progress["epoch"] + progress["step"]


# A bias in front of a normalization changes nothing: its gradient is rounding, which Adam makes steps of.
WITHOUT_NORMALIZATION = ("head_conv", "patch1_conv", "score")


def compare(alone, shared):
    """The weights are the same up to the order of sums, and all random numbers have been drawn alike, dropout's too."""
    for kind, load in (("generator", load_generator), ("critic", load_critic)):
        expected, found = (load(next(folder.glob(f"*/{kind}_002*.h5"))).weights for folder in (alone, shared))
        for here, there in zip(expected, found, strict=True):
            if not here.path.endswith("/bias") or here.path.startswith(WITHOUT_NORMALIZATION):
                np.testing.assert_allclose(np.array(there), np.array(here), atol=1e-5, rtol=0, err_msg=here.path)
    expected, found = state_of(alone), state_of(shared)
    assert expected.keys() == found.keys()
    drawn = [name for name in expected if name.startswith("random_state/")]
    assert drawn
    for name in drawn:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
def test_two_processes_stop_together_and_end_with_the_weights_of_one(tmp_path):
    write_pairs(tmp_path / "images" / "train", range(8), kinds="AB")
    write_pairs(tmp_path / "images" / "val", ["8", "9"], kinds="AB", first=8)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    alone.mkdir()
    shared.mkdir()
    flags = ["--data_dir", tmp_path / "images" / "train", *FLAGS.split()]

    with started(alone, 1, *flags, "--log_dir", alone) as one:
        with started(shared, 2, *flags, "--log_dir", shared) as two:
            deadline = time.monotonic() + SECONDS
            while steps_done(shared) < 3 and time.monotonic() < deadline and two[0].poll() is None:
                time.sleep(0.01)
            two[1].send_signal(signal.SIGTERM)  # to the one that does not write
            codes, texts = ended(shared, two)
        assert codes == [143, 143], texts
        assert "interrupted; --resume " in texts[0] and "process 0 prints how to resume" in texts[1]
        assert 3 <= steps_done(shared) < 2 * STEPS

        with started(shared, 2, "--resume", "--log_dir", shared) as two:
            codes, texts = ended(shared, two)
        assert codes == [0, 0], texts
        assert "epoch 2/2: " in texts[0] and "Done: " in texts[0]
        assert "epoch" not in texts[1] and "Done" not in texts[1]
        codes, texts = ended(alone, one)
        assert codes == [0], texts

    compare(alone, shared)


@pytest.mark.parametrize(
    ("given", "backend", "says"),
    [
        ({COUNT: "2"}, "jax", "KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_PROCESS_ID must be set"),
        ({ADDRESSES: "a:1", COUNT: "2", NUMBER: "2"}, "jax", "the rank of this one, counted from 0"),
        ({ADDRESSES: "a:1", COUNT: "two", NUMBER: "0"}, "jax", "must be a number of processes"),
        ({ADDRESSES: "a", COUNT: "2", NUMBER: "0"}, "jax", "must be host:port"),
        ({ADDRESSES: "a:1", COUNT: "2", NUMBER: "0"}, "tensorflow", "need KERAS_BACKEND=jax, not tensorflow"),
    ],
)
def test_variables_that_do_not_say_where_the_others_are_are_refused(given, backend, says, monkeypatch):
    monkeypatch.setattr(distributed, "BACKEND", backend)
    for name in (ADDRESSES, COUNT, NUMBER):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadRun, match=says) as refused:
        distributed.initialize.__wrapped__()
    assert "\n" not in str(refused.value) and next(iter(given)) in str(refused.value)


def test_one_process_agrees_with_itself():
    assert distributed.is_main() and distributed.all_gather([3, 4]).tolist() == [[3, 4]]
    assert distributed.broadcast("weights/é\udcff") == "weights/é\udcff"
    distributed.require_equal("anything")
    with pytest.raises(KeyError, match="raised as it is"), distributed.all_or_none():
        raise KeyError("raised as it is")


@pytest.fixture
def other_rank(monkeypatch):
    """Makes this process the first of two; the other returns the given values."""

    def returns(values):
        monkeypatch.setattr(distributed, "size", lambda: 2)
        monkeypatch.setattr(distributed, "all_gather", lambda own: np.array([own, values]))

    return returns


def test_a_failure_on_one_rank_stops_all(other_rank):
    other_rank([0])
    with distributed.all_or_none():
        pass
    with pytest.raises(BadRun, match="options or the images of the processes differ"):
        distributed.require_equal("a plan")
    other_rank([1])
    with pytest.raises(BadRun, match="process 1 of 2 cannot start"), distributed.all_or_none():
        pass
    with pytest.raises(OSError, match="of this one"), distributed.all_or_none():
        raise OSError("of this one")


def callback(signal_number=None):
    return RunCallback(None, Progress(), Options(), 100, SimpleNamespace(signal_number=signal_number))


def test_a_signal_or_a_failure_of_another_rank_is_found_by_a_check(other_rank):
    other_rank([0, 0, 1])
    watching = callback(signal.SIGINT)
    watching.check()
    assert watching.signal_number == signal.SIGINT
    other_rank([signal.SIGTERM, 0, 1])
    watching = callback()
    watching.check()
    assert watching.signal_number == signal.SIGTERM
    other_rank([0, 1, 1])
    with pytest.raises(Stopped, match="process 1 of 2 had to stop"):
        callback().check()
    watching = callback()
    watching.failure = "a.png: truncated"
    with pytest.raises(Stopped, match=r"^a\.png: truncated$"):
        watching.check()


def test_several_ranks_compare_every_ten_seconds_and_one_before_every_step(monkeypatch, other_rank):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def checked(n_steps, seconds_per_step):
        watching, batches = callback(), []
        watching.set_model(SimpleNamespace(metrics_variables=[]))
        check = watching.check
        watching.check = lambda batch=0: batches.append(batch) or check(batch)
        watching.on_epoch_begin(0)
        for batch in range(n_steps):
            watching.on_train_batch_begin(batch)
            now[0] += seconds_per_step
        return batches

    assert checked(5, 1.0) == [0, 1, 2, 3, 4]
    other_rank([0, 0, 1])
    assert checked(30, 1.0) == [0, 1, 11, 21]
    assert checked(5, 60.0) == [0, 1, 2, 3, 4]  # slow steps: before each
    other_rank([0, 0, 7])  # its own pace does not count
    assert checked(30, 1.0) == [0, 1, 11, 21]
