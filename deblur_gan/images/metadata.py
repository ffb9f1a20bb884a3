"""Metadata: what a copy of an image file keeps besides its pixels."""

import io
import re

from PIL import Image, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from deblur_gan.files import reason
from deblur_gan.images.bmp import bmp_with
from deblur_gan.images.exif import states_resolution, tiff_with, upright_block
from deblur_gan.images.png import text_of_chunk

# By format, the metadata that a file of it can hold. `chunks` are the texts of a PNG, `colours` its chunks that
# describe colours; `photoshop` and `extended_xmp` are segments of a JPEG, `iptc` the part that has a tag in TIFF.
_EVERYWHERE = {"exif", "icc_profile", "xmp"}
_HELD = {
    "AVIF": _EVERYWHERE,
    "BMP": {"icc_profile", "dpi"},
    "HEIF": _EVERYWHERE,
    "JPEG": _EVERYWHERE | {"dpi", "comment", "photoshop", "iptc", "extended_xmp", "qtables", "subsampling"},
    "PNG": _EVERYWHERE | {"dpi", "chunks", "colours"},
    "TIFF": _EVERYWHERE | {"dpi", "photoshop", "iptc", "compression"},
    "WEBP": _EVERYWHERE | {"exact", "lossless", "quality"},
}
# Dropped without a note in another format: how a file is encoded, and what comes over in another form.
_ENCODING = {"colours", "compression", "exact", "iptc", "lossless", "qtables", "quality", "subsampling"}
_PLAIN_WORDS = {
    "exif": "EXIF data",
    "icc_profile": "colour profile",
    "dpi": "resolution",
    "xmp": "XMP data",
    "extended_xmp": "extended XMP data",
    "photoshop": "IPTC data",
    "qtables": "quality",
    "chunks": "texts",
}
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP, _IPTC = b"Photoshop 3.0\0", 0x0404
_XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG = 700, 33723, 34377

_TIFF = (b"tiff", b"http://ns.adobe.com/tiff/1.0/")
# Beginnings of the names in XMP data that describe a film, a gain map or another picture after the photograph.
_OTHER_PICTURES = (
    ((b"GCamera", b"http://ns.google.com/photos/1.0/camera/"), b"(?:MicroVideo|MotionPhoto)"),
    ((b"Container", b"http://ns.google.com/photos/1.0/container/"), b"Directory"),
    ((b"hdrgm", b"http://ns.adobe.com/hdr-gain-map/1.0/"), b""),
    ((b"HDRGainMap", b"http://ns.apple.com/HDRGainMap/1.0/"), b""),
)
OTHER_PICTURE = "the film, gain map or other picture in the same file cannot be kept"


def has_other_pictures(image, content):
    """Returns whether a file holds a gain map, a depth map or a film that its XMP data do not describe."""
    brands = content[: int.from_bytes(content[:4], "big")] if content[4:8] == b"ftyp" else b""
    film = image.format == "JPEG" and b"MotionPhoto_Data" in content  # older telephones of Samsung
    return film or b"tmap" in brands or any(image.info.get(key) for key in ("aux", "depth_images"))


def upright(metadata, notes):
    """Removes the orientation from EXIF and XMP data, and from XMP data other pictures in the same file.

    `metadata` is changed, and what cannot be kept is added to `notes`. Returns the orientation, 1 to 8; that of EXIF
    data is preferred.
    """
    orientation = None
    if exif := metadata.pop("exif", None):
        try:
            exif, orientation = upright_block(exif)
            metadata |= {"exif": exif} if exif else {}
        except ValueError as error:
            notes.append(f"its EXIF data cannot be kept ({error})")
    if xmp := metadata.get("xmp"):
        xmp, turned = _without(xmp, _TIFF, b"Orientation")
        if (
            orientation is None
            and turned
            and (digit := re.match(rb"\D*([1-8])", turned[0].partition(b"Orientation")[2]))
        ):
            orientation = int(digit[1])
        for namespace, names in _OTHER_PICTURES:
            xmp, found = _without(xmp, namespace, names)
            if found and OTHER_PICTURE not in notes:
                notes.append(OTHER_PICTURE)
        metadata["xmp"] = xmp
    return orientation or 1


