"""Pairs of blurred and sharp photographs: found by name, checked, set aside, laid out anew."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from deblur_gan.files import printable, whole_file
from deblur_gan.photographs import BadImage, find_images, read_rgb


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


def set_aside(pairs, seed, share=0.1):
    """Splits off a few pairs to validate with, by scene, so that no neighbouring frame is trained on.

    A scene is a sequence of a GoPro tree, or, elsewhere, the files whose names differ only in the digits behind the
    last underscore. Scenes of more than a quarter of all pairs are not given away; where there are no others, single
    pairs are set aside.

    Args:
        pairs: list of `Pair`.
        seed: int, decides which.
        share: float, about how much of the pairs to set aside; at least one pair is, of two or more.

    Returns:
        `(training, validation)`: two lists of `Pair` in the order of `pairs`.
    """
    scenes = {}
    for pair in pairs:
        scenes.setdefault(_scene(pair), []).append(pair)
    candidates = [scene for scene in scenes.values() if len(scene) <= len(pairs) / 4] or [[pair] for pair in pairs]
    wanted = min(max(1, round(share * len(pairs))), len(pairs) - 1)
    validation = set()
    for number in np.random.default_rng(seed).permutation(len(candidates)):
        if len(validation) >= wanted:
            break
        validation.update(candidates[number])
    return [pair for pair in pairs if pair not in validation], [pair for pair in pairs if pair in validation]


def _scene(pair):
    stem, underscore, number = pair.name.rpartition("_")
    return pair.sequence or (stem if underscore and number.isdigit() else pair.name)


def organize_gopro(dir_in, dir_out, blur="blur", show_progress=False):
    """Lays out the GoPro tree `{train,test}/<sequence>/{blur,blur_gamma,sharp}/` as `{train,test}/{A,B}/`.

    A file becomes `<sequence>_<frame>.png`, in `A/` if blurred and in `B/` if sharp. It is a hard link where the file
    system allows it (no space is taken), else a copy. Files that are there already are passed over, so an interrupted
    call is simply repeated.

    Args:
        dir_in: str or Path, the unpacked `GOPRO_Large`.
        dir_out: str or Path, made where it is missing.
        blur: "blur" or "blur_gamma", which blurred frames to take.
        show_progress: bool, a progress bar on stderr.

    Returns:
        dict of the number of pairs in "train" and "test", those that `dir_in` has.

    Raises:
        NotADirectoryError: if `dir_in` is not such a tree.
        FileNotFoundError: if a frame has no counterpart; nothing is written then.
        FileExistsError: if another file stands where one is to be written; it is left alone.
    """
    dir_in, dir_out = Path(dir_in), Path(dir_out)
    parts = [part for part in ("train", "test") if (dir_in / part).is_dir()]
    if not parts:
        raise NotADirectoryError(f"{dir_in}: holds neither train/ nor test/; the unpacked GOPRO_Large is required")
    found = {}
    for part in parts:
        found[part], unmatched = find_pairs(dir_in / part, blur)
        if unmatched:
            raise FileNotFoundError(
                f"{unmatched[0]}: has no counterpart, as {len(unmatched)} files of {dir_in / part}; "
                "is it completely unpacked?"
            )
    links = []
    for part, pairs in found.items():
        for pair in pairs:
            prefix = f"{pair.sequence}_" if pair.sequence else ""
            for letter, source in (("A", pair.blurred), ("B", pair.sharp)):
                links.append((source, dir_out / part / letter / f"{prefix}{source.name}"))
    for folder in {target.parent for _, target in links}:
        folder.mkdir(parents=True, exist_ok=True)
    for source, target in tqdm(links, desc="organizing", unit=" files", disable=not show_progress, leave=False):
        _link_or_copy(source, target)
    return {part: len(pairs) for part, pairs in found.items()}


def _link_or_copy(source, target):
    source = Path(os.path.realpath(source, strict=True))  # a data set may itself be made of links, relative ones too
    if target.exists():
        there, wanted = target.stat(), source.stat()
        if (there.st_size, there.st_mtime_ns) != (wanted.st_size, wanted.st_mtime_ns):
            raise FileExistsError(f"{target}: another file than {source} stands there; move it away first")
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with whole_file(target) as temporary:
            shutil.copy2(source, temporary)
