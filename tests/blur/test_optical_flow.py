from pathlib import Path

import numpy as np
import pytest
import skimage
from scipy import ndimage

pytest.importorskip("cv2", reason="optical flow requires the extra [video]")

from deblur_gan.blur.camera import blur_image, motion_kernel
from deblur_gan.blur.exposure import to_light
from deblur_gan.blur.optical_flow import (
    blur_along_flow,
    one_opencv_thread,
    optical_flow,
    random_flow_blur,
    speed,
    unreliable_share,
)
from deblur_gan.images.photographs import read_rgb

INSIDE = (slice(24, -24), slice(24, -24))


@pytest.fixture(scope="module")
def photograph():
    return read_rgb(Path(skimage.__file__).parent / "data" / "astronaut.png")[:240, 96:416]


def shifted(image, right, down):
    moved = ndimage.shift(image.astype(float), (down, right, 0), order=3, mode="mirror")
    return np.rint(np.clip(moved, 0, 255)).astype(np.uint8)


def constant_flow(image, right, down):
    return np.broadcast_to(np.float32((right, down)), (*image.shape[:2], 2))


@pytest.mark.parametrize("motion", [(3.3, -1.7), (-9.0, 6.5)])
def test_the_flow_of_a_translation_gives_the_kernel_of_that_translation(photograph, motion):
    following = shifted(photograph, *motion)
    flow = optical_flow(photograph, following)
    assert flow.shape == (240, 320, 2) and flow.dtype == np.float32
    assert np.median(np.linalg.norm(flow - motion, axis=-1)[INSIDE]) < 0.3
    assert speed(flow) == pytest.approx(np.hypot(*motion), rel=0.05)

    straight = np.linspace(-0.5, 0.5, 400)[:, np.newaxis] * motion
    expected = blur_image(photograph, motion_kernel(straight)).astype(float)
    blurred = 255 * blur_along_flow(to_light(photograph, 1.0), flow)
    error = np.abs(blurred - expected)[INSIDE].mean()
    assert error < np.abs(photograph - expected)[INSIDE].mean() / 5
    across = blur_image(photograph, motion_kernel(straight[:, ::-1] * (1, -1)))
    assert error < np.abs(blurred - across)[INSIDE].mean() / 3


def test_a_constant_flow_is_the_mean_of_shifted_copies(photograph):
    light = to_light(photograph, 2.2)
    blurred = blur_along_flow(light, constant_flow(photograph, 6.0, -3.0))
    expected = np.mean(
        [ndimage.shift(light, (-3 * t, 6 * t, 0), order=1, mode="mirror") for t in np.linspace(-0.5, 0.5, 9)], axis=0
    )
    # OpenCV reads at thirty-seconds of a pixel.
    assert np.abs(blurred - expected).mean() < 1 / 255


def test_without_motion_nothing_changes_and_a_flat_picture_stays(photograph):
    light = to_light(photograph, 1.0)
    np.testing.assert_allclose(blur_along_flow(light, constant_flow(photograph, 0, 0)), light, atol=1e-6)
    flow = np.random.default_rng(0).normal(0, 6, (60, 80, 2)).astype(np.float32)
    flat = np.full((60, 80, 3), 0.4)
    np.testing.assert_allclose(blur_along_flow(flat, flow, bend=(3, 2)), flat, atol=1e-5)


def test_a_bend_of_the_camera_moves_nothing_in_the_mean():
    light = np.zeros((61, 61, 1))
    light[30, 30] = 1
    straight = blur_along_flow(light, np.broadcast_to(np.float32((12, 0)), (61, 61, 2)))[..., 0]
    bent = blur_along_flow(light, np.broadcast_to(np.float32((12, 0)), (61, 61, 2)), bend=(0, 6))[..., 0]
    offsets = np.arange(-30, 31)
    for blurred in (straight, bent):
        assert blurred.sum() == pytest.approx(1, abs=1e-3)
        assert blurred.sum(axis=0) @ offsets == pytest.approx(0, abs=0.05)
        assert blurred.sum(axis=1) @ offsets == pytest.approx(0, abs=0.05)
    assert np.abs(offsets[bent.sum(axis=1) > 1e-3]).max() >= 2 > np.abs(offsets[straight.sum(axis=1) > 1e-3]).max()
    # A point leaves a parabola, which is lower by the bend at both ends than in the middle.
    heights = [float(offsets @ bent[:, x] / bent[:, x].sum()) for x in (24, 30, 36)]
    assert heights[0] - heights[1] == pytest.approx(6, abs=0.75) == heights[2] - heights[1]


def test_what_is_drawn_is_the_bend_and_no_pixel_moves_further_than_45_px(photograph, monkeypatch):
    drawn = []

    def spy(light, flow, bend, window):
        drawn.append((flow, np.hypot(*bend)))
        return light

    monkeypatch.setattr("deblur_gan.blur.optical_flow.blur_along_flow", spy)
    flow = constant_flow(photograph, 4, 0).copy()
    flow[100:120, 100:140] = (18, 24)
    for length, fastest in ((4, 30), (6, 45), (20, 45), (60, 45)):
        random_flow_blur(photograph, flow, np.random.default_rng(0), length=length, long_length=None, bend=0.5)
        scaled, bend = drawn.pop()
        assert bend == pytest.approx(0.5 * length)
        assert np.linalg.norm(scaled[0, 0]) == pytest.approx(min(length, 45))
        np.testing.assert_allclose(scaled[110, 120], (0.6 * fastest, 0.8 * fastest), rtol=1e-5)


