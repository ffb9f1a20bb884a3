"""Finds pairs of blurred and sharp photographs by name, and checks them."""

import os
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from deblur_gan.files import printable
from deblur_gan.images.photographs import BadImage, find_images, read_rgb

# Words in the names of blurred and of sharp files and folders.
_WORDS = {"blurred": "blur|blurred|blur_gamma|blur_jpeg|input", "sharp": "sharp|gt|target"}
_AFFIX = re.compile("^({0})_|_({0})$".format("|".join(_WORDS.values())))


class Pair(NamedTuple):
    """The Paths of a blurred photograph and its sharp counterpart.

    `name` is what both file names share, without extension and words such as `_blur`. `sequence` is the folder of a
    data set of sequences that the pair belongs to, "" elsewhere. It is the end of a path, such as `train/GOPR1`, where
    a list has pairs of the same name in several folders of the same name.
    """

    name: str
    sequence: str
    blurred: Path
    sharp: Path


def find_pairs(data_dir, blur="blur"):
    """Pairs blurred and sharp files by name, never by position: a missing file must not shift the rest.

    Accepted layouts:

    - two folders: `A/` and `B/`; `blur/` and `sharp/` or `gt/`; `input/` and `target/`; `<name>_blur/` and
      `<name>_sharp/` (REDS). Both contain files, or both contain folders of files with the same names;
    - a folder of sequences, each with `blur/` and `sharp/` (GoPro) or `gt/` (RealBlur);
    - one folder with `<name>_blur.*` and `<name>_sharp.*`;
    - a text file with a blurred and a sharp path in each line, in any order, relative to its folder (RealBlur's lists).

    Words such as `_blur` and `gt_` in file names are ignored, so that `blur_1.png` matches `gt_1.png`.

    Args:
        data_dir: str or Path, a folder or a text file.
        blur: "blur" or "blur_gamma", which blurred folder to read if there is more than one, as in GoPro.

    Returns:
        `(pairs, unmatched)`: list of `Pair`, sorted by sequence and name, and sorted list of the Paths that have no
        counterpart or share their name with another file of their folder.

    Raises:
        NotADirectoryError: if `data_dir` does not exist or has none of the layouts with this `blur`, or if a line of
            the list is no pair or names the pair of an earlier line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("1_blur.png", "1_sharp.png", "2_blur.png"):
    ...         Path(folder, name).touch()
    ...     pairs, unmatched = find_pairs(folder)
    >>> [pair.name for pair in pairs], [path.name for path in unmatched]
    (['1'], ['2_blur.png'])
    """
    data_dir = Path(data_dir)
    if data_dir.is_file():
        return _read_list(data_dir), []
    if not data_dir.is_dir():
        raise NotADirectoryError(f"{data_dir}: no such folder or list; name one with pairs")

    names = sorted(path.name for path in data_dir.iterdir() if path.is_dir())
    prefixes = [name.removesuffix("_sharp") for name in names if name.endswith("_sharp")]
    sides = [(blur, "sharp"), (blur, "gt"), *((f"{prefix}_{blur}", f"{prefix}_sharp") for prefix in prefixes)]
    if blur == "blur":
        sides.insert(0, ("A", "B"))
        sides += [("input", "target"), *((f"{prefix}_blur_jpeg", f"{prefix}_sharp") for prefix in prefixes)]
    sequences = {}
    for name in names:
        sharp = "sharp" if (data_dir / name / "sharp").is_dir() else "gt"
        sequences[name] = data_dir / name / blur, data_dir / name / sharp
    whole = {name for name, folders in sequences.items() if all(folder.is_dir() for folder in folders)}
    for blurred, sharp in sides:
        # Scenes may be called A and B.
        if blurred in names and sharp in names and not whole & {blurred, sharp}:
            return _match_folders("", data_dir / blurred, data_dir / sharp)
    if whole:
        # Those that are not whole are among them: their files have no counterpart.
        return _concatenate(_match_folders(name, *folders) for name, folders in sequences.items())
    files = find_images(data_dir)
    blurred, sharp = ([file for file in files if file.stem.endswith(word)] for word in (f"_{blur}", "_sharp"))
    if blurred and sharp:
        return _match("", blurred, sharp)
    if blur != "blur":
        raise NotADirectoryError(f"{data_dir}: no pairs found; {blur} requires {blur}/ and sharp/, also in sequences")
    raise NotADirectoryError(
        f"{data_dir}: no pairs found; use A/ and B/, blur/ and sharp/ or gt/ (also in folders of sequences), input/ "
        "and target/, X_blur and X_sharp, or a list of paths"
    )


def _match_folders(sequence, blurred_dir, sharp_dir):
    """Pairs the files of two folders, or of the folders in them if they contain no files."""
    blurred, sharp = _images_in(blurred_dir), _images_in(sharp_dir)
    if blurred or sharp or sequence:
        return _match(sequence, blurred, sharp)
    names = sorted({path.name for side in (blurred_dir, sharp_dir) for path in side.iterdir() if path.is_dir()})
    return _concatenate(_match(name, *(_images_in(side / name) for side in (blurred_dir, sharp_dir))) for name in names)


