"""BMP headers of versions 4 and 5: the colours that they describe, which Pillow neither reads nor writes.

Source: Microsoft, BITMAPV4HEADER and BITMAPV5HEADER.
"""

import struct

from deblur_gan.images.colour import D65, profile_of_chromaticities

_FILE_HEADER, _PLAIN_HEADER, _V4_HEADER, _V5_HEADER = 14, 40, 108, 124  # bytes
_CALIBRATED, _EMBEDDED, _LINKED = b"\0\0\0\0", b"DEBM", b"KNIL"
_BY_CONTRAST = 4  # the rendering intent of photographs


def profile_of_bmp(content):
    """Returns the ICC profile of the colours that a BMP file describes; None for sRGB, and if it describes none.

    Raises:
        ValueError: if there is a profile that cannot be read.
    """
    header = content[_FILE_HEADER : _FILE_HEADER + int.from_bytes(content[14:18], "little")]
    kind = header[56:60]
    if len(header) >= _V5_HEADER and kind in (_EMBEDDED, _LINKED):
        start, length = struct.unpack_from("<2I", header, 112)
        profile = content[_FILE_HEADER + start : _FILE_HEADER + start + length]
        if kind == _LINKED or not 0 < length == len(profile):
            raise ValueError("it lies in another file" if kind == _LINKED else "it is cut")
        return profile
    if len(header) >= _V4_HEADER and kind == _CALIBRATED:
        xyz, gammas = struct.unpack_from("<9I", header, 60), struct.unpack_from("<3I", header, 96)
        sums = [sum(xyz[at : at + 3]) for at in (0, 3, 6)]
        if all(sums):
            corners = [xyz[at + axis] / total for at, total in zip((0, 3, 6), sums, strict=True) for axis in (0, 1)]
            return profile_of_chromaticities([*D65, *corners], gammas[1] / 65536 or None)
    return None


def bmp_with(content, profile):
    """Returns a BMP file of Pillow's, whose header is plain, with the header of version 5 and an ICC profile."""
    (start,) = struct.unpack_from("<I", content, 10)
    plain = content[_FILE_HEADER + 4 : _FILE_HEADER + _PLAIN_HEADER]
    after = content[_FILE_HEADER + _PLAIN_HEADER :]  # palette and pixels
    place = struct.pack("<4I", _BY_CONTRAST, _V5_HEADER + len(after), len(profile), 0)
    header = struct.pack("<I", _V5_HEADER) + plain + bytes(16) + _EMBEDDED + bytes(48) + place
    size = _FILE_HEADER + len(header) + len(after) + len(profile)
    moved = start + _V5_HEADER - _PLAIN_HEADER
    return b"BM" + struct.pack("<3I", size, 0, moved) + header + after + profile
