"""Motion blur: the kernels that paths leave on the sensor, and photographs blurred by camera and subject.

A blurred photograph is modelled as I_B = k(M) * I_S + N: the sharp photograph convolved with the kernel of the camera's
motion, and noise; turn and zoom of the camera make the kernel vary over the picture, and something in front may have a
motion of its own. Everything random comes from the `numpy.random.Generator` that is passed in, so one seed gives one
result.

Reference:
    Kupyn et al., DeblurGAN: Blind Motion Deblurring Using Conditional Adversarial Networks, arXiv 1711.07064,
    section 3.3; Boracchi and Foi, Modeling the Performance of Image Restoration from Motion Blur, IEEE Transactions on
    Image Processing 21(8), 2012.
"""

import numpy as np

from deblur_gan.blur.exposure import (
    blend_moving,
    blur_light,
    checked,
    convolve,
    develop,
    path_kernels,
    surroundings,
    time_weights,
    to_light,
)
from deblur_gan.blur.ranges import draw, require
from deblur_gan.blur.trajectories import handheld_path, random_outline, random_roll, random_trajectory, uneven_course

# Knobs of `random_blur`, whose own defaults are the paper's: for photographs of 640 px from a camera in the hand; and
# for training with the paper's blur, where one kernel for a crop is enough and how light became values is not known.
HANDHELD = {
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
}
PAPER = {"length": (5.0, 60.0), "rotation": None, "gamma": (1.0, 2.2), "noise_sigma": (0.0, 2.0)}
KINDS = {"handheld": HANDHELD, "paper": PAPER}


def motion_kernel(trajectory, exposure=1.0):
    """Turns a path into the kernel that it leaves on the pixel grid, by bilinear interpolation.

    Args:
        trajectory: float `(steps, 2)`, positions x, y in px, equally spaced in time.
        exposure: float in (0, 1], the part of the path, from its beginning, for which the shutter is open.

    Returns:
        float64 `(2 r + 1, 2 r + 1)`, just large enough: non-negative, its sum 1, its centroid at the middle pixel, so
        that blurring with it moves nothing.

    Raises:
        ValueError: if an argument is out of its range or of the wrong shape.
    """
    trajectory = _exposed("trajectory", trajectory, exposure, columns=2)
    return path_kernels(trajectory, time_weights(len(trajectory)), np.zeros(len(trajectory)), 1)[0]


def blur_image(image, kernel, noise_sigma=0.0, gamma=1.0, rng=None):
    """Blurs a photograph: I_B = k * I_S + N. The picture is continued by reflection over its border.

    Args:
        image: uint8 `(H, W, channels)`, of any size.
        kernel: float `(rows, columns)`, both odd, the sum 1.
        noise_sigma: float, grey levels of 255, at least 0: the standard deviation of the Gaussian noise N.
        gamma: float above 0: light is taken to be `(value / 255) ** gamma`, and blurred as light; 2.2 is close to what
            cameras write, 1 blurs the values as they are.
        rng: `numpy.random.Generator` for the noise; needed where `noise_sigma` is not 0.

    Returns:
        uint8 of the shape of `image`.

    Raises:
        ValueError: if an argument is out of its range or of the wrong shape.
    """
    kernel = np.asarray(kernel, np.float64)
    odd = kernel.ndim == 2 and all(side % 2 for side in kernel.shape)
    require(odd, "kernel", f"of shape {kernel.shape}", "two-dimensional, odd by odd,")
    require(abs(kernel.sum() - 1) < 1e-6, "kernel", f"a sum of {kernel.sum():g}", "a sum of 1")
    return develop(convolve(to_light(image, gamma), kernel[np.newaxis], [1]), gamma, noise_sigma, rng)


