"""Motion blur of photographs: the kernels of trajectories, and random blur by the motion of camera and subject.

A blurred photograph is modelled as I_B = k(M) * I_S + N: the sharp photograph convolved with the kernel of the camera's
motion, and noise. Turn and zoom of the camera make the kernel vary over the picture. An object in front may move on its
own. All random numbers come from the `numpy.random.Generator` that is passed in, so one seed gives one result.

Reference:
    Kupyn et al., DeblurGAN: Blind Motion Deblurring Using Conditional Adversarial Networks, arXiv 1711.07064,
    section 3.3; Boracchi and Foi, Modeling the Performance of Image Restoration from Motion Blur, IEEE Transactions on
    Image Processing 21(8), 2012.
"""

import numpy as np

from deblur_gan.blur.exposure import (
    blend_moving,
    blur_light,
    check_image,
    convolve,
    develop,
    expand_window,
    time_weights,
    to_light,
    trajectory_kernels,
)
from deblur_gan.blur.ranges import KINDS, draw, require
from deblur_gan.blur.trajectories import (
    handheld_trajectory,
    random_outline,
    random_roll,
    random_trajectory,
    uneven_progress,
)


def motion_kernel(trajectory):
    """Turns a trajectory into the kernel that it leaves on the pixel grid, by bilinear interpolation.

    Args:
        trajectory: float `(steps, 2)`, positions x, y in px, equally spaced in time.

    Returns:
        float64 `(2 r + 1, 2 r + 1)`, just large enough: non-negative, with sum 1 and its centroid at the middle pixel,
        so that it does not shift the picture.

    Raises:
        ValueError: if the trajectory is empty, not finite or of the wrong shape.

    >>> motion_kernel(np.array([[0, 0], [1, 0], [2, 0]]))[1]
    array([0.25, 0.5 , 0.25])
    """
    trajectory = np.asarray(trajectory, np.float64)
    matches = trajectory.size and trajectory.shape[1:] == (2,)
    require(matches, "trajectory", f"of shape {trajectory.shape}", "(steps, 2)")
    require(np.isfinite(trajectory).all(), "trajectory", "not finite", "a series of finite positions")
    return trajectory_kernels(trajectory, time_weights(len(trajectory)))[0]


