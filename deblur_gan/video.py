"""Videos restored frame by frame: what is not a picture in them, sound above all, comes over as it is."""

import contextlib
import dataclasses
import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from deblur_gan.files import whole_file
from deblur_gan.frames import (
    RGB_CODING,
    colour_coding,
    decoded,
    ffmpeg_reason,
    main_video,
    picture,
    pyav,
    reformatted,
)
from deblur_gan.photographs import BadImage

# The encoder of a codec and its setting: constant quality, at which encoding costs little of what was restored.
_ENCODERS = {
    "h264": ("libx264", {"crf": "14"}),
    "hevc": ("libx265", {"crf": "14", "x265-params": "log-level=none"}),
    "vp8": ("libvpx", {"crf": "4", "b": "1G", "cpu-used": "2"}),
    "vp9": ("libvpx-vp9", {"crf": "12", "b": "0", "cpu-used": "3", "row-mt": "1"}),
    "av1": ("libsvtav1", {"crf": "12", "preset": "8"}),
    "prores": ("prores_ks", {}),
}
# These have a quantizer, from 1, the least loss, to 31; FFmpeg counts it in 118ths.
_QUANTIZER = {"flags": "+qscale", "global_quality": str(2 * 118)}
_ENCODERS["flv1"] = ("flv", _QUANTIZER)
for _codec in ("mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"):
    _ENCODERS[_codec] = (_codec, _QUANTIZER)

_MOV = ("3g2", "3gp", "ipod", "mov", "mp4")  # FFmpeg's names of containers of one family

_TAGS = ("colorspace", "color_range", "color_primaries", "color_trc")

# What a stream of the original says about its own packets, and is no longer true.
_STALE = ("BPS", "DURATION", "ENCODER", "NUMBER_OF_", "ROTATE", "_STATISTICS_")

_READ_ON = 10  # seconds that are read beyond the part, for sound that lies behind its pictures in the file
_BROKEN_NAMED = 10  # broken frames that are named one by one
_CUT = 1  # seconds by which a file may be shorter than it says


