"""Draws docs/kinds_of_blur.png: real motion blur above each kind that this package makes.

The real blur is of REDS (Nah et al., CC BY 4.0, https://seungjunnah.github.io/Datasets/reds.html), halved. The frames
are of DAVIS 2016 (Perazzi et al., CC BY 4.0) and of a walk with a GoPro camera (MIT or Apache). The photographs come
with scikit-image: coffee by Rachel Michetti, a cat by Stefan van der Walt, an astronaut of NASA, a rocket of SpaceX
(CC0 or public domain).
"""

from pathlib import Path

import click
import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

from deblur_gan.commands import command

CELL, GAP, LABEL, COLUMNS = (228, 152), 6, 20, 4
STILL = {"length": None, "long_extent": None, "tremor": None, "rotation": None, "zoom": None, "moving": None}
STILL |= {"lights": None, "exposures": None, "noise_sigma": None, "jpeg": None, "gamma": 2.2}

# File and upper left corner of what is shown; of a recording, the frame's file.
REAL = (
    ("ad020_00000016", 20, 120),
    ("ad020_00000038", 330, 60),
    ("fb_train000rid", 200, 100),
    ("ad020_00000060", 300, 130),
)
RECORDED = (
    ("davis_car-shadow/00015", 330, 150),
    ("davis_tennis/00030", 190, 50),
    ("davis_horsejump-high/00020", 250, 130),
)
PHOTOGRAPHS = (("coffee.png", 250, 130), ("chelsea.png", 110, 60), ("astronaut.png", 130, 20), ("rocket.jpg", 230, 240))


@command(help=__doc__)
@click.argument("reds", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("davis", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--output",
    default=Path(__file__).parent / "kinds_of_blur.png",
    show_default="docs/kinds_of_blur.png of the repository",
    help="PNG file to write.",
)
def draw_kinds_of_blur(reds, davis, output):
    """REDS is a folder of blurred frames of 640x360, DAVIS one of folders of frames."""
    from deblur_gan.blur.camera import random_blur
    from deblur_gan.blur.exposure import average_frames
    from deblur_gan.blur.optical_flow import one_opencv_thread, optical_flow, random_flow_blur
    from deblur_gan.blur.ranges import KINDS
    from deblur_gan.images.photographs import find_images, read_rgb

    photographs = Path(skimage.__file__).parent / "data"

    def of_photograph(column, **ranges):
        name, left, top = PHOTOGRAPHS[column]
        pixels, rng = read_rgb(photographs / name), np.random.default_rng(column + 7)
        blurred, kernel = random_blur(pixels, rng, **ranges)
        return cell(blurred, left, top, kernel)

    def of_recording(column):
        name, left, top = RECORDED[column]
        path = davis / f"{name}.jpg"
        files = find_images(path.parent)
        frame, following = (read_rgb(file) for file in files[files.index(path) :][:2])
        quiet = {"noise_sigma": None, "jpeg": None, "gamma": 2.2, "long_length": None}
        with one_opencv_thread():
            flow = optical_flow(frame, following)
        return cell(random_flow_blur(frame, flow, np.random.default_rng(column), length=16, **quiet), left, top)

    real = [next(file for file in find_images(reds) if file.stem.startswith(name)) for name, _, _ in REAL]
    walk = [Image.fromarray(read_rgb(file)).reduce(2) for file in find_images(davis / "gopro_walk")[60:71]]
    averaged = average_frames([np.asarray(frame) for frame in walk], np.random.default_rng(0))
    y, x = np.mgrid[:512, :512]
    head = np.clip(2.5 - 2 * np.hypot((x - 223) / 75, (y - 115) / 100), 0, 1)
    hand = {**KINDS["handheld"], **STILL, "extent": (10, 20)}
    rest = {**hand, "extent": 2}
    rows = {
        "Real blur: averaged frames of a camera at high speed (REDS)": [
            cell(read_rgb(file), left, top) for file, (_, left, top) in zip(real, REAL, strict=True)
        ],
        "blur_recordings.py: along the optical flow (DAVIS); the last: eleven frames of a walk averaged": [
            *(of_recording(column) for column in range(3)),
            cell(averaged, 80, 30),
        ],
        "blur_images.py: the path of a hand; kernels at their size in the corner": [
            of_photograph(column, **hand) for column in range(COLUMNS)
        ],
        "Turn by 3 degrees; zoom by 4 %; something in front that moves; lights beyond white": [
            of_photograph(0, **{**rest, "rotation": 3}),
            of_photograph(1, **{**rest, "zoom": 0.04}),
            of_photograph(2, **{**rest, "moving": 16, "mask": head}),
            of_photograph(3, **{**hand, "lights": 2, "extent": 14}),
        ],
        "The paths of the paper": [
            of_photograph(column, **{**KINDS["paper"], "noise_sigma": 0}) for column in range(COLUMNS)
        ],
    }
    width, height = COLUMNS * (CELL[0] + GAP) - GAP, len(rows) * (LABEL + CELL[1] + GAP) - GAP
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for row, (label, cells) in enumerate(rows.items()):
        y = row * (LABEL + CELL[1] + GAP)
        draw.text((0, y + 1), label, "black", ImageFont.load_default(14))
        for column, picture in enumerate(cells):
            page.paste(picture, (column * (CELL[0] + GAP), y + LABEL))
    # A quarter of the levels: less than half the size of the file, and nothing to be seen of it.
    page.point([min(255, 4 * round(value / 4)) for value in range(256)] * 3).save(output, optimize=True)


def cell(pixels, left, top, kernel=None):
    """A part of a picture, with its kernel in the corner."""
    picture = Image.fromarray(pixels).crop((left, top, left + CELL[0], top + CELL[1]))
    if kernel is not None:
        inset = Image.fromarray(np.rint(255 * np.sqrt(kernel / kernel.max())).astype(np.uint8))
        picture.paste(inset, (0, 0))
    return picture


if __name__ == "__main__":
    draw_kinds_of_blur()
