from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from deblur_gan.blur.camera import blur_image, mixed_blur, motion_kernel, random_blur
from deblur_gan.blur.exposure import average_frames, blend_moving, blur_light, develop, time_weights, to_light
from deblur_gan.blur.ranges import KINDS, draw
from deblur_gan.blur.trajectories import (
    handheld_trajectory,
    random_outline,
    random_roll,
    random_trajectory,
    uneven_progress,
)
from deblur_gan.images.photographs import read_rgb

SEEDS = range(200)


@pytest.fixture(scope="module")
def photograph():
    return read_rgb(Path(skimage.__file__).parent / "data" / "astronaut.png")[:192, 96:320]


def blur_image_with_roll(image, trajectory, roll, gamma=1.0):
    """Blurs a photograph by a camera that shifts and turns by `roll` degrees around its viewing axis."""
    light, weights = to_light(image, gamma), time_weights(len(trajectory))
    return develop(blur_light(light, trajectory, weights, roll, np.radians(1) * 1j), gamma)


def random_paths():
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        yield random_trajectory(rng, length=rng.uniform(0, 80), shake=rng.uniform(0, 0.01))


def tent_integral(x):
    """The integral of max(0, 1 - |t|) from -infinity to x."""
    x = np.clip(x, -1, 1)
    return np.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2)


@pytest.mark.parametrize("length", [0.0, 1.0, 17.3, 60.0, 500.0])
@pytest.mark.parametrize("steps", [2, 100, 2000])
def test_a_path_has_the_length_asked_for_and_constant_speed(length, steps):
    for seed in range(20):
        path = random_trajectory(np.random.default_rng(seed), length, shake=0.005, steps=steps)
        strides = np.linalg.norm(np.diff(path, axis=0), axis=1)
        assert path.shape == (steps, 2)
        assert path[0].tolist() == [0, 0]
        np.testing.assert_allclose(strides, length / (steps - 1), rtol=1e-9, atol=1e-12)


def test_without_shake_the_path_is_straight_and_its_direction_uniform():
    ends = np.array([random_trajectory(np.random.default_rng(seed), 1.0, 0.0, steps=2)[-1] for seed in range(4000)])
    assert np.linalg.norm(ends, axis=1) == pytest.approx(np.ones(4000))
    quadrants = np.bincount(2 * (ends[:, 0] > 0) + (ends[:, 1] > 0), minlength=4)
    assert np.abs(quadrants - 1000).max() < 5 * np.sqrt(750)
    long_path = random_trajectory(np.random.default_rng(1), 60.0, 0.0)
    assert np.linalg.norm(long_path[-1]) == pytest.approx(60)


def test_more_shake_keeps_the_path_closer_to_where_it_began():
    def spread(shake):
        paths = (random_trajectory(np.random.default_rng(seed), shake=shake) for seed in SEEDS)
        return np.median([np.ptp(path, axis=0).max() for path in paths])

    assert 60 * 0.9 > spread(0.001) > 1.3 * spread(0.005) > 1.3**2 * spread(0.02)


def test_big_shakes_are_as_frequent_as_the_paper_has_them():
    # A step turns by more than a right angle only in a big shake: expected 1999 * 0.005 * mean of U(0, 0.2) times.
    counts = []
    for seed in range(400):
        stride = np.diff(random_trajectory(np.random.default_rng(seed), shake=0.005), axis=0)
        counts.append(np.sum(np.sum(stride[1:] * stride[:-1], axis=1) < 0))
    assert np.mean(counts) == pytest.approx(1999 * 0.005 * 0.1, abs=5 * np.std(counts) / np.sqrt(400))
    assert np.std(counts) > 0


