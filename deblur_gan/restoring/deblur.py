"""From a blurred photograph to a restored one: the only inference path.

A photograph is brought to its working size and restored there in tiles. The difference is added at its own size.
"""

import functools
import math

import numpy as np

from deblur_gan.networks import InstanceNormalization
from deblur_gan.restoring.predict import predict
from deblur_gan.restoring.tiles import SIZE_MULTIPLE, SMALLEST_SIDE, WorkingCopy
from deblur_gan.restoring.working_size import (
    LARGER_SIDES,
    LARGEST_SCALE,
    SHARP,
    add_differences,
    choose_scale,
    choose_shares,
    scaled_size,
    share_of_change,
    smaller_scale,
)

# Standard deviation of the grey levels below which the change that instance normalization brings is scaled down.
FULL_CONTRAST = 32.0

# Above this number of pixels a photograph is restored in tiles by default: on TensorFlow and a processor the full-size
# generator takes about 1.7 kB per pixel, so that a photograph of this size stays below 3.5 GB and a tile below 2.5 GB.
WHOLE_IMAGE_PIXELS = 1_500_000
TILE_SIZE = 1024
# A generator with instance normalization learnt with the statistics of crops of 192 to 256 pixels and restores best
# with those of parts of about that size. Tiles of at most 304 pixels fit most working copies with little overlap;
# docs/restoring.md has what other sizes gain.
INSTANCE_TILE_SIZE = 304
LARGEST_DEFAULT_OVERLAP = 48

# Views of a tile: transposed or not, and the steps through its rows and columns, -1 for a mirror.
_VIEWS = [(transposed, down, across) for transposed in (False, True) for down in (1, -1) for across in (1, -1)]
ENSEMBLES = (1, 2, 4, 8)


