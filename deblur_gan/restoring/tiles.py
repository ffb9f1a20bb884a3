"""Working copies of a photograph, restored tile by tile, and the tiles blended."""

import math

import numpy as np

from deblur_gan.architectures import GENERATORS
from deblur_gan.images.pixels import from_uint8, resize

# Photographs are padded to sizes that every generator takes.
SIZE_MULTIPLE = math.lcm(*(row.size_multiple for row in GENERATORS.values()))
SMALLEST_SIDE = max(row.smallest_side for row in GENERATORS.values())
# Smaller photographs are padded to this size: means and variances over fewer pixels are no photograph's.
SMALLEST_WHOLE_SIDE = 64


class WorkingCopy:
    """A photograph at one working size, cut into tiles, and the differences that restore it.

    The copy is made when its first tile is restored and freed after the last one. It is padded by reflection, to 64
    pixels at least and to a multiple of 4. Tiles overlap and fade into each other.

    Args:
        image: uint8 `(B, H, W, 3)`, the photograph at its own size.
        size: `(height, width)` of the copy in pixels.
        tile_size: int, largest height and width of a tile in pixels, a multiple of 4. A copy that fits is one tile,
            padded or not.
        overlap: int, pixels that neighbouring tiles share at least.
        predict: function from float32 `(B, h, w, 3)` in [-1, 1], a tile, to the difference that restores it.
    """

    def __init__(self, image, size, tile_size, overlap, predict):
        self.size = size
        self._image = image
        self._predict = predict
        if max(size) <= tile_size:
            tile_size = _padded_side(tile_size)
        rows, columns = (windows(_padded_side(side), tile_size, overlap) for side in size)
        self.tiles = [(row, column) for row in rows for column in columns]

    def restore(self, tile):
        """Restores an item of `tiles`, which come in their order."""
        if tile is self.tiles[0]:
            below, right = (_padded_side(side) - side for side in self.size)
            copy = np.stack([resize(one, *self.size) for one in self._image])
            self._pixels = np.pad(copy, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")
            self._blended = np.zeros(self._pixels.shape, np.float32)
        (row, row_weights), (column, column_weights) = tile
        difference = self._predict(from_uint8(self._pixels[:, row, column]))
        self._blended[:, row, column] += difference * row_weights[:, None, None] * column_weights[:, None]
        if tile is self.tiles[-1]:
            del self._pixels

    @property
    def difference(self):
        """float32 `(B, height, width, 3)`: the restored copy minus the copy, in units of [-1, 1]."""
        height, width = self.size
        return self._blended[:, :height, :width]


def _padded_side(side):
    return math.ceil(max(side, SMALLEST_WHOLE_SIDE) / SIZE_MULTIPLE) * SIZE_MULTIPLE


def windows(length, tile_size, overlap):
    """Cuts an axis into equal tiles that overlap by at least `overlap` pixels and are no larger than they have to be.

    The outer quarter of an overlap counts for nothing, because a tile knows least at its own border. Across the middle
    half the tile fades into its neighbour. `length` and `tile_size` are multiples of 4 and at least 8.

    Returns:
        List of `(slice, weights)`; the float32 weights add up to 1 everywhere.

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
