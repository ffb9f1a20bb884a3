"""The data of a run: the files, the record that finds them again when it is resumed, and the datasets."""

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from deblur_gan.blur.camera import mixed_blur
from deblur_gan.data.pairs import check_pairs, find_pairs
from deblur_gan.data.split import evenly, scene_of, set_aside
from deblur_gan.data.training_set import TrainingSet
from deblur_gan.images.photographs import BadImage, find_images, read_rgb
from deblur_gan.training import distributed
from deblur_gan.training.checkpoint import BadRun


class RunData(NamedTuple):
    """The files of a run.

    Attributes:
        pairs: list of `Pair` to train on.
        photographs: list of Path of sharp ones to train on, blurred on the fly.
        validation_pairs: list of `Pair`.
        validation_photographs: list of Path, to be blurred.
        n_of_sources: list of int, the number of `pairs` of each folder, in the order of the folders, then of
            photographs, if there are any.
    """

    pairs: list
    photographs: list
    validation_pairs: list
    validation_photographs: list
    n_of_sources: list

    def record(self):
        """Returns a dict of numbers, names and fingerprints, which must be the same when the run is resumed."""
        validated_on = [path for pair in self.validation_pairs for path in (pair.blurred, pair.sharp)]
        return {
            "training_pairs": len(self.pairs),
            "training_photographs": len(self.photographs),
            "validation_images": [
                *(pair.name for pair in self.validation_pairs),
                *(path.stem for path in self.validation_photographs),
            ],
            "fingerprints": {
                "training_pairs": _fingerprint(path for pair in self.pairs for path in (pair.blurred, pair.sharp)),
                "training_photographs": _fingerprint(self.photographs),
                "validation_images": _fingerprint(validated_on + self.validation_photographs),
            },
        }


