"""Measures the woven pattern of 4 pixels that a generator draws into flat parts of photographs.

python docs/measure_grid.py images/test/A reds_640x360/val/blur --scale 1 --scale auto
"""

from pathlib import Path

import click
import numpy as np
from scipy.ndimage import convolve1d

from deblur_gan import shipped_generator
from deblur_gan.commands import Scale, command

WINDOW = 32


def grid(image, flat_in=None, period=4):
    """Measures a pattern that repeats every few pixels in the flat parts of an image.

    A smooth copy is subtracted, which keeps slopes and does not contain the pattern. In each window of 32 pixels, the
    mean of each phase of the pattern is then taken twice: over the two colours of a chessboard of periods. The product
    of the two is the energy of what both have in common, so noise hardly counts.

    Args:
        image: `(H, W, 3)`, values in levels of 255.
        flat_in: `(H, W, 3)`; windows count in which the standard deviation of each of its channels is below 4 levels.
            None for `image`.
        period: int, 4 or 8 pixels.

    Returns:
        `(strength, spread, share)`, floats: the root mean square of the pattern in each window, in levels; the largest
        minus the smallest mean of a phase over all flat windows, in levels; the share of the windows that are flat.
        The first two are nan without flat windows.

    >>> chessboard = np.tile([[0, 2], [2, 0]], (16, 16))
    >>> grid(128 + np.stack(3 * [chessboard], axis=-1))
    (1.0, 2.0, 1.0)
    """
    image = np.asarray(image, float)
    triangle = np.convolve(np.ones(period), np.ones(period)) / period**2
    smooth = convolve1d(convolve1d(image, triangle, axis=0, mode="nearest"), triangle, axis=1, mode="nearest")
    is_flat = _windows(image if flat_in is None else flat_in).std(axis=(1, 2)).max(axis=-1) < 4
    if not is_flat.any():
        return np.nan, np.nan, 0.0
    n = WINDOW // period
    cells = _windows(image - smooth)[is_flat].reshape(-1, n, period, n, period, 3).swapaxes(2, 3)
    is_white = np.add.outer(np.arange(n), np.arange(n)) % 2 == 1
    white, black = (cells[:, colour].mean(axis=1) for colour in (is_white, ~is_white))
    strength = np.sqrt(max(0.0, np.mean(white * black)))
    spread = np.ptp(cells.mean(axis=(0, 1, 2)), axis=(0, 1)).mean()
    return float(strength), float(spread), float(is_flat.mean())


def _windows(image):
    rows, columns = (side // WINDOW for side in image.shape[:2])
    windows = image[: rows * WINDOW, : columns * WINDOW].reshape(rows, WINDOW, columns, WINDOW, 3)
    return windows.swapaxes(1, 2).reshape(-1, WINDOW, WINDOW, 3)


@command()
@click.argument("paths", type=click.Path(exists=True, file_okay=False, path_type=Path), nargs=-1, required=True)
@click.option("--weight_path", type=click.Path(exists=True), multiple=True, default=[shipped_generator()])
@click.option(
    "--scale", type=Scale(), multiple=True, default=["1", "auto"], help="Working sizes, as of `deblur-gan restore`."
)
@click.option("--n_images", type=click.IntRange(min=1), default=5, help="Photographs of each path, evenly spread.")
def main(paths, weight_path, scale, n_images):
    """Prints strength / spread of the pattern in parts where the blurred photographs are flat, in levels of 255.

    The columns: the blurred photograph and the restored one with a period of 4 pixels; and the difference of both with
    periods of 4 and of 8 pixels, which leaves out the blocks of JPEG. At a working size of 1.5 times the own size, a
    pattern of 4 pixels there repeats every 8 pixels here. Photographs without flat parts are left out.
    """
    from deblur_gan.backend import dtype_to_restore_in, start_backend

    start_backend(restoring=True)
    from deblur_gan.data.split import evenly
    from deblur_gan.images.photographs import find_images, read_rgb
    from deblur_gan.restoring.deblur import deblur
    from deblur_gan.weights import load_generator

    click.echo("| photographs | weights | scale | flat | blurred | restored | difference | difference, 8 px |")
    click.echo("|---|---|---|---:|---:|---:|---:|---:|")
    for weights in weight_path:
        generator = load_generator(weights, dtype_to_restore_in())
        for path in paths:
            photographs = [read_rgb(file) for file in evenly(find_images(path), n_images)]
            if not any(grid(each)[2] for each in photographs):
                raise ValueError(f"{path}: contains no photograph with flat parts")
            for factor in scale:
                rows = []
                for blurred in photographs:
                    restored = deblur(generator, blurred, scale=factor)
                    difference = restored.astype(float) - blurred
                    patterns = [(blurred, 4), (restored, 4), (difference, 4), (difference, 8)]
                    rows.append([grid(image, blurred, period) for image, period in patterns])
                means = np.nanmean(rows, axis=0)
                size = factor if factor == "auto" else f"{factor:g}"
                cells = [path, Path(weights).name, size, f"{means[0][2]:.0%}"]
                cells += [f"{strength:.2f} / {spread:.2f}" for strength, spread, _ in means]
                click.echo(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
