import errno
import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from conftest import ROOT
from PIL import ExifTags, Image, ImageCms, features
from PIL.PngImagePlugin import PngInfo

from deblur_gan.images.formats import PICTURE_EXTENSIONS
from deblur_gan.images.metadata import OTHER_PICTURE
from deblur_gan.images.photographs import (
    MAX_PIXELS,
    BadImage,
    find_images,
    read_photograph,
    read_rgb,
    write_photograph,
)
from deblur_gan.images.pixels import from_uint8, to_uint8

HOSTILE = ROOT / "tests" / "hostile"
EXTENSIONS = ["bmp", "jpg", "png", "tif", "webp"] + ["avif"] * features.check("avif")
# Every way in which a file may hold its pixels, as far as its format has it.
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "LAB", "I;16"]


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width, channels=3):
    """Colours that a lossy file keeps within a few levels."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // max(height - 1, 1), columns * 255 // max(width - 1, 1), 128 + 0 * rows, 200 - 0 * rows]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def png_16_bit_rgb(path, values):
    """A PNG of 16-bit RGB, which Pillow reads but does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    png(path, values.shape[1], values.shape[0], 16, rows)


def png(path, width, height, depth, rows):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def copied(path):
    """A copy as restoring makes it, but for the pixels, opened by Pillow."""
    copy = path.with_stem("copy")
    write_photograph(copy, read_photograph(path))
    return Image.open(copy)


# ---- value ranges


def test_every_uint8_survives_the_way_into_a_network_and_back():
    values = np.arange(256, dtype=np.uint8)
    inside = from_uint8(values)
    assert inside.dtype == np.float32 and inside[0] == -1 and inside[255] == 1
    np.testing.assert_array_equal(to_uint8(inside), values)


def test_leaving_is_clipped_and_rounded_to_nearest():
    step = 2 / 255
    np.testing.assert_array_equal(to_uint8([-9, 9, -1 + 0.49 * step, -1 + 0.51 * step]), [0, 255, 0, 1])


# ---- reading


@pytest.mark.parametrize("name", ["a.png", "A.PNG", "a.bmp", "a.Tif", "a.TIFF"])
def test_lossless_formats_give_their_pixels(tmp_path, name):
    pixels = noise(5, 7, 3)
    Image.fromarray(pixels).save(tmp_path / name)
    photograph = read_photograph(tmp_path / name)
    np.testing.assert_array_equal(photograph.pixels, pixels)
    assert photograph.alpha is None and not photograph.grey


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jfif", "a.webp", "a.avif"])
def test_lossy_formats_give_nearly_their_pixels(tmp_path, name):
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    pixels = smooth(40, 48)
    Image.fromarray(pixels).save(tmp_path / name, quality=95)
    assert np.abs(read_rgb(tmp_path / name).astype(int) - pixels).max() <= 8


def test_grey_stays_grey(tmp_path):
    grey = noise(5, 7)
    Image.fromarray(grey).save(tmp_path / "a.png")
    photograph = read_photograph(tmp_path / "a.png")
    np.testing.assert_array_equal(photograph.pixels, np.repeat(grey[..., None], 3, axis=2))
    write_photograph(tmp_path / "b.png", photograph)
    copy = Image.open(tmp_path / "b.png")
    assert copy.mode == "L"
    np.testing.assert_array_equal(np.asarray(copy), grey)


def test_black_and_white_of_one_bit(tmp_path):
    Image.fromarray(noise(5, 9) > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png")[..., 0], 255 * (noise(5, 9) > 127))


@pytest.mark.parametrize("extension", ["png", "tif", "webp"])
def test_alpha_is_kept(tmp_path, extension):
    pixels = np.concatenate([noise(6, 8, 3), noise(6, 8, 1)], axis=-1)
    options = {"lossless": True, "exact": True} if extension == "webp" else {}
    Image.fromarray(pixels).save(tmp_path / f"a.{extension}", **options)
    photograph = read_photograph(tmp_path / f"a.{extension}")
    np.testing.assert_array_equal(photograph.pixels, pixels[..., :3])
    np.testing.assert_array_equal(photograph.alpha, pixels[..., 3])
    write_photograph(tmp_path / f"b.{extension}", photograph)
    copy = np.asarray(Image.open(tmp_path / f"b.{extension}"))
    np.testing.assert_array_equal(copy[..., 3], pixels[..., 3])


def test_grey_with_alpha(tmp_path):
    pixels = noise(6, 8, 2)
    Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    photograph = read_photograph(tmp_path / "a.png")
    write_photograph(tmp_path / "b.png", photograph)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), pixels)


