"""`deblur-gan blur recordings`: makes training pairs from videos and folders of frames."""

import inspect
from pathlib import Path

import click

from deblur_gan.blur.exposure import average_frames
from deblur_gan.blur.optical_flow import random_flow_blur
from deblur_gan.commands import command
from deblur_gan.commands import range_options as flags


def defaults(function):
    """Returns the default of each parameter of a function."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def _frames_range(context, parameter, value):
    """Reads a number or LOW:HIGH."""
    if value is None:
        return None
    low, colon, high = value.partition(":")
    if not (low.isdecimal() and (high if colon else low).isdecimal()):
        raise click.BadParameter(f"{value!r} is no range; write a number or LOW:HIGH")
    return int(low), int(high if colon else low)


@command()
@click.argument("sources", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@flags.output_dir_option
@click.option(
    "--frames",
    callback=_frames_range,
    metavar="RANGE",
    help="LOW:HIGH or a number: average an odd number of frames, for recordings of 120 frames a second or more. "
    "Without it, single frames are blurred along their optical flow.",
)
@click.option("--n_per_frame", type=click.IntRange(1), default=1, help="Pairs from each frame.")
@click.option("--every", type=click.IntRange(1), metavar="N", default=1, help="Use one of N frames.")
@flags.crop_option
@flags.scale_option
@click.option(
    "--min_sharpness",
    type=click.FloatRange(0, 1),
    default=0.6,
    help="Leave out frames that are less sharp; sharp ones have 0.65 to 0.8.",
)
@flags.seed_option
@flags.range_options(
    {
        "length": "Px that the motion between two frames is scaled to. Not with --frames.",
        "long_length": "Replaces --length if it is drawn. Not with --frames.",
        "bend": "How far the camera leaves the straight line, as a part of the length. Not with --frames.",
        **flags.SENSOR,
    },
    defaults(random_flow_blur),
)
@flags.n_workers_option
def blur_recordings(sources, output_dir, frames, **options):
    """Makes pairs of blurred and sharp photographs from SOURCES: video files, folders of frames, or folders of such.

    Without --frames, a frame is blurred along its optical flow to the next: for 24 to 60 frames a second. It is left
    out if it is blurred already, if nothing moves, at a scene cut, and if the flow is unreliable.

    RANGE is LOW:HIGH, from which a value is drawn uniformly for each pair, or a number. LOW:HIGH@SHARE is drawn from in
    that share of the pairs, and off in the others; none is off. With --frames, the default of gamma is 2.2, and that of
    lights, noise and jpeg is none.

    The exit code is 0 if every recording gave pairs and none had a fault, 1 if not, 2 if the command line is wrong.
    """
    from deblur_gan.blur import make_pairs

    options = {name: value for name, value in options.items() if value is not None}
    if frames:
        for name in options.keys() & defaults(random_flow_blur).keys() - defaults(average_frames).keys():
            raise click.UsageError(f"--{name} is for blur along the optical flow; it cannot be given with --frames")
    n_pairs, left_out, failures = make_pairs.blur_recordings(sources, output_dir, frames, **options)
    for failure in failures:
        click.echo(failure, err=True)
    click.echo(f"{n_pairs} pairs written to {output_dir}/A (blurred) and {output_dir}/B (sharp)")
    if left_out:
        click.echo("left out: " + ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())))
    if failures:
        raise SystemExit(1)
