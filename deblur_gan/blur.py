"""Camera shake: random trajectories, the kernels they leave on the sensor, and photographs blurred by them.

A blurred photograph is modelled as I_B = k(M) * I_S + N: the sharp photograph convolved with the kernel of the camera's
motion, and noise. Everything random comes from the `numpy.random.Generator` that is passed in, so one seed gives one
result.

Reference:
    Kupyn et al., DeblurGAN: Blind Motion Deblurring Using Conditional Adversarial Networks, arXiv 1711.07064,
    section 3.3 and Algorithm 1; Boracchi and Foi, Modeling the Performance of Image Restoration from Motion Blur,
    IEEE Transactions on Image Processing 21(8), 2012.
"""

import itertools

import numpy as np
from PIL import Image
from scipy import fft


def random_trajectory(rng, length=60.0, shake=0.001, steps=2000):
    """Draws the path of a shaking camera: a Markov process of constant speed.

    The velocity starts in a uniform direction. At each step it is disturbed by Gaussian shake, pulled back towards
    where the path began (inertia), now and then thrown around (a big, impulsive shake: the finger on the button), and
    then brought back to constant speed. How strong the three are is drawn once for each path: inertia from U(0, 0.7),
    the probability of a big shake from U(0, 0.2), Gaussian shake from U(0, 10), each multiplied by `shake`. The paper
    prints U(0, 0.7) for the last; that leaves paths almost without tremor, and Boracchi and Foi draw it from U(0, 10).

    Args:
        rng: `numpy.random.Generator`.
        length: float, px, at least 0: the length of the path, that is the sum of its `steps - 1` equal steps. Paths
            bend, so a kernel is narrower than this: a third of it in the middle of the distribution.
        shake: float, at least 0, how much the path bends: 0 is a straight line, 0.001 is the paper's value, 0.005
            gives knots.
        steps: int, at least 2, the number of positions.

    Returns:
        float64 `(steps, 2)`, positions x (to the right) and y (down) in px, equally spaced in time, from (0, 0).

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Algorithm 1 of arXiv 1711.07064, with the inertial term of Boracchi and Foi 2012 (directed towards where the
        particle was; the paper prints it as a factor of the Gaussian term).
    """
    _require(length >= 0, "length", length, "at least 0")
    _require(shake >= 0, "shake", shake, "at least 0")
    _require(steps >= 2, "steps", steps, "at least 2")
    inertia, big_shake, gaussian = rng.uniform(0, (0.7, 0.2, 10.0))
    velocity = complex(np.exp(2j * np.pi * rng.random()))
    turns = steps - 1
    tremor = shake * gaussian * (rng.standard_normal(turns) + 1j * rng.standard_normal(turns))
    throw = 1 + 2 * np.exp(1j * (np.pi + rng.uniform(-0.5, 0.5, turns)))
    throw[rng.random(turns) >= shake * big_shake] = 1
    pull = float(shake * inertia)
    stride = length / turns

    # Each step needs the one before; plain complex numbers are several times faster here than arrays of one element.
    position = 0j
    path = [position]
    for thrown, trembled in zip(throw.tolist(), tremor.tolist(), strict=True):
        velocity = velocity * thrown + trembled - pull * position
        velocity /= abs(velocity)
        position += stride * velocity
        path.append(position)
    path = np.array(path)
    return np.stack([path.real, path.imag], axis=-1)


