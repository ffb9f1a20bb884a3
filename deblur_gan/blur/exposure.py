"""Light on a moving sensor: conversion between photographs and light, and averages of light along a trajectory.

Light is float `(H, W, channels)`; 1 is what a full sensor holds.
"""

import io
import itertools

import numpy as np
from PIL import Image
from scipy import fft

from deblur_gan.blur.ranges import draw, require


def to_light(image, gamma, lights=1.0):
    """Converts uint8 `(H, W, channels)` to float64 light in [0, lights].

    From value 250 on the sensor may have been full: 255 stands for `lights` times the light of a full sensor.
    """
    image = check_image(image)
    require(0 < gamma < np.inf, "gamma", gamma, "more than 0")
    require(1 <= lights < np.inf, "lights", lights, "at least 1")
    light = (np.arange(256) / 255) ** gamma
    light *= 1 + (lights - 1) * np.clip(np.arange(256) - 250, 0, None) / 5
    return light[image]


def develop(light, gamma, noise_sigma=0.0, rng=None, jpeg=None):
    """Converts light `(H, W, channels)` to uint8: clipped, with Gaussian noise, as JPEG if `jpeg` is a quality."""
    require(0 <= noise_sigma < np.inf, "noise_sigma", noise_sigma, "at least 0")
    require(noise_sigma == 0 or rng is not None, "rng", None, "a numpy.random.Generator, for the noise,")
    require(jpeg is None or 1 <= jpeg <= 100, "jpeg", jpeg, "a quality of 1 to 100")
    values = 255 * np.clip(light, 0, 1).astype(np.float32) ** np.float32(1 / gamma)
    if noise_sigma:
        values += np.float32(noise_sigma) * rng.standard_normal(values.shape, np.float32)
    image = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    if jpeg is None:
        return image
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=round(jpeg))
    return np.asarray(Image.open(file)).reshape(image.shape)


def check_image(image):
    """Returns the image as an array; raises ValueError unless it is uint8 `(H, W, channels)` and not empty."""
    image = np.asarray(image)
    require(image.dtype == np.uint8, "image", image.dtype, "uint8")
    require(image.ndim == 3 and image.size, "image", f"of shape {image.shape}", "(H, W, channels)")
    return image


def blur_light(light, trajectory, weights, twist=None, growth=0j, centre=None):
    """Averages a picture along the motion of a camera that shifts, turns and zooms at the same time.

    At each moment the picture is turned and enlarged around `centre`, then shifted. Mean shift and mean twist are
    removed, so that the average is aligned with the picture.

    Args:
        light: float `(H, W, channels)`.
        trajectory: float `(steps, 2)`, positions x, y in px.
        weights: float `(steps,)`, the share of the light that each position receives; their sum is 1.
        twist: float `(steps,)`, progress of turn and zoom; None for neither.
        growth: complex: one unit of `twist` adds its real part to the logarithm of the picture's size, and its
            imaginary part to the picture's angle in radians, from x towards y.
        centre: `(x, y)` px, inside the picture or outside; pixel centres are at halves. By default the middle.

    Returns:
        float32 of the shape of `light`.
    """
    height, width, _ = light.shape
    twist = np.zeros(len(trajectory)) if twist is None else twist - weights @ twist
    centre = complex(*((width / 2, height / 2) if centre is None else centre))
    # Twists are binned like positions: by linear interpolation, between twists that are a pixel apart in the corner
    # that moves farthest.
    farthest = max(abs(centre - complex(x, y)) for x in (0, width) for y in (0, height))
    n_nodes = int(np.ceil(np.ptp(twist) * abs(growth) * farthest)) + 1
    nodes = np.linspace(twist.min(), twist.max(), n_nodes) if n_nodes > 1 else np.zeros(1)
    bins = (twist - nodes[0]) / np.ptp(nodes) * (n_nodes - 1) if n_nodes > 1 else np.zeros(len(twist))
    return convolve(light, trajectory_kernels(trajectory, weights, bins, n_nodes), np.exp(nodes * growth), centre)


def blend_moving(light, mask, blur_back, blur_front):
    """Blurs light `(H, W, channels)` in which an object in front, 1 in the mask `(H, W)`, moves on its own.

    The object and its mask are blurred by its motion, `blur_front`. The background is blurred by the motion of the
    camera, `blur_back`, without the object, so that no copy of the object appears there. Background that the object
    uncovers is filled with the pixels next to its way. Both functions blur float `(H, W, n)` and keep its sums.
    """
    mask = mask[..., np.newaxis]
    picture = np.concatenate([light, np.ones_like(mask)], axis=-1)
    front = blur_front(picture * mask)
    back = blur_back(picture * (1 - mask))
    back = back + (1 - back[..., -1:]) * (1e-3 * (blur_front(picture) - front) + 1e-6 * picture)
    return front[..., :-1] + (1 - front[..., -1:]) * back[..., :-1] / back[..., -1:]


