"""Many photographs: a list of jobs from files and folders, and their restoring one after the other."""

import contextlib
import dataclasses
import functools
import os
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deblur_gan.files import make_folder, printable, reason
from deblur_gan.images.formats import EXTENSIONS, FORMATS_READ, IMAGE_EXTENSIONS, PICTURE_EXTENSIONS
from deblur_gan.images.photographs import BadImage, converted, find_images, read_photograph, write_photograph
from deblur_gan.restoring.photograph import restored_copy
from deblur_gan.video import VIDEO_EXTENSIONS

# Cameras' raw files, GIF and the like, which `read_photograph` refuses.
_NOT_READ = PICTURE_EXTENSIONS - IMAGE_EXTENSIONS


@dataclasses.dataclass
class Job:
    """A photograph or video to be restored from one path to another."""

    source: Path
    target: Path
    problem: str | None = None  # one line with the reason why it cannot be restored
    has_result: bool = dataclasses.field(default=False, repr=False)  # the file at its target is taken for its result

    @property
    def is_video(self):
        """bool, by the extension."""
        return self.source.suffix.lower() in VIDEO_EXTENSIONS

    @property
    def replaces_source(self):
        """bool, whether the result would take the place of the file that it is made from."""
        try:
            return os.path.samefile(self.target, self.source)
        except OSError:  # one of them is missing, or in a folder that is closed
            return False

    def refusal(self, overwrite):
        """Returns one printable line with the reason why it is not restored, if that is known beforehand, or None."""
        if self.problem or overwrite:
            return self.problem
        if self.replaces_source:
            return printable(f"{self.source}: the result would replace it; take another output folder or --overwrite")
        if self.has_result:
            return printable(
                f"{self.source}: {self.target} is there, which has the name of its result; take another suffix or "
                "output folder, or --skip_existing to keep it or --overwrite to replace it"
            )
        return None


@dataclasses.dataclass
class Outcome:
    """The result of a job."""

    job: Job
    error: str | None = None  # one printable line with the file and the reason why it was not restored
    size: tuple = (0, 0)  # (width, height) of what was written, in pixels
    n_frames: int = 1
    original_bytes: int = 0  # of the source, before a result may have replaced it
    notes: list = dataclasses.field(default_factory=list)  # what the result lacks, as `Photograph.notes`
    seconds: float = 0.0  # for reading, restoring and writing; other photographs may be read and written meanwhile


def find_jobs(sources, output_dir, recursive=False, suffix="", file_format=None, shard=(1, 1)):
    """Lists the photographs to restore, and the paths of their restored copies.

    Of a folder these are the files with the extension of a picture, except hidden files and folders and the output
    folder. A file lands in `output_dir` under its name, one from a subfolder in a folder of that name. A photograph
    that would take the name of another's result, or the place of another photograph, is not restored but has a
    `problem`, so that nothing is lost. With a suffix, a file of a folder that has the name of the result of another is
    that result, from an earlier run, and no photograph to restore. A video takes as long as hundreds of photographs: it
    is restored if it is a source itself, and left out of a folder.

    `file_format` is a key of `formats.EXTENSIONS`, or None for each one's own. `shard` is `(number, count)`: of
    all, in the order of their paths, every `count`-th from the `number`-th on.

    Returns:
        `(jobs, left_out)`: list of `Job`, and list of str, lines that name subfolders that were not looked into, and
        videos that were left out.

    Raises:
        BadImage: if a source does not exist, or is a folder without a picture.

    >>> find_jobs(["photo.jpg"], "restored")[0]
    [Job(source=PosixPath('photo.jpg'), target=PosixPath('restored/photo.jpg'), problem=None)]
    """
    output_dir = Path(output_dir)
    jobs, left_out, places, results = [], [], {}, set()
    for source in map(Path, sources):
        if not source.is_dir():
            if not os.path.lexists(source):
                raise BadImage(f"{source}: no such file or folder")
            folder, found = source.parent, [source]
        else:
            folder = source
            found, subfolders, videos = _pictures_below(source, output_dir, recursive)
            if subfolders and not recursive:
                left_out.append(printable(f"{source}: its subfolders are not looked into: {_short_list(subfolders)}"))
            if not found:
                ask = f"{FORMATS_READ} files are required"
                if videos:
                    ask = "name its videos to restore them"
                elif subfolders and not recursive:
                    ask = f"--recursive restores its subfolders: {_short_list(subfolders)}"
                raise BadImage(f"{source}: no image in this folder; {ask}")
            if videos:
                left_out.append(printable(f"{source}: its videos are skipped; name them: {_short_list(videos)}"))
        targets = {
            path: output_dir / path.relative_to(folder).with_name(_result_name(path, suffix, file_format))
            for path in found
        }
        written = {_place(target) for path, target in targets.items() if path.suffix.lower() not in _NOT_READ}
        earlier = written.intersection(map(_place, found)) if suffix else set()
        results |= earlier
        for path, target in targets.items():
            place = _place(path)
            if place not in places and place not in earlier:  # or it was given twice
                places[place] = None
                jobs.append(Job(path, target))
    for job in jobs:
        place = _place(Path(os.path.realpath(job.target)))  # a result is written through a link
        job.has_result = not results.isdisjoint((place, _place(job.target)))
        if place in places and place != _place(job.source):
            clash = f"as {places[place]} is" if places[place] else "which is to be restored itself"
            job.problem = printable(
                f"{job.source}: would be written to {job.target}, {clash}; take another output folder or a suffix"
            )
        else:
            places[place] = job.source
            job.problem = _fault_of_place(job)
    number, count = shard
    return (sorted(jobs, key=lambda job: job.source)[number - 1 :: count] if count > 1 else jobs), left_out


