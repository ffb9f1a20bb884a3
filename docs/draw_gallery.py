"""Draws the pictures of the README: details of photographs, blurred, restored and sharp.

docs/gallery.png shows the samples, which come with scikit-image: chelsea and the clock by Stefan van der Walt (CC0,
public domain), the cup of coffee by Rachel Michetti (CC0), the rocket by SpaceX (CC0). The clock was blurred by a
moving camera and has no sharp version; the others were blurred by `write_sample_images` and are test photographs.

With --reds, docs/gallery_real.png shows frames of the REDS data set (Nah et al. 2019, CC BY 4.0) instead, whose blur is
that of a moving camera: the first four of the validation scene that the folder holds, halved to 640x360.
"""

import tempfile
from pathlib import Path

import click
from PIL import Image, ImageChops, ImageDraw, ImageFont

from deblur_gan import shipped_generator
from deblur_gan.commands import command

ROOT = Path(__file__).resolve().parent.parent
DETAIL, GAP, LABEL = 200, 6, 22
SAMPLES = {"chelsea": (80, 60), "coffee": (210, 100), "rocket": (180, 150), "clock_motion": (130, 50)}
REDS_CORNER = (220, 80)


@command(help=__doc__)
@click.option(
    "--weight_path",
    "weight_paths",
    multiple=True,
    default=lambda: [shipped_generator()],
    show_default="weights/generator.h5",
    help="Weights of a generator; several give a row each.",
)
@click.option(
    "--reds", type=click.Path(exists=True, path_type=Path), help="Folder with blur/ and sharp/ of REDS frames."
)
@click.option("--output", type=click.Path(path_type=Path), help="PNG file to write.  [default: in docs/]")
def main(weight_paths, reds, output):
    from deblur_gan.backend import start_backend

    start_backend()
    from deblur_gan import deblur, load_generator
    from deblur_gan.images.photographs import read_rgb

    generators = [load_generator(path) for path in weight_paths]
    with tempfile.TemporaryDirectory() as folder:
        details = _reds_details(reds) if reds else _sample_details(Path(folder))
        step, n_rows = DETAIL + GAP, 2 + len(generators)
        page = Image.new("RGB", (len(details) * step - GAP, LABEL + n_rows * step - GAP), "white")
        restored = ", ".join(["restored"] if len(weight_paths) == 1 else [Path(path).stem for path in weight_paths])
        without = "" if all(sharp for _, sharp, _ in details) else " (the clock: a real photograph, never sharp)"
        ImageDraw.Draw(page).text((0, 2), f"blurred, {restored}, sharp{without}", "black", ImageFont.load_default(14))
        for column, (blurred, sharp, (left, top)) in enumerate(details):
            pixels = read_rgb(blurred)
            pictures = [pixels, *(deblur(generator, pixels) for generator in generators)]
            pictures += [read_rgb(sharp)] if sharp else []
            for row, picture in enumerate(pictures):
                detail = Image.fromarray(picture).crop((left, top, left + DETAIL, top + DETAIL))
                page.paste(detail, (column * step, LABEL + row * step))
    save_if_other(page, output or ROOT / "docs" / ("gallery_real.png" if reds else "gallery.png"))


def _sample_details(folder):
    """List of paths of the blurred and the sharp photograph (None if there is none), and the corner of the detail."""
    from deblur_gan.data.samples import write_sample_images

    write_sample_images(folder)
    details = []
    for name, corner in SAMPLES.items():
        pair = [folder / "test" / side / f"{name}.png" for side in ("A", "B")]
        details.append((*(pair if pair[0].exists() else (folder / "real" / f"{name}.png", None)), corner))
    return details


def _reds_details(folder):
    from deblur_gan.data.pairs import find_pairs

    pairs, _ = find_pairs(folder)
    return [(pair.blurred, pair.sharp, REDS_CORNER) for pair in pairs[: len(SAMPLES)]]


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


if __name__ == "__main__":
    main()
