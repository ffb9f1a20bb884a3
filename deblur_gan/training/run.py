"""One training run, in order of time: data, networks, epochs; and the same after an interruption."""

import contextlib
import dataclasses
import itertools
import json

import numpy as np
from PIL import Image
from tqdm import tqdm

from deblur_gan.backend import BACKENDS, keras
from deblur_gan.data.split import evenly
from deblur_gan.evaluation.measure import measure, summarize
from deblur_gan.files import locked
from deblur_gan.images.photographs import BadImage
from deblur_gan.networks import generator_model
from deblur_gan.restoring.deblur import deblur
from deblur_gan.training import checkpoint, distributed, gradients
from deblur_gan.training.build import build_gan, has_shared_batches
from deblur_gan.training.callback import RunCallback, Stopped
from deblur_gan.training.checkpoint import BadRun, Progress
from deblur_gan.training.gan import LOSSES
from deblur_gan.training.interruption import Interruption
from deblur_gan.training.options import MAY_CHANGE, BadOption, Options, is_path
from deblur_gan.training.run_data import build_datasets, find_data, require_memory
from deblur_gan.training.run_folder import OF_BLURRED, SCORES, RunFolder

# Height and width of the images in `pictures/`.
PICTURE_SIZE = 256


def train(options):
    """Trains from the beginning, in a new folder below `options.log_dir`; see `RunFolder` for its files.

    Ctrl-C and SIGTERM stop the run after the current step, with a checkpoint.

    Args:
        options: `Options`.

    Returns:
        Path of the folder.

    Raises:
        BadRun: if the data or the options do not fit; nothing has been written then.
        BadWeights: if `init_from` is not a generator, or `init_critic_from` not a critic.
        Stopped: if it was interrupted, a loss or a weight is no longer finite, the memory of the GPU or the disk is
            full, or an image has become unreadable.

    Example, with pairs in `images/train`:
        run_dir = train(Options(n_epochs=1, steps_per_epoch=2, perceptual_weight=0, pixel_weight=1))
    """
    distributed.initialize()
    with contextlib.ExitStack() as held:
        # Find the data. Every process lists it; the main one reads all pairs, too.
        with distributed.all_or_none():
            require_memory(options)
            data = find_data(options, check=distributed.is_main())
            training_set, validation = build_datasets(options, data)
        distributed.require_equal(_plan(options, data))

        gan = build_gan(options)

        # Make the folder of the run.
        path = ""
        with distributed.all_or_none():
            if distributed.is_main():
                path = RunFolder.create(options.log_dir, _content(options, data)).path
                held.enter_context(locked(path))
                print(f"{path}: {_summarize(options, data, training_set, validation)}", flush=True)
        folder = RunFolder(distributed.broadcast(str(path)))

        return _fit(options, folder, training_set, validation, gan, Progress())


