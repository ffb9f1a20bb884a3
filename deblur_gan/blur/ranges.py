"""Ranges that random values are drawn from, and the ranges of each kind of blur. Needs neither NumPy nor a backend."""

import math

# Ranges of `camera.random_blur`. "handheld" imitates a camera in the hand, for photographs of 640 px. "paper" is the
# paper's blur for training: one kernel is enough for a crop, and the gamma of the photographs is unknown.
KINDS = {
    "handheld": {
        "length": (5.0, 60.0, 0.2),
        "extent": (0.5, 20.0),
        "long_extent": (20.0, 40.0, 0.15),
        "bend": (0.0, 0.4),
        "tremor": (0.0, 4.0, 0.4),
        "rotation": (0.0, 1.5, 0.5),
        "zoom": (0.0, 0.02, 0.5),
        "moving": (2.0, 20.0, 0.4),
        "lights": (1.0, 2.0, 0.3),
        "exposures": (5.0, 13.0, 0.33),
        "gamma": (1.0, 2.4, 0.5),
        "noise_sigma": (0.0, 2.0, 0.5),
        "jpeg": (80.0, 100.0, 0.25),
    },
    "paper": {
        "length": (5.0, 60.0),
        "extent": None,
        "bend": None,
        "rotation": None,
        "gamma": (1.0, 2.2),
        "noise_sigma": (0.0, 2.0),
    },
}


def require(condition, name, found, required):
    """Raises ValueError with the argument, its value and the requirement, unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} is {found}; {required} is required")


def draw(rng, name, limits, otherwise=None):
    """Draws a float from a range; returns `otherwise` if nothing is drawn.

    `limits` is `(low, high)`, to draw from uniformly; `(low, high, share)`, to draw from in that share of the cases; a
    number, for that number; or None, to draw nothing. Raises ValueError unless 0 <= low <= high and 0 <= share <= 1.
    """
    if limits is None:
        return otherwise
    low, high, share = (*limits, 1.0)[:3] if isinstance(limits, tuple | list) else (limits, limits, 1.0)
    require(0 <= low <= high < math.inf, name, f"{low:g} to {high:g}", "a range from low to high, at least 0")
    require(0 <= share <= 1, f"the share of {name}", f"{share:g}", "0 to 1")
    if share < 1 and rng.random() >= share:
        return otherwise
    return float(rng.uniform(low, high)) if isinstance(limits, tuple | list) else float(limits)
