"""The folder of a training run: everything that it leaves behind, and what it needs to go on."""

import contextlib
import csv
import errno
import io
import itertools
import json
import math
import os
import platform
import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from deblur_gan.backend import keras, versions
from deblur_gan.files import UNFINISHED, write_bytes
from deblur_gan.training import checkpoint
from deblur_gan.training.checkpoint import BadRun
from deblur_gan.weights import save_critic, save_generator

# What every epoch is judged by, in the order of log.csv and of the curves.
LOSSES = ("critic_loss", "gradient_penalty", "generator_loss", "adversarial_loss", "perceptual_loss", "pixel_loss")
SCORES = ("val_psnr", "val_ssim")
OF_BLURRED = {"val_psnr": "blurred_psnr", "val_ssim": "blurred_ssim"}  # the same of the untouched blurred images
COLUMNS = ("epoch", *LOSSES, *SCORES, *OF_BLURRED.values(), "learning_rate", "seconds")

# No options.json of a run comes near this.
_LARGEST_OPTIONS = 2**20


class RunFolder:
    """The files of one run.

    `options.json`, `log.csv`, `curves.png`, `pictures/`, `tensorboard/`, `generator_best.h5`,
    `generator_{epoch}_{loss}.h5`, `critic_{epoch}.h5`, and `state.npz` to go on from. Each is replaced whole, or grows
    by whole lines that are cut back to the last checkpoint when the run goes on.

    Attributes:
        path: Path of the folder.
        options: dict, the options of the run.
        data: dict, what is to be remembered of its data.
        state: Path of its `state.npz`, which `checkpoint` reads and writes.
    """

    def __init__(self, path, options, data):
        self.path = path
        self.options = options
        self.data = data
        self._log = path / "log.csv"
        self._events = path / "tensorboard" / "events.out.tfevents.0.deblur_gan"
        self.state = path / "state.npz"

    @classmethod
    def create(cls, log_dir, options, data):
        """Makes a folder below `log_dir`, named by date and time, with `options.json` in it.

        Args:
            log_dir: str or Path; made where it is missing.
            options: dict, the options of the run, which JSON can hold.
            data: dict, what is to be remembered of its data; the same.
        """
        log_dir = Path(log_dir)
        log_dir.mkdir(parents=True, exist_ok=True)
        name = time.strftime("%Y-%m-%d_%H-%M-%S")
        for number in itertools.count(1):
            path = log_dir / (name if number == 1 else f"{name}_{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                break
        folder = cls(path, options, data)
        folder.write_options()
        return folder

    @classmethod
    def open(cls, path):
        """The folder of a run that was begun.

        Raises:
            BadRun: if `path` holds no `options.json`, or one that cannot be read.
        """
        path = Path(path)
        try:
            with open(path / "options.json", "rb") as file:
                content = json.loads(file.read(_LARGEST_OPTIONS))
            options, data = content.pop("options"), content
        except (FileNotFoundError, NotADirectoryError):
            raise BadRun(f"{path}: not the folder of a run; it holds no options.json") from None
        # A text that is no JSON, JSON that is no object, one nested too deeply.
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadRun(
                f"{path / 'options.json'}: not the options of a run ({' '.join(str(error).split())})"
            ) from None
        if not isinstance(options, dict):
            raise BadRun(f"{path / 'options.json'}: not the options of a run (no list of them by name)")
        return cls(path, options, data)

    @classmethod
    def last(cls, log_dir):
        """The folder below `log_dir` of the run that was begun, or gone on with, last.

        Raises:
            BadRun: if there is none.
        """
        options_files = list(Path(log_dir).glob("*/options.json"))
        if not options_files:
            raise BadRun(f"{log_dir}: holds no run to go on with")
        return cls.open(max(options_files, key=lambda path: path.stat().st_mtime).parent)

    def write_options(self):
        """Writes `options.json`: the options, what is remembered of the data, the command line, versions, devices."""
        content = {
            "options": self.options,
            **self.data,
            "command": shlex.join(sys.argv),
            "versions": {"python": platform.python_version(), **versions()},
        }
        if keras.backend.backend() != "torch":
            content["devices"] = keras.distribution.list_devices()
        write_bytes(self.path / "options.json", json.dumps(content, indent=2).encode())

    def prepare(self, progress):
        """Puts the folder into the state of a checkpoint: removes what a kill left, cuts off what came after it."""
        (self.path / "pictures").mkdir(exist_ok=True)
        self._events.parent.mkdir(exist_ok=True)
        for path in (*self.path.iterdir(), *(self.path / "pictures").iterdir()):
            if path.name.startswith(UNFINISHED):
                path.unlink()
        for path in (self._log, self._events):
            _cut_back(path, progress.lengths.get(path.name, 0))
        if not self._log.exists():
            _append(self._log, _csv_line(COLUMNS))
        if not self._events.exists():
            _append(self._events, _tf_record(Event(wall_time=time.time(), file_version="brain.Event:2")))

    def n_logged(self):
        """int, epochs in `log.csv`."""
        return max(0, self._log.read_bytes().count(b"\n") - 1) if self._log.exists() else 0

    def append(self, row, picture):
        """Adds an epoch to `log.csv`, `tensorboard/`, `pictures/` and `curves.png`.

        Args:
            row: dict with a value for each of `COLUMNS`; None for a score that no image has.
            picture: uint8 `(H, W, 3)`.
        """
        png = _png(picture)
        _append(self._log, _csv_line(row[name] for name in COLUMNS))
        _append(self._events, _tf_record(_event(row, png, picture.shape)))
        write_bytes(self.path / "pictures" / f"epoch_{row['epoch']:03d}.png", png)
        write_bytes(self.path / "curves.png", _curves(self._log))

    def save_networks(self, generator, critic, row, training, kept, best):
        """Writes the product.

        Args:
            generator: `keras.Model`.
            critic: `keras.Model`, or None where none is trained.
            row: dict, as of `append`.
            training: dict for the files' metadata, how they were trained.
            kept: bool, whether this epoch's networks get files of their own.
            best: bool, whether this generator is the best so far.
        """
        if kept:
            # Repeated after an interruption, an epoch may end with a slightly other loss on a GPU.
            for stale in self.path.glob(f"generator_{row['epoch']:03d}_*.h5"):
                stale.unlink()
            path = self.path / f"generator_{row['epoch']:03d}_{row['generator_loss']:.4f}.h5"
            save_generator(generator, path, training)
            if critic:
                save_critic(critic, self.path / f"critic_{row['epoch']:03d}.h5", training)
        if best:
            save_generator(generator, self.path / "generator_best.h5", training)

    def require_fit(self, gan):
        """Makes sure, before anything is written, that all of it can be, and that it is worth it.

        Raises:
            FloatingPointError: if a variable of `gan` is not finite.
            OSError: if the disk would be full afterwards.
        """
        variables = checkpoint.variables_of(gan).values()
        if not all(np.isfinite(np.asarray(variable)).all() for variable in variables):
            raise FloatingPointError("the weights are no longer finite")
        numbers = sum(math.prod(variable.shape) for variable in variables)
        needed = 8 * numbers + 4 * 2**20  # the state and its predecessor, or the networks, in float32; pictures
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"no space left: {free >> 20} MiB free, {-(-needed >> 20)} MiB needed")

    def save_state(self, gan, progress):
        """Writes `state.npz`; see `checkpoint.save_state`.

        Args:
            gan: compiled `DeblurGAN`.
            progress: `Progress`; its `lengths` become those of the files now.

        Raises:
            FloatingPointError: if a variable is not finite; the state before is still there.
            OSError: if the disk is full; the same.
        """
        self.require_fit(gan)
        progress.lengths = {path.name: path.stat().st_size for path in (self._log, self._events)}
        checkpoint.save_state(self.state, gan, progress)


