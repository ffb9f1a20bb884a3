"""Many photographs: which files are meant, where each result goes, and all restored, one after the other."""

import contextlib
import dataclasses
import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deblur_gan.files import printable, reason
from deblur_gan.images.photographs import (
    EXTENSIONS,
    FORMATS_READ,
    PICTURE_EXTENSIONS,
    BadImage,
    converted,
    encoded,
    find_images,
    read_photograph,
    write_photograph,
)
from deblur_gan.video.decode import VIDEO_EXTENSIONS
from deblur_gan.video.restore import restore_video


@dataclasses.dataclass
class Job:
    """A photograph or video to be restored.

    Attributes:
        source: Path of the photograph or video.
        target: Path that the restored one is to be written to.
        problem: str, one line that says why it cannot be; None where nothing is known against it.
    """

    source: Path
    target: Path
    problem: str | None = None

    @property
    def is_video(self):
        """bool, by the extension."""
        return self.source.suffix.lower() in VIDEO_EXTENSIONS

    @property
    def replaces_source(self):
        """bool, whether the result would take the place of the file that it is made from."""
        return self.target.exists() and self.source.exists() and self.target.samefile(self.source)


@dataclasses.dataclass
class Outcome:
    """What became of a photograph.

    Attributes:
        job: `Job`.
        error: str, one printable line that names the file and says why it was not restored; None if it was.
        size: `(width, height)` of what was written, in pixels.
        n_frames: int, of a video.
        notes: list of str, what the result does not keep, as `Photograph.notes` or `RestoredVideo.notes`.
        seconds: float, spent on reading, restoring and writing it; others may have been read and written meanwhile.
    """

    job: Job
    error: str | None = None
    size: tuple = (0, 0)
    n_frames: int = 1
    notes: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def find_jobs(sources, output_dir, recursive=False, suffix="", file_format=None, shard=(1, 1)):
    """Finds the photographs that are meant, and where their restored copies go.

    What looks like a picture in a folder, by its extension, is meant, hidden files and folders and the output folder
    apart. A file lands in `output_dir` under its name, one from a subfolder in a folder of that name. A photograph
    that would take the name of another's result, or the place of another photograph, is not restored but has a
    `problem`, so that nothing is lost. A video, which takes as long as hundreds of photographs, is restored where it is
    named itself; in a folder it is left out.

    Args:
        sources: sequence of str or Path, files and folders.
        output_dir: str or Path.
        recursive: bool, look into subfolders.
        suffix: str to put before the extension of the results.
        file_format: str, one of `photographs.EXTENSIONS`: the format of the results. None is each one's own.
        shard: `(number, count)`: of all, in the order of their paths, every `count`-th from the `number`-th on.

    Returns:
        `(jobs, left_out)`: list of `Job`, and list of str, lines that name subfolders that were not looked into, and
        videos that were left out.

    Raises:
        BadImage: if a source does not exist, or is a folder without a picture.
    """
    output_dir = Path(output_dir)
    jobs, left_out, places = [], [], {}
    for source in map(Path, sources):
        if not source.is_dir():
            if not os.path.lexists(source):
                raise BadImage(f"{source}: no such file or folder")
            found = [(source, Path())]
        else:
            found, subfolders, videos = _pictures_below(source, output_dir, recursive)
            if subfolders and not recursive:
                left_out.append(printable(f"{source}: its subfolders are not looked into: {_short_list(subfolders)}"))
            if not found:
                ask = "name its videos to restore them" if videos else f"{FORMATS_READ} files are required"
                raise BadImage(f"{source}: no image in this folder; {ask}")
            if videos:
                left_out.append(printable(f"{source}: videos are restored where they are named: {_short_list(videos)}"))
        for path, folder in found:
            if _place(path) not in places:  # or it was named twice
                places[_place(path)] = None
                jobs.append(Job(path, output_dir / folder / _result_name(path, suffix, file_format)))
    for job in jobs:
        place = _place(job.target)
        if place in places and place != _place(job.source):
            clash = f"as {places[place]} is" if places[place] else "which is to be restored itself"
            job.problem = printable(
                f"{job.source}: would be written to {job.target}, {clash}; take another output folder or a suffix"
            )
        else:
            places[place] = job.source
    number, count = shard
    return (sorted(jobs, key=lambda job: job.source)[number - 1 :: count] if count > 1 else jobs), left_out


def _pictures_below(folder, output_dir, recursive):
    """`(path, its folder below this one)` of each picture, and the names of the subfolders and of the videos."""
    videos = []
    found, subfolders = [(path, Path()) for path in find_images(folder, PICTURE_EXTENSIONS)], []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            videos += [entry.name] if entry.suffix.lower() in VIDEO_EXTENSIONS else []
            continue
        if output_dir.exists() and entry.samefile(output_dir):
            continue
        subfolders.append(entry.name)
        if recursive and not entry.is_symlink():  # a link may lead back
            below, _, videos_below = _pictures_below(entry, output_dir, recursive)
            found += [(path, entry.name / place) for path, place in below]
            videos += [os.path.join(entry.name, video) for video in videos_below]
    return found, subfolders, videos


