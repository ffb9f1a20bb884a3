import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from deblur_gan.photographs import (
    MAX_PIXELS,
    BadImage,
    find_images,
    from_uint8,
    read_photograph,
    read_rgb,
    to_uint8,
    write_photograph,
)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width, channels=3):
    """Colours that a lossy file keeps within a few levels."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // max(height - 1, 1), columns * 255 // max(width - 1, 1), 128 + 0 * rows, 200 - 0 * rows]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def png_16_bit_rgb(path, values):
    """A PNG of 16-bit RGB, which Pillow reads but does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


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


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp"])
def test_lossy_formats_give_nearly_their_pixels(tmp_path, name):
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


def test_tiff_compression_is_kept(tmp_path):
    Image.fromarray(noise(9, 9, 3)).save(tmp_path / "a.tif", compression="tiff_lzw")
    write_photograph(tmp_path / "b.tif", read_photograph(tmp_path / "a.tif"))
    assert Image.open(tmp_path / "b.tif").info["compression"] == "tiff_lzw"


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
        side = int(MAX_PIXELS**0.5) + 1
        Image.new("1", (side, side)).save(path, "PNG")
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
        ("float", "of type F"),
        ("folder", "is a folder"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, kind, message):
    path = tmp_path / "bad.png"
    bad_file(kind, path)
    with pytest.raises(BadImage, match=message) as caught:
        read_photograph(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


# ---- folders


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_find_images_by_extension_without_hidden_files(tmp_path):
    touch(tmp_path, "b.JPG", "a.png", "._a.png", "notes.txt", "Thumbs.db", "deeper/c.png")
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.JPG"]
    with pytest.raises(NotADirectoryError, match="no such folder"):
        find_images(tmp_path / "missing")