def _pictures_below(folder, output_dir, recursive):
    """Returns the paths of the pictures, the names of the subfolders of the folder, and the names of the videos."""

    def stop(error):
        raise error

    pictures, subfolders, videos = [], None, []
    for place, folders, names in os.walk(folder, onerror=stop):  # it does not follow links, which may lead back
        folders[:] = sorted(
            name
            for name in folders
            if name[0] != "." and not (output_dir.exists() and Path(place, name).samefile(output_dir))
        )
        subfolders = [*folders] if subfolders is None else subfolders
        pictures += find_images(Path(place), PICTURE_EXTENSIONS)
        of_videos = [name for name in names if name[0] != "." and Path(name).suffix.lower() in VIDEO_EXTENSIONS]
        videos += [os.path.relpath(Path(place, name), folder) for name in of_videos]
        if not recursive:
            break
    return pictures, subfolders, sorted(videos)


def _short_list(names):
    return ", ".join(names if len(names) <= 5 else [*names[:5], f"and {len(names) - 5} more"])


def _result_name(source, suffix, file_format):
    extension = source.suffix
    # A raw file is not written, so it must not take the name of the JPEG next to it.
    if file_format and extension.lower() not in {*EXTENSIONS[file_format], *VIDEO_EXTENSIONS, *_NOT_READ}:
        extension = EXTENSIONS[file_format][0]
    return f"{source.stem}{suffix}{extension}"


def _place(path):
    """Returns one text for all names of a file on disk, existing or not."""
    folder = _real_folder(os.path.abspath(path.parent))
    if _ignores_case(folder):
        return os.path.join(folder, unicodedata.normalize("NFC", path.name).casefold())
    return os.path.join(folder, path.name)


def _fault_of_place(job):
    """Returns one line if not even the system can tell whether the target exists: a name may be too long."""
    try:
        os.stat(job.target)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        return printable(
            f"{job.source}: cannot be written to {job.target} ({error.strerror}); take another output folder or a "
            "shorter name"
        )
    return None


@functools.lru_cache(maxsize=1024)
def _real_folder(folder):
    folder = os.path.realpath(folder)
    return unicodedata.normalize("NFC", folder).casefold() if _ignores_case(folder) else folder


@functools.lru_cache(maxsize=1024)
def _ignores_case(folder):
    """Returns whether a file system takes names that differ only in letter case for one: macOS and Windows do."""
    parent, name = os.path.split(folder)
    if name and not (os.path.exists(folder) and name.lower() != name.upper()):
        return _ignores_case(parent)
    swapped = os.path.join(parent, name.swapcase())
    return bool(name) and os.path.exists(swapped) and os.path.samefile(folder, swapped)