def deblur(
    generator,
    image,
    tile_size=None,
    tile_overlap=None,
    progress=None,
    strength=1.0,
    ensemble=1,
    scale="auto",
    scale_of=None,
):
    """Restores a photograph; the result has the size of the photograph.

    A network restores blur of the lengths it was trained on, in pixels. So a working copy of the photograph is resized
    by `scale`, with antialiasing, and restored. The difference, restored minus working copy, is resized back and added
    to the photograph, and the sum is rounded once. Detail beyond the resolution of the working copy stays as it is.

    The working copy is restored in tiles, which overlap and are blended linearly. A generator with instance
    normalization reads its statistics from each tile, and restores better with tiles as large as its training crops.
    With batch normalization, tiles and the whole photograph agree up to what lies beyond the tile.

    Instance normalization divides contrast away: such a generator adds the same grey levels to a photograph and to a
    faded copy of it, and finds blur in flat areas. Its change is therefore multiplied by the contrast
    of the tile, the standard deviation of its grey levels, over `FULL_CONTRAST`, if that is below 1. A picture of one
    colour comes back as it is.

    With `scale="auto"` the photograph is restored at the chosen working size and at 2/3 of it, a small one at its own
    size, and a weighted mean of the two differences is added: no one size suits all lengths of blur. The larger the
    change at the smaller size, compared with the other one, the more it counts. If a large photograph looks sharp, its
    sharp tiles stay as they are.

    An ensemble is the mean over several views of each tile: the tile and its left to right mirror image (2), all its
    mirror images (4), and those transposed (8). Inventions of the generator differ from view to view; what it
    recognizes does not. It is the geometric self-ensemble of Lim et al. 2017 (https://arxiv.org/abs/1707.02921), and
    its time grows with the number of views.

    Calls from several threads are safe; their tiles are computed one after the other.

    Args:
        generator: `keras.Model` from `generator_model` or `load_generator`.
        image: uint8 `(H, W, 3)`, or `(B, H, W, 3)` for several photographs of one size; H and W at least 1.
        tile_size: int, largest height and width of the tiles in pixels of the working copy, rounded up to a multiple
            of 4; at least 8. None is the result of `default_tile_size`.
        tile_overlap: int, pixels shared by neighbouring tiles, less than `tile_size`. None is a quarter of the tile,
            at most `LARGEST_DEFAULT_OVERLAP`.
        progress: callable such as `tqdm` that receives the list of tiles and iterates over it. An exception that it
            raises ends the work at the next tile.
        strength: float, factor to the difference: 0 returns the photograph, 1 the restored one.
        ensemble: int, number of views, one of `ENSEMBLES`.
        scale: float above 0, at most 4: factor to both sides of the working copy; 1 is the own size. "auto" is the
            result of `working_size.choose_scale`, for each photograph.
        scale_of: uint8 `(H, W, 3)`, chooses the scale instead of `image`: the first frame for all frames of a video.

    Returns:
        uint8 array of the shape of `image`.

    Raises:
        ValueError: if `image`, `tile_size`, `tile_overlap`, `strength`, `ensemble` or `scale` is not as described.
        FloatingPointError: if the output of the generator is not finite.

    Example:
        >>> import numpy as np
        >>> from deblur_gan import deblur, load_generator, shipped_generator
        >>> flat = np.full((20, 30, 3), 128, np.uint8)
        >>> bool((deblur(load_generator(shipped_generator()), flat) == flat).all())
        True
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"image is {image.dtype} {image.shape}; uint8 (H, W, 3) or (B, H, W, 3) is required")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength}: must be from 0 to 1")
    if ensemble not in ENSEMBLES:
        raise ValueError(f"ensemble={ensemble}: must be one of {', '.join(map(str, ENSEMBLES))}")
    if isinstance(scale, str) and scale == "auto":
        if image.ndim == 4:  # each gets a working size of its own
            options = tile_size, tile_overlap, progress, strength, ensemble, scale, scale_of
            return np.stack([deblur(generator, one, *options) for one in image])
        scale = choose_scale(image if scale_of is None else scale_of)
        at_largest_side = round(scale * max(image.shape[:2])) == LARGER_SIDES[-1]
        scales = zip((scale, smaller_scale(scale)), SHARP if at_largest_side else (None, None), strict=True)
    elif isinstance(scale, int | float | np.number) and 0 < scale <= LARGEST_SCALE:
        scales = [(scale, None)]
    else:
        raise ValueError(f"scale={scale!r}: must be 'auto', or above 0 and at most {LARGEST_SCALE:g}")

    batch = image.reshape(-1, *image.shape[-3:])
    copies = []
    for factor, sharp_from in scales:
        size = scaled_size(image.shape[-3:-1], factor)
        largest = default_tile_size(generator, *size) if tile_size is None else tile_size
        if largest < SMALLEST_SIDE:
            raise ValueError(f"tile_size={tile_size}: must be at least {SMALLEST_SIDE}")
        overlap = min(largest // 4, LARGEST_DEFAULT_OVERLAP) if tile_overlap is None else tile_overlap
        if not 0 <= overlap < largest:
            raise ValueError(f"tile_overlap={overlap}: must be at least 0 and less than tile_size={largest}")
        predict_difference = functools.partial(_difference, generator, _VIEWS[:ensemble], sharp_from)
        largest = math.ceil(largest / SIZE_MULTIPLE) * SIZE_MULTIPLE
        copies.append(WorkingCopy(batch, size, largest, overlap, predict_difference))
    tiles = [(copy, tile) for copy in copies for tile in copy.tiles]
    for copy, tile in (progress or iter)(tiles):
        copy.restore(tile)
    differences = [copy.difference for copy in copies]
    shares = [strength * share for share in choose_shares(*differences)]
    return add_differences(batch, differences, shares).reshape(image.shape)


def default_tile_size(generator, height, width):
    """Returns the size of tiles that `deblur` uses by default, for a working copy of `height` and `width` pixels.

    A generator with instance normalization gets tiles, others the whole working copy up to `WHOLE_IMAGE_PIXELS`.
    """
    if _normalizes_instances(generator):
        return INSTANCE_TILE_SIZE
    return max(height, width, SMALLEST_SIDE) if height * width <= WHOLE_IMAGE_PIXELS else TILE_SIZE


def _normalizes_instances(generator):
    return any(isinstance(layer, InstanceNormalization) for layer in generator.layers)


def _difference(generator, views, sharp_from, values):
    """Returns the mean of restored minus given values over views, less for low contrast and for sharp tiles."""
    share = 1 if sharp_from is None else share_of_change(values[0], sharp_from)
    if not share:
        return np.zeros_like(values)
    difference = sum(_predict_view(generator, values, *view) for view in views) / np.float32(len(views)) - values
    if not np.isfinite(difference).all():
        raise FloatingPointError("the output of the generator is not finite; its weights are unfit")
    if _normalizes_instances(generator):
        contrast = 127.5 * np.sqrt(values.var(axis=(1, 2)).mean(axis=-1))
        difference *= np.minimum(contrast / FULL_CONTRAST, 1)[:, None, None, None]
    return np.float32(share) * difference


def _predict_view(generator, values, transposed, down, across):
    """Restores one view of the values, and turns it back."""
    view = values[:, ::down, ::across]
    restored = predict(generator, np.ascontiguousarray(view.swapaxes(1, 2) if transposed else view))
    return (restored.swapaxes(1, 2) if transposed else restored)[:, ::down, ::across]
