import keras
import numpy as np
import pytest
from conftest import blur, photograph
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

import deblur_gan.evaluation.measure as measuring
import deblur_gan.restoring.deblur as deblurring
from deblur_gan.data.pairs import find_pairs
from deblur_gan.evaluation.measure import METRICS, PROTOCOLS, Row, aligned, measure, read_pair, restore_pair, summarize
from deblur_gan.evaluation.metrics import Metric
from deblur_gan.images.photographs import BadImage
from deblur_gan.networks import generator_model


def image_pair(seed, height=36, width=48):
    sharp = photograph(seed, height, width)
    return blur(sharp, 1 + seed % 3), sharp


def arrays(count, **size):
    return [(f"image {number}", *image_pair(number, **size)) for number in range(count)]


def random_generator(scale=0.1, architecture="paper"):
    keras.utils.set_random_seed(0)
    generator = generator_model(architecture, ngf=2, n_blocks=1)
    head = generator.get_layer("head_conv")
    head.set_weights([scale * weight for weight in head.get_weights()])
    return generator


@pytest.fixture
def restored_as(monkeypatch):
    """Makes `deblur` a function of pixels, where what a network does is not the point."""

    def install(function):
        monkeypatch.setattr(measuring, "deblur", lambda _, images, tile_size, ensemble, scale: function(images))

    return install


def test_files_and_arrays_of_the_same_pictures_score_the_same(tmp_path):
    pairs = arrays(3)
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
    for name, blurred, sharp in pairs:
        Image.fromarray(blurred).save(tmp_path / "A" / f"{name}.png")
        Image.fromarray(sharp).save(tmp_path / "B" / f"{name}.png")
    generator = random_generator()
    of_arrays, of_files = (
        [row._replace(seconds=0) for row in measure(generator, source, "half")]
        for source in (pairs, find_pairs(tmp_path)[0])
    )
    assert of_arrays == of_files and len(of_files) == 3
    sharp, blurred, restored = restore_pair(generator, find_pairs(tmp_path)[0][1], "half")
    for metric in METRICS:
        assert of_files[1].blurred[metric] == METRICS[metric].score(sharp, blurred)
        assert of_files[1].restored[metric] == METRICS[metric].score(sharp, restored)


@pytest.mark.parametrize("tile_size", [None, 100])
def test_a_generator_that_changes_nothing_gains_nothing(tile_size):
    generator = random_generator(scale=0)
    for protocol in PROTOCOLS:
        pairs = arrays(1, height=131, width=150)
        [row] = measure(generator, pairs, protocol, tile_size=tile_size, metrics=("psnr", "ssim"))
        assert row.restored == row.blurred and set(row.gain.values()) == {0.0}
        assert np.isfinite(row.restored["psnr"])


def test_the_gain_is_what_the_restored_image_has_over_the_blurred_one(restored_as):
    """Restored is 2 brighter than sharp, blurred 20 darker: differences that wrap around would both look large."""
    sharp = np.full((16, 16, 3), 100, np.uint8)
    restored_as(lambda images: images + 22)
    [row] = measure(None, [("flat", sharp - 20, sharp)], metrics=("psnr",))
    assert row.blurred["psnr"] == pytest.approx(20 * np.log10(255 / 20))
    assert row.restored["psnr"] == pytest.approx(20 * np.log10(255 / 2))
    assert row.gain["psnr"] == pytest.approx(20)  # a tenth of the error


