"""One training run: data, networks, what is written on the way, and going on after an interruption."""

import contextlib
import csv
import dataclasses
import errno
import io
import itertools
import json
import math
import os
import platform
import random
import shlex
import shutil
import sys
import threading
import time
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from deblur_gan import __version__, gradients
from deblur_gan.blur import random_blur
from deblur_gan.files import whole_file, write_bytes
from deblur_gan.gan import DeblurGAN
from deblur_gan.losses import PerceptualLoss
from deblur_gan.metrics import psnr, ssim
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.pairs import check_pairs, find_pairs, set_aside
from deblur_gan.photographs import BadImage, find_images
from deblur_gan.restoration import deblur
from deblur_gan.training_set import TrainingSet
from deblur_gan.weights import BadWeights, describe, load_generator, save_critic, save_generator

try:
    import fcntl
except ImportError:  # Windows: no lock on a run, and no folder that could be written through to the disk
    fcntl = None

# What every epoch is judged by, in the order of log.csv and of the curves.
LOSSES = ("critic_loss", "gradient_penalty", "generator_loss", "adversarial_loss", "perceptual_loss", "pixel_loss")
SCORES = ("val_psnr", "val_ssim")
OF_BLURRED = ("blurred_psnr", "blurred_ssim")

# Pixels each way of what a picture shows of an image.
PICTURE_SIZE = 256

# A run may go on with other values of these: they change how long or how fast it learns, or nothing that it learns.
MAY_CHANGE = (
    "n_epochs",
    "learning_rate",
    "schedule",
    "cache",
    "n_workers",
    "save_every",
    "checkpoint_minutes",
)


# What of the options describes a machine and not a run.
_PATHS = ("data_dir", "synthetic", "val_dir", "init_from", "vgg_weights", "log_dir", "cache")


class BadRun(ValueError):
    """A run that cannot begin or go on as asked; the message is one line."""


class Stopped(RuntimeError):
    """A run that ended before its last epoch; the message is one line that says why and how to go on."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What makes a run. The defaults are those of the flags of `scripts/train.py`, which explains each.

    Attributes:
        data_dir: tuple of folders with pairs, see `pairs.find_pairs`; may be empty if there are photographs.
        synthetic: tuple of folders with sharp photographs to blur on the fly.
        val_dir: tuple of folders with pairs to validate with. Where it is empty, the `val` beside each folder of
            `data_dir` that is called `train`; where there is none, some of the training data is set aside.
        blur: "blur" or "blur_gamma", which frames of a GoPro tree are the blurred ones.
        n_images: int, how many pairs (and how many photographs) to train on, drawn by seed; None for all.
        n_val_images: int, how many pairs to validate with, evenly spread; 0 for no validation.
        crop_size, scale, resize_or_crop, batch_size, steps_per_epoch, n_workers: see `training_set.TrainingSet`.
        cache: None, "memory" or a folder, see `training_set.TrainingSet`.
        generator, critic: "meudec" or "paper"; see `networks`.
        ngf, n_blocks, ndf: int, see `networks`.
        dropout: float in [0, 1), of the generator; see `networks`.
        init_from: weight file that the generator starts from, or None.
        vgg, vgg_weights: network and weights of `losses.PerceptualLoss`.
        critic_updates, penalty_weight, perceptual_weight, pixel_weight, pixel_loss: see `gan.DeblurGAN`.
        learning_rate: float, of both networks.
        schedule: "linear" (constant for half of the epochs, then linearly towards zero) or "constant".
        ema: float in [0, 1), momentum of the moving average of the generator, batch statistics included, which is then
            what is validated and saved; 0 for the generator itself.
        n_epochs: int.
        mixed_precision: None, "bfloat16" or "float16".
        multi_gpu: bool, share every batch among all GPUs.
        seed: int, decides initial weights, dropout, samples, and what is set aside.
        log_dir: folder in which the folder of the run is made.
        save_every: int, epochs between two saved generators and critics.
        checkpoint_minutes: float, minutes after which the state is saved within an epoch as well.
    """

    data_dir: tuple
    synthetic: tuple
    val_dir: tuple
    blur: str
    n_images: int | None
    n_val_images: int
    crop_size: int
    scale: float
    resize_or_crop: str
    batch_size: int
    steps_per_epoch: int | None
    cache: str | None
    n_workers: int
    generator: str
    critic: str
    ngf: int
    n_blocks: int
    ndf: int
    dropout: float
    init_from: str | None
    vgg: str
    vgg_weights: str
    critic_updates: int
    penalty_weight: float
    perceptual_weight: float
    pixel_weight: float
    pixel_loss: str
    learning_rate: float
    schedule: str
    ema: float
    n_epochs: int
    mixed_precision: str | None
    multi_gpu: bool
    seed: int
    log_dir: str
    save_every: int
    checkpoint_minutes: float

    def __post_init__(self):
        if not self.data_dir and not self.synthetic:
            raise BadRun("neither pairs (--data_dir) nor sharp photographs (--synthetic) to train on")
        multiple = 16 if self.critic == "meudec" else 4
        if self.crop_size % multiple or self.crop_size < 16:
            raise BadRun(f"--crop_size {self.crop_size}: must be a multiple of {multiple} and at least 16")
        if not (self.perceptual_weight or self.pixel_weight or self.critic_updates):
            raise BadRun(
                "--critic_updates 0 without --perceptual_weight or --pixel_weight leaves nothing to learn from"
            )


