"""Video files that are written: pixels encoded like the original at its times, and all other streams copied."""

import contextlib
import os
from fractions import Fraction

import numpy as np

from deblur_gan.images.photographs import BadImage
from deblur_gan.video.decode import RGB_CODING, TAGS, colour_coding, pyav, reformat

# The encoder for each codec, at a constant quality that costs little of what was restored.
_H264 = "libx264", {"crf": "14"}
# These have a quantizer, from 1 for the least loss to 31; FFmpeg counts it in 118ths.
_QUANTIZER = {"flags": "+qscale", "global_quality": str(2 * 118)}
_ENCODERS = {
    "h264": _H264,
    "hevc": ("libx265", {"crf": "14", "x265-params": "log-level=none"}),
    "vp8": ("libvpx", {"crf": "4", "b": "1G", "cpu-used": "2"}),
    "vp9": ("libvpx-vp9", {"crf": "12", "b": "0", "cpu-used": "3", "row-mt": "1"}),
    "av1": ("libsvtav1", {"crf": "12", "preset": "8"}),
    "prores": ("prores_ks", {}),
    **{codec: (codec, _QUANTIZER) for codec in ("mjpeg", "mpeg1video", "mpeg2video", "mpeg4")},
}

_MOV = ("3g2", "3gp", "ipod", "mov", "mp4")  # FFmpeg's names of containers of one family
_COLOUR_TAGS = ("colorspace", "color_range", "color_primaries", "color_trc")
# Tags about the packets of the original, which no longer hold.
_STALE = ("BPS", "DURATION", "ENCODER", "NUMBER_OF_", "ROTATE", "_STATISTICS_")
_MOST_FRAMES_PER_SECOND = 1000
_NARROWEST_HEVC = 64  # libx265 writes beyond its memory at 40x64 and 48x32 pixels, which ends the process
_LONGEST_DELAY = 16  # frames between the times at which one is decoded and shown: what H.264 and HEVC allow


class VideoFile:
    """Writes pictures at the times of the frames of another video, and copies its other packets.

    `path` is that of the file, and messages name `target` instead. `video` is the `av.VideoStream` of the original, and
    `part` the part of it that is restored, as in `video/restore.py`.

    Attributes:
        n_frames: int, pictures added.
        size: `(width, height)` of the pictures, or None before the first.
        notes: list of str, what differs from the original.

    Raises:
        BadImage: if no container has this extension, or no encoder takes the pictures.
    """

    def __init__(self, path, target, video, part):
        av, self._target = pyav(target), target
        self.n_frames, self.size, self.notes = 0, None, []
        self._video, self._part, self._original = video, part, video.container
        suffix = path.suffix.lower()
        try:
            self._file = av.open(str(path.absolute()), "w", format={".m4v": "mp4"}.get(suffix), **TAGS)
        except ValueError:
            raise BadImage(f"{target}: no container of videos has this extension") from None
        # By index of a stream: its copy, and the time of its last packet. Packets that came before the first frame.
        self._copies, self._last_dts, self._early = {}, {}, []
        # Times and durations of the frames that the encoder has not returned, by their number.
        self._times, self._offset = {}, None

    def close(self):
        """Closes the file, finished or not."""
        with contextlib.suppress(pyav(self._target).FFmpegError):
            self._file.close()

    def begin(self, frame, size):
        """Writes the beginning of the file; `frame` is the first of the original, `size` that of the pictures."""
        self.size = size
        for stream in self._original.streams:
            if stream is self._video:
                self._add_encoder(frame)
            else:
                self._add_copy(stream)
        self._file.metadata.update(self._original.metadata)
        if self._part.whole:
            self._file.set_chapters([chapter for chapter in self._original.chapters() if chapter["time_base"]])
        early, self._early = self._early, None
        for packet in early:
            self.copy(packet)

    def _add_encoder(self, frame):
        """Adds a stream with the codec of the original or, if that cannot be written, with H.264."""
        codec, family = self._video.codec_context.codec, self._file.format.name
        own = _ENCODERS.get(codec.canonical_name)
        if codec.lossless and not codec.lossy:
            own = codec.canonical_name, {}
        for name, options in filter(None, (own, _H264)):
            # ValueError: FFmpeg was built without the encoder, it does not take such frames, or the container does not
            # take the codec.
            with contextlib.suppress(ValueError, NotImplementedError):
                settings = self._settings(name, frame)
                _try_encoder(name, options, settings)
                stream = self._file.add_stream(name, rate=settings["framerate"], options=options)
                break
        else:
            width, height = self.size
            raise BadImage(
                f"{self._target}: cannot be written: neither {codec.canonical_name} nor H.264 can be encoded for such "
                f"a file at {width}x{height} pixels"
            )
        if (name, options) != own:
            self.notes.append(f"it is written as H.264: {codec.canonical_name} cannot be written here")
        context = stream.codec_context
        for field, value in settings.items():
            setattr(context, field, value)
        if family == "avi":
            context.max_b_frames = 0  # it takes no packet that comes long before its frame is shown
        if family in _MOV:
            if name == "libx265":
                context.codec_tag = "hvc1"  # Apple's players require it
            if self._video.time_base.numerator == 1:
                self._file.container_options["video_track_timescale"] = str(self._video.time_base.denominator)
        stream.time_base = self._video.time_base
        stream.disposition = self._video.disposition
        tags = self._video.metadata.items()
        stream.metadata.update({key: value for key, value in tags if not key.upper().startswith(_STALE)})
        self._stream, self._step = stream, max(1, round(1 / (context.framerate * self._video.time_base)))

    def _settings(self, name, frame):
        """Returns the settings of an encoder by their names in `av.VideoCodecContext`, and sets the colour coding."""
        layout = _pixel_format(name, frame.format, self.size)
        self._coding = colour_coding(frame)
        self._colour_tags = {tag: getattr(frame, tag) for tag in _COLOUR_TAGS}
        if frame.format.is_rgb and not layout.is_rgb:
            self._coding = 1, 1
            self._colour_tags |= {"colorspace": 1, "color_range": 1}
        width, height = self.size
        settings = {"width": width, "height": height, "pix_fmt": layout.name, "framerate": _rate(name, self._video)}
        if ratio := self._video.sample_aspect_ratio:
            settings["sample_aspect_ratio"] = ratio if self.size == (frame.width, frame.height) else 1 / ratio
        return settings | self._colour_tags

    def _add_copy(self, stream):
        try:
            if stream.type not in ("audio", "subtitle", "video", "attachment") or not stream.time_base:
                raise ValueError
            copy = self._file.add_stream_from_template(stream, opaque=True)
        except ValueError:
            kind = f"stream {stream.index} ({stream.type})"
            self.notes.append(f"{kind} is left out: it cannot be written in this container")
            return
        copy.time_base = stream.time_base
        copy.disposition = stream.disposition
        copy.metadata.update(stream.metadata)
        self._copies[stream.index] = copy

    def copy(self, packet):
        """Copies a packet of another stream than the pictures, if it lies in the part or is a cover."""
        cover = packet.stream.disposition & pyav(self._target).stream.Disposition.attached_pic
        time = packet.dts if packet.pts is None else packet.pts
        if not cover and (time is None or not self._part.contains(time * packet.time_base)):
            return
        if self._early is not None:
            self._early.append(packet)
            return
        copy = self._copies.get(packet.stream.index)
        if copy is None:
            return
        shift = self._part.shift(packet.time_base)
        if cover:
            time, packet.dts, shift = 0, None, 0
        packet.pts = time - shift
        # In a damaged file times may go back, which no container takes.
        last = self._last_dts.get(copy.index)
        dts = packet.pts if packet.dts is None else packet.dts - shift
        packet.dts = dts if last is None else max(dts, last + 1)
        packet.pts = max(packet.pts, packet.dts)
        self._last_dts[copy.index] = packet.dts
        packet.stream = copy
        self._file.mux(packet)

    def add(self, pixels, frame):
        """Encodes a picture, uint8 `(H, W, 3)` RGB or `(H, W, 4)` RGBA, at the time of a frame of the original."""
        av = pyav(self._target)
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
        coded = reformat(coded, context.pix_fmt, "AREA", coding, self._coding)
        for tag, value in self._colour_tags.items():
            setattr(coded, tag, value)
        # The encoder gets numbers instead of times, because some codecs take only a constant rate.
        coded.pts, coded.time_base = self.n_frames, 1 / context.framerate
        self.n_frames += 1
        self._mux(self._stream.encode(coded))

    def _mux(self, packets):
        """Writes encoded packets at the times of the frames of their numbers."""
        for packet in packets:
            number = packet.pts if packet.dts is None else packet.dts
            if self._offset is None:
                # libx265 does not initialize the delay of a video that is shorter than it.
                self._offset = 0 if -_LONGEST_DELAY <= number <= packet.pts else -_LONGEST_DELAY - number
            number += self._offset
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


