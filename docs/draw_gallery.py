"""Draws docs/gallery.png, the pictures of the README: details of sample photographs, blurred, restored and sharp.

The photographs come with scikit-image: chelsea and the clock by Stefan van der Walt (CC0, public domain), the cup of
coffee by Rachel Michetti (CC0), the rocket by SpaceX (CC0). The clock was blurred by a moving camera and has no sharp
version; the others were blurred by `write_sample_images` and are test photographs.
"""

import tempfile
from pathlib import Path

import click
from PIL import Image, ImageChops, ImageDraw, ImageFont

from deblur_gan import shipped_generator

ROOT = Path(__file__).resolve().parent.parent
DETAIL, GAP, LABEL = 200, 6, 22
DETAILS = {"chelsea": (80, 60), "coffee": (210, 100), "rocket": (180, 150), "clock_motion": (130, 50)}


@click.command(help=__doc__)
@click.option(
    "--weight_path",
    default=shipped_generator,
    show_default="weights/generator.h5",
    help="Weights of the generator.",
)
@click.option(
    "--output",
    default=ROOT / "docs" / "gallery.png",
    show_default="docs/gallery.png of the repository",
    help="PNG file to write.",
)
def main(weight_path, output):
    from deblur_gan import deblur, load_generator
    from deblur_gan.backend import start_backend
    from deblur_gan.photographs import read_rgb
    from deblur_gan.samples import write_sample_images

    start_backend()
    generator = load_generator(weight_path)
    step = DETAIL + GAP
    page = Image.new("RGB", (len(DETAILS) * step - GAP, LABEL + 3 * step - GAP), "white")
    draw = ImageDraw.Draw(page)
    draw.text((0, 2), "blurred, restored, sharp (the clock: a real photograph, never sharp)", "black", _font())
    with tempfile.TemporaryDirectory() as folder:
        write_sample_images(folder)
        for column, (name, (left, top)) in enumerate(DETAILS.items()):
            blurred, sharp = (Path(folder, "test", side, f"{name}.png") for side in ("A", "B"))
            if not blurred.exists():
                blurred = Path(folder, "real", f"{name}.png")
            pictures = [read_rgb(blurred), deblur(generator, read_rgb(blurred))]
            if sharp.exists():
                pictures.append(read_rgb(sharp))
            for row, picture in enumerate(pictures):
                detail = Image.fromarray(picture).crop((left, top, left + DETAIL, top + DETAIL))
                page.paste(detail, (column * step, LABEL + row * step))
    save_if_other(page, Path(output))


def save_if_other(page, path):
    """Writes the PNG unless the file shows the same picture.

    Processors add up in different orders, so that a few restored pixels are rounded to the next grey level.
    """
    if path.exists():
        with Image.open(path) as found:
            if found.size == page.size:
                extrema = ImageChops.difference(found.convert("RGB"), page).getextrema()
                if max(largest for _, largest in extrema) <= 1:
                    click.echo(f"{path} shows this picture already")
                    return
    page.save(path, optimize=True)


def _font():
    return ImageFont.load_default(14)


if __name__ == "__main__":
    main()
