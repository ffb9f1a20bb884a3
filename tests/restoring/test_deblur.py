import functools
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from conftest import ROOT
from scipy import ndimage

from deblur_gan.images.pixels import from_uint8, resize, to_uint8
from deblur_gan.networks import generator_model
from deblur_gan.restoring import deblur as restoring
from deblur_gan.restoring.deblur import (
    ENSEMBLES,
    INSTANCE_TILE_SIZE,
    TILE_SIZE,
    default_tile_size,
)
from deblur_gan.restoring.predict import SIZES_COMPILED
from deblur_gan.restoring.tiles import windows as cut
from deblur_gan.restoring.working_size import add_differences, choose_scale, choose_shares
from deblur_gan.weights import load_generator

# Below, unless a test is about the working size, photographs are restored at their own size.
deblur = functools.partial(restoring.deblur, scale=1)

GOLDEN = ROOT / "tests" / "golden" / "keras213_generator.h5"


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def identity():
    generator = generator_model("paper", 1, 1)
    head = generator.get_layer("head_conv")
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    return generator


@pytest.fixture(scope="module")
def meudec():
    return load_generator(GOLDEN)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 5), (37, 53), (64, 64), (720, 1280)])
def test_zero_head_returns_every_pixel(identity, size):
    image = noise(*size, 3)
    np.testing.assert_array_equal(deblur(identity, image), image)


@pytest.mark.parametrize(
    ("size", "tile_size", "tile_overlap"), [((37, 53), 16, 4), ((64, 200), 30, None), ((5, 300), 8, 0)]
)
def test_zero_head_returns_every_pixel_in_tiles(identity, size, tile_size, tile_overlap):
    image = noise(*size, 3)
    np.testing.assert_array_equal(deblur(identity, image, tile_size, tile_overlap), image)


def test_a_large_photograph_comes_back_and_goes_through_tiles(identity):
    image = noise(600, 800, 3)
    seen = []

    def progress(tiles):
        seen.extend(tiles)
        return tiles

    np.testing.assert_array_equal(deblur(identity, image, progress=progress), image)
    assert len(seen) == 3 * 3
    assert {row.stop - row.start for _, ((row, _), _) in seen} == {232}  # no larger than 600 rows need
    assert max(column.stop - column.start for _, (_, (column, _)) in seen) <= INSTANCE_TILE_SIZE


def test_batch_normalization_takes_the_whole_photograph_as_long_as_memory_lets_it(identity, meudec):
    assert default_tile_size(meudec, 1000, 1500) == 1500
    assert default_tile_size(meudec, 1, 3) == 8
    assert default_tile_size(meudec, 1000, 1501) == TILE_SIZE
    assert default_tile_size(identity, 1000, 1500) == default_tile_size(identity, 8, 8) == INSTANCE_TILE_SIZE


def test_instance_normalization_takes_its_statistics_nearby(inventive):
    """What a part is restored to does not depend on what is far from it."""
    image, other = noise(256, 1024, 3), noise(256, 1024, 3)
    other[:, 512:] //= 4
    np.testing.assert_array_equal(deblur(inventive, image)[:, :256], deblur(inventive, other)[:, :256])
    whole, other_whole = (deblur(inventive, pixels, tile_size=1024)[:, :256] for pixels in (image, other))
    assert (whole != other_whole).mean() > 0.1


def test_photographs_of_one_size_go_together(meudec):
    images = noise(3, 21, 30, 3)
    together = deblur(meudec, images)
    alone = np.stack([deblur(meudec, image) for image in images])
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_code_for_many_sizes_is_not_kept_for_ever(monkeypatch):
    generator = generator_model("paper", ngf=4, n_blocks=1)
    made = []
    make = generator.make_predict_function
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(generator, "predict_on_batch", lambda values: values)
    monkeypatch.setattr(generator, "make_predict_function", lambda force: made.append(make(force=force)))
    sizes = [(64 + 4 * number, 64) for number in range(SIZES_COMPILED["jax"])]
    for height, width in 2 * sizes:
        deblur(generator, noise(height, width, 3))
    assert not made, "sizes that come again are compiled once"
    for number in range(2 * SIZES_COMPILED["jax"]):
        deblur(generator, noise(64, 128 + 4 * number, 3))
    assert len(made) == 2


