"""Videos restored frame by frame: what is not a picture in them, sound above all, comes over as it is."""

import contextlib
import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np

from deblur_gan.files import whole_file
from deblur_gan.images.photographs import BadImage
from deblur_gan.video.decode import decoded, ffmpeg_reason, main_video, picture, pyav
from deblur_gan.video.encode import VideoFile

_READ_ON = 10  # seconds that are read beyond the part, for sound that lies behind its pictures in the file
_BROKEN_NAMED = 10  # broken frames that are named one by one
_CUT = 1  # seconds by which a file may be shorter than it says


@dataclasses.dataclass(frozen=True)
class RestoredVideo:
    """What became of a video.

    Attributes:
        n_frames: int, frames written.
        size: `(width, height)`, int, upright.
        notes: list of str, what is otherwise than in the original, such as "it is written as H.264: ...".
    """

    n_frames: int
    size: tuple
    notes: list


def restore_video(restore, source, target, start=None, duration=None, progress=None):
    """Restores every frame of a video as a photograph is restored, and copies its sound and its subtitles.

    The result has the frames of the original at their times, its size, its codec and its colours. It is upright: what
    the original says about turning is applied. A frame that is damaged stays as it is; where a frame cannot be decoded
    there is none, and the one before is shown longer, as it is in the original.

    Args:
        restore: function from uint8 `(H, W, 3)` pixels to the restored ones, such as `deblur` of a generator.
        source: str or Path of a video file of standard dynamic range, not interlaced.
        target: str or Path; its extension says the container. It appears whole or not at all.
        start: float, seconds from the beginning at which the result begins; None for the beginning.
        duration: float, seconds that the result lasts at most; None for all that follows.
        progress: callable such as `tqdm`, called with `total` (int, frames that are expected) and `unit`; of what it
            returns `update(1)` is called for each frame, and it is left as a context.

    Returns:
        `RestoredVideo`.

    Raises:
        BadImage: if the video cannot be read, or be written in the container and codec that are wanted.
        OSError: if `target` cannot be written.
    """
    av = pyav(source)
    source, target = Path(source), Path(target)
    try:
        container = av.open(str(source.absolute()))
    except av.FFmpegError as error:
        raise BadImage(f"{source}: cannot be read as a video ({ffmpeg_reason(error)})") from None
    with container:
        video = main_video(source, container)
        if video.metadata.get("alpha_mode") == "1" and not _transparent(video.format):
            raise BadImage(f"{source}: is transparent in the way of WebM, which is not read here")
        part = _Part(container, video, start, duration)
        with whole_file(target, source) as temporary, _written(target, av):
            result = VideoFile(temporary, target, video, part)
            with contextlib.closing(result):
                _restore_frames(restore, source, result, part, progress)
                if not result.n_frames:
                    wanted = "can be decoded" if part.whole else "lies in the part that was asked for"
                    raise BadImage(f"{source}: no frame of it {wanted}")
                result.finish()
    return RestoredVideo(result.n_frames, result.size, part.notes + result.notes)


def _restore_frames(restore, source, result, part, progress):
    with contextlib.ExitStack() as leaving:
        bar, n_broken = None, 0
        for frame, seconds, broken in decoded(source, part.video, part.packets(result.copy)):
            if not part.holds(seconds):
                continue
            if broken:
                n_broken += 1
            if broken and n_broken <= _BROKEN_NAMED:
                kept = "the one before it is shown in its place" if frame is None else "it is kept as it was"
                result.notes.append(f"the frame at {_clock(seconds)} {broken}; {kept}")
            if frame is None:
                continue
            if frame.interlaced_frame:
                raise BadImage(f"{source}: is interlaced; progressive frames are required")
            pixels = picture(frame)
            height, width = pixels.shape[:2]
            if not result.n_frames:
                result.begin(frame, (width, height))
                bar = progress and leaving.enter_context(progress(total=part.n_frames(), unit="frame"))
            if result.size != (width, height):
                change = f"is {width}x{height}, but those before it are {result.size[0]}x{result.size[1]}"
                raise BadImage(f"{source}: the frame at {_clock(seconds)} {change}; one size is required")
            if not broken:
                pixels = np.concatenate([restore(pixels[..., :3]), pixels[..., 3:]], axis=-1)
            result.add(pixels, frame)
            if bar is not None:
                bar.update(1)
        if n_broken > _BROKEN_NAMED:
            result.notes.append(f"{n_broken - _BROKEN_NAMED} more frames are damaged or cannot be decoded")


