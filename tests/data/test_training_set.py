import io
import os
import resource
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import child_environment, negatives, noise, save
from PIL import Image

from deblur_gan.blur.camera import mixed_blur
from deblur_gan.data.pairs import Pair
from deblur_gan.data.training_set import TrainingSet
from deblur_gan.images.photographs import BadImage
from deblur_gan.images.pixels import from_uint8


def places(image, sample):
    """Where in `image` the `sample` was cut out: list of (top, left, mirrored)."""
    size = sample.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size, 3))[:, :, 0]
    found = []
    for mirrored in (False, True):
        same = (windows == (sample[:, ::-1] if mirrored else sample)).all(axis=(2, 3, 4))
        found += [(int(top), int(left), mirrored) for top, left in np.argwhere(same)]
    return found


def test_blurred_and_sharp_get_the_same_crop_and_flip(tmp_path):
    training = TrainingSet(negatives(tmp_path, 3), crop_size=16, scale=1)
    for index in range(30):
        blurred, sharp = training.sample(0, index)
        assert sharp.shape == (16, 16, 3) and sharp.dtype == np.uint8
        np.testing.assert_array_equal(blurred, 255 - sharp)


def test_parts_make_the_batch(tmp_path):
    """The samples of several processes, one behind the other, are those of one."""
    pairs, settings = negatives(tmp_path, 3), {"batch_size": 6, "crop_size": 16, "scale": 1, "seed": 7}
    whole = TrainingSet(pairs, **settings)
    parts = [TrainingSet(pairs, **settings, part=(number, 3)) for number in range(3)]
    assert {part.steps_per_epoch for part in parts} == {whole.steps_per_epoch}
    for step in range(3):
        found = [np.concatenate(images) for images in zip(*(part.batch(step) for part in parts), strict=True)]
        np.testing.assert_array_equal(found, whole.batch(step))


def test_crops_fall_everywhere_and_half_are_mirrored(tmp_path):
    image = noise(0, 20, 19)
    pairs = negatives(tmp_path, 1, height=20, width=19)
    training = TrainingSet(pairs, crop_size=16, scale=1)
    found = [places(image, training.sample(0, index)[1]) for index in range(400)]
    assert all(len(where) == 1 for where in found)
    counts = Counter((top, left) for ((top, left, _),) in found)
    assert set(counts) == {(top, left) for top in range(5) for left in range(4)}
    assert max(counts.values()) < 2.5 * 400 / 20
    assert 160 < sum(mirrored for ((_, _, mirrored),) in found) < 240


def test_crops_differ_from_epoch_to_epoch(tmp_path):
    image = noise(0, 40, 48)
    training = TrainingSet(negatives(tmp_path, 1), crop_size=16, scale=1)
    crops = {places(image, training.sample(epoch, 0)[1])[0] for epoch in range(30)}
    assert len(crops) > 25


def test_turned_samples_are_the_same_samples_turned(tmp_path):
    """Blurred and sharp alike, by each number of quarter turns as often; crops and mirroring stay those of the seed."""
    pairs = negatives(tmp_path, 3)
    plain, turned = (TrainingSet(pairs, crop_size=16, scale=1, seed=5, turn=turn) for turn in (False, True))
    quarters = Counter()
    for index in range(200):
        (_, upright), (blurred, sharp) = plain.sample(0, index), turned.sample(0, index)
        np.testing.assert_array_equal(blurred, 255 - sharp)
        (found,) = [n for n in range(4) if np.array_equal(np.rot90(upright, n), sharp)]
        quarters[found] += 1
    assert len(quarters) == 4 and min(quarters.values()) > 30


def test_samples_depend_on_seed_epoch_and_index_alone(tmp_path):
    pairs = negatives(tmp_path / "pairs", 5)
    options = {"batch_size": 2, "crop_size": 16, "scale": 0.8}
    expected = TrainingSet(pairs, n_workers=1, **options)
    steps = 3 * expected.steps_per_epoch
    batches = [expected.batch(step) for step in range(steps)]
    for cache in (None, "memory", tmp_path / "new" / "cache", str(tmp_path / "new" / "cache")):
        for first in (0, 3):
            again = TrainingSet(pairs, n_workers=3, cache=cache, **options).batches(first, steps)
            for batch, other in zip(batches[first:], again, strict=True):
                np.testing.assert_array_equal(batch, other)
    other = TrainingSet(pairs, seed=1, **options).batch(0)
    assert not np.array_equal(batches[0], other)
    for batch, endless in zip(batches[1:], expected.batches(1), strict=False):
        np.testing.assert_array_equal(batch, endless)
    assert len({blurred.tobytes() for blurred, _ in batches}) == steps  # no two batches are the same


