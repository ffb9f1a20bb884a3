"""Photographs: image files in and out, and the value range of the networks.

Inside this package an image is uint8 `(H, W, 3)` RGB; inside a network it is float32 in [-1, 1]. The two conversions
between them are here and nowhere else.
"""

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from deblur_gan.files import write_bytes

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Pillow itself refuses from here on; said here so that our own message names the file.
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS

# TIFF keeps its own layout (strips, sizes) among the tags, so only what describes the photograph is carried over.
_DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_EXIF_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_LOSSLESS_TIFF_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")


class BadImage(ValueError):
    """A file that cannot be used as a photograph; the message is one line that names it and says why."""


@dataclass
class Photograph:
    """The pixels of an image file, and what its copy on disk needs beside them.

    Attributes:
        pixels: uint8 `(H, W, 3)` RGB, upright (an EXIF rotation is applied).
        alpha: uint8 `(H, W)`, or None where the file is opaque.
        grey: bool, the file holds luminance alone.
        format: str, Pillow's name of the file format, such as "JPEG".
        metadata: dict of Pillow's `save` options: `exif`, `icc_profile`, `dpi`, `compression`, where the file has them.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = "PNG"
    metadata: dict = field(default_factory=dict)


def read_photograph(path):
    """Reads an image file as people have them.

    Grey, palette, transparent, CMYK, 16-bit and EXIF-rotated files all come back as upright 8-bit RGB. 16-bit grey is
    scaled to 8 bits. CMYK is converted through its embedded profile where it has one.

    Args:
        path: str or Path of a JPEG, PNG, WebP, TIFF or BMP file; the content decides, not the extension.

    Returns:
        `Photograph`.

    Raises:
        BadImage: if the file is missing, empty, truncated, not an image, animated, larger than `MAX_PIXELS` pixels,
            or of a pixel type (floating point, 32-bit) that has no agreed conversion to 8 bits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's notes on odd EXIF and TIFF tags and its large-image warning
            with Image.open(path) as image:
                frames = getattr(image, "n_frames", 1)
                # Phones write JPEG with a second, smaller picture behind the photograph; Pillow calls that MPO.
                if frames > 1 and image.format != "MPO":
                    raise BadImage(f"{path}: holds {frames} pictures; a file with a single one is required")
                return _photograph(image, path)
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadImage(f"{path}: is a folder; an image file is required") from None
    except PermissionError:
        raise BadImage(f"{path}: not allowed to read it") from None
    except Image.DecompressionBombError:
        raise BadImage(f"{path}: has more than the {MAX_PIXELS} pixels that are read at most") from None
    except UnidentifiedImageError:
        raise BadImage(f"{path}: not an image that can be read; JPEG, PNG, WebP, TIFF or BMP is required") from None
    # Decoders meet broken files with whatever their parser trips over.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{path}: cannot be decoded ({reason})") from None


def _photograph(image, path):
    metadata = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key)}
    if image.info.get("compression") in _LOSSLESS_TIFF_COMPRESSIONS:
        metadata["compression"] = image.info["compression"]
    file_format = "JPEG" if image.format == "MPO" else image.format
    upright = ImageOps.exif_transpose(image)
    exif = _exif(image, file_format)
    if exif:
        metadata["exif"] = exif

    mode = upright.mode
    grey = mode in ("1", "L", "LA", "La") or mode.startswith("I;16")
    alpha = None
    if mode == "I" and image.format == "PNG":  # how some Pillow versions open a 16-bit grey PNG
        mode, grey = "I;16", True
    if mode.startswith("I;16"):
        wide = np.asarray(upright).astype(np.float32)
        upright = Image.fromarray(np.round(wide / 257).clip(0, 255).astype(np.uint8))
    elif mode in ("I", "F"):
        raise BadImage(f"{path}: its pixels are of type {mode} (32-bit); 8- or 16-bit is required")
    elif mode == "CMYK":
        upright = _from_cmyk(upright, metadata)
    elif upright.has_transparency_data:
        upright = upright.convert("RGBA")
        alpha = np.asarray(upright.getchannel("A"))
    return Photograph(np.asarray(upright.convert("RGB")), alpha, grey, file_format, metadata)


def _exif(image, file_format):
    """The EXIF block of a copy of the image, which is upright; None if there is nothing to say."""
    exif = image.getexif()
    if file_format == "TIFF":
        described = Image.Exif()
        described.update({tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif})
        described.update({ifd: exif.get_ifd(ifd) for ifd in _EXIF_FOLDERS if exif.get_ifd(ifd)})
        exif = described
    exif.pop(ExifTags.Base.Orientation, None)
    if exif or any(exif.get_ifd(ifd) for ifd in _EXIF_FOLDERS):
        return exif.tobytes()
    return None


def _from_cmyk(image, metadata):
    """CMYK to RGB; the profile of four inks does not fit the result and is replaced by sRGB."""
    profile = metadata.pop("icc_profile", None)
    if profile is None:
        return image.convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        image = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB")
    except ImageCms.PyCMSError:
        return image.convert("RGB")
    metadata["icc_profile"] = srgb.tobytes()
    return image


def write_photograph(path, photograph):
    """Writes an image file, whole or not at all, in the format and with the metadata of the photograph it came from.

    JPEG is written at quality 95 without chroma subsampling, WebP at quality 95, everything else without loss.

    Args:
        path: str or Path; its folder exists.
        photograph: `Photograph`.

    Raises:
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    image = Image.fromarray(photograph.pixels)
    if photograph.grey:
        image = image.convert("L")
    if photograph.alpha is not None:
        image.putalpha(Image.fromarray(photograph.alpha))
    options = dict(photograph.metadata)
    if photograph.format == "JPEG":
        options.update(quality=95, subsampling=0)
    elif photograph.format == "WEBP":
        options.update(quality=95)
    encoded = io.BytesIO()
    image.save(encoded, photograph.format, **options)
    write_bytes(path, encoded.getbuffer())


def read_rgb(path):
    """Reads the pixels of an image file; `read_photograph` without what a copy on disk would need.

    Returns:
        uint8 `(H, W, 3)`, RGB, upright.

    Raises:
        BadImage: as `read_photograph`.
    """
    return read_photograph(path).pixels


def from_uint8(pixels):
    """uint8 [0, 255] of any shape to float32 [-1, 1], as the networks take it."""
    return np.asarray(pixels, np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(values):
    """Float [-1, 1] of any shape to uint8 [0, 255]: clipped, then rounded to the nearest."""
    return np.rint((np.clip(np.asarray(values, np.float32), -1, 1) + 1) * np.float32(127.5)).astype(np.uint8)


def find_images(folder):
    """The image files of a folder, by extension in any letter case, hidden files apart.

    Args:
        folder: str or Path; its subfolders are not looked into.

    Returns:
        Sorted list of Path.

    Raises:
        NotADirectoryError: if `folder` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
