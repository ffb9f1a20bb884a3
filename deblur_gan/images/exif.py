"""EXIF data as bytes: directories of tags are rearranged, the values of tags stay as they are.

Pillow decodes texts as Latin-1 and writes ASCII, which turns UTF-8 into question marks.
Source: CIPA DC-008 (EXIF 2.32), section 4.6; TIFF 6.0, section 2.
"""

import math
import struct

import numpy as np

_ORIENTATION, _EXIF, _GPS, _INTEROPERABILITY = 0x0112, 0x8769, 0x8825, 0xA005
# Bytes of a value by its type, and of the units that its byte order turns.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNITS = _SIZES | {5: 4, 10: 4}
_BYTES, _LONG = 1, 4
_NAME = b"Exif\0\0"  # which Pillow expects before a block
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_RESOLUTION = {_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT}
_INCH, _PER_INCH = 2, {2: 1, 3: 2.54}  # by the number of a unit, how many make an inch
# Tags of the first directory of a TIFF that concern the layout and the colours of its own pixels.
_LAYOUT = {
    *range(254, 269), *range(273, 285), 288, 289, *range(290, 294), 296, 297, 301, *range(317, 326), 328, 330,
    *range(332, 348), *range(512, 533), 700, 33421, 33422, 34377, 34675, 37724, *range(50706, 51200),
}  # fmt: skip


def read_directory(content, offset, order, big=False):
    """Reads a directory of tags at an offset of a file or block, in byte order "<" or ">", `big` if it is BigTIFF.

    Returns:
        `(tags, next)`: dict from tag to `(type, count, value as bytes)`, without tags whose value lies outside, and
        the offset of the next directory, 0 if there is none.

    Raises:
        ValueError: if the directory does not lie within the content, or its values are larger than that.
    """
    head, entry, pointer = (8, 20, "Q") if big else (2, 12, "I")
    n_tags = _unsigned(content[offset : offset + head], order)
    end = offset + head + n_tags * entry
    if not 0 < offset <= end <= len(content):
        raise ValueError("a directory lies outside")
    tags, left = {}, len(content)
    for at in range(offset + head, end, entry):
        tag, kind, count = struct.unpack_from(f"{order}HH{pointer}", content, at)
        size = _SIZES.get(kind, 0) * count
        inline = at + entry - struct.calcsize(pointer)
        start = inline if size <= struct.calcsize(pointer) else struct.unpack_from(order + pointer, content, inline)[0]
        if size and start + size <= len(content):
            left -= size
            if left < 0:
                raise ValueError("its tags share their values")  # gigabytes, where many tags do
            tags[tag] = kind, count, bytes(content[start : start + size])
    return tags, _unsigned(content[end : end + struct.calcsize(pointer)], order)


def _unsigned(content, order):
    return int.from_bytes(content, "little" if order == "<" else "big")


def integer(entry, order):
    """Returns the first number of a tag as int, also of a digit that is stored as text; None if there is none."""
    kind, _, value = entry
    if kind == 2:
        return int(value[:1]) if value[:1].isdigit() else None
    if kind in (5, 10, 11, 12):
        return None
    return _unsigned(value[: _SIZES[kind]], order)


def numbers(entry, order):
    """Returns the numbers of a tag as a list of float; a quotient by zero is 0."""
    kind, count, value = entry
    if kind in (5, 10):
        parts = struct.unpack(f"{order}{2 * count}{'I' if kind == 5 else 'i'}", value)
        return [above / below if below else 0.0 for above, below in zip(parts[::2], parts[1::2], strict=True)]
    letter = {1: "B", 3: "H", 4: "I", 11: "f", 12: "d"}.get(kind)
    return [float(number) for number in struct.unpack(f"{order}{count}{letter}", value)] if letter else []


def resolution(tags, order):
    """Returns the pixels per inch across and down that tags state, None if they do not.

    Raises ValueError if they are damaged.
    """
    scale = _PER_INCH.get(integer(tags[_RESOLUTION_UNIT], order) if _RESOLUTION_UNIT in tags else _INCH)
    found = [numbers(tags[tag], order)[:1] for tag in (_X_RESOLUTION, _Y_RESOLUTION) if tag in tags]
    if scale is None or not found:
        return None
    dpi = tuple(scale * value for values in found for value in values)
    if len(dpi) != 2 or not all(0 < value < math.inf for value in dpi):
        raise ValueError("it is damaged")
    return dpi


def states_resolution(block, dpi):
    """Returns whether a block of EXIF data, or None, states this resolution."""
    if block is None:
        return False
    try:
        block, order, offset = _split(block)
        found = resolution(read_directory(block, offset, order)[0], order)
    except ValueError:
        return False
    return found is not None and np.allclose(found, dpi, rtol=0.01)


