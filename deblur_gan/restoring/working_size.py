"""Working size: the size at which a photograph is restored, and the way there and back."""

import numpy as np
from PIL import Image

from deblur_gan.images.pixels import from_uint8, to_uint8

# The long side of a working copy, in pixels, and the most that a small photograph is enlarged to reach it.
WORKING_SIDE = 960
LARGEST_ENLARGEMENT = 2.0
# The largest factor that `deblur` accepts.
LARGEST_SCALE = 4.0

# Rows that are restored at their own size at a time: the memory of float32 stays small however large the photograph.
_STRIP = 256


def default_scale(height, width):
    """Returns the factor from the own size of a photograph to its working size.

    Args:
        height, width: int, in pixels.

    Returns:
        float: the long side becomes `WORKING_SIDE` pixels. A small photograph is at most enlarged by
        `LARGEST_ENLARGEMENT`.

    Example:
        >>> default_scale(3000, 4000), default_scale(360, 640), default_scale(90, 160)
        (0.24, 1.5, 2.0)
    """
    return min(WORKING_SIDE / max(height, width), LARGEST_ENLARGEMENT)


def resize(image, scale):
    """Resizes photographs by a factor to both sides, bicubic with antialiasing.

    Args:
        image: uint8 `(B, H, W, 3)`.
        scale: float above 0.

    Returns:
        uint8 `(B, h, w, 3)`, at least one pixel each way; `image` itself if nothing changes.
    """
    height, width = image.shape[1:3]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return image
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in image])


def add_differences(image, differences, strength=1.0):
    """Adds the mean of differences to photographs at their own size, and rounds once.

    Detail of the photographs beyond the resolution of a difference stays as it is.

    Args:
        image: uint8 `(B, H, W, 3)`.
        differences: list of float32 `(B, h, w, 3)` in units of [-1, 1], of any sizes.
        strength: float, factor to the mean.

    Returns:
        uint8 array of the shape of `image`.
    """
    height = image.shape[1]
    restored = np.empty_like(image)
    for top in range(0, height, _STRIP):
        rows = slice(top, min(top + _STRIP, height))
        change = sum(_rows_at_size(difference, image.shape[1:3], rows) for difference in differences)
        factor = np.float32(strength / len(differences))
        restored[:, rows] = to_uint8(from_uint8(image[:, rows]) + factor * change)
    return restored


def _rows_at_size(difference, size, rows):
    """Some rows of a difference that is resized to `size`, `(height, width)`."""
    height, width = difference.shape[1:3]
    if (height, width) == size:
        return difference[:, rows]
    box = 0, rows.start * height / size[0], width, rows.stop * height / size[0]
    shape = size[1], rows.stop - rows.start
    resized = np.empty((len(difference), shape[1], shape[0], 3), np.float32)
    for number, one in enumerate(difference):
        for channel in range(3):
            plane = Image.fromarray(np.ascontiguousarray(one[..., channel]))
            resized[number, ..., channel] = plane.resize(shape, Image.Resampling.BICUBIC, box)
    return resized
