"""Formats of image files: names, extensions, limits, and the first bytes that identify them."""

import importlib.util

from PIL import features

# The formats that are read and written, by Pillow's names: their extensions, the usual one first; options of Pillow's
# `save`, unless the original file decides them; and the longest side that they can hold.
_FORMATS = {
    "AVIF": ((".avif",), {"quality": 95, "subsampling": "4:4:4"}, 32_768),
    "BMP": ((".bmp", ".dib"), {}, 2**31 - 1),
    "HEIF": ((".heic", ".heif", ".hif"), {"quality": 95, "chroma": 444}, 16_384),
    "JPEG": ((".jpg", ".jpeg", ".jfif", ".jpe", ".mpo"), {"quality": 95, "subsampling": 0}, 65_500),
    "PNG": ((".png",), {}, 2**31 - 1),
    "TIFF": ((".tif", ".tiff"), {}, 2**31 - 1),
    "WEBP": ((".webp",), {"quality": 95}, 16_383),
}
EXTENSIONS = {name: extensions for name, (extensions, _, _) in _FORMATS.items()}
WRITING = {name: options for name, (_, options, _) in _FORMATS.items()}
LONGEST_SIDE = {name: side for name, (_, _, side) in _FORMATS.items()}
FORMATS_READ = "JPEG, PNG, WebP, TIFF, BMP, AVIF or HEIC"
IMAGE_EXTENSIONS = frozenset(extension for extensions in EXTENSIONS.values() for extension in extensions)
# Cameras' raw files are TIFF inside, many with a thumbnail as their first picture.
_RAW_EXTENSIONS = frozenset(
    (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")
)
# Files that look like pictures: a folder that contains them is reported.
PICTURE_EXTENSIONS = (
    IMAGE_EXTENSIONS
    | _RAW_EXTENSIONS
    | {".dds", ".eps", ".exr", ".gif", ".hdr", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".pbm", ".pcx", ".pgm", ".pnm"}
    | {".ppm", ".psb", ".psd", ".qoi", ".svg", ".tga", ".wmf", ".xcf"}
)

HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
if HAS_HEIF:
    import pillow_heif

    pillow_heif.register_heif_opener()  # else Pillow does not write it
_INSTALLED = {"AVIF": features.check("avif"), "HEIF": HAS_HEIF}

_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_RAW = "a camera's raw file; develop it to JPEG, PNG or TIFF first"
# The first bytes of other files.
_OTHERS = {
    b"GIF8": "GIF",
    b"8BPS": "Photoshop",
    b"gimp xcf": "XCF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc\x01": "JPEG XR",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\0\0\1\0": "an icon",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    **{b"P%d" % number: "a Netpbm picture" for number in range(1, 8)},
    **dict.fromkeys((b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"\0MRM", b"FOVb"), _RAW),
}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


class NotRead(ValueError):
    """Content that is not read; the message is the reason, without the name of the file."""


def require(file_format, done="written"):
    """Raises NotRead if a format is not installed; the message contains the command that installs it."""
    if not _INSTALLED.get(file_format, True):
        needs = {"HEIF": "it: pip install pillow-heif", "AVIF": "a Pillow that was built with it"}[file_format]
        name = "HEIC" if file_format == "HEIF" else file_format
        raise NotRead(f"{name} cannot be {done}; install {needs}")


def format_of(head, extension):
    """Returns Pillow's name of the format of a file from its first 512 bytes, or raises NotRead.

    The extension tells cameras' raw files from TIFF.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _format_of_brands({head[at : at + 4] for at in range(8, min(int.from_bytes(head[:4], "big"), 256), 4)})
    for beginning, name in _BEGINNINGS.items():
        if head.startswith(beginning):
            if name == "TIFF" and (extension.lower() in _RAW_EXTENSIONS or head[8:10] == b"CR"):
                raise NotRead(_RAW)
            return name
    for beginning, name in _OTHERS.items():
        if head.startswith(beginning):
            how = name if name == _RAW else f"it is {name}; save it as JPEG, PNG or TIFF first"
            raise NotRead(f"not an image that can be read: {how}")
    raise NotRead(f"not an image that can be read; {FORMATS_READ} is required")


def _format_of_brands(brands):
    for name, known in (("AVIF", {b"avif", b"avis"}), ("HEIF", _HEIC_BRANDS)):
        if brands & known:
            require(name, "read")
            return name
    if b"crx " in brands:
        raise NotRead(f"not an image that can be read: {_RAW}")
    raise NotRead("not an image that can be read: it is a video; give it a name such as film.mp4")