def test_palette_and_its_transparent_colour(tmp_path):
    image = Image.fromarray(noise(6, 8) % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])[noise(6, 8) % 3]
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=1)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), colours)
    photograph = read_photograph(tmp_path / "b.png")
    np.testing.assert_array_equal(photograph.pixels, colours)
    np.testing.assert_array_equal(photograph.alpha, np.where(noise(6, 8) % 3 == 1, 0, 255))


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    grey, colour = noise(6, 8), noise(6, 8, 3)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey.tif")
    png_16_bit_rgb(tmp_path / "colour.png", colour.astype(np.uint16) * 257)
    tifffile.imwrite(tmp_path / "colour.tif", colour.astype(np.uint16) * 257, photometric="rgb")
    for extension in ("png", "tif"):
        photograph = read_photograph(tmp_path / f"grey.{extension}")
        assert photograph.grey
        np.testing.assert_array_equal(photograph.pixels[..., 0], grey)
        np.testing.assert_array_equal(read_rgb(tmp_path / f"colour.{extension}"), colour)


def test_sixteen_bits_become_the_nearest_of_eight(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png")[..., 0], np.rint(values / 257))


def test_cmyk_comes_back_as_rgb(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[:4, :, 0], ink[4:, :, 3] = 255, 255  # cyan above, black below
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif")
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=100)
    for name in ("a.tif", "a.jpg"):
        photograph = read_photograph(tmp_path / name)
        np.testing.assert_allclose(photograph.pixels[0, 0], [0, 255, 255], atol=2)
        np.testing.assert_allclose(photograph.pixels[7, 0], [0, 0, 0], atol=2)
        write_photograph(tmp_path / f"out_{name}", photograph)
        assert Image.open(tmp_path / f"out_{name}").mode == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
def test_exif_rotation_is_applied_once(tmp_path, orientation, extension):
    turn = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    upright = smooth(24, 40)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Model] = "a camera"
    stored = Image.fromarray(np.ascontiguousarray(turn[orientation](upright)))
    stored.save(tmp_path / f"a.{extension}", exif=exif, quality=95)
    photograph = read_photograph(tmp_path / f"a.{extension}")
    assert photograph.pixels.shape == upright.shape
    assert np.abs(photograph.pixels.astype(int) - upright).max() <= 12

    write_photograph(tmp_path / f"b.{extension}", photograph)
    copy = Image.open(tmp_path / f"b.{extension}")
    assert copy.getexif().get(ExifTags.Base.Model) == "a camera"
    assert copy.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert np.abs(read_rgb(tmp_path / f"b.{extension}").astype(int) - upright).max() <= 16


@pytest.mark.parametrize("extension", ["jpg", "png", "tif", "webp"])
def test_profile_is_kept_and_pixels_are_left_in_it(tmp_path, extension):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    pixels = smooth(24, 40)
    Image.fromarray(pixels).save(tmp_path / f"a.{extension}", icc_profile=profile, quality=95)
    photograph = read_photograph(tmp_path / f"a.{extension}")
    assert np.abs(photograph.pixels.astype(int) - pixels).max() <= 12
    write_photograph(tmp_path / f"b.{extension}", photograph)
    assert Image.open(tmp_path / f"b.{extension}").info["icc_profile"] == profile


