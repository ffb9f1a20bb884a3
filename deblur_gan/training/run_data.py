"""Which files a run trains on and validates with, and whether they are still the same when it goes on."""

import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deblur_gan.data.pairs import check_pairs, find_pairs
from deblur_gan.data.split import evenly, set_aside
from deblur_gan.images.photographs import find_images
from deblur_gan.training.checkpoint import BadRun


class RunData(NamedTuple):
    """The files of a run.

    Attributes:
        pairs: list of `Pair` to train on.
        photographs: list of Path of sharp ones to train on, blurred on the fly.
        validation_pairs: list of `Pair`.
        validation_photographs: list of Path, to be blurred.
        n_of_sources: list of int, how many of `pairs` are of each folder, in whose order they are, then of photographs,
            if there are any.
    """

    pairs: list
    photographs: list
    validation_pairs: list
    validation_photographs: list
    n_of_sources: list

    def record(self):
        """What must still hold when the run goes on: dict of numbers, names and fingerprints."""
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


def find_data(data_dir, synthetic, val_dir, *, blur, n_images, n_val_images, seed, n_workers):
    """Finds what a run trains on and validates with, as `options.Options` says it.

    Args:
        data_dir, synthetic, val_dir: tuples of folders.
        blur, n_images, n_val_images, seed: as in `Options`.
        n_workers: int, threads that read every pair first, to say what would spoil training; 0 does not.

    Raises:
        BadRun: if a folder holds nothing of use, or pairs that would spoil training, which are listed on stderr.
    """
    by_folder = [_pairs([folder], blur, n_workers) for folder in data_dir]
    pairs = [pair for found in by_folder for pair in found]
    photographs = [path for folder in synthetic for path in find_images(folder)]
    if synthetic and not photographs:
        raise BadRun(f"{', '.join(synthetic)}: no photographs for --synthetic")
    beside = [Path(folder).with_name("val") for folder in data_dir if Path(folder).name == "train"]
    val_dir = val_dir or [folder for folder in beside if folder.is_dir()]
    validation_pairs, validation_photographs = [], []
    if n_val_images and val_dir:
        validation_pairs = _pairs(val_dir, blur, n_workers)
    elif n_val_images and len(pairs) > 1:
        pairs, validation_pairs = set_aside(pairs, seed)
    elif n_val_images and not pairs and len(photographs) > 1:
        validation_photographs = _some(photographs, min(n_val_images, max(1, len(photographs) // 10)), seed)
        photographs = [path for path in photographs if path not in validation_photographs]
    if n_images:
        pairs = _some(pairs, n_images, seed)
        photographs = _some(photographs, n_images, seed)
    trained_on = set(pairs)
    n_of_sources = [sum(pair in trained_on for pair in found) for found in by_folder]
    n_of_sources += [len(photographs)] * bool(photographs)
    return RunData(pairs, photographs, evenly(validation_pairs, n_val_images), validation_photographs, n_of_sources)


def _some(items, n, seed):
    """`n` of the items, drawn by seed, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(items))[:n]
    return [items[i] for i in sorted(chosen)]


def _pairs(folders, blur, n_workers):
    pairs = []
    for folder in folders:
        try:
            found, unmatched = find_pairs(folder, blur)
        except NotADirectoryError as error:
            raise BadRun(
                f"{error}; `deblur-gan organize` makes images/ from GOPRO_Large, "
                "`deblur-gan samples` from a few samples, --data_dir names pairs elsewhere"
            ) from None
        problems = check_pairs(found, unmatched, n_workers, show_progress=True) if n_workers else []
        for problem in problems:
            print(problem, file=sys.stderr)
        if problems:
            raise BadRun(f"{folder}: not fit for training for {len(problems)} reasons, named above")
        if not found:
            raise BadRun(f"{folder}: holds no pairs")
        pairs += found
    return pairs


def _fingerprint(paths):
    """str, of the names and sizes of files, and of 64 KiB from the middle of each."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 2**16) // 2)
            digest.update(repr((path.name, size, hashlib.sha256(file.read(2**16)).digest())).encode())
    return digest.hexdigest()
