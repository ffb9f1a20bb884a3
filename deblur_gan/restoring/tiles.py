"""Tiles: a photograph at its working size, restored part by part, and the parts blended."""

import math

import numpy as np

from deblur_gan.architectures import GENERATORS
from deblur_gan.images.pixels import from_uint8

# Photographs are padded to sizes that every generator takes.
SIZE_MULTIPLE = math.lcm(*(row.size_multiple for row in GENERATORS.values()))
SMALLEST_SIDE = max(row.smallest_side for row in GENERATORS.values())
# Smaller photographs are padded to this size: means and variances over fewer pixels are no photograph's.
SMALLEST_WHOLE_SIDE = 64


class TiledPhotograph:
    """A photograph at one working size, cut into tiles, and the differences that restore it.

    The photograph is padded by reflection, to 64 pixels at least and to a multiple of 4. Tiles overlap and fade into
    each other.

    Args:
        image: uint8 `(B, H, W, 3)` at its working size.
        tile_size: int, largest height and width of a tile in pixels, a multiple of 4. A photograph that fits is one
            tile, padded or not.
        overlap: int, pixels that neighbouring tiles share at least.
    """

    def __init__(self, image, tile_size, overlap):
        self.size = image.shape[1:3]
        if max(self.size) <= tile_size:
            tile_size = _padded_side(tile_size)
        below, right = (_padded_side(side) - side for side in self.size)
        self._pixels = np.pad(image, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")
        self._blended = np.zeros(self._pixels.shape, np.float32)
        rows, columns = (windows(side, tile_size, overlap) for side in self._pixels.shape[1:3])
        self.tiles = [(row, column) for row in rows for column in columns]

    def restore(self, tile, predict):
        """Restores one tile.

        Args:
            tile: item of `tiles`.
            predict: function from float32 `(B, h, w, 3)` in [-1, 1] to the difference that restores it.
        """
        (row, row_weights), (column, column_weights) = tile
        difference = predict(from_uint8(self._pixels[:, row, column]))
        self._blended[:, row, column] += difference * row_weights[:, None, None] * column_weights[:, None]

    @property
    def difference(self):
        """float32 `(B, H, W, 3)`: the restored photograph minus the photograph, in units of [-1, 1]."""
        height, width = self.size
        return self._blended[:, :height, :width]


def _padded_side(side):
    return math.ceil(max(side, SMALLEST_WHOLE_SIDE) / SIZE_MULTIPLE) * SIZE_MULTIPLE


def windows(length, tile_size, overlap):
    """Cuts an axis into equal tiles that overlap by at least `overlap` pixels and are no larger than they have to be.

    The outer quarter of an overlap counts for nothing, because a tile knows least at its own border. Across the middle
    half the tile fades into its neighbour.

    Args:
        length: int, a multiple of 4, at least 8.
        tile_size: int, a multiple of 4, at least 8: the largest size of a tile.
        overlap: int, at least 0 and below `tile_size`.

    Returns:
        List of `(slice, weights)`; the float32 weights add up to 1 everywhere.

    Example:
        >>> [(window.start, window.stop) for window, _ in windows(400, 256, 48)]
        [(0, 224), (176, 400)]
    """
    overlap = math.ceil(overlap / SIZE_MULTIPLE) * SIZE_MULTIPLE
    step = max(tile_size - overlap, SIZE_MULTIPLE)
    count = max(1, math.ceil((length - tile_size) / step) + 1)
    needed = math.ceil((length + (count - 1) * overlap) / count / SIZE_MULTIPLE) * SIZE_MULTIPLE
    size = min(max(needed, SMALLEST_SIDE), tile_size, length)
    # Starts in step with the strided convolutions, so that a tile sees the pixel grid that the whole photograph sees.
    starts = [round(i * (length - size) / max(count - 1, 1) / SIZE_MULTIPLE) * SIZE_MULTIPLE for i in range(count)]

    def fade(distance):
        return np.clip((distance - overlap / 4) / max(overlap / 2, 1), 0, 1)

    distance = np.arange(size) + 0.5
    tiles, total = [], np.zeros(length)
    for start in starts:
        weights = np.ones(size)
        if start > 0:
            weights = np.minimum(weights, fade(distance))
        if start + size < length:
            weights = np.minimum(weights, fade(distance[::-1]))
        tiles.append((slice(start, start + size), weights))
        total[start : start + size] += weights
    return [(window, (weights / total[window]).astype(np.float32)) for window, weights in tiles]
