"""Makes training pairs: python scripts/blur_images.py --input_dir photos --output_dir pairs"""

import math
import os
from pathlib import Path

import click


class Range(click.ParamType):
    """A number, or LOW:HIGH."""

    name = "number or low:high"

    def convert(self, value, param, ctx):
        low, colon, high = value.partition(":")
        try:
            bounds = float(low), float(high if colon else low)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor LOW:HIGH", param, ctx)
        if not 0 <= bounds[0] <= bounds[1] < math.inf:
            self.fail(f"{value!r} does not go up from at least 0", param, ctx)
        return bounds


@click.command()
@click.option(
    "--input_dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of sharp photographs.",
)
@click.option(
    "--output_dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder that gets A/ (blurred) and B/ (sharp), as PNG.",
)
@click.option("--n_per_image", type=click.IntRange(1), default=1, show_default=True, help="Pairs from each photograph.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed, the same bytes.")
@click.option(
    "--length",
    type=Range(),
    default="5:60",
    show_default=True,
    help="Length of the camera's path in px. The path bends: kernels are about a third as wide.",
)
@click.option(
    "--rotation",
    type=Range(),
    default="0:1",
    show_default=True,
    help="Turn of the camera during the exposure in degrees. 0: one kernel for the whole picture, as in the paper, and "
    "several times faster.",
)
@click.option(
    "--noise_sigma",
    type=Range(),
    default="0:2",
    show_default=True,
    help="Standard deviation of the noise in grey levels of 255.",
)
@click.option(
    "--gamma",
    type=click.FloatRange(0, min_open=True),
    default=2.2,
    show_default=True,
    help="Blur (value / 255) ** gamma, which is close to light at 2.2; 1 blurs the values as they are.",
)
@click.option("--save_kernels", is_flag=True, help="Write kernels/ too, as 16-bit PNG: the kernel mid-picture.")
@click.option(
    "--n_workers",
    type=click.IntRange(1),
    default=os.cpu_count,
    show_default="the processor's cores",
    help="Photographs that are worked on at the same time.",
)
def blur_images(**options):
    """Makes pairs of blurred and sharp photographs from sharp ones, by random camera shake.

    LOW:HIGH is a range from which a value is drawn uniformly for each pair; a number is always that number.

    The exit code is 0 if every photograph was blurred, 1 if one was not, 2 if the command line makes no sense.
    """
    from deblur_gan.synthesis import blur_folder

    try:
        n_pairs, failures = blur_folder(**options)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    for failure in failures:
        click.echo(failure, err=True)
    click.echo(f"{n_pairs} pairs written to {options['output_dir']}/A (blurred) and {options['output_dir']}/B (sharp)")
    if failures:
        raise SystemExit(1)


if __name__ == "__main__":
    blur_images()
