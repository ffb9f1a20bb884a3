"""Pairs of blurred and sharp photographs on disk, made from sharp ones by random camera shake."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage
from PIL import Image
from tqdm import tqdm

from deblur_gan.blur import random_blur
from deblur_gan.files import write_bytes
from deblur_gan.photographs import BadImage, Photograph, find_images, read_photograph, write_photograph

# Photographs inside scikit-image's wheel, and what of each is taken: left, top, right, bottom. Nothing is downloaded.
# No photograph is in both parts.
_SAMPLES = {
    "train": {
        "astronaut_face": ("astronaut.png", (64, 0, 384, 288)),
        "astronaut_helmet": ("astronaut.png", (192, 224, 512, 512)),
        "astronaut_suit": ("astronaut.png", (0, 224, 320, 512)),
        "brick": ("brick.png", (96, 112, 416, 400)),
        "coins": ("coins.png", (0, 0, 384, 303)),
        "grass": ("grass.png", (96, 112, 416, 400)),
        "gravel": ("gravel.png", (96, 112, 416, 400)),
        "motorcycle_engine": ("motorcycle_left.png", (224, 176, 544, 464)),
        "motorcycle_shelf": ("motorcycle_right.png", (400, 0, 720, 288)),
        "motorcycle_wheel": ("motorcycle_left.png", (60, 80, 380, 368)),
    },
    "test": {
        "camera": ("camera.png", (0, 0, 512, 512)),
        "chelsea": ("chelsea.png", (0, 0, 451, 300)),
        "coffee": ("coffee.png", (0, 0, 600, 400)),
        "rocket": ("rocket.jpg", (0, 0, 640, 427)),
    },
}


def blur_folder(input_dir, output_dir, n_per_image=1, seed=0, n_workers=None, save_kernels=False, **ranges):
    """Makes a folder of pairs, as training and testing read it, from a folder of sharp photographs.

    `output_dir/A/<name>.png` is blurred, `output_dir/B/<name>.png` sharp, both 8-bit RGB (or grey where the photograph
    is grey) without transparency. The name is that of the photograph, with a number behind it where `n_per_image` is
    more than 1. The blur of a pair depends on `seed`, the file name and the number alone: not on the other files of
    the folder, nor on `n_workers`. Files of the same name are replaced.

    Args:
        input_dir: str or Path, a folder of photographs in any format that `read_photograph` reads.
        output_dir: str or Path; made where missing.
        n_per_image: int, at least 1, pairs from each photograph.
        seed: int, at least 0.
        n_workers: int, threads that work at the same time; by default as many as there are processor cores.
        save_kernels: bool, write `output_dir/kernels/<name>.png` too: the kernel in the middle of the picture, 16-bit
            grey, its largest value at 65535; divided by its sum it is the kernel again.
        **ranges: `length`, `shake`, `rotation`, `noise_sigma`, `gamma` of `deblur_gan.blur.random_blur`.

    Returns:
        `(n_pairs, failures)`: int, and a list of `BadImage`, one for each file that could not be read.

    Raises:
        NotADirectoryError: if `input_dir` is not a folder.
        ValueError: if it holds no photographs, two of one name, or is the folder A or B that would be written into;
            or if an argument is out of its range. Nothing is written then.
        OSError: if a file cannot be written.
    """
    input_dir, output_dir = Path(input_dir), Path(output_dir)
    random_blur(np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0), **ranges)  # complains before work starts
    if n_per_image < 1:
        raise ValueError(f"n_per_image is {n_per_image}; at least 1 is required")
    if seed < 0:
        raise ValueError(f"seed is {seed}; at least 0 is required")
    paths = find_images(input_dir)
    if not paths:
        raise ValueError(f"{input_dir}: holds no photographs")
    by_stem = {}
    for path in paths:
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise ValueError(f"{path}: would be written to the same file as {other.name}; rename one of the two")
    for name in ("A", "B", "kernels"):
        if (output_dir / name).resolve() == input_dir.resolve():
            raise ValueError(f"{output_dir}: its folder {name} is where the photographs come from; choose another")
    for name in ("A", "B", "kernels") if save_kernels else ("A", "B"):
        (output_dir / name).mkdir(parents=True, exist_ok=True)

    digits = len(str(n_per_image - 1))

    def make_pairs(path):
        try:
            photograph = read_photograph(path)
        except BadImage as error:
            return error
        for i in range(n_per_image):
            name = path.stem if n_per_image == 1 else f"{path.stem}_{i:0{digits}}"
            rng = np.random.default_rng([seed, i, int.from_bytes(os.fsencode(path.name), "big")])
            kernel = _write_pair(output_dir, name, photograph, rng, **ranges)
            if save_kernels:
                _write_kernel(output_dir / "kernels" / f"{name}.png", kernel)
        return None

    # Threads: NumPy, SciPy and Pillow let others run while they compute, and a process would import Keras again.
    with ThreadPoolExecutor(n_workers or os.cpu_count()) as executor:
        futures = [executor.submit(make_pairs, path) for path in paths]
        try:
            failures = [future.result() for future in tqdm(futures, desc="Blurring", unit="photograph")]
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    failures = [failure for failure in failures if failure]
    return (len(paths) - len(failures)) * n_per_image, failures


def write_sample_images(output_dir):
    """Makes a small data set from photographs that come with scikit-image; nothing is downloaded.

    `output_dir/{train,test}/{A,B}/`: 10 and 4 pairs of blurred and sharp photographs, no photograph in both. And
    `output_dir/real/clock_motion.png`, a really motion-blurred photograph, of which there is no sharp version. Always
    the same bytes.

    Args:
        output_dir: str or Path; made where missing.

    Returns:
        `(n_train, n_test)`, the numbers of pairs.

    Raises:
        FileExistsError: if `output_dir/{train,test}` hold other files: samples are not mixed into a data set.
            Nothing is written then.
        BadImage: if the installed scikit-image has come without one of the photographs.
        OSError: if a file cannot be written.
    """
    output_dir = Path(output_dir)
    for part, samples in _SAMPLES.items():
        ours = {output_dir / part / side / f"{name}.png" for side in ("A", "B") for name in samples}
        for path in (output_dir / part).rglob("*"):
            if path.is_file() and path not in ours and not path.name.startswith("."):
                raise FileExistsError(f"{path}: is not a sample image; samples are not mixed with other files")
    photographs = Path(skimage.__file__).parent / "data"
    for part, samples in _SAMPLES.items():
        for side in ("A", "B"):
            (output_dir / part / side).mkdir(parents=True, exist_ok=True)
        for name, (file_name, (left, top, right, bottom)) in samples.items():
            photograph = read_photograph(photographs / file_name)
            crop = replace(photograph, pixels=photograph.pixels[top:bottom, left:right])
            rng = np.random.default_rng(int.from_bytes(name.encode(), "big"))
            _write_pair(output_dir / part, name, crop, rng, length=(10.0, 40.0))
    (output_dir / "real").mkdir(exist_ok=True)
    write_photograph(output_dir / "real" / "clock_motion.png", read_photograph(photographs / "clock_motion.png"))
    return len(_SAMPLES["train"]), len(_SAMPLES["test"])


def _write_pair(output_dir, name, photograph, rng, **ranges):
    """Blurs and writes one pair; returns the kernel."""
    # Grey stays grey: its three channels must not get noise of their own.
    sharp = photograph.pixels[..., :1] if photograph.grey else photograph.pixels
    blurred, kernel = random_blur(sharp, rng, **ranges)
    for side, pixels in (("A", blurred), ("B", sharp)):
        image = Photograph(np.repeat(pixels, 3, axis=-1) if photograph.grey else pixels, grey=photograph.grey)
        write_photograph(output_dir / side / f"{name}.png", image)
    return kernel


def _write_kernel(path, kernel):
    encoded = io.BytesIO()
    Image.fromarray(np.rint(65535 * kernel / kernel.max()).astype(np.uint16)).save(encoded, "PNG")
    write_bytes(path, encoded.getbuffer())
