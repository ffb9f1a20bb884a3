"""Draws docs/large_photograph.jpg: a photograph of 12 megapixels, restored at its own size and at the working size.

    python docs/draw_large_photograph.py reds_640x360/val/blur/fb_test003rid_00000000.jpg

The photograph is a blurred frame that is enlarged to 4000x3000, so that its blur is as long as in a phone's photograph.
"""

from pathlib import Path

import click
import numpy as np
from PIL import Image

from deblur_gan import shipped_generator
from deblur_gan.commands import command

SIZE = 4000, 3000
# Parts that are shown, as (left, top, right, bottom).
PARTS = [(800, 700, 1700, 1300), (2400, 1600, 3300, 2200)]


@command()
@click.argument("frame", type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), default=Path(__file__).parent / "large_photograph.jpg")
def main(frame, output):
    """Draws parts of FRAME, enlarged to 12 megapixels: blurred, restored at the own size, at the working size."""
    from deblur_gan.backend import dtype_to_restore_in, start_backend

    start_backend(restoring=True)
    from deblur_gan import deblur, load_generator
    from deblur_gan.images.photographs import read_rgb

    image = Image.fromarray(read_rgb(frame))
    height = round(image.height * SIZE[1] / image.height)
    width = round(image.width * SIZE[1] / image.height)
    left = (width - SIZE[0]) // 2
    enlarged = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, 0, left + SIZE[0], SIZE[1]))
    blurred = np.asarray(enlarged)
    generator = load_generator(shipped_generator(), dtype_to_restore_in())
    shown = [blurred, deblur(generator, blurred, scale=1), deblur(generator, blurred)]
    rows = [[Image.fromarray(pixels).crop(part).resize((450, 300)) for pixels in shown] for part in PARTS]
    table = np.vstack(
        [np.hstack([np.pad(cell, ((0, 6), (0, 6), (0, 0)), constant_values=255) for cell in row]) for row in rows]
    )
    Image.fromarray(table[:-6, :-6]).save(output, quality=92)


if __name__ == "__main__":
    main()
