"""The state to go on from: what comes out is what went in, and no damage goes unnoticed or costs more than a line.

`DAMAGES=2000 pytest tests/test_checkpoint.py` damages more.
"""

import errno
import io
import json
import os
import resource
import stat
import struct
import tracemalloc
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from deblur_gan.training.checkpoint import BadRun, Progress, load_state, read_progress, save_state, variables_of

PROGRESS = Progress(epoch=3, step=2, seconds=1.5, best_psnr=27.5, lengths={"log.csv": 120})


def gan(seed=0, channels=4):
    """What a state is taken from: all groups of variables, none of the networks around them."""
    rng = np.random.default_rng(seed)

    def variables(*shapes):
        return [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in shapes]

    return SimpleNamespace(
        generator=SimpleNamespace(weights=variables((3, 3, channels), (channels,))),
        moving_average=SimpleNamespace(weights=variables((3, 3, channels))),
        critic=SimpleNamespace(weights=variables((64, 64))),
        optimizer=SimpleNamespace(
            variables=[keras.Variable(seed, dtype="int32", trainable=False), *variables((64, 64))]
        ),
        random_state=[keras.Variable([seed, 7], dtype="uint32", trainable=False)],
        metrics_variables=variables(()),
    )


def values_of(gan):
    return {name: np.array(variable) for name, variable in variables_of(gan).items()}


@pytest.fixture
def path(tmp_path):
    save_state(tmp_path / "state.npz", gan(), PROGRESS)
    return tmp_path / "state.npz"


def test_what_comes_out_went_in(path):
    other = gan(seed=1)
    load_state(path, other)
    expected = values_of(gan())
    for name, value in values_of(other).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert read_progress(path) == PROGRESS
    assert read_progress(path.with_name("none.npz")) == Progress()


def rewritten(path, compress=False, **changes):
    with np.load(path) as file:
        content = {**file, **changes}
    (np.savez_compressed if compress else np.savez)(path, **content)


def test_a_damaged_state_is_refused_in_one_line_and_nothing_is_assigned(path):
    """Bytes flipped, blocks overwritten, ends cut off, at random."""
    rng = np.random.default_rng(0)
    whole, network, expected = path.read_bytes(), gan(), values_of(gan())
    refused = 0
    n_damages = int(os.environ.get("DAMAGES", 300))
    for _ in range(n_damages):
        content = np.frombuffer(whole, np.uint8).copy()
        # Half of them in the directory at the end and the headers, where most of a zip's own rules are.
        start = int(rng.integers(len(content)) if rng.random() < 0.5 else len(content) - rng.integers(1, 1500))
        kind = rng.integers(3)
        if kind == 0:
            content[start] ^= 1 << rng.integers(8)
        elif kind == 1:
            content[start : start + rng.integers(1, 200)] = rng.integers(256)
        else:
            content = content[:start]
        path.write_bytes(content)
        try:
            progress = read_progress(path)
            load_state(path, network)
        except BadRun as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            # What zip does not need was hit, such as a date.
            assert progress == PROGRESS
        for name, value in values_of(network).items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert refused > n_damages / 3


def test_states_of_other_networks_and_edited_ones_are_refused(path):
    with pytest.raises(BadRun, match="not of the networks"):
        load_state(path, gan(channels=5))
    without = gan()
    without.moving_average = None
    with pytest.raises(BadRun, match="not of the networks"):
        load_state(path, without)
    for name, value, reason in (
        ("critic/0", np.zeros((64, 64), np.float64), "not of the networks"),
        ("critic/0", np.full((64, 64), np.nan, np.float32), "not finite"),
        ("optimizers/0", np.array(["x"]), "not of the networks"),
        ("optimizers/0", np.array({}, object), "not of the networks"),
    ):
        kept = path.read_bytes()
        rewritten(path, **{name: value})
        with pytest.raises(BadRun, match=reason):
            load_state(path, gan())
        path.write_bytes(kept)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": 1.5},
        {"epoch": True},
        {"epoch": "3"},
        {"step": None},
        {"seconds": "long"},
        {"seconds": float("nan")},
        {"seconds": 10**400},
        {"best_psnr": float("inf")},
        {"lengths": {"log.csv": -5}},
        {"lengths": [5]},
        {"best_psnr": "high"},
        {"other": 1},
    ],
    ids=str,
)
def test_progress_that_cannot_be_is_refused(path, change):
    progress = {"epoch": 3, "step": 2, "seconds": 1.5, "best_psnr": 27.5, "lengths": {}}
    rewritten(path, progress=json.dumps({**progress, **change}))
    with pytest.raises(BadRun, match=r"state\.npz: damaged"):
        read_progress(path)


