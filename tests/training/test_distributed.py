"""Two processes on one machine train as one does, stop together and go on; each of them is the real entry point."""

import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import QUICK_TO_COMPILE, ROOT, child_environment, write_pairs

from deblur_gan.training import distributed
from deblur_gan.training.checkpoint import BadRun
from deblur_gan.training.distributed import ADDRESSES, COUNT, NUMBER, Team
from deblur_gan.weights import load_critic, load_generator

# Far more than it takes; whatever goes wrong, nothing waits for ever.
SECONDS = 400

FLAGS = """
    --scale 1 --crop_size 16 --ngf 2 --n_blocks 1 --ndf 2 --batch_size 4
    --critic_updates 1 --perceptual_weight 0 --pixel_weight 10 --learning_rate 1e-5
    --n_epochs 2 --steps_per_epoch 12 --checkpoint_minutes 0
"""


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextlib.contextmanager
def started(folder, count, *arguments):
    """Starts `train.py` in one process, or in several that meet; none is left behind."""
    environment = child_environment(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", XLA_FLAGS=QUICK_TO_COMPILE)
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
    """How far into an epoch the last checkpoint is; 0 before the first."""
    return json.loads(str(state_of(log_dir)["progress"]))["step"] if list(log_dir.glob("*/state.npz")) else 0


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
        assert "goes on from there" in texts[0] and "the first process says how to go on" in texts[1]
        assert steps_done(shared) >= 3

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
        ({COUNT: "2"}, "jax", "KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_PROCESS_ID must be given"),
        ({ADDRESSES: "a:1", COUNT: "2", NUMBER: "2"}, "jax", "the number of this one, from 0 on"),
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
        distributed.join.__wrapped__()
    assert "\n" not in str(refused.value) and next(iter(given)) in str(refused.value)


def test_one_process_is_its_own_team():
    team = Team()
    assert team.first and team.gather([3, 4]).tolist() == [[3, 4]]
    assert team.text_of_first("weights/é\udcff") == "weights/é\udcff"
    team.require_same("anything")
    with pytest.raises(KeyError, match="raised as it is"), team.together():
        raise KeyError("raised as it is")


class Two(Team):
    """The first of two processes of which the other says what it is told to."""

    def __init__(self, other):
        super().__init__(0, 2)
        self.other = other

    def gather(self, values):
        return np.array([values, self.other])


def test_where_one_fails_none_goes_on():
    with Two([0]).together():
        pass
    with pytest.raises(BadRun, match="process 1 of 2 cannot begin"), Two([1]).together():
        pass
    with pytest.raises(OSError, match="of this one"), Two([1]).together():
        raise OSError("of this one")
    with pytest.raises(BadRun, match="other options or see other pictures"):
        Two([0]).require_same("a plan")