def test_one_seed_gives_one_path():
    one, again, other = (random_trajectory(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("extent", [0.0, 0.5, 3.0])
def test_a_roll_has_the_extent_asked_for(extent):
    for seed in range(20):
        roll = random_roll(np.random.default_rng(seed), extent, steps=300)
        assert roll.shape == (300,)
        assert np.ptp(roll) == pytest.approx(extent)


@pytest.mark.parametrize("exposure", [0.25, 1.0])
def test_a_kernel_sums_to_one_is_not_negative_and_is_centred(exposure):
    for path in random_paths():
        kernel = motion_kernel(path[: round(exposure * len(path))])
        side, radius = len(kernel), len(kernel) // 2
        assert kernel.shape == (side, side)
        assert side % 2 == 1
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1, abs=1e-12)
        offsets = np.arange(-radius, radius + 1)
        assert kernel.sum(axis=0) @ offsets == pytest.approx(0, abs=1e-9)
        assert kernel.sum(axis=1) @ offsets == pytest.approx(0, abs=1e-9)
        assert side == 1 or kernel[1:-1, 1:-1].sum() < 1  # just large enough


@pytest.mark.parametrize("length", [1.0, 2.5, 4.0, 13.7])
@pytest.mark.parametrize("angle", [0.0, np.pi / 2])
def test_a_straight_path_along_a_row_or_column_has_the_weights_of_the_integral(length, angle):
    path = np.linspace(0, length, 5000)[:, np.newaxis] * [np.cos(angle), np.sin(angle)] + [3.3, -8.1]
    kernel = motion_kernel(path)
    radius = len(kernel) // 2
    pixels = np.arange(-radius, radius + 1)
    expected = (tent_integral(length / 2 - pixels) - tent_integral(-length / 2 - pixels)) / length
    line = kernel[radius] if angle == 0 else kernel[:, radius]
    np.testing.assert_allclose(line, expected, atol=1e-6)
    assert line.sum() == pytest.approx(1)
    if length == 4:
        np.testing.assert_allclose(line, [1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], atol=1e-6)


def test_a_camera_at_rest_leaves_a_point():
    for path in (np.full((7, 2), 2.7), np.zeros((1, 2))):
        np.testing.assert_allclose(motion_kernel(path), [[1]], rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.2, 3.0])
def test_a_delta_kernel_changes_nothing(gamma):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    noise = np.random.default_rng(0).integers(0, 256, (33, 17, 3), np.uint8)
    delta = np.zeros((9, 5))
    delta[4, 2] = 1
    for image in (ramp, noise):
        for kernel in (delta, np.ones((1, 1))):
            assert np.array_equal(blur_image(image, kernel, gamma=gamma), image)
        at_rest = blur_image_with_roll(image, np.zeros((5, 2)), np.full(5, 30.0), gamma=gamma)
        assert np.array_equal(at_rest, image)


@pytest.mark.parametrize("size", [(40, 30), (1, 1), (1, 50), (7, 2)])
def test_a_constant_image_stays_constant_to_the_border(size):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        value = rng.integers(0, 256, 3)
        image = np.broadcast_to(value.astype(np.uint8), (*size, 3))
        for rotation in (0, 4):
            blurred, _ = random_blur(image, rng, rotation=(rotation, rotation), noise_sigma=(0, 0))
            assert np.array_equal(blurred, image)


@pytest.mark.parametrize("size", [(64, 48), (5, 70), (1, 9), (3, 3)])
def test_blur_is_convolution_with_reflection_over_the_border(size):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    kernel = motion_kernel(random_trajectory(rng, 30.0, shake=0.003))
    assert not np.allclose(kernel, kernel[::-1, ::-1])  # convolution differs from correlation
    for gamma in (1.0, 2.2):
        light = (image / 255) ** gamma
        expected = [ndimage.convolve(light[..., c], kernel, mode="mirror") for c in range(3)]
        expected = 255 * np.stack(expected, axis=-1) ** (1 / gamma)
        assert np.abs(blur_image(image, kernel, gamma=gamma) - expected).max() < 0.5 + 1e-3


def test_brightness_is_kept(photograph):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        for rotation in (0, 1):
            blurred, _ = random_blur(photograph, rng, rotation=(rotation, rotation), noise_sigma=(0, 0), gamma=1.0)
            np.testing.assert_allclose(blurred.mean(axis=(0, 1)), photograph.mean(axis=(0, 1)), atol=1)
            assert blurred.max() <= photograph.max()
            assert blurred.min() >= photograph.min()


