"""One training run, in order of time: data, networks, epochs, and going on after an interruption."""

import contextlib
import dataclasses
import functools
import itertools
import json
import random
from pathlib import Path

import numpy as np

from deblur_gan.architectures import GENERATORS
from deblur_gan.backend import keras
from deblur_gan.blur.camera import mixed_blur
from deblur_gan.data.training_set import TrainingSet
from deblur_gan.files import locked
from deblur_gan.images.photographs import BadImage
from deblur_gan.networks import critic_model, generator_model, widened_weights
from deblur_gan.training import checkpoint, distributed, gradients
from deblur_gan.training.callback import Recorder
from deblur_gan.training.checkpoint import BadRun, Progress
from deblur_gan.training.gan import DeblurGAN
from deblur_gan.training.interruption import Interruption
from deblur_gan.training.losses import PerceptualLoss
from deblur_gan.training.options import MAY_CHANGE, BadOption, Options, is_path
from deblur_gan.training.run_data import find_data
from deblur_gan.training.run_folder import RunFolder
from deblur_gan.weights import BadWeights, describe, load_generator, require_bounded


class Stopped(RuntimeError):
    """A run that ended before its last epoch; the message is one line that says why and how to go on.

    Attributes:
        signal_number: int, the signal that ended it; None if none did.
    """

    def __init__(self, message, signal_number=None):
        super().__init__(message)
        self.signal_number = signal_number


def train(options):
    """Trains from the beginning, in a new folder below `options.log_dir`; see `RunFolder` for what it holds.

    Ctrl-C and SIGTERM stop the run behind the step that is going on, with a checkpoint.

    Args:
        options: `Options`.

    Returns:
        Path of the folder.

    Raises:
        BadRun: if the data or the options do not fit; nothing has been written then.
        BadWeights: if `init_from` is not a generator.
        Stopped: if it was interrupted, a loss or a weight is no longer finite, the memory of the GPU or the disk is
            full, or an image has become unreadable.
    """
    team = distributed.join()
    with team.together():
        data = _find_data(options, n_checking=options.n_workers if team.first else 0)
        training_set, validation = _pictures(options, data, team)
    team.require_same(_plan(options, data))
    gan = build_gan(options)
    path, content = "", (dataclasses.asdict(options), data.record())
    with contextlib.ExitStack() as held:
        with team.together():
            if team.first:
                folder = RunFolder.create(options.log_dir, *content)
                path = folder.path
                held.enter_context(locked(folder.path))
                print((folder.path / "options.json").read_text(), flush=True)
                print(
                    f"{folder.path}: {len(data.pairs)} pairs and {len(data.photographs)} photographs, "
                    f"{training_set.steps_per_epoch} steps of {options.batch_size} in an epoch, "
                    f"{len(validation)} images to validate with",
                    flush=True,
                )
        folder = RunFolder(Path(team.text_of_first(path)), *content)
        return _fit(options, folder, training_set, validation, gan, Progress())


def resume(run_dir, **changes):
    """Goes on with a run from its last checkpoint, as if it had never been interrupted.

    The run must see the pictures that it began with, in the same order: their number, their names, the size of each
    file in bytes and 64 KiB from the middle of each are compared. Where the folders lie, and when their files were
    written, does not matter.

    Args:
        run_dir: str or Path, the folder of the run.
        **changes: options that are to differ from those the run began with; only those of `MAY_CHANGE` may.

    Returns:
        Path of the folder.

    Raises:
        BadOption: if a change is not what it must be.
        BadRun: if the folder is not that of a run, its options or its state are damaged, another option than those of
            `MAY_CHANGE` or the data has changed, or all epochs are done.
        BlockingIOError: if another process trains this run.
        Stopped: as `train`.
    """
    team = distributed.join()
    with contextlib.ExitStack() as held:
        with team.together():
            folder = RunFolder.open(run_dir)
            options = _changed_options(folder, changes)
            if team.first:
                held.enter_context(locked(folder.path))
            progress = checkpoint.read_progress(folder.state)
            if progress.epoch >= options.n_epochs:
                raise BadRun(f"{folder.path}: all its {progress.epoch} epochs are done; a larger --n_epochs goes on")
            saved = folder.state.exists()
            if not saved and folder.n_logged() > 1:  # the first epoch may have been logged just before the first state
                raise BadRun(f"{folder.state}: missing; without it the run would begin anew, over what it has written")
            data = _find_data(options, n_checking=0)
            _require_same(folder, data.record())
            training_set, validation = _pictures(options, data, team)
            if progress.step >= training_set.steps_per_epoch:
                raise BadRun(f"{folder.state}: damaged (an epoch has {training_set.steps_per_epoch} steps)")
        team.require_same(_plan(options, data, progress))
        # The weights to start from are in the state by now; their file need not be there any more.
        gan = build_gan(dataclasses.replace(options, init_from=None) if saved else options)
        if saved:
            checkpoint.load_state(folder.state, gan, reading=team.together)
        folder.options, folder.data = dataclasses.asdict(options), data.record()
        with team.together():
            if team.first:
                folder.write_options()
                print(f"{folder.path}: going on after {progress}", flush=True)
        return _fit(options, folder, training_set, validation, gan, progress)