def blur_image_with_roll(image, trajectory, roll, exposure=1.0, noise_sigma=0.0, gamma=1.0, rng=None):
    """Blurs a photograph by shake that also turns the camera around its viewing axis, so that the blur varies over it.

    The result is the photograph averaged along the path of `trajectory` and `roll` together: turned around its centre,
    then shifted. Mean shift and mean turn are taken out, so the result lies on the sharp photograph as well as
    the result of `blur_image` with a kernel from `motion_kernel`, and equals it where `roll` is constant.

    Args:
        image: uint8 `(H, W, channels)`, of any size.
        trajectory: float `(steps, 2)`, positions x, y in px, equally spaced in time.
        roll: float `(steps,)`, angles in degrees, at the same times; positive from x towards y.
        exposure, noise_sigma, gamma, rng: as in `motion_kernel` and `blur_image`.

    Returns:
        uint8 of the shape of `image`.

    Raises:
        ValueError: if an argument is out of its range or of the wrong shape.
    """
    trajectory = _exposed("trajectory", trajectory, exposure, columns=2)
    roll = _exposed("roll", roll, exposure)
    require(len(roll) == len(trajectory), "roll", f"{len(roll)} angles", f"{len(trajectory)}, one for each position")
    light = to_light(image, gamma)
    blurred = blur_light(light, trajectory, time_weights(len(trajectory)), roll, np.radians(1) * 1j)
    return develop(blurred, gamma, noise_sigma, rng)


def random_blur(
    image,
    rng,
    length=(5.0, 60.0),
    shake=(0.001, 0.005),
    rotation=(0.0, 1.0),
    noise_sigma=(0.0, 2.0),
    gamma=2.2,
    *,
    extent=(0.5, 20.0),
    long_extent=None,
    bend=(0.0, 0.4),
    tremor=None,
    zoom=None,
    moving=None,
    lights=None,
    exposures=None,
    jpeg=None,
    mask=None,
    window=None,
):
    """Blurs a photograph by a random motion of the camera. The defaults are the paper's; `HANDHELD` has others.

    Each knob is a range `(low, high)`, from which a value is drawn uniformly; `(low, high, share)`, which is drawn from
    in that share of the pictures and not in the others; or a number, which is always that number. None is never.

    Args:
        image: uint8 `(H, W, channels)`, of any size.
        rng: `numpy.random.Generator`.
        length: px, of the path that wanders as in the paper (`random_trajectory`); where it is not drawn, the path is
            one of a hand (`handheld_path`).
        shake: how much the path of the paper bends.
        rotation: degrees, how far the camera turns, to one side for the path of a hand; never gives one kernel for the
            whole picture, as in the paper, and is several times faster.
        noise_sigma: grey levels of 255, the standard deviation of the noise.
        gamma: as in `blur_image`; 1 where it is not drawn.
        extent: px, from the beginning of a hand's path to its end.
        long_extent: px, takes the place of `extent` where it is drawn.
        bend: how far the path of a hand may leave the straight line, as a part of its extent.
        tremor: px, the length of a wandering path on top of the path of a hand.
        zoom: how much the picture grows or shrinks during the exposure, as a part of its size. Turn and zoom are around
            a centre anywhere in the picture, or around its middle for the path of the paper.
        moving: px, the extent of the motion that something in front has of its own.
        lights: at least 1: how much more light than a full sensor holds came from where the picture is white. It is
            blurred with the rest and clipped afterwards, as by a sensor.
        exposures: how many moments the path of a hand is seen at, as where frames of a video are averaged; more where
            they would lie more than 3 px apart on average. Where it is not drawn, the shutter stays open.
        jpeg: quality, 1 to 100, of a JPEG file that the blurred picture goes through.
        mask: float `(H, W)` in [0, 1], what moves in front; by default `random_outline`.
        window: `(rows, columns)`, slices: only this part is returned, and computed from as much as reaches into it.

    Returns:
        `(blurred, kernel)`: uint8 of the shape of `image` or of the window, and the kernel of the path as of
        `motion_kernel`, without turn, zoom and what moves.

    Raises:
        ValueError: if an argument is out of its range or of the wrong shape.
    """
    image = checked(image)
    height, width, _ = image.shape
    length = draw(rng, "length", length)
    shake = draw(rng, "shake", shake, 0.0)
    rotation = draw(rng, "rotation", rotation, 0.0)
    noise_sigma = draw(rng, "noise_sigma", noise_sigma, 0.0)
    gamma = draw(rng, "gamma", gamma, 1.0)
    tremor, zoom, lights = (
        draw(rng, name, knob, nothing)
        for name, knob, nothing in (("tremor", tremor, 0.0), ("zoom", zoom, 0.0), ("lights", lights, 1.0))
    )
    moving, exposures, jpeg = (
        draw(rng, name, knob) for name, knob in (("moving", moving), ("exposures", exposures), ("jpeg", jpeg))
    )

    centre, growth = (width / 2, height / 2), complex(np.log1p(zoom), np.radians(rotation))
    if length is not None:
        trajectory = random_trajectory(rng, length, shake)
        weights = time_weights(len(trajectory))
        twist = random_roll(rng, 1.0, shake, len(trajectory)) if growth else None
    else:
        extent = draw(rng, "long_extent", long_extent, draw(rng, "extent", extent, 0.0))
        trajectory = handheld_path(rng, extent, draw(rng, "bend", bend, 0.0))
        if tremor:
            trajectory = trajectory + random_trajectory(rng, tremor, 0.005, len(trajectory))
        weights = _moments(trajectory, exposures) if exposures else time_weights(len(trajectory))
        twist = uneven_course(rng, len(trajectory)) if growth else None
        if growth:
            growth = complex(*(growth.real, growth.imag) * rng.choice((-1, 1), 2))
            centre = rng.uniform(0, (width, height))
    own = handheld_path(rng, moving, steps=len(trajectory)) if moving else np.zeros_like(trajectory)

    reach = np.abs(trajectory - weights @ trajectory).max() + np.abs(own - weights @ own).max() + 2
    reach += np.expm1(abs(growth)) * np.hypot(*np.maximum(centre, np.subtract((width, height), centre)))
    around, part = surroundings(window, (height, width), int(reach))
    centre = np.subtract(centre, (around[1].start, around[0].start))
    light = to_light(image[around], gamma, lights)

    def blur(picture, path=trajectory):
        return blur_light(picture, path, weights, twist, growth, centre)

    if moving:
        mask = random_outline(rng, height, width, *around) if mask is None else np.asarray(mask, np.float32)[around]
    if moving and mask.any():
        blurred = blend_moving(light, mask, blur, lambda picture: blur(picture, trajectory + own))
    else:
        blurred = blur(light)
    kernel = path_kernels(trajectory, weights, np.zeros(len(trajectory)), 1)[0]
    return develop(blurred[part], gamma, noise_sigma, rng, jpeg), kernel