def displacement(sharp, blurred):
    """How far the peak of the correlation is from the middle, in px, seen at a scale coarser than the kernels.

    On a finer scale the peak shows where in the kernel the camera stayed longest.
    """
    coarse = [ndimage.gaussian_filter(image.mean(axis=-1), 8.0) for image in (sharp, blurred)]
    window = np.outer(*(np.hanning(side) for side in coarse[0].shape))
    coarse = [(image - coarse[0].mean()) * window for image in coarse]
    shift, _, _ = phase_cross_correlation(*coarse, normalization=None, upsample_factor=10)
    return np.abs(shift).max()


def test_blurred_and_sharp_lie_on_each_other(photograph):
    for seed in range(15):
        rng = np.random.default_rng(seed)
        for rotation in (0, 1):
            blurred, kernel = random_blur(photograph, rng, rotation=(rotation, rotation), noise_sigma=(0, 0), gamma=1.0)
            assert displacement(photograph, blurred) < 1
        off_centre = np.pad(kernel, ((0, 0), (4, 0)))
        assert 1 < displacement(photograph, blur_image(photograph, off_centre)) < 3


def test_noise_has_the_deviation_asked_for_and_is_independent_in_each_channel():
    image = np.full((200, 200, 3), 128, np.uint8)
    noise = blur_image(image, np.ones((1, 1)), noise_sigma=6, gamma=2.2, rng=np.random.default_rng(0)) - 128.0
    assert noise.std() == pytest.approx(np.sqrt(36 + 1 / 12), rel=0.02)  # rounding adds 1/12
    assert noise.mean() == pytest.approx(0, abs=0.1)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.03


def test_roll_is_the_average_of_turned_and_shifted_pictures(photograph):
    image = photograph[:96, :128]
    rng = np.random.default_rng(2)
    path, roll = random_trajectory(rng, 20.0, 0.004, steps=200), random_roll(rng, 6.0, 0.004, steps=200)
    blurred = blur_image_with_roll(image, path, roll)

    weights = np.ones(200)
    weights[[0, -1]] = 0.5
    path = path - np.average(path, axis=0, weights=weights)
    angles = np.radians(roll - np.average(roll, weights=weights))
    middle = (np.array(image.shape[:2]) - 1) / 2
    expected = np.zeros(image.shape)
    for (x, y), angle, weight in zip(path, angles, weights / weights.sum(), strict=True):
        # In rows and columns; a point p comes from where turning back the shifted-back p leads.
        back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offset = middle - back @ (middle + [y, x])
        for channel in range(3):
            expected[..., channel] += weight * ndimage.affine_transform(
                image[..., channel].astype(float), back, offset, order=1, mode="mirror"
            )
    # Both interpolate bilinearly, but not at the same places; a roll to the other side is ten times as far off.
    inside = (slice(12, -12), slice(12, -12))
    error = np.abs(blurred - expected)[inside].mean()
    other_side = np.abs(blur_image_with_roll(image, path, -roll) - expected)[inside].mean()
    assert error < 1
    assert other_side > 5 * error


def test_a_constant_roll_is_the_blur_of_one_kernel(photograph):
    path = random_trajectory(np.random.default_rng(3), 30.0)
    uniform = blur_image(photograph, motion_kernel(path), gamma=2.2)
    assert np.array_equal(blur_image_with_roll(photograph, path, np.full(2000, 7.0), gamma=2.2), uniform)


def test_roll_blurs_the_corners_and_leaves_the_middle():
    checks = np.kron(np.indices((32, 32)).sum(axis=0) % 2, np.full((8, 8), 255)).astype(np.uint8)[..., np.newaxis]
    roll = np.linspace(-2, 2, 500)
    blurred = blur_image_with_roll(checks, np.zeros((500, 2)), roll)
    assert blurred[112:144, 112:144].std() > 1.15 * blurred[:32, :32].std()
    # A quarter turn of the picture gives the same: the turn is around its centre.
    turned = blur_image_with_roll(np.rot90(checks), np.zeros((500, 2)), roll)
    np.testing.assert_allclose(turned, np.rot90(blurred), atol=1)


