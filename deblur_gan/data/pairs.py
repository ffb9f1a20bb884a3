"""Pairs of blurred and sharp photographs: found by name, checked, set aside, laid out anew."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from deblur_gan.files import printable
from deblur_gan.images.photographs import BadImage, find_images, read_rgb


class Pair(NamedTuple):
    """A blurred photograph and its sharp counterpart.

    Attributes:
        name: str, the file name without extension that both share.
        sequence: str, the folder of a GoPro tree it belongs to; "" elsewhere.
        blurred: Path.
        sharp: Path.
    """

    name: str
    sequence: str
    blurred: Path
    sharp: Path


def find_pairs(data_dir, blur="blur"):
    """Pairs blurred and sharp files by name, never by position: a missing file must not shift the rest.

    Three layouts are read in place: `A/` (blurred) and `B/` (sharp); `blur/` and `sharp/`; the GoPro tree
    `<sequence>/{blur,blur_gamma,sharp}/`.

    Args:
        data_dir: str or Path, the folder that holds them.
        blur: "blur" or "blur_gamma", which blurred folder of a GoPro tree (or of `blur/` and `sharp/`).
            With `A/` and `B/` there is nothing to choose: "blur".

    Returns:
        `(pairs, unmatched)`: list of `Pair`, sorted by sequence and name, and sorted list of the Paths that have no
        counterpart or share their name with another file of their folder.

    Raises:
        NotADirectoryError: if `data_dir` is not a folder, or none of the layouts, or has no `blur`.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise NotADirectoryError(f"{data_dir}: no such folder")
    if (data_dir / "A").is_dir() and (data_dir / "B").is_dir():
        if blur != "blur":
            raise NotADirectoryError(f"{data_dir}: holds A/ and B/, of one blur; {blur} requires {blur}/ and sharp/")
        return _match("", data_dir / "A", data_dir / "B")
    if (data_dir / blur).is_dir() and (data_dir / "sharp").is_dir():
        return _match("", data_dir / blur, data_dir / "sharp")
    sequences = sorted(
        folder for folder in data_dir.iterdir() if (folder / blur).is_dir() and (folder / "sharp").is_dir()
    )
    if not sequences:
        raise NotADirectoryError(
            f"{data_dir}: holds neither A/ and B/, nor {blur}/ and sharp/, nor folders with {blur}/ and sharp/ in them"
        )
    pairs, unmatched = [], []
    for folder in sequences:
        found, left_over = _match(folder.name, folder / blur, folder / "sharp")
        pairs += found
        unmatched += left_over
    return pairs, unmatched


def _match(sequence, blurred_dir, sharp_dir):
    blurred, sharp = _by_name(blurred_dir), _by_name(sharp_dir)
    pairs, unmatched = [], []
    for name in sorted(blurred.keys() | sharp.keys()):
        of_blurred, of_sharp = blurred.get(name, []), sharp.get(name, [])
        if len(of_blurred) == len(of_sharp) == 1:
            pairs.append(Pair(name, sequence, of_blurred[0], of_sharp[0]))
        else:
            unmatched += of_blurred + of_sharp
    return pairs, sorted(unmatched)


def _by_name(folder):
    files = {}
    for path in find_images(folder):
        files.setdefault(path.stem, []).append(path)
    return files


def check_pairs(pairs, unmatched=(), n_workers=4, show_progress=False):
    """Reads every file once and says what would spoil training.

    Args:
        pairs: list of `Pair`.
        unmatched: list of Path without a counterpart, as `find_pairs` returns it.
        n_workers: int, files that are decoded at a time.
        show_progress: bool, a progress bar on stderr.

    Returns:
        list of str, one line for each problem, naming its files: no counterpart, not readable, unequal sizes, or
        blurred and sharp the same picture.
    """
    problems = [f"{path}: no single counterpart of this name; it cannot be paired" for path in unmatched]
    with ThreadPoolExecutor(n_workers) as pool:
        found = pool.map(_problem, pairs)
        for problem in tqdm(found, total=len(pairs), desc="checking pairs", disable=not show_progress, leave=False):
            problems += problem
    return [printable(problem) for problem in problems]


def _problem(pair):
    pixels, problems = [], []
    for path in (pair.blurred, pair.sharp):
        try:
            pixels.append(read_rgb(path))
        except BadImage as error:
            problems.append(str(error))
    if problems:
        return problems
    blurred, sharp = pixels
    if blurred.shape != sharp.shape:
        height, width = sharp.shape[:2]
        found = f"{blurred.shape[1]}x{blurred.shape[0]}"
        return [f"{pair.blurred}: is {found}, but {pair.sharp} is {width}x{height}; equal sizes are required"]
    if np.array_equal(blurred, sharp):
        return [f"{pair.blurred}: the same picture as {pair.sharp}; a blurred one is required"]
    return []
