"""Knobs: the ranges that random values are drawn from, in Python and on the command line."""

import math

import click


def require(condition, name, found, required):
    """Raises ValueError with a line that gives the argument, what was found and what is required."""
    if not condition:
        raise ValueError(f"{name} is {found}; {required} is required")


def draw(rng, name, knob, otherwise=None):
    """Draws the value of a knob.

    Args:
        rng: `numpy.random.Generator`.
        name: str, for the error.
        knob: `(low, high)`, from which a value is drawn uniformly; `(low, high, share)`, which is drawn from in that
            share of the cases and not in the others; a number, which is always that number; None, which is never.
        otherwise: what a knob that is not drawn gives.

    Returns:
        float or `otherwise`.

    Raises:
        ValueError: if the range does not go up from at least 0, or the share is not in [0, 1].
    """
    if knob is None:
        return otherwise
    low, high, share = (*knob, 1.0)[:3] if isinstance(knob, (tuple, list)) else (knob, knob, 1.0)
    require(0 <= low <= high < math.inf, name, f"{low:g} to {high:g}", "a range from low to high, at least 0")
    require(0 <= share <= 1, f"the share of {name}", f"{share:g}", "0 to 1")
    if share < 1 and rng.random() >= share:
        return otherwise
    return float(rng.uniform(low, high)) if isinstance(knob, (tuple, list)) else float(knob)


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
