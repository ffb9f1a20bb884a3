"""Pixels of every layout: each comes back as numbers say, or the file is refused by its true name."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from conftest import ROOT
from PIL import Image

from deblur_gan.images import photographs
from deblur_gan.images.exif import read_directory
from deblur_gan.images.photographs import BadImage, converted, from_pillow, read_photograph, write_photograph
from deblur_gan.images.photographs import Photograph as Photo

CASES = ROOT / "tests" / "cases"
ROWS, COLUMNS = np.mgrid[:64, :64]
# What the files of CASES show.
RAMP = np.stack([COLUMNS * 4, ROWS * 4, (COLUMNS + ROWS) * 2], axis=-1).astype(np.uint8)


def nearest(values, largest):
    return np.floor(values.astype(float) * 255 / largest + 0.5).astype(int)


def packed(values, n_bits):
    """Rows of numbers of so many bits, each row from a new byte on."""
    bits = (values[..., None] >> np.arange(n_bits - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(values.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def tiff(
    path,
    values,
    n_bits,
    photometric,
    extra=(),
    planar=1,
    compression=1,
    rows_a_strip=None,
    big_endian=False,
    turned=False,
):
    """Writes `(H, W, samples)` as a TIFF of strips, which no library does in all these layouts."""
    order, (height, width, n_samples) = ">" if big_endian else "<", values.shape
    rows_a_strip = rows_a_strip or height
    planes = [values] if planar == 1 else [values[..., [sample]] for sample in range(n_samples)]
    strips = []
    for plane in planes:
        for top in range(0, height, rows_a_strip):
            strip = plane[top : top + rows_a_strip]
            flat = strip.reshape(strip.shape[0], -1)
            data = flat.astype(f"{order}u2").tobytes() if n_bits == 16 else packed(flat.astype(np.uint32), n_bits)
            if compression == 8:
                data = zlib.compress(data)
            elif compression != 1:  # through Pillow, as one grey row
                file = io.BytesIO()
                name = {5: "tiff_lzw", 32773: "packbits"}[compression]
                Image.frombytes("L", (len(data), 1), data).save(file, "TIFF", compression=name)
                raw = file.getvalue()
                tags = read_directory(raw, struct.unpack_from("<I", raw, 4)[0], "<")[0]
                offset, count = (int.from_bytes(tags[tag][2][:4], "little") for tag in (273, 279))
                data = raw[offset : offset + count]
            if turned:
                data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
            strips.append(data + bytes(len(data) % 2))
    offsets = np.cumsum([8] + [len(strip) for strip in strips])
    tags = {256: [width], 257: [height], 258: [n_bits] * n_samples, 259: [compression], 262: [photometric]}
    tags |= {273: list(offsets[:-1]), 277: [n_samples], 278: [rows_a_strip], 279: [len(s) for s in strips]}
    tags |= {266: [2 if turned else 1], 284: [planar]} | ({338: list(extra)} if extra else {})
    entries, after, start = b"", b"", int(offsets[-1]) + 6 + 12 * len(tags)
    for tag, numbers in sorted(tags.items()):
        content = struct.pack(f"{order}{len(numbers)}I", *numbers)
        inline = content if len(numbers) == 1 else struct.pack(f"{order}I", start + len(after))
        after += b"" if len(numbers) == 1 else content
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + inline
    header = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(f"{order}I", int(offsets[-1]))
    path.write_bytes(header + b"".join(strips) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + after)


def levels(n_bits, n_samples, height=21, width=30):
    return np.random.default_rng(n_bits).integers(0, 2**n_bits, (height, width, n_samples))


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("rows_a_strip", [None, 8])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("n_bits", [1, 2, 4, 8, 10, 12, 14, 16])
def test_tiff_of_any_layout_of_grey_and_colours(tmp_path, n_bits, planar, rows_a_strip, compression, big_endian):
    largest = 2**n_bits - 1
    for name, photometric, n_samples in (("white", 0, 1), ("grey", 1, 1), ("rgb", 2, 3)):
        values = levels(n_bits, n_samples)
        path = tmp_path / f"{name}.tif"
        tiff(path, values, n_bits, photometric, (), planar, compression, rows_a_strip, big_endian)
        expected = nearest(largest - values if name == "white" else values, largest)
        photograph = read_photograph(path)
        np.testing.assert_array_equal(photograph.pixels, np.broadcast_to(expected, photograph.pixels.shape))
        assert photograph.grey == (n_samples == 1) and photograph.alpha is None and not photograph.notes


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("n_bits", [1, 4, 8, 12])
def test_tiff_whose_bytes_begin_with_the_lowest_bit(tmp_path, n_bits, compression):
    values = levels(n_bits, 3)
    tiff(tmp_path / "a.tif", values, n_bits, 2, compression=compression, turned=True)
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels, nearest(values, 2**n_bits - 1))


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("n_bits", [8, 12, 16])
@pytest.mark.parametrize(("photometric", "n_colours"), [(0, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_tiff_with_a_further_sample(tmp_path, n_bits, photometric, n_colours, extra, planar):
    largest, values = 2**n_bits - 1, levels(n_bits, n_colours + 1)
    colours, alpha = values[..., :n_colours].astype(float), values[..., n_colours:].astype(float)
    if extra == 1:  # the colours are multiplied with it
        values[..., :n_colours] = np.rint(colours * alpha / largest)
    tiff(tmp_path / "a.tif", values, n_bits, photometric, (extra,), planar)
    photograph = read_photograph(tmp_path / "a.tif")
    if extra:
        np.testing.assert_array_equal(photograph.alpha, nearest(alpha[..., 0], largest))
    else:
        assert photograph.alpha is None
    expected = largest - colours if photometric == 0 else colours
    seen = np.broadcast_to(alpha > largest / 4, colours.shape) if extra == 1 else np.full(colours.shape, True)
    difference = np.abs(photograph.pixels[..., :n_colours] - nearest(expected, largest))
    assert difference[seen].max() <= (3 if extra == 1 else 0)


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("n_bits", [8, 16])
def test_tiff_of_inks(tmp_path, n_bits, planar):
    values = levels(n_bits, 4)
    tiff(tmp_path / "a.tif", values, n_bits, 5, (), planar)
    eight = nearest(values, 2**n_bits - 1).astype(np.uint8)
    expected = Image.frombytes("CMYK", eight.shape[1::-1], eight.tobytes()).convert("RGB")
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels, np.asarray(expected))


@pytest.mark.parametrize("options", [{"tile": (16, 16)}, {"predictor": True}, {"bigtiff": True}, {"rowsperstrip": 5}])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_as_tifffile_writes_it(tmp_path, dtype, planar, compression, options):
    if "predictor" in options and not compression:
        pytest.skip("a predictor is of a compression")
    values = (RAMP[:40, :50].astype(dtype) << (8 if dtype == np.uint16 else 0)) + 3
    data = np.moveaxis(values, 2, 0) if planar == "separate" else values
    tifffile.imwrite(
        tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar, compression=compression, **options
    )
    expected = nearest(values, np.iinfo(dtype).max)
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels, expected)


@pytest.mark.parametrize("compression", ["jpeg", "group3", "group4", "tiff_ccitt"])
def test_tiff_that_pillow_alone_decompresses(tmp_path, compression):
    image = Image.fromarray(RAMP) if compression == "jpeg" else Image.fromarray(RAMP[..., 0] > 100)
    image.save(tmp_path / "a.tif", compression=compression)
    expected = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB"))
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_bits": 16, "photometric": 8}, "16-bit Lab"),
        ({"n_bits": 8, "photometric": 32844}, "its colours are of the kind LOGL"),
        ({"n_bits": 8, "photometric": 6}, "its colours are YCbCr compressed by NONE"),
        ({"n_bits": 8, "photometric": 6, "compression": 32773}, "its colours are YCbCr compressed by PACKBITS"),
    ],
)
def test_tiff_that_is_not_read_is_refused_by_its_name(tmp_path, change, message):
    tiff(tmp_path / "a.tif", levels(change["n_bits"], 3), **change)
    with pytest.raises(BadImage, match=message):
        read_photograph(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.uint32, np.int8])
def test_tiff_of_other_numbers_is_refused_by_their_name(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), dtype), photometric="minisblack")
    with pytest.raises(BadImage, match=f"its pixels are {8 * np.dtype(dtype).itemsize}-bit .* numbers; 8- or 16-bit"):
        read_photograph(tmp_path / "a.tif")


@pytest.mark.parametrize("copy_first", [False, True])
def test_a_reduced_copy_is_no_second_picture(tmp_path, copy_first):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        pages = [(RAMP, 0), (RAMP[::4, ::4], 1)]
        for pixels, kind in reversed(pages) if copy_first else pages:
            file.write(pixels, photometric="rgb", subfiletype=kind)
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.tif").pixels, RAMP)


def test_two_pages_are_two_pictures(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RAMP, RAMP]), photometric="rgb")
    with pytest.raises(BadImage, match="holds 2 pictures"):
        read_photograph(tmp_path / "a.tif")


def test_cut_and_missing_strips_are_refused(tmp_path):
    for compression in (1, 5, 8):
        tiff(tmp_path / "a.tif", levels(16, 3), 16, 2, compression=compression, planar=2, rows_a_strip=4)
        content = bytearray((tmp_path / "a.tif").read_bytes())
        tags, _ = read_directory(content, struct.unpack_from("<I", content, 4)[0], "<")
        at = content.index(tags[279][2])
        content[at + 8 : at + 12] = bytes(4) if compression == 1 else struct.pack("<I", 3)
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(BadImage, match="cannot be decoded|strips are missing"):
            read_photograph(tmp_path / "a.tif")


@pytest.mark.parametrize(("tag", "message"), [(256, "is 0x21 pixels"), (257, "is 30x0 pixels")])
def test_a_picture_without_pixels_is_refused(tmp_path, tag, message):
    tiff(tmp_path / "a.tif", levels(8, 1), 8, 1)
    content = (tmp_path / "a.tif").read_bytes()
    size = struct.pack("<HHII", tag, 4, 1, 30 if tag == 256 else 21)
    (tmp_path / "a.tif").write_bytes(content.replace(size, size[:8] + bytes(4)))
    with pytest.raises(BadImage, match=message):
        read_photograph(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["rgb8_planar_deflate.tif", "grey12.tif", "tiff_missing_dimensions.tif"])
def test_files_that_came_back_wrong(name):
    photograph = read_photograph(CASES / name)
    assert not photograph.notes
    if name == "rgb8_planar_deflate.tif":
        np.testing.assert_array_equal(photograph.pixels, RAMP)
    if name == "grey12.tif":
        assert photograph.grey and np.abs(photograph.pixels[..., 0].astype(int) - RAMP[..., 0]).max() <= 1


# ---- PNG


def png(path, depth, colour, rows, *chunks):
    """Writes rows of bytes as a PNG file, with more chunks before the pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    width = rows.shape[1] * 8 // (depth * {0: 1, 2: 3, 4: 2, 6: 4}[colour])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    more = b"".join(chunk(kind, content) for kind, content in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", data) + chunk(b"IEND", b""))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_level_of_a_png(tmp_path, depth):
    values = levels(depth, 1, 16, 16)[..., 0]
    key = int(values[3, 5])
    rows = values.astype(">u2").view(np.uint8) if depth == 16 else None
    if rows is None:
        rows = np.frombuffer(packed(values, depth), np.uint8).reshape(16, -1)
    png(tmp_path / "a.png", depth, 0, rows, (b"tRNS", struct.pack(">H", key)))
    photograph = read_photograph(tmp_path / "a.png")
    np.testing.assert_array_equal(photograph.pixels[..., 0], nearest(values, 2**depth - 1))
    np.testing.assert_array_equal(photograph.alpha, np.where(values == key, 0, 255))
    write_photograph(tmp_path / "b.png", photograph)
    np.testing.assert_array_equal(read_photograph(tmp_path / "b.png").alpha, photograph.alpha)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_of_a_png(tmp_path, depth):
    values = levels(depth, 3, 16, 16)
    values[:4] = values[0, 0]
    values[1, :, 2] ^= 1  # nearly that colour
    rows = values.astype(">u2" if depth == 16 else np.uint8).reshape(16, -1).view(np.uint8)
    png(tmp_path / "a.png", depth, 2, rows, (b"tRNS", struct.pack(">3H", *values[0, 0])))
    photograph = read_photograph(tmp_path / "a.png")
    np.testing.assert_array_equal(photograph.pixels, nearest(values, 2**depth - 1))
    np.testing.assert_array_equal(photograph.alpha, np.where((values == values[0, 0]).all(axis=2), 0, 255))