def resume(run_dir, **changes):
    """Continues a run from its last checkpoint, as if it had never been interrupted.

    The images must be those that the run began with, in the same order. Their number, their names, the size of each
    file in bytes and 64 KiB from the middle of each are compared; their folders and times may differ.

    Args:
        run_dir: str or Path, the folder of the run.
        **changes: options that differ from those the run began with; only those of `MAY_CHANGE` may.

    Returns:
        Path of the folder.

    Raises:
        BadOption: if a change is out of its bounds.
        BadRun: if the folder is not that of a run, its options or its state are damaged, the data or an option outside
            `MAY_CHANGE` differs, or all epochs are done.
        BlockingIOError: if another process trains this run.
        Stopped: as `train`.

    Example:
        resume(run_dir, n_epochs=2)
    """
    distributed.initialize()
    with contextlib.ExitStack() as held:
        # Read the folder, and find the same data again.
        with distributed.all_or_none():
            folder = RunFolder(run_dir)
            begun_with, options, fingerprints = _read_options(folder, changes)
            if distributed.is_main():
                held.enter_context(locked(folder.path))
            progress = checkpoint.read_progress(folder.state)
            if progress.epoch >= options.n_epochs:
                raise BadRun(f"{folder.path}: all its {progress.epoch} epochs are done; give a larger --n_epochs")
            saved = folder.state.exists()
            n_logged = len(folder.read_log())
            if not saved and n_logged > 1:  # the first epoch may have been logged just before the first state
                raise BadRun(f"{folder.state}: missing; restore it, or start a new run")
            require_memory(options)
            data = find_data(options, check=False)
            for name, fingerprint in data.record()["fingerprints"].items():
                if fingerprints.get(name) != fingerprint:
                    raise BadRun(f"{folder.path}: its {name.replace('_', ' ')} are not those that the run began with")
            training_set, validation = build_datasets(options, data)
            if progress.step >= training_set.steps_per_epoch:
                raise BadRun(f"{folder.state}: damaged (an epoch has {training_set.steps_per_epoch} steps)")
        distributed.require_equal(_plan(options, data, progress))

        # Build the networks. Their first weights are in the state, and the files to start from may be gone by now.
        gan = build_gan(dataclasses.replace(options, init_from=None, init_critic_from=None) if saved else options)
        if saved:
            try:
                checkpoint.load_state(folder.state, gan, reading=distributed.all_or_none)
            except BadRun as error:
                others = set(folder.read_options().get("versions", ())) & set(BACKENDS) - {keras.backend.backend()}
                hint = f"; the run began with KERAS_BACKEND={others.pop()}" if others else ""
                raise BadRun(f"{error}{hint}") from None

        # Write the changed options.
        with distributed.all_or_none():
            if distributed.is_main():
                folder.write_options(_content(options, data))
                print(f"{folder.path}: continues from {progress}", flush=True)
                if note := _note_on_learning_rate(begun_with, options, progress.epoch):
                    print(note, flush=True)

        return _fit(options, folder, training_set, validation, gan, progress)


def learning_rate(initial, schedule, n_epochs, epoch):
    """Computes the learning rate of an epoch, a float.

    Args:
        initial: float, the rate of the first epoch.
        schedule: "linear": constant for the first half of the epochs, then linearly towards zero; or "constant".
        n_epochs: int.
        epoch: int, counted from 0.

    Example:
        >>> [learning_rate(1.0, "linear", 4, epoch) for epoch in range(4)]
        [1.0, 1.0, 1.0, 0.5]

    Reference: https://arxiv.org/abs/1711.07064, section 5
    """
    half = n_epochs // 2
    if schedule == "constant" or epoch < half:
        return initial
    return initial * (n_epochs - epoch) / (n_epochs - half)


