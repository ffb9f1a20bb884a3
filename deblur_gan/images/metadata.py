"""Metadata: what a copy of an image file keeps beside its pixels."""

import io

from PIL import ExifTags, Image, ImageOps, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from deblur_gan.files import reason

# By format, what is carried over under the name that it has in Pillow's `info` and in its `save`. Besides: EXIF, in
# JPEG also IPTC and extended XMP (`extra`), in PNG the texts, among them XMP (`pnginfo`), in TIFF the tags below.
_KEPT = {
    "AVIF": ("icc_profile", "xmp"),
    "BMP": ("dpi",),
    "HEIF": ("icc_profile", "xmp"),
    "JPEG": ("icc_profile", "dpi", "xmp", "comment"),
    "PNG": ("icc_profile", "dpi"),
    "TIFF": ("compression", "icc_profile", "dpi"),
    "WEBP": ("icc_profile", "xmp"),
}
# How a file is encoded, which its metadata says too: nobody misses it in another format.
_ENCODING = {"compression", "exact", "lossless", "qtables", "quality", "subsampling"}
_PLAIN_WORDS = {
    "exif": "EXIF data",
    "icc_profile": "colour profile",
    "dpi": "resolution",
    "xmp": "XMP data",
    "extra": "IPTC data",
    "qtables": "quality",
    "pnginfo": "texts",
}

# TIFF keeps its own layout (strips, sizes) among the tags, so only what describes the photograph is carried over.
_DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
    ExifTags.Base.Orientation,  # taken out where it turned the image, else it forbids XMP to turn the copy
    33723,  # IPTC
)
_XMP_TAG = 700
_EXIF_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_LOSSLESS_TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"


def upright_exif(image, notes):
    """Turns a loaded image upright, as its EXIF or XMP orientation says.

    Args:
        image: Pillow's image as `Image.open` gives it, loaded; it is turned in place, and its XMP data with it.
        notes: list of str, to which is added what cannot be kept.

    Returns:
        bytes, the EXIF block of an upright copy; None if there is nothing to say, or it is damaged.
    """
    try:
        ImageOps.exif_transpose(image, in_place=True)
        return _exif(image)
    except Exception as error:  # whatever a parser trips over
        notes.append(f"its EXIF data cannot be kept ({reason(error)})")
        return None


def _exif(image):
    """The EXIF block of a copy of the image, which is upright; None if there is nothing to say."""
    exif = image.getexif()
    if image.format == "TIFF":
        described = Image.Exif()
        described.update({tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif})
        described.update({ifd: exif.get_ifd(ifd) for ifd in _EXIF_FOLDERS if exif.get_ifd(ifd)})
        if "xmp" in image.info:
            described[_XMP_TAG] = image.info["xmp"]
        exif = described
    if exif or any(exif.get_ifd(ifd) for ifd in _EXIF_FOLDERS):
        return exif.tobytes()
    return None


def kept_metadata(image, file_format, exif, notes):
    """What a copy of an image is to be given beside its pixels.

    Args:
        image: Pillow's image as `Image.open` gives it, loaded.
        file_format: str, Pillow's name of the format that the copy is written in.
        exif: bytes or None, its EXIF block.
        notes: list of str, to which is added what cannot be kept.

    Returns:
        dict of options for Pillow's `save`, which takes them: each has been tried.
    """
    kept = {}
    for key, value in _found(image, file_format, exif).items():
        try:
            Image.new("RGB", (8, 8)).save(io.BytesIO(), file_format, **kept, **{key: value})
            kept[key] = value
        except Exception as error:  # damaged metadata meets writers that check nothing
            notes.append(f"its {_PLAIN_WORDS.get(key, key)} cannot be kept ({reason(error)})")
    return kept


def _found(image, file_format, exif):
    """What Pillow's `save` takes to give a copy what the image has; of a key without a value there is nothing."""
    found = {key: image.info.get(key) for key in _KEPT[file_format]} | {"exif": exif}
    if file_format == "TIFF" and found["compression"] not in _LOSSLESS_TIFF_COMPRESSIONS:
        found["compression"] = "tiff_adobe_deflate"
    if file_format == "JPEG":
        segments = [("APP13", b"\xed", b""), ("APP1", b"\xe1", _EXTENDED_XMP)]
        if b"Container:Directory" in (found["xmp"] or b""):
            # It lists the gain map or film behind the photograph, which the copy has not.
            del found["xmp"], segments[1]
        found["extra"] = b"".join(
            b"\xff" + marker + (len(content) + 2).to_bytes(2, "big") + content
            for kind, marker, beginning in segments
            for name, content in image.applist
            if name == kind and content.startswith(beginning)
        )
        # The same tables are the same quality, whoever made them by whatever scale.
        found["qtables"] = list(image.quantization.values())
        sampling = JpegImagePlugin.get_sampling(image)
        found["subsampling"] = ("4:4:4", "4:2:2", "4:2:0")[sampling] if sampling >= 0 else None
    if file_format == "PNG":
        found["pnginfo"] = _png_texts(image)
    return {key: value for key, value in found.items() if value}


def carried_over(metadata, file_format, notes):
    """What of a photograph's metadata a copy in another format is given.

    Args:
        metadata: dict, as `kept_metadata` returns it for the format that the photograph came in.
        file_format: str, Pillow's name of the other format.
        notes: list of str, to which is added what cannot be kept.

    Returns:
        dict of options for Pillow's `save`.
    """
    takes = {*_KEPT[file_format], *(["exif"] if file_format != "BMP" else [])} - _ENCODING
    notes += [
        f"its {_PLAIN_WORDS.get(key, key)} cannot be kept in {file_format}"
        for key in metadata
        if key not in takes | _ENCODING
    ]
    return {key: value for key, value in metadata.items() if key in takes}


def _png_texts(image):
    texts = PngInfo()
    for key, text in image.text.items():
        if key == "XML:com.adobe.xmp":
            texts.add_itxt(key, image.info[key])  # from `info`, where its rotation has been taken out
        elif key != "Raw profile type exif":  # EXIF, which is written as such
            texts.add_text(key, text, zip=len(text) > 4096)
    if "gamma" in image.info:
        texts.add(b"gAMA", round(image.info["gamma"] * 100_000).to_bytes(4, "big"))
    return texts if texts.chunks else None