@pytest.mark.parametrize(("colour", "n_samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_of_a_png_are_rounded_to_the_nearest(tmp_path, colour, n_samples):
    values = levels(16, n_samples, 16, 16)
    png(tmp_path / "a.png", 16, colour, values.astype(">u2").reshape(16, -1).view(np.uint8))
    photograph = read_photograph(tmp_path / "a.png")
    eight = nearest(values, 65535)
    n_colours = n_samples - (n_samples % 2 == 0)
    assert photograph.grey == (n_colours == 1)
    np.testing.assert_array_equal(photograph.pixels[..., :n_colours], eight[..., :n_colours])
    if n_samples > n_colours:
        np.testing.assert_array_equal(photograph.alpha, eight[..., -1])


# ---- PIL images


def test_a_16_bit_pil_image_with_a_transparent_level():
    image = Image.fromarray(np.arange(4, dtype=np.uint16).reshape(2, 2) * 1000)
    image.info["transparency"] = 2000
    np.testing.assert_array_equal(from_pillow(image).alpha, [[255, 255], [0, 255]])


# ---- sizes


def claim(path, n_pixels, n_bytes):
    """A BMP file that claims so many pixels, in one row, and is so many bytes long."""
    header = struct.pack("<IiiHHIIiiII", 40, n_pixels, 1, 1, 24, 0, 0, 0, 0, 0, 0)
    path.write_bytes((b"BM" + struct.pack("<IHHI", n_bytes, 0, 0, 54) + header).ljust(n_bytes, b"\0"))


@pytest.mark.parametrize(
    ("n_pixels", "n_bytes", "refused"),
    [
        (50_000_000, 100_000, False),
        (50_000_001, 100_000, True),
        (60_000_000, 300_000, False),
        (60_000_001, 300_000, True),
        (90_000_000, 300_000, True),
    ],
)
def test_a_file_claims_no_more_pixels_than_its_bytes_can_hold(tmp_path, monkeypatch, n_pixels, n_bytes, refused):
    def load(image):
        raise OSError("it begins to decode")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    monkeypatch.setattr(photographs, "_free_memory", lambda: 2**40)
    claim(tmp_path / "a.bmp", n_pixels, n_bytes)
    with pytest.raises(BadImage, match="bytes hold too little" if refused else "it begins to decode"):
        read_photograph(tmp_path / "a.bmp")


def test_200_megapixels_are_read_where_memory_is_free(tmp_path, monkeypatch):
    def load(image):
        raise OSError("it begins to decode")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    claim(tmp_path / "a.bmp", 200_000_000, 1_000_000)
    for free, message in ((2**40, "it begins to decode"), (2**30, r"need 2\.2 GiB of memory, and 1\.0 GiB are free; ")):
        monkeypatch.setattr(photographs, "_free_memory", lambda free=free: free)
        with pytest.raises(BadImage, match=message):
            read_photograph(tmp_path / "a.bmp")


@pytest.mark.parametrize(("file_format", "longest"), [("WEBP", 16_383), ("JPEG", 65_500)])
def test_a_side_that_a_format_cannot_hold_is_refused_before_the_work(file_format, longest):
    tall = Photo(np.zeros((longest, 1, 3), np.uint8))
    assert converted(tall, file_format).format == file_format
    with pytest.raises(ValueError, match=f"longer than the {longest} that {file_format} can hold; take --format png"):
        converted(Photo(np.zeros((longest + 1, 1, 3), np.uint8)), file_format)
    wide = Photo(np.zeros((1, longest // 2 + 1, 3), np.uint8))
    assert converted(wide, file_format)
    with pytest.raises(ValueError, match="longer than"):
        converted(wide, file_format, side_by_side=True)