def test_weights_that_are_set_later_count():
    """Also on backends that keep what they compiled; tests/test_backend.py has OpenVINO."""
    first, second = (generator_model("paper", ngf=4, n_blocks=1) for _ in range(2))
    for generator in (first, second):
        generator.set_weights([weight * 9 for weight in generator.get_weights()])
    blurred = noise(40, 70, 3)
    before, wanted = restoring.deblur(first, blurred), restoring.deblur(second, blurred)
    assert (before != wanted).any()
    first.set_weights(second.get_weights())
    np.testing.assert_array_equal(restoring.deblur(first, blurred), wanted)


def test_openvino_compiles_once_for_each_of_the_last_sizes(monkeypatch):
    """Keras keeps the network of one size; `predict_on_batch` below compiles as Keras does."""
    generator = generator_model("paper", ngf=4, n_blocks=1)
    compiled = []

    def predict_on_batch(values):
        if generator.ov_compiled_model is None or generator.ov_input_shapes != values.shape:
            compiled.append(values.shape)
            generator.ov_compiled_model, generator.ov_input_shapes = object(), values.shape
        return values

    monkeypatch.setattr(keras.backend, "backend", lambda: "openvino")
    monkeypatch.setattr(generator, "predict_on_batch", predict_on_batch)
    # A photograph of 90x60 has the working copies 180x120 and 90x64.
    for height, width in 3 * [(90, 60), (60, 90)]:
        restoring.deblur(generator, noise(height, width, 3))
    assert len(compiled) == 4
    for number in range(20):
        deblur(generator, noise(64, 64 + 4 * number, 3))
    assert len(compiled) == 24 and len(generator._compiled) == SIZES_COMPILED["openvino"]
    for side in (1200, 900):  # 1.4 and 0.8 megapixels, more than are kept together
        deblur(generator, noise(side, 1200 if side > 1000 else side, 3), tile_size=side)
    assert list(generator._compiled) == [(900, 900, 3)]


@pytest.mark.parametrize("tile_size", [None, 64])
def test_strength_goes_from_the_photograph_to_what_is_restored(inventive, tile_size):
    image = noise(70, 90, 3)
    restored = deblur(inventive, image, tile_size)
    np.testing.assert_array_equal(deblur(inventive, image, tile_size, strength=1.0), restored)
    np.testing.assert_array_equal(deblur(inventive, image, tile_size, strength=0.0), image)
    quarter = deblur(inventive, image, tile_size, strength=0.25)
    # A quarter of the way, rounded; the whole way was rounded too. A thousandth for float32.
    away = quarter - (image + 0.25 * (restored.astype(float) - image))
    assert np.abs(away).max() <= 0.5 + 0.25 * 0.5 + 1e-3 and (quarter != image).any()


VIEWS = {
    "left to right": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "transposed": lambda image: image.swapaxes(0, 1),
}


@pytest.mark.parametrize("tile_size", [None, 64])
@pytest.mark.parametrize(
    ("ensemble", "kept"),
    [(1, []), (2, ["left to right"]), (4, ["left to right", "upside down"]), (8, list(VIEWS))],
)
def test_an_ensemble_restores_a_view_as_it_restores_the_image(inventive, ensemble, kept, tile_size):
    image = noise(160, 96, 3)  # whole tiles, which lie symmetrically
    restored = deblur(inventive, image, tile_size, 32, ensemble=ensemble).astype(int)
    for name, view in VIEWS.items():
        of_view = deblur(inventive, np.ascontiguousarray(view(image)), tile_size, 32, ensemble=ensemble)
        away = np.abs(of_view - view(restored))
        assert away.max() <= 1 if name in kept else away.mean() > 1, name


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_an_ensemble_is_the_mean_of_its_views(inventive, ensemble):
    image = noise(64, 96, 3)
    alone = []
    for number in range(ensemble):
        views = [view for bit, view in enumerate(VIEWS.values()) if number >> bit & 1]
        seen = image
        for view in views:
            seen = view(seen)
        restored = deblur(inventive, np.ascontiguousarray(seen))
        for view in reversed(views):
            restored = view(restored)
        alone.append(restored)
    # Half a level from rounding each of them, half from rounding their mean.
    assert np.abs(deblur(inventive, image, ensemble=ensemble) - np.mean(alone, axis=0)).max() <= 1 + 1e-3


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_zero_head_returns_every_pixel_of_an_ensemble(identity, ensemble):
    image = noise(37, 300, 3)
    np.testing.assert_array_equal(deblur(identity, image, ensemble=ensemble), image)