def restore_files(
    load,
    jobs,
    file_format=None,
    quality=None,
    side_by_side=False,
    overwrite=False,
    start=None,
    duration=None,
    frame_bar=None,
):
    """Restores photographs and videos in their order; one that fails does not stop the others.

    While one is restored, the next photograph is read and the one before is written. A result replaces an older file of
    its name. Ctrl-C ends the work as soon as the file that is being written is complete.

    Args:
        load: function without arguments that returns another: from the uint8 `(H, W, 3)` pixels of a photograph to
            those of the restored one. Each frame of a video comes with the first one as `scale_of`, see `deblur`. It is
            called once, after a first file has turned out to be readable. Both run in the caller's thread, and so does
            all that concerns videos. What it raises ends the work.
        jobs: iterable of `Job`.
        file_format, quality: as `photographs.converted`.
        side_by_side: bool, write the blurred and the restored photograph next to each other instead of the restored.
        overwrite: bool, a result may replace the file it was made from.
        start, duration, frame_bar: as `start`, `duration` and `progress` of `video.restore_video`.

    Yields:
        `Outcome` of each job, when its result is written and the next one restored.
    """
    loaded, failed = [], []

    def restore(pixels, **options):
        if not loaded:
            try:
                loaded.append(load())
            except Exception as error:
                failed.append(error)
                raise
        return loaded[0](pixels, **options)

    def read(outcome):
        job = outcome.job
        photograph = None if job.is_video else read_photograph(job.source)
        if photograph:
            photograph = converted(photograph, file_format, quality, side_by_side)
        if refusal := job.refusal(overwrite):
            raise BadImage(refusal)
        if job.is_video and side_by_side:
            raise BadImage(f"{job.source}: side by side is only for photographs")
        with contextlib.suppress(OSError):  # whatever is wrong with a video is said when it is opened
            outcome.original_bytes = os.path.getsize(job.source)
        return photograph

    def change(outcome, photograph):
        make_folder(outcome.job.target.parent)
        return change_video(outcome) if outcome.job.is_video else restored_copy(restore, photograph, side_by_side)

    def change_video(outcome):
        from deblur_gan.video.restore import restore_video

        first = []

        def restore_frame(pixels):
            if not first:
                first.append(pixels)
            return restore(pixels, scale_of=first[0])

        video = restore_video(restore_frame, outcome.job.source, outcome.job.target, start, duration, frame_bar)
        outcome.size, outcome.n_frames, outcome.notes = video.size, video.n_frames, video.notes

    def write(outcome, photograph):
        if photograph:
            try:
                write_photograph(outcome.job.target, photograph, outcome.job.source)
            except OSError as error:
                folder, why = outcome.job.target.parent, error.strerror or reason(error)
                raise OSError(
                    f"cannot be written to {folder} ({why}); check its space and permissions, or choose another folder"
                ) from None
            outcome.size, outcome.notes = photograph.pixels.shape[1::-1], photograph.notes

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading = (reader.submit(_attempt, read, Outcome(job, job.problem)) for job in jobs)
        ahead, behind = next(reading, None), None
        try:
            while ahead:
                outcome, photograph = ahead.result()
                ahead = next(reading, None)
                _, photograph = _attempt(change, outcome, photograph)
                if failed:  # no other photograph would get further
                    raise failed[0]
                if behind:
                    yield behind.result()[0]
                behind = writer.submit(_attempt, write, outcome, photograph)
        except KeyboardInterrupt:
            if behind:
                yield behind.result()[0]
            raise
        if behind:
            yield behind.result()[0]


def _attempt(step, outcome, *photograph):
    """Returns the outcome and the result of a step, which is left out after an error, and accounts for its time.

    An error goes into the outcome: it does not stop the other photographs.
    """
    began, result = time.perf_counter(), None
    try:
        if not outcome.error:
            result = step(outcome, *photograph)
    except Exception as error:
        outcome.error = printable(error if isinstance(error, BadImage) else f"{outcome.job.source}: {reason(error)}")
    outcome.seconds += time.perf_counter() - began
    return outcome, result