def _append(path, content):
    """Adds to the end of a file, all of it or nothing."""
    with open(path, "ab", buffering=0) as file:
        length = file.tell()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(length)
            raise


def _cut_back(path, length):
    """Takes from the end of a file what was added after it had `length` bytes."""
    if length and path.exists() and path.stat().st_size > length:
        os.truncate(path, length)
    elif not length:
        path.unlink(missing_ok=True)


def _csv_line(values):
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode()


def _tf_record(event):
    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()


def _event(row, png, shape):
    """An epoch for TensorBoard: the numbers of its line in `log.csv`, and its picture."""
    values = [
        Summary.Value(tag=name, simple_value=row[name])
        for name in (*LOSSES, *SCORES, "learning_rate")
        if row[name] is not None
    ]
    image = Summary.Image(height=shape[0], width=shape[1], colorspace=3, encoded_image_string=png)
    values.append(Summary.Value(tag="blurred, restored, sharp", image=image))
    return Event(wall_time=time.time(), step=row["epoch"], summary=Summary(value=values))


def _png(pixels):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def _curves(log):
    """PNG bytes: a curve over the epochs for every loss and score in `log.csv`."""
    with open(log, newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(16, 7), layout="constrained")
    for axes, name in zip(figure.subplots(2, 4).flat, (*LOSSES, *SCORES), strict=True):
        points = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
        if points:
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None)
        blurred = [float(row[OF_BLURRED[name]]) for row in rows if name in OF_BLURRED and row[OF_BLURRED[name]]]
        if blurred:
            axes.axhline(blurred[-1], linestyle="--", color="grey", label="blurred")
            axes.legend()
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=80)
    return encoded.getvalue()
