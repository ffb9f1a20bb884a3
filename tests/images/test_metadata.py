"""Metadata: bytes of texts, colours, what lies behind a photograph, and damage that does not cost the picture."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from conftest import ROOT
from PIL import ExifTags, Image, ImageCms, features

from deblur_gan.api import restore
from deblur_gan.images import photographs
from deblur_gan.images.avif import colour_code_points
from deblur_gan.images.colour import profile_of_chromaticities, profile_of_cicp
from deblur_gan.images.exif import upright_block
from deblur_gan.images.formats import EXTENSIONS
from deblur_gan.images.metadata import OTHER_PICTURE, has_other_pictures, upright
from deblur_gan.images.photographs import (
    BadImage,
    Photograph,
    converted,
    encoded,
    read_photograph,
    write_photograph,
)

CASES = ROOT / "tests" / "cases"
ROWS, COLUMNS = np.mgrid[:48, :40]
PIXELS = np.stack([ROWS * 5, COLUMNS * 6, 90 + 0 * ROWS], axis=-1).astype(np.uint8)
try:
    import pillow_heif
except ImportError:
    HEIF = []
else:
    HEIF = ["HEIF"]
WITH_EXIF = ["JPEG", "PNG", "TIFF", "WEBP", *["AVIF"] * features.check("avif"), *HEIF]
UTF8 = "Jörg Beispiel, 東京".encode()


def block(order="<", orientation=None):
    """EXIF data with texts in UTF-8 in three directories, and the orientation in any type."""
    orientation = orientation or (3, struct.pack(f"{order}H", 6))

    def directory(tags, base):
        start, after, entries = base + 6 + 12 * len(tags), b"", b""
        for tag, kind, count, content in tags:
            inline = content.ljust(4, b"\0")
            if len(content) > 4:
                inline = struct.pack(f"{order}I", start + len(after))
                after += content + bytes(len(content) % 2)
            entries += struct.pack(f"{order}HHI", tag, kind, count) + inline
        return struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + after

    def number(value):
        return struct.pack(f"{order}I", value)

    text = UTF8 + b"\0"
    tags = [(0x010E, 2, len(text), text), (0x0112, orientation[0], 1, orientation[1]), (0x013B, 2, len(text), text)]
    tags += [(0x8298, 2, len(text), text), (0x8769, 4, 1, number(0)), (0x8825, 4, 1, number(0))]
    first = directory(tags, 8)
    below = directory([(0x829A, 5, 1, number(1) + number(250)), (0x9286, 7, len(text), text)], 8 + len(first))
    place = directory([(0x001B, 7, len(text), text)], 8 + len(first) + len(below))
    tags[4:] = [(0x8769, 4, 1, number(8 + len(first))), (0x8825, 4, 1, number(8 + len(first) + len(below)))]
    header = (b"II*\0" if order == "<" else b"MM\0*") + number(8)
    return header + directory(tags, 8) + below + place


def image_file(file_format, exif=None, xmp=None):
    if exif and file_format == "AVIF":
        exif = upright_block(exif)[0][6:]  # Pillow would write other texts
    metadata = {key: value for key, value in {"exif": exif and b"Exif\0\0" + exif, "xmp": xmp}.items() if value}
    return encoded(Photograph(PIXELS, format=file_format, metadata=metadata))


def raw_exif(content, file_format):
    """The texts of the directories of a file, as a reader of bytes finds them."""
    exif = Image.Exif()
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        exif = image.getexif()
        found = [exif.get(0x010E), exif.get(0x013B), exif.get(0x8298)]
        found += [exif.get_ifd(0x8769).get(0x9286), exif.get_ifd(0x8825).get(0x001B)]
        exposure = exif.get_ifd(0x8769).get(0x829A)
    texts = [text.encode("latin-1") if isinstance(text, str) else text.rstrip(b"\0") for text in found]
    return texts, exposure


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("file_format", WITH_EXIF)
@pytest.mark.parametrize("target", WITH_EXIF)
def test_bytes_of_texts_come_over_in_all_directories(file_format, target, order):
    photograph = converted(read_photograph(image_file(file_format, block(order))), target)
    assert [note for note in photograph.notes if "EXIF" in note] == []
    texts, exposure = raw_exif(encoded(photograph), target)
    assert texts == [UTF8] * 5 and exposure == 1 / 250
    again = read_photograph(encoded(photograph))
    assert raw_exif(encoded(again), target)[0] == [UTF8] * 5, "and once more"


def test_a_resolution_in_exif_data_alone_comes_into_a_tiff():
    exif = Image.Exif()
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 240.0
    exif[ExifTags.Base.ResolutionUnit] = 2
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "WEBP", exif=exif)
    copy = read_photograph(encoded(converted(read_photograph(file.getvalue()), "TIFF")))
    assert copy.metadata["dpi"] == (240, 240)


@pytest.mark.parametrize(
    "stored",
    [(1, b"\6"), (2, b"6\0"), (3, b"\6\0"), (4, b"\6\0\0\0"), (6, b"\6"), (7, b"\6"), (8, b"\6\0"), (9, b"\6\0\0\0")],
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_orientation_of_any_type_is_applied_once(file_format, stored):
    content = image_file("PNG" if file_format == "TIFF" else file_format, block(orientation=stored))
    if file_format == "TIFF":
        code = {1: 1, 2: 2, 3: 3, 4: 4, 6: 6, 7: 7, 8: 8, 9: 9}[stored[0]]
        file = io.BytesIO()
        count = 2 if code == 2 else 1
        tifffile.imwrite(file, PIXELS, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
        data = bytearray(file.getvalue())
        at = data.index(struct.pack("<HHI", 274, 3, 1))
        data[at : at + 12] = struct.pack("<HHI", 274, code, count) + stored[1].ljust(4, b"\0")
        content = bytes(data)
    photograph = read_photograph(content)
    assert photograph.pixels.shape == (40, 48, 3)
    np.testing.assert_allclose(photograph.pixels, np.rot90(PIXELS, -1), atol=16)
    assert read_photograph(encoded(photograph)).pixels.shape == (40, 48, 3)


def test_the_thumbnail_goes_and_all_else_stays_where_it_is():
    exif = Image.Exif()
    exif[ExifTags.Base.Model], exif[ExifTags.Base.Orientation] = "a camera", 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"offsets of its own"
    raw = bytearray(exif.tobytes()[6:])
    n_tags = struct.unpack_from("<H", raw, 8)[0] if raw[:2] == b"II" else struct.unpack_from(">H", raw, 8)[0]
    order, thumbnail = "<" if raw[:2] == b"II" else ">", b"\xff\xd8\xff the blurred picture \xff\xd9"
    at = len(raw)
    struct.pack_into(f"{order}I", raw, 10 + 12 * n_tags, at)
    raw += struct.pack(f"{order}HHHIIHHIII", 2, 513, 4, 1, at + 30, 514, 4, 1, len(thumbnail), 0) + thumbnail
    upright, orientation = upright_block(bytes(raw))
    assert orientation == 6 and thumbnail not in upright and len(upright) - 6 <= len(raw)
    assert upright[6:].index(b"offsets of its own") == raw.index(b"offsets of its own")
    found = Image.Exif()
    found.load(upright)
    assert found[ExifTags.Base.Model] == "a camera" and ExifTags.Base.Orientation not in found


# ---- XMP


def xmp(inside, prefix="GCamera", camera="http://ns.google.com/photos/1.0/camera/"):
    spaces = f'xmlns:{prefix}="{camera}" xmlns:Box="http://ns.google.com/photos/1.0/container/" xmlns:xmp="x"'
    return f'<x:xmpmeta><rdf:Description {spaces} xmp:Rating="5" {inside}</rdf:Description></x:xmpmeta>'.encode()


@pytest.mark.parametrize("prefix", ["GCamera", "Camera", "g-1"])
@pytest.mark.parametrize("file_format", WITH_EXIF)
def test_of_xmp_only_what_names_a_film_is_taken_out(file_format, prefix):
    inside = (
        f"{prefix}:MicroVideo=\"1\" {prefix}:MicroVideoOffset='4000'><{prefix}:MotionPhoto>1</{prefix}:MotionPhoto>"
        "<Box:Directory><rdf:Seq><Box:Item/></rdf:Seq></Box:Directory><dc:subject>family</dc:subject>"
    )
    photograph = read_photograph(image_file(file_format, xmp=xmp(inside, prefix)))
    assert photograph.notes == [OTHER_PICTURE]
    found = read_photograph(encoded(photograph)).metadata["xmp"]
    assert b"MicroVideo" not in found and b"MotionPhoto" not in found and b"Directory" not in found
    assert b'xmp:Rating="5"' in found and b"<dc:subject>family</dc:subject>" in found


def test_the_same_names_of_others_stay():
    inside = 'Other:MotionPhoto="1"><Other:Directory/>'
    photograph = read_photograph(image_file("JPEG", xmp=xmp(inside)))
    assert not photograph.notes and b"Other:MotionPhoto" in photograph.metadata["xmp"]
    assert b"<Other:Directory/>" in photograph.metadata["xmp"]


@pytest.mark.parametrize("name", ["MVIMG_microvideo.jpg", "motion_photo_with_keywords.jpg"])
def test_motion_photographs_keep_keywords_and_rating(name):
    photograph = read_photograph(CASES / name)
    found = photograph.metadata["xmp"]
    assert photograph.notes == [OTHER_PICTURE] and b"MicroVideo" not in found and b"MotionPhoto" not in found
    if "keywords" in name:
        assert b"Rating" in found and b"family" in found


@pytest.mark.parametrize(
    "hostile",
    [
        b"<tiff:Orientation " * 60_000,
        b"<tiff:Orientation>" + b"Orientation" * 20_000 + b"</tiff:Orientation>",
        b"".join(b'<a xmlns:p%d="http://ns.adobe.com/tiff/1.0/" p%d:x="1"/>' % (n, n) for n in range(20_000)),
        b"<tiff:Orientation" + b"a" * 400_000,
        b" tiff:Orientation=\"  tiff:Orientation='" * 20_000,
        b"xmlns:a " * 20_000 + b" " * 200_000 + b"tiff:Orientation",
    ],
    ids=["open", "word", "prefixes", "long", "quotes", "spaces"],
)
def test_xmp_takes_time_by_its_length(hostile):
    """Some 500 kB, which an image holds in a few kB: ten seconds and more if the time grew with the square."""
    start = time.process_time()
    upright({"xmp": hostile}, [])
    assert time.process_time() - start < 5


def test_xmp_that_is_not_closed_takes_no_time():
    hostile = b"<GCamera:MotionPhoto>" * 20_000
    photograph = read_photograph(image_file("PNG", xmp=hostile))
    assert photograph.metadata["xmp"] == hostile


# ---- colours


def through(profile, colour):
    """A colour of a profile in sRGB."""
    srgb = ImageCms.createProfile("sRGB")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = Image.new("RGB", (1, 1), colour)
    return np.asarray(ImageCms.profileToProfile(image, source, srgb, outputMode="RGB"))[0, 0].astype(int)


# From light in other primaries to light in those of sRGB: CSS Color 4, section 18.
P3_TO_SRGB = [[1.224940, -0.224940, 0], [-0.042057, 1.042057, 0], [-0.019638, -0.078636, 1.098274]]
REC2020_TO_SRGB = [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
ADOBE_TO_SRGB = [[1.398356, -0.398356, 0], [0, 1, 0], [0, -0.042930, 1.042930]]


def in_srgb(colour, matrix=None, gamma=None):
    """A colour of other primaries, of the curve of sRGB or of a power, in sRGB."""
    values = np.array(colour) / 255
    light = values**gamma if gamma else np.where(values < 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = np.clip((np.eye(3) if matrix is None else np.array(matrix)) @ light, 0, 1)
    return 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


IN_SRGB = in_srgb((200, 100, 50), P3_TO_SRGB)


@pytest.mark.parametrize(
    ("primaries", "transfer", "colour", "matrix", "gamma"),
    [
        (12, 13, (200, 100, 50), P3_TO_SRGB, None),
        (12, 13, (128, 128, 128), P3_TO_SRGB, None),
        (9, 13, (100, 150, 120), REC2020_TO_SRGB, None),
        (1, 8, (55, 55, 55), None, 1),
        (1, 4, (128, 90, 40), None, 2.2),
        (12, 5, (128, 90, 60), P3_TO_SRGB, 2.8),
    ],
)
def test_a_profile_says_what_code_points_say(primaries, transfer, colour, matrix, gamma):
    expected = in_srgb(colour, matrix, gamma)
    assert np.abs(through(profile_of_cicp(primaries, transfer), colour) - expected).max() <= 2


@pytest.mark.parametrize("code_points", [(1, 13), (2, 2), (1, 1), (1, 6), (0, 0), (2, 13)])
def test_srgb_and_what_is_not_said_need_no_profile(code_points):
    assert profile_of_cicp(*code_points) is None


def test_chromaticities_of_adobe_rgb():
    adobe = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    expected = in_srgb((150, 170, 100), ADOBE_TO_SRGB, 1.8)
    assert np.abs(through(profile_of_chromaticities(adobe, 1.8), (150, 170, 100)) - expected).max() <= 2
    assert profile_of_chromaticities((0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), 1 / 0.45455) is None
    assert profile_of_chromaticities((0,) * 8) is None


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks, at=33):
    content = image_file("PNG")
    return content[:at] + b"".join(chunks) + content[at:]


P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


@pytest.mark.parametrize(
    ("content", "colour"),
    [
        (png_with(chunk(b"cICP", bytes([12, 13, 0, 1]))), IN_SRGB),
        (png_with(chunk(b"cHRM", P3), chunk(b"gAMA", struct.pack(">I", 45455))), IN_SRGB),
        (png_with(chunk(b"gAMA", struct.pack(">I", 100_000))), None),
        ((CASES / "display_p3_nclx.avif").read_bytes(), IN_SRGB),
    ],
    ids=["cICP", "cHRM", "gAMA", "nclx"],
)
@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_colours_that_are_described_without_a_profile_are_kept(content, colour, target):
    if not features.check("avif") and (target == "AVIF" or content[4:8] == b"ftyp"):
        pytest.skip("this Pillow has no AVIF")
    copy = encoded(converted(read_photograph(content), target))
    profile = Image.open(io.BytesIO(copy)).info["icc_profile"]
    if colour is not None:
        assert np.abs(through(profile, (200, 100, 50)) - colour).max() <= 2
    else:
        assert np.abs(through(profile, (55, 55, 55)) - 128).max() <= 2


@pytest.mark.parametrize("kind", [b"cICP", b"cHRM", b"gAMA", b"sRGB"])
def test_chunks_that_describe_colours_are_kept(kind):
    value = {b"cICP": bytes([12, 13, 0, 1]), b"cHRM": P3, b"gAMA": struct.pack(">I", 50_000), b"sRGB": b"\0"}[kind]
    assert chunk(kind, value) in encoded(read_photograph(png_with(chunk(kind, value))))


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused_as_in_videos(transfer, name):
    profile = bytearray(profile_of_cicp(9, 13).ljust(800, b"\0"))
    profile[132:144] = b"cicp" + struct.pack(">II", 780, 12)
    profile[780:792] = b"cicp" + bytes(4) + bytes([9, transfer, 0, 1])
    jpeg = encoded(Photograph(PIXELS, format="JPEG", metadata={"icc_profile": bytes(profile)}))
    for content in (png_with(chunk(b"cICP", bytes([9, transfer, 0, 1]))), jpeg):
        with pytest.raises(BadImage, match=rf"high dynamic range \({name}\) is not read; save it in standard"):
            read_photograph(content)
    if features.check("avif"):
        content = (CASES / "display_p3_nclx.avif").read_bytes()
        assert colour_code_points(content) == (12, 13)
        hdr = content.replace(b"nclx\0\x0c\0\x0d", b"nclx\0\x09\0" + bytes([transfer]))
        with pytest.raises(BadImage, match=name):
            read_photograph(hdr)


def test_a_damaged_box_says_nothing_of_colours():
    content = (CASES / "display_p3_nclx.avif").read_bytes()
    for length in range(0, len(content), 7):
        assert colour_code_points(content[:length]) in (None, (12, 13))


def bmp(kind, after=b"", header=b""):
    """A 24-bit BMP file of one pixel whose header of version 5 ends with `header`; `after` the pixels."""
    plain = struct.pack("<IiiHHIIiiII", 124, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0)
    content = (plain + bytes(16) + kind + header).ljust(124, b"\0") + bytes([50, 100, 200, 0])
    return b"BM" + struct.pack("<IHHI", 14 + len(content) + len(after), 0, 0, 138) + content + after


def embedded(profile, length=None):
    place = bytes(48) + struct.pack("<III", 4, 128, len(profile) if length is None else length)
    return bmp(b"DEBM", profile, place)


DISPLAY_P3 = profile_of_cicp(12, 13)
CORNERS = (0.68, 0.32, 0, 0.265, 0.69, 0.045, 0.15, 0.06, 0.79)
CALIBRATED = struct.pack("<12I", *(round(part * 2**30) for part in CORNERS), *[int(1.8 * 65536)] * 3)


@pytest.mark.parametrize("target", ["BMP", "JPEG", "PNG", "TIFF", "WEBP"])
def test_the_profile_of_a_bmp_is_kept(target):
    copy = encoded(converted(read_photograph(embedded(DISPLAY_P3)), target))
    photograph = read_photograph(copy)
    assert photograph.metadata["icc_profile"] == DISPLAY_P3 and not photograph.notes
    if target == "BMP":
        np.testing.assert_array_equal(photograph.pixels, [[[200, 100, 50]]])
        assert np.asarray(Image.open(io.BytesIO(copy))).tolist() == [[[200, 100, 50]]]


@pytest.mark.parametrize("grey", [False, True])
def test_a_profile_comes_into_a_bmp(grey):
    source = Photograph(PIXELS[..., [0] * 3] if grey else PIXELS, None, grey, "PNG", {"icc_profile": DISPLAY_P3})
    copy = converted(source, "BMP")
    again = read_photograph(encoded(copy))
    assert not copy.notes and again.metadata["icc_profile"] == DISPLAY_P3 and again.grey == grey
    np.testing.assert_array_equal(again.pixels, source.pixels)


def test_the_calibrated_colours_of_a_bmp_become_a_profile():
    profile = read_photograph(bmp(bytes(4), header=CALIBRATED)).metadata["icc_profile"]
    assert np.abs(through(profile, (200, 100, 50)) - in_srgb((200, 100, 50), P3_TO_SRGB, 1.8)).max() <= 2
    for plain in (bmp(bytes(4)), bmp(b"BGRs"), bmp(b" niW")):
        assert "icc_profile" not in read_photograph(plain).metadata


def test_a_profile_of_a_bmp_that_cannot_be_read_is_noted():
    linked = bmp(b"KNIL", b"C:\\profile.icc\0", bytes(48) + struct.pack("<III", 4, 128, 15))
    for content, why in ((linked, "in another file"), (embedded(b"abc", 300), "cut"), (embedded(b"abc", 0), "cut")):
        photograph = read_photograph(content)
        assert len(photograph.notes) == 1 and photograph.notes[0].startswith("its colour profile cannot be kept")
        assert why in photograph.notes[0] and photograph.pixels.shape == (1, 1, 3)


@pytest.mark.parametrize("target", list(EXTENSIONS))
def test_colours_that_came_over_as_a_profile_are_not_noted(target):
    if target not in (*WITH_EXIF, "BMP"):
        pytest.skip("not installed")
    content = png_with(chunk(b"cHRM", P3), chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"sRGB", b"\0"))
    assert not converted(read_photograph(content), target).notes


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_the_described_colours_of_grey_pixels_become_a_profile_of_grey(file_format):
    """A profile of RGB is not allowed there: readers ignore it."""
    if file_format == "PNG":
        file = io.BytesIO()
        Image.fromarray(PIXELS[..., 0]).save(file, "PNG")
        content = file.getvalue()[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + file.getvalue()[33:]
    else:
        primaries = [(318, 5, 2, (3457, 10000, 3585, 10000)), (319, 5, 6, (6, 10, 3, 10, 2, 10, 7, 10, 1, 10, 1, 10))]
        tifffile.imwrite(file := io.BytesIO(), PIXELS[..., 0], photometric="minisblack", extratags=primaries)
        content = file.getvalue()
    photograph = read_photograph(content)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(photograph.metadata["icc_profile"]))
    assert photograph.grey and profile.profile.xcolor_space == "GRAY"
    if file_format == "PNG":
        srgb = ImageCms.createProfile("sRGB")
        shown = ImageCms.profileToProfile(Image.new("L", (1, 1), 55), profile, srgb, outputMode="RGB")
        assert np.abs(np.asarray(shown).astype(int) - 128).max() <= 2


def test_colours_and_channels_of_a_tiff_that_cannot_be_kept_are_noted():
    table = (301, 3, 256, tuple(range(0, 65536, 256)))
    tifffile.imwrite(file := io.BytesIO(), PIXELS, photometric="rgb", extratags=[table])
    assert read_photograph(file.getvalue()).notes == ["its colour description (a table of levels) cannot be kept"]
    five = np.concatenate([PIXELS, PIXELS[..., :2]], axis=-1)
    for kinds, notes in (([2, 0], 1), ([0, 0], 1), ([0, 2], 1)):
        tifffile.imwrite(file := io.BytesIO(), five, photometric="rgb", extrasamples=kinds)
        photograph = read_photograph(file.getvalue())
        assert photograph.notes == ["its further channels cannot be kept"] * notes
        assert (photograph.alpha is not None) == (2 in kinds)
    tifffile.imwrite(file := io.BytesIO(), five[..., :4], photometric="rgb", extrasamples=[2])
    assert not read_photograph(file.getvalue()).notes


CAPTION = b"\x1c\x02\x78\x00\x05Spain"


def rich_jpeg(comment=b"from Spain"):
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", 10) + CAPTION
    extended = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 4, 0) + b"more"
    segments = ((b"\xed", iptc), (b"\xe1", extended))
    extra = b"".join(b"\xff" + mark + struct.pack(">H", len(s) + 2) + s for mark, s in segments)
    Image.fromarray(PIXELS).save(file := io.BytesIO(), "JPEG", extra=extra, comment=comment)
    return file.getvalue()


def test_iptc_data_of_a_jpeg_come_into_a_tiff():
    copy = converted(read_photograph(rich_jpeg()), "TIFF")
    assert copy.notes == ["its comment cannot be kept in TIFF", "its extended XMP data cannot be kept in TIFF"]
    tags = Image.open(io.BytesIO(encoded(copy))).tag_v2
    assert bytes(tags[33723]) == CAPTION and bytes(tags[34377]).startswith(b"8BIM\x04\x04")


@pytest.mark.parametrize("target", ["AVIF", "BMP", "PNG", "WEBP"])
def test_each_loss_is_noted_once(target):
    if target == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    notes = converted(read_photograph(rich_jpeg()), target).notes
    lost = ["comment"] * (target != "PNG") + ["IPTC data", "extended XMP data"]
    assert sorted(notes) == sorted(f"its {what} cannot be kept in {target}" for what in lost)


@pytest.mark.parametrize(("per_inch", "unit", "lost"), [(240, 2, 0), (240 / 2.54, 3, 0), (72, 2, 1), (None, 2, 1)])
def test_a_resolution_that_exif_data_state_is_not_lost(per_inch, unit, lost):
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "a camera"
    if per_inch:
        exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = per_inch
        exif[ExifTags.Base.ResolutionUnit] = unit
    Image.fromarray(PIXELS).save(file := io.BytesIO(), "JPEG", exif=exif, dpi=(240, 240))
    copy = converted(read_photograph(file.getvalue()), "WEBP")
    assert copy.notes == ["its resolution cannot be kept in WEBP"] * lost


@pytest.mark.parametrize("comment", [b"from Spain", UTF8, "Espa\xf1a".encode("latin-1")])
def test_the_comment_of_a_jpeg_is_a_text_of_a_png_and_back(comment):
    png = encoded(converted(read_photograph(rich_jpeg(comment)), "PNG"))
    text = Image.open(io.BytesIO(png)).text["Comment"]
    assert text == (comment.decode("latin-1") if b"\xf1" in comment else comment.decode())
    back = converted(read_photograph(png), "JPEG")
    assert not back.notes and Image.open(io.BytesIO(encoded(back))).info["comment"] == comment
    two = converted(read_photograph(png_with(chunk(b"tEXt", b"Comment\0a"), chunk(b"tEXt", b"Title\0b"))), "JPEG")
    assert two.metadata["comment"] == b"a" and two.notes == ["its texts cannot be kept in JPEG"]


# ---- what cannot be kept costs itself


def test_texts_of_a_png_come_as_they_came_or_are_left_out(tmp_path):
    large, bomb = b"Comment\0" + b"a" * 1_100_000, b"Comment\0\0" + zlib.compress(bytes(2_000_000))
    photograph = read_photograph(png_with(chunk(b"tEXt", large), chunk(b"zTXt", bomb)))
    assert len(photograph.notes) == 1 and photograph.notes[0].startswith("its text cannot be kept (it holds more than")
    write_photograph(tmp_path / "a.png", photograph)
    assert chunk(b"tEXt", large) in (tmp_path / "a.png").read_bytes()
    assert Image.open(tmp_path / "a.png").text["Comment"] == "a" * 1_100_000
    assert not read_photograph(tmp_path / "a.png").notes
    profile = b"name\0\0" + zlib.compress(bytes(2_000_000))
    for damaged, words in ((chunk(b"iCCP", profile), "colour profile"), (chunk(b"iTXt", b"a"), "text")):
        assert read_photograph(png_with(damaged)).notes[0].startswith(f"its {words} cannot be kept")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (b"pHYs", "resolution"), (b"gAMA", "colour description"), (b"cHRM", "colour description"), (b"tEXt", "text"),
        (b"eXIf", "EXIF data"), (b"iCCP", "colour profile"), (b"tRNS", "transparency"), (b"zTXt", "text"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("after_pixels", [False, True])
def test_a_wrong_checksum_costs_a_chunk_not_the_picture(kind, words, after_pixels):
    damaged = bytearray(chunk(kind, bytes(9)))
    damaged[-1] ^= 1
    at = len(image_file("PNG")) - 12 if after_pixels else 33
    photograph = read_photograph(png_with(bytes(damaged), at=at))
    np.testing.assert_array_equal(photograph.pixels, PIXELS)
    assert photograph.notes == [f"its {words} cannot be kept (a wrong checksum)"] and photograph.alpha is None


@pytest.mark.parametrize("key", ["exif", "xmp"])
def test_what_another_format_refuses_is_left_out(key):
    rich = {"exif": b"Exif\0\0" + block() + bytes(66_000), "xmp": b"<x:xmpmeta>" + b" " * 66_000 + b"</x:xmpmeta>"}
    photograph = read_photograph(encoded(Photograph(PIXELS, metadata={key: rich[key], "dpi": (300, 300)})))
    copy = converted(photograph, "JPEG")
    assert len(copy.notes) == 1 and f"its {key.upper()} data cannot be kept" in copy.notes[0]
    assert round(read_photograph(encoded(copy)).metadata["dpi"][0]) == 300


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("target", list(EXTENSIONS))
def test_a_jpeg_with_its_resolution_in_exif_data_alone_becomes_every_format(target, unit):
    """As cameras write them: without a JFIF segment, or with one without a unit."""
    if target not in (*WITH_EXIF, "BMP"):
        pytest.skip("not installed")
    exif = Image.Exif()
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 240.0
    exif[ExifTags.Base.ResolutionUnit] = 2
    Image.fromarray(PIXELS).save(file := io.BytesIO(), "JPEG", exif=exif)
    content, length = file.getvalue(), int.from_bytes(file.getvalue()[4:6], "big")
    assert content[6:10] == b"JFIF" and content[13] == 0
    copy = converted(read_photograph(content if unit else content[:2] + content[4 + length :]), target)
    assert [note for note in copy.notes if "resolution" in note] == []
    again = read_photograph(encoded(copy))
    if "dpi" in again.metadata:
        np.testing.assert_allclose(again.metadata["dpi"], 240, rtol=0.001)


def test_the_tables_of_a_jpeg_keep_their_numbers():
    """A file may define the one of chroma first."""
    Image.fromarray(PIXELS).save(file := io.BytesIO(), "JPEG", quality=50)
    content = file.getvalue()
    start = content.index(b"\xff\xdb")
    ends = [start]
    for _ in range(2):
        ends.append(ends[-1] + 2 + int.from_bytes(content[ends[-1] + 2 : ends[-1] + 4], "big"))
    exchanged = content[:start] + content[ends[1] : ends[2]] + content[start : ends[1]] + content[ends[2] :]
    tables = []
    for each in (content, exchanged):
        with Image.open(io.BytesIO(encoded(read_photograph(each)))) as image:
            tables.append(image.quantization)
    assert tables[0] == tables[1] and tables[0][0] != tables[0][1]


@pytest.mark.parametrize("kind", [1, 2, 7, 12])
def test_a_resolution_of_another_type_does_not_cost_a_jpeg(kind):
    entries = struct.pack("<HHI4sHHI4s", 0x011A, kind, 1, b"", 0x0128, 3, 1, b"\2\0")
    exif = b"Exif\0\0II*\0\x08\0\0\0\2\0" + entries + bytes(4)
    Image.fromarray(PIXELS).save(file := io.BytesIO(), "JPEG", exif=exif)
    content, length = file.getvalue(), int.from_bytes(file.getvalue()[4:6], "big")
    photograph = read_photograph(content[:2] + content[4 + length :])
    np.testing.assert_allclose(photograph.pixels, PIXELS, atol=16)
    assert read_photograph(encoded(photograph)).pixels.shape == PIXELS.shape


@pytest.mark.parametrize("file_format", WITH_EXIF)
@pytest.mark.parametrize("kind", [2, 5, 7, 12])
def test_the_tags_of_a_thumbnail_of_another_type_do_not_cost_the_picture(file_format, kind):
    first = struct.pack("<HHHI4sI", 1, 0x010F, 2, 4, b"abc\0", 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, kind, 1, 8, 0x0202, 4, 1, 10, 0)
    content = image_file(file_format, b"II*\0\x08\0\0\0" + first + second + bytes(40))
    np.testing.assert_allclose(read_photograph(content).pixels, PIXELS, atol=16)


@pytest.mark.parametrize("target", list(EXTENSIONS))
def test_a_resolution_of_another_type_costs_itself_in_every_format(target):
    if target not in (*WITH_EXIF, "BMP"):
        pytest.skip("not installed")
    copy = converted(read_photograph(CASES / "tiff_resolution_is_bytes.tif"), target)
    assert "its resolution cannot be kept (it is damaged)" in copy.notes
    assert read_photograph(encoded(copy)).pixels.shape == copy.pixels.shape


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole(mode, progressive):
    file, image = io.BytesIO(), Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8))
    image.convert(mode).save(file, "JPEG", progressive=progressive)
    whole = file.getvalue()
    photograph = read_photograph(whole[:-2])
    assert photograph.notes == ["its end marker was missing"]
    np.testing.assert_array_equal(photograph.pixels, read_photograph(whole).pixels)
    for cut in (4, 5, 10, 20, 60, 200):
        with pytest.raises(BadImage, match="truncated"):
            read_photograph(whole[:-cut])


# ---- names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a", "not an image that can be read: it is GIF; save it as JPEG, PNG or TIFF first"),
        (b"8BPS\0\1", "it is Photoshop"),
        (b"\0\0\0\x0cJXL \x0d\x0a", "it is JPEG XL"),
        (b"\0\0\0\x0cjP  ", "it is JPEG 2000"),
        (b"P6\n1 1\n255\n", "it is a Netpbm picture"),
        (b"FUJIFILMCCD-RAW", "a camera's raw file; develop it to JPEG, PNG or TIFF first"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "develop it"),
        (b"II*\0\x10\0\0\0CR\2\0", "develop it"),
        (b"\0\0\0\x14ftypisom\0\0\0\0mp42", "it is a video"),
        (b"\0\0\0\x14ftypheic\0\0\0\0mif1", "HEIC cannot be read; install it: pip install pillow-heif"),
    ],
)
def test_what_is_not_read_is_named(content, message, monkeypatch):
    monkeypatch.setattr("deblur_gan.images.formats._INSTALLED", {"HEIF": False})
    with pytest.raises(BadImage) as caught:
        read_photograph(content.ljust(600, b"\0"), "a.jpg")
    assert message in str(caught.value)


# ---- PIL images keep what fits


def test_what_comes_back_from_a_pil_image_fits_its_pixels():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(PIXELS), srgb, lab, outputMode="LAB")
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(lab).tobytes()
    profile = restore(image, strength=0).info["icc_profile"]
    assert ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space == "RGB "
    inks = Image.fromarray(PIXELS).convert("CMYK")
    inks.info |= {"icc_profile": b"no profile", "dpi": (72, 72)}
    assert restore(inks, strength=0).info == {"dpi": (72, 72)}
    for mode, key in (("L", 100), ("RGB", (5, 12, 90))):
        image = Image.fromarray(PIXELS).convert(mode)
        image.info["transparency"] = key
        restored = restore(image, strength=0)
        assert "transparency" not in restored.info and restored.mode == {"L": "LA", "RGB": "RGBA"}[mode]
        restored.convert("RGB")


@pytest.mark.skipif(not HEIF, reason="pillow-heif is not installed")
@pytest.mark.parametrize("key", ["aux", "depth_images"])
def test_a_gain_map_or_a_depth_map_of_a_heic_is_noted(key, monkeypatch):
    def with_another_picture(file, name):
        image = pillow_heif.HeifImageFile(file, name)
        image.info[key] = {"urn:com:apple:photo:2020:aux:hdrgainmap": [2]}
        return image

    content = image_file("HEIF")
    assert not read_photograph(content).notes
    monkeypatch.setitem(photographs._OPENERS, "HEIF", with_another_picture)
    assert read_photograph(content).notes == [OTHER_PICTURE]


def test_a_film_or_gain_map_that_xmp_data_do_not_describe_is_noted():
    jpeg = image_file("JPEG")
    assert read_photograph(jpeg + b"MotionPhoto_Data\0\0\0\x18ftypmp42").notes == [OTHER_PICTURE]
    assert read_photograph(jpeg + b"other data").notes == []
    brands = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1"
    assert has_other_pictures(Image.new("RGB", (1, 1)), brands + b"tmap" + bytes(40))
    assert not has_other_pictures(Image.new("RGB", (1, 1)), brands + b"miaf" + b"tmap")
