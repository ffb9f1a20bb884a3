"""Draws docs/camera_shake.png, the page of pictures in the README: paths, kernels, and photographs blurred by them.

The photographs come with scikit-image: a cup of coffee by Rachel Michetti (CC0), a wall from CC0 Textures (CC0).
"""

from pathlib import Path

import click
import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

from deblur_gan.commands import command

CELL, GAP, LABEL, COLUMNS = 171, 8, 22, 6
ZOOM = 3  # screen pixels for a pixel of a kernel
SPOON = (265, 190, 265 + CELL, 190 + CELL)  # its highlights show the kernels
LOWER_LEFT = (0, 256, 350, 512)  # the middle of the picture is in its upper right
ROLLS = (0, 2, 5)


@command(help=__doc__)
@click.option(
    "--output",
    default=Path(__file__).parent / "camera_shake.png",
    show_default="docs/camera_shake.png of the repository",
    help="PNG file to write.",
)
def draw_camera_shake(output):
    from deblur_gan.blur.camera import blur_image, motion_kernel
    from deblur_gan.blur.exposure import blur_light, develop, time_weights, to_light
    from deblur_gan.blur.trajectories import random_roll, random_trajectory
    from deblur_gan.images.photographs import read_rgb

    photographs = Path(skimage.__file__).parent / "data"
    coffee, wall = read_rgb(photographs / "coffee.png"), read_rgb(photographs / "brick.png")
    width, low = COLUMNS * (CELL + GAP) - GAP, LOWER_LEFT[3] - LOWER_LEFT[1]
    page = Image.new("RGB", (width, 4 * LABEL + 3 * CELL + low + 3 * GAP), "white")
    draw = ImageDraw.Draw(page)
    tops, y = [], 0
    for label, height in (
        ("Random paths of 60 px from blue to red; three with shake 0.001, three with 0.005", CELL),
        ("Their kernels (square root of the weights)", CELL),
        ("A detail of a photograph, blurred by them", CELL),
        (
            "A quarter of a photograph, blurred by a path of 12 px and a roll of {}, {} and {} degrees".format(*ROLLS),
            low,
        ),
    ):
        draw.text((0, y + 2), label, "black", ImageFont.load_default(14))
        tops.append(y + LABEL)
        y += LABEL + height + GAP

    for column in range(COLUMNS):
        x = column * (CELL + GAP)
        rng = np.random.default_rng(column + 3)
        trajectory = random_trajectory(rng, shake=0.001 if column < COLUMNS // 2 else 0.005)
        kernel = motion_kernel(trajectory)
        page.paste(_draw_path(trajectory), (x, tops[0]))
        page.paste(_draw_kernel(kernel), (x, tops[1]))
        page.paste(Image.fromarray(blur_image(coffee, kernel, gamma=2.2)).crop(SPOON), (x, tops[2]))

    rng = np.random.default_rng(4)
    trajectory = random_trajectory(rng, 12.0, shake=0.003)
    roll = random_roll(rng, 1.0, shake=0.003)
    for column, extent in enumerate(ROLLS):
        turn = np.radians(extent) * 1j
        light = blur_light(to_light(wall, 2.2), trajectory, time_weights(len(trajectory)), roll, turn)
        blurred = develop(light, 2.2)
        page.paste(Image.fromarray(blurred).crop(LOWER_LEFT), (column * (LOWER_LEFT[2] - LOWER_LEFT[0] + GAP), tops[3]))
    page.save(output, optimize=True)


def _draw_path(trajectory):
    smooth = 4  # drawn larger and made smaller, so that lines are smooth
    cell = Image.new("RGB", (CELL * smooth, CELL * smooth), (244, 244, 244))
    draw = ImageDraw.Draw(cell)
    points = ((trajectory - trajectory.mean(axis=0)) * ZOOM + CELL / 2) * smooth
    for i in range(0, len(points) - 1, 8):
        age = i / len(points)
        colour = (int(220 * age), 60, int(200 * (1 - age)))
        draw.line([tuple(point) for point in points[i : i + 9]], colour, 2 * smooth, joint="curve")
    return cell.resize((CELL, CELL), Image.Resampling.BOX)


def _draw_kernel(kernel):
    grey = np.rint(255 * np.sqrt(kernel / kernel.max())).astype(np.uint8)
    picture = Image.fromarray(grey).resize((len(grey) * ZOOM, len(grey) * ZOOM), Image.Resampling.NEAREST)
    cell = Image.new("L", (CELL, CELL))
    cell.paste(picture, ((CELL - picture.width) // 2, (CELL - picture.height) // 2))
    return cell


if __name__ == "__main__":
    draw_camera_shake()
