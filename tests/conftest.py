"""What several test files stand on: pictures and folders of pairs, made from a seed; JAX that compiles quickly."""

import contextlib
import importlib.util
import os
import random
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from deblur_gan import backend
from deblur_gan.data.pairs import Pair

ROOT = Path(__file__).resolve().parent.parent

# Workers of pytest-xdist share the cores: more threads than cores wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    n_threads = str(max(1, os.cpu_count() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", n_threads)
    os.environ.setdefault("OMP_NUM_THREADS", n_threads)

# What a test compiles it runs once or twice: optimized machine code costs more than it saves, above all on JAX.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"
if os.environ.get("KERAS_BACKEND") == "jax":
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}"


HAS_OPENVINO = importlib.util.find_spec("openvino") and backend._keras_version() >= backend.KERAS_FOR_OPENVINO

# On which a process starts soonest, for what does not depend on the backend.
QUICKEST_BACKEND = "openvino" if HAS_OPENVINO else os.environ.get("KERAS_BACKEND")


def child_environment(**changes):
    """The environment of a process that a test starts: it finds this checkout, and nothing that JAX set on import here.

    `changes` are more variables; None takes one out.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": None, **changes}
    return {name: value for name, value in environment.items() if value is not None}


def free_port():
    """Returns a port for a process that will listen later, below those that systems give out by themselves."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


def noise(seed, height=40, width=48):
    """A picture of which each pixel is another: uint8 `(height, width, 3)`."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photograph(seed, height=40, width=48):
    """Areas of many colours with edges between them: uint8 `(height, width, 3)`."""
    areas = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (2, 2, 0))
    return (127.5 + 127.5 * np.tanh(15 * areas)).astype(np.uint8)


def blur(image, width=2):
    """Blurs horizontally with a Gaussian of `width` pixels."""
    return gaussian_filter(image.astype(float), (0, width, 0)).astype(np.uint8)


def save(path, pixels):
    """Writes a picture, with the folders it needs, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_pairs(folder, names, kinds=("blur", "sharp"), first=0, **size):
    """Writes `folder/<kind>/<name>.png` for each name, the photographs of the seeds from `first` on."""
    for seed, name in enumerate(names, first):
        sharp = photograph(seed, **size)
        save(folder / kinds[0] / f"{name}.png", blur(sharp))
        save(folder / kinds[1] / f"{name}.png", sharp)
    return folder


def negatives(folder, n_pairs, **size):
    """Pairs whose blurred image is the negative of the sharp one, so that every pixel tells where it belongs."""
    pairs = []
    for number in range(n_pairs):
        sharp = noise(number, **size)
        pairs.append(
            Pair(
                str(number),
                "",
                save(folder / "A" / f"{number}.png", 255 - sharp),
                save(folder / "B" / f"{number}.png", sharp),
            )
        )
    return pairs


@pytest.fixture
def pairs(tmp_path):
    """A folder of nine pairs of 40x48 pixels, called `train`."""
    return write_pairs(tmp_path / "images" / "train", range(9))


@pytest.fixture(scope="session")
def identity_weights(tmp_path_factory):
    """A file of weights that return every pixel."""
    from deblur_gan import generator_model, save_generator

    generator = generator_model("paper", 1, 1)
    head = generator.get_layer("head_conv")
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    path = tmp_path_factory.mktemp("weights") / "identity.h5"
    save_generator(generator, path)
    return path


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium that Playwright drives; the tests that need it skip where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason='needs Playwright: pip install -e ".[test]"')
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs Chromium or Chrome on the PATH (Debian: apt-get install chromium)")
    flags = (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --disable-dev-shm-usage"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags.split(), timeout=120_000)
        yield browser
        browser.close()
