"""One photograph restored: its pixels change, everything else comes over."""

import dataclasses

import numpy as np

from deblur_gan.images.photographs import converted, encoded, read_photograph


def restored_copy(restore, photograph, side_by_side=False):
    """Returns a copy of a photograph with restored pixels.

    Args:
        restore: function from uint8 `(H, W, 3)` pixels to the restored ones, such as `deblur` of a generator.
        photograph: `Photograph`.
        side_by_side: bool, put the blurred and the restored pixels next to each other instead.

    Returns:
        `Photograph`.

    Example:
        >>> from deblur_gan.images.photographs import Photograph
        >>> int(restored_copy(lambda pixels: 255 - pixels, Photograph(np.zeros((2, 2, 3), np.uint8))).pixels.min())
        255
    """
    pixels, alpha = restore(photograph.pixels), photograph.alpha
    if side_by_side:
        pixels = np.concatenate([photograph.pixels, pixels], axis=1)
        alpha = None if alpha is None else np.concatenate([alpha, alpha], axis=1)
    return dataclasses.replace(photograph, pixels=pixels, alpha=alpha)


def restore_stream(restore, content, file_format=None, quality=None, name="these bytes"):
    """Restores the content of an image file.

    Args:
        restore: as `restored_copy`; not called before the content has been read.
        content: bytes.
        file_format, quality: as `photographs.converted`.
        name: as `read_photograph`.

    Returns:
        bytes of the restored file, in the format of `content` unless another is given.

    Raises:
        BadImage: if the content cannot be used as a photograph.
    """
    photograph = converted(read_photograph(content, name), file_format, quality)
    return encoded(restored_copy(restore, photograph))