@pytest.mark.parametrize(("protocol", "size"), [("full", (51, 35)), ("half", (25, 17)), ("256", (256, 256))])
def test_a_protocol_comes_before_anything_else(restored_as, protocol, size):
    seen = []
    restored_as(lambda images: seen.append(images) or images)
    [pair] = arrays(1, height=35, width=51)
    [row] = measure(None, [pair], protocol, metrics=("psnr",))
    blurred, sharp = (np.asarray(Image.fromarray(i).resize(size, Image.Resampling.BICUBIC)) for i in pair[1:])
    assert (row.width, row.height) == size
    assert row.blurred["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, blurred), abs=1e-9)
    np.testing.assert_array_equal(seen[0][0], blurred)  # the sharp one never gets there
    np.testing.assert_array_equal(read_pair(pair, protocol)[1], sharp)


def test_only_the_metrics_asked_for_and_the_blurred_ones_once(restored_as, monkeypatch):
    calls = []
    monkeypatch.setitem(measuring.METRICS, "psnr", Metric("", lambda *images: calls.append(images) or 30.0, 2, ""))
    monkeypatch.setitem(measuring.METRICS, "cw_ssim", Metric("", lambda *_: pytest.fail("not asked for"), 2, ""))
    restored_as(lambda images: images + 1)
    known = {}
    first = list(measure(None, arrays(3), metrics=("psnr",), blurred_scores=known))
    assert len(calls) == 6 and known == {("", f"image {number}"): {"psnr": 30.0} for number in range(3)}
    known["", "image 1"] = {"psnr": 20.0}
    again = list(measure(None, arrays(3), metrics=("psnr",), blurred_scores=known))
    assert len(calls) == 9 and [row.gain["psnr"] for row in again] == [0.0, 10.0, 0.0]
    assert set(first[0].restored) == set(first[0].gain) == {"psnr"}
    assert summarize(first)["restored"] == {"psnr": 30.0}
    with pytest.raises(ValueError, match="image 0: two pairs have this name"):
        list(measure(None, arrays(1) * 2, metrics=("psnr",), blurred_scores={}))


def test_pairs_are_read_one_by_one_and_the_restored_image_is_handed_on(restored_as):
    restored_as(lambda images: 255 - images)
    read, handed_on = [], []

    def source():
        for pair in arrays(3):
            read.append(pair)
            yield pair

    rows = measure(
        None, source(), metrics=("psnr",), on_restored=lambda row, image: handed_on.append((row.name, image))
    )
    assert next(rows).name == "image 0" and len(read) == len(handed_on) == 1
    assert handed_on[0][0] == "image 0"
    np.testing.assert_array_equal(handed_on[0][1], 255 - read[0][1])
    rows.close()


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-4, 4)])
def test_aligning_takes_back_a_shift_and_no_more(shift):
    _, sharp = image_pair(0, 40, 60)
    blurred = np.roll(sharp, shift, (0, 1))
    part, inside = aligned(blurred, sharp, 4)
    np.testing.assert_array_equal(part, sharp[4:-4, 4:-4])
    np.testing.assert_array_equal(inside, sharp[4:-4, 4:-4])
    flat = np.full_like(sharp, 7)
    flat[20, 30] = 8  # which lies in every part: of equal ones the least shifted
    assert aligned(flat, np.zeros_like(sharp), 4)[0][16, 26, 0] == 8


def test_blurred_and_restored_are_aligned_each_on_its_own(restored_as):
    _, sharp = image_pair(0, 40, 60)
    blurred, restored = np.roll(sharp, (1, -2), (0, 1)), np.roll(sharp, (-4, 3), (0, 1))
    restored_as(lambda images: np.broadcast_to(restored, images.shape))

    def psnr(align):
        [row] = measure(None, [("one", blurred, sharp)], metrics=("psnr",), align=align)
        return row.blurred["psnr"], row.restored["psnr"]

    assert max(psnr(0)) < 30
    assert psnr(3)[0] == np.inf and psnr(3)[1] < 30
    assert psnr(4) == (np.inf, np.inf)
    shown = restore_pair(None, ("one", blurred, sharp), align=4)
    for image in shown:
        np.testing.assert_array_equal(image, sharp[4:-4, 4:-4])


def test_what_aligning_leaves_must_be_large_enough_to_be_scored():
    pairs = [("one", *image_pair(0, 21, 40))]
    assert len(list(measure(random_generator(), pairs, metrics=("psnr",), align=5))) == 1
    with pytest.raises(BadImage, match="one: 40x21 .* SSIM requires 11 pixels each way plus 6 on each side"):
        list(measure(random_generator(), pairs, metrics=("psnr",), align=6))
    with pytest.raises(ValueError, match="align=-1: must be at least 0"):
        list(measure(random_generator(), pairs, metrics=("psnr",), align=-1))


def test_a_tile_size_that_cannot_be_is_not_taken_for_the_default():
    with pytest.raises(ValueError, match="tile_size=0"):
        list(measure(random_generator(), arrays(1), metrics=("psnr",), tile_size=0))


