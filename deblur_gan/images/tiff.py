"""TIFF files: any layout of grey, RGB, palette, CMYK and Lab samples up to 16 bits is read as it is.

tifffile knows the layouts, libtiff (in Pillow) the compressions. What neither reads is refused by its name.
Source: TIFF 6.0; the supplements of Adobe Photoshop for compression 8 and predictors.
"""

import io
import math
import mmap
import struct

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from deblur_gan.images.colour import profile_of_chromaticities
from deblur_gan.images.exif import block_of_tiff, integer, numbers, read_directory, resolution
from deblur_gan.images.formats import NotRead

# Compressions whose strips libtiff gives back as bytes: none, LZW, deflate (two numbers), PackBits, LZMA, Zstandard.
_BYTES = {1, 5, 8, 32773, 32946, 34925, 50000}
_WRITTEN = {1: "raw", 5: "tiff_lzw", 32773: "packbits"}
_GREY_FROM_WHITE, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_SAMPLES = {_GREY_FROM_WHITE: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_KINDS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_ORIENTATION, _TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES, _INK_SET, _XMP = 274, 301, 318, 319, 332, 700
_PROFILE = 34675
_MULTIPLIED, _SEPARATE = 1, 2  # kinds of alpha
_JPEG = 6, 7
_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits in the other order


class Tiff:
    """The picture of a TIFF file: its first page that is not marked as a reduced copy or a mask.

    Attributes:
        size: `(width, height)` as stored.
        n_pictures: int, pages that are neither reduced copies nor masks, 100 at most.
        orientation: int, None if the file does not say, or Pillow has turned the picture.
        metadata: dict that may contain `exif`, `icc_profile`, `dpi`, `xmp` and `compression`.
        notes: list of str, what cannot be kept.
    """

    def __init__(self, file):
        self._file, self.notes = file, []
        self._tiff = tifffile.TiffFile(file, name="", _multifile=False, is_ome=False)
        pages = [self._tiff.pages[0]]
        try:
            while len(pages) < 100:
                pages.append(self._tiff.pages[len(pages)])
        except IndexError:
            pass
        except Exception:
            self.notes.append("the pages after its first are damaged and cannot be kept")
        pictures = [number for number, page in enumerate(pages) if not _is_copy(page)] or [0]
        self.n_pictures, self._number = len(pictures), pictures[0]
        self._page = page = pages[self._number]
        self.size = int(page.imagewidth), int(page.imagelength)
        self._read_metadata()

    def _read_metadata(self):
        try:
            content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            content = self._file.getbuffer()
        order, big = self._tiff.byteorder, self._tiff.is_bigtiff
        tags, _ = read_directory(content, self._page.offset, order, big)
        self.orientation = (integer(tags[_ORIENTATION], order) or 1) if _ORIENTATION in tags else None
        self.metadata = {"compression": _WRITTEN.get(int(self._page.compression), "tiff_adobe_deflate")}
        if exif := block_of_tiff(content, self._page.offset, order, big):
            self.metadata["exif"] = exif
        if _XMP in tags and (xmp := tags[_XMP][2].rstrip(b"\0")):
            self.metadata["xmp"] = xmp
        try:
            if dpi := resolution(tags, order):
                self.metadata["dpi"] = dpi
        except ValueError as error:
            self.notes.append(f"its resolution cannot be kept ({error})")
        profile = tags[_PROFILE][2] if _PROFILE in tags else None
        if profile is None:
            white, primaries = (numbers(tags[tag], order) if tag in tags else [] for tag in (_WHITE_POINT, _PRIMARIES))
            colours = int(self._page.photometric)
            if len(white) == 2 and len(primaries) == 6 and colours not in (_CMYK, _LAB):
                profile = profile_of_chromaticities([*white, *primaries], None, colours in (_GREY_FROM_WHITE, _GREY))
            if _TRANSFER_FUNCTION in tags:
                self.notes.append("its colour description (a table of levels) cannot be kept")
        if profile:
            self.metadata["icc_profile"] = profile

    def _check(self):
        """Refuses, before memory is taken, what is not read."""
        page = self._page
        bits, kind, colours = page.bitspersample, int(page.sampleformat or 1), int(page.photometric)
        compression, wanted = int(page.compression), _SAMPLES.get(colours)
        name = getattr(page.compression, "name", compression)
        refused = None
        if wanted is None:
            refused = f"its colours are of the kind {getattr(page.photometric, 'name', colours)}"
        elif kind not in (1, 4) or not isinstance(bits, int) or bits > 16:
            refused = f"its pixels are {bits}-bit {_KINDS.get(kind, 'unknown')} numbers"
        elif colours == _CMYK and page.tags.valueof(_INK_SET, 1) != 1:
            refused = "its inks are not cyan, magenta, yellow and black"
        elif colours == _YCBCR and compression not in _JPEG:
            refused = f"its colours are YCbCr compressed by {name}"
        elif compression not in _BYTES and bits not in (1, 8):
            refused = f"its pixels are {bits}-bit numbers compressed by {name}"
        elif colours == _LAB and bits != 8:
            refused = f"its pixels are {bits}-bit Lab"
        if refused:
            raise NotRead(f"{refused}; 8- or 16-bit is required: save it as RGB or grey")
        if page.imagedepth != 1 or page.samplesperpixel < wanted:
            raise NotRead("its layout is damaged")
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        n_parts = math.ceil(page.imagelength / rows) * math.ceil(page.imagewidth / columns) * planes
        counts = page.databytecounts
        if min(len(page.dataoffsets), len(counts)) < n_parts or 0 in counts[:n_parts]:
            raise ValueError("image file is truncated: strips are missing")

    def picture(self):
        """Decodes the picture, or raises NotRead for a layout that is not read.

        Returns:
            `(pixels, alpha, largest)`: unsigned integers `(H, W)` for grey, `(H, W, 3)` for RGB, or Pillow's loaded
            image; `(H, W)` or None; and the largest value of a sample.
        """
        self._check()
        page, colours = self._page, int(self._page.photometric)
        if int(page.compression) not in _BYTES:
            self._file.seek(0)
            image = TiffImagePlugin.TiffImageFile(self._file)
            image.seek(self._number)
            if isinstance(image.tag_v2.get(_ORIENTATION), int):
                self.orientation = 1  # Pillow turns it
            image.load()
            return image, None, 255
        samples, largest = _decoded(page), 2**page.bitspersample - 1
        n_colours, alpha, kind = _SAMPLES[colours], None, None
        if samples.shape != (page.imagelength, page.imagewidth, page.samplesperpixel):
            raise ValueError("its layout is damaged")
        more = [*page.extrasamples, *[0] * samples.shape[2]][: samples.shape[2] - n_colours]
        for number, kind in enumerate(more, n_colours):
            if kind in (_MULTIPLIED, _SEPARATE):
                alpha = samples[..., number]
                break
        if len(more) > (alpha is not None):
            self.notes.append("its further channels cannot be kept")
        pixels = samples[..., :n_colours]
        if alpha is not None and kind == _MULTIPLIED:
            wide = pixels.astype(np.uint64) * largest + alpha[..., None] // 2
            pixels = np.minimum(wide // np.maximum(alpha, 1)[..., None], largest).astype(samples.dtype)
        if colours == _GREY_FROM_WHITE:
            pixels = largest - pixels
        if colours == _PALETTE:
            table = np.asarray(page.colormap).reshape(3, -1)
            return (table[:, pixels[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0), alpha, 255
        if colours in (_CMYK, _LAB):
            eight, mode = scaled(pixels, largest), "CMYK" if colours == _CMYK else "LAB"
            image = Image.frombytes(mode, eight.shape[1::-1], eight.tobytes())
            return image, None if alpha is None else scaled(alpha, largest), 255
        return (pixels[..., 0] if n_colours == 1 else pixels), alpha, largest


def scaled(values, largest):
    """Returns unsigned integers from 0 to `largest` as uint8 from 0 to 255, to the nearest."""
    if largest == 255:
        return np.ascontiguousarray(values, np.uint8)
    table = (np.arange(largest + 1, dtype=np.uint32) * 510 + largest) // (2 * largest)
    return table.astype(np.uint8)[values]


def _is_copy(page):
    return bool(page.tags.valueof(254, 0) & 5) or page.tags.valueof(255, 1) == 2


def _decoded(page):
    """All samples, `(H, W, samples)`, uint8 or uint16."""
    compression = int(page.compression)
    turned_bits = page.fillorder == 2
    page.compression = page.fillorder = 1  # tifffile arranges what is decompressed here
    shape = page.shaped
    result = np.zeros(shape, np.uint8 if page.bitspersample <= 8 else np.uint16)
    across = page.samplesperpixel if page.planarconfig == 1 else 1
    file = page.parent.filehandle
    for number, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        _, (plane, depth, top, left, _), (_, rows, columns, _) = page.decode(None, number)
        if plane >= shape[0]:
            break
        n_bytes = rows * math.ceil(columns * across * page.bitspersample / 8)
        file.seek(offset)
        data = file.read(count)
        if compression == 1:
            data = data[:n_bytes].translate(_TURNED) if turned_bits else data[:n_bytes]
        else:
            data = _decompressed(data, compression, n_bytes, turned_bits)
        if len(data) < n_bytes:
            raise ValueError("image file is truncated")
        if page.bitspersample in (8, 16):
            part = page.decode(data, number)[0]
        else:
            part = _unpacked(data, rows, columns * across, page).reshape(1, rows, columns, across)
        part = part[0, : shape[2] - top, : shape[3] - left]
        result[plane, depth, top : top + part.shape[0], left : left + part.shape[1]] = part
    return np.moveaxis(result[:, 0, ..., 0], 0, -1) if page.planarconfig == 2 and shape[0] > 1 else result[0, 0]


def _unpacked(data, rows, columns, page):
    """Samples of any number of bits, `(rows, columns)`; each row begins with a new byte."""
    n_bits = page.bitspersample
    bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(rows, -1), axis=1)
    bits = bits[:, : columns * n_bits].reshape(rows, columns, n_bits)
    return bits @ (1 << np.arange(n_bits, dtype=np.uint16)[::-1])


def _decompressed(data, compression, n_bytes, turned_bits):
    """The bytes of a strip, by libtiff, which stops at `n_bytes`: Pillow reads them as one row of a grey picture."""
    tags = {256: n_bytes, 257: 1, 258: 8, 259: compression, 262: 1, 266: 2 if turned_bits else 1}
    tags |= {273: 8, 277: 1, 278: 1, 279: len(data)}
    data += bytes(len(data) % 2)
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    content = header + data + struct.pack("<H", len(tags)) + directory + bytes(4)
    return TiffImagePlugin.TiffImageFile(io.BytesIO(content)).tobytes()
