"""Restores the photographs of all visitors, one at a time, in the order in which they come."""

import contextlib
import functools
import io
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from deblur_gan.files import reason
from deblur_gan.images.formats import NotRead, format_of
from deblur_gan.images.photographs import BadImage, encoded, read_photograph
from deblur_gan.restoring.working_size import scaled_size, smaller_scale, smallest_scale
from deblur_gan.web.uploads import Refusal, one_line

# Names in requests, and the number of views that `deblur` averages.
VIEWS = {"fast": 1, "finer": 4, "finest": 8}

# Megapixels of a working copy whose scale the visitor chooses: a flat picture of some kilobytes, enlarged four times,
# would take all memory and keep everybody else waiting.
LARGEST_WORKING_COPY = 50

# Formats that browsers display. The page gets PNG copies of photographs in other formats.
_DISPLAYED = ("AVIF", "BMP", "JPEG", "PNG", "WEBP")


class _Cancelled(Exception):
    """Ends a restoration whose visitor has gone."""


@dataclass(eq=False)  # or each search of the queue would compare whole files, and a removal be no single step
class Job:
    """A photograph in the queue; each is equal to itself only."""

    content: bytes
    name: str
    weights: str  # a key of `Restorer.weights`
    strength: float = 1.0
    scale: str | float = "auto"
    views: str = "fast"
    with_copies: bool = False  # the result has copies that browsers display
    size: tuple = (0, 0)  # (width, height) in pixels; zeros as long as it is unknown
    working_size: tuple = (0, 0)  # at which it is restored; an estimate until the restoration begins
    done: int = 0  # tiles of all views that are restored
    total: int = 0  # 0 before the first tile
    began: float | None = None  # `time.monotonic()` when the restoration began
    reached: float | None = None  # and when the last tile was done
    cancelled: bool = False  # the restoration ends at the next tile
    future: object = None  # `concurrent.futures.Future` of the `Result`

    def look(self):
        """Reads the size from the head of the file, for an estimate of the time; raises Refusal for no photograph.

        Pixels are decoded in the job's turn only: many visitors at once would take the memory. The size of a file whose
        head is damaged stays unknown until then.
        """
        try:
            file_format = format_of(self.content[:512], Path(self.name).suffix)
        except NotRead as error:
            raise Refusal(415, f"{self.name}: {error}") from None
        size = self.size
        with contextlib.suppress(Exception):  # parsers meet damage with whatever they trip over
            open_head, _ = Image.OPEN[file_format]  # not `Image.open`, which refuses photographs of 200 megapixels
            size = open_head(io.BytesIO(self.content), "").size
        if min(size) > 0:
            self.plan(size)

    def plan(self, size):
        """Estimates `working_size` for a photograph of a size; raises Refusal if `scale` makes it too large."""
        working_size = scaled_size(size, smallest_scale(max(size)) if self.scale == "auto" else self.scale)
        if self.scale != "auto" and math.prod(working_size) > LARGEST_WORKING_COPY * 1_000_000:
            width, height = working_size
            raise Refusal(
                422,
                f"scale {self.scale:g}: the working copy would have {width}x{height} pixels; at most "
                f"{LARGEST_WORKING_COPY} megapixels are allowed: take a smaller scale, or auto",
            )
        self.working_size, self.size = working_size, size

    def cost(self, views):
        """Returns how many times longer `views` take than one view of a tile of 256 pixels."""
        scales = [max(self.working_size) / max(self.size)]
        if self.scale == "auto":  # a second copy is restored, too
            scales.append(smaller_scale(scales[0]))
        sizes = [scaled_size(self.size, scale) for scale in scales]
        return VIEWS[views] * sum(max(1, width / 208) * max(1, height / 208) for width, height in sizes)


@dataclass
class Result:
    """A restored photograph."""

    content: bytes  # of the image file, in the format of the original
    media_type: str
    size: tuple
    seconds: float  # from reading to encoding
    notes: list = field(default_factory=list)  # what is not kept, as `Photograph.notes`
    copies: list = field(default_factory=list)  # PNG files of before and after, if browsers do not display the format

    @property
    def n_bytes(self):
        """int, of the content and the copies."""
        return len(self.content) + sum(map(len, self.copies))


