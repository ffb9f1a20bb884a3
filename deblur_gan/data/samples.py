"""A small data set made from photographs that come with scikit-image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import skimage

from deblur_gan.blur.camera import random_blur
from deblur_gan.blur.make_pairs import drop_grey_copies, write_pair
from deblur_gan.images.photographs import Photograph, encoded, read_photograph, write_photograph

# Photographs in scikit-image's wheel, and the part of each: left, top, right, bottom. The two parts share none.
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
_PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


def write_sample_images(output_dir):
    """Makes a small data set from photographs that come with scikit-image; nothing is downloaded.

    It contains `output_dir/{train,test}/{A,B}/`, 10 and 4 pairs of different photographs, and
    `output_dir/real/clock_motion.png`, a photograph with real motion blur and without a sharp version. The bytes are
    always the same.

    Returns `(n_train, n_test)`, the numbers of pairs. Raises FileExistsError if `output_dir/{train,test}` contain other
    files, and writes nothing then; BadImage if the installed scikit-image lacks one of the photographs.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_sample_images(folder)
    (10, 4)
    """
    output_dir = Path(output_dir)
    for part, samples in _SAMPLES.items():
        ours = {output_dir / part / side / f"{name}.png" for side in ("A", "B") for name in samples}
        for path in (output_dir / part).rglob("*"):
            if path.is_file() and path not in ours and not path.name.startswith("."):
                raise FileExistsError(f"{path}: is not a sample image; choose a folder without other images")
    for part, samples in _SAMPLES.items():
        for side in ("A", "B"):
            (output_dir / part / side).mkdir(parents=True, exist_ok=True)
        for name in samples:
            write_pair(output_dir / part, name, *_sample_pair(part, name))
    (output_dir / "real").mkdir(exist_ok=True)
    write_photograph(output_dir / "real" / "clock_motion.png", read_photograph(_PHOTOGRAPHS / "clock_motion.png"))
    return len(_SAMPLES["train"]), len(_SAMPLES["test"])


def blurred_sample(name):
    """Returns a blurred photograph of the test part, as `write_sample_images` writes it: bytes of a PNG file.

    Example:
        >>> restored = restore(blurred_sample("chelsea"))
    """
    blurred, _ = _sample_pair("test", name)
    return encoded(Photograph(np.broadcast_to(blurred, (*blurred.shape[:2], 3)), grey=blurred.shape[2] == 1))


def _sample_pair(part, name):
    """Returns `(blurred, sharp)`: uint8 `(H, W, 3)`, or `(H, W, 1)` of a grey photograph."""
    file_name, (left, top, right, bottom) = _SAMPLES[part][name]
    photograph = read_photograph(_PHOTOGRAPHS / file_name)
    sharp = drop_grey_copies(replace(photograph, pixels=photograph.pixels[top:bottom, left:right]))
    rng = np.random.default_rng(int.from_bytes(name.encode(), "big"))
    return random_blur(sharp, rng, length=(10.0, 40.0))[0], sharp
