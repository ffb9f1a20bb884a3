"""`deblur-gan blur recordings`: makes training pairs from videos and folders of frames."""

import inspect
import os
from pathlib import Path

import click

from deblur_gan.blur.exposure import average_frames
from deblur_gan.blur.optical_flow import random_flow_blur
from deblur_gan.commands.range_options import knob_options


def defaults(function):
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def odd_range(ctx, param, value):
    if value is None:
        return None
    low, colon, high = value.partition(":")
    if not (low.isdigit() and (high if colon else low).isdigit()):
        raise click.BadParameter(f"{value!r} is neither a number nor LOW:HIGH", ctx, param)
    return int(low), int(high if colon else low)


@click.command()
@click.argument("sources", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option(
    "--output_dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder that gets A/ (blurred) and B/ (sharp), as PNG named <scene>_<frame>.",
)
@click.option(
    "--frames",
    callback=odd_range,
    help="LOW:HIGH or a number: average so many frames, an odd number, for recordings of 120 frames a second and more. "
    "Without it, single frames are blurred along their optical flow.",
)
@click.option("--n_per_frame", type=click.IntRange(1), default=1, show_default=True, help="Pairs from each frame.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Use one frame of so many.")
@click.option("--crop", type=click.IntRange(1), help="Keep so many px square of each frame, anywhere in it.")
@click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Reduce the frames by this factor first. The defaults are right for frames of 640 to 850 px.",
)
@click.option(
    "--min_sharpness",
    type=click.FloatRange(0, 1),
    default=0.6,
    show_default=True,
    help="Leave out frames that are less sharp; sharp ones have 0.65 to 0.8.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed, the same bytes.")
@knob_options(
    {
        "length": "Px that the motion from frame to frame is brought to. Not with --frames.",
        "long_length": "Takes the place of --length where it is drawn. Not with --frames.",
        "bend": "How far the camera leaves its straight way, as a part of the length. Not with --frames.",
        "lights": "How much more light than white holds comes from what is white; it is clipped after the blur.",
        "gamma": "Blur (value / 255) ** gamma, which is close to light at 2.2; 1 blurs the values as they are.",
        "noise_sigma": "Standard deviation of the noise in grey levels of 255.",
        "jpeg": "Quality of a JPEG file that the blurred picture goes through.",
    },
    defaults(random_flow_blur),
)
@click.option(
    "--n_workers",
    type=click.IntRange(1),
    default=os.cpu_count,
    show_default="the processor's cores",
    help="Frames that are worked on at the same time.",
)
def blur_recordings(sources, output_dir, frames, **options):
    """Makes pairs of blurred and sharp photographs from SOURCES: video files, folders of frames, or folders of such.

    Without --frames, a frame is blurred along its optical flow to the next: for 24 to 60 frames a second. It is left
    out if it is blurred already, if nothing moves, at a scene cut, and where the flow is not reliable.

    LOW:HIGH is a range from which a value is drawn uniformly for each pair; a number is always that number.
    LOW:HIGH@SHARE is drawn from in that share of the pairs, and off in the others; none is off. With --frames, gamma
    is 2.2 and lights, noise and jpeg are off by default.

    The exit code is 0 if every recording gave pairs and none had a fault, 1 if not, 2 if the command line makes no
    sense.
    """
    from deblur_gan.blur import make_pairs
    from deblur_gan.files import printable

    options = {name: value for name, value in options.items() if value is not None}
    if frames:
        for name in options.keys() & defaults(random_flow_blur).keys() - defaults(average_frames).keys():
            raise click.UsageError(f"--{name} is for blur along the optical flow; it cannot be given with --frames")
    try:
        n_pairs, left_out, failures = make_pairs.blur_recordings(sources, output_dir, frames, **options)
    except (ValueError, OSError, ImportError) as error:
        raise click.ClickException(printable(error)) from None
    for failure in failures:
        click.echo(failure, err=True)
    click.echo(f"{n_pairs} pairs written to {output_dir}/A (blurred) and {output_dir}/B (sharp)")
    if left_out:
        click.echo("left out: " + ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())))
    if failures:
        raise SystemExit(1)
