"""Photographs: image files in and out, with all that a copy on disk needs besides its pixels.

Inside this package an image is uint8 `(H, W, 3)` RGB.
"""

import io
import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import AvifImagePlugin, BmpImagePlugin, Image, JpegImagePlugin, WebPImagePlugin

from deblur_gan.files import printable, reason, shortened, write_bytes
from deblur_gan.images import metadata as meta
from deblur_gan.images.avif import colour_code_points
from deblur_gan.images.bmp import profile_of_bmp
from deblur_gan.images.colour import profile_of_cicp, refuse_hdr, to_rgb, transfer_of_profile
from deblur_gan.images.formats import HAS_HEIF, IMAGE_EXTENSIONS, LONGEST_SIDE, WRITING, NotRead, format_of, require
from deblur_gan.images.png import deep_pixels, open_png
from deblur_gan.images.tiff import Tiff, scaled

MAX_PIXELS = 500_000_000  # phones make 200 million
# A file of a few kilobytes can claim to hold gigabytes. Up to _FREE_PIXELS it may, as flat pictures do, for then they
# fit into memory; above, it has to hold a byte for each _PIXELS_PER_BYTE, half of what photographs have at the poorest
# quality of JPEG, and memory has to be free.
_FREE_PIXELS = 50_000_000
_PIXELS_PER_BYTE = 200
_BYTES_PER_PIXEL = 12  # of memory: read, restored and written