def average_frames(frames, rng, window=None, gamma=2.2, lights=None, noise_sigma=None, jpeg=None):
    """Averages consecutive frames, uint8 `(H, W, channels)`, into a blurred photograph, as light.

    `window`, `(rows, columns)`, is the part to return. `gamma`, `lights`, `noise_sigma` and `jpeg` are ranges as in
    `camera.random_blur`; a gamma of 1 averages the values.
    """
    gamma, lights = draw(rng, "gamma", gamma, 1.0), draw(rng, "lights", lights, 1.0)
    noise_sigma, jpeg = draw(rng, "noise_sigma", noise_sigma, 0.0), draw(rng, "jpeg", jpeg)
    total = sum(to_light(frame[window or ...], gamma, lights) for frame in frames)
    return develop(total / len(frames), gamma, noise_sigma, rng, jpeg)


def expand_window(window, shape, reach):
    """Expands a window of a picture of `shape` by `reach` px on each side, as far as the picture goes.

    A window is two slices; None is the whole picture. Returns `(around, part)`: the expanded window, and where the
    window is in it.
    """
    around, part = [], []
    for side, wanted in zip(shape, window or (slice(None), slice(None)), strict=True):
        start, stop, _ = wanted.indices(side)
        around.append(slice(max(0, start - reach), min(side, stop + reach)))
        part.append(slice(start - around[-1].start, stop - around[-1].start))
    return tuple(around), tuple(part)


def time_weights(steps):
    """Returns the share of the exposure of each position; the first and the last have half a step each."""
    weights = np.ones(steps)
    weights[[0, -1]] /= 2
    return weights / weights.sum()


def trajectory_kernels(trajectory, weights, bins=0, n_bins=1):
    """Distributes a trajectory over `n_bins` kernels, `(n_bins, 2 r + 1, 2 r + 1)`, by linear interpolation.

    Each position contributes to its 2 x 2 x 2 neighbours. The mean position is at the middle pixel, because linear
    interpolation keeps first moments.
    """
    # Rounded, because noise in the last digits would add a border of zeros to the kernel.
    centred = np.round(trajectory - weights @ trajectory, 9)
    radius = int(np.ceil(np.abs(centred).max()))
    # One more in each direction than is returned: positions on the last pixel have neighbours of weight 0.
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


def convolve(light, kernels, motions, centre=0j):
    """Returns the sum, over all motions, of the moved picture convolved with the motion's kernel: float32.

    A motion is a complex number that the distance from `centre` is multiplied by: it turns and enlarges.
    """
    height, width, channels = light.shape
    rows, columns = kernels.shape[1] // 2, kernels.shape[2] // 2
    # The largest displacement: that of the corners.
    corners = [centre - complex(x, y) for x in (-columns, width + columns) for y in (-rows, height + rows)]
    reach = int(np.ceil(max(abs(motion - 1) for motion in motions) * max(map(abs, corners))))
    shape = (fft.next_fast_len(height + 2 * rows, True), fft.next_fast_len(width + 2 * columns, True))
    transfer = [fft.rfft2(kernel, shape) for kernel in kernels]
    border = (rows + reach, rows + reach), (columns + reach, columns + reach)

    # The transforms need double precision, because shadows are powers of small numbers. The rest does not.
    blurred = np.empty(light.shape, np.float32)
    for channel in range(channels):
        padded = np.pad(light[..., channel], border, "reflect")
        spectrum = 0
        for motion, of_motion in zip(motions, transfer, strict=True):
            moved = _moved(padded, motion, centre + complex(columns, rows), reach)
            spectrum = spectrum + fft.rfft2(moved, shape) * of_motion
        whole = fft.irfft2(spectrum, shape)
        blurred[..., channel] = whole[2 * rows : 2 * rows + height, 2 * columns : 2 * columns + width]
    return blurred


def _moved(plane, motion, centre, margin):
    """Multiplies the distances from `centre` by the complex number `motion`, and cuts `margin` px off on each side."""
    height, width = plane.shape[0] - 2 * margin, plane.shape[1] - 2 * margin
    if motion == 1:
        return plane[margin : margin + height, margin : margin + width]
    # Pillow expects the source position of each pixel of the result, with pixel centres at halves.
    back = 1 / motion
    origin = centre - back * centre + complex(margin, margin)
    source = (back.real, -back.imag, origin.real, back.imag, back.real, origin.imag)
    picture = Image.fromarray(plane.astype(np.float32))
    return np.asarray(picture.transform((width, height), Image.Transform.AFFINE, source, Image.Resampling.BILINEAR))