def _changed_options(folder, changes):
    """The options that a run goes on with."""
    try:
        # Runs from before there was a choice had the paper's blur.
        begun_with = Options(**{"blur_mix": "paper:1", **folder.options})
    except (BadOption, TypeError) as error:
        raise BadRun(f"{folder.path / 'options.json'}: not the options of a run of this version ({error})") from None
    options = dataclasses.replace(begun_with, **changes)
    for name in changes:
        if name not in MAY_CHANGE and getattr(options, name) != getattr(begun_with, name):
            raise BadRun(
                f"--{name} {getattr(options, name)}: {folder.path} was begun with {getattr(begun_with, name)}; "
                f"only {', '.join(f'--{free}' for free in MAY_CHANGE)} may change when a run goes on"
            )
    return options


def learning_rate(initial, schedule, n_epochs, epoch):
    """The learning rate of an epoch, counted from 0.

    Args:
        initial: float, the rate of the first epoch.
        schedule: "linear": constant for the first half of the epochs, then linearly towards zero; or "constant".
        n_epochs: int.
        epoch: int.

    Reference: https://arxiv.org/abs/1711.07064, section 5
    """
    half = n_epochs // 2
    if schedule == "constant" or epoch < half:
        return initial
    return initial * (n_epochs - epoch) / (n_epochs - half)


def _find_data(options, n_checking):
    return find_data(
        options.data_dir,
        options.synthetic,
        options.val_dir,
        blur=options.blur,
        n_images=options.n_images,
        n_val_images=options.n_val_images,
        seed=options.seed,
        n_workers=n_checking,
    )


def _plan(options, data, progress=None):
    """str, all that the processes of a run must have in common; where things lie may differ."""
    return json.dumps([_without_paths(options), data.record(), str(progress)])


def _without_paths(options):
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(Options) if not is_path(field)}


def _require_same(folder, found):
    """Raises `BadRun` where the data is not what the run began with, as far as its folder remembers that."""
    remembered = {"fingerprints": found["fingerprints"], **folder.data}  # old runs have no fingerprints
    for what, fingerprint in found["fingerprints"].items():
        same = isinstance(remembered["fingerprints"], dict) and remembered["fingerprints"].get(what) == fingerprint
        if not same or remembered.get(what) != found[what]:
            raise BadRun(f"{folder.path}: its {what.replace('_', ' ')} are not those that the run began with")


def _pictures(options, data, team):
    """What this process trains on, and list of `(blurred, sharp)` to validate with, of the size that is trained on."""
    shares = options.share_of_each and list(zip(options.share_of_each, data.n_of_sources, strict=True))
    if shares and not all(data.n_of_sources):
        raise BadRun(f"--shares {options.shares}: a folder of --data_dir has no pairs left beside those set aside")
    training_set = TrainingSet(
        data.pairs,
        data.photographs,
        blur=mixed_blur(options.mixture),
        shares=shares,
        batch_size=options.batch_size,
        crop_size=options.crop_size,
        scale=options.scale,
        working_scale=options.working_scale_range,
        resize_or_crop=options.resize_or_crop,
        turn=options.turn,
        seed=options.seed,
        steps_per_epoch=options.steps_per_epoch,
        cache=options.cache,
        n_workers=options.n_workers,
        part=(team.number, team.count),
    )
    if not team.first:
        return training_set, []
    validation = [training_set.whole(pair) for pair in data.validation_pairs]
    for number, path in enumerate(data.validation_photographs):
        validation.append(training_set.blurred_whole(path, number))
    return training_set, validation