@dataclass
class _Progress:
    """How far a run has come; with the values of all variables it is what `state.npz` holds.

    Attributes:
        epoch: int, epochs done.
        step: int, batches done of the next epoch.
        seconds: float, time spent on those batches.
        best_psnr: float, of `generator_best.h5`; None where there is none.
        lengths: dict, bytes of every file that grows line by line, to be cut back to.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_psnr: float | None = None
    lengths: dict = dataclasses.field(default_factory=dict)


def train(options):
    """Trains from the beginning, in a new folder below `options.log_dir`.

    The folder holds `options.json`, `log.csv`, `curves.png`, `pictures/`, `tensorboard/`, `generator_best.h5` (by PSNR
    on the validation pairs), `generator_{epoch}_{loss}.h5` and `critic_{epoch}.h5`, and `state.npz` to go on from.

    Args:
        options: `Options`.

    Returns:
        Path of the folder.

    Raises:
        BadRun: if the data or the options do not fit; nothing has been written then.
        BadWeights: if `init_from` is not a generator.
        Stopped: if a loss is no longer finite, the memory of the GPU or the disk is full, or an image has become
            unreadable.
    """
    data = _Data(options, check=True)
    gan = _build(options)
    run_dir = _new_folder(Path(options.log_dir))
    _write_options(run_dir, options, data.record())
    print((run_dir / "options.json").read_text(), flush=True)
    print(f"{run_dir}: {data}", flush=True)
    with _alone(run_dir):
        return _run(options, run_dir, data, gan, _Progress())


def resume(run_dir, changes=None):
    """Goes on with a run from its last checkpoint, as if it had never been interrupted.

    Args:
        run_dir: str or Path, the folder of the run.
        changes: dict of options, by name, that are to differ from those the run began with; only those of
            `MAY_CHANGE` may.

    Returns:
        Path of the folder.

    Raises:
        BadRun: if the folder is not that of a run, its state is damaged, another option than those of `MAY_CHANGE` or
            the data has changed, all epochs are done, or another process is at it.
        Stopped: as `train`.
    """
    run_dir = Path(run_dir)
    options, record = _read_options(run_dir)
    with _alone(run_dir):
        return _go_on(run_dir, options, record, changes or {})


def _go_on(run_dir, options, record, changes):
    for name, value in changes.items():
        if name not in MAY_CHANGE and value != getattr(options, name):
            raise BadRun(
                f"--{name} {value}: {run_dir} was begun with {getattr(options, name)}; "
                f"only {', '.join(f'--{free}' for free in MAY_CHANGE)} may change when a run goes on"
            )
    options = dataclasses.replace(options, **changes)
    for unfinished in run_dir.rglob(".*"):  # what a kill left of files that were being written
        unfinished.unlink()
    progress, values = _read_state(run_dir)
    if progress.epoch >= options.n_epochs:
        raise BadRun(f"{run_dir}: all its {progress.epoch} epochs are done; a larger --n_epochs goes on")
    data = _Data(options, check=False)
    for what, found in data.record().items():
        if found != record[what]:
            raise BadRun(f"{run_dir}: its {what.replace('_', ' ')} are no longer those that the run began with")
    gan = _build(options)
    if values is not None:
        _restore(gan, values, run_dir)
    _write_options(run_dir, options, data.record())
    print(f"{run_dir}: going on after epoch {progress.epoch}, step {progress.step}", flush=True)
    return _run(options, run_dir, data, gan, progress)


@contextlib.contextmanager
def _alone(run_dir):
    """Keeps other processes from the run, for as long as this one lives; a kill leaves nothing behind."""
    if fcntl is None:
        yield
        return
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadRun(f"{run_dir}: another process is training this run") from None
        yield
    finally:
        os.close(folder)


def last_run(log_dir):
    """The folder below `log_dir` of the run that was begun, or gone on with, last.

    Raises:
        BadRun: if there is none.
    """
    options_files = list(Path(log_dir).glob("*/options.json"))
    if not options_files:
        raise BadRun(f"{log_dir}: holds no run to go on with")
    return max(options_files, key=lambda path: path.stat().st_mtime).parent


def learning_rate(options, epoch):
    """The learning rate of an epoch, counted from 0.

    Reference: https://arxiv.org/abs/1711.07064, section 5: constant for the first half, then linearly towards zero.
    """
    half = options.n_epochs // 2
    if options.schedule == "constant" or epoch < half:
        return options.learning_rate
    return options.learning_rate * (options.n_epochs - epoch) / (options.n_epochs - half)


class _Data:
    """What a run trains on and validates with.

    Attributes:
        training: `TrainingSet`.
        validation: list of `(name, blurred, sharp)`, uint8 `(H, W, 3)`, of the size that is trained on.
    """

    def __init__(self, options, check):
        pairs = _pairs(options.data_dir, options, check)
        photographs = [path for folder in options.synthetic for path in find_images(folder)]
        if options.synthetic and not photographs:
            raise BadRun(f"{', '.join(options.synthetic)}: no photographs for --synthetic")
        beside = [Path(folder).with_name("val") for folder in options.data_dir if Path(folder).name == "train"]
        val_dir = options.val_dir or [folder for folder in beside if folder.is_dir()]
        validation, validation_photographs = [], []
        if options.n_val_images and val_dir:
            validation = _pairs(val_dir, options, check)
        elif options.n_val_images and len(pairs) > 1:
            pairs, validation = set_aside(pairs, options.seed)
        elif options.n_val_images and not pairs and len(photographs) > 1:
            n_validation = min(options.n_val_images, max(1, len(photographs) // 10))
            validation_photographs = _some(photographs, n_validation, options.seed)
            photographs = [path for path in photographs if path not in validation_photographs]
        if options.n_images:
            pairs = _some(pairs, options.n_images, options.seed)
            photographs = _some(photographs, options.n_images, options.seed)
        self.training = TrainingSet(
            pairs,
            photographs,
            # Turning the camera as well takes several times as long as a kernel for the whole crop.
            lambda image, rng: random_blur(image, rng, rotation=(0, 0), gamma=rng.uniform(1.0, 2.2))[0],
            batch_size=options.batch_size,
            crop_size=options.crop_size,
            scale=options.scale,
            resize_or_crop=options.resize_or_crop,
            seed=options.seed,
            steps_per_epoch=options.steps_per_epoch,
            cache=options.cache if options.cache in (None, "memory") else Path(options.cache),
            n_workers=options.n_workers,
        )
        self.validation = [
            (pair.name, *self.training.whole(pair)) for pair in _evenly(validation, options.n_val_images)
        ]
        for number, path in enumerate(validation_photographs):
            self.validation.append((path.stem, *self.training.blurred_whole(path, number)))

    def __str__(self):
        training = self.training
        return (
            f"{len(training.pairs)} pairs and {len(training.photographs)} photographs, {training.steps_per_epoch} "
            f"steps of {training.batch_size} in an epoch, {len(self.validation)} images to validate with"
        )

    def record(self):
        """What must still hold when the run goes on."""
        return {
            "training_pairs": len(self.training.pairs),
            "training_photographs": len(self.training.photographs),
            "validation_images": [name for name, _, _ in self.validation],
        }


def _pairs(folders, options, check):
    pairs = []
    for folder in folders:
        try:
            found, unmatched = find_pairs(folder, options.blur)
        except NotADirectoryError as error:
            raise BadRun(
                f"{error}; scripts/organize_gopro_dataset.py makes images/ from GOPRO_Large, "
                "scripts/make_sample_images.py from a few samples, --data_dir names pairs elsewhere"
            ) from None
        problems = check_pairs(found, unmatched, options.n_workers, show_progress=True) if check else []
        for problem in problems:
            print(problem, file=sys.stderr)
        if problems:
            raise BadRun(f"{folder}: not fit for training for {len(problems)} reasons, named above")
        if not found:
            raise BadRun(f"{folder}: holds no pairs")
        pairs += found
    return pairs


def _some(items, n, seed):
    """`n` of the items, drawn by seed, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(items))[:n]
    return [items[i] for i in sorted(chosen)]