def _split(block):
    """The block without its name, its byte order, and the offset of its first directory."""
    block = block.removeprefix(_NAME)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None or len(block) < 14:
        raise ValueError("it does not begin as EXIF data do")
    return block, order, struct.unpack_from(f"{order}I", block, 4)[0]


def upright_block(block):
    """Takes the orientation and the thumbnail out of a block of EXIF data; all else stays where and as it is.

    Returns:
        `(block, orientation)`: bytes, or None if no tag is left; int, 1 to 8, or None if it is not there.

    Raises:
        ValueError: if it is damaged.
    """
    block, order, offset = _split(block)
    tags, following = read_directory(block, offset, order)
    orientation = (integer(tags[_ORIENTATION], order) or 1) if _ORIENTATION in tags else None
    block = bytearray(block)
    n_tags = struct.unpack_from(f"{order}H", block, offset)[0]
    entries = [bytes(block[at : at + 12]) for at in range(offset + 2, offset + 2 + 12 * n_tags, 12)]
    kept = [entry for entry in entries if struct.unpack(f"{order}H", entry[:2])[0] != _ORIENTATION]
    # The offset of the next directory, that of the thumbnail, follows the last tag.
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    block[offset : offset + 6 + 12 * n_tags] = directory.ljust(6 + 12 * n_tags, b"\0")
    if following:
        _blank_thumbnail(block, following, order)
    return _NAME + bytes(block) if kept else None, orientation if orientation in (*range(1, 9), None) else 1


def _blank_thumbnail(block, offset, order):
    try:
        tags, _ = read_directory(block, offset, order)
        start, length = (integer(tags[tag], order) for tag in (0x0201, 0x0202))
    except (KeyError, ValueError):
        return
    if start is None or length is None:
        return
    if block[start : start + 2] != b"\xff\xd8":
        return
    if start + length >= len(block):
        del block[start:]
    else:
        block[start : start + length] = bytes(length)


def _tree(content, offset, order, big=False, below=(_EXIF, _GPS)):
    """The tags of a directory, with a dict in place of the offset of another directory."""
    tags, _ = read_directory(content, offset, order, big)
    for tag in below:
        if tag in tags:
            try:
                tags[tag] = _tree(content, integer(tags[tag], order) or 0, order, big, (_INTEROPERABILITY,))
            except ValueError:
                del tags[tag]
    return tags


def _written(tags, order, base):
    """The bytes of a directory, and of those below it, that lies at the offset `base`."""
    after, entries = b"", []
    start = base + 6 + 12 * len(tags)
    for tag, value in sorted(tags.items()):
        place = struct.pack(f"{order}I", start + len(after))
        if isinstance(value, dict):
            kind, count, inline = _LONG, 1, place
            after += _written(value, order, start + len(after))
        else:
            kind, count, inline = value
            if len(inline) > 4:
                after += inline + bytes(len(inline) % 2)
                inline = place
        entries.append(struct.pack(f"{order}HHI", tag, kind, count) + inline.ljust(4, b"\0"))
    return struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4) + after


def _turned(tags, order, wanted):
    """The tags with numbers in another byte order."""
    if order == wanted:
        return tags
    turned = {}
    for tag, value in tags.items():
        if isinstance(value, dict):
            turned[tag] = _turned(value, order, wanted)
        else:
            kind, count, content = value
            turned[tag] = kind, count, np.frombuffer(content, f"u{_UNITS[kind]}").byteswap().tobytes()
    return turned


def block_of_tiff(content, offset, order, big):
    """Returns what a directory of a TIFF describes besides its layout as a block of EXIF data, or None."""
    tags = {
        tag: value
        for tag, value in _tree(content, offset, order, big).items()
        if tag not in _LAYOUT | {_ORIENTATION} and (isinstance(value, dict) or value[0] <= 13)
    }
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return header + _written(tags, order, 8) if tags else None


def tiff_with(content, block, more):
    """Returns a TIFF of Pillow's with a block of EXIF data, as `upright_block` returns it, and more tags of bytes.

    `block` may be None, and so may the values of `more`. Raises ValueError if the block is damaged.
    """
    order = "<" if content[:2] == b"II" else ">"
    tags, _ = read_directory(content, struct.unpack_from(f"{order}I", content, 4)[0], order)
    if block:
        block, order_of_block, offset = _split(block)
        missing = _RESOLUTION - tags.keys()
        described = {
            tag: value
            for tag, value in _tree(block, offset, order_of_block).items()
            if tag not in _LAYOUT or tag in missing
        }
        tags |= _turned(described, order_of_block, order)
    tags |= {tag: (_BYTES, len(value), value) for tag, value in more.items() if value}
    content += bytes(len(content) % 2)
    return content[:4] + struct.pack(f"{order}I", len(content)) + content[8:] + _written(tags, order, len(content))
