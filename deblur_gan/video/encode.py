"""A video that is written: pictures encoded as those of the original were, at their times, and all else copied."""

import contextlib
import os
from fractions import Fraction

import numpy as np

from deblur_gan.images.photographs import BadImage
from deblur_gan.video.decode import RGB_CODING, colour_coding, pyav, reformatted

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


class VideoFile:
    """A file that takes pictures, at the times of the frames of another video, and copies of its other packets.

    Args:
        path: Path, written.
        target: Path that messages name in its place.
        video: `av.VideoStream` of the original.
        part: what is taken of the original: it has `whole`, `holds(seconds)` and `shift(time_base)`.

    Attributes:
        n_frames: int, pictures added.
        size: `(width, height)` of the pictures, or None before there is one.
        notes: list of str, what is otherwise than in the original.

    Raises:
        BadImage: if a container of this name, or a codec in it, cannot be written.
    """

    def __init__(self, path, target, video, part):
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
        self._mux(self._stream.encode(coded))

    def _mux(self, packets):
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
        self._mux(self._stream.encode(None))
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