def test_details_of_the_exposure_are_kept(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "a camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.5
    for extension in ("jpg", "tif"):
        Image.fromarray(smooth(8, 8)).save(tmp_path / f"a.{extension}", exif=exif.tobytes())
        write_photograph(tmp_path / f"b.{extension}", read_photograph(tmp_path / f"a.{extension}"))
        copy = Image.open(tmp_path / f"b.{extension}").getexif()
        assert copy.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.5


def test_the_content_decides_not_the_extension(tmp_path):
    Image.fromarray(noise(5, 7, 3)).save(tmp_path / "a.jpg", "PNG")
    photograph = read_photograph(tmp_path / "a.jpg")
    write_photograph(tmp_path / "b.jpg", photograph)
    assert Image.open(tmp_path / "b.jpg").format == "PNG"
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.jpg"), noise(5, 7, 3))


def test_a_phones_jpeg_with_a_second_picture_inside_is_its_first(tmp_path):
    first, second = Image.fromarray(smooth(24, 40)), Image.fromarray(smooth(8, 8))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    photograph = read_photograph(tmp_path / "a.jpg")
    assert photograph.format == "JPEG" and photograph.pixels.shape == (24, 40, 3)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("mode", MODES)
def test_what_is_read_is_written_in_its_own_format_and_size(tmp_path, extension, mode):
    path = tmp_path / f"a.{extension}"
    try:
        Image.fromarray(smooth(24, 40)).convert("L" if mode == "I;16" else "RGB").convert(mode).save(path)
    except (OSError, ValueError):
        pytest.skip(f"{extension} cannot hold {mode}")
    original = read_photograph(path)
    copy = copied(path)
    assert copy.format == Image.open(path).format and copy.size == (40, 24)
    again = read_photograph(path.with_stem("copy"))
    assert (again.grey, again.alpha is None) == (original.grey, original.alpha is None) and not original.notes
    exact = extension in ("bmp", "png", "tif")
    assert np.abs(again.pixels.astype(int) - original.pixels).max() <= (0 if exact else 16)


# A chunk of an odd length is padded.
@pytest.mark.parametrize("extra", [{}, {"icc_profile": b"even"}, {"icc_profile": b"odd"}])
def test_lossless_webp_stays_lossless(tmp_path, extra):
    pixels = noise(24, 40, 4)
    Image.fromarray(pixels).save(tmp_path / "a.webp", lossless=True, exact=True, **extra)
    np.testing.assert_array_equal(np.asarray(copied(tmp_path / "a.webp")), pixels)


def test_lab_becomes_rgb_with_the_profile_of_rgb(tmp_path):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.fromarray(smooth(24, 40)), srgb, lab, outputMode="LAB")
    image.save(tmp_path / "a.tif", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    copy = copied(tmp_path / "a.tif")
    assert copy.mode == "RGB"
    assert ImageCms.ImageCmsProfile(io.BytesIO(copy.info["icc_profile"])).profile.xcolor_space == "RGB "
    expected = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert np.abs(np.asarray(copy).astype(int) - np.asarray(expected)).max() <= 1


def test_transparency_that_bmp_is_not_written_with_is_said(tmp_path):
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    content = header + masks + bytes([3, 2, 1, 128, 6, 5, 4, 0])
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(content), 0, 0, 122) + content)
    photograph = read_photograph(tmp_path / "a.bmp")
    np.testing.assert_array_equal(photograph.pixels, [[[1, 2, 3], [4, 5, 6]]])
    assert photograph.alpha is None and "its transparency cannot be kept" in photograph.notes[0]


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:D xmlns:r="d" tiff:Orientation="6" label="mine"/></x:xmpmeta>'


@pytest.mark.parametrize("extension", [extension for extension in EXTENSIONS if extension != "bmp"])
def test_xmp_survives_but_for_the_rotation_that_is_applied(tmp_path, extension):
    path, options = tmp_path / f"a.{extension}", {"xmp": XMP}
    if extension == "png":
        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif extension == "tif":
        options = {"tiffinfo": {700: XMP}}
    Image.fromarray(smooth(24, 40)).save(path, **options)
    copy = copied(path)
    assert b'label="mine"' in copy.info["xmp"]
    assert copy.size == read_rgb(path.with_stem("copy")).shape[1::-1] == (24, 40)