def random_roll(rng, extent, shake=0.001, steps=2000):
    """Draws how a shaking camera turns around its viewing axis: one coordinate of a `random_trajectory`, scaled.

    Args:
        rng: `numpy.random.Generator`.
        extent: float, degrees, at least 0: the difference between the largest and the smallest angle.
        shake: as in `random_trajectory`.
        steps: int, at least 2, the number of angles.

    Returns:
        float64 `(steps,)`, degrees, equally spaced in time.

    Raises:
        ValueError: if an argument is out of its range.
    """
    _require(extent >= 0, "extent", extent, "at least 0")
    course = random_trajectory(rng, shake=shake, steps=steps)[:, 0]
    return course * (extent / np.ptp(course))


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
    return _kernels(trajectory, np.zeros(len(trajectory)), 1)[0]


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
    _require(odd, "kernel", f"of shape {kernel.shape}", "two-dimensional, odd by odd,")
    _require(abs(kernel.sum() - 1) < 1e-6, "kernel", f"a sum of {kernel.sum():g}", "a sum of 1")
    return _blur(image, kernel[np.newaxis], np.zeros(1), noise_sigma, gamma, rng)


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
    roll = np.radians(_exposed("roll", roll, exposure))
    _require(len(roll) == len(trajectory), "roll", f"{len(roll)} angles", f"{len(trajectory)}, one for each position")
    roll = roll - _time_weights(len(roll)) @ roll
    # Angles are binned like positions: by linear interpolation, between angles that lie a pixel apart in the corners.
    lever = np.hypot(*np.shape(image)[:2]) / 2
    n_angles = int(np.ceil(np.ptp(roll) * lever)) + 1
    angles = np.linspace(roll.min(), roll.max(), n_angles) if n_angles > 1 else np.zeros(1)
    bins = (roll - angles[0]) / np.ptp(angles) * (n_angles - 1) if n_angles > 1 else np.zeros(len(roll))
    return _blur(image, _kernels(trajectory, bins, n_angles), angles, noise_sigma, gamma, rng)


def random_blur(
    image,
    rng,
    length=(5.0, 60.0),
    shake=(0.001, 0.005),
    rotation=(0.0, 1.0),
    noise_sigma=(0.0, 2.0),
    gamma=2.2,
):
    """Blurs a photograph by a random camera shake.

    Each range is `(low, high)`, from which a value is drawn uniformly; `(2, 2)` is always 2.

    Args:
        image: uint8 `(H, W, channels)`, of any size.
        rng: `numpy.random.Generator`.
        length: px, range of the length of the path.
        shake: range of how much the path bends, as in `random_trajectory`.
        rotation: degrees, range of the extent of the roll; `(0, 0)` gives one kernel for the whole picture, as in the
            paper, and is several times faster.
        noise_sigma: grey levels of 255, range of the standard deviation of the noise.
        gamma: as in `blur_image`.

    Returns:
        `(blurred, kernel)`: uint8 of the shape of `image`, and the kernel in the middle of it as of `motion_kernel`.

    Raises:
        ValueError: if an argument is out of its range or of the wrong shape.
    """
    length = _draw(rng, "length", length)
    shake = _draw(rng, "shake", shake)
    rotation = _draw(rng, "rotation", rotation)
    noise_sigma = _draw(rng, "noise_sigma", noise_sigma)
    trajectory = random_trajectory(rng, length, shake)
    kernel = motion_kernel(trajectory)
    if rotation == 0:
        return blur_image(image, kernel, noise_sigma, gamma, rng), kernel
    roll = random_roll(rng, rotation, shake, len(trajectory))
    return blur_image_with_roll(image, trajectory, roll, 1.0, noise_sigma, gamma, rng), kernel


def _draw(rng, name, bounds):
    low, high = bounds
    _require(0 <= low <= high < np.inf, name, f"{low:g} to {high:g}", "a range from low to high, at least 0")
    return float(rng.uniform(low, high))


def _require(condition, name, found, required):
    if not condition:
        raise ValueError(f"{name} is {found}; {required} is required")


def _exposed(name, course, exposure, columns=None):
    """The part of a course over time for which the shutter is open, checked."""
    course = np.asarray(course, np.float64)
    _require(0 < exposure <= 1, "exposure", exposure, "more than 0 and at most 1")
    shape = "(steps,)" if columns is None else f"(steps, {columns})"
    matches = course.ndim > 0 and course.size and course.shape[1:] == (() if columns is None else (columns,))
    _require(matches, name, f"of shape {course.shape}", shape)
    _require(np.isfinite(course).all(), name, "not finite", "a course of finite numbers")
    return course[: round(exposure * (len(course) - 1)) + 1]


def _time_weights(steps):
    """The part of the exposure that each position stands for: the first and the last stand for half a step."""
    weights = np.ones(steps)
    weights[[0, -1]] /= 2
    return weights / weights.sum()