# Not `Image.open`, whose bound of pixels is one for all threads.
_OPENERS = {
    "AVIF": AvifImagePlugin.AvifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "JPEG": JpegImagePlugin.jpeg_factory,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
if HAS_HEIF:
    import pillow_heif

    _OPENERS["HEIF"] = pillow_heif.HeifImageFile


class BadImage(ValueError):
    """A file that cannot be used as a photograph; the message is one printable line with its name and the reason."""

    def __init__(self, message):
        super().__init__(shortened(printable(message)))


@dataclass
class Photograph:
    """The pixels of an image file, and what its copy on disk needs besides them.

    Attributes:
        pixels: uint8 `(H, W, 3)` RGB, upright (an EXIF rotation is applied).
        alpha: uint8 `(H, W)`, or None if the file is opaque.
        grey: bool, the file contains only luminance.
        format: str, Pillow's name of the file format, such as "JPEG".
        metadata: dict that may contain `exif`, `icc_profile`, `xmp` (bytes) and `dpi`, and what only its own format
            can hold.
        notes: list of str, what a copy does not keep, such as "its resolution cannot be kept (it is damaged)".

    Example:
        >>> Photograph(np.zeros((4, 6, 3), np.uint8)).format
        'PNG'
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = "PNG"
    metadata: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


# ---- reading


def read_photograph(source, name="these bytes"):
    """Reads an image file as people have them.

    Grey, palette, transparent, CMYK, Lab, 16-bit and EXIF-rotated files all come back as upright 8-bit RGB, rounded to
    the nearest level. CMYK is converted through its embedded profile if it has one. Colours that a file describes in
    another way get a profile that says the same. Damaged metadata does not cost the picture: it is left out and noted.

    Args:
        source: str or Path of a JPEG, PNG, WebP, TIFF, BMP, AVIF or, with pillow-heif, HEIC file, or bytes, the content
            of one. The content decides, not the extension, except for cameras' raw files.
        name: str, what bytes are called in messages.

    Returns:
        `Photograph`, which `write_photograph` can write in its own format.

    Raises:
        BadImage: if the file is missing, no regular file, empty, truncated, no image of these formats, animated, of
            high dynamic range, larger than `MAX_PIXELS` or than memory, claims many more pixels than its bytes can
            hold, or has pixels (floating point, 32-bit) without an agreed conversion to 8 bits.

    Example:
        >>> photograph = read_photograph("photo.jpg")
        >>> photograph.pixels.shape, photograph.format
        ((720, 1280, 3), 'JPEG')
    """
    path = Path(name if isinstance(source, bytes) else source)
    try:
        n_bytes = len(source) if isinstance(source, bytes) else _regular_size(path)
        with io.BytesIO(source) if isinstance(source, bytes) else open(path, "rb") as file:
            file_format = format_of(file.read(512), path.suffix)
            file.seek(0)
            return _read(file, file_format, n_bytes)
    except NotRead as error:
        raise BadImage(f"{path}: {error}") from None
    except PermissionError:
        raise BadImage(f"{path}: not allowed to read it") from None
    except MemoryError:
        raise BadImage(f"{path}: does not fit into memory; restore a smaller copy") from None
    # Decoders meet broken files with whatever their parser trips over.
    except Exception as error:
        raise BadImage(f"{path}: cannot be decoded ({reason(error)})") from None


def _regular_size(path):
    """The bytes of a regular file: opening a pipe would wait for ever."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise NotRead("a link to a file that is missing" if path.is_symlink() else "no such file") from None
    except OSError as error:
        raise NotRead(error.strerror) from None
    if stat.S_ISDIR(status.st_mode):
        raise NotRead("is a folder; an image file is required")
    if not stat.S_ISREG(status.st_mode):
        raise NotRead("is a pipe, a socket or a device; an image file is required")
    return status.st_size


def _check_claims(size, n_bytes, n_pictures):
    """Refuses, before memory is taken, what cannot or need not be decoded."""
    width, height = size
    n_pixels = width * height
    if not n_pixels:
        raise NotRead(f"is {width}x{height} pixels; at least one is required")
    if n_pixels > MAX_PIXELS:
        raise NotRead(f"has more than the {MAX_PIXELS} pixels that are read at most; restore a smaller copy")
    if n_pixels > max(_FREE_PIXELS, _PIXELS_PER_BYTE * n_bytes):
        raise NotRead(f"claims {width}x{height} pixels, of which {n_bytes} bytes hold too little")
    if n_pixels > _FREE_PIXELS and (free := _free_memory()) < _BYTES_PER_PIXEL * n_pixels:
        raise NotRead(
            f"{width}x{height} pixels need {_BYTES_PER_PIXEL * n_pixels / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB are free; close other programs, or restore a smaller copy"
        )
    if n_pictures > 1:
        raise NotRead(f"holds {n_pictures} pictures; a file with a single one is required")


def _free_memory():
    """The bytes of memory that are free; infinite on a system that does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")


def _read(file, file_format, n_bytes):
    """Reads a picture, loaded or as an array, and its metadata; then converts to 8 bits and turns upright."""
    if file_format == "TIFF":
        tiff = Tiff(file)
        _check_claims(tiff.size, n_bytes, tiff.n_pictures)
        picture, alpha, largest = tiff.picture()
        metadata, notes, orientation = tiff.metadata, tiff.notes, tiff.orientation
    elif file_format == "PNG":
        image, metadata, notes = open_png(file)
        _check_claims(image.size, n_bytes, image.n_frames)
        picture, alpha = deep_pixels(image) or (_loaded(image, file, notes), None)
        largest = orientation = None
    else:
        notes = []
        image, file = _opened(file, file_format, notes)
        # Phones write JPEG with a second, smaller picture after the photograph; Pillow calls that MPO.
        several = image.format == "MPO"
        _check_claims(image.size, n_bytes, 1 if several else getattr(image, "n_frames", 1))
        picture, alpha, largest = _loaded(image, file, notes), None, None
        file.seek(0)
        content = file.read()
        if several or meta.has_other_pictures(image, content):
            notes.append(meta.OTHER_PICTURE)
        metadata, orientation = _described(picture, content, file_format, notes)
    profile = metadata.get("icc_profile")
    refuse_hdr(transfer_of_profile(profile))
    by_metadata = meta.upright(metadata, notes)
    pixels, alpha, grey, metadata["icc_profile"] = _eight_bits(picture, alpha, largest, profile, notes)
    if file_format == "BMP" and alpha is not None:
        alpha = None
        notes.append("its transparency cannot be kept (Pillow writes BMP without)")
    pixels, alpha = (None if plane is None else _turned(plane, orientation or by_metadata) for plane in (pixels, alpha))
    metadata = meta.kept({key: value for key, value in metadata.items() if value is not None}, file_format, notes)
    return Photograph(pixels, alpha, grey, file_format, metadata, notes)


def _opened(file, file_format, notes):
    """The image, and the file to load it from: that of a JPEG lacks EXIF data which Pillow trips over."""
    try:
        return _OPENERS[file_format](file, ""), file
    # Pillow looks for the resolution there, and raises whatever a value of another type leads to.
    except Exception:
        file.seek(0)
        content = file.read()
        if file_format != "JPEG" or (rest := meta.without_exif(content)) == content:
            raise
    file = io.BytesIO(rest)
    image = _OPENERS[file_format](file, "")
    notes.append("its EXIF data cannot be kept (it is damaged)")
    return image, file


def _described(image, content, file_format, notes):
    """`(metadata, orientation)` of a loaded image that is neither PNG nor TIFF; None if EXIF and XMP data turn it."""
    if file_format == "JPEG":
        return meta.of_jpeg(image), None
    metadata = {key: image.info[key] for key in ("exif", "icc_profile", "dpi", "xmp") if image.info.get(key)}
    code_points = orientation = None
    if file_format == "AVIF":
        # `info` may hold EXIF data that Pillow wrote itself. These files are turned by a box of their own.
        *_, exif, orientation, _ = image._decoder.get_info()
        metadata |= {"exif": exif} if exif else {}
        if orientation == 1 and not exif:
            orientation = None  # then XMP data count
        code_points = colour_code_points(content)
    if file_format == "HEIF":
        orientation = 1  # it is applied
        colours = image.info.get("nclx_profile")
        code_points = colours and (colours["color_primaries"], colours["transfer_characteristics"])
    if code_points and "icc_profile" not in metadata:
        metadata["icc_profile"] = profile_of_cicp(*code_points)
    if file_format == "BMP":
        try:
            metadata["icc_profile"] = profile_of_bmp(content)
        except ValueError as error:
            notes.append(f"its colour profile cannot be kept ({error})")
    if file_format == "WEBP" and _is_lossless_webp(content):
        metadata.update(lossless=True, exact=True, quality=80)
    return metadata, orientation


def _turned(plane, orientation):
    """Returns pixels of EXIF orientation 1 to 8 upright."""
    if orientation in (5, 6, 7, 8):
        plane = np.swapaxes(plane, 0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


def _loaded(image, file, notes):
    """The image with its pixels. A JPEG that lacks its end marker is completed, if nothing else is missing."""
    try:
        image.load()
        return image
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        file.seek(0)
        content, found = file.read(), []
        # If all pixels are there, they do not depend on what follows.
        for ending in (b"\xff\xd9", b"\xaa" * 100 + b"\xff\xd9"):
            image = JpegImagePlugin.jpeg_factory(io.BytesIO(content + ending), "")
            image.load()
            found.append(image)
        if found[0].tobytes() != found[1].tobytes():
            raise
    notes.append("its end marker was missing")
    return found[0]


def _eight_bits(picture, alpha, largest, profile, notes):
    """`[pixels, alpha, grey, profile]` in 8 bits of a loaded image, or an array, `(H, W)` grey or `(H, W, 3)` RGB."""
    mode = getattr(picture, "mode", "")
    if mode.startswith("I;16"):
        key, picture = picture.info.get("transparency"), np.asarray(picture)
        alpha = None if key is None else np.where(picture == key, 0, 255).astype(np.uint8)
    if isinstance(picture, np.ndarray):
        pixels, alpha = (
            plane if plane is None else scaled(plane, largest or np.iinfo(plane.dtype).max)
            for plane in (picture, alpha)
        )
        grey = pixels.ndim == 2
        return [np.repeat(pixels[..., None], 3, axis=2) if grey else pixels, alpha, grey, profile]
    image, grey = picture, mode in ("1", "L", "LA", "La")
    if mode in ("I", "F"):
        raise NotRead(f"its pixels are of type {mode} (32-bit); 8- or 16-bit is required")
    if mode in ("CMYK", "LAB"):
        try:
            image, profile = to_rgb(image, profile)
        except ValueError as error:
            notes.append(f"its colour profile cannot be used ({reason(error)})")
            image, profile = image.convert("RGB"), None
    elif image.has_transparency_data:
        if mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    return [np.asarray(image if image.mode == "RGB" else image.convert("RGB")), alpha, grey, profile]


def _is_lossless_webp(content):
    at = 12
    while (kind := content[at : at + 4]) not in (b"VP8 ", b"VP8L", b""):
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return kind == b"VP8L"


def read_rgb(path):
    """Returns the pixels of an image file, uint8 `(H, W, 3)` RGB, upright; raises BadImage as `read_photograph`."""
    return read_photograph(path).pixels


# ---- writing


def write_photograph(path, photograph, like=None):
    """Writes an image file, whole or not at all, in the format and with the metadata of the photograph it came from.

    A JPEG file is written with the quantization tables and the chroma subsampling that it came with, AVIF, HEIC and
    WebP, unless it came without loss, at quality 95, and everything else without loss.

    Args:
        path: str or Path; its folder exists.
        photograph: `Photograph`.
        like: as `files.whole_file`.

    Raises:
        OSError: if the file cannot be written; an older file at `path` is then still there.

    Example:
        >>> write_photograph("night.png", Photograph(np.zeros((48, 64, 3), np.uint8)))
        >>> read_photograph("night.png").pixels.shape
        (48, 64, 3)
    """
    write_bytes(path, encoded(photograph), like)


def encoded(photograph):
    """Returns the bytes of the file that `write_photograph` writes; raises OSError or ValueError if none can be."""
    options = dict(WRITING[photograph.format])
    if photograph.grey and photograph.format == "AVIF":
        del options["subsampling"]  # or it would be stored in colour
    if "qtables" in photograph.metadata:
        del options["quality"]  # by which Pillow would scale them
    return meta.written(_image(photograph), photograph.format, photograph.metadata, options)


def _image(photograph):
    image = Image.fromarray(photograph.pixels)
    if photograph.grey:
        image = image.convert("L")
    if photograph.alpha is not None:
        image.putalpha(Image.fromarray(photograph.alpha))
    return image


def converted(photograph, file_format=None, quality=None, side_by_side=False):
    """Returns a photograph as it is to be written in another format or at another quality; its pixels are the same.

    `file_format` is one of `formats.EXTENSIONS`, and None the photograph's own. `quality` is 1 to 100 for JPEG, WebP,
    AVIF and HEIC; None keeps that of a JPEG, and is 95 otherwise. What the format cannot hold is noted. Raises
    ValueError if Pillow does not write the format, or it cannot hold so long a side, of both if `side_by_side`.
    """
    metadata, notes, alpha = photograph.metadata, list(photograph.notes), photograph.alpha
    file_format = file_format or photograph.format
    require(file_format)
    height, width = photograph.pixels.shape[:2]
    longest = max(height, width * (2 if side_by_side else 1))
    if longest > LONGEST_SIDE[file_format]:
        raise ValueError(
            f"a side of {longest} pixels is longer than the {LONGEST_SIDE[file_format]} that {file_format} can hold; "
            "take --format png, or restore a smaller copy"
        )
    if file_format != photograph.format:
        metadata = meta.kept(metadata, file_format, notes)
        if alpha is not None and file_format in ("BMP", "JPEG"):
            alpha = None
            notes.append(f"its transparency cannot be kept in {file_format}")
    if quality is not None and "quality" in WRITING[file_format]:
        metadata = {key: metadata[key] for key in metadata.keys() - {"qtables", "lossless", "exact"}}
        metadata["quality"] = quality
    return replace(photograph, format=file_format, metadata=metadata, alpha=alpha, notes=notes)


# ---- PIL images, and folders


def as_pillow(photograph):
    """Returns a photograph as a Pillow image of mode L, LA, RGB or RGBA, with its metadata in `info`."""
    image = _image(photograph)
    kept = photograph.metadata.keys() & {"dpi", "exif", "icc_profile", "xmp"}
    image.info |= {key: photograph.metadata[key] for key in kept}
    return image


def from_pillow(image, name="this PIL image"):
    """Returns a Pillow image, which `name` calls in messages, as a photograph with the profile that fits its pixels.

    Its pixels are taken as they lie. Raises BadImage if it is empty, or its pixels have no agreed conversion to 8 bits.
    """
    if 0 in image.size:
        raise BadImage(f"{name}: is {image.width}x{image.height} pixels; at least one is required")
    try:
        *planes, profile = _eight_bits(image, None, None, image.info.get("icc_profile"), notes := [])
    except NotRead as error:
        raise BadImage(f"{name}: {error}") from None
    return Photograph(*planes, metadata={"icc_profile": profile} if profile else {}, notes=notes)


def find_images(folder, extensions=IMAGE_EXTENSIONS):
    """Returns the image files of a folder, sorted: by extension in any letter case, without hidden files.

    Broken links and pipes are among them; `read_photograph` refuses them with a reason. `extensions` are in lower case.
    Raises NotADirectoryError if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{printable(folder)}: no such folder")
    return sorted(
        path
        for path in folder.iterdir()
        # Not `path.is_dir()`, which raises for a link that leads to a closed folder or has too long a name.
        if path.suffix.lower() in extensions and not path.name.startswith(".") and not os.path.isdir(path)
    )
