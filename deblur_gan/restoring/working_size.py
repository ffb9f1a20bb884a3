"""Working size: the size at which a photograph is restored, and the way there and back."""

import numpy as np
from PIL import Image

from deblur_gan.images.pixels import from_uint8, resize, to_uint8
from deblur_gan.images.sharpness import sharpness

# The long side of a working copy, in pixels. The blur of a phone or a film frame is then as long as in training.
WORKING_SIDE = 960
# The most that a small photograph is enlarged to reach it.
LARGEST_ENLARGEMENT = 2.0
# A second copy has at most this share of the working size. Both together gain more than either; docs/restoring.md has
# the figures.
SMALLER_SIZE = 2 / 3
# The change of the first copy over that of the second, at which the first one counts for nothing and for its most.
# Long blur has a length that the network was trained on in the smaller copy only, and is changed more there.
FIRST_SHARES = (0.75, 1.05), (0.0, 0.8)
# If a large photograph still looks sharp in its working copy, its blur is short, and a larger copy shows it better.
LARGER_SIDES = (1440, 1920)
# Blur lowers the sharpness of a copy, and noise raises that of a larger copy: so a copy of 2/3 decides too.
SHARP = 0.66, 0.71
# The largest factor that `deblur` accepts.
LARGEST_SCALE = 4.0

# Rows that are restored at their own size at a time: the memory of float32 stays small however large the photograph.
_STRIP = 256


def choose_scale(image):
    """Chooses the factor from the own size of a photograph, uint8 `(H, W, 3)`, to its working size.

    The long side becomes `WORKING_SIDE` pixels; a small photograph is at most enlarged by `LARGEST_ENLARGEMENT`. A
    large photograph gets a working copy of 1440 or 1920 pixels if the smaller copy still looks sharp.
    """
    long_side = max(image.shape[:2])
    scale = smallest_scale(long_side)
    for side in LARGER_SIDES:
        if side > long_side or not _looks_sharp(image, scale):
            break
        scale = side / long_side
    return scale


def smallest_scale(long_side):
    """Returns the factor that `choose_scale` starts from, for a photograph whose long side has `long_side` pixels."""
    return min(WORKING_SIDE / long_side, LARGEST_ENLARGEMENT)


def smaller_scale(scale):
    """Returns the factor to the size of a second working copy: 2/3 of the first, at most 1, which is the own size."""
    return min(SMALLER_SIZE * scale, 1.0)


def _looks_sharp(image, scale):
    sizes = (scaled_size(image.shape[:2], factor) for factor in (scale, SMALLER_SIZE * scale))
    return all(sharpness(resize(image, *size)) > least for size, least in zip(sizes, SHARP, strict=True))


def share_of_change(tile, sharp_from):
    """Returns the share of the change that a tile, float32 `(h, w, 3)`, gets in a photograph that looks sharp.

    It is none for a tile whose sharpness is well above `sharp_from`, and all of it for one that is blurred by 2 px.
    """
    return np.interp(sharpness(tile), (sharp_from - 0.06, sharp_from + 0.02), (1, 0))


def scaled_size(size, scale):
    """Returns `(height, width)` times a factor, in whole pixels and at least one."""
    return tuple(max(1, round(side * scale)) for side in size)


def choose_shares(first, second=None):
    """Returns the shares of differences in their weighted mean, which add up to 1: a list of one or two.

    The differences are float32 `(B, h, w, 3)`, the second one of the smaller copy. Both are compared at its size, where
    both copies were changed: sharp tiles of a large photograph stay as they are.
    """
    if second is None:
        return [1.0]
    size = second.shape[1:3]
    first = _rows_at_size(first, size, slice(0, size[0]))
    changed = (first != 0) & (second != 0)
    ratio = np.inf
    if changed.any():
        ratio = np.sqrt(np.square(first[changed]).mean() / np.square(second[changed]).mean())
    share = float(np.interp(ratio, *FIRST_SHARES))
    return [share, 1 - share]


def add_differences(image, differences, shares):
    """Adds differences, times their shares, to photographs at their own size, and rounds once.

    `image` is uint8 `(B, H, W, 3)`; the differences are float32 `(B, h, w, 3)` in units of [-1, 1], of any sizes.
    Detail of the photographs beyond the resolution of a difference stays as it is.
    """
    height = image.shape[1]
    restored = np.empty_like(image)
    for top in range(0, height, _STRIP):
        rows = slice(top, min(top + _STRIP, height))
        change = sum(
            np.float32(share) * _rows_at_size(difference, image.shape[1:3], rows)
            for difference, share in zip(differences, shares, strict=True)
        )
        restored[:, rows] = to_uint8(from_uint8(image[:, rows]) + change)
    return restored


def _rows_at_size(difference, size, rows):
    """Returns some rows of a difference that is resized to `size`, `(height, width)`."""
    height, width = difference.shape[1:3]
    if (height, width) == size:
        return difference[:, rows]
    box = 0, rows.start * height / size[0], width, rows.stop * height / size[0]
    shape = size[1], rows.stop - rows.start

    def resized(plane):
        return Image.fromarray(np.ascontiguousarray(plane)).resize(shape, Image.Resampling.BICUBIC, box)

    return np.stack([np.stack([resized(one[..., channel]) for channel in range(3)], axis=-1) for one in difference])