def test_batches_are_what_the_networks_take(tmp_path):
    training = TrainingSet(negatives(tmp_path, 2), batch_size=2, crop_size=16, scale=1)
    blurred, sharp = training.batch(0)
    assert blurred.shape == sharp.shape == (2, 16, 16, 3) and blurred.dtype == sharp.dtype == np.float32
    np.testing.assert_array_equal(sharp[1], from_uint8(training.sample(0, 1)[1]))
    np.testing.assert_allclose(blurred, -sharp, atol=1e-6)


@pytest.mark.parametrize(("n_pairs", "batch_size", "steps_per_epoch"), [(7, 1, None), (7, 3, None), (5, 2, 4)])
def test_every_pair_is_seen_once_before_any_is_seen_again(tmp_path, n_pairs, batch_size, steps_per_epoch):
    pairs = [
        Pair(str(i), "", *[save(tmp_path / f"{i}.png", np.full((8, 8, 3), i, np.uint8))] * 2) for i in range(n_pairs)
    ]
    training = TrainingSet(pairs, batch_size=batch_size, crop_size=8, steps_per_epoch=steps_per_epoch)
    assert training.steps_per_epoch == (steps_per_epoch or n_pairs // batch_size)
    n_batches = 3 * n_pairs
    seen = [int(np.round((image.mean() + 1) * 127.5)) for s in range(n_batches) for image in training.batch(s)[1]]
    stretches = [tuple(seen[i : i + n_pairs]) for i in range(0, len(seen) - n_pairs + 1, n_pairs)]
    assert all(sorted(stretch) == list(range(n_pairs)) for stretch in stretches)
    assert len(set(stretches)) > 1


def test_images_are_reduced_but_never_below_the_crop(tmp_path):
    for size, expected in [((80, 120), (40, 60)), ((50, 100), (32, 64)), ((20, 30), (32, 48)), ((32, 32), (32, 32))]:
        pair = negatives(tmp_path / str(size), 1, height=size[0], width=size[1])[0]
        training = TrainingSet([pair], crop_size=32, scale=0.5)
        blurred, sharp = training.whole(pair)
        assert blurred.shape == sharp.shape == (*expected, 3)
        assert training.sample(0, 0)[0].shape == (32, 32, 3)


def test_reducing_averages_and_does_not_shift(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], (80, 120, 3))
    path = save(tmp_path / "ramp.png", ramp)
    half, _ = TrainingSet([Pair("ramp", "", path, path)], crop_size=16, scale=0.5).whole(Pair("ramp", "", path, path))
    np.testing.assert_allclose(half[5, 3:-3, 0], np.arange(0, 240, 4)[3:-3] + 1, atol=1)


def test_resize_takes_the_whole_image(tmp_path):
    pair = negatives(tmp_path, 1, height=60, width=100)[0]
    training = TrainingSet([pair], crop_size=32, resize_or_crop="resize")
    expected = np.asarray(Image.open(pair.sharp).resize((32, 32), Image.Resampling.BICUBIC))
    _, sharp = training.sample(0, 0)
    assert np.array_equal(sharp, expected) or np.array_equal(sharp[:, ::-1], expected)


def test_photographs_are_blurred_on_the_fly(tmp_path):
    photograph = noise(0, 64, 64)
    path = save(tmp_path / "photograph.png", photograph)

    def blur(image, rng, window):
        np.testing.assert_array_equal(image, photograph)  # what lies around the crop is blurred into it
        return 255 - image[window]

    training = TrainingSet([], [path], blur=blur, crop_size=32)
    for index in range(10):
        blurred, sharp = training.sample(0, index)
        assert len(places(photograph, sharp)) == 1
        np.testing.assert_array_equal(blurred, 255 - sharp)


def test_the_blur_of_the_paper_averages(tmp_path):
    """A path of 5 px or more averages pixels that have nothing to do with each other: their variance falls."""
    path = save(tmp_path / "photograph.png", noise(0, 64, 64))
    training = TrainingSet([], [path], blur=mixed_blur({"paper": 1}), crop_size=32)
    for index in range(10):
        blurred, sharp = training.sample(0, index)
        assert len(places(noise(0, 64, 64), sharp)) == 1
        assert blurred.std() < 0.9 * sharp.std()
    blurred, sharp = training.blurred_whole(path, 0)
    assert blurred.shape == sharp.shape and blurred.std() < 0.9 * sharp.std()