def test_padding_is_out_of_sight(meudec):
    """Sizes that need padding give, away from the border, what a larger cut of the photograph gives."""
    image = noise(96, 96, 3)
    large, small = deblur(meudec, image), deblur(meudec, image[:61, :63])
    assert np.abs(large[:16, :16].astype(int) - small[:16, :16]).max() <= 1


@pytest.fixture(scope="module")
def inventive():
    """A generator with instance normalization whose change is large everywhere, and nowhere beyond black or white."""
    keras.utils.set_random_seed(0)
    generator = generator_model("paper", 4, 1)
    head = generator.get_layer("head_conv")
    head.set_weights([0.3 * head.get_weights()[0], np.full(3, 0.1, np.float32)])
    return generator


@pytest.mark.parametrize(
    ("shape", "tile_size"), [((256, 256), None), ((8, 8), None), ((1, 1), None), ((70, 9), 16), ((256, 256), 128)]
)
def test_where_nothing_is_there_nothing_is_invented(inventive, shape, tile_size):
    flat = np.full((*shape, 3), (200, 30, 128), np.uint8)
    np.testing.assert_array_equal(deblur(inventive, flat, tile_size), flat)


def test_a_tile_without_contrast_stays_so_beside_one_with_contrast(inventive):
    image = noise(64, 192, 3)
    image[:, 64:] = 90
    restored = deblur(inventive, image, tile_size=64, tile_overlap=0)
    np.testing.assert_array_equal(restored[:, 64:], image[:, 64:])
    assert (restored[:, :64] != image[:, :64]).mean() > 0.9


