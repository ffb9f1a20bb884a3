"""`restore`: for each kind of input, what comes back, and that its pixels are those of `deblur`."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, child_environment, photograph
from PIL import ExifTags, Image

from deblur_gan import api, read_photograph, restore
from deblur_gan.images.photographs import BadImage
from deblur_gan.networks import generator_model
from deblur_gan.restoring.deblur import deblur
from deblur_gan.weights import BadWeights, load_generator, save_generator

MEUDEC = ROOT / "tests" / "golden" / "keras213_generator.h5"
RGB = photograph(0)
GREY = RGB[..., 0]
ALPHA = photograph(1)[..., :1]


@pytest.fixture(scope="module")
def generator():
    return load_generator(MEUDEC)


def grey(generator, pixels):
    """What a grey photograph becomes: the luminance of what its three equal channels become."""
    restored = deblur(generator, np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2))
    return np.asarray(Image.fromarray(restored).convert("L")).reshape(pixels.shape)


def expected(generator, pixels):
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return grey(generator, pixels)
    return np.concatenate([deblur(generator, pixels[..., :3]), pixels[..., 3:]], axis=2)


@pytest.mark.parametrize(
    "pixels", [GREY, GREY[..., None], RGB, np.concatenate([RGB, ALPHA], axis=2)], ids=["HW", "HW1", "RGB", "RGBA"]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_arrays(generator, pixels, dtype):
    given = pixels if dtype == np.uint8 else (pixels / 255).astype(dtype)
    before = given.copy()
    restored = restore(given, generator)
    assert restored.dtype == dtype and restored.shape == pixels.shape and restored.flags.writeable
    if dtype != np.uint8:
        restored = np.rint(255 * restored.astype(float)).astype(np.uint8)
    np.testing.assert_array_equal(restored, expected(generator, pixels))
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pil_images(generator, mode):
    image = Image.fromarray(np.concatenate([RGB, ALPHA], axis=2)).convert(mode)
    image.info["dpi"] = (300, 300)
    restored = restore(image, generator)
    assert isinstance(restored, Image.Image) and restored.mode == mode and restored.info == image.info
    planes, found = np.asarray(image), np.asarray(restored)
    if mode == "LA":
        np.testing.assert_array_equal(found[..., 0], grey(generator, planes[..., 0]))
        np.testing.assert_array_equal(found[..., 1], planes[..., 1])
    else:
        np.testing.assert_array_equal(found, expected(generator, planes))


@pytest.mark.parametrize(("mode", "comes_back"), [("P", "RGB"), ("1", "L"), ("CMYK", "RGB"), ("I;16", "L")])
def test_pil_images_of_other_modes(generator, mode, comes_back):
    image = Image.fromarray(RGB).convert("L" if mode == "I;16" else "RGB").convert(mode)
    restored = restore(image, generator)
    assert restored.mode == comes_back and image.mode == mode
    assert restored.size == image.size


@pytest.fixture
def turned(tmp_path):
    """A file with a profile, lying on its side as its EXIF data says."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model] = 6, "a camera"
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(np.rot90(RGB))).save(path, exif=exif, icc_profile=b"a profile", dpi=(72, 72))
    return path


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_gives_a_pil_image(generator, turned, kind):
    restored = restore(kind(turned), generator)
    np.testing.assert_array_equal(np.asarray(restored), deblur(generator, RGB))
    assert restored.info["icc_profile"] == b"a profile" and restored.getexif()[ExifTags.Base.Model] == "a camera"
    assert ExifTags.Base.Orientation not in restored.getexif()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_bytes_give_bytes_of_the_same_format(generator, kind, file_format):
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, file_format, dpi=(300, 300))
    restored = restore(kind(file.getvalue()), generator)
    assert isinstance(restored, bytes)
    found = Image.open(io.BytesIO(restored))
    assert found.format == file_format and round(found.info["dpi"][0]) == 300
    np.testing.assert_array_equal(np.asarray(found), deblur(generator, RGB))


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_gives_a_list_of_the_same_kinds(generator, turned, kind):
    image = Image.fromarray(RGB)
    restored = restore(kind([RGB, GREY / 255, image, turned, turned.read_bytes(), []]), generator)
    assert [type(one) for one in restored] == [np.ndarray, np.ndarray, Image.Image, Image.Image, bytes, list]
    assert restored[1].shape == GREY.shape and restored[1].dtype == float


