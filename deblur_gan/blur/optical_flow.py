"""Blur along the optical flow of a recording: the motion between two frames becomes motion during an exposure.

OpenCV is required: `pip install opencv-python-headless`. Its flow (DIS) is twenty times as fast as those of
scikit-image at the same error.
"""

from contextlib import contextmanager

import numpy as np

from deblur_gan.blur.exposure import develop, expand_window, to_light
from deblur_gan.blur.ranges import draw, require

# The longest motion of a pixel, px, and the largest factor to a flow: noise of slower motion would be magnified.
_LONGEST, _LARGEST_FACTOR = 45.0, 16.0


def _opencv():
    try:
        import cv2
    except ImportError:
        raise ImportError("optical flow requires OpenCV: pip install opencv-python-headless") from None
    return cv2


@contextmanager
def one_opencv_thread():
    """Limits OpenCV to one thread within a `with` block, for the whole process, and restores the number afterwards."""
    cv2 = _opencv()
    n_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(n_threads)


def optical_flow(first, second):
    """Estimates the motion of each pixel from a frame to the next, at half the size.

    The frames are uint8 `(H, W, 3)` of one size, at least 32 px in each direction; the flow is float32 `(H, W, 2)`, px
    to the right and down. It depends on the number of OpenCV's threads; `one_opencv_thread` makes it reproducible.

    Reference: Kroeger et al., Fast Optical Flow Using Dense Inverse Search, ECCV 2016.
    """
    cv2 = _opencv()
    require(first.shape == second.shape, "second", f"of shape {second.shape}", f"{first.shape}, that of the first,")
    height, width = first.shape[:2]
    require(min(height, width) >= 32, "frame", f"{width}x{height}", "at least 32x32")
    half = [
        cv2.resize(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY), None, fx=0.5, fy=0.5, interpolation=3)
        for frame in (first, second)
    ]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*half, None)
    return cv2.resize(flow, (width, height)) * np.float32((width / half[0].shape[1], height / half[0].shape[0]))


def unreliable_share(forward, backward):
    """Returns the share of pixels that the flow to the next frame and back leave off by more than 1 px and a tenth.

    It is below 0.3 if flow describes the motion, and at least 0.95 across a cut.
    """
    off = _lengths(forward + _sample(backward, _grid(forward) + forward))
    return float(np.mean(off > 1 + 0.1 * _lengths(forward)))


def speed(flow):
    """Returns the speed of a frame: the 80th percentile of the lengths of its flow, px."""
    return float(np.percentile(_lengths(flow), 80))


def blur_along_flow(light, flow, bend=(0.0, 0.0), window=None):
    """Averages a frame over its motion, from half of `flow` before the frame to half of `flow` after it.

    Near the edge of an object that is faster than its surroundings, each moment shows the object at its position of
    that moment, and the surroundings elsewhere. So outlines are blurred to both sides.

    Args:
        light: float `(H, W, channels)`.
        flow: float32 `(H, W, 2)`, px to the right and down.
        bend: px to the right and down: deviation from the straight line at both ends, relative to the middle. The mean
            deviation is 0, so that the blurred frame is aligned with the sharp one.
        window: `(rows, columns)`, slices: only this part is computed and returned.

    Returns:
        float32 of the shape of `light` or of the window.
    """
    fastest = _spread(flow)
    length = _lengths(fastest[window or ...]).max()
    around, part = expand_window(window, light.shape[:2], int(length / 2 + np.hypot(*bend)) + 2)
    light, own, fastest = (np.ascontiguousarray(field[around], np.float32) for field in (light, flow, fastest))
    here = _grid(light)
    near_edge = _lengths(fastest - own) > 0.5 + 0.1 * _lengths(fastest)
    tolerance = 0.5 + 0.25 * _lengths(fastest)

    n_copies = int(np.clip(np.ceil(length / 1.5), 9, 25)) | 1
    total = np.zeros(light.shape, np.float32)
    times = np.linspace(-0.5, 0.5, n_copies)
    curve = times**2 - np.mean(times**2)
    for time, curved in zip(np.float32(times), curve, strict=True):
        start = here - np.float32(4 * curved * np.asarray(bend))
        copy = _sample(light, start - time * own)
        if near_edge[part].any():
            back = start - time * fastest
            arrives = np.clip(1.5 - _lengths(_sample(own, back) - fastest) / tolerance, 0, 1) * near_edge
            copy += arrives[..., np.newaxis] * (_sample(light, back) - copy)
        total += copy
    return total[part] / n_copies


