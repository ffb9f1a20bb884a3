"""Metadata: what a copy of an image file keeps besides its pixels."""

import io
import re

from PIL import Image, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from deblur_gan.files import reason
from deblur_gan.images.exif import tiff_with, upright_block

# By format, the metadata that a file of it can hold. `chunks` are those of a PNG, `extra` segments of a JPEG.
_HELD = {
    "AVIF": {"exif", "icc_profile", "xmp"},
    "BMP": {"dpi"},
    "HEIF": {"exif", "icc_profile", "xmp"},
    "JPEG": {"exif", "icc_profile", "dpi", "xmp", "comment", "extra", "qtables", "subsampling"},
    "PNG": {"exif", "icc_profile", "dpi", "xmp", "chunks"},
    "TIFF": {"exif", "icc_profile", "dpi", "xmp", "compression"},
    "WEBP": {"exif", "icc_profile", "xmp", "exact", "lossless", "quality"},
}
# How a file is encoded: nobody misses it in another format.
_ENCODING = {"compression", "exact", "lossless", "qtables", "quality", "subsampling"}
_PLAIN_WORDS = {
    "exif": "EXIF data",
    "icc_profile": "colour profile",
    "dpi": "resolution",
    "xmp": "XMP data",
    "extra": "IPTC data",
    "qtables": "quality",
    "chunks": "texts",
}
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"

_TIFF = (b"tiff", b"http://ns.adobe.com/tiff/1.0/")
# Beginnings of the names in XMP data that describe a film, a gain map or another picture after the photograph.
_OTHER_PICTURES = (
    ((b"GCamera", b"http://ns.google.com/photos/1.0/camera/"), b"(?:MicroVideo|MotionPhoto)"),
    ((b"Container", b"http://ns.google.com/photos/1.0/container/"), b"Directory"),
    ((b"hdrgm", b"http://ns.adobe.com/hdr-gain-map/1.0/"), b""),
    ((b"HDRGainMap", b"http://ns.apple.com/HDRGainMap/1.0/"), b""),
)
OTHER_PICTURE = "the film, gain map or other picture in the same file cannot be kept"


def upright(metadata, notes):
    """Removes the orientation from EXIF and XMP data, and from XMP data other pictures of the same file.

    Args:
        metadata: dict that may contain `exif` and `xmp`, bytes; it is changed.
        notes: list of str, to which is added what cannot be kept.

    Returns:
        int, 1 to 8, the orientation; that of EXIF data is preferred.
    """
    orientation = None
    if exif := metadata.pop("exif", None):
        try:
            exif, orientation = upright_block(exif)
            metadata |= {"exif": exif} if exif else {}
        except ValueError as error:
            notes.append(f"its EXIF data cannot be kept ({error})")
    if xmp := metadata.get("xmp"):
        xmp, removed = _without(xmp, _TIFF, b"Orientation")
        digit = re.search(rb"Orientation\D*([1-8])", removed[0]) if removed else None
        if orientation is None and digit:
            orientation = int(digit[1])
        for namespace, names in _OTHER_PICTURES:
            xmp, found = _without(xmp, namespace, names)
            removed += found
            if found and OTHER_PICTURE not in notes:
                notes.append(OTHER_PICTURE)
        if removed:
            metadata["xmp"] = xmp
    return orientation or 1


def _without(xmp, namespace, names):
    """XMP data without the attributes and elements of a namespace whose names begin so, and these."""
    usual, address = namespace
    quoted = rb"[\"']" + re.escape(address) + rb"[\"']"
    prefixes = {usual, *re.findall(rb"xmlns:([\w.-]+)\s*=\s*" + quoted, xmp)}
    name = rb"(?:" + b"|".join(map(re.escape, sorted(prefixes))) + rb"):" + names + rb"[\w.-]*"
    removed = []

    def remove(match):
        removed.append(match[0])
        return b""

    xmp = re.sub(rb"\s" + name + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", remove, xmp)
    parts, at = [], 0
    for match in re.finditer(rb"<(" + name + rb")(?=[\s/>])[^>]*>", xmp):
        if match.start() < at:
            continue  # inside an element that is removed
        end = match.end()
        if not match[0].endswith(b"/>"):
            closing = b"</" + match[1] + b">"
            end = xmp.find(closing, end)
            if end < 0:
                break  # it is not closed, and so is none after it
            end += len(closing)
        parts.append(xmp[at : match.start()])
        removed.append(xmp[match.start() : end])
        at = end
    return b"".join([*parts, xmp[at:]]), removed


def of_jpeg(image):
    """Returns what a loaded JPEG has besides its pixels, `exif` and `xmp` included."""
    keys = ("exif", "icc_profile", "dpi", "xmp", "comment")
    found = {key: image.info[key] for key in keys if image.info.get(key)}
    found["extra"] = b"".join(
        b"\xff" + marker + (len(content) + 2).to_bytes(2, "big") + content
        for kind, marker, beginning in (("APP13", b"\xed", b""), ("APP1", b"\xe1", _EXTENDED_XMP))
        for name, content in image.applist
        if name == kind and content.startswith(beginning)
    )
    # The same tables are the same quality, whoever made them by whatever scale.
    found["qtables"] = list(image.quantization.values())
    sampling = JpegImagePlugin.get_sampling(image)
    found["subsampling"] = ("4:4:4", "4:2:2", "4:2:0")[sampling] if sampling >= 0 else None
    return {key: value for key, value in found.items() if value}


def kept(metadata, file_format, notes):
    """Returns what of a photograph's metadata a copy in a format is given; each has been tried.

    Args:
        metadata: dict with keys of `_HELD`.
        file_format: str, Pillow's name of the format.
        notes: list of str, to which is added what cannot be kept.

    Returns:
        dict.
    """
    room = _HELD[file_format]
    notes += [
        f"its {_PLAIN_WORDS.get(key, key)} cannot be kept in {file_format}"
        for key in metadata
        if key not in room | _ENCODING
    ]
    found = {key: value for key, value in metadata.items() if key in room}
    if _failure(found, file_format) is None:
        return found
    taken = {}
    for key, value in found.items():  # damaged metadata meets writers that check nothing
        if failure := _failure(taken | {key: value}, file_format):
            notes.append(f"its {_PLAIN_WORDS.get(key, key)} cannot be kept ({failure})")
        else:
            taken[key] = value
    return taken


def _failure(metadata, file_format):
    """Why a picture with this metadata cannot be written and opened; None if it can."""
    try:
        content = written(Image.new("RGB", (8, 8)), file_format, metadata, {})
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception as error:
        return reason(error)
    return None


def written(image, file_format, metadata, options):
    """Returns the content of an image file.

    Args:
        image: Pillow's image.
        file_format: str, Pillow's name of the format.
        metadata: dict as `kept` returns it.
        options: dict of more options of Pillow's `save`.

    Raises:
        Exception: any, from Pillow, if it cannot write this.
    """
    options, after = options | metadata, {}
    if file_format == "TIFF":
        after = {key: options.pop(key, None) for key in ("exif", "xmp")}
    if file_format == "PNG":
        chunks = list(options.pop("chunks", ()))
        if "xmp" in options:
            chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + options.pop("xmp")))
        options["pnginfo"] = PngInfo()
        for kind, content in chunks:
            options["pnginfo"].add(kind, content)
    file = io.BytesIO()
    image.save(file, file_format, **options)
    content = file.getvalue()
    return tiff_with(content, after["exif"], after["xmp"]) if any(after.values()) else content
