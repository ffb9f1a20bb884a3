"""Batches of blurred and sharp crops to train on: crops of pairs, and of photographs that are blurred on the fly."""

import functools
import hashlib
import io
import itertools
import math
from pathlib import Path

import numpy as np

from deblur_gan.blur.camera import mixed_blur
from deblur_gan.blur.make_pairs import random_window, run_ahead
from deblur_gan.files import write_bytes
from deblur_gan.images.photographs import BadImage, read_rgb
from deblur_gan.images.pixels import from_uint8, resize


class TrainingSet:
    """An endless stream of batches of blurred and sharp crops, every sample a function of seed, epoch and index.

    Pairs and photographs are two sources; with both, two of three samples are photographs that are blurred on the fly,
    as for the paper's best model. `shares` defines other sources. Each source gives its share of the samples, evenly
    spread among those of the other sources. Each item of a source is drawn once, in a new random order, before any is
    drawn again, also across epochs.

    A sample is made in this order: the images of a pair are resized by `scale`, bicubic with antialiasing, but never
    below the crop (a photograph keeps its size, unless it is smaller than the crop); a crop is taken anywhere with
    equal chance; a photograph is blurred; the crop is resized to `crop_size`; half of the samples are mirrored; with
    `turn`, each is turned by a random number of quarter turns.

    Args:
        pairs: list of `Pair`, may be empty if there are photographs.
        photographs: list of Path of sharp images to blur on the fly.
        blur: function of a photograph, uint8 `(H, W, 3)`, a `numpy.random.Generator` and a window `(rows, columns)`,
            slices of the photograph. It returns the blurred uint8 of the window. None for
            `camera.mixed_blur({"handheld": 1})`.
        shares: list of `(share, n)`, int above 0: the next `n` of `pairs`, then of `photographs`, are a source, and
            `share` divided by the sum of all shares is its part of the samples.
        batch_size: int, samples in a batch.
        crop_size: int, height and width of a sample in pixels.
        scale: float above 0, factor to both sides of the images of `pairs`.
        working_scale: `(low, high)`, floats from 0.25 to 4. Each sample draws a factor from this range: a crop of
            `crop_size / factor` pixels is resized to `crop_size`, bicubic with antialiasing, blurred and sharp alike.
            `restore` enlarges small photographs, and a generator learns the look of enlarged ones.
        resize_or_crop: "crop", or "resize" to squeeze the whole image into the size of the crop.
        turn: bool, turn samples by quarter turns.
        seed: int.
        steps_per_epoch: int, batches in an epoch; None for each pair once (with photographs, the pairs are a third of
            the epoch) or, without pairs, each photograph once; with `shares`, as many samples as pairs and photographs.
        cache: None, "memory" or a folder, which is made if missing: keeps decoded, resized images as uint8. A damaged
            file in the folder is replaced.
        n_workers: int, threads that prepare batches ahead.
        part: `(number, count)`, int: `batches` and `batch` return part `number`, from 0 on, of `count` equal parts of
            every batch, for one of several processes that share every batch.

    Raises:
        OSError: if the folder of `cache` cannot be made or written to, here and in each method that reads images. Its
            `filename` and `strerror` are the file and the reason.

    Reference: https://arxiv.org/abs/1711.07064, section 5

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "night.png")
    ...     Image.new("RGB", (64, 48)).save(path)
    ...     blurred, sharp = TrainingSet([], [path], batch_size=2, crop_size=32).batch(0)
    >>> blurred.shape, sharp.shape
    ((2, 32, 32, 3), (2, 32, 32, 3))
    """

    def __init__(
        self,
        pairs,
        photographs=(),
        *,
        blur=None,
        shares=None,
        batch_size=1,
        crop_size=256,
        scale=0.5,
        working_scale=(1, 1),
        resize_or_crop="crop",
        turn=False,
        seed=0,
        steps_per_epoch=None,
        cache=None,
        n_workers=4,
        part=(0, 1),
    ):
        pairs, photographs = list(pairs), list(photographs)
        n_samples = len(pairs) + len(photographs)
        if shares is None:
            n_samples = len(pairs) * (3 if photographs else 1) or len(photographs)
            shares = [(share, n) for share, n in ((1, len(pairs)), (2, len(photographs))) if n]
        self.sources, self.turns = _divide(pairs + photographs, shares)
        self.blur = blur or mixed_blur({"handheld": 1})
        self.batch_size = batch_size
        self.crop_size = crop_size
        self.scale = scale
        self.smallest = math.ceil(crop_size / working_scale[1])
        # One factor, 1.5, gives one side, rounded up.
        self.largest = max(self.smallest, math.floor(crop_size / working_scale[0]))
        self.resize_or_crop = resize_or_crop
        self.turn = turn
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch or max(1, n_samples // batch_size)
        self.cache = cache if cache in (None, "memory") else Path(cache)
        if isinstance(self.cache, Path):
            self.cache.mkdir(parents=True, exist_ok=True)
        self.n_workers = n_workers
        self.part = part
        self._read_once = functools.cache(self._read_resized)

    def batches(self, first=0, last=None):
        """Yields the batches `first` to `last - 1` of the run, in order, a few prepared ahead by threads.

        Args:
            first: int, counted from 0 over all epochs.
            last: int, or None for batches without end.

        Yields:
            `(blurred, sharp)`: float32 `(batch_size / count of parts, crop_size, crop_size, 3)` in [-1, 1].

        Raises:
            BadImage: if a file has become unreadable.
        """
        steps = itertools.count(first) if last is None else range(first, last)
        yield from run_ahead(self.batch, ((step,) for step in steps), self.n_workers)

    def batch(self, step):
        """Returns batch number `step` of the run, counted from 0 over all epochs, as `batches` yields it."""
        epoch, step = divmod(step, self.steps_per_epoch)
        number, count = self.part
        size = self.batch_size // count
        first = step * self.batch_size + number * size
        blurred, sharp = zip(*(self.sample(epoch, index) for index in range(first, first + size)), strict=True)
        return from_uint8(np.stack(blurred)), from_uint8(np.stack(sharp))

    def sample(self, epoch, index):
        """Returns one sample, always the same for the same seed, epoch and index.

        Returns `(blurred, sharp)`: uint8 `(crop_size, crop_size, 3)`.
        """
        rng = np.random.default_rng((self.seed, epoch, index))
        item = self._draw_item(epoch * self.steps_per_epoch * self.batch_size + index)
        if isinstance(item, Path):
            whole = self._read(item, 1)
            window = self._random_window(whole, rng)
            blurred, sharp = self.blur(whole, rng, window), whole[window]
        else:
            blurred, sharp = self.whole(item)
            if blurred.shape != sharp.shape:
                raise BadImage(f"{item.blurred}: not of the size of {item.sharp}; equal sizes are required")
            window = self._random_window(sharp, rng)
            blurred, sharp = blurred[window], sharp[window]
        blurred, sharp = (resize(image, self.crop_size, self.crop_size) for image in (blurred, sharp))
        if rng.random() < 0.5:
            blurred, sharp = blurred[:, ::-1], sharp[:, ::-1]
        if self.turn:
            quarters = int(rng.integers(4))
            blurred, sharp = np.rot90(blurred, quarters), np.rot90(sharp, quarters)
        return blurred, sharp

    def whole(self, pair):
        """Returns `(blurred, sharp)` of a pair without a crop: uint8 `(H, W, 3)`, resized by `scale` or squeezed."""
        return self._read(pair.blurred, self.scale), self._read(pair.sharp, self.scale)

    def blurred_whole(self, path, number):
        """Returns `(blurred, sharp)` of a photograph without a crop, always the same for the same seed and number."""
        sharp = self._read(path, 1)
        window = slice(0, sharp.shape[0]), slice(0, sharp.shape[1])
        return self.blur(sharp, np.random.default_rng((self.seed, 2, 0, number + 1)), window), sharp

    def _draw_item(self, number):
        """Returns the pair or photograph of sample `number` of the run."""
        cycle, place = divmod(number, len(self.turns))
        source, turn = self.turns[place]
        share, items = self.sources[source]
        # The source is an endless list in which every stretch of `len(items)` contains each item once.
        stretch, place = divmod(cycle * share + turn, len(items))
        return items[_shuffled(self.seed, source, stretch, len(items))[place]]

    def _random_window(self, pixels, rng):
        side = self.smallest
        if side != self.largest:
            side = int(rng.integers(side, min(self.largest, *pixels.shape[:2]) + 1))
        return random_window(rng, pixels, side)

    def _read(self, path, scale):
        """Returns the pixels of a file in the size that crops are taken from, from the cache if possible."""
        if self.cache is None:
            return self._read_resized(path, scale)
        if self.cache == "memory":
            return self._read_once(path, scale)
        try:
            status = path.stat()
        except OSError as error:
            raise BadImage(f"{path}: {error.strerror}") from None
        # The file, and everything that `_read_resized` depends on.
        file = str(path.resolve()), status.st_size, status.st_mtime_ns
        key = repr((file, (scale, self.smallest, self.resize_or_crop)))
        stored = self.cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        pixels = self._read_stored(stored)
        if pixels is None:
            pixels = self._read_resized(path, scale)
            _store(pixels, stored)
        return pixels

    def _read_stored(self, stored):
        """Maps the pixels in a file of the cache into memory; None if the file is missing or unusable."""
        try:
            pixels = np.lib.format.open_memmap(stored, mode="r")
        except Exception:  # a damaged header raises whatever its parser raises
            return None
        fits = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        return pixels if fits and min(pixels.shape[:2]) >= self.smallest else None

    def _read_resized(self, path, scale):
        pixels = read_rgb(path)
        if self.resize_or_crop == "resize":
            return resize(pixels, self.smallest, self.smallest)
        height, width = pixels.shape[:2]
        factor = max(scale, self.smallest / min(height, width))
        return resize(pixels, round(height * factor), round(width * factor))


def _divide(items, shares):
    """Divides items into sources, a list of `(share, items)`, and plans whose turn it is.

    The plan is a list of `(source, turn)`, one for each sample of a cycle in which every source is drawn from `share`
    times, evenly spread: the number of the source, and how often it was drawn from before.
    """
    if not shares or sum(n for _, n in shares) != len(items) or min(min(pair) for pair in shares) < 1:
        raise ValueError(f"shares {shares}: numbers above 0 are required, and {len(items)} items in all")
    ends = itertools.accumulate(n for _, n in shares)
    sources = [(share, items[end - n : end]) for (share, n), end in zip(shares, ends, strict=True)]
    due = sorted(
        ((turn + 0.5) / share, source, turn) for source, (share, _) in enumerate(shares) for turn in range(share)
    )
    return sources, [(source, turn) for _, source, turn in due]


def _store(pixels, path):
    content = io.BytesIO()
    np.save(content, pixels)
    try:
        write_bytes(path, content.getbuffer())
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


@functools.lru_cache(maxsize=8)
def _shuffled(seed, source, stretch, n):
    # Four numbers keep this generator apart from those of the samples, which have three; those of `blurred_whole` have
    # a 2 in the second place.
    return np.random.default_rng((seed, 3 + source, stretch, n)).permutation(n)