@pytest.mark.parametrize("extension", ["jpg", "tif", "webp"])
def test_exif_that_is_upright_forbids_xmp_to_turn_the_copy(tmp_path, extension):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    if extension == "tif":
        exif[700] = XMP
    Image.fromarray(smooth(24, 40)).save(tmp_path / f"a.{extension}", exif=exif, xmp=XMP)
    assert read_rgb(tmp_path / f"a.{extension}").shape == (24, 40, 3)
    copied(tmp_path / f"a.{extension}")
    assert read_rgb(tmp_path / f"copy.{extension}").shape == (24, 40, 3)


def test_iptc_comment_and_extended_xmp_of_a_jpeg_survive(tmp_path):
    caption = b"\x1c\x02\x78\x00\x05Spain\0"
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", 10) + caption[:10]
    extended = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 4, 0) + b"more"
    segments = [
        b"\xff" + mark + struct.pack(">H", len(s) + 2) + s for mark, s in ((b"\xed", iptc), (b"\xe1", extended))
    ]
    Image.fromarray(smooth(24, 40)).save(tmp_path / "a.jpg", extra=b"".join(segments), comment="Spain", dpi=(300, 300))
    copy = copied(tmp_path / "a.jpg")
    assert copy.info["photoshop"][0x0404] == caption[:10] and ("APP1", extended) in copy.applist
    assert copy.info["comment"] == b"Spain" and copy.info["dpi"] == (300, 300)


def test_xmp_that_describes_what_is_not_copied_is_left_out(tmp_path):
    """A reader would look behind the copy for the gain map or film that stood behind the photograph."""
    xmp = b"<x:xmpmeta><Container:Directory/></x:xmpmeta>"
    Image.fromarray(smooth(8, 8)).save(tmp_path / "a.jpg", xmp=xmp)
    assert copied(tmp_path / "a.jpg").info["xmp"] == b"<x:xmpmeta></x:xmpmeta>"
    assert read_photograph(tmp_path / "a.jpg").notes == [OTHER_PICTURE]


def test_texts_of_a_png_survive(tmp_path):
    texts = PngInfo()
    texts.add_text("Author", "Großmann")
    texts.add_itxt("Title", "東京", lang="ja")
    texts.add_text("parameters", "steps: 20, " * 1000, zip=True)
    texts.add(b"gAMA", struct.pack(">I", 100_000))
    Image.fromarray(smooth(8, 8)).save(tmp_path / "a.png", pnginfo=texts)
    copy = copied(tmp_path / "a.png")
    assert copy.text == Image.open(tmp_path / "a.png").text and copy.text["Title"].lang == "ja"
    assert copy.info["gamma"] == 1.0


def test_iptc_of_a_tiff_survives(tmp_path):
    Image.fromarray(smooth(8, 8)).save(tmp_path / "a.tif", tiffinfo={33723: b"\x1c\x02\x78\x00\x05Spain"})
    assert bytes(copied(tmp_path / "a.tif").tag_v2[33723]) == b"\x1c\x02\x78\x00\x05Spain"


@pytest.mark.parametrize(
    ("name", "size", "note"),
    [
        ("bad_exif_header.png", (40, 30), "its EXIF data cannot be kept"),
        ("exif_header_damaged.jpg", (37, 26), "its EXIF data cannot be kept"),
        ("cmyk_garbage_icc.jpg", (40, 30), "its colour profile cannot be used"),
    ],
)
def test_damaged_metadata_costs_the_metadata_not_the_picture(tmp_path, name, size, note):
    photograph = read_photograph(HOSTILE / name)
    assert photograph.pixels.shape == (*size[::-1], 3)
    assert len(photograph.notes) == 1 and photograph.notes[0].startswith(note)
    assert ("icc_profile" in photograph.metadata) == name.startswith("exif")  # which have one for RGB
    write_photograph(tmp_path / name, photograph)
    assert not read_photograph(tmp_path / name).notes