def _short_list(names):
    return ", ".join(names if len(names) <= 5 else [*names[:5], f"and {len(names) - 5} more"])


def _result_name(source, suffix, file_format):
    extension = source.suffix
    if file_format and extension.lower() not in (*EXTENSIONS[file_format], *VIDEO_EXTENSIONS):
        extension = EXTENSIONS[file_format][0]
    return f"{source.stem}{suffix}{extension}"


def _place(path):
    """The place of a file on disk, whether or not there is a file, by whichever way its folder is named."""
    return os.path.normcase(os.path.join(_real_folder(os.path.abspath(path.parent)), path.name))


@functools.lru_cache(maxsize=1024)
def _real_folder(folder):
    return os.path.realpath(folder)


def restore_files(
    restore,
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

    While one is being restored, the next photograph is read, and the one before is written. An older file of a result's
    name is replaced. Ctrl-C ends it when the file that is being written stands.

    Args:
        restore: function from the uint8 `(H, W, 3)` pixels of a photograph to those of the restored one. It is called
            in the caller's thread, as all that concerns videos is.
        jobs: iterable of `Job`.
        file_format: as `photographs.converted`.
        quality: as `photographs.converted`.
        side_by_side: bool, write the blurred and the restored photograph beside each other instead of the restored.
        overwrite: bool, a result may take the place of the file it was made from.
        start, duration: as `video.restore_video`.
        frame_bar: `progress` of `video.restore_video`.

    Yields:
        `Outcome` of each job, when its result is written and the next one restored.
    """

    def read(outcome):
        job, photograph = outcome.job, None
        with _accounted(outcome):
            if not outcome.error:
                photograph = None if job.is_video else converted(read_photograph(job.source), file_format, quality)
                if job.replaces_source and not overwrite:
                    raise BadImage(
                        f"{job.source}: the result would replace it; take another output folder or --overwrite"
                    )
                if job.is_video and side_by_side:
                    raise BadImage(f"{job.source}: side by side is for photographs alone")
        return outcome, photograph

    def change(outcome, photograph):
        job = outcome.job
        with _accounted(outcome):
            if not outcome.error:
                job.target.parent.mkdir(parents=True, exist_ok=True)
                if job.is_video:
                    video = restore_video(restore, job.source, job.target, start, duration, frame_bar)
                    outcome.size, outcome.n_frames, outcome.notes = video.size, video.n_frames, video.notes
                else:
                    return restored_copy(restore, photograph, side_by_side)
        return None

    def write(outcome, photograph):
        with _accounted(outcome):
            if photograph:
                write_photograph(outcome.job.target, photograph)
                outcome.size, outcome.notes = photograph.pixels.shape[1::-1], photograph.notes
        return outcome

    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        reading = (reader.submit(read, Outcome(job, job.problem)) for job in jobs)
        ahead, behind = next(reading, None), None
        try:
            while ahead:
                outcome, photograph = ahead.result()
                ahead = next(reading, None)
                photograph = change(outcome, photograph)
                if behind:
                    yield behind.result()
                behind = writer.submit(write, outcome, photograph)
        except KeyboardInterrupt:
            if behind:
                yield behind.result()
            raise
        if behind:
            yield behind.result()


@contextlib.contextmanager
def _accounted(outcome):
    """Adds the time of a step to an outcome, or its error.

    Whatever one photograph meets (no memory left, a full disk), the next one gets its chance.
    """
    began = time.perf_counter()
    try:
        yield
    except Exception as error:
        outcome.error = printable(error if isinstance(error, BadImage) else f"{outcome.job.source}: {reason(error)}")
    outcome.seconds += time.perf_counter() - began


def restored_copy(restore, photograph, side_by_side=False):
    """A photograph with restored pixels, or with the restored beside the blurred ones.

    Args:
        restore: as `restore_files`.
        photograph: `Photograph`.
        side_by_side: as `restore_files`.

    Returns:
        `Photograph`.
    """
    pixels, alpha = restore(photograph.pixels), photograph.alpha
    if side_by_side:
        pixels = np.concatenate([photograph.pixels, pixels], axis=1)
        alpha = None if alpha is None else np.concatenate([alpha, alpha], axis=1)
    return dataclasses.replace(photograph, pixels=pixels, alpha=alpha)


def restore_stream(restore, content, file_format=None, quality=None, name="these bytes"):
    """Restores the content of an image file; the arguments are as of `restore_files`, `name` as of `read_photograph`.

    Returns:
        bytes of the restored file, in the format of `content` unless another is given.

    Raises:
        BadImage: if the content cannot be used as a photograph.
    """
    photograph = converted(read_photograph(content, name), file_format, quality)
    return encoded(restored_copy(restore, photograph))
