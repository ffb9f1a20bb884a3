"""Conversion between the pixels of files, uint8, and the values of the networks, float32 in [-1, 1]."""

import numpy as np


def from_uint8(pixels):
    """uint8 [0, 255] of any shape to float32 [-1, 1], as the networks take it."""
    return np.asarray(pixels, np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(values):
    """Float [-1, 1] of any shape to uint8 [0, 255]: clipped, then rounded to the nearest."""
    return np.rint((np.clip(np.asarray(values, np.float32), -1, 1) + 1) * np.float32(127.5)).astype(np.uint8)