def random_flow_blur(
    frame,
    flow,
    rng,
    window=None,
    length=(2.0, 22.0),
    long_length=(22.0, 35.0, 0.1),
    bend=(0.0, 0.2, 0.5),
    lights=(1.0, 2.0, 0.3),
    gamma=(1.0, 2.4, 0.5),
    noise_sigma=(0.0, 2.0, 0.5),
    jpeg=(80.0, 100.0, 0.25),
):
    """Blurs a frame along its flow, scaled to a random length.

    Each argument from `length` to `jpeg` is a range, as in `camera.random_blur`.

    Args:
        frame: uint8 `(H, W, 3)`.
        flow: float32 `(H, W, 2)`, px, from the frame to the next.
        rng: `numpy.random.Generator`.
        window: `(rows, columns)`, slices: only this part is returned.
        length: px, the `speed` that the flow is scaled to, by a factor of at most 16. No pixel moves more than 45 px.
        long_length: px, replaces `length` if it is drawn.
        bend: how far the camera leaves the straight line, as a part of the length, in a random direction.
        lights, gamma, noise_sigma, jpeg: as in `camera.random_blur`.

    Returns:
        uint8 of the shape of `frame` or of the window.

    >>> frame, flow = np.full((32, 32, 3), 90, np.uint8), np.full((32, 32, 2), 3, np.float32)
    >>> random_flow_blur(frame, flow, np.random.default_rng(0)).shape
    (32, 32, 3)
    """
    length = draw(rng, "long_length", long_length, draw(rng, "length", length, 0.0))
    bend = draw(rng, "bend", bend, 0.0) * length * np.exp(2j * np.pi * rng.random())
    lights, gamma = draw(rng, "lights", lights, 1.0), draw(rng, "gamma", gamma, 1.0)
    noise_sigma, jpeg = draw(rng, "noise_sigma", noise_sigma, 0.0), draw(rng, "jpeg", jpeg)
    flow = flow * np.float32(min(length / max(speed(flow), 1e-6), _LARGEST_FACTOR))
    flow *= np.minimum(1, _LONGEST / np.maximum(_lengths(flow)[..., np.newaxis], 1e-6))
    blurred = blur_along_flow(to_light(frame, gamma, lights), flow, (bend.real, bend.imag), window)
    return develop(blurred, gamma, noise_sigma, rng, jpeg)


def _spread(flow):
    """Returns the fastest flow that passes each pixel: float32 `(H, W, 2)`, found at a quarter of the size."""
    cv2 = _opencv()
    height, width = flow.shape[:2]
    small = cv2.resize(flow, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA)
    for _ in range(int(np.ceil(_lengths(small).max() / 2 / 4))):
        padded = np.pad(small, ((1, 1), (1, 1), (0, 0)), "edge")
        rows, columns = small.shape[:2]
        neighbours = [padded[y : y + rows, x : x + columns] for y, x in ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))]
        lengths = [np.sum(neighbour**2, axis=-1) for neighbour in neighbours]
        small = np.choose(np.argmax(lengths, axis=0)[..., np.newaxis], neighbours)
    spread = cv2.resize(small, (width, height))
    faster = _lengths(spread) > _lengths(flow) + 0.5
    return np.where(faster[..., np.newaxis], spread, flow)


def _lengths(field):
    return np.sqrt(field[..., 0] ** 2 + field[..., 1] ** 2)


def _grid(field):
    """Returns the positions of the pixels of a field `(H, W, channels)`: float32 `(H, W, 2)`, px."""
    height, width = field.shape[:2]
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def _sample(field, where):
    """Reads a field `(H, W, channels)` at the positions `(H, W, 2)`, bilinear, continued by reflection."""
    cv2 = _opencv()
    return cv2.remap(field, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101).reshape(field.shape)