def test_a_flipped_bit_in_any_array_is_noticed(path):
    """The last one of the array, which leaves as many and as finite numbers: only its checksum can tell."""
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        start = entry.header_offset + 30 + sum(struct.unpack_from("<HH", content, entry.header_offset + 26))
        damaged = bytearray(content)
        damaged[start + entry.compress_size - 1] ^= 1
        path.write_bytes(damaged)
        network = gan(seed=1)
        with pytest.raises(BadRun, match=r"state\.npz: damaged"):
            read_progress(path)
            load_state(path, network)
        for found, kept in zip(values_of(network).values(), values_of(gan(seed=1)).values(), strict=True):
            np.testing.assert_array_equal(found, kept)


def test_bytes_behind_an_array_are_refused(path):
    """The checksum of an entry is compared only if the entry is read to its end."""
    with zipfile.ZipFile(path) as before:
        content = {name: before.read(name) for name in before.namelist()}
    for name in content:
        with zipfile.ZipFile(path, "w") as archive:
            for entry, value in content.items():
                archive.writestr(entry, value + b"\0" * (entry == name))
        with pytest.raises(BadRun, match="longer than its header states"):
            read_progress(path)
            load_state(path, gan())


def test_a_file_system_that_cannot_sync_a_folder_keeps_states(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    save_state(tmp_path / "state.npz", gan(), PROGRESS)
    assert read_progress(tmp_path / "state.npz") == PROGRESS


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "state.npz")
    with pytest.raises(BadRun, match=r"state\.npz: damaged \(not a file\)"):
        read_progress(tmp_path / "state.npz")


def test_what_claims_more_than_the_networks_hold_costs_no_memory(path):
    kept = path.read_bytes()
    huge = np.zeros((2**12, 2**12), np.float32)  # 64 MiB
    rewritten(path, compress=True, **{"critic/0": huge})
    assert path.stat().st_size < 2**20
    bombs = [path.read_bytes()]
    path.write_bytes(kept)
    rewritten(path, compress=True, progress=" " * 2**24 + "{}")
    bombs.append(path.read_bytes())
    with zipfile.ZipFile(path, "w") as archive, np.load(io.BytesIO(kept)) as before:
        for name in before.files:
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
                )
    bombs.append(path.read_bytes())
    del huge
    network = gan()
    for bomb in bombs:
        path.write_bytes(bomb)
        tracemalloc.start()
        with pytest.raises(BadRun):
            read_progress(path)
            load_state(path, network)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**23


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_disk_that_fills_up_keeps_the_state_before(path, share):
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(before)), limits[1]))
    try:
        with pytest.raises(OSError):
            save_state(path, gan(seed=1), PROGRESS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_progress_that_is_not_text_is_damaged(tmp_path):
    content = io.BytesIO()
    np.lib.format.write_array(content, np.array('{"epoch": 1}'))
    content = bytearray(content.getvalue())
    content[-34] = 255  # the third byte of the p, which is no character then
    with zipfile.ZipFile(tmp_path / "state.npz", "w") as archive:
        archive.writestr("progress.npy", bytes(content))
    with pytest.raises(BadRun, match=r"state\.npz: damaged \(progress is not text\)$"):
        read_progress(tmp_path / "state.npz")