def _images_in(folder):
    return find_images(folder) if folder.is_dir() else []


def _concatenate(found):
    found = list(found)
    return [pair for pairs, _ in found for pair in pairs], [path for _, unmatched in found for path in unmatched]


def _match(sequence, blurred, sharp):
    shared = {path.stem for path in blurred} & {path.stem for path in sharp}
    by_name = {}
    for side, paths in enumerate((blurred, sharp)):
        for path in paths:
            name = path.stem if path.stem in shared else _AFFIX.sub("", path.stem)
            by_name.setdefault(name, ([], []))[side].append(path)
    pairs, unmatched = [], []
    for name, (of_blurred, of_sharp) in sorted(by_name.items()):
        if len(of_blurred) == len(of_sharp) == 1:
            pairs.append(Pair(name, sequence, of_blurred[0], of_sharp[0]))
        else:
            unmatched += of_blurred + of_sharp
    return pairs, sorted(unmatched)


def _read_list(file):
    """Reads the pairs of a text file, in the order of its lines."""
    pairs, folders, numbers = [], [], {}
    with open(file, encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            paths = [Path(name) for name in (line.strip().split("\t") if "\t" in line else line.split())[:2]]
            hints = [(_side(path.parent.name), _side(path.parent.parent.name), _side(path.stem)) for path in paths]
            by_side = {next(filter(None, hint), None): path for hint, path in zip(hints, paths, strict=True)}
            if by_side.keys() == {"blurred", "sharp"}:
                blurred, sharp = by_side["blurred"], by_side["sharp"]
                first = numbers.setdefault((blurred, sharp), number)
                if first != number:
                    raise NotADirectoryError(f"{file}: line {number} names the same pair as line {first}; remove one")
                folder = blurred.parent.parent if _side(blurred.parent.name) else blurred.parent
                folders.append(os.path.abspath(file.parent / folder))
                name = _AFFIX.sub("", blurred.stem)
                pairs.append(Pair(name, folder.name, file.parent / blurred, file.parent / sharp))
            elif paths:
                raise NotADirectoryError(
                    f"{file}: line {number} is no pair of paths; one must have blur, input or A in the name of its "
                    "folder or file, the other sharp, gt, target or B"
                )
    return _tell_apart(pairs, folders)


def _tell_apart(pairs, folders):
    """Lengthens the sequences of several folders that would give two pairs the same sequence and name.

    All pairs of a folder keep one sequence: it is a scene, of which no part may be trained on and another not.
    """
    first, clashing, folders_of = {}, set(), defaultdict(set)
    for pair, folder in zip(pairs, folders, strict=True):
        folders_of[pair.sequence].add(folder)
        if first.setdefault((pair.sequence, pair.name), folder) != folder:
            clashing.add(pair.sequence)
    longer = {}
    for paths in map(folders_of.get, clashing):
        n_parts, ends = 0, {}
        while len(set(ends.values())) < len(paths) and n_parts <= max(path.count(os.sep) for path in paths):
            n_parts += 1
            ends = {path: "/".join(Path(path).parts[1:][-n_parts:]) for path in paths}
        longer.update(ends)
    return [
        pair._replace(sequence=longer[folder]) if pair.sequence in clashing else pair
        for pair, folder in zip(pairs, folders, strict=True)
    ]


def _side(name):
    """Returns "blurred" or "sharp" if the name of a file or folder shows it, else None."""
    for side, letter in (("blurred", "A"), ("sharp", "B")):
        if name == letter or re.search(f"(^|_)({_WORDS[side]})(_|$)", name):
            return side
    return None


def check_pairs(pairs, unmatched=(), n_workers=4, show_progress=False):
    """Reads every file once and returns what would spoil training.

    Args:
        pairs: list of `Pair`.
        unmatched: list of Path without a counterpart, as `find_pairs` returns it.
        n_workers: int, threads.
        show_progress: bool, a progress bar on stderr.

    Returns:
        list of str, one line for each problem: no counterpart, not readable, unequal sizes, or blurred and sharp equal.

    >>> check_pairs([], [Path("A/1.png")])
    ['A/1.png: no single counterpart of this name; it cannot be paired']
    """
    problems = [f"{path}: no single counterpart of this name; it cannot be paired" for path in unmatched]
    with ThreadPoolExecutor(n_workers) as pool:
        found = pool.map(_find_problems, pairs)
        for problem in tqdm(found, total=len(pairs), desc="checking pairs", disable=not show_progress, leave=False):
            problems += problem
    return [printable(problem) for problem in problems]


def _find_problems(pair):
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
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in pixels]
        return [f"{pair.blurred}: is {sizes[0]}, but {pair.sharp} is {sizes[1]}; equal sizes are required"]
    if np.array_equal(blurred, sharp):
        return [f"{pair.blurred}: the same picture as {pair.sharp}; a blurred one is required"]
    return []
