from pathlib import Path

import numpy as np
import pytest
import skimage
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from deblur_gan.blur import (
    blur_image,
    blur_image_with_roll,
    motion_kernel,
    random_blur,
    random_roll,
    random_trajectory,
)
from deblur_gan.photographs import read_rgb

SEEDS = range(200)


@pytest.fixture(scope="module")
def photograph():
    return read_rgb(Path(skimage.__file__).parent / "data" / "astronaut.png")[:192, 96:320]


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
        kernel = motion_kernel(path, exposure)
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


def test_exposure_takes_the_beginning_of_the_path():
    path = random_trajectory(np.random.default_rng(0), steps=2001)
    np.testing.assert_array_equal(motion_kernel(path, 0.25), motion_kernel(path[:501]))


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
    uniform = blur_image(photograph, motion_kernel(path, 0.5), gamma=2.2)
    assert np.array_equal(blur_image_with_roll(photograph, path, np.full(2000, 7.0), 0.5, gamma=2.2), uniform)


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng, image: random_trajectory(rng, length=-1), "length is -1"),
        (lambda rng, image: random_trajectory(rng, shake=-0.1), "shake is -0.1"),
        (lambda rng, image: random_trajectory(rng, steps=1), "steps is 1"),
        (lambda rng, image: motion_kernel(np.zeros((4, 3))), r"trajectory is of shape \(4, 3\)"),
        (lambda rng, image: motion_kernel(np.zeros((0, 2))), r"trajectory is of shape \(0, 2\)"),
        (lambda rng, image: motion_kernel(np.full((4, 2), np.nan)), "trajectory is not finite"),
        (lambda rng, image: motion_kernel(np.zeros((4, 2)), exposure=0), "exposure is 0"),
        (lambda rng, image: blur_image(image, np.full((2, 3), 1 / 6)), r"kernel is of shape \(2, 3\)"),
        (lambda rng, image: blur_image(image, np.ones((3, 3))), "kernel is a sum of 9"),
        (lambda rng, image: blur_image(image / 255, np.ones((1, 1))), "image is float64"),
        (lambda rng, image: blur_image(image[..., 0], np.ones((1, 1))), r"image is of shape \(8, 8\)"),
        (lambda rng, image: blur_image(image, np.ones((1, 1)), gamma=0), "gamma is 0"),
        (lambda rng, image: blur_image(image, np.ones((1, 1)), noise_sigma=1), "rng is None"),
        (lambda rng, image: blur_image_with_roll(image, np.zeros((4, 2)), np.zeros(3)), "roll is 3 angles"),
        (lambda rng, image: random_blur(image, rng, rotation=(2, 1)), "rotation is 2 to 1"),
    ],
)
def test_an_argument_out_of_range_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}.* is required$"):
        call(np.random.default_rng(0), np.zeros((8, 8, 3), np.uint8))
