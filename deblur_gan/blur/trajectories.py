"""Random trajectories of a camera during an exposure, and random outlines of an object in front of it.

All random numbers come from the `numpy.random.Generator` that is passed in, so one seed gives one result.

Reference:
    Kupyn et al., DeblurGAN: Blind Motion Deblurring Using Conditional Adversarial Networks, arXiv 1711.07064,
    section 3.3 and Algorithm 1; Boracchi and Foi, Modeling the Performance of Image Restoration from Motion Blur,
    IEEE Transactions on Image Processing 21(8), 2012.
"""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from deblur_gan.blur.ranges import require


def random_trajectory(rng, length=60.0, shake=0.001, steps=2000):
    """Draws the trajectory of a shaking camera: a Markov process of constant speed.

    The velocity starts in a uniform direction. Each step adds Gaussian shake and a pull towards the start (inertia).
    Rarely, a big impulsive shake, such as a finger on the button, reverses the velocity. The speed is then reset. The
    three strengths are drawn once for each trajectory: inertia from U(0, 0.7), the probability of a big shake from
    U(0, 0.2), Gaussian shake from U(0, 10), each multiplied by `shake`. The paper prints U(0, 0.7) for the last, which
    hardly trembles, and inertia as a factor of the Gaussian term; Boracchi and Foi use U(0, 10) and a pull.

    Args:
        rng: `numpy.random.Generator`.
        length: float, px, at least 0: the sum of the `steps - 1` equal steps. Trajectories bend, so a kernel is
            narrower: a third of it in the median.
        shake: float, at least 0, how much the trajectory bends: 0 is a straight line, 0.001 is the paper's value, 0.005
            gives knots.
        steps: int, at least 2, the number of positions.

    Returns:
        float64 `(steps, 2)`, positions x (to the right) and y (down) in px, equally spaced in time, from (0, 0).

    Raises:
        ValueError: if an argument is out of its range.

    >>> trajectory = random_trajectory(np.random.default_rng(0), length=30, steps=100)
    >>> float(round(np.linalg.norm(np.diff(trajectory, axis=0), axis=1).sum(), 6))
    30.0
    """
    require(length >= 0, "length", length, "at least 0")
    require(shake >= 0, "shake", shake, "at least 0")
    require(steps >= 2, "steps", steps, "at least 2")
    inertia, big_shake, gaussian = rng.uniform(0, (0.7, 0.2, 10.0))
    velocity = complex(np.exp(2j * np.pi * rng.random()))
    turns = steps - 1
    tremor = shake * gaussian * (rng.standard_normal(turns) + 1j * rng.standard_normal(turns))
    throw = 1 + 2 * np.exp(1j * (np.pi + rng.uniform(-0.5, 0.5, turns)))
    throw[rng.random(turns) >= shake * big_shake] = 1
    pull = float(shake * inertia)
    stride = length / turns

    # Each step needs the previous one; plain complex numbers are several times faster than arrays of one element.
    position = 0j
    positions = [position]
    for thrown, trembled in zip(throw.tolist(), tremor.tolist(), strict=True):
        velocity = velocity * thrown + trembled - pull * position
        velocity /= abs(velocity)
        position += stride * velocity
        positions.append(position)
    return _as_xy(np.array(positions))


def random_roll(rng, extent, shake=0.001, steps=2000):
    """Draws the turn of a shaking camera around its viewing axis: one scaled coordinate of a `random_trajectory`.

    Returns float64 `(steps,)`, equally spaced in time. `extent`, at least 0, is the difference between the largest and
    the smallest angle.
    """
    require(extent >= 0, "extent", extent, "at least 0")
    angles = random_trajectory(rng, shake=shake, steps=steps)[:, 0]
    return angles * (extent / np.ptp(angles))


def handheld_trajectory(rng, extent, bend=0.2, steps=500):
    """Draws the trajectory of a camera held still by hand, in one exposure: short, nearly straight, of uneven speed.

    A hand sways at a few hertz, so it hardly turns in a thirtieth of a second. The trajectory is a cubic Bezier curve
    between two points in a uniform direction; `uneven_progress` draws the speed along it.

    Args:
        rng: `numpy.random.Generator`.
        extent: float, px, at least 0: the distance from the beginning to the end.
        bend: float, at least 0: how far the trajectory may leave the straight line, as a part of `extent`.
        steps: int, at least 2, the number of positions.

    Returns:
        float64 `(steps, 2)`, as `random_trajectory`.
    """
    require(extent >= 0, "extent", extent, "at least 0")
    require(bend >= 0, "bend", bend, "at least 0")
    direction = np.exp(2j * np.pi * rng.random())
    # The curve stays within three quarters of its inner control points' distance from the line.
    first, second = rng.uniform(-1, 1, 2) * bend * 4 / 3
    t = uneven_progress(rng, steps)
    return _as_xy(extent * direction * (t + 1j * 3 * t * (1 - t) * (first * (1 - t) + second * t)))


def _as_xy(positions):
    return np.stack([positions.real, positions.imag], axis=-1)


def uneven_progress(rng, steps=500):
    """Draws the progress of a movement from 0 to 1: never back, at uneven speed, constant on average over many draws.

    Returns float64 `(steps,)`, equally spaced in time: a cubic Bezier curve whose inner values are two uniform numbers,
    the smaller one first.
    """
    require(steps >= 2, "steps", steps, "at least 2")
    first, second = np.sort(rng.random(2))
    t = np.linspace(0, 1, steps)
    return 3 * t * (1 - t) * (first * (1 - t) + second * t) + t**3


def random_outline(rng, height, width, rows=slice(None), columns=slice(None)):
    """Draws the mask of an object in front of the rest of a picture: a polygon with a soft edge.

    The polygon has 5 to 10 corners around a point anywhere in the picture, at 0.08 to 0.35 of the longer side from it.
    Returns float32 in [0, 1], 1 for the object, of the part of the picture that the slices `rows` and `columns` select.
    """
    corners = int(rng.integers(5, 11))
    middle = complex(rng.uniform(0, width), rng.uniform(0, height))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    points = middle + max(height, width) * rng.uniform(0.08, 0.35, corners) * np.exp(1j * angles)
    softness = rng.uniform(0.7, 3.0)
    top, bottom, _ = rows.indices(height)
    left, right, _ = columns.indices(width)
    margin = int(np.ceil(4 * softness))  # soft edges reach into the part from outside
    canvas = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    # Whole numbers, because Pillow rounds others differently on both sides of 0.
    corners = [(round(point.real) - left + margin, round(point.imag) - top + margin) for point in points]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    soft = ndimage.gaussian_filter(np.asarray(canvas, np.float32) / 255, softness, mode="nearest")
    return np.clip(soft[margin:-margin, margin:-margin], 0, 1)