def find_data(options, check):
    """Finds the files that a run trains on and validates with; with `check`, reads each of them first.

    Raises `BadRun` if a folder has no images, or some that would spoil training, which are listed on stderr; or if an
    image to validate with is also one to train on.
    """
    n_val_images, seed = options.n_val_images, options.seed
    by_folder = [_pairs(folder, options, check) for folder in options.data_dir]
    pairs = [pair for found in by_folder for pair in found]
    photographs = [path for folder in options.synthetic for path in _photographs(folder, options, check)]
    if options.synthetic and not photographs:
        raise BadRun(f"{', '.join(options.synthetic)}: no photographs for --synthetic")
    neighbours = [Path(folder).with_name("val") for folder in options.data_dir if Path(folder).name == "train"]
    val_dir = options.val_dir or [folder for folder in neighbours if folder.is_dir()]
    validation_pairs, validation_photographs = [], []
    if n_val_images and val_dir:
        validation_pairs = [pair for folder in val_dir for pair in _pairs(folder, options, check)]
        trained_on = _identities(pairs, photographs)
        shared = [pair for pair in validation_pairs if _identities([pair], []) & trained_on]
        if shared:
            raise BadRun(
                f"--val_dir {', '.join(map(str, val_dir))}: {len(shared)} of its {len(validation_pairs)} pairs are "
                "trained on, too; give other pairs, or none to set some aside"
            )
    elif n_val_images and len(pairs) > 1:
        pairs, validation_pairs = set_aside(pairs, seed)
        if check and set(map(scene_of, pairs)) & set(map(scene_of, validation_pairs)):
            folders = ", ".join(options.data_dir)
            print(f"{folders}: one scene, so validation flatters; name other pairs with --val_dir", file=sys.stderr)
        held_out = _identities(validation_pairs, [])
        photographs = [path for path in photographs if not _identities([], [path]) & held_out]
        if options.synthetic and not photographs:
            raise BadRun(f"{', '.join(options.synthetic)}: no photographs for --synthetic but those set aside")
    elif n_val_images and not pairs and len(photographs) > 1:
        validation_photographs = _some(photographs, min(n_val_images, max(1, len(photographs) // 10)), seed)
        photographs = [path for path in photographs if path not in validation_photographs]
    if options.n_images:
        pairs = _some(pairs, options.n_images, seed)
        photographs = _some(photographs, options.n_images, seed)
    trained_on = set(pairs)
    n_of_sources = [sum(pair in trained_on for pair in found) for found in by_folder]
    n_of_sources += [len(photographs)] * bool(photographs)
    return RunData(pairs, photographs, evenly(validation_pairs, n_val_images), validation_photographs, n_of_sources)


def require_memory(options):
    """Raises `BadRun` if the batches that are prepared ahead need more than the memory of this machine."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    n_images = 2 * -(-options.batch_size // distributed.size()) * (2 * options.n_workers + 1)
    needed = n_images * 12 * options.crop_size**2  # three channels of float32
    if needed > memory:
        raise BadRun(
            f"--batch_size {options.batch_size} --crop_size {options.crop_size}: the batches prepared ahead need "
            f"{needed / 2**30:.1f} GiB, more than the {memory / 2**30:.1f} GiB of memory; give smaller ones, or fewer "
            "--n_workers"
        )


def build_datasets(options, data):
    """Returns the `TrainingSet` of this rank, and on the main one `(blurred, sharp)` images to validate with."""
    shares = options.share_of_each and list(zip(options.share_of_each, data.n_of_sources, strict=True))
    if shares and not all(data.n_of_sources):
        raise BadRun(
            f"--shares {options.shares}: a folder of --data_dir has no pairs left after those set aside and --n_images"
        )
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
        part=(distributed.rank(), distributed.size()),
    )
    if not distributed.is_main():
        return training_set, []
    validation = [training_set.whole(pair) for pair in data.validation_pairs]
    for number, path in enumerate(data.validation_photographs):
        validation.append(training_set.blurred_whole(path, number))
    return training_set, validation


def _some(items, n, seed):
    """Draws `n` of the items by seed and returns them in their order."""
    chosen = np.random.default_rng(seed).permutation(len(items))[:n]
    return [items[i] for i in sorted(chosen)]


def _pairs(folder, options, check):
    try:
        pairs, unmatched = find_pairs(folder, options.blur)
    except NotADirectoryError as error:
        raise BadRun(f"{error}; `deblur-gan organize` or `deblur-gan samples` makes images/train") from None
    if check:
        _require_none(check_pairs(pairs, unmatched, options.n_workers, show_progress=True), folder)
    if not pairs:
        raise BadRun(f"{folder}: holds no pairs")
    return pairs


def _photographs(folder, options, check):
    photographs = find_images(folder)
    if check:
        with ThreadPoolExecutor(options.n_workers) as pool:
            found = pool.map(_problem, photographs)
            problems = tqdm(found, total=len(photographs), desc="checking photographs", leave=False)
            _require_none([problem for problem in problems if problem], folder)
    return photographs


def _problem(path):
    try:
        read_rgb(path)
    except BadImage as error:
        return str(error)
    return None


def _require_none(problems, folder):
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise BadRun(f"{folder}: cannot be trained on for {len(problems)} reasons, which are listed above")


def _identities(pairs, photographs):
    """Returns the set of (device, inode) of all files: the same for one file under several names."""
    paths = [path for pair in pairs for path in (pair.blurred, pair.sharp)]
    return {(status.st_dev, status.st_ino) for status in map(os.stat, [*paths, *photographs])}


def _fingerprint(paths):
    """Returns a str from the names and sizes of files, and from 64 KiB from the middle of each."""
    digest = hashlib.sha256()
    for path in paths:
        if not path.is_file():  # opening a FIFO would wait for ever
            raise BadRun(f"{path}: not a file; remove it from the data")
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 2**16) // 2)
            digest.update(repr((path.name, size, hashlib.sha256(file.read(2**16)).digest())).encode())
    return digest.hexdigest()
