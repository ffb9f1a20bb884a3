"""`deblur-gan blur photographs`: makes training pairs from photographs."""

import os
from pathlib import Path

import click

from deblur_gan.blur.camera import KINDS
from deblur_gan.commands.range_options import knob_options


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
@click.option("--crop", type=click.IntRange(1), help="Keep so many px square of each photograph, anywhere in it.")
@click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Reduce the photographs by this factor first.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed, the same bytes.")
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="handheld",
    show_default=True,
    help="Defaults of the flags below: those of a camera in the hand, for photographs of about 640 px, or the paper's.",
)
@knob_options(
    {
        "length": "Length in px of a path that wanders as in the paper. It bends: kernels are about a third as wide.",
        "extent": "Where that is not drawn: px from the beginning to the end of the path of a hand.",
        "long_extent": "Takes the place of --extent where it is drawn.",
        "bend": "How far the path of a hand may leave the straight line, as a part of its extent.",
        "tremor": "Length in px of a wandering path on top of the path of a hand.",
        "rotation": "Turn of the camera during the exposure in degrees.",
        "zoom": "Growth of the picture during the exposure, as a part of its size. none for both is several times "
        "faster: one kernel for the whole picture.",
        "moving": "Extent in px of the motion that something in front has of its own.",
        "lights": "How much more light than white holds comes from what is white; it is clipped after the blur.",
        "exposures": "Moments at which the path is seen, as in averaged frames of a video; else all of it.",
        "gamma": "Blur (value / 255) ** gamma, which is close to light at 2.2; 1 blurs the values as they are.",
        "noise_sigma": "Standard deviation of the noise in grey levels of 255.",
        "jpeg": "Quality of a JPEG file that the blurred picture goes through.",
    },
    *KINDS.values(),
)
@click.option(
    "--mask_dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of masks named as the photographs, white where something moves of its own; else outlines are drawn.",
)
@click.option("--save_kernels", is_flag=True, help="Write kernels/ too, as 16-bit PNG: the kernel of the path.")
@click.option(
    "--n_workers",
    type=click.IntRange(1),
    default=os.cpu_count,
    show_default="the processor's cores",
    help="Photographs that are worked on at the same time.",
)
def blur_images(**options):
    """Makes pairs of blurred and sharp photographs from sharp ones, by random motion of the camera.

    LOW:HIGH is a range from which a value is drawn uniformly for each pair; a number is always that number.
    LOW:HIGH@SHARE is drawn from in that share of the pairs, and off in the others; none is off.

    The exit code is 0 if every photograph was blurred, 1 if one was not, 2 if the command line makes no sense.
    """
    from deblur_gan.blur.make_pairs import blur_folder
    from deblur_gan.files import printable

    try:
        n_pairs, failures = blur_folder(**{name: value for name, value in options.items() if value is not None})
    except (ValueError, OSError) as error:
        raise click.ClickException(printable(error)) from None
    for failure in failures:
        click.echo(failure, err=True)
    click.echo(f"{n_pairs} pairs written to {options['output_dir']}/A (blurred) and {options['output_dir']}/B (sharp)")
    if failures:
        raise SystemExit(1)
