"""What is trained on: crops of pairs and of photographs blurred on the fly, in batches, each a function of the seed."""

import functools
import hashlib
import io
import itertools
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from deblur_gan.blur.camera import mixed_blur
from deblur_gan.files import write_bytes
from deblur_gan.images.photographs import BadImage, read_rgb
from deblur_gan.images.pixels import from_uint8


class TrainingSet:
    """An endless stream of batches of blurred and sharp crops, every sample a function of seed, epoch and index.

    All pairs (and all photographs) are seen once in a new random order before any is seen again, also across epochs.
    Where there are both, two of three samples are photographs blurred on the fly, as for the best model of the paper.
    With `shares` the same holds for each source: it gives its share of the samples, evenly among those of the others.

    Images are reduced by `scale` on reading, bicubic with antialiasing, but never below the crop; smaller ones are
    enlarged until the crop fits. Photographs that are blurred on the fly are not reduced. A crop falls anywhere with
    equal chance and is mirrored in half of the samples, blurred and sharp alike; with `turn` it is also turned by a
    random number of quarter turns.

    Args:
        pairs: list of `Pair`, may be empty if there are photographs.
        photographs: list of Path of sharp images to blur on the fly.
        blur: function that takes a photograph, uint8 `(H, W, 3)`, a `numpy.random.Generator` and a window
            `(rows, columns)`, slices of the photograph, and returns the blurred uint8 of that window; None for
            `blur.mixed_blur({"handheld": 1})`.
        shares: list of `(share, n)`, int above 0: the next `n` of `pairs`, then of `photographs`, are a source that
            gives `share` in the sum of all shares of the samples. None for one source of pairs, one of photographs.
        batch_size: int, samples in a batch.
        crop_size: int, height and width of a sample in pixels.
        scale: float above 0, factor to both sides of the images of `pairs`.
        working_scale: `(low, high)`, floats from 0.25 to 4. After the blur, a crop of `crop_size / factor` pixels is
            resized to `crop_size`, bicubic with antialiasing, blurred and sharp alike. Each sample draws its factor
            from this range. `restore` enlarges small photographs, and a generator learns so what it is shown there.
        resize_or_crop: "crop", or "resize" to take the whole image squeezed into the size of the crop.
        turn: bool, whether samples are turned.
        seed: int.
        steps_per_epoch: int, batches that make an epoch; None for each pair once (with the photographs it takes two
            thirds of the epoch), or, without pairs, each photograph once; with `shares`, as many samples as there
            are pairs and photographs.
        cache: None, "memory" or a folder, which is made where it is missing: where decoded, reduced images are kept as
            uint8. A file in it that is cut off or not an image is made anew.
        n_workers: int, threads that prepare batches ahead.
        part: `(number, count)`, int: of every batch, `batches` and `batch` prepare the samples of part `number`, from 0
            on, of `count` equal ones, for one of several processes that share every batch.

    Raises:
        OSError: if the folder of `cache` cannot be made or written to, here and from whatever reads images. It has the
            name of the file that cannot be written and the reason as `filename` and `strerror`.

    Reference: https://arxiv.org/abs/1711.07064, section 5
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
        self.pairs = list(pairs)
        self.photographs = list(photographs)
        self.blur = blur or mixed_blur({"handheld": 1})
        self._sources, self._turns = _sources(self.pairs + self.photographs, shares) if shares else (None, None)
        self.batch_size = batch_size
        self.crop_size = crop_size
        self.scale = scale
        self.cropped_sides = math.ceil(crop_size / working_scale[1]), math.floor(crop_size / working_scale[0])
        self.resize_or_crop = resize_or_crop
        self.turn = turn
        self.seed = seed
        self.cache = cache if cache in (None, "memory") else Path(cache)
        if isinstance(self.cache, Path):
            self.cache.mkdir(parents=True, exist_ok=True)
        self.n_workers = n_workers
        self.part = part
        self._in_memory = {}
        n_samples = len(self.pairs) * (3 if self.photographs else 1) or len(self.photographs)
        if shares:
            n_samples = len(self.pairs) + len(self.photographs)
        self.steps_per_epoch = steps_per_epoch or max(1, n_samples // batch_size)

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
        with ThreadPoolExecutor(self.n_workers, thread_name_prefix="batches") as pool:
            ahead = deque()
            try:
                for step in itertools.count(first) if last is None else range(first, last):
                    ahead.append(pool.submit(self.batch, step))
                    if len(ahead) > 2 * self.n_workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def batch(self, step):
        """Batch number `step` of the run, counted from 0 over all epochs; see `batches`."""
        epoch, step = divmod(step, self.steps_per_epoch)
        number, count = self.part
        size = self.batch_size // count
        first = step * self.batch_size + number * size
        samples = [self.sample(epoch, index) for index in range(first, first + size)]
        blurred, sharp = zip(*samples, strict=True)
        return from_uint8(np.stack(blurred)), from_uint8(np.stack(sharp))

    def sample(self, epoch, index):
        """One sample, always the same for the same seed, epoch and index.

        Returns:
            `(blurred, sharp)`: uint8 `(crop_size, crop_size, 3)`.
        """
        number = epoch * self.steps_per_epoch * self.batch_size + index
        rng = np.random.default_rng((self.seed, epoch, index))
        if self._sources:
            cycle, place = divmod(number, len(self._turns))
            source, turn = self._turns[place]
            share, items = self._sources[source]
            item = self._drawn(items, cycle * share + turn, source)
            blurred, sharp = self._of_photograph(item, rng) if isinstance(item, Path) else self._of_pair(item, rng)
        elif not self.photographs:
            blurred, sharp = self._of_pair(self._drawn(self.pairs, number, "pairs"), rng)
        elif not self.pairs:
            blurred, sharp = self._of_photograph(self._drawn(self.photographs, number, "photographs"), rng)
        elif number % 3 == 0:
            blurred, sharp = self._of_pair(self._drawn(self.pairs, number // 3, "pairs"), rng)
        else:
            number -= number // 3 + 1
            blurred, sharp = self._of_photograph(self._drawn(self.photographs, number, "photographs"), rng)
        if sharp.shape[0] != self.crop_size:
            blurred, sharp = (self._resized(image, (self.crop_size, self.crop_size)) for image in (blurred, sharp))
        if rng.random() < 0.5:
            blurred, sharp = blurred[:, ::-1], sharp[:, ::-1]
        if self.turn:
            quarters = int(rng.integers(4))
            blurred, sharp = np.rot90(blurred, quarters), np.rot90(sharp, quarters)
        return blurred, sharp

    def whole(self, pair):
        """A pair as the networks are to see it, without a crop.

        Returns:
            `(blurred, sharp)`: uint8 `(H, W, 3)`, reduced by `scale`, or squeezed for "resize".
        """
        return self._pixels(pair.blurred, self.scale), self._pixels(pair.sharp, self.scale)

    def blurred_whole(self, path, number):
        """A photograph and a blurred copy, always the same for the same seed and number, without a crop.

        Returns:
            `(blurred, sharp)`: uint8 `(H, W, 3)`.
        """
        sharp = self._pixels(path, 1)
        window = slice(0, sharp.shape[0]), slice(0, sharp.shape[1])
        return self.blur(sharp, np.random.default_rng((self.seed, 2, 0, number + 1)), window), sharp

    def _drawn(self, items, number, kind):
        """Item `number` of an endless list in which every stretch of `len(items)` holds each item once."""
        stretch, place = divmod(number, len(items))
        return items[_shuffled(self.seed, kind, stretch, len(items))[place]]

    def _of_pair(self, pair, rng):
        blurred, sharp = self.whole(pair)
        if blurred.shape != sharp.shape:
            raise BadImage(f"{pair.blurred}: not of the size of {pair.sharp}")
        window = self._window(sharp.shape, rng)
        return blurred[window], sharp[window]

    def _of_photograph(self, path, rng):
        sharp = self._pixels(path, 1)
        window = self._window(sharp.shape, rng)
        return self.blur(sharp, rng, window), sharp[window]

    def _window(self, shape, rng):
        smallest, largest = self.cropped_sides
        cropped = smallest if smallest == largest else int(rng.integers(smallest, min(largest, *shape[:2]) + 1))
        top, left = (int(rng.integers(0, side - cropped + 1)) for side in shape[:2])
        return slice(top, top + cropped), slice(left, left + cropped)

    def _pixels(self, path, scale):
        """The pixels of a file in the size they are cropped from, from the cache where there is one."""
        if self.cache is None:
            return self._read_reduced(path, scale)
        if self.cache == "memory":
            key = path, scale
            if key not in self._in_memory:
                self._in_memory[key] = self._read_reduced(path, scale)
            return self._in_memory[key]
        try:
            status = path.stat()
        except OSError as error:
            raise BadImage(f"{path}: {error.strerror}") from None
        size = self.crop_size, scale, self.resize_or_crop
        key = repr((str(path.resolve()), status.st_size, status.st_mtime_ns, size))
        stored = self.cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        pixels = self._mapped(stored)
        if pixels is None:
            pixels = self._read_reduced(path, scale)
            _store(pixels, stored)
        return pixels

    def _mapped(self, stored):
        """The pixels in a file of the cache, read as they are needed; None where there are none that could be used."""
        try:
            pixels = np.lib.format.open_memmap(stored, mode="r")
        except Exception:  # a damaged header raises whatever its parser does
            return None
        fits = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
        return pixels if fits and min(pixels.shape[:2]) >= self.cropped_sides[0] else None

    def _read_reduced(self, path, scale):
        pixels = read_rgb(path)
        height, width = pixels.shape[:2]
        if self.resize_or_crop == "resize":
            size = self.crop_size, self.crop_size
        else:
            factor = max(scale, self.cropped_sides[0] / min(height, width))
            size = round(width * factor), round(height * factor)
        if size == (width, height):
            return pixels
        return self._resized(pixels, size)

    @staticmethod
    def _resized(pixels, size):
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _sources(items, shares):
    """Splits items into sources, and says whose turn it is.

    Returns:
        `(sources, turns)`: list of `(share, items)`; list of `(source, turn)`, one for each sample of a cycle in which
        every source comes as often as its share says, evenly spread: its number, and how often it came before.
    """
    if sum(n for _, n in shares) != len(items) or min(min(pair) for pair in shares) < 1:
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
def _shuffled(seed, kind, stretch, n):
    # A fourth number above 0 keeps this generator apart from those of the samples, which have three; those of
    # `blurred_whole` have a 2 in the second place.
    stream = 3 + kind if isinstance(kind, int) else ("pairs", "photographs").index(kind)
    return np.random.default_rng((seed, stream, stretch, n)).permutation(n)
