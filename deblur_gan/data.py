"""Photographs on disk, their pixels in memory, the value range of the networks, and pairs of blurred and sharp files.

Inside this package an image is uint8 `(H, W, 3)` RGB; inside a network it is float32 in [-1, 1]. The two conversions
between them are here and nowhere else.
"""

import io
import os
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

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


@contextmanager
def whole_file(path):
    """Lets a file appear whole or not at all: it is written under a temporary name beside `path`, then renamed.

    Args:
        path: str or Path; its folder exists.

    Yields:
        Path with the extension of `path`, to be written; on leaving without an error it takes the place of `path`.

    Raises:
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp makes private files; a result has the rights that any new file here would have.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_bytes(path, content):
    """Writes bytes-like `content` to `path`, whole or not at all; see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


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


class Pair(NamedTuple):
    """A blurred photograph and its sharp counterpart.

    Attributes:
        name: str, the file name without extension that both share.
        sequence: str, the folder of a GoPro tree it belongs to; "" elsewhere.
        blurred: Path.
        sharp: Path.
    """

    name: str
    sequence: str
    blurred: Path
    sharp: Path


def find_pairs(data_dir, blur="blur"):
    """Pairs blurred and sharp files by name, never by position: a missing file must not shift the rest.

    Three layouts are read in place: `A/` (blurred) and `B/` (sharp); `blur/` and `sharp/`; the GoPro tree
    `<sequence>/{blur,blur_gamma,sharp}/`.

    Args:
        data_dir: str or Path, the folder that holds them.
        blur: "blur" or "blur_gamma", which blurred folder of a GoPro tree (or of `blur/` and `sharp/`).

    Returns:
        `(pairs, unmatched)`: list of `Pair`, sorted by sequence and name, and sorted list of the Paths that have no
        counterpart or share their name with another file of their folder.

    Raises:
        NotADirectoryError: if `data_dir` is not a folder, or none of the layouts.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise NotADirectoryError(f"{data_dir}: no such folder")
    if (data_dir / "A").is_dir() and (data_dir / "B").is_dir():
        return _match("", data_dir / "A", data_dir / "B")
    if (data_dir / blur).is_dir() and (data_dir / "sharp").is_dir():
        return _match("", data_dir / blur, data_dir / "sharp")
    sequences = sorted(
        folder for folder in data_dir.iterdir() if (folder / blur).is_dir() and (folder / "sharp").is_dir()
    )
    if not sequences:
        raise NotADirectoryError(
            f"{data_dir}: holds neither A/ and B/, nor {blur}/ and sharp/, nor folders with {blur}/ and sharp/ in them"
        )
    pairs, unmatched = [], []
    for folder in sequences:
        found, left_over = _match(folder.name, folder / blur, folder / "sharp")
        pairs += found
        unmatched += left_over
    return pairs, unmatched


def _match(sequence, blurred_dir, sharp_dir):
    blurred, sharp = _by_name(blurred_dir), _by_name(sharp_dir)
    pairs, unmatched = [], []
    for name in sorted(blurred.keys() | sharp.keys()):
        of_blurred, of_sharp = blurred.get(name, []), sharp.get(name, [])
        if len(of_blurred) == len(of_sharp) == 1:
            pairs.append(Pair(name, sequence, of_blurred[0], of_sharp[0]))
        else:
            unmatched += of_blurred + of_sharp
    return pairs, sorted(unmatched)


def _by_name(folder):
    files = {}
    for path in find_images(folder):
        files.setdefault(path.stem, []).append(path)
    return files
