"""`state.npz`: all that a run needs to go on as if it had not been interrupted."""

import contextlib
import dataclasses
import json
import math
import os
import zipfile
from dataclasses import dataclass

import numpy as np

from deblur_gan.files import whole_file


class BadRun(ValueError):
    """A run that cannot begin or go on as asked; the message is one line."""


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: int, epochs done.
        step: int, batches done of the next epoch.
        seconds: float, time spent on those batches.
        best_psnr: float, of `generator_best.h5`; None where there is none.
        lengths: dict, bytes of every file that grows line by line, to be cut back to.

    Raises:
        ValueError: if a value is not of that kind. An infinite `best_psnr` becomes None.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_psnr: float | None = None
    lengths: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        counts = [self.epoch, self.step, *self.lengths.values()]
        if any(type(count) is not int or count < 0 for count in counts) or not 0 <= self.seconds < math.inf:
            raise ValueError("its progress is not counted in whole epochs, steps and bytes")
        if self.best_psnr is not None and not math.isfinite(self.best_psnr):
            self.best_psnr = None

    def __str__(self):
        return f"epoch {self.epoch}, step {self.step}"


def variables_of(gan):
    """All that changes while a `DeblurGAN` is trained: dict of variables by the names they have in `state.npz`."""
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
    """Writes a state, whole and through to the disk, or not at all.

    Args:
        path: Path that ends in .npz.
        gan: compiled `DeblurGAN`.
        progress: `Progress`.

    Raises:
        OSError: if it cannot be written; what stood at `path` is still there.
    """
    values = {name: np.asarray(variable) for name, variable in variables_of(gan).items()}
    with whole_file(path) as temporary:
        np.savez(temporary, progress=json.dumps(dataclasses.asdict(progress)), **values)
        _to_disk(temporary)
    _to_disk(path.parent)


def read_progress(path):
    """The `Progress` of a state; that of the beginning where there is no file.

    Raises:
        BadRun: if the file is damaged.
    """
    if not path.exists():
        return Progress()
    with _archive(path) as archive:
        return Progress(**json.loads(str(_array(archive, "progress"))))


def load_state(path, gan, reading=contextlib.nullcontext):
    """Puts a state into all variables of a `DeblurGAN`.

    Args:
        path: Path of the state.
        gan: compiled `DeblurGAN`.
        reading: function that gives a context manager, in which all is read before anything is assigned.

    Raises:
        BadRun: if the file is damaged or was written by other networks; nothing has been assigned then.
    """
    variables = variables_of(gan)
    with reading(), _archive(path) as archive:
        if {name.removesuffix(".npy") for name in archive.namelist()} != {"progress", *variables}:
            raise BadRun(f"{path}: was not written by the networks that options.json describes")
        values = {name: _array(archive, name, np.asarray(variable)) for name, variable in variables.items()}
    for name, variable in variables.items():
        variable.assign(values[name])


@contextlib.contextmanager
def _archive(path):
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except BadRun:
        raise
    # What zipfile, NumPy's reader of headers and json raise on damaged files is written down nowhere.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadRun(f"{path}: damaged ({reason})") from None


def _array(archive, name, like=None):
    """An array of a state, or, without `like`, its text. Nothing is read before its size is known to be right."""
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
        raise BadRun(f"{archive.filename}: was not written by the networks that options.json describes ({name})")
    with archive.open(entry) as file:
        value = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # which also makes zipfile compare its checksum
            raise ValueError(f"{name} is longer than it says")
    if like is not None and not np.isfinite(value).all():
        raise ValueError(f"{name} is not finite")
    return value


def _to_disk(path):
    """Returns when what was written to a file, or the names in a folder, outlast a loss of power."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