def test_strength_tiles_and_ensemble_are_those_of_deblur(generator):
    found = restore([RGB], generator, strength=0.5, tile_size=24, ensemble=4)
    np.testing.assert_array_equal(found[0], deblur(generator, RGB, tile_size=24, strength=0.5, ensemble=4))


@pytest.mark.slow
def test_the_precision_is_that_of_the_network(generator):
    for precision, dtype in (("float32", "float32"), ("bfloat16", "mixed_bfloat16")):
        expected = deblur(load_generator(MEUDEC, dtype), RGB)
        np.testing.assert_array_equal(restore(RGB, MEUDEC, precision=precision), expected)
    with pytest.raises(ValueError, match="a generator computes in what it was built with"):
        restore(RGB, generator, precision="bfloat16")


def test_weights_are_loaded_once_for_a_file_until_it_changes(tmp_path, monkeypatch):
    loaded = []

    def load(path, dtype):
        loaded.append(path)
        return load_generator(path, dtype)

    monkeypatch.setattr("deblur_gan.weights.load_generator", load)
    path = tmp_path / "generator.h5"
    api._generator.cache_clear()
    for width in (1, 1, 2):
        if len(loaded) == width - 1:
            save_generator(generator_model("paper", width, 1), path)
            os.utime(path, ns=(width, width))  # file systems with coarse clocks exist
        restore(RGB, path)
    assert len(loaded) == 2
    api._generator.cache_clear()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, TypeError, "a photograph is NoneType; accepted are a path, bytes"),
        ({"a": 1}, TypeError, "a photograph is dict"),
        (np.array(0.5), ValueError, r"an array is float64 \(\); accepted are"),
        (RGB.astype(np.uint16), ValueError, r"an array is uint16 \(40, 48, 3\); accepted are"),
        (RGB[None], ValueError, r"\(1, 40, 48, 3\)"),
        (RGB[..., :2], ValueError, r"\(40, 48, 2\)"),
        (RGB[:0], ValueError, r"\(0, 48, 3\)"),
        (RGB.astype(float), ValueError, "a float64 array goes from 0.0 to 254.0; 0 to 1 is required"),
        (np.full((4, 4), np.nan), ValueError, "nan to nan"),
        (Image.new("F", (4, 4)), BadImage, "this PIL image: its pixels are of type F"),
        (b"no picture", BadImage, "these bytes: not an image"),
        ("nowhere.jpg", BadImage, "nowhere.jpg: no such file"),
    ],
)
def test_what_is_not_taken_is_named(generator, given, error, message):
    with pytest.raises(error, match=message):
        restore(given, generator)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="a system that does not say what is resident")
@pytest.mark.slow
def test_memory_stays_flat_over_many_photographs(generator):
    """A photograph kept in each of them, as uint8 alone, would take more than what is allowed here."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    path = io.BytesIO()
    Image.fromarray(photograph(2, 256, 256)).save(path, "PNG")
    for _ in range(10):
        restore(path.getvalue(), generator, scale=1)
    before, n_photographs = resident(), 60
    for _ in range(n_photographs):
        restore(path.getvalue(), generator, scale=1)
    assert resident() - before < n_photographs * 256 * 256 * 3


def test_weights_that_are_missing_are_named():
    with pytest.raises(BadWeights, match=r"nowhere\.h5"):
        restore(RGB, "nowhere.h5")
    with pytest.raises(ValueError, match="strength=2"):
        restore(RGB, MEUDEC, strength=2)
    with pytest.raises(ValueError, match="precision 'half': must be one of auto, float32, bfloat16"):
        restore(RGB, MEUDEC, precision="half")


def test_read_and_write_are_public_and_start_no_keras(turned, tmp_path):
    program = """
import sys
from deblur_gan import read_photograph, restore, write_photograph
write_photograph(sys.argv[2], read_photograph(sys.argv[1]))
print("keras" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, turned, tmp_path / "copy.png"],
        env=child_environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n", done.stderr
    np.testing.assert_array_equal(read_photograph(tmp_path / "copy.png").pixels, RGB)
