"""Prints the table of docs/restoring.md: the gain in PSNR at several working sizes, for photographs of several sizes.

    python docs/measure_working_size.py --data_dir reds_640x360/val --enlarge 1 --enlarge 3

Both images of each pair are enlarged first, so that the blur becomes longer by the same factor, as in the photographs
of a camera with more pixels.
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image

from deblur_gan import shipped_generator
from deblur_gan.commands import command


def enlarged(path, factor):
    """Reads a photograph and enlarges it, bicubic: uint8 `(H, W, 3)`."""
    from deblur_gan.images.photographs import read_rgb

    image = Image.fromarray(read_rgb(path))
    size = round(image.width * factor), round(image.height * factor)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


@command()
@click.option("--data_dir", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of pairs.")
@click.option("--weight_path", type=click.Path(exists=True, path_type=Path), default=shipped_generator)
@click.option("--enlarge", type=float, multiple=True, default=[1, 2, 3, 4, 6], help="Factor to the size of the pairs.")
@click.option("--side", type=int, multiple=True, default=[480, 640, 960, 1280], help="Long side of the working copy.")
@click.option("--n_images", type=click.IntRange(min=1), help="Pairs, evenly spread.  [default: all]")
def main(data_dir, weight_path, enlarge, side, n_images):
    """Prints the mean gain in PSNR of pairs, by their size and the size of the working copy."""
    from deblur_gan.backend import dtype_to_restore_in, start_backend

    start_backend(restoring=True)
    from deblur_gan.data import find_pairs
    from deblur_gan.data.split import evenly
    from deblur_gan.evaluation.measure import measure, summarize
    from deblur_gan.weights import load_generator

    generator = load_generator(weight_path, dtype_to_restore_in())
    pairs, _ = find_pairs(data_dir)
    pairs = evenly(pairs, n_images or len(pairs))
    click.echo("| long side | " + " | ".join(f"{long_side} px" for long_side in side) + " | `auto` |")
    click.echo("|---|" + "---:|" * (len(side) + 1))
    for factor in enlarge:
        images = [(pair.name, *(enlarged(path, factor) for path in (pair.blurred, pair.sharp))) for pair in pairs]
        own_side = max(images[0][1].shape)
        known, gains = {}, []
        for scale in [*(long_side / own_side for long_side in side), "auto"]:
            rows = measure(generator, images, scale=scale, metrics=("psnr",), blurred_scores=known)
            gains.append(summarize(list(rows))["gain"]["psnr"])
        click.echo(f"| {own_side} px | " + " | ".join(f"{gain:+.2f}" for gain in gains) + " |")


if __name__ == "__main__":
    main()
