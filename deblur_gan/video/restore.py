"""`restore_video` restores a video frame by frame, and copies its sound, subtitles and tags."""

import contextlib
import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np

from deblur_gan.files import whole_file
from deblur_gan.images.photographs import BadImage
from deblur_gan.video.decode import decode_frames, ffmpeg_reason, has_alpha, open_video, pyav, read_packets, to_pixels
from deblur_gan.video.encode import VideoFile

_READ_FURTHER = 10  # seconds that are read after the part, because sound may lie after its pictures in the file
_MOST_NAMED = 10  # broken frames with a note of their own
_CUT = 1  # seconds by which a file may be shorter than it states


@dataclasses.dataclass(frozen=True)
class RestoredVideo:
    """The result of `restore_video`.

    Attributes:
        n_frames: int, frames written.
        size: `(width, height)`, int, upright.
        notes: list of str, what differs from the original, such as "it is written as H.264: ...".
    """

    n_frames: int
    size: tuple
    notes: list


def restore_video(restore, source, target, start=None, duration=None, progress=None):
    """Restores every frame of a video as a photograph, and copies sound, subtitles, covers, chapters and tags.

    The result has the frames of the original at their times, in its size, codec and colours. It is upright: rotations
    are applied. A damaged frame stays as it is. A frame that cannot be decoded is left out, and the one before is shown
    longer, as players show the original.

    Args:
        restore: function from uint8 `(H, W, 3)` pixels to the restored ones, such as `deblur` of a generator.
        source: str or Path of a video file of standard dynamic range, not interlaced.
        target: str or Path; its extension selects the container. It appears whole or not at all.
        start: float, seconds after which the result begins; None for the beginning.
        duration: float, seconds that the result lasts at most; None for all that follows.
        progress: callable such as `tqdm`, called with `total` (int, expected frames, or None) and `unit`. What it
            returns is used as a context manager, and its `update(1)` is called for each frame.

    Returns:
        `RestoredVideo`.

    Raises:
        BadImage: if the video cannot be read, or cannot be written in this container.
        OSError: if `target` cannot be written.

    >>> made = restore_video(lambda pixels: 255 - pixels, "clip.mp4", "negative.mp4")  # doctest: +SKIP
    >>> made.n_frames, made.size  # doctest: +SKIP
    (250, (1920, 1080))
    """
    source, target = Path(source), Path(target)
    with open_video(source) as (container, video):
        if video.metadata.get("alpha_mode") == "1" and not has_alpha(video.format):
            raise BadImage(f"{source}: has the transparency of WebM, which cannot be read; opaque frames are required")
        part = _Part(container, video, start, duration)
        with whole_file(target, source) as temporary:
            try:
                with contextlib.closing(VideoFile(temporary, target, video, part)) as result:
                    _restore_frames(restore, source, result, part, progress)
                    if not result.n_frames:
                        wanted = "can be decoded" if part.whole else "lies in the part that was asked for"
                        raise BadImage(f"{source}: no frame of it {wanted}")
                    result.finish()
            # `_Part.packets` handles errors of the original.
            except pyav(target).FFmpegError as error:
                raise OSError(f"{target}: cannot be written ({ffmpeg_reason(error)})") from error
    return RestoredVideo(result.n_frames, result.size, part.notes + result.notes)


def _restore_frames(restore, source, result, part, progress):
    with contextlib.ExitStack() as leaving:
        bar, n_broken = None, 0
        for frame, seconds, fault in decode_frames(source, part.video, part.packets(result.copy)):
            if not part.contains(seconds):
                continue
            if fault:
                n_broken += 1
                if n_broken <= _MOST_NAMED:
                    kept = "the one before it is shown instead" if frame is None else "it is kept as it was"
                    result.notes.append(f"the frame at {_clock(seconds)} {fault}; {kept}")
            if frame is None:
                continue
            if frame.interlaced_frame:
                raise BadImage(f"{source}: is interlaced; progressive frames are required")
            pixels = to_pixels(frame)
            height, width = pixels.shape[:2]
            if not result.n_frames:
                result.begin(frame, (width, height))
                bar = progress and leaving.enter_context(progress(total=part.n_frames(), unit="frame"))
            if result.size != (width, height):
                change = f"is {width}x{height}, but those before it are {result.size[0]}x{result.size[1]}"
                raise BadImage(f"{source}: the frame at {_clock(seconds)} {change}; one size is required")
            if not fault:
                pixels = np.concatenate([restore(pixels[..., :3]), pixels[..., 3:]], axis=-1)
            result.add(pixels, frame)
            if bar is not None:
                bar.update(1)
        if n_broken > _MOST_NAMED:
            result.notes.append(f"{n_broken - _MOST_NAMED} more frames are damaged or cannot be decoded")


