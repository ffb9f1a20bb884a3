"""Draws docs/stages.png: details of restored photographs, one row each, to compare files of weights by eye.

    python docs/draw_stages.py --data_dir images/test --data_dir reds_640x360/val \
        --weight_path weights/generator.h5 --weight_path weights/generator_gan.h5

The columns are blurred, restored by each file, and sharp. Of each photograph the detail is shown that has most edges in
the sharp one, away from the details of the same folder above it, because frames of a recording are alike. It is
enlarged twice without smoothing. The samples come with scikit-image (docs/draw_gallery.py has their authors); REDS is
by Nah et al. 2019 (CC BY 4.0).
"""

import collections
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import sobel, uniform_filter

from deblur_gan import shipped_generator
from deblur_gan.commands import command

DETAIL, ENLARGED, GAP, LABEL = 120, 240, 6, 22


def corner_of_detail(sharp, shown=()):
    """Returns `(left, top)` of the square with the most edges in an image, uint8 `(H, W, 3)`, away from others."""
    grey = sharp.mean(axis=2)
    # Roots, so that one bright line does not outweigh a texture.
    edges = np.sqrt(np.hypot(sobel(grey, 0), sobel(grey, 1)))
    half, away = DETAIL // 2, 3 * DETAIL // 4
    inside = uniform_filter(edges, DETAIL)[half : grey.shape[0] - half, half : grey.shape[1] - half]
    for left, top in shown:
        near = slice(max(top - away, 0), top + away), slice(max(left - away, 0), left + away)
        inside[near] -= edges.max()
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return left, top


@command(help=__doc__)
@click.option("--data_dir", "data_dirs", type=click.Path(exists=True), multiple=True, required=True)
@click.option(
    "--weight_path", "weight_paths", type=click.Path(exists=True), multiple=True, default=[shipped_generator()]
)
@click.option("--n_images", type=click.IntRange(min=1), default=12, help="Photographs, evenly spread over all pairs.")
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).with_name("stages.png"))
def main(data_dirs, weight_paths, n_images, output):
    from draw_gallery import save_if_other

    from deblur_gan.backend import dtype_to_restore_in, start_backend

    start_backend(restoring=True)
    from deblur_gan import deblur, load_generator
    from deblur_gan.data import find_pairs
    from deblur_gan.data.split import evenly
    from deblur_gan.images.photographs import read_rgb

    pairs = evenly([pair for folder in data_dirs for pair in find_pairs(folder)[0]], n_images)
    generators = [load_generator(path, dtype_to_restore_in()) for path in weight_paths]
    step, titles = ENLARGED + GAP, ["blurred", *(Path(path).stem for path in weight_paths), "sharp"]
    page = Image.new("RGB", (len(titles) * step - GAP, LABEL + len(pairs) * step - GAP), "white")
    for column, title in enumerate(titles):
        ImageDraw.Draw(page).text((column * step, 2), title, "black", ImageFont.load_default(14))
    shown = collections.defaultdict(list)
    for row, pair in enumerate(pairs):
        blurred, sharp = read_rgb(pair.blurred), read_rgb(pair.sharp)
        left, top = corner_of_detail(sharp, shown[pair.sharp.parent])
        shown[pair.sharp.parent].append((left, top))
        for column, image in enumerate([blurred, *(deblur(generator, blurred) for generator in generators), sharp]):
            detail = Image.fromarray(image[top : top + DETAIL, left : left + DETAIL])
            detail = detail.resize((ENLARGED, ENLARGED), Image.Resampling.NEAREST)
            page.paste(detail, (column * step, LABEL + row * step))
    save_if_other(page, output)


if __name__ == "__main__":
    main()
