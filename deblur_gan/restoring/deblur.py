"""The one way from a photograph to a restored photograph, whatever its size."""

import math

import numpy as np

from deblur_gan.backend import compile_as_built, keras
from deblur_gan.images.pixels import from_uint8, to_uint8
from deblur_gan.networks import InstanceNormalization

# Two strided convolutions halve the image twice, and the reflection paddings need two pixels after that.
SIZE_MULTIPLE = 4
SMALLEST_SIDE = 8
# Smaller photographs are padded to this: means and variances over fewer pixels are no photograph's.
SMALLEST_WHOLE_SIDE = 64

# Standard deviation of the grey levels below which the change that instance normalization brings is scaled down.
FULL_CONTRAST = 32.0

# Above this many pixels an image is restored in tiles unless told otherwise: on TensorFlow and a CPU the full-size
# generator takes about 1.7 kB per pixel, so that an image of this size stays below 3.5 GB and a tile below 2.5 GB.
WHOLE_IMAGE_PIXELS = 1_500_000
TILE_SIZE = 1024
LARGEST_DEFAULT_OVERLAP = 64
# A generator with instance normalization learnt with the statistics of crops of 128 to 256 pixels and restores best
# with those of parts as large: docs/restoring.md has what each size gains.
INSTANCE_TILE_SIZE = 256

# Views of an image: turned by transposition or not, and the steps through its rows and columns, -1 for a mirror.
_VIEWS = [(turned, down, across) for turned in (False, True) for down in (1, -1) for across in (1, -1)]
ENSEMBLES = (1, 2, 4, 8)

# JAX compiles a generator for each size of image and keeps the code, some 7 MB. After so many sizes it is let go.
SIZES_COMPILED = 16


