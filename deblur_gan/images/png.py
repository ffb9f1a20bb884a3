"""PNG files chunk by chunk: one damaged chunk of metadata does not cost the picture, and texts stay as they are.

Source: https://www.w3.org/TR/png-3/, sections 5 and 11.
"""

import io
import struct
import zlib

import numpy as np
from PIL import PngImagePlugin

from deblur_gan.images.colour import SRGB, profile_of_chromaticities, profile_of_cicp

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The chunks that Pillow gets: those of the pixels, and those that mark an animation.
_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_COLOURS = {b"cHRM": 32, b"gAMA": 4, b"sRGB": 1, b"cICP": 4}  # chunks that describe colours, and their lengths
_XMP = b"XML:com.adobe.xmp"
_LARGEST_TEXT = PngImagePlugin.MAX_TEXT_CHUNK  # of a compressed text; Pillow opens no file with a larger one
_WORDS = {b"pHYs": "resolution", b"iCCP": "colour profile", b"eXIf": "EXIF data", b"tRNS": "transparency"}
_WORDS |= dict.fromkeys(_TEXTS, "text") | dict.fromkeys(_COLOURS, "colour description")


def _inflated(content):
    """Decompresses; raises ValueError if it is damaged or too large."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(content, _LARGEST_TEXT)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if stream.unconsumed_tail:
        raise ValueError(f"it holds more than {_LARGEST_TEXT} bytes")
    return found


def open_png(file):
    """Opens a PNG file without its metadata, which is read here.

    Returns:
        `(image, metadata, notes)`: Pillow's image, not loaded; dict that may contain `exif`, `icc_profile`, `dpi`,
        `xmp`, `chunks` and `colours`; list of str, what is damaged and left out.

    Raises:
        NotRead: if it is of high dynamic range.
    """
    pixels, chunks, notes = _sorted_chunks(file.read())
    image = PngImagePlugin.PngImageFile(pixels)
    metadata, kept, colours = {}, [], {}
    n_text = 0
    for kind, content in chunks:
        try:
            if kind == b"eXIf":
                metadata["exif"] = content
            elif kind == b"pHYs":
                x, y, unit = struct.unpack(">IIB", content)
                if unit == 1:
                    metadata["dpi"] = x * 0.0254, y * 0.0254
            elif kind == b"iCCP":
                metadata["icc_profile"] = _inflated(content[content.index(b"\0") + 2 :])
            elif kind in _COLOURS:
                if len(content) != _COLOURS[kind]:
                    raise ValueError(f"{len(content)} bytes")
                colours[kind] = content
            else:
                key, text = text_of_chunk(kind, content)
                if key == _XMP:
                    metadata["xmp"] = text
                elif key in (b"Raw profile type exif", b"Raw profile type APP1"):
                    metadata.setdefault("exif", bytes.fromhex("".join(text.decode("ascii").split("\n")[3:])))
                else:
                    n_text += len(text)
                    if n_text > PngImagePlugin.MAX_TEXT_MEMORY:
                        raise ValueError("all texts are too large")
                    kept.append((kind, content))
        except (ValueError, struct.error) as error:
            notes.append(f"its {_WORDS[kind]} cannot be kept ({error})")
    metadata |= {"chunks": tuple(kept)} if kept else {}
    metadata |= {"colours": tuple(colours.items())} if colours else {}
    profile = _described_colours(colours, image.mode[0] in "1LI")
    if profile and (b"cICP" in colours or "icc_profile" not in metadata):
        metadata["icc_profile"] = profile
    return image, metadata, notes


def _sorted_chunks(content):
    """The chunks that pixels need, as a file; the others as `(kind, content)`; notes on those that are damaged."""
    pixels, chunks, notes, at, kind = [SIGNATURE], [], [], len(SIGNATURE), None
    while at < len(content) and kind != b"IEND":
        kind, end = content[at + 4 : at + 8], at + 12 + int.from_bytes(content[at : at + 4], "big")
        summed = zlib.crc32(content[at + 4 : end - 4]) if kind in _WORDS else 0
        if kind in _WORDS and (end > len(content) or summed.to_bytes(4, "big") != content[end - 4 : end]):
            notes.append(f"its {_WORDS[kind]} cannot be kept (a wrong checksum)")
        elif kind in _PIXELS or not kind[:1].islower():
            pixels.append(content[at:end])
        elif kind in _WORDS:
            chunks.append((kind, content[at + 8 : end - 4]))
        at = end
    return io.BytesIO(b"".join(pixels)), chunks, notes


def text_of_chunk(kind, content):
    """`(key, text)` in bytes of a chunk of text."""
    key, _, text = content.partition(b"\0")
    if kind == b"zTXt":
        return key, _inflated(text[1:])
    if kind == b"iTXt":
        if len(text) < 2:
            raise ValueError("it is cut")
        packed, (_language, _key, text) = text[0], text[2:].split(b"\0", 2)
        return key, _inflated(text) if packed else text
    return key, text


def _described_colours(colours, grey):
    """The profile of the colours that chunks describe; None for sRGB."""
    if b"cICP" in colours:
        return profile_of_cicp(*colours[b"cICP"][:2], grey)
    if b"sRGB" in colours:
        return None
    gamma = int.from_bytes(colours.get(b"gAMA", b""), "big") / 100_000
    corners = [value / 100_000 for value in struct.unpack(">8I", colours[b"cHRM"])] if b"cHRM" in colours else SRGB
    return profile_of_chromaticities(corners, 1 / gamma if gamma else None, grey)


def deep_pixels(image):
    """Decodes 16 bits, of which Pillow reads 8, and transparent grey levels of two and four bits.

    Returns `(pixels, alpha)` as unsigned integers that use all their bits: `(H, W)` or `(H, W, 3)`, and `(H, W)` or
    None. The result is None if Pillow decodes this image, which `open_png` returned, without loss.
    """
    layout, key, alpha = image.tile[0].args if image.tile else "", image.info.get("transparency"), None
    if layout in ("L;2", "L;4") and key is not None:
        pixels, key = _loaded(image), key * (85 if layout == "L;2" else 17)
    elif layout == "I;16B":
        pixels = _loaded(image)
    elif layout == "LA;16B":  # as if it were 8-bit RGBA: two bytes of grey, two of alpha
        upper_and_lower = _loaded(image, "RGBA").astype(np.uint16)
        pixels, alpha = np.moveaxis(upper_and_lower[..., ::2] * 256 + upper_and_lower[..., 1::2], 2, 0)
    elif layout in ("RGB;16B", "RGBA;16B"):
        again = PngImagePlugin.PngImageFile(io.BytesIO(image.fp.getbuffer()))
        pixels = _loaded(image).astype(np.uint16) * 256 + _loaded(again, f"{layout[:-1]}L")
        pixels, alpha = pixels[..., :3], pixels[..., 3] if layout == "RGBA;16B" else None
    else:
        return None
    if key is not None and alpha is None:
        opaque = (pixels != key).reshape(*pixels.shape[:2], -1).any(axis=2)
        alpha = np.where(opaque, 255, 0).astype(np.uint8)
    return pixels, alpha


def _loaded(image, layout=None):
    if layout:
        image.tile = [image.tile[0]._replace(args=layout)]
    image.load()
    return np.asarray(image)