def _evenly(items, n):
    """`n` of the items, evenly spread; all if there are fewer."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)]


def _build(options):
    """The networks, with initial weights, and both optimizers."""
    # Keras draws its seeds from here; `keras.utils.set_random_seed` would import TensorFlow whatever the backend.
    random.seed(options.seed)
    policy = f"mixed_{options.mixed_precision}" if options.mixed_precision else "float32"
    if options.multi_gpu and options.batch_size % len(keras.distribution.list_devices()):
        n_devices = len(keras.distribution.list_devices())
        raise BadRun(f"--batch_size {options.batch_size}: must be a multiple of the {n_devices} GPUs of --multi_gpu")
    with gradients.devices(options.multi_gpu, building=True):
        generator = generator_model(
            options.generator, options.ngf, options.n_blocks, dtype=policy, dropout=options.dropout
        )
        if options.init_from:
            generator.set_weights(_initial_weights(options))
        elif options.generator == "paper":
            # The identity is a better start than a random picture added to the blurred one.
            head = generator.get_layer("head_conv")
            head.set_weights([np.zeros(weight.shape, np.float32) for weight in head.weights])
        image_shape = (options.crop_size, options.crop_size, 3)
        critic = critic_model(options.critic, options.ndf, image_shape, dtype=policy)
        # Without weight the loss need not be computed, and its network not be read.
        perceptual_loss = PerceptualLoss(options.vgg, options.vgg_weights) if options.perceptual_weight else _no_loss
        gan = DeblurGAN(
            generator,
            critic,
            perceptual_loss,
            critic_updates=options.critic_updates,
            penalty_weight=options.penalty_weight,
            perceptual_weight=options.perceptual_weight,
            pixel_weight=options.pixel_weight,
            pixel_loss=options.pixel_loss,
            ema=options.ema,
            seed=options.seed,
        )
        # The paper does not print beta_1; its authors' code has 0.5.
        optimizers = [
            keras.optimizers.Adam(options.learning_rate, beta_1=0.5),
            keras.optimizers.Adam(options.learning_rate, beta_1=0.5),
        ]
        gan.compile(*optimizers)
    return gan


def _initial_weights(options):
    found = describe(options.init_from)
    if found["network"] != "generator":
        raise BadWeights(f"{options.init_from}: holds a {found['network']}; --init_from names a generator")
    asked = {"architecture": options.generator, "ngf": options.ngf, "n_blocks": options.n_blocks}
    if any(found[key] != value for key, value in asked.items()):
        raise BadRun(
            f"--init_from {options.init_from}: holds another generator; give --generator {found['architecture']} "
            f"--ngf {found['ngf']} --n_blocks {found['n_blocks']} with it"
        )
    return load_generator(options.init_from).get_weights()


def _no_loss(sharp, restored):
    return keras.ops.zeros(())


def _run(options, run_dir, data, gan, progress):
    """Fits from `progress` on; returns the folder or raises `Stopped`."""
    steps = data.training.steps_per_epoch
    recorder = _Recorder(options, run_dir, data, gan, progress)
    unreadable = []
    try:
        while progress.epoch < options.n_epochs and not recorder.failure:
            # An epoch that was interrupted is finished by itself, as `fit` knows only epochs of one length.
            last_epoch = progress.epoch + 1 if progress.step else options.n_epochs
            first, last = progress.epoch * steps + progress.step, last_epoch * steps
            with gradients.devices(options.multi_gpu):
                gan.fit(
                    _noting(data.training.batches(first, last), unreadable),
                    steps_per_epoch=steps - progress.step,
                    initial_epoch=progress.epoch,
                    epochs=last_epoch,
                    shuffle=False,
                    verbose=0,
                    callbacks=[recorder],
                )
    except KeyboardInterrupt:
        recorder.failure = "interrupted"
    except OSError as error:
        recorder.failure = f"{run_dir}: cannot be written to ({error.strerror or error})"
    except Exception as error:
        # TensorFlow wraps what happens in the threads that read images into an error of its own.
        if unreadable:
            recorder.failure = str(unreadable[0])
        elif "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower():
            recorder.failure = "out of memory; a new run with a smaller --batch_size or --crop_size needs less"
        else:
            raise
    finally:
        if recorder.bar is not None:
            recorder.bar.close()
    if recorder.failure:
        raise Stopped(f"{recorder.failure}; saved up to {recorder.saved}, --resume {run_dir} goes on from there")
    return run_dir


def _noting(batches, errors):
    try:
        yield from batches
    except BadImage as error:
        errors.append(error)
        raise


class _Recorder(keras.callbacks.Callback):
    """Sets the learning rate, shows how it goes, and writes everything that a run leaves behind.

    Attributes:
        failure: str, why the run must end early; None as long as it need not.
        saved: str, the epoch and the step of what `state.npz` holds.
    """

    # `on_train_batch_end` may run in a thread beside the next step, which then does not wait for it.
    async_safe = True

    def __init__(self, options, run_dir, data, gan, progress):
        super().__init__()
        self.options = options
        self.run_dir = run_dir
        self.progress = progress
        # `fit` sets the means of an epoch to zero when it begins, also of one that was interrupted.
        self.means = [np.asarray(variable) for variable in gan.metrics_variables]
        self.failure = None
        self.saved = f"epoch {progress.epoch}, step {progress.step}"
        self.validation = data.validation
        self.steps_per_epoch = data.training.steps_per_epoch
        # What is saved is float32 and on one device.
        self.product = gan.averaged_generator
        if options.mixed_precision or options.multi_gpu:
            with gradients.devices(shared=False):
                self.product = generator_model(options.generator, options.ngf, options.n_blocks)
        scores = [(psnr(sharp, blurred), ssim(sharp, blurred)) for _, blurred, sharp in data.validation]
        self.of_blurred = _means(OF_BLURRED, scores)
        self.pictured = data.validation or [("", *data.training.sample(0, index)) for index in range(3)]
        self.pictured = _evenly(self.pictured, 3)

        self.log = run_dir / "log.csv"
        self.events = run_dir / "tensorboard" / "events.out.tfevents.0.deblur_gan"
        (run_dir / "pictures").mkdir(exist_ok=True)
        self.events.parent.mkdir(exist_ok=True)
        for path in (self.log, self.events):
            _cut_back(path, progress.lengths.get(path.name, 0))
        if not self.log.exists():
            _append(self.log, _csv_line(("epoch", *LOSSES, *SCORES, *OF_BLURRED, "learning_rate", "seconds")))
        if not self.events.exists():
            _append(self.events, _tf_record(Event(wall_time=time.time(), file_version="brain.Event:2")))
        self.bar = None
        self.lock = threading.Lock()

    def _count(self, batch, logs):
        """Moves the progress bar; it appears after the first step, which is compiled and would spoil the time left."""
        done = self.progress.epoch * self.steps_per_epoch + self.first_step + batch + 1
        if self.bar is None:
            self.bar = tqdm(
                total=self.options.n_epochs * self.steps_per_epoch,
                initial=done,
                unit="step",
                smoothing=0,  # the mean over all steps, because validation comes seldom
                dynamic_ncols=True,
                # A log file needs fewer lines than a terminal needs pictures.
                mininterval=0.5 if sys.stderr.isatty() else 60,
                bar_format="{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} "
                "[{remaining} left, {rate_fmt}{postfix}]",
            )
        self.bar.set_description_str(f"epoch {self.progress.epoch + 1}/{self.options.n_epochs}", refresh=False)
        self.bar.set_postfix_str(
            f"critic {logs['critic_loss']:.4g}, penalty {logs['gradient_penalty']:.4g}, "
            f"generator {logs['generator_loss']:.4g}, perceptual {logs['perceptual_loss']:.4g}",
            refresh=False,
        )
        self.bar.update(max(0, done - self.bar.n))  # threads may come in another order than steps

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate = learning_rate(self.options, epoch)
        self.first_step = self.progress.step
        self.began = time.monotonic() - self.progress.seconds
        self.saved_at = time.monotonic()
        if self.first_step:
            for variable, value in zip(self.model.metrics_variables, self.means, strict=True):
                variable.assign(value)

    def on_train_batch_begin(self, batch, logs=None):
        if time.monotonic() - self.saved_at > 60 * self.options.checkpoint_minutes:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            self.progress.step = self.first_step + batch
            self.progress.seconds = time.monotonic() - self.began
            self._save_state()

    def on_train_batch_end(self, batch, logs=None):
        if self._finite(logs):
            with self.lock:
                self._count(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if not self._finite(logs):
            return
        seconds = time.monotonic() - self.began
        self._require_space()
        scores, picture = self._validate()
        row = {"epoch": epoch + 1, **{name: logs[name] for name in LOSSES}, **scores, **self.of_blurred}
        row |= {"learning_rate": learning_rate(self.options, epoch), "seconds": round(seconds, 1)}
        _append(self.log, _csv_line(row.values()))
        _append(self.events, _tf_record(_event(row, picture)))
        write_bytes(self.run_dir / "pictures" / f"epoch_{epoch + 1:03d}.png", _png(picture))
        write_bytes(self.run_dir / "curves.png", _curves(self.log))
        self._save_networks(row)
        self.progress.epoch, self.progress.step, self.progress.seconds = epoch + 1, 0, 0.0
        self._save_state()
        tqdm.write(_summary(row, self.options.n_epochs))

    def _finite(self, logs):
        broken = [name for name in LOSSES if not np.isfinite(logs[name])]
        if broken:
            self._fail(f"{broken[0]} is no longer finite")
        return not broken

    def _fail(self, reason):
        self.failure = f"Stopped in epoch {self.progress.epoch + 1}: {reason}"
        self.model.stop_training = True

    def _validate(self):
        """Restores as `deblur` does for users.

        Returns:
            `(scores, picture)`: dict of the means over the validation images, None where there are none; PNG bytes.
        """
        if self.product is not self.model.averaged_generator:
            self.product.set_weights(self.model.averaged_generator.get_weights())
        with gradients.devices(shared=False):
            scores = []
            for _, blurred, sharp in self.validation:
                restored = deblur(self.product, blurred)
                scores.append((psnr(sharp, restored), ssim(sharp, restored)))
            rows = []
            for _, blurred, sharp in self.pictured:
                blurred, sharp = (_middle(image, PICTURE_SIZE) for image in (blurred, sharp))
                rows.append((blurred, deblur(self.product, blurred), sharp))
        return _means(SCORES, scores), _table(rows)

    def _save_networks(self, row):
        options, epoch = self.options, row["epoch"]
        trained_by = {name: value for name, value in dataclasses.asdict(options).items() if name not in _PATHS}
        training = {"epoch": epoch, **{name: row[name] for name in (*LOSSES, *SCORES)}, "options": trained_by}
        if epoch % options.save_every == 0 or epoch == options.n_epochs:
            # Repeated after an interruption, an epoch may end with a slightly other loss on a GPU.
            for stale in self.run_dir.glob(f"generator_{epoch:03d}_*.h5"):
                stale.unlink()
            path = self.run_dir / f"generator_{epoch:03d}_{row['generator_loss']:.4f}.h5"
            save_generator(self.product, path, training)
            save_critic(self.model.critic, self.run_dir / f"critic_{epoch:03d}.h5", training)
        best = self.progress.best_psnr
        if row["val_psnr"] is not None and (best is None or row["val_psnr"] > best):
            save_generator(self.product, self.run_dir / "generator_best.h5", training)
            self.progress.best_psnr = row["val_psnr"]

    def _require_space(self):
        """Raises OSError before a disk is full: HDF5 does not survive it."""
        numbers = sum(math.prod(variable.shape) for group in _variables(self.model).values() for variable in group)
        needed = 8 * numbers + 4 * 2**20  # the state and its predecessor, or the networks, in float32; pictures
        free = shutil.disk_usage(self.run_dir).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"no space left: {free >> 20} MiB free, {-(-needed >> 20)} MiB needed")

    def _save_state(self):
        self._require_space()
        values = {name: [np.asarray(v) for v in group] for name, group in _variables(self.model).items()}
        if not all(np.isfinite(value).all() for group in values.values() for value in group):
            self._fail("the weights are no longer finite")
            return
        self.progress.lengths = {path.name: path.stat().st_size for path in (self.log, self.events)}
        arrays = {f"{name}/{i}": value for name, group in values.items() for i, value in enumerate(group)}
        with whole_file(self.run_dir / "state.npz") as temporary:
            np.savez(temporary, progress=json.dumps(dataclasses.asdict(self.progress)), **arrays)
            _to_disk(temporary)
        _to_disk(self.run_dir)
        self.saved = f"epoch {self.progress.epoch}, step {self.progress.step}"
        self.saved_at = time.monotonic()


def _variables(gan):
    """All that changes while a model is trained, in groups of fixed order."""
    return {
        "generator": gan.generator.weights,
        "moving_average": gan.moving_average.weights if gan.moving_average else [],
        "critic": gan.critic.weights,
        "optimizers": gan.optimizer.variables,
        "random_state": gan.random_state,
        "means": gan.metrics_variables,
    }


def _read_state(run_dir):
    """The `_Progress` and the values of all variables (None before the first checkpoint)."""
    path = run_dir / "state.npz"
    if not path.exists():
        return _Progress(), None
    try:
        with np.load(path) as file:
            values = {name: file[name] for name in file.files}  # reading checks the sums of the archive
            return _Progress(**json.loads(str(values.pop("progress")))), values
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadRun(f"{path}: damaged ({' '.join(str(error).split())})") from None


def _restore(gan, values, run_dir):
    wanted = {f"{name}/{i}": v for name, group in _variables(gan).items() for i, v in enumerate(group)}
    if {name: tuple(v.shape) for name, v in wanted.items()} != {name: v.shape for name, v in values.items()}:
        raise BadRun(f"{run_dir / 'state.npz'}: was not written by the networks that options.json describes")
    for name, variable in wanted.items():
        variable.assign(values[name])


def _new_folder(log_dir):
    log_dir.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        run_dir = log_dir / (name if number == 1 else f"{name}_{number}")
        with contextlib.suppress(FileExistsError):
            run_dir.mkdir()
            return run_dir


def _write_options(run_dir, options, record):
    backend = keras.backend.backend()
    content = {
        "options": dataclasses.asdict(options),
        **record,
        "command": shlex.join(sys.argv),
        "versions": {
            "deblur_gan": __version__,
            "python": platform.python_version(),
            "keras": keras.__version__,
            backend: metadata.version(backend),
            "numpy": np.__version__,
        },
    }
    if backend != "torch":
        content["devices"] = keras.distribution.list_devices()
    write_bytes(run_dir / "options.json", json.dumps(content, indent=2).encode())


def _read_options(run_dir):
    path = run_dir / "options.json"
    try:
        content = json.loads(path.read_text())
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in content["options"].items()}
        return Options(**options), content
    except FileNotFoundError:
        raise BadRun(f"{run_dir}: not the folder of a run; it holds no options.json") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRun(f"{path}: not the options of a run of this version ({' '.join(str(error).split())})") from None


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


def _to_disk(path):
    """Returns when what was written to a file, or the names in a folder, outlast a loss of power."""
    if fcntl is None:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _csv_line(values):
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode()


def _tf_record(event):
    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    return record.getvalue()


def _event(row, picture):
    """An epoch for TensorBoard: the numbers of its line in `log.csv`, and its picture."""
    values = [
        Summary.Value(tag=name, simple_value=row[name])
        for name in (*LOSSES, *SCORES, "learning_rate")
        if row[name] is not None
    ]
    height, width = picture.shape[:2]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=_png(picture))
    values.append(Summary.Value(tag="blurred, restored, sharp", image=image))
    return Event(wall_time=time.time(), step=row["epoch"], summary=Summary(value=values))


def _means(names, scores):
    """The mean of each score, None where there are no images to score."""
    return dict(zip(names, np.mean(scores, axis=0).tolist() if scores else [None] * len(names), strict=True))


def _middle(image, size):
    top, left = (max(0, (side - size) // 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _table(rows, gap=4):
    """Pictures side by side and below each other, with white between them."""

    def padded(image, right, below):
        return np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=255)

    rows = [np.hstack([padded(image, gap, gap) for image in row]) for row in rows]
    width = max(row.shape[1] for row in rows)
    rows = [padded(row, width - row.shape[1], 0) for row in rows]
    return np.vstack(rows)[:-gap, :-gap]


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
        if name in SCORES and points:
            blurred = float(rows[-1][OF_BLURRED[SCORES.index(name)]])
            axes.axhline(blurred, linestyle="--", color="grey", label="blurred")
            axes.legend()
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=80)
    return encoded.getvalue()


def _summary(row, n_epochs):
    scores = ""
    if row["val_psnr"] is not None:
        scores = (
            f", val_psnr {row['val_psnr']:.2f} dB (blurred {row['blurred_psnr']:.2f}), "
            f"val_ssim {row['val_ssim']:.4f} (blurred {row['blurred_ssim']:.4f})"
        )
    losses = ", ".join(f"{name} {row[name]:.4g}" for name in LOSSES)
    return f"epoch {row['epoch']}/{n_epochs}: {losses}{scores} ({row['seconds']:.0f} s)"