def deblur(generator, image, tile_size=None, tile_overlap=None, progress=None, strength=1.0, ensemble=1):
    """Restores a photograph at its own size.

    The image is padded by reflection to the multiple of 4 that the networks take, small ones to 64 pixels, and
    cropped back. Tiles overlap and are blended linearly across the overlap. A generator with instance normalization
    takes its statistics from each tile, and restores better with those of tiles as large as what it was trained on;
    with batch normalization, tiles and the whole image agree up to what lies beyond the tile.

    Instance normalization divides contrast away: such a generator adds the same grey levels to a photograph and to a
    faded copy of it, and finds blur where there is nothing at all. Its change is therefore multiplied by the contrast
    of the image or tile, the standard deviation of its grey levels, over `FULL_CONTRAST`, where that is below 1. A
    picture of one colour comes back as it is.

    An ensemble is the mean of what several views of each tile are restored to, each turned back: the tile and its left
    to right mirror image (2), all its mirror images (4), and those transposed (8). What the generator makes up differs
    from view to view, what it recognizes does not. It is the geometric self-ensemble of Lim et al. 2017
    (https://arxiv.org/abs/1707.02921), and takes as many times as long.

    Args:
        generator: `keras.Model` from `generator_model` or `load_generator`.
        image: uint8 `(H, W, 3)`, or `(B, H, W, 3)` for several photographs of one size; H and W at least 1.
        tile_size: int, height and width of the tiles in pixels, rounded up to a multiple of 4; at least 8. None
            is what `default_tile_size` says.
        tile_overlap: int, pixels shared by neighbouring tiles, less than `tile_size`. None is a quarter of the tile,
            at most `LARGEST_DEFAULT_OVERLAP`.
        progress: callable such as `tqdm` that is handed the list of tiles and iterates over it, for a progress bar.
        strength: float, how far each pixel goes from the image, at 0, to what is restored, at 1; it is rounded once.
        ensemble: int, number of views, one of `ENSEMBLES`.

    Returns:
        uint8 array of the shape of `image`.

    Raises:
        ValueError: if `image`, `tile_size`, `tile_overlap`, `strength` or `ensemble` is not as said above.
        FloatingPointError: if the generator's answer is not finite.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"image is {image.dtype} {image.shape}; uint8 (H, W, 3) or (B, H, W, 3) is required")
    if image.ndim == 3:
        return deblur(generator, image[None], tile_size, tile_overlap, progress, strength, ensemble)[0]
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength}: must be from 0 to 1")
    if ensemble not in ENSEMBLES:
        raise ValueError(f"ensemble={ensemble}: must be one of {', '.join(map(str, ENSEMBLES))}")

    height, width = image.shape[1:3]
    if tile_size is None:
        tile_size = default_tile_size(generator, height, width, len(image))
    if tile_size < SMALLEST_SIDE:
        raise ValueError(f"tile_size={tile_size}: must be at least {SMALLEST_SIDE}")
    if tile_overlap is None:
        tile_overlap = min(tile_size // 4, LARGEST_DEFAULT_OVERLAP)
    if not 0 <= tile_overlap < tile_size:
        raise ValueError(f"tile_overlap={tile_overlap}: must be at least 0 and less than tile_size={tile_size}")

    tile_size = _next_multiple(tile_size)
    if max(height, width) <= tile_size:
        padded = _pad(image, SMALLEST_WHOLE_SIDE)
        restored = _blend(padded, _predict(generator, padded, ensemble), strength)
    else:
        padded = _pad(image, SMALLEST_SIDE)
        restored = _restore_tiles(generator, padded, tile_size, tile_overlap, progress or list, strength, ensemble)
    return restored[:, :height, :width]


def default_tile_size(generator, height, width, n_images=1):
    """The size of tiles that `deblur` takes unless told otherwise.

    Args:
        generator: `keras.Model`.
        height, width: int, of the images in pixels.
        n_images: int, how many are restored at once.

    Returns:
        int, in pixels: `INSTANCE_TILE_SIZE` for a generator with instance normalization. For others the longer side,
        which is the whole image, up to `WHOLE_IMAGE_PIXELS` pixels altogether, and `TILE_SIZE` above.
    """
    if _normalizes_instances(generator):
        return INSTANCE_TILE_SIZE
    return max(height, width, SMALLEST_SIDE) if n_images * height * width <= WHOLE_IMAGE_PIXELS else TILE_SIZE


def _normalizes_instances(generator):
    return any(isinstance(layer, InstanceNormalization) for layer in generator.layers)


def _next_multiple(side):
    return max(SMALLEST_SIDE, math.ceil(side / SIZE_MULTIPLE) * SIZE_MULTIPLE)


def _pad(image, smallest_side):
    below, right = (_next_multiple(max(side, smallest_side)) - side for side in image.shape[1:3])
    return np.pad(image, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")


def _windows(length, tile_size, overlap):
    """Cuts an axis into equal tiles that overlap by at least `overlap`.

    The outer quarter of an overlap counts for nothing, because a tile's own border is where it knows least; across
    the middle half the tile fades into its neighbour.

    Returns:
        List of `(slice, weights)`; the float32 weights add up to 1 everywhere.
    """
    size = min(tile_size, length)
    overlap = math.ceil(overlap / SIZE_MULTIPLE) * SIZE_MULTIPLE
    step = max(size - overlap, SIZE_MULTIPLE)
    count = math.ceil((length - size) / step) + 1
    # Starts in step with the strided convolutions, so that a tile sees the pixel grid that the whole image sees.
    starts = [round(i * (length - size) / max(count - 1, 1) / SIZE_MULTIPLE) * SIZE_MULTIPLE for i in range(count)]

    def fade(distance):
        return np.clip((distance - overlap / 4) / max(overlap / 2, 1), 0, 1)

    distance = np.arange(size) + 0.5
    windows = []
    total = np.zeros(length)
    for start in starts:
        window = np.ones(size)
        if start > 0:
            window = np.minimum(window, fade(distance))
        if start + size < length:
            window = np.minimum(window, fade(distance[::-1]))
        windows.append((slice(start, start + size), window))
        total[start : start + size] += window
    return [(where, (window / total[where]).astype(np.float32)) for where, window in windows]


def _predict(generator, pixels, ensemble):
    values = from_uint8(pixels)
    restored = sum(_seen(generator, values, *view) for view in _VIEWS[:ensemble]) / np.float32(ensemble)
    if not np.isfinite(restored).all():
        raise FloatingPointError("the generator answered with numbers that are not finite; its weights are unfit")
    if _normalizes_instances(generator):
        contrast = 127.5 * np.sqrt(values.var(axis=(1, 2)).mean(axis=-1))
        share = (contrast / FULL_CONTRAST)[:, None, None, None]
        if (share < 1).any():
            restored = np.where(share < 1, values + share * (restored - values), restored)
    return restored


def _seen(generator, values, turned, down, across):
    """What a view of the values is restored to, turned back."""
    view = values[:, ::down, ::across]
    view = np.ascontiguousarray(view.swapaxes(1, 2) if turned else view)
    if keras.backend.backend() == "jax":
        _bound_compiled_sizes(generator, view.shape)
    if keras.backend.backend() == "openvino":
        compile_as_built()
    restored = generator.predict_on_batch(view)
    return (restored.swapaxes(1, 2) if turned else restored)[:, ::down, ::across]


def _blend(pixels, restored, strength):
    """uint8 between the pixels and the restored values; at strength 1 the values as they are."""
    if strength < 1:
        values = from_uint8(pixels)
        restored = values + np.float32(strength) * (restored - values)
    return to_uint8(restored)


def _bound_compiled_sizes(generator, shape):
    """Makes room for what is compiled for another shape of input; the generator itself remembers which there are."""
    shapes = vars(generator).setdefault("_compiled_shapes", set())
    if shape not in shapes and len(shapes) == SIZES_COMPILED:
        generator.make_predict_function(force=True)
        shapes.clear()
    shapes.add(shape)


def _restore_tiles(generator, padded, tile_size, tile_overlap, progress, strength, ensemble):
    rows, columns = (_windows(length, tile_size, tile_overlap) for length in padded.shape[1:3])
    blended = np.zeros(padded.shape, np.float32)
    tiles = [(row, column) for row in rows for column in columns]
    for (row, row_weights), (column, column_weights) in progress(tiles):
        tile = _predict(generator, padded[:, row, column], ensemble)
        blended[:, row, column] += tile * row_weights[:, None, None] * column_weights[:, None]
    restored = np.empty_like(padded)
    for row in range(padded.shape[1]):  # row by row, for the sake of memory
        restored[:, row] = _blend(padded[:, row], blended[:, row], strength)
    return restored