def _clock(seconds):
    """A time for people: 75.04 becomes 0:01:15.040."""
    if seconds is None:
        return "an unknown time"
    minutes, rest = divmod(float(seconds), 60)
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{rest:06.3f}"


def _transparent(pixel_format):
    return any(component.is_alpha for component in pixel_format.components)


@contextlib.contextmanager
def _written(target, av):
    """Turns what FFmpeg says about the result into words; what it says about the original does not come here."""
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(f"{target}: cannot be written ({ffmpeg_reason(error)})") from error


class _Part:
    """The part of a video that is asked for: its packets, and what becomes of its times."""

    def __init__(self, container, video, start, duration):
        self.container, self.video, self.notes = container, video, []
        self.origin = Fraction(container.start_time or 0, 1_000_000)
        self.whole = not start and duration is None
        self.begin = self.origin + _exact(start) if start else None
        self.end = None if duration is None else (self.begin or self.origin) + _exact(duration)
        if self.begin is not None:
            container.seek(int(self.begin * 1_000_000))  # to the key frame before it

    def holds(self, seconds):
        """Whether a time, in seconds, lies in the part; a time that is not known does."""
        after = seconds is None or self.begin is None or seconds >= self.begin
        return after and (seconds is None or self.end is None or seconds < self.end)

    def shift(self, time_base):
        """int, what is taken from the times of a stream so that the result begins at 0."""
        return 0 if self.begin is None else round(self.begin / time_base)

    def n_frames(self):
        """int, the number of frames that is expected, or None."""
        if self.whole and self.video.frames:
            return self.video.frames
        rate = self.video.average_rate
        if not rate or not self.container.duration:
            return None
        last = self.origin + Fraction(self.container.duration, 1_000_000)
        return max(1, round((min(last, self.end or last) - (self.begin or self.origin)) * rate))

    def packets(self, copy):
        """Yields the packets of the video from the last key frame before the part on; `copy` gets the others of it."""
        reaching = {stream.index for stream in self.container.streams if stream.type in ("video", "audio")}
        last = self.origin
        try:
            for packet in self.container.demux():
                time = packet.dts if packet.dts is not None else packet.pts
                seconds = None if time is None else time * packet.time_base
                if seconds is not None:
                    last = max(last, seconds + (packet.duration or 0) * packet.time_base)
                    if self.end is not None and seconds >= self.end:
                        reaching.discard(packet.stream.index)
                        if not reaching or seconds > self.end + _READ_ON:
                            return
                        continue
                if packet.stream is self.video:
                    yield packet
                elif packet.size:
                    copy(packet)
        except pyav(self.container.name).FFmpegError as error:
            self.notes.append(f"it cannot be read beyond {_clock(last - self.origin)} ({ffmpeg_reason(error)})")
            return
        promised = max(Fraction(self.container.duration or 0, 1_000_000), self._said_by_avi())
        if promised - (last - self.origin) > _CUT:
            self.notes.append(f"it is cut: it ends after {_clock(last - self.origin)} of {_clock(promised)}")

    def _said_by_avi(self):
        """Fraction, seconds: FFmpeg corrects the duration of a cut AVI, but not its number of frames."""
        return self.video.frames * self.video.time_base if self.container.format.name == "avi" else 0


def _exact(seconds):
    # Of what is meant by 0.1, and not of the binary number next to it.
    return Fraction(seconds).limit_denominator(1_000_000)