@pytest.mark.parametrize("outside", [0.0, 1.0])
def test_the_outline_of_what_moves_is_blurred_to_both_sides(outside):
    inside = 1 - outside
    light, flow = np.full((120, 160, 1), outside), np.zeros((120, 160, 2), np.float32)
    light[40:80, 60:100] = inside
    flow[40:80, 60:100] = (16, 0)
    blurred = blur_along_flow(light, flow)[60, :, 0]
    kernel = np.array([0.5, *[1.0] * 15, 0.5]) / 16  # of a way of 16 px
    expected = ndimage.convolve1d(light[60, :, 0], kernel)
    # Flow is known to a few pixels at an edge; one that stays hard is off by half.
    assert np.abs(blurred - expected).max() < 0.2
    assert np.abs(blurred[:48] - outside).max() < 1e-6 and np.abs(blurred[112:] - outside).max() < 1e-6


def test_flow_between_pictures_that_have_nothing_in_common_is_unreliable(photograph):
    following = shifted(photograph, 5, 2)
    assert unreliable_share(optical_flow(photograph, following), optical_flow(following, photograph)) < 0.1
    other = read_rgb(Path(skimage.__file__).parent / "data" / "coffee.png")[:240, :320]
    assert unreliable_share(optical_flow(photograph, other), optical_flow(other, photograph)) > 0.8


@pytest.mark.parametrize(("length", "tolerance"), [(0, 1), (10, 2), (30, 4)])
def test_flow_is_unreliable_if_it_is_off_by_more_than_1_px_and_a_tenth(photograph, length, tolerance):
    forward = constant_flow(photograph, length, 0)
    for off, share in ((0.95 * tolerance, 0), (1.05 * tolerance, 1)):
        assert unreliable_share(forward, constant_flow(photograph, -length, off)) == share


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_number_of_opencvs_threads_is_that_of_before(n_threads):
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(n_threads)
    try:
        with pytest.raises(KeyError), one_opencv_thread():
            assert cv2.getNumThreads() == 1
            raise KeyError
        assert cv2.getNumThreads() == n_threads
    finally:
        cv2.setNumThreads(before)


def test_the_length_is_drawn_anew(photograph):
    quiet = {"bend": None, "long_length": None, "lights": None, "noise_sigma": None, "jpeg": None, "gamma": 1.0}
    for measured, wanted, length in ((2.0, 9.0, 9.0), (0.5, 30.0, 8.0), (50.0, 44.0, 44.0)):
        flow = constant_flow(photograph, measured, 0)
        blurred = random_flow_blur(photograph, flow, np.random.default_rng(0), length=wanted, **quiet)
        expected = blur_along_flow(to_light(photograph, 1.0), constant_flow(photograph, length, 0))
        assert np.abs(blurred - 255 * expected).max() <= 1
    # Where something is much faster than most, it is held to 45 px.
    flow = np.zeros((*photograph.shape[:2], 2), np.float32)
    flow[...] = (1, 0)
    flow[100:120, 100:140] = (0, 40)
    blurred = random_flow_blur(photograph, flow, np.random.default_rng(0), length=10, **quiet)
    assert np.abs(blurred[INSIDE].astype(float) - photograph[INSIDE]).mean() > 1


def test_flow_blur_depends_on_the_generator_alone_and_a_window_is_its_part(photograph):
    flow = constant_flow(photograph, 3, 1)
    first = random_flow_blur(photograph, flow, np.random.default_rng(3))
    assert first.shape == photograph.shape and first.dtype == np.uint8
    assert np.array_equal(first, random_flow_blur(photograph, flow, np.random.default_rng(3)))
    assert not np.array_equal(first, random_flow_blur(photograph, flow, np.random.default_rng(4)))
    window = slice(60, 140), slice(0, 90)
    for seed in range(8):
        quiet = {"noise_sigma": None, "jpeg": None}
        whole = random_flow_blur(photograph, flow, np.random.default_rng(seed), **quiet)[window]
        part = random_flow_blur(photograph, flow, np.random.default_rng(seed), window, **quiet)
        assert np.abs(whole.astype(int) - part).max() <= 1


def test_frames_that_cannot_be_compared_are_named(photograph):
    with pytest.raises(ValueError, match="second is of shape"):
        optical_flow(photograph, photograph[1:])
    with pytest.raises(ValueError, match="frame is 320x31; at least 32x32"):
        optical_flow(photograph[:31], photograph[:31])
    with pytest.raises(ValueError, match="length is 3 to 2"):
        random_flow_blur(photograph, constant_flow(photograph, 1, 1), np.random.default_rng(0), length=(3, 2))
