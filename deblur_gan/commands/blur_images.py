"""`deblur-gan blur photographs`: makes training pairs from photographs."""

from pathlib import Path

import click

from deblur_gan.blur.ranges import KINDS
from deblur_gan.commands import command
from deblur_gan.commands import range_options as flags


@command()
@click.option(
    "--input_dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of sharp photographs.",
)
@flags.output_dir_option
@click.option("--n_per_image", type=click.IntRange(1), default=1, help="Pairs from each photograph.")
@flags.crop_option
@flags.scale_option
@flags.seed_option
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    default="handheld",
    help="Defaults of the flags below: for a camera in the hand and photographs of about 640 px, or the paper's.",
)
@flags.range_options(
    {
        "length": "Length in px of a wandering trajectory as in the paper. It bends: kernels are a third as wide.",
        "extent": "If --length is not drawn: px from the beginning to the end of a hand's trajectory.",
        "long_extent": "Replaces --extent if it is drawn.",
        "bend": "How far a hand's trajectory may leave the straight line, as a part of its extent.",
        "tremor": "Length in px of a wandering trajectory that is added to a hand's.",
        "rotation": "Turn of the camera during the exposure in degrees.",
        "zoom": "Growth of the picture during the exposure, as a part of its size. none for --rotation and --zoom is "
        "several times faster: one kernel for the whole picture.",
        "moving": "Extent in px of the motion of an object in front.",
        "exposures": "Number of moments, as in averaged frames of a video; none is a continuous exposure.",
        **flags.SENSOR,
    },
    *KINDS.values(),
)
@click.option(
    "--mask_dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of masks with the names of the photographs, white for an object that moves; default: random outlines.",
)
@click.option("--save_kernels", is_flag=True, help="Also write kernels/, as 16-bit PNG.")
@flags.n_workers_option
def blur_images(**options):
    """Makes pairs of blurred and sharp photographs from sharp ones, by random motion of the camera.

    RANGE is LOW:HIGH, from which a value is drawn uniformly for each pair, or a number. LOW:HIGH@SHARE is drawn from in
    that share of the pairs, and off in the others; none is off.

    The exit code is 0 if every photograph was blurred, 1 if one was not, 2 if the command line is wrong.
    """
    from deblur_gan.blur.make_pairs import blur_folder

    n_pairs, failures = blur_folder(**{name: value for name, value in options.items() if value is not None})
    for failure in failures:
        click.echo(failure, err=True)
    click.echo(f"{n_pairs} pairs written to {options['output_dir']}/A (blurred) and {options['output_dir']}/B (sharp)")
    if failures:
        raise SystemExit(1)