def test_random_blur_depends_on_the_generator_alone_and_stays_in_its_ranges(photograph):
    image = photograph[:64, :64]
    blurred, kernel = random_blur(image, np.random.default_rng(9))
    again, _ = random_blur(image, np.random.default_rng(9))
    assert blurred.shape == image.shape and blurred.dtype == np.uint8
    assert np.array_equal(blurred, again)
    assert not np.array_equal(blurred, random_blur(image, np.random.default_rng(10))[0])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        blurred, kernel = random_blur(image, rng, length=(8, 10), rotation=(0, 0), noise_sigma=(0, 0))
        assert 1 < len(kernel) <= 2 * 11 + 1
        assert np.array_equal(blurred, blur_image(image, kernel, gamma=2.2))


@pytest.mark.parametrize("bend", [0.0, 0.2, 1.0])
def test_the_path_of_a_hand_ends_where_it_should_and_stays_near_the_straight_line(bend):
    farthest = 0
    for seed in range(400):
        path = handheld_trajectory(np.random.default_rng(seed), 12.0, bend) @ [1, 1j]
        assert path[0] == 0
        assert abs(path[-1]) == pytest.approx(12)
        beside = (path * path[-1].conjugate()).imag / 12
        farthest = max(farthest, np.abs(beside).max())
    assert 0.8 * 12 * bend <= farthest <= 12 * bend + 1e-9


def test_a_hand_goes_in_all_directions_and_bends_to_both_sides():
    paths = [handheld_trajectory(np.random.default_rng(seed), 1.0, 0.5) @ [1, 1j] for seed in range(2000)]
    quadrants = np.bincount([2 * (path[-1].real > 0) + (path[-1].imag > 0) for path in paths], minlength=4)
    assert np.abs(quadrants - 500).max() < 5 * np.sqrt(375)
    sides = np.array([np.mean((path * path[-1].conjugate()).imag) for path in paths])
    assert abs(sides.mean()) < 5 * sides.std() / np.sqrt(2000)
    assert sides.std() > 0.05


def test_a_course_never_goes_back_and_its_mean_over_draws_is_steady():
    courses = np.array([uneven_progress(np.random.default_rng(seed), 50) for seed in range(2000)])
    assert (courses[:, 0] == 0).all() and courses[:, -1] == pytest.approx(np.ones(2000))
    assert np.diff(courses).min() > -1e-12
    error = np.abs(courses.mean(axis=0) - np.linspace(0, 1, 50))
    assert (error <= 5 * courses.std(axis=0) / np.sqrt(2000) + 1e-9).all()
    assert courses[:, 25].std() > 0.1  # uneven


def test_a_range_is_drawn_in_its_share_and_range():
    rng = np.random.default_rng(0)
    values = [draw(rng, "noise", (2, 4, 0.25)) for _ in range(4000)]
    drawn = [value for value in values if value is not None]
    assert abs(len(drawn) - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75)
    assert 2 <= min(drawn) < 2.05 and 3.95 < max(drawn) <= 4
    assert draw(rng, "noise", 3) == 3
    assert draw(rng, "noise", None, "nothing") == draw(rng, "noise", (0, 0, 0.0), "nothing") == "nothing"