def test_the_change_fades_with_the_photograph(inventive):
    """Below `FULL_CONTRAST`, a copy with a quarter of the contrast gets a quarter of the change, rounded."""
    photograph = 128 + 24 * np.random.default_rng(0).choice([-1, 1], (64, 64, 3))
    change, faded_change = (
        deblur(inventive, image.astype(np.uint8)).astype(int) - image
        for image in (photograph, 128 + (photograph - 128) // 4)
    )
    assert np.abs(change).mean() > 4
    # Both are rounded to whole levels; 1 % for the epsilon of the normalization beside the variance of the faded copy.
    assert np.abs(change / 4 - faded_change).max() <= 0.5 + 0.5 / 4 + 0.01 * np.abs(change).max() / 4


def test_photographs_of_full_contrast_get_the_whole_change(inventive):
    image = noise(64, 64, 3)
    np.testing.assert_array_equal(
        deblur(inventive, image), to_uint8(inventive.predict_on_batch(from_uint8(image[None])))[0]
    )


@pytest.mark.parametrize(("contrast", "share"), [(40, 1), (33, 1), (16, 0.5)])
def test_the_whole_change_begins_at_a_contrast_of_32_levels(inventive, contrast, share):
    image = (128 + contrast * np.random.default_rng(0).choice([-1, 1], (64, 64, 3))).astype(np.uint8)
    whole = inventive.predict_on_batch(from_uint8(image[None]))[0] * 127.5 + 127.5 - image
    change = deblur(inventive, image).astype(int) - image
    assert np.abs(whole).mean() > 4 and np.abs(change - share * whole).max() <= 0.5 + 0.01 * np.abs(whole).max()


def test_contrast_in_any_colour_counts(inventive):
    for colour in range(3):
        image = noise(64, 64, 3)
        image[..., colour] = 128
        np.testing.assert_array_equal(
            deblur(inventive, image), to_uint8(inventive.predict_on_batch(from_uint8(image[None])))[0]
        )


def test_each_photograph_of_a_batch_has_its_own_contrast(inventive):
    photograph = noise(64, 64, 3).astype(int)
    batch = np.stack([128 + (photograph - 128) // faded for faded in (1, 4, 16, 1000)]).astype(np.uint8)
    together = deblur(inventive, batch).astype(int)
    alone = np.stack([deblur(inventive, image) for image in batch])
    assert np.abs(together - alone).max() <= 1 and (np.abs(alone - batch.astype(int)).mean(axis=(1, 2, 3)) > 0).any()


def test_a_small_photograph_is_restored_as_its_reflection(meudec):
    """Within a picture of at least 64 pixels, made by mirroring it."""
    small = noise(12, 20, 3)
    mirrored = np.pad(small, ((0, 52), (0, 44), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(deblur(meudec, small), deblur(meudec, mirrored)[:12, :20])


@pytest.mark.parametrize("length", [8, 12, 100, 256, 1000])
@pytest.mark.parametrize(("tile_size", "overlap"), [(8, 0), (8, 4), (16, 15), (64, 16), (256, 64), (1024, 64)])
def test_windows_cover_and_add_up_to_one(length, tile_size, overlap):
    length -= length % 4
    total = np.zeros(length)
    windows = cut(length, tile_size, overlap)
    for window, weights in windows:
        assert window.start >= 0 and window.stop <= length and window.start % 4 == 0
        assert len(weights) == window.stop - window.start <= min(tile_size, length)
        total[window] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for (left, _), (right, _) in zip(windows, windows[1:], strict=False):
        assert left.stop - right.start >= min(overlap, tile_size - 4) - 3


def test_tiles_equal_the_whole_image_where_they_see_enough(meudec):
    """Two residual blocks see 32 pixels around, a quarter of this overlap; batch normalization sees no further."""
    image = noise(300, 340, 3)
    whole = deblur(meudec, image).astype(int)
    tiled = deblur(meudec, image, tile_size=220, tile_overlap=128)
    assert np.abs(tiled - whole).max() <= 1
    assert np.abs(deblur(meudec, image, tile_size=220, tile_overlap=0) - whole).max() > 1


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), {}, r"image is float32 \(8, 8, 3\); uint8"),
        (np.zeros((8, 8), np.uint8), {}, r"\(8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), {}, r"\(0, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), {"tile_size": 4}, "tile_size=4: must be at least 8"),
        (np.zeros((8, 8, 3), np.uint8), {"tile_size": 16, "tile_overlap": 16}, "tile_overlap=16"),
        (np.zeros((8, 8, 3), np.uint8), {"strength": 1.1}, "strength=1.1: must be from 0 to 1"),
        (np.zeros((8, 8, 3), np.uint8), {"strength": float("nan")}, "strength=nan"),
        (np.zeros((8, 8, 3), np.uint8), {"ensemble": 3}, "ensemble=3: must be one of 1, 2, 4, 8"),
    ],
)
def test_bad_arguments_are_named(identity, image, options, message):
    with pytest.raises(ValueError, match=message):
        deblur(identity, image, **options)


def test_an_answer_that_is_not_finite_is_no_black_picture():
    generator = generator_model("paper", 1, 1)
    head = generator.get_layer("head_conv")
    head.set_weights([np.full_like(weight, np.nan) for weight in head.get_weights()])
    with pytest.raises(FloatingPointError, match="not finite"):
        deblur(generator, noise(8, 8, 3))


def smooth(height, width):
    """A photograph of round spots, a few pixels wide: uint8 `(height, width, 3)`."""
    rows, columns = np.mgrid[:height, :width] / 5
    spots = np.sin(rows)[..., None] * np.sin(columns[..., None] + np.arange(3))
    return np.rint(127.5 + 100 * spots).astype(np.uint8)


@pytest.mark.parametrize(("size", "scale"), [((3000, 4000), 0.24), ((360, 640), 1.5), ((960, 100), 1), ((9, 9), 2)])
def test_the_long_side_of_a_working_copy_is_960_pixels(size, scale):
    image = np.zeros((*size, 3), np.uint8)
    assert choose_scale(image) == pytest.approx(scale)
    assert choose_scale(image.swapaxes(0, 1)) == pytest.approx(scale)


@pytest.mark.parametrize(("width", "side"), [(0, 1920), (1.5, 1440), (12, 960)])
def test_a_large_photograph_with_short_blur_gets_a_larger_working_copy(width, side):
    """Edges every 20 pixels of 3000: sharp, blurred by a little more than a pixel of the smallest copy, and by much."""
    edges = np.kron(np.random.default_rng(0).integers(0, 2, (20, 150)), np.full((20, 20), 255))
    blurred = ndimage.gaussian_filter(edges.astype(float), width)
    image = np.repeat(blurred.astype(np.uint8)[..., None], 3, axis=2)
    assert choose_scale(image) == pytest.approx(side / 3000)
    assert choose_scale(np.ascontiguousarray(image.swapaxes(0, 1))) == pytest.approx(side / 3000)


def test_sharp_parts_of_a_large_photograph_hardly_change(inventive):
    edges = np.kron(np.random.default_rng(0).integers(0, 2, (10, 150)), np.full((20, 20), 60)) + 98.0
    edges[:, 2200:] = ndimage.gaussian_filter(edges, 20)[:, 2200:]
    image = np.repeat(edges.astype(np.uint8)[..., None], 3, axis=2)
    scale = choose_scale(image)
    assert scale == 0.64
    found = restoring.deblur(inventive, image).astype(int) - image
    both = [restoring.deblur(inventive, image, scale=one).astype(int) - image for one in (scale, scale * 2 / 3)]
    # The blend of the two kinds of tiles lies between 1700 and 2700.
    assert all(np.abs(one[:, :1700]).mean() > 10 * np.abs(found[:, :1700]).mean() for one in both)
    assert np.abs(found[:, 2700:]).mean() > 1
    least, most = np.min(both, axis=0)[:, 2700:] - 1, np.max(both, axis=0)[:, 2700:] + 1
    assert np.all((least <= found[:, 2700:]) & (found[:, 2700:] <= most))


def test_photographs_of_one_size_each_get_their_own_working_size(inventive, monkeypatch):
    images = 64 + noise(2, 30, 40, 3) // 2
    images[1] = 64 + images[1] // 2
    monkeypatch.setattr(restoring, "choose_scale", lambda image: 1 if image.max() > 180 else 2)
    together = restoring.deblur(inventive, images)
    for image, found, scale in zip(images, together, (1, 2), strict=True):
        assert distance_from_two_sizes(found, inventive, image, scale) <= 1.05


@pytest.mark.parametrize("scale", [0.01, 0.3, 1, 1.5, "auto"])
@pytest.mark.parametrize("size", [(1, 1), (1, 400), (300, 2), (97, 601)])
def test_zero_head_returns_every_pixel_at_any_working_size(identity, size, scale):
    """Detail beyond the resolution of the working copy stays as it was: noise, of which each pixel is another."""
    image = noise(*size, 3)
    np.testing.assert_array_equal(restoring.deblur(identity, image, scale=scale), image)


def test_a_large_photograph_is_restored_as_its_working_copy(inventive):
    """The difference of a copy of half the size, enlarged, is what is added."""
    image = smooth(120, 160)
    half = resize(image, 60, 80)
    change = deblur(inventive, half).astype(float) - half
    found = restoring.deblur(inventive, image, scale=0.5).astype(float) - image
    expected = resize((128 + change).round().astype(np.uint8), 120, 160).astype(float) - 128
    assert np.abs(change).max() > 10
    assert np.abs(found - expected).mean() < 1


def test_strips_of_a_difference_fit_each_other():
    """A tall photograph is put together in strips; a wave that is added shows no seam, and lies where it should."""
    phases = np.linspace(0, 9, 200, dtype=np.float32)
    wave = np.broadcast_to(0.5 * np.sin(phases)[None, :, None, None], (1, 200, 30, 3))
    restored = add_differences(np.full((1, 1100, 165, 3), 128, np.uint8), [wave], [1]).astype(int)[0, :, 80, 0]
    assert np.abs(np.diff(restored)).max() <= 2
    places = (np.arange(1100) + 0.5) * 200 / 1100 - 0.5
    expected = 128 + 127.5 * 0.5 * np.sin(np.interp(places, np.arange(200), phases))
    assert np.abs(restored - expected).max() < 1


def test_the_sum_of_differences_is_rounded_once():
    image = np.full((1, 8, 8, 3), 100, np.uint8)
    up, down = (np.full((1, 8, 8, 3), level / 127.5, np.float32) for level in (1.4, -0.2))
    assert (add_differences(image, [up, down], [0.5, 0.5]) == 101).all()  # 0.6; alone they round to 1 and 0
    assert (add_differences(image, [up, down], [0.25, 0.25]) == 100).all()


def test_the_copy_that_changes_more_counts_more():
    """The smaller copy alone counts for blur that only it shows; the first has 80 % once it changes as much."""
    second = noise(1, 60, 80, 3).astype(np.float32)
    first = second.repeat(2, axis=1).repeat(2, axis=2)
    shares = [choose_shares(np.float32(factor) * first, second)[0] for factor in np.linspace(0.05, 2, 81)]
    assert shares[0] == 0
    assert shares[-1] == 0.8
    assert np.all(np.diff(shares) >= 0)
    assert np.diff(shares).max() < 0.08  # a video does not flicker between the two
    assert choose_shares(first) == [1]


def test_only_what_both_copies_change_decides_their_shares():
    """Sharp tiles of a large photograph stay as they are in one copy or in both, and have no say."""
    second = noise(1, 60, 80, 3).astype(np.float32) + 1
    first = 0.9 * second
    share, rest = choose_shares(first, second)
    assert 0 < share < 0.8 and share + rest == pytest.approx(1)
    for still in (first, second):
        still[:, :, :40] = 0
        assert choose_shares(first, second)[0] == pytest.approx(share)
    for unchanged in ((np.zeros_like(second), second), (second, np.zeros_like(second))):
        assert choose_shares(*unchanged)[0] == 0.8


def distance_from_two_sizes(found, generator, image, scale, **options):
    """Largest distance in levels from the weighted mean of restoring at a scale and at 2/3 of it, at most 1.

    One share of the first holds for the whole picture: the one that fits best, about that of the rounded results.
    """
    scales = scale, min(scale * 2 / 3, 1)
    first, second = (restoring.deblur(generator, image, scale=one, **options).astype(float) for one in scales)
    apart = first - second
    share = np.sum((found - second) * apart) / np.sum(apart**2)
    working = [resize(image, *(round(side * one) for side in image.shape[:2])) for one in scales]
    changes = [(deblur(generator, copy, **options).astype(np.float32) - copy)[None] for copy in working]
    assert share == pytest.approx(choose_shares(*changes)[0], abs=0.05)
    return np.abs(found - share * first - (1 - share) * second).max()


@pytest.mark.parametrize("ensemble", [1, 2, 4, 8])
def test_a_chosen_working_size_comes_with_a_smaller_one(inventive, ensemble):
    image = 96 + smooth(60, 90) // 4  # far from black and white, where the two would be clipped
    found = restoring.deblur(inventive, image, ensemble=ensemble)
    assert distance_from_two_sizes(found, inventive, image, 2, ensemble=ensemble) <= 1.05
    assert np.abs(found - restoring.deblur(inventive, image, scale=2, ensemble=ensemble).astype(int)).max() > 2


@pytest.mark.parametrize("scale", [0, -1, float("nan"), 4.1, "1", None])
def test_a_scale_out_of_range_is_named(identity, scale):
    with pytest.raises(ValueError, match="^scale=.*: must be 'auto', or above 0 and at most 4"):
        restoring.deblur(identity, noise(8, 8, 3), scale=scale)


def test_photographs_of_several_threads_are_restored_as_alone(inventive):
    images = [noise(64 + 16 * number, 80, 3) for number in range(4)]
    alone = [deblur(inventive, image) for image in images]
    with ThreadPoolExecutor(3) as threads:
        for wanted, found in zip(alone, threads.map(functools.partial(deblur, inventive), images), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_all_frames_of_a_video_get_the_working_size_of_the_first(inventive, monkeypatch):
    first, frame = noise(30, 40, 3), np.full((30, 40, 3), 100, np.uint8)  # far from black and white
    frame[:, 20:] = 150
    monkeypatch.setattr(restoring, "choose_scale", lambda image: 2 if image is first else 1)
    found = restoring.deblur(inventive, frame, scale_of=first)
    assert distance_from_two_sizes(found, inventive, frame, 2) <= 1.05
    assert np.abs(found - restoring.deblur(inventive, frame).astype(int)).max() > 2