@pytest.mark.parametrize("key", ["icc_profile", "exif", "dpi", "transparency", "gamma", "xmp"])
def test_a_text_of_any_name_is_a_text(tmp_path, key):
    """Pillow takes some for metadata of that name."""
    texts = PngInfo()
    texts.add_text(key, "some text")
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.png", pnginfo=texts)
    photograph = read_photograph(tmp_path / "a.png")
    assert not photograph.notes and photograph.metadata.keys() == {"chunks"} and photograph.alpha is None
    write_photograph(tmp_path / "b.png", photograph)
    assert b"tEXt" + key.encode() + b"\0some text" in (tmp_path / "b.png").read_bytes()
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.png"), noise(8, 8, 3))


def test_exif_data_that_no_parser_reads_come_over_as_they_are(tmp_path):
    """A quotient by zero, which Pillow cannot write."""
    photograph = read_photograph(HOSTILE / "exif_not_a_number.jpg")
    assert not photograph.notes and photograph.pixels.shape == (37, 26, 3)
    write_photograph(tmp_path / "a.jpg", photograph)
    assert read_photograph(tmp_path / "a.jpg").metadata["exif"] == photograph.metadata["exif"]


def test_no_thread_touches_what_other_threads_are_warned_of(monkeypatch):
    monkeypatch.setattr(warnings, "catch_warnings", lambda **_: pytest.fail("warnings belong to all threads"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_photograph, [HOSTILE / "exif_not_a_number.jpg"] * 8))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [1, 30, 95, 100])
@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_keeps_its_tables_and_its_chroma_subsampling(tmp_path, quality, subsampling, grey):
    pixels = smooth(24, 40)[..., 0] if grey else smooth(24, 40)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    original, copy = Image.open(tmp_path / "a.jpg"), copied(tmp_path / "a.jpg")
    assert copy.quantization == original.quantization and copy.mode == original.mode
    assert grey or copy.layer == original.layer  # grey has nothing to subsample


def test_bytes_are_read_as_their_file(tmp_path):
    Image.fromarray(noise(5, 7, 3)).save(tmp_path / "a.webp", lossless=True, exact=True)
    content = (tmp_path / "a.webp").read_bytes()
    from_file, from_bytes = read_photograph(tmp_path / "a.webp"), read_photograph(content)
    np.testing.assert_array_equal(from_bytes.pixels, from_file.pixels)
    assert from_bytes.metadata == from_file.metadata and from_bytes.format == "WEBP"
    with pytest.raises(BadImage, match="^these bytes: cannot be decoded"):
        read_photograph(content[:60])


@pytest.mark.parametrize(
    ("compression", "of_copy"), [("raw", "raw"), ("tiff_lzw", "tiff_lzw"), ("jpeg", "tiff_adobe_deflate")]
)
def test_tiff_compression_is_kept_if_it_loses_nothing(tmp_path, compression, of_copy):
    Image.fromarray(noise(9, 9, 3)).save(tmp_path / "a.tif", compression=compression)
    copy = copied(tmp_path / "a.tif")
    assert copy.info["compression"] == of_copy
    np.testing.assert_array_equal(np.asarray(copy), read_rgb(tmp_path / "a.tif"))


