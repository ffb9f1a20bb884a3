"""`state.npz`: the state of a run, with which it is resumed as if it had not been interrupted."""

import contextlib
import dataclasses
import json
import math
import os
import sys
import zipfile
from dataclasses import dataclass

import numpy as np

from deblur_gan.files import printable, reason, shortened, whole_file


class BadRun(ValueError):
    """A run that cannot start or be resumed; the message is one printable line."""

    def __init__(self, message):
        super().__init__(shortened(printable(message)))


@dataclass
class Progress:
    """The place in a run up to which it is done; raises `ValueError` for a value of another type or range."""

    epoch: int = 0  # epochs done
    step: int = 0  # batches done of the next epoch
    seconds: float = 0.0  # time spent on those batches
    best_psnr: float | None = None  # of `generator_best.h5`
    lengths: dict = dataclasses.field(default_factory=dict)  # bytes of the files that grow, to cut them back to

    def __post_init__(self):
        counts = [self.epoch, self.step, *self.lengths.values()]
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError("its progress is not counted in whole epochs, steps and bytes")
        self.seconds = float(self.seconds)
        if not 0 <= self.seconds < math.inf or not math.isfinite(self.best_psnr or 0):
            raise ValueError("its progress has a number out of range")

    def __str__(self):
        """Returns the place in the words of the progress bar, which counts epochs from 1."""
        if self.step:
            return f"epoch {self.epoch + 1}, step {self.step}"
        return f"the end of epoch {self.epoch}" if self.epoch else "the start"


def variables_of(gan):
    """Returns all variables that training a `DeblurGAN` changes: a dict by their names in `state.npz`."""
    groups = {
        "generator": gan.generator.weights,
        "moving_average": gan.moving_average.weights if gan.moving_average else [],
        "critic": gan.critic.weights,
        "optimizers": gan.optimizer.variables,
        "random_state": gan.random_state,
        "means": gan.metrics_variables,
    }
    return {f"{name}/{i}": variable for name, group in groups.items() for i, variable in enumerate(group)}


def save_state(path, gan, progress):
    """Writes a state, whole and synced to the disk; if it raises `OSError`, the former state is kept."""
    values = {name: np.asarray(variable) for name, variable in variables_of(gan).items()}
    with whole_file(path) as temporary:
        np.savez(temporary, progress=json.dumps(dataclasses.asdict(progress)), **values)
        _sync(temporary)
    # Some shared file systems refuse to sync a folder (EINVAL); the file itself is synced.
    with contextlib.suppress(OSError):
        _sync(path.parent)


def read_progress(path):
    """Reads the `Progress` of a state; without a file it is that of the start. Raises `BadRun` if it is damaged."""
    if not path.exists():
        return Progress()
    with _archive(path) as archive:
        return Progress(**json.loads(str(_array(archive, "progress"))))


def load_state(path, gan, reading=contextlib.nullcontext):
    """Assigns a state to all variables of a compiled `DeblurGAN`.

    `reading()` is a context manager for the reading, which ends before anything is assigned. Raises `BadRun` if the
    file is damaged or of other networks; nothing has been assigned then.
    """
    variables = variables_of(gan)
    with reading(), _archive(path) as archive:
        if {name.removesuffix(".npy") for name in archive.namelist()} != {"progress", *variables}:
            raise BadRun(f"{path}: not of the networks that options.json describes")
        values = {name: _array(archive, name, np.asarray(variable)) for name, variable in variables.items()}
    for name, variable in variables.items():
        variable.assign(values[name])


@contextlib.contextmanager
def _archive(path):
    try:
        if not path.is_file():  # opening a FIFO would wait for ever
            raise ValueError("not a file")
        with zipfile.ZipFile(path) as archive:
            yield archive
    except BadRun:
        raise
    # No document lists the errors of zipfile, NumPy's reader of headers and json on damaged files.
    except Exception as error:
        raise BadRun(f"{path}: damaged ({reason(error)})") from None


def _array(archive, name, like=None):
    """Reads an array of a state after checking its size: that of `like`, or, without it, a short text."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with archive.open(entry) as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if like is None:
        if shape != () or dtype.kind != "U" or dtype.itemsize > 2**20:
            raise ValueError(f"{name} is not a short text")
    elif (shape, dtype) != (like.shape, like.dtype):
        raise BadRun(f"{archive.filename}: not of the networks that options.json describes ({name})")
    with archive.open(entry) as file:
        value = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # at the end of the entry zipfile compares the checksum
            raise ValueError(f"{name} is longer than its header states")
    if like is None:
        # Python cannot even put a text with larger numbers into a message.
        codes = value.reshape(1).view(np.dtype("u4").newbyteorder(dtype.byteorder))
        if codes.max() > sys.maxunicode:
            raise ValueError(f"{name} is not text")
    elif not np.isfinite(value).all():
        raise ValueError(f"{name} is not finite")
    return value


def _sync(path):
    """Writes a file, or the names in a folder, through to the disk."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
