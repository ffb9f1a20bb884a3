"""`restore`, the one function that most Python code needs."""

import functools
import os
from pathlib import Path

import numpy as np
from PIL import Image

from deblur_gan import shipped_generator
from deblur_gan.images.photographs import as_pillow, from_pillow, read_photograph
from deblur_gan.restoring.photograph import restore_stream, restored_copy

_ACCEPTED = (
    "a path, bytes of an image file, a PIL image, a NumPy array (uint8, or float from 0 to 1) of (H, W), (H, W, 1), "
    "(H, W, 3) or (H, W, 4), or a list of these"
)


def restore(photograph, weights=None, strength=1.0, tile_size=None, precision="auto", ensemble=1, scale="auto"):
    """Restores one photograph or several; the result has the type and the size of the argument.

    | argument | result |
    |---|---|
    | path (str or Path) of an image file | PIL image: L, LA, RGB or RGBA, upright, with the metadata in its `info` |
    | bytes of an image file | bytes of a file of the same format, with the same metadata |
    | PIL image | PIL image of the same mode and `info`; of L, LA, RGB or RGBA if it was palette, CMYK or 16 bits |
    | uint8 array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) | uint8 array of the same shape |
    | float array from 0 to 1 of such a shape | array of the same type and shape; 8 bits are restored |
    | list or tuple of these | list |

    Colours are RGB; a fourth channel is alpha, which is copied. The first call imports Keras, on OpenVINO if it is
    installed and no other backend is chosen (see `backend.import_keras`), and loads the weights. Later calls reuse
    them. Calls from several threads are safe.

    Args:
        photograph: as in the table.
        weights: str or Path of a weight file for `load_generator`, or a generator; None is the one in the package.
        strength: float, as `deblur`.
        tile_size: int or None, as `deblur`.
        precision: str, "auto", "float32" or "bfloat16", see `backend.dtype_to_restore_in`. A generator computes in
            the precision that it was built with.
        ensemble: int, number of views, as `deblur`: more restore better and take longer.
        scale: float or "auto", as `deblur`: the factor to the size at which the photograph is restored.

    Returns:
        As in the table.

    Raises:
        TypeError: if `photograph` is of another kind.
        ValueError: if an array is of another shape or range, or `strength`, `tile_size`, `precision`, `ensemble` or
            `scale` is out of range.
        BadImage: if a file or bytes cannot be used as a photograph.
        BadWeights: if `weights` cannot be used.
        ImportError: if no backend of Keras is installed.

    Example:
        >>> restored = restore(np.zeros((48, 64, 3), np.uint8))
        >>> restored.shape, restored.dtype
        ((48, 64, 3), dtype('uint8'))
    """
    if isinstance(photograph, (list, tuple)):
        return [restore(one, weights, strength, tile_size, precision, ensemble, scale) for one in photograph]
    change = functools.partial(_deblur, weights, strength, tile_size, precision, ensemble, scale)
    if isinstance(photograph, (str, Path)):
        return as_pillow(restored_copy(change, read_photograph(photograph)))
    if isinstance(photograph, (bytes, bytearray, memoryview)):
        return restore_stream(change, bytes(photograph))
    if isinstance(photograph, Image.Image):
        restored = as_pillow(restored_copy(change, from_pillow(photograph)))
        # The profile fits the converted pixels; a transparent colour has become an alpha channel.
        restored.info |= {k: v for k, v in photograph.info.items() if k not in ("icc_profile", "transparency")}
        return restored
    if isinstance(photograph, np.ndarray):
        return _restored_array(change, photograph)
    raise TypeError(f"a photograph is {type(photograph).__name__}; accepted are {_ACCEPTED}")


def _deblur(weights, strength, tile_size, precision, ensemble, scale, pixels):
    from deblur_gan.backend import import_keras

    import_keras(restoring=True)
    from deblur_gan.restoring.deblur import deblur

    if weights is None or isinstance(weights, (str, Path)):
        path = Path(weights or shipped_generator())
        changed = path.stat().st_mtime_ns if path.exists() else None
        weights = _generator(os.path.abspath(path), changed, precision)
    elif precision != "auto":
        raise ValueError(f"precision={precision!r}: a generator computes in what it was built with")
    return deblur(weights, pixels, tile_size, strength=strength, ensemble=ensemble, scale=scale)


@functools.lru_cache(maxsize=2)
def _generator(path, changed, precision):
    """The generator of a file as it was when it `changed`: a process does not read it again for each photograph."""
    from deblur_gan.backend import dtype_to_restore_in
    from deblur_gan.weights import load_generator

    return load_generator(path, dtype_to_restore_in(precision))


def _restored_array(change, array):
    shape, kind = array.shape, array.dtype
    n_channels = 1 if array.ndim < 3 else shape[-1]
    floating = np.issubdtype(kind, np.floating)
    if not (kind == np.uint8 or floating) or array.ndim not in (2, 3) or n_channels not in (1, 3, 4) or 0 in shape:
        raise ValueError(f"an array is {kind} {shape}; accepted are {_ACCEPTED}")
    if floating:
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is not, either
            raise ValueError(f"a {kind} array goes from {array.min()} to {array.max()}; 0 to 1 is required")
        array = np.rint(255 * array.astype(np.float64)).astype(np.uint8)
    image = Image.fromarray(array.reshape(shape[:2]) if n_channels == 1 else array)
    restored = np.asarray(as_pillow(restored_copy(change, from_pillow(image)))).reshape(shape)
    return (restored / 255).astype(kind) if floating else restored.copy()