def test_turn_and_zoom_around_any_point_is_the_average_of_moved_pictures(photograph):
    image = to_light(photograph[:96, :128], 1.0)
    rng = np.random.default_rng(2)
    path, twist = handheld_trajectory(rng, 9.0, steps=120), uneven_progress(rng, 120)
    weights, growth, centre = time_weights(120), complex(0.06, np.radians(5)), (20.5, 110.0)
    blurred = blur_light(image, path, weights, twist, growth, centre)

    path, twist = path - weights @ path, twist - weights @ twist
    expected = np.zeros(image.shape)
    for (x, y), done, weight in zip(path, twist, weights, strict=True):
        back = np.exp(-done * growth)
        # In rows and columns, with pixel centres at whole numbers: where a point of the result comes from.
        matrix = np.array([[back.real, back.imag], [-back.imag, back.real]])
        middle = np.array([centre[1] - 0.5, centre[0] - 0.5])
        offset = middle - matrix @ (middle + [y, x])
        for channel in range(3):
            expected[..., channel] += weight * ndimage.affine_transform(
                image[..., channel], matrix, offset, order=1, mode="mirror"
            )
    inside = (slice(12, -12), slice(12, -12))
    error = np.abs(blurred - expected)[inside].mean()
    for other in (growth.conjugate(), -growth.conjugate()):
        assert np.abs(blur_light(image, path, weights, twist, other, centre) - expected)[inside].mean() > 4 * error
    assert error < 1 / 255


def boxed(side):
    return lambda picture: ndimage.uniform_filter(picture, (1, side, 1), mode="mirror")


def test_something_that_moves_like_the_rest_is_blurred_like_the_rest(photograph):
    light = to_light(photograph, 2.2)
    mask = random_outline(np.random.default_rng(3), *light.shape[:2])
    assert 0.02 < mask.mean() < 0.9
    same = blend_moving(light, mask, boxed(9), boxed(9))
    np.testing.assert_allclose(same, boxed(9)(light), atol=0.005)
    for covered, other in ((0, boxed(9)), (1, boxed(5))):
        blended = blend_moving(light, np.full_like(mask, covered), boxed(9), boxed(5))
        np.testing.assert_allclose(blended, other(light), atol=1e-5)
    np.testing.assert_allclose(blend_moving(np.full_like(light, 0.3), mask, boxed(9), boxed(5)), 0.3, atol=1e-6)


def test_something_in_front_leaves_no_copy_of_itself_behind():
    mask = np.zeros((40, 60))
    mask[10:30, 20:40] = 1
    light = np.where(mask[..., np.newaxis], 0.0, 1.0)  # black before white
    at_rest = blend_moving(light, mask, boxed(11), lambda picture: picture)
    np.testing.assert_allclose(at_rest, light, atol=2e-3)  # the camera follows it: nothing of it is in what passes by
    moving = blend_moving(light, mask, lambda picture: picture, boxed(11))
    np.testing.assert_allclose(moving, boxed(11)(light), atol=2e-3)


def test_an_outline_is_soft_and_its_part_is_that_of_the_whole():
    for seed in range(20):
        whole = random_outline(np.random.default_rng(seed), 120, 200)
        assert whole.shape == (120, 200)
        assert whole.min() >= 0 and whole.max() <= 1
        assert np.abs(np.diff(whole, axis=1)).max() < 0.75  # no hard edge
        part = random_outline(np.random.default_rng(seed), 120, 200, slice(30, 90), slice(50, 200))
        np.testing.assert_allclose(part, whole[30:90, 50:200], atol=1e-6)


def test_light_beyond_white_is_clipped_after_the_blur():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    still = develop(to_light(values, 2.2, lights=3.0), 2.2)
    assert np.array_equal(still[values <= 250], values[values <= 250])
    assert (still[values > 250] >= values[values > 250]).all()
    lamp = np.zeros((21, 21, 1), np.uint8)
    lamp[10, 10] = 255
    line = np.full((1, 5), 0.2)
    for lights in (1.0, 2.0):
        blurred, _ = random_blur(
            lamp, np.random.default_rng(0), None, None, None, None, 1.0, extent=4, bend=None, lights=lights
        )
        assert blurred.sum() == pytest.approx(255 * lights, abs=8)  # rounding, a level for each pixel it falls on
    assert blur_image(lamp, line).max() == 51