def test_pairs_and_photographs_are_mixed_one_to_two(tmp_path):
    pairs = negatives(tmp_path / "pairs", 4)
    photographs = [save(tmp_path / f"{i}.png", noise(100 + i)) for i in range(5)]
    options = {"batch_size": 3, "crop_size": 16, "scale": 1}
    training = TrainingSet(pairs, photographs, blur=lambda image, rng, window: image[window], **options)
    assert training.steps_per_epoch == 4
    kinds = [np.array_equal(*training.sample(0, index)) for index in range(12)]
    assert sum(kinds) == 8
    for step in range(4):
        assert sum(kinds[3 * step : 3 * step + 3]) == 2


def numbered(folder, first, n):
    """Photographs of one grey level each, which tells them apart."""
    return [save(folder / f"{i}.png", np.full((16, 16, 3), i, np.uint8)) for i in range(first, first + n)]


def test_sources_give_their_shares(tmp_path):
    """Each source gives its share at any moment, within one sample, and holds nothing back before it repeats."""
    pairs = [Pair(path.stem, "", path, path) for path in numbered(tmp_path, 0, 8)]
    photographs = numbered(tmp_path, 8, 7)
    shares, source_of = [(1, 3), (2, 5), (4, 7)], [0] * 3 + [1] * 5 + [2] * 7
    options = {"blur": lambda image, rng, window: image[window], "crop_size": 16, "scale": 1, "batch_size": 2}
    training = TrainingSet(pairs, photographs, shares=shares, **options)
    assert training.steps_per_epoch == 7
    n_samples = 7 * 30
    seen = [int(training.sample(*divmod(number, 14))[1][0, 0, 0]) for number in range(n_samples)]
    again = TrainingSet(pairs, photographs, shares=shares, **options)
    assert seen[100] == again.sample(*divmod(100, 14))[1][0, 0, 0]
    for source, (share, n) in enumerate(shares):
        counts = np.cumsum([source_of[item] == source for item in seen])
        assert counts[-1] == n_samples * share // 7
        assert np.abs(counts - np.arange(1, n_samples + 1) * share / 7).max() <= 1
        own = [item for item in seen if source_of[item] == source]
        stretches = [own[i : i + n] for i in range(0, len(own) - n + 1, n)]
        assert all(len(set(stretch)) == n for stretch in stretches)
        assert len({tuple(stretch) for stretch in stretches}) > 1
    for wrong in ([(1, 3), (2, 5)], [(0, 8), (1, 7)], [(1, 0), (1, 15)]):
        with pytest.raises(ValueError, match="15 items in all"):
            TrainingSet(pairs, photographs, shares=wrong)


def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path):
    pairs = negatives(tmp_path, 24, height=128, width=128)

    def kept(pairs, cache):
        training = TrainingSet(pairs, crop_size=16, scale=1, n_workers=1, cache=cache)
        tracemalloc.start()
        for step in range(len(pairs)):
            training.batch(step)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size

    kept(pairs, None)  # what Python and Pillow keep of their own
    assert kept(pairs, None) < kept(pairs[:2], None) + 128 * 128 * 3
    assert kept(pairs, "memory") > 24 * 2 * 128 * 128 * 3


def test_cached_images_are_not_decoded_again(tmp_path):
    pairs = negatives(tmp_path, 1)
    cache = tmp_path / "cache"
    sample = TrainingSet(pairs, crop_size=16, cache=cache).sample(0, 0)
    status = pairs[0].sharp.stat()
    pairs[0].sharp.write_bytes(bytes(status.st_size))
    os.utime(pairs[0].sharp, ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_array_equal(TrainingSet(pairs, crop_size=16, cache=cache).sample(0, 0), sample)
    os.utime(pairs[0].sharp)  # a changed file is read anew
    with pytest.raises(BadImage, match=r"0\.png"):
        TrainingSet(pairs, crop_size=16, cache=cache).sample(0, 0)
    pairs[0].sharp.unlink()
    with pytest.raises(BadImage, match=r"0\.png: No such file"):
        TrainingSet(pairs, crop_size=16, cache=cache).sample(0, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": 1.5},
        {"working_scale": (2, 2)},
        {"working_scale": (1, 2)},
        {"crop_size": 48},
        {"resize_or_crop": "resize"},
        {},
    ],
)
def test_a_folder_of_the_cache_serves_runs_with_other_settings(tmp_path, settings):
    """A file of the cache is found again by whatever its pixels depend on, and by nothing else."""
    pairs = negatives(tmp_path, 2, height=36, width=44)
    first = {"crop_size": 40, "scale": 0.5, "cache": tmp_path / "cache"}
    TrainingSet(pairs, **first).batch(0)
    for index in range(6):
        expected = TrainingSet(pairs, **{**first, **settings, "cache": None}).sample(0, index)
        np.testing.assert_array_equal(TrainingSet(pairs, **{**first, **settings}).sample(0, index), expected)


