"""The folder of a training run: its results, and the state that resumes it."""

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
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from deblur_gan.backend import keras, versions
from deblur_gan.files import UNFINISHED, csv_bytes, reason, write_bytes
from deblur_gan.training import checkpoint
from deblur_gan.training.checkpoint import BadRun
from deblur_gan.training.gan import LOSSES
from deblur_gan.weights import save_critic, save_generator

OF_BLURRED = {"val_psnr": "blurred_psnr", "val_ssim": "blurred_ssim"}  # the same of the untouched blurred images
SCORES = tuple(OF_BLURRED)
COLUMNS = ("epoch", *LOSSES, *SCORES, *OF_BLURRED.values(), "learning_rate", "seconds")

# The options.json of a run is far smaller.
_LARGEST_OPTIONS = 2**20


class RunFolder:
    """Reads and writes the files of one run.

    `options.json`, `log.csv`, `curves.png`, `pictures/`, `tensorboard/`, `generator_best.h5`,
    `generator_{epoch}_{loss}.h5`, `critic_{epoch}.h5`, and `state.npz` to resume from. Each is replaced whole, or grows
    by whole lines, which are cut back to the last checkpoint when the run is resumed.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.state = self.path / "state.npz"
        self._options = self.path / "options.json"
        self._log = self.path / "log.csv"
        self._events = self.path / "tensorboard" / "events.out.tfevents.0.deblur_gan"

    @classmethod
    def create(cls, log_dir, content):
        """Makes a folder below `log_dir`, named by date and time, with `content` in its `options.json`."""
        log_dir = Path(log_dir)
        log_dir.mkdir(parents=True, exist_ok=True)
        name = time.strftime("%Y-%m-%d_%H-%M-%S")
        for number in itertools.count(1):
            folder = cls(log_dir / (name if number == 1 else f"{name}_{number}"))
            with contextlib.suppress(FileExistsError):
                folder.path.mkdir()
                break
        folder.write_options(content)
        return folder

    @classmethod
    def last(cls, log_dir):
        """Returns the folder below `log_dir` of the run that was started or resumed last, or raises `BadRun`."""
        options_files = list(Path(log_dir).glob("*/options.json"))
        if not options_files:
            raise BadRun(f"{log_dir}: holds no run that can be resumed")
        return cls(max(options_files, key=lambda path: path.stat().st_mtime).parent)

    def write_options(self, content):
        """Writes `options.json`: the dict `content`, the command line, versions, devices."""
        content = {
            **content,
            "command": shlex.join(sys.argv),
            "versions": {"python": platform.python_version(), **versions()},
        }
        if keras.backend.backend() != "torch":
            content["devices"] = keras.distribution.list_devices()
        write_bytes(self._options, json.dumps(content, indent=2).encode())

    def read_options(self):
        """Reads `options.json`, a dict with the dict "options"; raises `BadRun` if it is missing or damaged."""
        if not self._options.is_file():  # opening a FIFO would wait for ever
            raise BadRun(f"{self.path}: not the folder of a run; it holds no options.json")
        try:
            with open(self._options, "rb") as file:
                content = json.loads(file.read(_LARGEST_OPTIONS))
            if not isinstance(content["options"], dict):
                raise ValueError("not an object")
        # Not JSON, JSON that is not an object, or nested too deeply.
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadRun(f"{self._options}: not the options of a run ({reason(error)})") from None
        return content

    def prepare(self, progress):
        """Puts the folder into the state of a checkpoint: removes unfinished files, cuts off later lines."""
        (self.path / "pictures").mkdir(exist_ok=True)
        self._events.parent.mkdir(exist_ok=True)
        for path in (*self.path.iterdir(), *(self.path / "pictures").iterdir()):
            if path.name.startswith(UNFINISHED):
                path.unlink()
        first_lines = {
            self._log: csv_bytes([COLUMNS]),
            self._events: _tf_record(Event(wall_time=time.time(), file_version="brain.Event:2")),
        }
        for path, first_line in first_lines.items():
            length = progress.lengths.get(path.name, 0)
            if not length or not path.exists():
                path.write_bytes(first_line)
            elif path.stat().st_size > length:
                os.truncate(path, length)

    def read_log(self):
        """Reads `log.csv`: a dict for each epoch, with a float, or None, for each of `COLUMNS`.

        Raises `BadRun` if it has other columns, or is damaged.
        """
        if not self._log.is_file():
            return []
        content = self._log.read_bytes()
        content = content[: content.rfind(b"\n") + 1]  # a killed process may leave half a line
        lines = list(csv.reader(content.decode(errors="replace").splitlines()))
        if lines and tuple(lines[0]) != COLUMNS:
            raise BadRun(f"{self._log}: other columns than those of this version; start a new run with --init_from")
        try:
            return [
                {name: float(text) if text else None for name, text in zip(COLUMNS, line, strict=True)}
                for line in lines[1:]
            ]
        except ValueError as error:
            raise BadRun(f"{self._log}: damaged ({reason(error)})") from None

    def append(self, row, picture):
        """Adds an epoch to `log.csv`, `tensorboard/`, `pictures/` and `curves.png`.

        `row` has a value for each of `COLUMNS`, None for a score without images; `picture` is a PIL image.
        """
        encoded = io.BytesIO()
        picture.save(encoded, "PNG")
        lines = {
            self._log: csv_bytes([[row[name] for name in COLUMNS]]),
            self._events: _tf_record(_event(row, encoded.getvalue(), picture.size)),
        }
        for path, line in lines.items():
            with open(path, "ab") as file:
                file.write(line)
        write_bytes(self.path / "pictures" / f"epoch_{row['epoch']:03d}.png", encoded.getvalue())
        write_bytes(self.path / "curves.png", _curves(self.read_log()))

    def save_networks(self, generator, critic, row, options, kept, best):
        """Writes the networks of an epoch, and its `row` of the log and the options into their metadata.

        With `kept` they get files of their own; there is no `critic` if it was not trained. With `best` the generator
        is the best so far.
        """
        training = {name: row[name] for name in ("epoch", *LOSSES, *SCORES)} | {"options": options}
        if kept:
            # An epoch repeated after an interruption may end with a slightly different loss on a GPU.
            for stale in self.path.glob(f"generator_{row['epoch']:03d}_*.h5"):
                stale.unlink()
            path = self.path / f"generator_{row['epoch']:03d}_{row['generator_loss']:.4f}.h5"
            save_generator(generator, path, training)
            if critic:
                save_critic(critic, self.path / f"critic_{row['epoch']:03d}.h5", training)
        if best:
            save_generator(generator, self.path / "generator_best.h5", training)

    def require_fit(self, gan):
        """Checks before anything is written that the weights are finite and the disk has space.

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
        """Writes `state.npz` and updates `progress.lengths`; if it raises, as `require_fit`, the former one is kept."""
        self.require_fit(gan)
        progress.lengths = {path.name: path.stat().st_size for path in (self._log, self._events)}
        checkpoint.save_state(self.state, gan, progress)


def _tf_record(event):
    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()


def _event(row, png, size):
    """Builds the event of an epoch for TensorBoard: the numbers of its line in `log.csv`, and its picture."""
    names = [name for name in (*LOSSES, *SCORES, "learning_rate") if row[name] is not None]
    values = [Summary.Value(tag=name, simple_value=row[name]) for name in names]
    image = Summary.Image(width=size[0], height=size[1], colorspace=3, encoded_image_string=png)
    values.append(Summary.Value(tag="blurred, restored, sharp", image=image))
    return Event(wall_time=time.time(), step=row["epoch"], summary=Summary(value=values))


def _curves(rows):
    """Draws a curve over the epochs for every loss and score; returns the bytes of a PNG."""
    names = (*LOSSES, *SCORES)
    n_columns = 3
    n_rows = -(-len(names) // n_columns)
    figure = Figure(figsize=(4 * n_columns, 3.5 * n_rows), layout="constrained")
    for axes, name in zip(figure.subplots(n_rows, n_columns).flat, names, strict=False):
        points = [(int(row["epoch"]), row[name]) for row in rows if row[name] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None)
        blurred = [row[OF_BLURRED[name]] for row in rows if name in OF_BLURRED and row[OF_BLURRED[name]] is not None]
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
