"""Flags that `blur photographs` and `blur recordings` share, and flags that accept ranges of random values."""

import math
import os
from pathlib import Path

import click


class RangeType(click.ParamType):
    """Reads a range from a flag: a number, LOW:HIGH, either of them with @SHARE appended, or none.

    >>> RangeType().convert("1:2@0.5", None, None), RangeType().convert("none", None, None)
    ((1.0, 2.0, 0.5), (0.0, 0.0, 0.0))
    """

    name = "range"

    def convert(self, value, param, ctx):
        if value == "none":
            return 0.0, 0.0, 0.0
        bounds, at, share = value.partition("@")
        low, colon, high = bounds.partition(":")
        try:
            low, high, share = float(low), float(high if colon else low), float(share if at else 1)
        except ValueError:
            self.fail(f"{value!r} is no range; write a number, LOW:HIGH, either with @SHARE, or none", param, ctx)
        if not 0 <= low <= high < math.inf:
            self.fail(f"{value!r} must go up from at least 0", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"the share of {value!r} must be between 0 and 1", param, ctx)
        return (low, high, share) if colon or at else low


# Help of the ranges of both commands.
SENSOR = {
    "lights": "Light from white areas, as a multiple of white; it is clipped after the blur.",
    "gamma": "Blur (value / 255) ** gamma, which is close to light at 2.2; 1 blurs the values.",
    "noise_sigma": "Standard deviation of the noise in grey levels of 255.",
    "jpeg": "Quality of a JPEG file that the blurred picture is saved to.",
}
output_dir_option = click.option(
    "--output_dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to write A/ (blurred) and B/ (sharp) to, as PNG.",
)
crop_option = click.option(
    "--crop", type=click.IntRange(1), metavar="N", help="Keep a square of N px, anywhere in a picture."
)
scale_option = click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    help="Reduce pictures by this factor first. The default ranges fit pictures of 640 to 850 px.",
)
seed_option = click.option("--seed", type=click.IntRange(0), default=0, help="The same seed gives the same bytes.")
n_workers_option = click.option(
    "--n_workers", type=click.IntRange(1), default=os.cpu_count, show_default="one for each core", help="Threads."
)


def range_options(texts, *defaults):
    """Returns a decorator that adds a flag for each range to a command. A flag that is not given is None.

    `texts` are the help texts by name; `defaults` are dicts from names to ranges, which the help lists.
    """

    def decorate(command):
        for name, text in reversed(texts.items()):
            default = " or ".join(dict.fromkeys(_as_text(of.get(name)) for of in defaults))
            command = click.option(f"--{name}", type=RangeType(), help=f"{text}  [default: {default}]")(command)
        return command

    return decorate


def _as_text(limits):
    if limits is None:
        return "none"
    low, high, share = (*limits, 1.0)[:3] if isinstance(limits, tuple | list) else (limits, limits, 1.0)
    return (f"{low:g}" if low == high else f"{low:g}:{high:g}") + ("" if share == 1 else f"@{share:g}")