def test_a_file_of_the_cache_that_is_no_image_is_made_again(tmp_path):
    pairs = negatives(tmp_path, 1)
    training = TrainingSet(pairs, crop_size=16, cache=tmp_path / "cache")
    sample = training.sample(0, 0)
    stored = sorted(training.cache.iterdir())
    contents = [path.read_bytes() for path in stored]
    assert len(contents) == 2

    def npy(array):
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    zipped = io.BytesIO()
    np.savez(zipped, np.zeros((40, 48, 3), np.uint8))
    for damaged in (
        b"",
        b"text",
        contents[0][:60],
        contents[0][:-1],
        contents[0].replace(b"(", b"[", 1),
        zipped.getvalue(),
        npy(np.zeros((40, 48, 3))),
        npy(np.zeros((40, 48), np.uint8)),
        npy(np.zeros((8, 48, 3), np.uint8)),
    ):
        stored[0].write_bytes(damaged)
        np.testing.assert_array_equal(training.sample(0, 0), sample)
        assert stored[0].read_bytes() == contents[0]


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    pairs = negatives(tmp_path, 1)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="file"):
        TrainingSet(pairs, crop_size=16, cache=file)
    training = TrainingSet(pairs, crop_size=16, cache=tmp_path / "cache")
    # No file may grow beyond this, as on a disk that fills up while it is written.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            list(training.batches(0, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert Path(caught.value.filename).parent == training.cache and caught.value.strerror == "File too large"
    assert not list(training.cache.iterdir())


def test_an_unreadable_file_is_named(tmp_path):
    pairs = negatives(tmp_path, 2)
    pairs[1].blurred.write_bytes(b"")
    with pytest.raises(BadImage, match=str(pairs[1].blurred)):
        list(TrainingSet(pairs, crop_size=16).batches(0, 4))


def test_data_does_not_import_tensorflow_on_jax(tmp_path):
    negatives(tmp_path, 2)
    program = """
import sys
from deblur_gan.data.pairs import find_pairs
from deblur_gan.data.training_set import TrainingSet
import deblur_gan.training
pairs, _ = find_pairs(sys.argv[1])
list(TrainingSet(pairs, crop_size=16).batches(0, 2))
assert "tensorflow" not in sys.modules
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, env=child_environment(KERAS_BACKEND="jax"), check=True)


def test_a_crop_is_brought_to_its_working_scale_after_the_blur(tmp_path):
    """A ramp stays a ramp: at twice the size its slope is half, in the blurred and in the sharp image alike."""
    across = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None], 60, axis=0)
    ramp = np.stack([across, across.T, across], axis=-1)
    pair = Pair("0", "", save(tmp_path / "A" / "0.png", 255 - ramp), save(tmp_path / "B" / "0.png", ramp))
    slopes = {}
    for working_scale in ((1, 1), (1.5, 1.5), (2, 2), (1, 2)):
        training_set = TrainingSet([pair], crop_size=32, scale=1, working_scale=working_scale, seed=3)
        samples = [training_set.sample(0, index) for index in range(12)]
        for blurred, sharp in samples:
            assert blurred.shape == sharp.shape == (32, 32, 3)
            assert np.abs(255 - blurred.astype(int) - sharp).max() <= 1
        slopes[working_scale] = [
            float(np.abs(np.diff(sharp[8:-8, 8:-8, 0].astype(float))).mean()) for _, sharp in samples
        ]
    np.testing.assert_allclose(slopes[1, 1], 4)
    np.testing.assert_allclose(slopes[1.5, 1.5], 4 / 1.5, atol=0.15)
    np.testing.assert_allclose(slopes[2, 2], 2, atol=0.1)
    assert min(slopes[1, 2]) < 2.7 < 3.3 < max(slopes[1, 2]) <= 4.1