def _try_encoder(name, options, settings):
    """Opens an encoder for a try: a stream cannot be taken out of a container again.

    Raises ValueError or NotImplementedError if it does not take such frames.
    """
    if name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # only errors; it writes to stderr
    if name == "libx265" and settings["width"] < _NARROWEST_HEVC:
        raise ValueError
    context = pyav(name).CodecContext.create(name, "w")
    context.options, context.time_base = dict(options), 1 / settings["framerate"]
    for field, value in settings.items():
        setattr(context, field, value)
    context.open()


def _full_range(pixels, matrix):
    """Converts RGB to full-range luma and colour differences, uint8 `(3, H, W)`; FFmpeg rounds differences down."""
    of_red, of_blue = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 5: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}[
        matrix
    ]
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    differences = (blue - luma) / (2 - 2 * of_blue) + 128, (red - luma) / (2 - 2 * of_red) + 128
    return np.clip(np.rint([luma, *differences]), 0, 255).astype(np.uint8)


def _rate(name, video):
    """Returns the mean frames per second of a video; if an encoder has certain rates, the nearest of them."""
    rate = Fraction(video.average_rate or video.guessed_rate or 25)
    rate = min(max(rate, Fraction(1, 1000)), Fraction(_MOST_FRAMES_PER_SECOND)).limit_denominator(1001)
    rates = pyav(name).Codec(name, "w").frame_rates
    return min((Fraction(r.numerator, r.denominator) for r in rates), key=lambda r: abs(r - rate)) if rates else rate


def _pixel_format(name, original, size):
    """Returns the `av.VideoFormat` of an encoder that is nearest to the original's."""
    from av.codec.codec import find_best_pix_fmt_of_list

    formats = [other for other in pyav(name).Codec(name, "w").video_formats or [original]]
    if name in ("libx264", "libx265"):  # they take no half of a pair of pixels that share a colour difference
        width, height = size
        formats = [
            other
            for other in formats
            if not (width % 2 and other.chroma_width(2) == 1) and not (height % 2 and other.chroma_height(2) == 1)
        ]
    names = [other.name for other in formats]
    return original if original.name in names else find_best_pix_fmt_of_list(names, original, True)[0]
