"""Colours: profiles made of code points and chromaticities, and conversion through the profile of a file.

Sources: ITU-T H.273 (code points), ICC.1:2022 (profiles), Bradford adaptation as in Lindbloom's notes.
"""

import io
import struct

import numpy as np
from PIL import ImageCms

from deblur_gan.images.formats import NotRead

D65, _C = (0.3127, 0.3290), (0.310, 0.316)
# White, red, green and blue as x, y: tables 2 and 3 of H.273.
SRGB = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {
    1: SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
# Curves as an ICC profile holds them: the type of function, and its parameters g, a, b, c, d.
_SRGB_CURVE = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO_CURVE = (3, 1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES = {4: (0, 2.2), 5: (0, 2.8), 8: (0, 1.0), 13: _SRGB_CURVE, 17: (0, 2.6)}
_CURVES |= dict.fromkeys((1, 6, 11, 12, 14, 15), _VIDEO_CURVE)
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
HDR = {16: "PQ", 18: "HLG"}  # transfer functions of high dynamic range


def transfer_of_profile(profile):
    """Returns the code point of the transfer function that an ICC profile names, None if it names none."""
    profile = profile or b""
    n_tags = int.from_bytes(profile[128:132], "big")
    for at in range(132, min(132 + 12 * n_tags, len(profile) - 11), 12):
        if profile[at : at + 4] == b"cicp":
            start = int.from_bytes(profile[at + 4 : at + 8], "big")
            return int.from_bytes(profile[start + 9 : start + 10], "big")
    return None


def refuse_hdr(transfer):
    """Raises NotRead if the code point of a transfer function, or None, is of high dynamic range."""
    if transfer in HDR:
        raise NotRead(f"high dynamic range ({HDR[transfer]}) is not read; save it in standard dynamic range first")


def profile_of_cicp(primaries, transfer, grey=False):
    """Returns the ICC profile of two code points of H.273, for RGB or for grey pixels.

    It is None for sRGB, for the colours of video, which are shown as sRGB, and for unspecified ones. Raises NotRead for
    high dynamic range.
    """
    refuse_hdr(transfer)
    corners, curve = _PRIMARIES.get(primaries, SRGB), _CURVES.get(transfer, _SRGB_CURVE)
    return None if corners == SRGB and curve in (_SRGB_CURVE, _VIDEO_CURVE) else _profile(corners, curve, grey)


def profile_of_chromaticities(corners, gamma=None, grey=False):
    """Returns the ICC profile of chromaticities: x and y of white, red, green and blue.

    `gamma` is the exponent from values to light, such as 2.2; None is the curve of sRGB. The result is None for sRGB,
    and for chromaticities that no display has.
    """
    curve = _SRGB_CURVE if gamma is None or abs(gamma - 2.2) < 0.02 else (0, gamma)
    if curve == _SRGB_CURVE and np.allclose(corners, SRGB, atol=0.002):
        return None
    if not (np.isfinite(corners).all() and min(corners[1::2]) > 0 and 0.1 < curve[1] < 10):
        return None
    try:
        return _profile(corners, curve, grey)
    except (np.linalg.LinAlgError, struct.error):
        return None


def _profile(corners, curve, grey):
    """A profile of version 4: a matrix and a curve, or for grey pixels the curve."""
    white, *primaries = [
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(corners[::2], corners[1::2], strict=True)
    ]
    primaries = np.stack(primaries, axis=1)
    columns = primaries * np.linalg.solve(primaries, white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD
    columns = adapted @ columns

    def fixed(kind, values):
        return kind + bytes(4) + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in np.ravel(values))

    def text(words):
        encoded = words.encode("utf-16-be")
        return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(encoded), 28) + encoded

    curve = b"para\0\0\0\0" + struct.pack(">HH", curve[0], 0) + fixed(b"", curve[1:])[4:]
    tags = {b"desc": text("As the file said"), b"cprt": text("None"), b"wtpt": fixed(b"XYZ ", _D50)}
    tags[b"chad"] = fixed(b"sf32", adapted)
    if grey:
        tags[b"kTRC"] = curve
    else:
        tags |= {letter + b"TRC": curve for letter in (b"r", b"g", b"b")}
        tags |= {
            letter + b"XYZ": fixed(b"XYZ ", column)
            for letter, column in zip((b"r", b"g", b"b"), columns.T, strict=True)
        }
    content, table, start = b"", b"", 128 + 4 + 12 * len(tags)
    for kind, value in tags.items():
        table += kind + struct.pack(">II", start + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    kind = b"\x04\x30\0\0mntr" + (b"GRAY" if grey else b"RGB ") + b"XYZ "
    header = struct.pack(">I", start + len(content)) + bytes(4) + kind + struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    header = (header + b"acsp").ljust(68, b"\0") + fixed(b"", _D50)[4:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def to_rgb(image, profile):
    """Converts Pillow's image of mode CMYK or LAB to RGB, CMYK through its profile.

    Returns the image and its new profile: that of sRGB, or None for CMYK without a profile. Raises ValueError if the
    profile cannot be used.
    """
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    if image.mode == "LAB":
        return image.convert("RGB"), srgb.tobytes()
    if profile is None:
        return image.convert("RGB"), None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB"), srgb.tobytes()
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(str(error)) from None
