"""Scores of an image against its sharp counterpart, both uint8 RGB, as files hold them."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.signal import oaconvolve
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

# The window of SSIM; a smaller image has no score.
SMALLEST_SIDE = 11

_structural_similarity = functools.partial(
    structural_similarity, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
)

# Raised when a definition below changes: older figures are then measured again.
DEFINITIONS = 1


def psnr(sharp, image):
    """Peak signal-to-noise ratio over all pixels and channels, for a peak of 255.

    Args:
        sharp: uint8 `(H, W, 3)` RGB.
        image: uint8 of the same shape, to be compared with it.

    Returns:
        float, decibels; infinity if the two are equal.

    Raises:
        ValueError: if either is not uint8 RGB or their shapes differ.

    >>> sharp = np.zeros((16, 16, 3), np.uint8)
    >>> round(psnr(sharp, sharp + 10), 2)
    28.13
    """
    _require_comparable(sharp, image)
    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(sharp, image, data_range=255))


def ssim(sharp, image):
    """Structural similarity of each colour channel, averaged: Gaussian window of 11 pixels, sigma 1.5.

    The same as `tf.image.ssim`, and as the authors' MATLAB code without its downsampling, on each channel.

    Args, Raises: as `psnr`; height and width are at least 11. Returns float, at most 1.

    Reference: Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861

    >>> sharp = np.zeros((16, 16, 3), np.uint8)
    >>> ssim(sharp, sharp)
    1.0
    """
    _require_comparable(sharp, image)
    return float(_structural_similarity(sharp, image, channel_axis=-1))


def ssim_luma(sharp, image):
    """`ssim` of the 8-bit luma (ITU-R 601, full range) instead of the three colours."""
    _require_comparable(sharp, image)
    return float(_structural_similarity(_luma(sharp), _luma(image)))


def ssim_3d(sharp, image):
    """SSIM that takes colour as a third dimension of space, as MATLAB's `ssim` does when handed an RGB image.

    The window is a Gaussian of 11x11x11, sigma 1.5, over height, width and channel; borders are repeated outwards and
    all pixels count. The papers after MPRNet report this one.
    """
    _require_comparable(sharp, image)
    x, y = sharp.astype(np.float64), image.astype(np.float64)

    def mean(values):
        return gaussian(values, sigma=1.5, truncate=3.5, mode="nearest", preserve_range=True)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    denominator = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(np.mean(numerator / denominator))


def cw_ssim(sharp, image):
    """The "CW-SSIM" of the pyssim package up to 0.6, which DeblurGAN's authors pointed to for their SSIM.

    Not the complex wavelet SSIM of Sampat et al. (2009), which compares steerable pyramids: pyssim lays the rows of
    the luma end to end and correlates this one line with real Ricker wavelets of 1 to 30 pixels. It forgives shifts
    and blur, so that its figures lie far above those of SSIM. pyssim 0.7 took another wavelet transform and gives
    other figures.

    Reference: https://github.com/jterrace/pyssim
    """
    _require_comparable(sharp, image)
    # pyssim's luminance and structure terms share a factor that cancels; what is left needs two sums over the widths.
    # The two real lines are transformed at once, as the real and the imaginary part of one.
    line = (_luma(sharp) + np.complex64(1j) * _luma(image)).ravel()
    products, energies = np.zeros(line.size), np.zeros(line.size)
    for width in range(1, 31):
        points = min(10 * width, line.size)
        x = (np.arange(points) - (points - 1) / 2) / width
        wavelet = 2 / (np.sqrt(3 * width) * np.pi**0.25) * (1 - x**2) * np.exp(-(x**2) / 2)
        response = oaconvolve(line, wavelet.astype(np.float32), mode="same")
        products += response.real * response.imag
        energies += response.real**2 + response.imag**2
    return float(np.mean((2 * np.abs(products) + 0.01) / (energies + 0.01)))


def _luma(image):
    return np.asarray(Image.fromarray(image).convert("L"))


def _require_comparable(sharp, image):
    for name, pixels in (("sharp", sharp), ("image", image)):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"{name} is {pixels.dtype} {pixels.shape}; uint8 (H, W, 3) is required")
    if sharp.shape != image.shape:
        raise ValueError(f"sharp is {sharp.shape} and image is {image.shape}; one shape is required")


class Metric(NamedTuple):
    """A score of an image against its sharp counterpart: a function of `(sharp, image)`, and how tables show it."""

    label: str
    score: Callable
    digits: int
    definition: str


METRICS = {
    "psnr": Metric("PSNR [dB]", psnr, 2, "uint8 RGB, peak 255, one mean squared error over pixels and channels"),
    "ssim": Metric(
        "SSIM", ssim, 4, "uint8 RGB, Gaussian 11x11 sigma 1.5, per channel, then averaged (= tf.image.ssim)"
    ),
    "ssim_luma": Metric("SSIM luma", ssim_luma, 4, "the same on 8-bit ITU-R 601 luma"),
    "ssim_3d": Metric(
        "SSIM 3-D", ssim_3d, 4, "colour as third dimension, Gaussian 11x11x11 sigma 1.5 (= MATLAB's ssim)"
    ),
    "cw_ssim": Metric("CW-SSIM (pyssim)", cw_ssim, 4, "luma rows end to end, Ricker wavelets 1 to 30 (= pyssim 0.4)"),
}
