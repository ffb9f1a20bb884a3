"""Ranges of random values as flags of a command."""

import math

import click


class KnobType(click.ParamType):
    """A knob as a flag has it: a number, LOW:HIGH, either with @SHARE behind it, or none."""

    name = "knob"

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        if value == "none":
            return 0.0, 0.0, 0.0
        bounds, at, share = value.partition("@")
        low, colon, high = bounds.partition(":")
        try:
            knob = float(low), float(high if colon else low), float(share if at else 1)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor LOW:HIGH, with or without @SHARE, nor none", param, ctx)
        if not 0 <= knob[0] <= knob[1] < math.inf:
            self.fail(f"{value!r} does not go up from at least 0", param, ctx)
        if not 0 <= knob[2] <= 1:
            self.fail(f"the share of {value!r} is not between 0 and 1", param, ctx)
        return knob if colon or at else knob[0]


def knob_options(knobs, *defaults):
    """Flags of a command for knobs: a decorator. The value is None where the flag is not given.

    Args:
        knobs: dict from names to help texts.
        *defaults: dicts from names to knobs that the help says are the defaults; a name that is missing is off.
    """

    def decorate(command):
        for name, text in reversed(knobs.items()):
            default = " or ".join(dict.fromkeys(_shown(of.get(name)) for of in defaults))
            command = click.option(f"--{name}", type=KnobType(), help=f"{text}  [default: {default}]")(command)
        return command

    return decorate


def _shown(knob):
    if knob is None:
        return "none"
    low, high, share = (*knob, 1.0)[:3] if isinstance(knob, (tuple, list)) else (knob, knob, 1.0)
    return (f"{low:g}" if low == high else f"{low:g}:{high:g}") + ("" if share == 1 else f"@{share:g}")