def bad_file(kind, path):
    encoded = io.BytesIO()
    Image.fromarray(noise(40, 40, 3)).save(encoded, "PNG")
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "truncated":
        path.write_bytes(encoded.getvalue()[:1000])
    elif kind == "huge":
        png(path, MAX_PIXELS + 1, 1, 8, b"")
    elif kind == "animated":
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        frames[0].save(path, "PNG", save_all=True, append_images=frames[1:])
    elif kind == "float":
        Image.fromarray(np.ones((4, 4), np.float32)).save(path, "TIFF")
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("empty", "not an image that can be read"),
        ("text", "not an image that can be read; JPEG, PNG, WebP, TIFF, BMP, AVIF or HEIC is required"),
        ("truncated", "cannot be decoded"),
        ("huge", f"more than the {MAX_PIXELS} pixels"),
        ("animated", "holds 2 pictures; a file with a single one is required"),
        ("float", "its pixels are 32-bit floating-point numbers; 8- or 16-bit is required"),
        ("folder", "is a folder"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, kind, message):
    path = tmp_path / "bad.png"
    bad_file(kind, path)
    with pytest.raises(BadImage, match=message) as caught:
        read_photograph(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def strips_missing(path):
    """1,000 rows, but strips for the first 10."""
    Image.fromarray(noise(10, 40, 3)).save(path, "TIFF")
    content = path.read_bytes()
    length, rows = struct.pack("<HHII", 257, 4, 1, 10), struct.pack("<HHII", 278, 4, 1, 10)
    short_length = struct.pack("<HHIHH", 257, 3, 1, 10, 0)
    assert (content.count(length) + content.count(short_length), content.count(rows[:2])) != (0, 0)
    content = content.replace(length, struct.pack("<HHII", 257, 4, 1, 1000))
    path.write_bytes(content.replace(short_length, struct.pack("<HHIHH", 257, 3, 1, 1000, 0)))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_claim_what_they_do_not_hold_are_refused_before_memory_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("takes the memory"))
    for name in ("claims_178_megapixels.png", "claims_155_megapixels.tif"):
        with pytest.raises(BadImage, match="claims .* pixels, of which .* bytes hold too little"):
            read_photograph(HOSTILE / name)
    strips_missing(tmp_path / "a.tif")
    with pytest.raises(BadImage, match="truncated: strips are missing"):
        read_photograph(tmp_path / "a.tif")


def test_a_flat_picture_of_25_megapixels_is_read(tmp_path):
    """It compresses as far as PNG can, to a thousandth."""
    Image.new("L", (5000, 5000), 90).save(tmp_path / "a.png")
    pixels = read_rgb(tmp_path / "a.png")
    assert pixels.shape == (5000, 5000, 3) and (pixels == 90).all()


def test_postscript_under_another_name_is_not_run():
    with pytest.raises(BadImage, match="not an image that can be read"):
        read_photograph(HOSTILE / "eps_named.jpg")


def test_a_cameras_raw_file_is_not_taken_for_its_thumbnail(tmp_path):
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "a.dng", "TIFF")
    with pytest.raises(BadImage, match="raw file"):
        read_photograph(tmp_path / "a.dng")


def test_heic_is_read_or_says_what_is_missing(tmp_path):
    path = tmp_path / "a.heic"
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        path.write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic")
        with pytest.raises(BadImage, match="pip install pillow-heif"):
            read_photograph(path)
    else:
        Image.fromarray(smooth(24, 40)).save(path, quality=95)
        copy = copied(path)
        assert copy.format == "HEIF" and copy.size == (40, 24)
        assert np.abs(np.asarray(copy).astype(int) - smooth(24, 40)).max() <= 12


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes in folders")
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    expected = {
        "broken.png": "a link to a file that is missing",
        "device.png": "is a pipe, a socket or a device",
        "loop.png": os.strerror(errno.ELOOP),
        "pipe.png": "is a pipe, a socket or a device",
    }
    paths = find_images(tmp_path)
    assert [path.name for path in paths] == list(expected)
    for path in paths:
        with pytest.raises(BadImage, match=expected[path.name]):
            read_photograph(path)


def test_a_message_is_one_line_whatever_the_name_is(tmp_path):
    with pytest.raises(BadImage) as caught:
        read_photograph(tmp_path / "a\nb\x1b[31m\u202egnp.png")
    assert str(caught.value).isprintable() and "a\\nb\\x1b[31m\\u202egnp.png" in str(caught.value)


# ---- folders


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_find_images_by_extension_without_hidden_files(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "._a.png", "notes.txt", "Thumbs.db", "deeper/c.png")
    touch(tmp_path, "c.gif", "d.NEF", "weights.h5")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.JPG"]
    assert [path.name for path in find_images(tmp_path, PICTURE_EXTENSIONS)] == ["a.png", "b.JPG", "c.gif", "d.NEF"]
    with pytest.raises(NotADirectoryError, match="no such folder"):
        find_images(tmp_path / "missing")