class Restorer:
    """A queue of photographs, and the thread that restores them; `weights` maps names to paths of weight files.

    >>> restorer = Restorer({"faithful": shipped_generator()})
    >>> restorer.start()
    >>> restorer.submit(job := Job(Path("photo.jpg").read_bytes(), "photo.jpg", "faithful"))
    >>> job.future.result().size
    (1280, 720)
    """

    def __init__(self, weights):
        self.weights = weights
        self.jobs = []  # the one that is being restored, then those that wait
        self.ready = False  # the first weights are loaded
        self.error = None  # that ended loading
        self._generators = {}
        self._seconds_per_tile = {}
        self._thread = ThreadPoolExecutor(1, "restorer")

    def start(self, failed=lambda: None):
        """Loads the first weights in the background; calls `failed`, in another thread, if they cannot be loaded."""
        self._thread.submit(self._load, failed)

    def submit(self, job):
        """Puts a job at the end of the queue, and sets its `future`."""
        self.jobs.append(job)
        job.future = self._thread.submit(self._restore, job)
        job.future.add_done_callback(lambda _: self.jobs.remove(job))

    def cancel(self, job):
        """Takes a job out of the queue, or ends its restoration at the next tile."""
        job.cancelled = True
        if job.future:
            job.future.cancel()

    def close(self):
        """Cancels all jobs, and waits for the thread to end."""
        for job in list(self.jobs):
            self.cancel(job)
        self._thread.shutdown(cancel_futures=True)

    def state(self, job):
        """Returns the state of a job as a dict for JSON: its place in the queue or its tiles, and the seconds left."""
        jobs = list(self.jobs)
        if job.began is None:
            before = jobs[: jobs.index(job)] if job in jobs else []
            seconds = [self._seconds_left(other) for other in [*before, job]]
            return {
                "state": "waiting" if before or self.ready else "loading",
                "place": len(before),
                "seconds": None if None in seconds else round(sum(seconds), 1),
            }
        left = self._seconds_left(job)
        about = {"state": "restoring", "done": job.done, "total": job.total}
        return about | {"seconds": None if left is None else round(left, 1), "times": self.times(job)}

    def times(self, job):
        """Returns the seconds that a photograph takes at each of `VIEWS`: dict, empty as long as nothing is known."""
        pace = self._seconds_per_tile.get(job.weights)
        return {name: round(pace * job.cost(name), 1) for name in VIEWS} if pace and any(job.size) else {}

    def _seconds_left(self, job):
        if job.done:
            left = (job.reached - job.began) / job.done * (job.total - job.done)
            return max(0.0, left - (time.monotonic() - job.reached))
        return self.times(job).get(job.views)

    def _load(self, failed):
        from deblur_gan.backend import start_backend

        try:
            start_backend(restoring=True)
            self._generator(next(iter(self.weights)))
            self.ready = True
        except Exception as error:  # a backend whose parts do not fit fails with whatever its import trips over
            self.error = error
            failed()

    def _generator(self, name):
        from deblur_gan.backend import dtype_to_restore_in
        from deblur_gan.weights import load_generator

        if name not in self._generators:
            self._generators[name] = load_generator(self.weights[name], dtype_to_restore_in())
        return self._generators[name]

    def _restore(self, job):
        from deblur_gan.restoring.deblur import deblur
        from deblur_gan.restoring.photograph import restored_copy

        with _refused_in_words(job):
            generator = self._generator(job.weights)
            job.began = time.monotonic()
            photograph = read_photograph(job.content, job.name)
            job.plan(photograph.pixels.shape[1::-1])
            how = {"strength": job.strength, "ensemble": VIEWS[job.views], "scale": job.scale}
            how["progress"] = functools.partial(_watched, job)
            result = restored_copy(functools.partial(deblur, generator, **how), photograph)
            content, copies = encoded(result), []
            if job.with_copies and photograph.format not in _DISPLAYED:
                copies = [_png(photograph.pixels), _png(result.pixels)]
        seconds = time.monotonic() - job.began
        self._seconds_per_tile[job.weights] = seconds / job.cost(job.views)
        height, width = result.pixels.shape[:2]
        return Result(content, Image.MIME[result.format], (width, height), round(seconds, 2), result.notes, copies)


def _watched(job, tiles):
    """Yields the tiles and counts them; raises `_Cancelled` at the next tile if the job is cancelled."""
    job.total = len(tiles)
    job.working_size = tiles[0][0].size[::-1]
    for tile in tiles:
        if job.cancelled:
            raise _Cancelled
        yield tile
        job.done, job.reached = job.done + 1, time.monotonic()


@contextlib.contextmanager
def _refused_in_words(job):
    """Turns what a photograph can meet into a `Refusal` that names no path of this machine."""
    try:
        yield
    except (_Cancelled, Refusal):
        raise
    except BadImage as error:
        raise Refusal(415, error) from None
    except MemoryError:
        raise Refusal(503, f"{job.name}: there is not enough memory now; try again later") from None
    except Exception as error:
        print(one_line(f"{job.name}: could not be restored ({reason(error)})"), flush=True)
        raise Refusal(500, f"{job.name}: could not be restored; the server has printed the reason") from None


def _png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
