"""Fixtures of the tests of the server and of the page: a server in a thread, tiny weights, photographs."""

import functools
import io
import json
import queue
import threading
import time
import types
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest
from conftest import photograph
from PIL import Image

from deblur_gan.backend import dtype_to_restore_in
from deblur_gan.networks import generator_model
from deblur_gan.restoring import deblur as deblur_module
from deblur_gan.restoring.deblur import deblur
from deblur_gan.restoring.jobs import find_jobs, restore_files
from deblur_gan.web import server
from deblur_gan.weights import load_generator, save_generator

NAME = "Straße & Café (1).jpg"
PATIENCE = 15  # seconds that a busy machine may take


def eventually(condition):
    """Waits until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Served:
    """A server in a thread of this process.

    Attributes:
        url: str, with a slash at the end.
        port: int.
        restorer: `Restorer`.
    """

    def __init__(self, weights, **options):
        listener = server.listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        started = queue.Queue()
        labels = {name: name.title() for name in weights}
        run = functools.partial(
            server.serve, listener, weights, labels, ready=lambda *both: started.put(both), **options
        )
        self._thread = threading.Thread(target=run)
        self._thread.start()
        self._server, self.restorer = started.get(timeout=PATIENCE)

    def close(self):
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def ask(self, path="", body=None, headers=None):
        """Returns `(status, headers, content)`; a body is posted."""
        request = urllib.request.Request(self.url + path, body, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=4 * PATIENCE) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def post(self, path, name=None, headers=None, **fields):
        """Posts the file at `path` as a form, with more fields."""
        return self.ask("restore", *form(path.read_bytes(), path.name if name is None else name, headers, **fields))

    @property
    def status(self):
        """dict, the answer to `GET /status`."""
        return json.loads(self.ask("status")[2])

    def idle(self):
        """Returns whether nothing is restored, nobody waits and no byte is held."""
        return not self.restorer.jobs and self.status["bytes_held"] == 0


def form(content, name, headers=None, **fields):
    """Returns `(body, headers)` of a form with a photograph."""
    parts = [f'--xx\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    head = f'--xx\r\nContent-Disposition: form-data; name="photograph"; filename="{name}"\r\n\r\n'
    body = b"".join(parts) + head.encode() + content + b"\r\n--xx--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=xx"} | (headers or {})


class Tiles:
    """Takes the place of `deblur`: photographs of 100 tiles, each of which waits until it is released.

    Attributes:
        begun: int, photographs that were begun.
        n_done: int, tiles that are done.
    """

    def __init__(self):
        self.begun = self.n_done = 0
        self._released = threading.Semaphore(0)

    def release(self, number):
        """Lets a number of tiles be done."""
        self._released.release(number)

    def __call__(self, generator, image, progress, **_):
        self.begun += 1
        whole = types.SimpleNamespace(size=image.shape[:2])
        for _ in progress([(whole, number) for number in range(100)]):
            assert self._released.acquire(timeout=4 * PATIENCE)
            self.n_done += 1
        return 255 - image


@pytest.fixture
def tiles(monkeypatch):
    """The `Tiles` of the photographs that are restored during a test."""
    tiles = Tiles()
    monkeypatch.setattr(deblur_module, "deblur", tiles)
    yield tiles
    tiles.release(10_000)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Two tiny generators that change their input, as a dict from name to Path."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for seed, name in enumerate(("faithful", "crisper")):
        keras.utils.set_random_seed(seed)
        paths[name] = folder / f"{name}.h5"
        save_generator(generator_model("meudec", ngf=4, n_blocks=1), paths[name])
    return paths


@pytest.fixture(scope="module")
def served(weights):
    served = Served(weights)
    eventually(lambda: served.restorer.ready)
    yield served
    served.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder: photographs with metadata, a text that is called .jpg, a few kilobytes that claim 100 megapixels."""
    folder = tmp_path_factory.mktemp("pictures")
    exif = Image.Exif()
    exif[0x010E] = "a street"
    exif[0x0112] = 6  # stands on its side
    Image.fromarray(photograph(1, 90, 120)).save(folder / NAME, quality=80, exif=exif, dpi=(300, 300))
    Image.fromarray(photograph(2, 64, 50)).save(folder / "second.png")
    Image.fromarray(photograph(3, 70, 50)).save(folder / "third.tiff")
    (folder / "text.jpg").write_text("this is no picture")
    Image.new("1", (10_000, 10_000)).save(folder / "huge.png")
    return folder


@pytest.fixture(scope="session")
def generators(weights):
    return {name: load_generator(path, dtype_to_restore_in()) for name, path in weights.items()}


@pytest.fixture(scope="session")
def wanted(pictures, generators, tmp_path_factory):
    """A function from a strength to what `deblur-gan restore` makes of the pictures: dict from name to bytes."""

    @functools.cache
    def restored(strength=1.0):
        folder = tmp_path_factory.mktemp("wanted")
        restore = functools.partial(deblur, generators["faithful"], strength=strength)
        list(restore_files(lambda: restore, find_jobs([pictures], folder)[0]))
        results = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert set(results) == {NAME, "second.png", "third.tiff"}
        return results

    return restored


def pixels(content):
    """Returns the pixels of an image file."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