def _fit(options, folder, training_set, validation, gan, progress):
    """Trains from `progress` to the last epoch; returns the folder's path or raises `Stopped`."""
    steps = training_set.steps_per_epoch
    shared = has_shared_batches(options)
    # The generator that is validated and saved: float32, on one device, averaged if the run has an average.
    product = gan.averaged_generator
    if options.mixed_precision or shared:
        with gradients.devices(shared=False):
            product = generator_model(options.generator, options.ngf, options.n_blocks)
    blurred_scores = {}  # of the blurred validation images, which are measured once
    if distributed.is_main():
        pictured = evenly(validation or [training_set.sample(0, index) for index in range(3)], 3)
        folder.prepare(progress)
    with Interruption() as interruption:
        callback = RunCallback(folder, progress, options, steps, interruption)
        try:
            while progress.epoch < options.n_epochs:
                # Train: an epoch, or the rest of an interrupted one.
                first, last = progress.epoch * steps + progress.step, (progress.epoch + 1) * steps
                rate = learning_rate(options.learning_rate, options.schedule, options.n_epochs, progress.epoch)
                with gradients.devices(shared):
                    gan.optimizer.learning_rate = rate
                    history = gan.fit(
                        _batches(training_set, first, last, callback),
                        steps_per_epoch=last - first,
                        initial_epoch=progress.epoch,
                        epochs=progress.epoch + 1,
                        shuffle=False,
                        verbose=0,
                        callbacks=[callback],
                    ).history
                callback.check()

                epoch, seconds = progress.epoch + 1, callback.seconds()
                # The main process does this without the others, so none of it may be shared among their devices.
                with callback.noting_failures(), gradients.devices(shared=False):
                    if distributed.is_main():
                        # Validate.
                        folder.require_fit(gan)
                        if product is not gan.averaged_generator:
                            product.set_weights(gan.averaged_generator.get_weights())
                        scores, n_perfect = _validate(product, validation, blurred_scores)

                        # Log.
                        losses = {name: history[name][-1] for name in LOSSES}
                        row = {"epoch": epoch, **losses, **scores, "learning_rate": rate, "seconds": round(seconds, 1)}
                        folder.append(row, _draw_pictures(product, pictured))

                        # Save the networks, then the state to resume from.
                        psnr, best = row["val_psnr"], progress.best_psnr
                        is_best = psnr is not None and (best is None or psnr > best)
                        is_kept = epoch % options.save_every == 0 or epoch == options.n_epochs
                        critic = gan.critic if gan.critic_updates else None
                        folder.save_networks(product, critic, row, _without_paths(options), is_kept, is_best)
                        if is_best:
                            progress.best_psnr = psnr
                    progress.epoch, progress.step, progress.seconds = epoch, 0, 0.0
                    if distributed.is_main():
                        callback.save_state()
                        tqdm.write(_describe_epoch(row, options.n_epochs, n_perfect))
                callback.check()
                if callback.signal_number and progress.epoch < options.n_epochs:
                    raise Stopped("interrupted", callback.signal_number)
        except Stopped as error:
            stopped = error
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
                raise
            stopped = Stopped("out of memory; a new run with a smaller --batch_size or --crop_size needs less")
        else:
            return folder.path
        finally:
            callback.close()
    if not distributed.is_main():
        way_on = "process 0 prints how to resume"
    elif folder.path.exists():
        way_on = f"--resume {folder.path} continues from {callback.saved}"
    else:
        way_on = "its folder is gone, so it cannot be resumed"
    raise Stopped(f"{stopped}; {way_on}", stopped.signal_number)


def _batches(training_set, first, last, callback):
    """Yields batches; after an unreadable image it sets `callback.failure` and yields blank ones until `fit` ends.

    The blank batches keep this process in step with the others, so that all stop together. Nothing of them is saved.
    """
    try:
        yield from training_set.batches(first, last)
        return
    except BadImage as error:
        callback.failure = str(error)
    except OSError as error:
        callback.failure = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    size = training_set.batch_size // training_set.part[1], training_set.crop_size, training_set.crop_size, 3
    yield from itertools.repeat((np.zeros(size, np.float32),) * 2)


def _validate(generator, validation, blurred_scores):
    """Restores the validation images by `deblur`, as `restore` does.

    Returns `(scores, n_perfect)`: the columns of the log, None without images; and the number of images that have no
    PSNR, see `evaluation.summarize`.
    """
    if not validation:
        return dict.fromkeys((*SCORES, *OF_BLURRED.values())), 0
    named = [(str(number), *images) for number, images in enumerate(validation)]
    metrics = ("psnr", "ssim")
    summary = summarize(list(measure(generator, named, metrics=metrics, blurred_scores=blurred_scores)))
    scores = {f"val_{metric}": summary["restored"][metric] for metric in metrics}
    scores |= {f"blurred_{metric}": summary["blurred"][metric] for metric in metrics}
    return scores, summary["n_perfect"]