def test_exposures_are_points_along_the_path(photograph):
    def kernel(exposures, extent):
        ranges = {"extent": extent, "bend": None, "exposures": exposures}
        return random_blur(photograph[:32, :32], np.random.default_rng(4), None, None, None, None, 1.0, **ranges)[1]

    assert np.count_nonzero(kernel(5, 12.0)) <= 4 * 5 < np.count_nonzero(kernel(None, 12.0))
    assert np.count_nonzero(kernel(5, 36.0)) > 4 * 5  # more of them, so that none is further than 3 px from the next
    assert kernel(7, 12.0).sum() == pytest.approx(1)


def test_jpeg_is_that_of_pillow(photograph, tmp_path):
    light = to_light(photograph, 2.2)
    Image.fromarray(photograph).save(tmp_path / "30.jpg", quality=30)
    assert np.array_equal(develop(light, 2.2, jpeg=30), read_rgb(tmp_path / "30.jpg"))
    grey = photograph[..., :1]
    assert develop(to_light(grey, 1.0), 1.0, jpeg=80).shape == grey.shape


def test_averaged_frames_are_averaged_as_light(photograph):
    frames = [photograph, photograph[::-1], photograph[:, ::-1]]
    for gamma in (1.0, 2.2):
        mean = np.mean([(frame / 255) ** gamma for frame in frames], axis=0)
        averaged = average_frames(frames, np.random.default_rng(0), gamma=gamma)
        assert np.abs(averaged - 255 * mean ** (1 / gamma)).max() < 0.5 + 1e-3
        window = slice(10, 60), slice(20, 90)
        assert np.array_equal(average_frames(frames, None, window, gamma), averaged[window])


QUIET = {**KINDS["handheld"], "noise_sigma": None, "jpeg": None, "lights": None}


def test_a_hand_moves_nothing_and_keeps_the_brightness(photograph):
    for seed in range(20):
        ranges = {**QUIET, "moving": None, "gamma": 1.0, "long_extent": None}
        blurred, kernel = random_blur(photograph, np.random.default_rng(seed), **ranges)
        assert kernel.sum() == pytest.approx(1)
        assert displacement(photograph, blurred) < 1
        np.testing.assert_allclose(blurred.mean(axis=(0, 1)), photograph.mean(axis=(0, 1)), atol=2)


def test_every_motion_of_a_hand_is_drawn(monkeypatch):
    drawn = []

    def spy(light, trajectory, weights, twist, growth, centre):
        drawn.append((trajectory[-1] - trajectory[0], np.ptp(trajectory @ (1, 0)), growth, centre))
        return light

    monkeypatch.setattr("deblur_gan.blur.camera.blur_light", spy)
    image = np.zeros((60, 100, 3), np.uint8)
    for seed in range(300):
        ranges = {**KINDS["handheld"], "moving": None, "length": None, "tremor": None}
        random_blur(image, np.random.default_rng(seed), **ranges)
    ends, _, growths, centres = map(np.array, zip(*drawn, strict=True))
    extents = np.linalg.norm(ends, axis=1)
    assert abs(np.sum(extents > 20) - 300 * 0.15) < 5 * np.sqrt(300 * 0.15 * 0.85) and 35 < extents.max() <= 40
    for direction, most in ((growths.real, np.log1p(0.02)), (growths.imag, np.radians(1.5))):
        for side in (direction > 0, direction < 0):
            assert abs(np.sum(side) - 75) < 5 * np.sqrt(75 * 0.75)
        assert 0.9 * most < np.abs(direction).max() <= most
    turned = growths != 0
    assert (centres[turned].min(axis=0) < (10, 6)).all() and (centres[turned].max(axis=0) > (90, 54)).all()

    drawn.clear()
    for tremor in (None, 8):
        ranges = {"extent": 0, "tremor": tremor, "bend": None}
        random_blur(image, np.random.default_rng(0), None, None, None, None, 1.0, **ranges)
    (_, at_rest, _, _), (_, trembling, _, _) = drawn
    assert at_rest == 0 < trembling <= 8