def blur_image(image, kernel, noise_sigma=0.0, gamma=1.0, rng=None):
    """Blurs a photograph: I_B = k * I_S + N. The picture is extended by reflection at its border.

    Args:
        image: uint8 `(H, W, channels)`, of any size.
        kernel: float `(rows, columns)`, both odd, with sum 1.
        noise_sigma: float, grey levels of 255, at least 0: standard deviation of the Gaussian noise N.
        gamma: float above 0: light is `(value / 255) ** gamma`, and light is blurred. 2.2 is close to what cameras
            write; 1 blurs the values.
        rng: `numpy.random.Generator` for the noise; required unless `noise_sigma` is 0.

    Returns:
        uint8 of the shape of `image`.

    Raises:
        ValueError: if an argument is out of its range or of the wrong shape.

    >>> image = np.uint8([0, 0, 200, 0, 0]).reshape(1, 5, 1)
    >>> blur_image(image, np.array([[0.0, 0.5, 0.5]])).ravel()
    array([  0,   0, 100, 100,   0], dtype=uint8)
    """
    kernel = np.asarray(kernel, np.float64)
    odd = kernel.ndim == 2 and all(side % 2 for side in kernel.shape)
    require(odd, "kernel", f"of shape {kernel.shape}", "two-dimensional, odd by odd,")
    require(abs(kernel.sum() - 1) < 1e-6, "kernel", f"a sum of {kernel.sum():g}", "a sum of 1")
    return develop(convolve(to_light(image, gamma), kernel[np.newaxis], [1]), gamma, noise_sigma, rng)


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
    """Blurs a photograph by a random motion of the camera. The defaults are the paper's; `ranges.KINDS` has others.

    Each argument from `length` to `jpeg` is a range: `(low, high)`, to draw from uniformly; `(low, high, share)`, to
    draw from in that share of the cases; a number; or None for off.

    Args:
        image: uint8 `(H, W, channels)`, of any size.
        rng: `numpy.random.Generator`.
        length: px, of a wandering trajectory as in the paper (`random_trajectory`). If it is not drawn, the trajectory
            is that of a hand (`handheld_trajectory`).
        shake: how much the paper's trajectory bends.
        rotation: degrees, the turn of the camera; for a hand, in one direction. None gives one kernel for the whole
            picture, as in the paper, and is several times faster.
        noise_sigma: grey levels of 255, standard deviation of the noise.
        gamma: as in `blur_image`; 1 if it is not drawn.
        extent: px, from the beginning of a hand's trajectory to its end.
        long_extent: px, replaces `extent` if it is drawn.
        bend: how far the trajectory of a hand may leave the straight line, as a part of its extent.
        tremor: px, length of a wandering trajectory that is added to that of a hand.
        zoom: growth or shrinkage of the picture during the exposure, as a part of its size. The centre of turn and
            zoom is anywhere in the picture for a hand, and the middle for the paper's trajectory.
        moving: px, extent of the motion of an object in front.
        lights: at least 1: light that came from white areas, as a multiple of what a full sensor holds. It is blurred
            and then clipped, as by a sensor.
        exposures: number of moments at which a hand's trajectory is sampled, as in averaged frames of a video; more if
            they would be more than 3 px apart on average. If it is not drawn, the shutter stays open.
        jpeg: quality, 1 to 100, of a JPEG file that the blurred picture is saved to.
        mask: float `(H, W)` in [0, 1], the object in front; by default a `random_outline`.
        window: `(rows, columns)`, slices: only this part is computed and returned.

    Returns:
        `(blurred, kernel)`: uint8 of the shape of `image` or of the window; the kernel of the trajectory as
        `motion_kernel` returns it, without turn, zoom and the object in front.

    Raises:
        ValueError: if an argument is out of its range or of the wrong shape.

    >>> grey = np.full((64, 64, 3), 90, np.uint8)
    >>> blurred, kernel = random_blur(grey, np.random.default_rng(0), **KINDS["handheld"])
    >>> blurred.shape, kernel.ndim
    ((64, 64, 3), 2)
    """
    image = check_image(image)
    height, width, _ = image.shape

    # Values from the ranges.
    length = draw(rng, "length", length)
    shake = draw(rng, "shake", shake, 0.0)
    rotation = draw(rng, "rotation", rotation, 0.0)
    noise_sigma = draw(rng, "noise_sigma", noise_sigma, 0.0)
    gamma = draw(rng, "gamma", gamma, 1.0)
    tremor = draw(rng, "tremor", tremor, 0.0)
    zoom = draw(rng, "zoom", zoom, 0.0)
    lights = draw(rng, "lights", lights, 1.0)
    moving = draw(rng, "moving", moving)
    exposures = draw(rng, "exposures", exposures)
    jpeg = draw(rng, "jpeg", jpeg)

    # The motion of the camera, and that of the object in front relative to it.
    centre, growth = (width / 2, height / 2), complex(np.log1p(zoom), np.radians(rotation))
    if length is not None:
        trajectory = random_trajectory(rng, length, shake)
        weights = time_weights(len(trajectory))
        twist = random_roll(rng, 1.0, shake, len(trajectory)) if growth else None
    else:
        extent = draw(rng, "long_extent", long_extent, draw(rng, "extent", extent, 0.0))
        trajectory = handheld_trajectory(rng, extent, draw(rng, "bend", bend, 0.0))
        if tremor:
            trajectory = trajectory + random_trajectory(rng, tremor, 0.005, len(trajectory))
        weights = _sample_moments(trajectory, exposures) if exposures else time_weights(len(trajectory))
        twist = uneven_progress(rng, len(trajectory)) if growth else None
        if growth:
            growth = complex(*(growth.real, growth.imag) * rng.choice((-1, 1), 2))
            centre = rng.uniform(0, (width, height))
    own = handheld_trajectory(rng, moving, steps=len(trajectory)) if moving else np.zeros_like(trajectory)

    # The window with as much around it as moves into it.
    reach = np.abs(trajectory - weights @ trajectory).max() + np.abs(own - weights @ own).max() + 2
    reach += np.expm1(abs(growth)) * np.hypot(*np.maximum(centre, np.subtract((width, height), centre)))
    around, part = expand_window(window, (height, width), int(reach))
    centre = np.subtract(centre, (around[1].start, around[0].start))
    light = to_light(image[around], gamma, lights)

    def blur(picture, trajectory=trajectory):
        return blur_light(picture, trajectory, weights, twist, growth, centre)

    if moving:
        mask = random_outline(rng, height, width, *around) if mask is None else np.asarray(mask, np.float32)[around]
    if moving and mask.any():
        blurred = blend_moving(light, mask, blur, lambda picture: blur(picture, trajectory + own))
    else:
        blurred = blur(light)
    kernel = trajectory_kernels(trajectory, weights)[0]
    return develop(blurred[part], gamma, noise_sigma, rng, jpeg), kernel


def _sample_moments(trajectory, n):
    """Returns the weights of at least `n` moments of a trajectory, which are at most 3 px apart on average."""
    n = max(round(n), int(np.ceil(np.hypot(*np.ptp(trajectory, axis=0)) / 3)))
    return np.bincount(np.linspace(0, len(trajectory) - 1, n).astype(int), minlength=len(trajectory)) / n


def mixed_blur(mix):
    """Returns the function that `TrainingSet` blurs photographs with: each by one of several kinds of blur.

    `mix` is a dict from names in `ranges.KINDS` to weights, such as `{"handheld": 4, "paper": 1}`. The function accepts
    `image`, `rng` and `window` as `random_blur` does, and returns the blurred uint8.
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