def _moments(trajectory, n):
    """The weights of a path that is seen at `n` moments, or at more, so that they lie 3 px apart on average at most."""
    n = max(round(n), int(np.ceil(np.hypot(*np.ptp(trajectory, axis=0)) / 3)))
    return np.bincount(np.linspace(0, len(trajectory) - 1, n).astype(int), minlength=len(trajectory)) / n


def mixed_blur(mix):
    """Makes the function that `TrainingSet` blurs photographs by: each by one of several kinds of blur.

    Args:
        mix: dict from names in `KINDS` to weights of at least 0, such as `{"handheld": 4, "paper": 1}`.

    Returns:
        A function from uint8 `(H, W, channels)`, a `numpy.random.Generator` and, where only a part is wanted, a
        `window` as of `random_blur`, to the blurred uint8.

    Raises:
        ValueError: if a kind is not known or the weights make no mixture.
    """
    for kind, weight in mix.items():
        require(kind in KINDS, "kind", repr(kind), f"one of {', '.join(KINDS)}")
        require(0 <= weight < np.inf, f"the weight of {kind}", f"{weight:g}", "at least 0")
    require(sum(mix.values()) > 0, "the sum of all weights", 0, "more than 0")
    kinds, weights = list(mix), np.array(list(mix.values()), float)

    def blur(image, rng, window=None):
        kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
        return random_blur(image, rng, window=window, **KINDS[kind])[0]

    return blur


def _exposed(name, course, exposure, columns=None):
    """The part of a course over time for which the shutter is open, checked."""
    course = np.asarray(course, np.float64)
    require(0 < exposure <= 1, "exposure", exposure, "more than 0 and at most 1")
    shape = "(steps,)" if columns is None else f"(steps, {columns})"
    matches = course.ndim > 0 and course.size and course.shape[1:] == (() if columns is None else (columns,))
    require(matches, name, f"of shape {course.shape}", shape)
    require(np.isfinite(course).all(), name, "not finite", "a course of finite numbers")
    return course[: round(exposure * (len(course) - 1)) + 1]
