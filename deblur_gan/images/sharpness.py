"""Sharpness of a picture, measured without a reference."""

import numpy as np

_WIDTH = 9


def sharpness(image):
    """Returns the share of the finest contrast that a blur of 9 px would remove: 0.75 is sharp, 0.5 blurred.

    Args:
        image: uint8 `(H, W, 3)`.

    Returns:
        float in [0, 1], the smaller of the shares across and down; 0 for a flat picture.

    Reference:
        Crete et al., The Blur Effect: Perception and Estimation with a New No-Reference Perceptual Blur Metric,
        Human Vision and Electronic Imaging XII, 2007: this is 1 minus their measure.

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        >>> sharpness(noise) > 0.75, sharpness(np.zeros((32, 32, 3), np.uint8))
        (True, 0.0)
    """
    grey = image @ np.float32([0.299, 0.587, 0.114])
    shares = []
    for lines in (grey, grey.T):
        steps = np.abs(np.diff(lines, axis=0))
        # The difference of two neighbouring means of nine lines is that of the lines that enter and leave.
        padded = np.pad(lines, ((_WIDTH // 2, _WIDTH // 2), (0, 0)), mode="symmetric")
        after = np.abs(padded[_WIDTH:] - padded[:-_WIDTH]) / _WIDTH
        shares.append(float(np.maximum(steps - after, 0).sum() / max(steps.sum(), 1e-6)))
    return min(shares)
