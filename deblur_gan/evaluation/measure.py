"""`measure` scores a generator on pairs of images under a protocol.

A score means something only with its protocol (the size at which it was computed) and next to the score of the blurred
image; a `Row` has both. `deblur` restores, as for every user. `deblur-gan test` and the validation of a training run
both call `measure`.
"""

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from deblur_gan.data.pairs import Pair
from deblur_gan.evaluation.metrics import METRICS, SMALLEST_SIDE
from deblur_gan.images.photographs import BadImage, read_rgb
from deblur_gan.images.pixels import resize
from deblur_gan.restoring.deblur import deblur

KINDS = ("blurred", "restored", "gain")


class Protocol(NamedTuple):
    """Defines the size to which both images of a pair are brought first, as a function of height and width."""

    size: Callable
    description: str


_BICUBIC = "Pillow's bicubic, which smooths before it shrinks"
PROTOCOLS = {
    "full": Protocol(lambda height, width: (height, width), "native size"),
    "half": Protocol(
        lambda height, width: (height // 2, width // 2),
        f"both images to half height and width first (rounded down; {_BICUBIC})",
    ),
    "256": Protocol(lambda height, width: (256, 256), f"both images squashed to 256x256 first ({_BICUBIC})"),
}


class Row(NamedTuple):
    """The scores of one pair under one protocol.

    `sequence` and `name` are those of the `Pair`, and the sequence of arrays is "". `height` and `width` are pixels
    under the protocol. `blurred` and `restored` are dicts from the names of the metrics to scores. `seconds` is the
    time of `deblur` without reading and scoring, its share of a batch.
    """

    protocol: str
    sequence: str
    name: str
    height: int
    width: int
    blurred: dict
    restored: dict
    seconds: float

    @property
    def pair_id(self):
        return self.sequence, self.name

    @property
    def gain(self):
        """dict from the names of the metrics to restored minus blurred; NaN for two infinities."""
        with np.errstate(invalid="ignore"):
            return {name: float(np.subtract(self.restored[name], self.blurred[name])) for name in self.restored}

    @property
    def perfect(self):
        """bool, the blurred or the restored image equals the sharp one, so that its PSNR is infinite."""
        return any(np.isinf(scores.get("psnr", 0)) for scores in (self.blurred, self.restored))


def measure(
    generator,
    pairs,
    protocol="full",
    *,
    tile_size=None,
    ensemble=1,
    scale="auto",
    align=0,
    batch_size=1,
    metrics=tuple(METRICS),
    blurred_scores=None,
    problems=None,
    on_restored=None,
):
    """Scores a generator on pairs of blurred and sharp images, one after the other.

    Args:
        generator: `keras.Model`, as for `deblur`.
        pairs: iterable of `Pair`, or of `(name, blurred, sharp)` with uint8 `(H, W, 3)` images; read one by
            one, so that it may be a progress bar around a list.
        protocol: key of `PROTOCOLS`.
        tile_size: int, height and width of the tiles in pixels; None is the default of `deblur`.
        ensemble, scale: as `deblur`.
        align: int, pixels by which blurred and restored images may be shifted to fit the sharp one; see `aligned`.
        batch_size: int, consecutive images of one size that are restored at once. It does not change the scores.
        metrics: names of `METRICS` to compute, on the blurred and on the restored image.
        blurred_scores: dict from `Row.pair_id` to the scores of the blurred image. Its scores are not computed again,
            and missing ones are added: pass one dict to several calls on the same pairs. It is valid for one protocol,
            one `align` and one choice of metrics, and no two pairs may have the same name.
        problems: list that gets one line for each pair that cannot be used; None raises `BadImage` instead.
        on_restored: function that is called with each `Row` and the restored image, uint8 `(h, w, 3)`.

    Yields:
        `Row` of each pair that can be used, in the order of `pairs`.

    Raises:
        BadImage: if `problems` is None and a pair cannot be used.
        ValueError: if an argument is out of range.
        FloatingPointError: if the output of the generator is not finite.

    >>> sharp = np.tile(np.arange(64, dtype=np.uint8), (64, 1))[..., None].repeat(3, -1)
    >>> (row,) = measure(generator, [("ramp", sharp, sharp)], metrics=("ssim",))  # doctest: +SKIP
    >>> row.blurred  # doctest: +SKIP
    {'ssim': 1.0}
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol={protocol!r}: must be one of {', '.join(PROTOCOLS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    if align < 0:
        raise ValueError(f"align={align}: must be at least 0")
    if not metrics or not set(metrics) <= METRICS.keys():
        raise ValueError(f"metrics={list(metrics)}: must be some of {', '.join(METRICS)}")
    seen = set()
    with ThreadPoolExecutor(os.cpu_count()) as threads:

        def start_scoring(sharp, image):
            image, sharp = aligned(image, sharp, align)
            return {name: threads.submit(METRICS[name].score, sharp, image) for name in metrics}

        for batch in _batches(pairs, protocol, align, batch_size, problems):
            start = time.perf_counter()
            images = np.stack([blurred for _, blurred, _ in batch])
            all_restored = deblur(generator, images, tile_size, ensemble=ensemble, scale=scale)
            seconds = round((time.perf_counter() - start) / len(batch), 4)
            scores = []
            for (pair_id, blurred, sharp), restored in zip(batch, all_restored, strict=True):
                if blurred_scores is not None and pair_id in seen:
                    raise ValueError(f"{pair_id[1]}: two pairs have this name, and blurred_scores goes by name")
                seen.add(pair_id)
                known = (blurred_scores or {}).get(pair_id)
                scores.append((known, {} if known else start_scoring(sharp, blurred), start_scoring(sharp, restored)))
            for (pair_id, blurred, _), restored, (known, *started) in zip(batch, all_restored, scores, strict=True):
                of_blurred, of_restored = ({name: score.result() for name, score in kind.items()} for kind in started)
                of_blurred = known or of_blurred
                if blurred_scores is not None:
                    blurred_scores[pair_id] = of_blurred
                row = Row(protocol, *pair_id, *blurred.shape[:2], of_blurred, of_restored, seconds)
                if on_restored:
                    on_restored(row, restored)
                yield row


def restore_pair(generator, pair, protocol="full", tile_size=None, ensemble=1, scale="auto", align=0):
    """Restores a pair as `measure` does; returns the parts that are scored, `(sharp, blurred, restored)`."""
    blurred, sharp = read_pair(pair, protocol, align)
    restored = deblur(generator, blurred, tile_size, ensemble=ensemble, scale=scale)
    (blurred, inside), (restored, _) = (aligned(image, sharp, align) for image in (blurred, restored))
    return inside, blurred, restored


def aligned(image, sharp, reach):
    """Cuts out the part of an image that fits the inside of the sharp one best.

    Of all parts shifted by up to `reach` whole pixels down and across it is the one with the least squared error, and
    of equal ones the least shifted. In real pairs the sharp photograph may be shifted against the blurred one, and
    scores would measure this shift. Returns `(part, inside)`, both uint8 `(H - 2 * reach, W - 2 * reach, 3)`.
    """
    if reach == 0:
        return image, sharp
    inside = sharp[reach:-reach, reach:-reach]
    height, width = inside.shape[:2]

    def part(down, across):
        return image[reach + down :, reach + across :][:height, :width]

    def error(shift):
        difference = np.subtract(part(*shift), inside, dtype=np.int32)
        return np.square(difference, out=difference).sum(dtype=np.int64), np.square(shift).sum()

    return part(*min(itertools.product(range(-reach, reach + 1), repeat=2), key=error)), inside


def read_pair(pair, protocol="full", align=0):
    """Reads a `Pair` or `(name, blurred, sharp)` and resizes it for a protocol; returns `(blurred, sharp)`.

    Raises BadImage if a file cannot be read, the two differ in size, or a side is too small for SSIM, with `align`
    pixels left out at each border.
    """
    if isinstance(pair, Pair):
        name, other, blurred, sharp = pair.blurred, pair.sharp, read_rgb(pair.blurred), read_rgb(pair.sharp)
    else:
        name, blurred, sharp = pair
        other = "its sharp version"
    if blurred.shape != sharp.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (blurred, sharp)]
        raise BadImage(f"{name}: is {sizes[0]}, but {other} is {sizes[1]}; one size is required")
    height, width = PROTOCOLS[protocol].size(*sharp.shape[:2])
    if min(height, width) < SMALLEST_SIDE + 2 * align:
        and_reach = f" plus {align} on each side for aligning" if align else ""
        raise BadImage(
            f"{name}: {width}x{height} under protocol {protocol}; "
            f"SSIM requires {SMALLEST_SIDE} pixels each way{and_reach}"
        )
    return resize(blurred, height, width), resize(sharp, height, width)


def _batches(pairs, protocol, align, batch_size, problems):
    """Yields lists of `(pair_id, blurred, sharp)`: up to `batch_size` consecutive pairs of one size."""
    batch = []
    for pair in pairs:
        try:
            blurred, sharp = read_pair(pair, protocol, align)
        except BadImage as error:
            if problems is None:
                raise
            problems.append(str(error))
            continue
        if batch and batch[0][1].shape != blurred.shape:
            yield batch
            batch = []
        batch.append(((pair.sequence, pair.name) if isinstance(pair, Pair) else ("", pair[0]), blurred, sharp))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def summarize(rows):
    """Computes means over a list of `Row` with the same metrics; every image has the same weight.

    An image that equals the sharp one has an infinite PSNR. Its row is left out of the three means of PSNR, so that
    the gain stays the difference of the other two, and counted in `n_perfect`. It counts in all other means.

    Returns:
        dict: `n_images`, `n_perfect`, `seconds_per_image` (the median), and for each of "blurred", "restored" and
        "gain" a dict from the names of the metrics to the mean, None if no row is left.

    >>> row = Row("full", "", "a", 64, 64, {"ssim": 0.5}, {"ssim": 0.75}, seconds=0.2)
    >>> summarize([row])["gain"]
    {'ssim': 0.25}
    """
    summary = {
        "n_images": len(rows),
        "n_perfect": sum(row.perfect for row in rows),
        "seconds_per_image": float(np.median([row.seconds for row in rows])),
    }
    imperfect = [row for row in rows if not row.perfect]
    for kind in KINDS:
        summary[kind] = {}
        for name in rows[0].restored:
            counted = imperfect if name == "psnr" else rows
            summary[kind][name] = float(np.mean([getattr(row, kind)[name] for row in counted])) if counted else None
    return summary