def _clock(seconds):
    """Formats a time: 75.04 becomes 0:01:15.040."""
    if seconds is None:
        return "an unknown time"
    minutes, rest = divmod(float(seconds), 60)
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{rest:06.3f}"


class _Part:
    """The part of a video that is restored: which packets it has, and how its times are shifted."""

    def __init__(self, container, video, start, duration):
        self.container, self.video, self.notes = container, video, []
        self.origin = Fraction(container.start_time or 0, 1_000_000)
        self.whole = not start and duration is None
        self.begin = self.origin + _exact(start) if start else None
        self.end = None if duration is None else (self.begin or self.origin) + _exact(duration)
        # To the key frame before it. FFmpeg finds none in MPEG-TS and MPEG-PS: from the frame that it finds instead on,
        # nothing is decoded until the next key frame. So they are decoded from their beginning.
        if self.begin is not None and container.format.name not in ("mpegts", "mpeg"):
            container.seek(int(self.begin * 1_000_000))

    def contains(self, seconds):
        """Returns whether a time lies in the part; an unknown time, None, does."""
        if seconds is None:
            return True
        return (self.begin is None or seconds >= self.begin) and (self.end is None or seconds < self.end)

    def shift(self, time_base):
        """Returns the units to subtract from the times of a stream, so that the result begins at 0."""
        return 0 if self.begin is None else round(self.begin / time_base)

    def n_frames(self):
        """Returns the number of frames that is expected, or None."""
        if self.whole and self.video.frames:
            n_frames = self.video.frames
        elif self.video.average_rate and self.container.duration:
            last = self.origin + Fraction(self.container.duration, 1_000_000)
            seconds = min(last, self.end or last) - (self.begin or self.origin)
            n_frames = max(1, round(seconds * self.video.average_rate))
        else:
            return None
        return n_frames if n_frames <= self.container.size else None  # a damaged file states any number

    def packets(self, copy):
        """Yields the packets of the video from a key frame before the part on; `copy` gets all others."""
        reaching = {stream.index for stream in self.container.streams if stream.type in ("video", "audio")}
        last = self.origin
        try:
            for packet in read_packets(self.container):
                times = [time * packet.time_base for time in (packet.dts, packet.pts) if time is not None]
                if times:
                    last = max(last, max(times) + (packet.duration or 0) * packet.time_base)
                    if self.end is not None and times[0] >= self.end:
                        reaching.discard(packet.stream.index)
                        if not reaching or times[0] > self.end + _READ_FURTHER:
                            return
                        continue
                if packet.stream is self.video:
                    yield packet
                else:
                    copy(packet)
        except pyav(self.container.name).FFmpegError as error:
            self.notes.append(f"it cannot be read beyond {_clock(last - self.origin)} ({ffmpeg_reason(error)})")
            return
        stated = Fraction(self.container.duration or 0, 1_000_000)
        if self.container.format.name == "avi":
            # FFmpeg corrects the duration of a cut AVI, but not its number of frames.
            stated = max(stated, self.video.frames * self.video.time_base)
        # Some writers count the duration from 0, others from the first frame.
        if stated - last > _CUT:
            self.notes.append(f"it is cut: it ends after {_clock(last - self.origin)} of {_clock(stated)}")


def _exact(seconds):
    # 1/10 for 0.1, instead of the binary number next to it.
    return Fraction(seconds).limit_denominator(1_000_000)