def build_gan(options):
    """The networks of a run, with initial weights, and both optimizers.

    Args:
        options: `Options`; those about data and time do not matter.

    Returns:
        Compiled `DeblurGAN`, to be given to `fit`.

    Raises:
        BadRun: if the batch cannot be shared among the GPUs or the processes, or `init_from` holds a generator of
            another size.
        BadWeights: if a network would be too large to be saved, or `init_from` cannot be read or holds no generator.
        ValueError: if `vgg_weights` cannot be read, or PyTorch cannot do what `jit_compile` asks.
    """
    image_shape = (options.crop_size, options.crop_size, 3)
    sizes = {"architecture": options.generator, "ngf": options.ngf, "n_blocks": options.n_blocks}
    require_bounded(f"--ngf {options.ngf} --n_blocks {options.n_blocks}", {"network": "generator", **sizes})
    sizes = {"architecture": options.critic, "ndf": options.ndf, "image_shape": image_shape}
    require_bounded(f"--ndf {options.ndf} --crop_size {options.crop_size}", {"network": "critic", **sizes})
    # Keras draws its seeds from here; `keras.utils.set_random_seed` would import TensorFlow whatever the backend.
    random.seed(options.seed)
    policy = f"mixed_{options.mixed_precision}" if options.mixed_precision else "float32"
    with gradients.devices(_shared(options), building=True) as n_devices:
        if options.batch_size % n_devices:
            n_processes = distributed.join().count
            sharing = f"devices of {n_processes} processes" if n_processes > 1 else "GPUs of --multi_gpu"
            raise BadRun(f"--batch_size {options.batch_size}: must be a multiple of the {n_devices} {sharing}")
        generator = generator_model(
            options.generator, options.ngf, options.n_blocks, dtype=policy, dropout=options.dropout
        )
        if options.init_from:
            generator.set_weights(_initial_weights(options.init_from, generator, options))
        else:
            for name in GENERATORS[options.generator].zero_layers:
                layer = generator.get_layer(name)
                layer.set_weights([np.zeros(weight.shape, np.float32) for weight in layer.weights])
        if options.freeze_normalization:
            for layer in generator.layers:
                # Keras lets it compute as in inference, too.
                layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        critic = critic_model(options.critic, options.ndf, image_shape, dtype=policy)
        # Without weight the loss need not be computed, and its network not be read.
        perceptual_loss = _no_loss
        if options.perceptual_weight:
            vgg_policy = "float32" if options.mixed_precision == "float16" else policy
            perceptual_loss = PerceptualLoss(options.vgg, options.vgg_weights, vgg_policy)
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
        gan.compile(
            keras.optimizers.Adam(options.learning_rate, beta_1=0.5),
            keras.optimizers.Adam(options.learning_rate, beta_1=0.5),
            jit_compile=options.jit_compile or "auto",
        )
    return gan


def _shared(options):
    """bool, whether several devices share every batch."""
    return options.multi_gpu or distributed.join().count > 1


def _initial_weights(path, generator, options):
    found = describe(path)
    if found["network"] != "generator":
        raise BadWeights(f"{path}: holds a {found['network']}; --init_from names a generator")
    same = (found["architecture"], found["n_blocks"]) == (options.generator, options.n_blocks)
    if not same or options.ngf % found["ngf"]:
        raise BadRun(
            f"--init_from {path}: holds another generator; give --generator {found['architecture']} "
            f"--ngf {found['ngf']} (or a multiple of it) --n_blocks {found['n_blocks']} with it"
        )
    return widened_weights(load_generator(path), generator, options.seed)


def _no_loss(sharp, restored):
    return keras.ops.zeros(())


def _fit(options, folder, training_set, validation, gan, progress):
    """Fits from `progress` on; returns the folder's path or raises `Stopped`."""
    team, product = distributed.join(), gan.averaged_generator
    if options.mixed_precision or _shared(options):
        # What is saved is float32 and on one device.
        with gradients.devices(shared=False):
            product = generator_model(options.generator, options.ngf, options.n_blocks)
    steps = training_set.steps_per_epoch
    with Interruption() as interruption:
        recorder = Recorder(
            team,
            folder,
            progress,
            gan,
            product,
            validation,
            pictured=validation or [training_set.sample(0, index) for index in range(3)],
            steps_per_epoch=steps,
            n_epochs=options.n_epochs,
            rate_of=functools.partial(learning_rate, options.learning_rate, options.schedule, options.n_epochs),
            save_every=options.save_every,
            checkpoint_minutes=options.checkpoint_minutes,
            trained_by=_without_paths(options),
            interruption=interruption,
        )
        reason = None
        try:
            while progress.epoch < options.n_epochs and not recorder.failure:
                # An epoch that was interrupted is finished by itself, as `fit` knows only epochs of one length.
                last_epoch = progress.epoch + 1 if progress.step else options.n_epochs
                first, last = progress.epoch * steps + progress.step, last_epoch * steps
                with gradients.devices(_shared(options)):
                    gan.fit(
                        _noting(training_set, first, last, recorder),
                        steps_per_epoch=steps - progress.step,
                        initial_epoch=progress.epoch,
                        epochs=last_epoch,
                        shuffle=False,
                        verbose=0,
                        callbacks=[recorder],
                    )
            reason = recorder.failure
        except KeyboardInterrupt:
            reason = recorder.failure or "interrupted"
        except Exception as error:
            if "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower():
                reason = "out of memory; a new run with a smaller --batch_size or --crop_size needs less"
            else:
                raise
        finally:
            recorder.close()
    if reason:
        if not team.first:
            left = "the first process says how to go on"
        elif folder.path.exists():
            left = f"saved up to {recorder.saved}, --resume {folder.path} goes on from there"
        else:
            left = "nothing is left to go on with"
        raise Stopped(f"{reason}; {left}", recorder.signal_number)
    return folder.path


def _noting(training_set, first, last, recorder):
    """Yields batches; where one cannot be read, the recorder is told why and others stand in until `fit` has ended.

    So every process takes the step that the others take, and all end behind it; nothing of it is kept.
    """
    try:
        yield from training_set.batches(first, last)
        return
    except BadImage as error:
        recorder.failure = str(error)
    except OSError as error:
        recorder.failure = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    size = training_set.batch_size // training_set.part[1], training_set.crop_size, training_set.crop_size, 3
    yield from itertools.repeat((np.zeros(size, np.float32),) * 2)
