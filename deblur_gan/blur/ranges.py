"""Ranges that random values are drawn from."""

import math


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