def _kernels(trajectory, bins, n_bins):
    """Spreads a path over `n_bins` kernels, `(n_bins, 2 r + 1, 2 r + 1)`: each position over its 2 x 2 x 2 neighbours.

    The mean position comes to lie on the middle pixel: linear interpolation keeps first moments.
    """
    weights = _time_weights(len(trajectory))
    # Rounded, so that noise in the last digits does not make a kernel wider by a border of nothing.
    centred = np.round(trajectory - weights @ trajectory, 9)
    radius = int(np.ceil(np.abs(centred).max()))
    # One more in each direction than is returned, for the neighbours of weight 0 of positions on the last pixel.
    shape = (n_bins + 1, 2 * radius + 2, 2 * radius + 2)
    corners = []
    for coordinate in (bins, centred[:, 1] + radius, centred[:, 0] + radius):
        below = np.floor(coordinate).astype(np.intp)
        above = coordinate - below
        corners.append(((below, 1 - above), (below + 1, above)))
    volume = np.zeros(np.prod(shape))
    for (k, in_bin), (i, in_row), (j, in_column) in itertools.product(*corners):
        index = np.ravel_multi_index((k, i, j), shape)
        volume += np.bincount(index, weights * in_bin * in_row * in_column, minlength=volume.size)
    return volume.reshape(shape)[:-1, :-1, :-1]


def _blur(image, kernels, angles, noise_sigma, gamma, rng):
    """The sum over all angles of the picture turned by the angle and convolved with the kernel of the angle."""
    image = np.asarray(image)
    _require(image.dtype == np.uint8, "image", image.dtype, "uint8")
    _require(image.ndim == 3 and image.size, "image", f"of shape {image.shape}", "(H, W, channels)")
    _require(0 <= noise_sigma < np.inf, "noise_sigma", noise_sigma, "at least 0")
    _require(0 < gamma < np.inf, "gamma", gamma, "more than 0")
    _require(noise_sigma == 0 or rng is not None, "rng", None, "a numpy.random.Generator, for the noise,")
    height, width, _ = image.shape
    rows, columns = kernels.shape[1] // 2, kernels.shape[2] // 2
    # How far a turn moves what ends up in the corners.
    reach = int(np.ceil(np.hypot(height + 2 * rows, width + 2 * columns) / 2 * np.abs(angles).max()))
    shape = (fft.next_fast_len(height + 2 * rows, True), fft.next_fast_len(width + 2 * columns, True))
    transfer = [fft.rfft2(kernel, shape) for kernel in kernels]
    light = (np.arange(256) / 255) ** gamma

    # The transforms need double precision: shadows are powers of small numbers. What follows does not.
    blurred = np.empty(image.shape, np.float32)
    for channel in range(image.shape[2]):
        padded = np.pad(
            light[image[..., channel]], ((rows + reach, rows + reach), (columns + reach, columns + reach)), "reflect"
        )
        spectrum = 0
        for angle, of_angle in zip(angles, transfer, strict=True):
            spectrum = spectrum + fft.rfft2(_turn(padded, angle, reach), shape) * of_angle
        whole = fft.irfft2(spectrum, shape)
        blurred[..., channel] = whole[2 * rows : 2 * rows + height, 2 * columns : 2 * columns + width]
    values = 255 * np.clip(blurred, 0, 1) ** np.float32(1 / gamma)
    if noise_sigma:
        values += np.float32(noise_sigma) * rng.standard_normal(values.shape, np.float32)
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _turn(plane, angle, margin):
    """Turns a plane around its centre by radians, from x towards y, and cuts `margin` px off on each side."""
    height, width = plane.shape[0] - 2 * margin, plane.shape[1] - 2 * margin
    if angle == 0:
        return plane[margin : margin + height, margin : margin + width]
    cos, sin = np.cos(angle), np.sin(angle)
    # Pillow wants where a pixel of the result comes from, in coordinates in which pixel centres are at halves.
    x, y = width / 2, height / 2
    source = (cos, sin, margin + x - cos * x - sin * y, -sin, cos, margin + y + sin * x - cos * y)
    picture = Image.fromarray(plane.astype(np.float32))
    return np.asarray(picture.transform((width, height), Image.Transform.AFFINE, source, Image.Resampling.BILINEAR))
