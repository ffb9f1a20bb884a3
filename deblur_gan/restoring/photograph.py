"""One photograph restored: its pixels change, everything else comes over."""

import dataclasses

import numpy as np

from deblur_gan.images.photographs import converted, encoded, read_photograph


def restored_copy(restore, photograph, side_by_side=False):
    """Returns a copy of a `Photograph` with restored pixels, or with the blurred ones next to them.

    `restore` is a function from uint8 `(H, W, 3)` pixels to the restored ones, such as `deblur` of a generator.
    """
    pixels, alpha = restore(photograph.pixels), photograph.alpha
    if side_by_side:
        pixels = np.concatenate([photograph.pixels, pixels], axis=1)
        alpha = None if alpha is None else np.concatenate([alpha, alpha], axis=1)
    return dataclasses.replace(photograph, pixels=pixels, alpha=alpha)


def restore_stream(restore, content, file_format=None, quality=None, name="these bytes"):
    """Restores the content of an image file, bytes, in its own format or another; see `photographs.converted`.

    `restore` is not called before the content has been read. Raises BadImage if it cannot be used as a photograph.
    """
    photograph = converted(read_photograph(content, name), file_format, quality)
    return encoded(restored_copy(restore, photograph))
