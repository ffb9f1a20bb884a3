"""AVIF boxes: the code points of the colours, which Pillow leaves out.

Source: ISO/IEC 14496-12 (boxes), 23008-12 (items and their properties).
"""

import struct

_LONGEST_META = 16_000_000  # bytes; what comes before the pictures


def colour_code_points(content):
    """Returns the code points of the colours of the main picture of a file, `(primaries, transfer)` of H.273.

    The result is None if the file does not state them, or is damaged.
    """
    try:
        return _colour_code_points(content[:_LONGEST_META])
    except (IndexError, KeyError, struct.error):
        return None


def _boxes(content):
    """Yields `(kind, content)` of each box."""
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", content, at + 8)[0], 16
        elif size == 0:
            size = len(content) - at
        if size < head:
            return
        yield kind, content[at + head : at + size]
        at += size


def _colour_code_points(content):
    meta = dict(_boxes(dict(_boxes(content))[b"meta"][4:]))
    main = int.from_bytes(meta[b"pitm"][4:], "big")
    properties = dict(_boxes(meta[b"iprp"]))
    listed, associated = [*_boxes(properties[b"ipco"])], properties[b"ipma"]
    version, large, (n_items,) = associated[0], associated[3] & 1, struct.unpack_from(">I", associated, 4)
    at = 8
    for _ in range(n_items):
        item = int.from_bytes(associated[at : at + (4 if version else 2)], "big")
        at += 4 if version else 2
        n_properties, at = associated[at], at + 1
        for _ in range(n_properties):
            index = struct.unpack_from(">H", associated, at)[0] & 0x7FFF if large else associated[at] & 0x7F
            at += 2 if large else 1
            if item == main and 0 < index <= len(listed):
                kind, value = listed[index - 1]
                if kind == b"colr" and value[:4] == b"nclx":
                    return struct.unpack_from(">HH", value, 4)
    return None