def _draw_pictures(generator, pictured, gap=4):
    """Draws a row of blurred, restored and sharp for each pair, cropped to the middle, with white between them."""
    size = min(PICTURE_SIZE, max(max(sharp.shape) for _, sharp in pictured))
    step = size + gap
    picture = Image.new("RGB", (3 * step - gap, len(pictured) * step - gap), "white")
    for row, pair in enumerate(pictured):
        top, left = (max(0, side - size) // 2 for side in pair[0].shape[:2])
        blurred, sharp = (image[top : top + size, left : left + size] for image in pair)
        for column, image in enumerate((blurred, deblur(generator, blurred), sharp)):
            picture.paste(Image.fromarray(image), (column * step, row * step))
    return picture


def _describe_epoch(row, n_epochs, n_perfect):
    """Returns the line that is printed after an epoch."""
    parts = [f"{name} {row[name]:.4g}" for name in LOSSES]
    if row["val_psnr"] is not None:
        parts.append(f"val_psnr {row['val_psnr']:.2f} dB (blurred {row['blurred_psnr']:.2f})")
    if row["val_ssim"] is not None:
        parts.append(f"val_ssim {row['val_ssim']:.4f} (blurred {row['blurred_ssim']:.4f})")
    if n_perfect:
        parts.append(f"{n_perfect} validation images without PSNR, as they equal the sharp ones")
    return f"epoch {row['epoch']}/{n_epochs}: {', '.join(parts)} ({row['seconds']:.0f} s)"


def _read_options(folder, changes):
    """Returns the `Options` that a run began with, those that it continues with, and the fingerprints of its data."""
    content = folder.read_options()
    try:
        begun_with = Options(**content["options"])
        fingerprints = dict(content["fingerprints"])
    except (BadOption, KeyError, TypeError, ValueError) as error:
        raise BadRun(f"{folder.path / 'options.json'}: not the options of this version ({error})") from None
    options = dataclasses.replace(begun_with, **changes)
    for name in changes:
        if name not in MAY_CHANGE and getattr(options, name) != getattr(begun_with, name):
            raise BadRun(
                f"--{name} {getattr(options, name)}: {folder.path} began with {getattr(begun_with, name)}; "
                f"on --resume only {', '.join(f'--{free}' for free in MAY_CHANGE)} may change"
            )
    return begun_with, options, fingerprints


def _content(options, data):
    """Returns the content of `options.json` that resuming needs."""
    return {"options": dataclasses.asdict(options), **data.record()}


def _plan(options, data, progress=None):
    """Returns a str of all that the processes of a run must have in common; paths may differ."""
    return json.dumps([_without_paths(options), data.record(), str(progress)])


def _without_paths(options):
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(Options) if not is_path(field)}


def _summarize(options, data, training_set, validation):
    """Returns the text printed when a run starts: its data, and the options that differ from their defaults."""
    lines = [
        f"{len(data.pairs)} pairs and {len(data.photographs)} photographs, {training_set.steps_per_epoch} steps of "
        f"{options.batch_size} in an epoch, {len(validation)} images to validate with",
        "options that differ from their defaults (options.json has all):",
    ]
    for field in dataclasses.fields(Options):
        value = getattr(options, field.name)
        if value != field.default and field.name != "log_dir":
            lines.append(f"  --{field.name} {' '.join(value) if isinstance(value, tuple) else value}")
    return "\n".join(lines)


def _note_on_learning_rate(begun_with, options, epoch):
    """Returns a line for a resumed run whose learning rate rises from one epoch to the next; "" if it does not."""
    before, after = (
        learning_rate(each.learning_rate, each.schedule, each.n_epochs, number)
        for each, number in ((begun_with, epoch - 1), (options, epoch))
    )
    if not epoch or after <= before:
        return ""
    return (
        f"learning rate: {after:.2g} from epoch {epoch + 1} on, after {before:.2g} in epoch {epoch}, by the "
        f"{options.schedule} schedule of {options.n_epochs} epochs; --schedule constant --learning_rate {before:.2g} "
        "keeps it"
    )
