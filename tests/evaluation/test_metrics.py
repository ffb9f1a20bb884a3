import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from deblur_gan.evaluation.metrics import METRICS, cw_ssim, psnr, ssim, ssim_3d, ssim_luma


def photograph(height, width, seed=0):
    """Smooth areas, edges and some grain, as photographs have them."""
    random = np.random.default_rng(seed)
    areas = gaussian_filter(random.normal(size=(height, width, 3)), (4, 4, 0))
    values = 255 * (np.tanh(20 * areas) + 1) / 2 + random.normal(scale=4, size=areas.shape)
    return values.clip(0, 255).astype(np.uint8)


def blur(image, width=7):
    return uniform_filter(image.astype(float), (1, width, 1)).round().astype(np.uint8)


SIZES = [(11, 11), (48, 64), (181, 97)]


@pytest.mark.parametrize("size", SIZES)
def test_psnr_and_ssim_equal_skimage_and_tensorflow(size):
    sharp = photograph(*size)
    blurred = blur(sharp)
    assert psnr(sharp, blurred) == pytest.approx(peak_signal_noise_ratio(sharp, blurred), abs=1e-6)
    expected = structural_similarity(
        sharp,
        blurred,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=-1,
    )
    assert ssim(sharp, blurred) == pytest.approx(expected, abs=1e-6)
    assert psnr(sharp, blurred) == pytest.approx(float(tf.image.psnr(sharp, blurred, 255)), abs=1e-4)
    assert ssim(sharp, blurred) == pytest.approx(float(tf.image.ssim(sharp, blurred, 255)), abs=1e-4)


def test_subtracting_uint8_would_be_caught():
    """The published bug: differences that wrap around, so that -1 counts as 255 and, squared in 8 bits, as 1."""
    sharp = photograph(48, 64)
    blurred = blur(sharp)
    with np.errstate(over="ignore"):
        wrapped = 10 * np.log10(255**2 / np.mean((sharp - blurred) ** 2))
    true = 10 * np.log10(255**2 / np.mean((sharp.astype(int) - blurred.astype(int)) ** 2))
    assert wrapped > true + 3
    assert psnr(sharp, blurred) == pytest.approx(true, abs=1e-9)


def test_psnr_of_a_known_difference():
    dark, light = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 110, np.uint8)
    assert psnr(dark, light) == psnr(light, dark) == pytest.approx(20 * np.log10(255 / 10))


@pytest.mark.parametrize("name", METRICS)
def test_of_an_image_with_itself(name):
    sharp = photograph(48, 64)
    assert METRICS[name].score(sharp, sharp) == (np.inf if name == "psnr" else pytest.approx(1))


@pytest.mark.parametrize("name", METRICS)
def test_more_blur_scores_less(name):
    sharp = photograph(64, 64)
    scores = [METRICS[name].score(sharp, blur(sharp, width)) for width in (3, 7, 15)]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3


def test_ssim_luma_is_ssim_of_what_pillow_calls_grey():
    sharp = photograph(48, 64)
    grey = np.asarray(Image.fromarray(sharp).convert("L").convert("RGB"))
    assert ssim_luma(sharp, blur(sharp)) != pytest.approx(ssim(sharp, blur(sharp)), abs=1e-3)
    assert ssim_luma(grey, blur(grey)) == pytest.approx(ssim(grey, blur(grey)), abs=1e-6)


def test_ssim_3d_equals_its_definition_summed_pixel_by_pixel():
    sharp = photograph(14, 17)
    image = blur(sharp)
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = line[:, None, None] * line[None, :, None] * line
    window /= window.sum()

    def mean(values):
        around = np.lib.stride_tricks.sliding_window_view(np.pad(values, 5, mode="edge"), (11, 11, 11))
        return np.einsum("hwcijk,ijk->hwc", around, window)

    x, y = sharp.astype(float), image.astype(float)
    covariance = mean(x * y) - mean(x) * mean(y)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    luminance = (2 * mean(x) * mean(y) + 2.55**2) / (mean(x) ** 2 + mean(y) ** 2 + 2.55**2)
    structure = (2 * covariance + 7.65**2) / (variances + 7.65**2)
    assert ssim_3d(sharp, image) == pytest.approx(np.mean(luminance * structure), abs=1e-9)


def test_cw_ssim_equals_pyssim():
    """Figures of pyssim 0.4 on SciPy 1.11: SSIM(sharp).cw_ssim_value(blurred) of these images written as PNG."""
    sharp = photograph(48, 64)
    assert cw_ssim(sharp, blur(sharp)) == pytest.approx(PYSSIM[0], abs=1e-6)
    sharp = photograph(12, 16, seed=1)  # shorter than the widest wavelet
    assert cw_ssim(sharp, blur(sharp)) == pytest.approx(PYSSIM[1], abs=1e-6)


PYSSIM = (0.9942760951887598, 0.9988095409928922)


@pytest.mark.parametrize(
    "image",
    [np.zeros((16, 16, 3), np.float32), np.zeros((16, 16), np.uint8), np.zeros((16, 17, 3), np.uint8)],
    ids=["float", "grey", "other size"],
)
def test_what_is_not_uint8_rgb_of_one_size_is_refused(image):
    sharp = np.zeros((16, 16, 3), np.uint8)
    for metric in METRICS.values():
        with pytest.raises(ValueError, match="required"):
            metric.score(sharp, image)