def test_a_window_is_that_part_of_the_whole(photograph):
    window = slice(40, 120), slice(100, 180)
    for seed in range(30):
        for ranges in (QUIET, {**QUIET, "rotation": None, "zoom": None}):
            whole, _ = random_blur(photograph, np.random.default_rng(seed), **ranges)
            part, _ = random_blur(photograph, np.random.default_rng(seed), window=window, **ranges)
            error = np.abs(whole[window].astype(int) - part)
            assert error.max() <= (1 if ranges["zoom"] is None else 16)
            assert error.mean() < (0.1 if ranges["zoom"] is None else 0.75)


def test_a_given_mask_is_what_moves(photograph):
    mask = np.zeros(photograph.shape[:2], np.float32)
    mask[60:120, 60:150] = 1
    ranges = {"extent": 0.0, "bend": None, "moving": 15.0}
    blurred, _ = random_blur(photograph, np.random.default_rng(1), None, None, None, None, 2.2, mask=mask, **ranges)
    changed = np.abs(blurred.astype(int) - photograph).max(axis=-1) > 2
    assert changed[60:120, 60:150].mean() > 0.5
    assert not changed[:44].any() and not changed[136:].any() and not changed[:, :44].any()


def test_a_mixture_draws_its_kinds_by_weight(photograph):
    image = photograph[:64, :64]
    for kind, ranges in KINDS.items():
        only = mixed_blur({kind: 2.0, **{other: 0.0 for other in KINDS if other != kind}})
        first = only(image, np.random.default_rng(5))
        assert first.shape == image.shape and first.dtype == np.uint8
        rng = np.random.default_rng(5)
        rng.random()  # which kind
        assert np.array_equal(first, random_blur(image, rng, **ranges)[0])
    both = mixed_blur({"handheld": 1, "paper": 3})
    window = slice(8, 40), slice(8, 40)
    assert both(image, np.random.default_rng(0), window).shape == (32, 32, 3)
    for mix, message in (
        ({"hand": 1}, "kind is 'hand'"),
        ({"paper": -1}, "weight of paper is -1"),
        ({}, "weights is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            mixed_blur(mix)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng, image: random_trajectory(rng, length=-1), "length is -1"),
        (lambda rng, image: random_trajectory(rng, shake=-0.1), "shake is -0.1"),
        (lambda rng, image: random_trajectory(rng, steps=1), "steps is 1"),
        (lambda rng, image: motion_kernel(np.zeros((4, 3))), r"trajectory is of shape \(4, 3\)"),
        (lambda rng, image: motion_kernel(np.zeros((0, 2))), r"trajectory is of shape \(0, 2\)"),
        (lambda rng, image: motion_kernel(np.full((4, 2), np.nan)), "trajectory is not finite"),
        (lambda rng, image: blur_image(image, np.full((2, 3), 1 / 6)), r"kernel is of shape \(2, 3\)"),
        (lambda rng, image: blur_image(image, np.ones((3, 3))), "kernel is a sum of 9"),
        (lambda rng, image: blur_image(image / 255, np.ones((1, 1))), "image is float64"),
        (lambda rng, image: blur_image(image[..., 0], np.ones((1, 1))), r"image is of shape \(8, 8\)"),
        (lambda rng, image: blur_image(image, np.ones((1, 1)), gamma=0), "gamma is 0"),
        (lambda rng, image: blur_image(image, np.ones((1, 1)), noise_sigma=1), "rng is None"),
        (lambda rng, image: random_blur(image, rng, rotation=(2, 1)), "rotation is 2 to 1"),
        (lambda rng, image: random_blur(image, rng, jpeg=(80, 90, 1.5)), "the share of jpeg is 1.5"),
        (lambda rng, image: random_blur(image, rng, jpeg=101), "jpeg is 101"),
        (lambda rng, image: random_blur(image, rng, lights=0.5), "lights is 0.5"),
        (lambda rng, image: handheld_trajectory(rng, -1), "extent is -1"),
        (lambda rng, image: handheld_trajectory(rng, 1, bend=-1), "bend is -1"),
        (lambda rng, image: uneven_progress(rng, 1), "steps is 1"),
    ],
)
def test_an_argument_out_of_range_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}.* is required$"):
        call(np.random.default_rng(0), np.zeros((8, 8, 3), np.uint8))