def _without(xmp, namespace, names):
    """XMP data without the attributes and elements of a namespace whose names begin so, and these."""
    usual, address = namespace
    quoted = rb"[\"']" + re.escape(address) + rb"[\"']"
    prefixes = {usual, *re.findall(rb"xmlns:([\w.-]+)\s*=\s*" + quoted, xmp)}
    # Each pattern takes linear time, whatever somebody has written: the data may come from anywhere.
    name = rb"([\w.-]+):" + names + rb"[\w.-]*"
    removed = []

    def remove(match):
        if match[1] not in prefixes:
            return match[0]
        removed.append(match[0])
        return b""

    xmp = re.sub(rb"\s" + name + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", remove, xmp)
    parts, at = [], 0
    for match in re.finditer(rb"<(" + name + rb")(?=[\s/>])[^<>]*>", xmp):
        if match[2] not in prefixes or match.start() < at:
            continue  # of another namespace, or inside an element that is removed
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


def without_exif(content):
    """Returns the content of a JPEG without its segments of EXIF data."""
    parts, at = [content[:2]], 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] not in (b"", b"\xff", b"\xda"):
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at + 1 : at + 2] != b"\xe1" or content[at + 4 : at + 10] != b"Exif\0\0":
            parts.append(content[at:end])
        at = end
    return b"".join([*parts, content[at:]])


def of_jpeg(image):
    """Returns what a loaded JPEG has besides its pixels."""
    keys = ("exif", "icc_profile", "dpi", "xmp", "comment")
    found = {key: image.info[key] for key in keys if image.info.get(key)}
    if "dpi" in found:
        found["dpi"] = tuple(map(float, found["dpi"]))  # they may be fractions of EXIF data
    found["iptc"] = image.info.get("photoshop", {}).get(_IPTC)
    found["photoshop"] = tuple(content for name, content in image.applist if name == "APP13")
    found["extended_xmp"] = tuple(
        content for name, content in image.applist if name == "APP1" and content.startswith(_EXTENDED_XMP)
    )
    # The same tables are the same quality, whoever made them by whatever scale.
    found["qtables"] = [table for _, table in sorted(image.quantization.items())]
    found["subsampling"] = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(JpegImagePlugin.get_sampling(image))
    return {key: value for key, value in found.items() if value}


def kept(metadata, file_format, notes):
    """Returns what of a photograph's metadata a copy in a format is given; each has been tried.

    Adds to `notes` what cannot be kept. The comment of a JPEG and the text of a PNG of that name become each other.
    """
    metadata, room = dict(metadata), _HELD[file_format]
    if file_format == "PNG" and (comment := metadata.pop("comment", b"").replace(b"\0", b"")):
        metadata["chunks"] = ((b"tEXt", b"Comment\0" + comment),)
        if not comment.isascii() and comment.decode(errors="ignore").encode() == comment:
            metadata["chunks"] = ((b"iTXt", b"Comment\0\0\0\0\0" + comment),)
    if file_format == "JPEG" and "chunks" in metadata:
        texts = dict(text_of_chunk(*chunk) for chunk in metadata["chunks"])
        if b"Comment" in texts:
            metadata["comment"] = texts.pop(b"Comment")
        if not texts:
            del metadata["chunks"]
    if "dpi" in metadata and "dpi" not in room and states_resolution(metadata.get("exif"), metadata["dpi"]):
        del metadata["dpi"]
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
    """Returns the content of a file with Pillow's `image` and with metadata that `kept` returned.

    `options` are further ones of Pillow's `save`, which may raise any exception.
    """
    options, exif, tags, profile = options | metadata, None, {}, None
    iptc, photoshop = options.pop("iptc", None), options.pop("photoshop", ())
    if file_format == "BMP":
        profile = options.pop("icc_profile", None)
    if file_format == "JPEG":
        segments = [(b"\xff\xed", content) for content in photoshop]
        segments += [(b"\xff\xe1", content) for content in options.pop("extended_xmp", ())]
        options["extra"] = b"".join(mark + (len(s) + 2).to_bytes(2, "big") + s for mark, s in segments)
    if file_format == "PNG":
        chunks = [*options.pop("colours", ()), *options.pop("chunks", ())]
        if xmp := options.pop("xmp", None):
            chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
        options["pnginfo"] = PngInfo()
        for kind, content in chunks:
            options["pnginfo"].add(kind, content)
    if file_format == "TIFF":
        resources = b"".join(content.removeprefix(_PHOTOSHOP) for content in photoshop if content[:14] == _PHOTOSHOP)
        exif = options.pop("exif", None)
        tags = {_XMP_TAG: options.pop("xmp", None), _IPTC_TAG: iptc, _PHOTOSHOP_TAG: resources}
    file = io.BytesIO()
    image.save(file, file_format, **options)
    content = file.getvalue()
    if profile:
        return bmp_with(content, profile)
    return tiff_with(content, exif, tags) if exif or any(tags.values()) else content