@dataclasses.dataclass(frozen=True)
class RestoredVideo:
    """What became of a video.

    Attributes:
        n_frames: int, frames written.
        size: `(width, height)`, int, upright.
        notes: list of str, what is otherwise than in the original: "frame 7 is damaged and was kept as it was".
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
        with whole_file(target) as temporary, _written(target, av):
            result = _Result(temporary, target, video, part)
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


class _Result:
    """The file that is written: restored frames at the times of the original, and copies of all other packets."""

    def __init__(self, path, target, video, part):
        """`path` is written, and called `target` in messages."""
        av, self._target = pyav(target), target
        self.n_frames, self.size, self.notes = 0, None, []
        self._video, self._part, self._container = video, part, video.container
        suffix = path.suffix.lower()
        try:
            self._file = av.open(str(path.absolute()), "w", format={".m4v": "mp4"}.get(suffix))
        except ValueError:
            raise BadImage(f"{target}: no container of videos has this extension") from None
        # From the number of a stream to its copy, and to the time of its last packet; packets that came too early.
        self._copies, self._last, self._early = {}, {}, []
        # Times and durations of the frames that the encoder has not given back, by their number.
        self._times = {}

    def close(self):
        """Lets go of a file that is not finished, and of one that is."""
        with contextlib.suppress(pyav(self._file.name).FFmpegError):
            self._file.close()

    def begin(self, frame, size):
        """Writes the beginning of the file, by what the first frame says."""
        self.size, self._coding = size, colour_coding(frame)
        for stream in self._container.streams:
            if stream is self._video:
                self._add_encoder(frame)
            else:
                self._add_copy(stream)
        self._file.metadata.update(self._container.metadata)
        if self._part.whole:
            self._file.set_chapters(self._container.chapters())
        early, self._early = self._early, None
        for packet in early:
            self.copy(packet)

    def _add_encoder(self, frame):
        video, family = self._video, self._file.format.name
        encoder, stream = self._stream_of_encoder()
        context = stream.codec_context
        context.width, context.height = self.size
        context.pix_fmt = _layout(encoder, frame.format, self.size)
        self._tags = {name: getattr(frame, name) for name in _TAGS}
        if frame.format.is_rgb and not context.format.is_rgb:
            self._coding = 1, 1
            self._tags |= {"colorspace": 1, "color_range": 1}
        for name, value in self._tags.items():
            setattr(context, name, value)
        if ratio := video.sample_aspect_ratio:
            turned = self.size != (frame.width, frame.height)
            context.sample_aspect_ratio = 1 / ratio if turned else ratio
        if family in ("avi", "flv"):
            context.max_b_frames = 0  # they take no packet that comes long before its frame is shown
        if family in _MOV:
            if encoder == "libx265":
                context.codec_tag = "hvc1"  # Apple's players know no other
            if video.time_base.numerator == 1:
                self._file.container_options["video_track_timescale"] = str(video.time_base.denominator)
        stream.time_base = video.time_base
        stream.disposition = video.disposition
        stream.metadata.update({k: v for k, v in video.metadata.items() if not k.upper().startswith(_STALE)})
        self._stream, self._step = stream, max(1, round(1 / (context.framerate * video.time_base)))

    def _stream_of_encoder(self):
        """The name of an encoder and its stream: for the codec of the original, or else for H.264."""
        codec = self._video.codec_context.codec
        own = _ENCODERS.get(codec.canonical_name)
        if codec.lossless and not codec.lossy:
            own = codec.canonical_name, {}
        for name, options in filter(None, (own, _ENCODERS["h264"])):
            if name == "libsvtav1":
                os.environ.setdefault("SVT_LOG", "1")  # errors alone; it writes to stderr
            # Where FFmpeg was built without the encoder, or where the container does not take the codec.
            with contextlib.suppress(ValueError):
                stream = self._file.add_stream(name, rate=_rate(name, self._video), options=options)
                if (name, options) != own:
                    self.notes.append(f"it is written as H.264: {codec.canonical_name} cannot be written here")
                return name, stream
        raise BadImage(f"{self._target}: cannot be written: such a file takes neither {codec.canonical_name} nor H.264")

    def _add_copy(self, stream):
        kind = f"stream {stream.index} ({stream.type})"
        try:
            if stream.type not in ("audio", "subtitle", "video", "attachment"):
                raise ValueError
            copy = self._file.add_stream_from_template(stream, opaque=True)
        except ValueError:
            self.notes.append(f"{kind} is left out: it cannot be written in this container")
            return
        copy.time_base = stream.time_base
        copy.disposition = stream.disposition
        copy.metadata.update(stream.metadata)
        self._copies[stream.index] = copy

    def copy(self, packet):
        """Copies a packet of another stream than that of the frames."""
        if self._early is not None:
            self._early.append(packet)
            return
        copy = self._copies.get(packet.stream.index)
        if copy is None:
            return
        time, shift = packet.dts if packet.pts is None else packet.pts, self._part.shift(packet.time_base)
        if _is_cover(copy):
            time, packet.dts, shift = 0, None, 0
        elif time is None or not self._part.holds(time * packet.time_base):
            return
        packet.pts = time - shift
        # Times of a damaged file may go back; the first one of a packet is as good as any then.
        floor = self._last.get(copy.index)
        dts = packet.pts if packet.dts is None else packet.dts - shift
        packet.dts = dts if floor is None else max(dts, floor + 1)
        packet.pts = max(packet.pts, packet.dts)
        self._last[copy.index] = packet.dts
        packet.stream = copy
        self._file.mux(packet)

    def add(self, pixels, frame):
        """Encodes a picture, uint8 `(H, W, 3 or 4)`, at the time of the frame of the original."""
        av = pyav(self._file.name)
        if frame.pts is not None:
            pts = frame.pts - self._part.shift(self._video.time_base)
        else:
            pts = self._last_pts + self._step if self.n_frames else 0
        if not self.n_frames:
            self._first_pts = pts
        elif pts <= self._last_pts:
            pts = self._last_pts + 1
        self._last_pts, self._times[self.n_frames] = pts, (pts, frame.duration or self._step)
        context = self._stream.codec_context
        if pixels.shape[-1] == 3 and self._coding[1] == 2 and not context.format.is_rgb:
            coded, coding = av.VideoFrame.from_ndarray(_full_range(pixels, self._coding[0]), "yuv444p"), self._coding
        else:
            coded = av.VideoFrame.from_ndarray(pixels, "rgba" if pixels.shape[-1] == 4 else "rgb24")
            coding = RGB_CODING
        coded = reformatted(coded, context.pix_fmt, "AREA", coding, self._coding)
        for name, value in self._tags.items():
            setattr(coded, name, value)
        # Frames are counted here: some codecs take no other times. The packets get the true ones.
        coded.pts, coded.time_base = self.n_frames, 1 / context.framerate
        self.n_frames += 1
        self._write(self._stream.encode(coded))

    def _write(self, packets):
        for packet in packets:
            number = packet.pts if packet.dts is None else packet.dts
            pts, packet.duration = self._times[packet.pts]
            dts = self._times[number][0] if number >= 0 else self._first_pts + number * self._step
            packet.pts, packet.dts, packet.time_base = pts, dts, self._video.time_base
            self._file.mux(packet)
            for done in [other for other in self._times if other < number]:
                del self._times[done]

    def finish(self):
        """Writes what the encoder still holds, and the end of the file."""
        self._write(self._stream.encode(None))
        self._file.close()


def _full_range(pixels, matrix):
    """uint8 `(3, H, W)`, luma and colour differences of RGB in the full range; FFmpeg rounds these differences down."""
    of_red, of_blue = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}[
        matrix
    ]
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    differences = (blue - luma) / (2 - 2 * of_blue) + 128, (red - luma) / (2 - 2 * of_red) + 128
    return np.clip(np.rint([luma, *differences]), 0, 255).astype(np.uint8)


def _is_cover(stream):
    return bool(stream.disposition & stream.disposition.attached_pic)


def _rate(name, video):
    """The mean rate of a video in frames per second; of a codec that takes certain ones, the nearest of those."""
    rate = Fraction(video.average_rate or video.guessed_rate or 25).limit_denominator(1001)
    rates = pyav(name).Codec(name, "w").frame_rates
    return min((Fraction(r.numerator, r.denominator) for r in rates), key=lambda r: abs(r - rate)) if rates else rate


def _layout(name, layout, size):
    """Which layout of pixels of an encoder is nearest to that of the original, a `VideoFormat`."""
    from av.codec.codec import find_best_pix_fmt_of_list

    layouts = [other for other in pyav(name).Codec(name, "w").video_formats or [layout]]
    if name in ("libx264", "libx265"):  # they take no half of a pair of pixels that share a colour difference
        width, height = size
        layouts = [
            other
            for other in layouts
            if not (width % 2 and other.chroma_width(2) == 1) and not (height % 2 and other.chroma_height(2) == 1)
        ]
    names = [other.name for other in layouts]
    return layout.name if layout.name in names else find_best_pix_fmt_of_list(names, layout, True)[0].name
