"""Conversion between the pixels of files, uint8, and the values of the networks, float32 in [-1, 1], and resizing."""

import numpy as np
from PIL import Image


def from_uint8(pixels):
    """Returns uint8 [0, 255] of any shape as float32 [-1, 1], the range of the networks.

    Example:
        >>> from_uint8([0, 255])
        array([-1.,  1.], dtype=float32)
    """
    return np.asarray(pixels, np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(values):
    """Returns float [-1, 1] of any shape as uint8 [0, 255]: clipped, then rounded to the nearest.

    Example:
        >>> to_uint8([-2, 1])
        array([  0, 255], dtype=uint8)
    """
    return np.rint((np.clip(np.asarray(values, np.float32), -1, 1) + 1) * np.float32(127.5)).astype(np.uint8)


def resize(pixels, height, width):
    """Resizes uint8 `(H, W, channels)`, bicubic with antialiasing; returns the pixels themselves if they have the size.

    Example:
        >>> resize(np.zeros((8, 6, 3), np.uint8), 4, 3).shape
        (4, 3, 3)
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, pixels.shape[2])