def test_batches_hold_one_size_and_change_nothing(monkeypatch):
    sizes = [(36, 48)] * 5 + [(20, 48)] + [(36, 48)] * 2
    pairs = [(f"{number}", *image_pair(number, *size)) for number, size in enumerate(sizes)]
    generator, options = random_generator(architecture="meudec"), {"metrics": ("psnr", "ssim")}
    pixels_alone, pixels_batched = {}, {}
    one = list(
        measure(generator, pairs, **options, on_restored=lambda row, image: pixels_alone.update({row.name: image}))
    )

    shapes, deblur = [], measuring.deblur

    def recorded(generator, image, *rest, **options):
        shapes.append(image.shape)
        return deblur(generator, image, *rest, **options)

    monkeypatch.setattr(measuring, "deblur", recorded)
    # One image fits under the limit above which `deblur` would take tiles, two do not.
    monkeypatch.setattr(deblurring, "WHOLE_IMAGE_PIXELS", 4 * 36 * 48)
    monkeypatch.setattr(deblurring, "TILE_SIZE", 16)
    three = list(
        measure(
            generator,
            pairs,
            batch_size=3,
            **options,
            on_restored=lambda row, image: pixels_batched.update({row.name: image}),
        )
    )
    assert shapes == [(3, 36, 48, 3), (2, 36, 48, 3), (1, 20, 48, 3), (2, 36, 48, 3)]
    for alone, batched in zip(one, three, strict=True):
        assert alone.name == batched.name and alone.blurred == batched.blurred
        # The order of sums within a convolution may differ, and with it the rounding of a pixel: by one level.
        difference = pixels_batched[alone.name].astype(int) - pixels_alone[alone.name]
        assert np.abs(difference).max() <= 1
        assert difference.any() or batched.restored == alone.restored


def test_a_pair_that_cannot_be_used_stops_or_is_listed(restored_as):
    restored_as(lambda images: images)
    [good], [small] = arrays(1), arrays(1, height=21)
    other = ("other", image_pair(0)[0], image_pair(0, height=37)[1])
    problems = []
    rows = list(measure(None, [other, good, small], "half", metrics=("psnr",), problems=problems))
    assert [row.name for row in rows] == ["image 0"]
    assert problems == [
        "other: is 48x36, but its sharp version is 48x37; one size is required",
        "image 0: 24x10 under protocol half; SSIM requires 11 pixels each way",
    ]
    with pytest.raises(BadImage, match="is 48x36, but"):
        list(measure(None, [other, good]))


@pytest.mark.parametrize(
    "wrong", [{"protocol": "quarter"}, {"batch_size": 0}, {"metrics": ()}, {"metrics": ["mse"]}], ids=str
)
def test_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        list(measure(None, arrays(1), **wrong))


def test_every_image_counts_the_same_and_perfect_ones_do_not_poison_psnr():
    def row(name, blurred, restored):
        scores = [{"psnr": psnr, "ssim": psnr / 50} for psnr in (blurred, restored)]
        return Row("full", name[0], name, 16, 16, *scores, seconds=1.0)

    infinite = row("b3", float("inf"), 40.0)._replace(blurred={"psnr": float("inf"), "ssim": 1.0})
    rows = [row("a1", 20.0, 30.0), row("b1", 30.0, 31.0), row("b2", 31.0, 29.0), infinite]
    summary = summarize(rows)
    assert summary["n_images"] == 4 and summary["n_perfect"] == 1
    assert summary["blurred"]["psnr"] == pytest.approx(27) and summary["restored"]["psnr"] == pytest.approx(30)
    assert summary["gain"]["psnr"] == pytest.approx(3)
    assert summary["blurred"]["ssim"] == pytest.approx((20 / 50 + 30 / 50 + 31 / 50 + 1) / 4)
    assert summarize([infinite])["restored"]["psnr"] is None


def test_between_two_infinities_there_is_no_gain(restored_as):
    restored_as(lambda images: images)
    sharp = image_pair(0)[1]
    [row] = measure(None, [("perfect", sharp, sharp)], metrics=("psnr", "ssim"))
    assert row.perfect and np.isinf(row.blurred["psnr"]) and np.isnan(row.gain["psnr"]) and row.gain["ssim"] == 0
