"""Sharpness of a picture, measured without a reference."""

import numpy as np

_WIDTH = 9


def sharpness(image):
    """Returns the share of the finest contrast that a blur of 9 px would remove: 0.75 is sharp, 0.5 blurred.

    The pixels are uint8 `(H, W, 3)`. The result is the smaller of the shares across and down, and 0 for a flat picture.
    It is 1 minus the measure of Crete et al., The Blur Effect: Perception and Estimation with a New No-Reference
    Perceptual Blur Metric, Human Vision and Electronic Imaging XII, 2007.
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
