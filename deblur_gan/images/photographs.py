"""Photographs: image files in and out, and the value range of the networks.

Inside this package an image is uint8 `(H, W, 3)` RGB; inside a network it is float32 in [-1, 1]. The two conversions
between them are here and nowhere else.
"""

import importlib.util
import io
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError, features

from deblur_gan.files import printable, reason, shortened, write_bytes
from deblur_gan.images.metadata import carried_over, kept_metadata, upright_exif

# The formats that are read and written, by Pillow's names: what their files end in, the usual ending first, and how
# they are written where the file that a photograph came from does not say it.
_FORMATS = {
    "AVIF": ((".avif",), {"quality": 95, "subsampling": "4:4:4"}),
    "BMP": ((".bmp", ".dib"), {}),
    "HEIF": ((".heic", ".heif", ".hif"), {"quality": 95, "chroma": 444}),
    "JPEG": ((".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"), {"quality": 95, "subsampling": 0}),
    "PNG": ((".png",), {}),
    "TIFF": ((".tif", ".tiff"), {}),
    "WEBP": ((".webp",), {"quality": 95}),
}
EXTENSIONS = {name: extensions for name, (extensions, _) in _FORMATS.items()}
FORMATS_READ = "JPEG, PNG, WebP, TIFF, BMP, AVIF or HEIC"
IMAGE_EXTENSIONS = frozenset(extension for extensions, _ in _FORMATS.values() for extension in extensions)
# What looks like a picture and is not read, so that it can be named where a folder holds it.
_OTHER_EXTENSIONS = frozenset(
    # cameras' raw files: TIFF inside, many with a thumbnail where the photograph is expected
    (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")
    # formats that Pillow does not read, or in which a restored photograph would lose colours, profile or layers
    + (".dds", ".eps", ".exr", ".gif", ".hdr", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".pbm", ".pcx", ".pgm", ".pnm")
    + (".ppm", ".psb", ".psd", ".qoi", ".svg", ".tga", ".wmf", ".xcf")
)
PICTURE_EXTENSIONS = IMAGE_EXTENSIONS | _OTHER_EXTENSIONS

_HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
if _HAS_HEIF:
    import pillow_heif

    pillow_heif.register_heif_opener()
_READABLE = [name for name in _FORMATS if {"AVIF": features.check("avif"), "HEIF": _HAS_HEIF}.get(name, True)]

MAX_PIXELS = 178_956_970  # as many as Pillow reads unless told otherwise
# A file of a few kilobytes can claim to hold gigabytes. Up to _FREE_PIXELS it may, as flat pictures do, for then they
# fit into memory; above, it has to hold a byte for each _PIXELS_PER_BYTE, half of what photographs have at the poorest
# quality of JPEG.
_FREE_PIXELS = 50_000_000
_PIXELS_PER_BYTE = 200


class BadImage(ValueError):
    """A file that cannot be used as a photograph; the message is one printable line that names it and says why."""

    def __init__(self, message):
        super().__init__(shortened(printable(message)))


@dataclass
class Photograph:
    """The pixels of an image file, and what its copy on disk needs beside them.

    Attributes:
        pixels: uint8 `(H, W, 3)` RGB, upright (an EXIF rotation is applied).
        alpha: uint8 `(H, W)`, or None where the file is opaque.
        grey: bool, the file holds luminance alone.
        format: str, Pillow's name of the file format, such as "JPEG".
        metadata: dict of Pillow's `save` options, such as `exif`, `icc_profile`, `dpi`, where the file has them.
        notes: list of str, what of the file a copy does not keep because it is damaged, such as "its EXIF data cannot
            be kept (not a TIFF file)".
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = "PNG"
    metadata: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


def read_photograph(source, name="these bytes"):
    """Reads an image file as people have them.

    Grey, palette, transparent, CMYK, Lab, 16-bit and EXIF-rotated files all come back as upright 8-bit RGB. 16-bit grey
    is scaled to 8 bits. CMYK is converted through its embedded profile where it has one. What can be decoded is not
    refused for damaged metadata: that is left out and noted.

    Args:
        source: str or Path of a JPEG, PNG, WebP, TIFF, BMP, AVIF or, where pillow-heif is installed, HEIC file, or
            bytes, the content of one; the content decides, not the extension, but for cameras' raw files.
        name: str, what bytes are called in messages.

    Returns:
        `Photograph`, which `write_photograph` can write in its own format.

    Raises:
        BadImage: if the file is missing, no regular file, empty, truncated, no image of these formats, animated, larger
            than `MAX_PIXELS` pixels, claims much more pixels than so many bytes can hold, or is of a pixel type
            (floating point, 32-bit) that has no agreed conversion to 8 bits.
    """
    if isinstance(source, bytes):
        path, n_bytes = Path(name), len(source)
    else:
        path, n_bytes = Path(source), _regular_size(Path(source))
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open(path, "rb") as file,
            Image.open(file, formats=_READABLE) as image,
        ):
            _check_claims(image, path, n_bytes)
            return _photograph(image, path, file)
    except BadImage:
        raise
    except PermissionError:
        raise BadImage(f"{path}: not allowed to read it") from None
    except Image.DecompressionBombError:
        raise BadImage(f"{path}: has more than the {MAX_PIXELS} pixels that are read at most") from None
    except UnidentifiedImageError:
        if path.suffix.lower() in _FORMATS["HEIF"][0] and not _HAS_HEIF:
            raise BadImage(f"{path}: HEIC is read where pillow-heif is installed: pip install pillow-heif") from None
        raise BadImage(f"{path}: not an image that can be read; {FORMATS_READ} is required") from None
    # Decoders meet broken files with whatever their parser trips over.
    except Exception as error:
        raise BadImage(f"{path}: cannot be decoded ({reason(error)})") from None


def _regular_size(path):
    """The bytes of a regular file: opening a pipe would wait for ever."""
    try:
        status = path.stat()
    except FileNotFoundError:
        missing = "a link to a file that is missing" if path.is_symlink() else "no such file"
        raise BadImage(f"{path}: {missing}") from None
    except OSError as error:
        raise BadImage(f"{path}: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        raise BadImage(f"{path}: is a folder; an image file is required")
    if not stat.S_ISREG(status.st_mode):
        raise BadImage(f"{path}: is a pipe, a socket or a device; an image file is required")
    return status.st_size


def _check_claims(image, path, n_bytes):
    """Refuses, before memory is taken, what cannot or need not be decoded."""
    n_pixels = image.width * image.height
    if n_pixels > MAX_PIXELS:
        raise BadImage(f"{path}: has more than the {MAX_PIXELS} pixels that are read at most")
    if n_pixels > max(_FREE_PIXELS, _PIXELS_PER_BYTE * n_bytes):
        raise BadImage(f"{path}: claims {image.width}x{image.height} pixels, of which {n_bytes} bytes hold too little")
    if image.format == "TIFF":
        if path.suffix.lower() in _OTHER_EXTENSIONS:
            raise BadImage(f"{path}: a camera's raw file; develop it to JPEG, PNG or TIFF first")
        # Pillow leaves black, without a word, the rows that no strip is given for.
        covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in image.tile)
        if covered < n_pixels * (len(image.getbands()) if image.tag_v2.get(284) == 2 else 1):
            raise BadImage(f"{path}: cannot be decoded (image file is truncated: strips are missing)")
    # Phones write JPEG with a second, smaller picture behind the photograph; Pillow calls that MPO.
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise BadImage(f"{path}: holds {frames} pictures; a file with a single one is required")


def _photograph(image, path, file):
    file_format = "JPEG" if image.format == "MPO" else image.format
    notes = []
    image.load()
    exif = upright_exif(image, notes)
    pixels, alpha, grey = _decoded(image, path, notes)
    if file_format == "BMP" and alpha is not None:
        alpha = None
        notes.append("its transparency cannot be kept (Pillow writes BMP without)")
    metadata = kept_metadata(image, file_format, exif, notes)
    if file_format == "WEBP" and _is_lossless_webp(file):
        metadata.update(lossless=True, exact=True, quality=80)
    return Photograph(pixels, alpha, grey, file_format, metadata, notes)


def _decoded(image, path, notes):
    """`(pixels, alpha, grey)` of a loaded image; exchanges its profile where the conversion does."""
    mode, alpha = image.mode, None
    grey = mode in ("1", "L", "LA", "La") or mode.startswith("I;16")
    if mode.startswith("I;16"):
        wide = np.asarray(image)
        image = Image.fromarray(((wide.astype(np.uint32) + 128) // 257).astype(np.uint8))  # nearest, of 65535 / 255
    elif mode in ("I", "F"):
        raise BadImage(f"{path}: its pixels are of type {mode} (32-bit); 8- or 16-bit is required")
    elif mode in ("CMYK", "LAB"):
        image = _through_profile(image, notes)
    elif image.has_transparency_data:
        if mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), alpha, grey


def _through_profile(image, notes):
    """CMYK or Lab to RGB; a profile of inks or of Lab does not fit the result and is replaced by sRGB."""
    profile = image.info.pop("icc_profile", None)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    if image.mode == "LAB":
        converted = image.convert("RGB")
    elif profile is None:
        return image.convert("RGB")
    else:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError) as error:
            notes.append(f"its colour profile cannot be used ({reason(error)})")
            return image.convert("RGB")
    image.info["icc_profile"] = srgb.tobytes()
    return converted


def _is_lossless_webp(file):
    file.seek(12)
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8L"
        length = int.from_bytes(head[4:], "little")
        file.seek(length + length % 2, io.SEEK_CUR)
    return False


def write_photograph(path, photograph, like=None):
    """Writes an image file, whole or not at all, in the format and with the metadata of the photograph it came from.

    Args:
        path: str or Path; its folder exists.
        photograph: `Photograph`.
        like: as `files.whole_file`.

    Raises:
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    write_bytes(path, encoded(photograph), like)


def encoded(photograph):
    """The content of an image file, in the format and with the metadata of the photograph it came from.

    A JPEG file is written with the quantization tables and the chroma subsampling that it came with, AVIF, HEIC and
    WebP, unless it came without loss, at quality 95, and everything else without loss. `converted` changes that.

    Args:
        photograph: `Photograph`.

    Returns:
        bytes.

    Raises:
        OSError, ValueError: if the format cannot hold such a picture.
    """
    image = as_pillow(photograph)
    options = _FORMATS[photograph.format][1] | photograph.metadata
    if photograph.grey and photograph.format == "AVIF":
        del options["subsampling"]  # or it would be stored in colour
    if "qtables" in options:
        del options["quality"]  # by which Pillow would scale them
    file = io.BytesIO()
    image.save(file, photograph.format, **options)
    return file.getvalue()


def as_pillow(photograph):
    """A photograph as a Pillow image of mode L, LA, RGB or RGBA, with its metadata in `info`, as `save` takes it."""
    image = Image.fromarray(photograph.pixels)
    if photograph.grey:
        image = image.convert("L")
    if photograph.alpha is not None:
        image.putalpha(Image.fromarray(photograph.alpha))
    image.info |= {key: photograph.metadata[key] for key in photograph.metadata.keys() & {"dpi", "exif", "icc_profile"}}
    return image


def from_pillow(image, name="this PIL image"):
    """A Pillow image as a photograph: its pixels as they lie, as `read_photograph` converts them, without metadata.

    Args:
        image: `PIL.Image.Image`; it is not changed.
        name: str, what it is called in messages.

    Returns:
        `Photograph`.

    Raises:
        BadImage: if it is empty, or its pixels are of a type that has no agreed conversion to 8 bits.
    """
    if 0 in image.size:
        raise BadImage(f"{name}: is {image.width}x{image.height} pixels; at least one is required")
    return Photograph(*_decoded(image.copy(), name, []))


def converted(photograph, file_format=None, quality=None, side_by_side=False):
    """The photograph as it is to be written in another format or at another quality; its pixels are the same.

    Args:
        photograph: `Photograph`.
        file_format: str, one of `EXTENSIONS`; None is its own. What the format cannot hold is noted.
        quality: int, 1 to 100, for JPEG, WebP, AVIF and HEIC. None is that of the file it came from where the format
            stays and is JPEG, and 95 otherwise.

    Returns:
        `Photograph`.

    Raises:
        ValueError: if this Pillow does not write the format.
    """
    metadata, notes, alpha = photograph.metadata, list(photograph.notes), photograph.alpha
    file_format = file_format or photograph.format
    if file_format not in _READABLE:
        needs = "pip install pillow-heif" if file_format == "HEIF" else "a Pillow that was built with it"
        raise ValueError(f"{file_format} is written where it is installed: {needs}")
    if file_format != photograph.format:
        metadata = carried_over(metadata, file_format, notes)
        if alpha is not None and file_format in ("BMP", "JPEG"):
            alpha = None
            notes.append(f"its transparency cannot be kept in {file_format}")
    if quality is not None and "quality" in _FORMATS[file_format][1]:
        metadata = {key: metadata[key] for key in metadata.keys() - {"qtables", "lossless", "exact"}}
        metadata["quality"] = quality
    return replace(photograph, format=file_format, metadata=metadata, alpha=alpha, notes=notes)


def read_rgb(path):
    """Reads the pixels of an image file; `read_photograph` without what a copy on disk would need.

    Returns:
        uint8 `(H, W, 3)`, RGB, upright.

    Raises:
        BadImage: as `read_photograph`.
    """
    return read_photograph(path).pixels


def find_images(folder, extensions=IMAGE_EXTENSIONS):
    """The image files of a folder, by extension in any letter case, hidden files apart.

    What cannot be read (a broken link, a pipe) is among them, for `read_photograph` to say so.

    Args:
        folder: str or Path; its subfolders are not looked into.
        extensions: container of str in lower case; those that are read, or `PICTURE_EXTENSIONS`.

    Returns:
        Sorted list of Path.

    Raises:
        NotADirectoryError: if `folder` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{printable(folder)}: no such folder")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in extensions and not path.name.startswith(".") and not path.is_dir()
    )
