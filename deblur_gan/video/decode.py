"""Video files: opened safely, and decoded to frames in the order of time and to pixels as a player shows them."""

import contextlib
import heapq
import itertools
import os

import numpy as np

from deblur_gan.images.colour import HDR
from deblur_gan.images.photographs import BadImage

MAX_PIXELS = 100_000_000  # of a frame; three times those of 8K

# FFmpeg also reads lists of other files, network streams and devices, whatever the name of the file.
_CONTAINERS = "asf,avi,flv,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,ogg"
_ONLY_FILES = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}

# Tags are bytes in whatever encoding; this keeps them on the way from file to file.
TAGS = {"metadata_errors": "surrogateescape"}

_ONE_FRAME_PER_PACKET = ("dnxhd", "h264", "hevc", "mjpeg", "mpeg4", "prores")

# A time further from 0, in seconds and in units, comes from a damaged file; arithmetic with it would overflow.
_LATEST_SECONDS, _LATEST_UNITS = 10**10, 2**62

# SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT and SWS_FULL_CHR_H_INP: without them FFmpeg rounds colours down by a level.
_EXACT = 0x40000 | 0x2000 | 0x4000

# The coding of RGB as `colour_coding` returns it: any matrix, full range.
RGB_CODING = 1, 2


def pyav(path):
    """Returns the module `av`, which only videos need; raises BadImage that names `path` if it is not installed."""
    try:
        import av
    except ImportError:
        raise BadImage(f"{path}: video files require PyAV: pip install av") from None
    return av


@contextlib.contextmanager
def open_video(path):
    """Opens a video file, and no other file that it may name.

    Yields `(container, video)`: `av.container.InputContainer`, and its first `av.VideoStream` that is not a cover.
    Raises BadImage if PyAV is missing, the file is not a video, or its frames have more than `MAX_PIXELS` pixels.
    """
    av, bound = pyav(path), {"max_pixels": str(MAX_PIXELS)}
    if not os.path.isfile(path):
        fault = "is a folder, a pipe, a socket or a device" if os.path.exists(path) else "no such file"
        raise BadImage(f"{path}: {fault}; a video file is required")
    try:
        container = av.open(os.path.abspath(path), options=_ONLY_FILES | bound, **TAGS)
    except av.FFmpegError as error:
        raise BadImage(
            f"{path}: cannot be read as a video ({ffmpeg_reason(error)}); a file such as MP4, MOV, MKV, WebM, AVI or "
            "MPEG is required"
        ) from None
    with container:
        covers = av.stream.Disposition.attached_pic
        # A codec that FFmpeg cannot decode has no context.
        videos = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & covers]
        if not videos:
            raise BadImage(f"{path}: contains no video that can be decoded")
        context = videos[0].codec_context
        # FFmpeg forgets a size above the bound.
        if not 0 < context.width * context.height <= MAX_PIXELS:
            raise BadImage(f"{path}: its frames have no size, or more than the {MAX_PIXELS} pixels that are read")
        # Frames may become larger later than the container states.
        context.options = bound
        context.thread_type = "AUTO"
        yield container, videos[0]


def read_packets(container, *streams):
    """Yields the packets of some streams, or of all, in the order of the file, without times that make no sense.

    Raises `av.FFmpegError` if the file cannot be read further.
    """
    for packet in container.demux(*streams):
        if not packet.size:
            continue  # PyAV's sign to flush the decoder
        for name in ("pts", "dts"):
            units = getattr(packet, name)
            if units is not None and not _is_time(units, packet.time_base):
                setattr(packet, name, None)
        if packet.duration and not _is_time(packet.duration, packet.time_base):
            packet.duration = 0
        yield packet


def _is_time(units, time_base):
    return abs(units) < _LATEST_UNITS and abs(units * (time_base or 1)) < _LATEST_SECONDS


def decode_frames(path, video, packets):
    """Decodes the frames of a video in the order of time, and reports the faults of broken ones.

    Args:
        path: str or Path, for messages.
        video: `av.VideoStream`.
        packets: iterable of its `av.Packet`s.

    Yields:
        `(frame, seconds, fault)`: `av.VideoFrame`, or None if there is none to show; Fraction, its time, or None if
        unknown; str such as "is damaged", or None.

    Raises:
        BadImage: if the video is recorded with high dynamic range.
        av.FFmpegError: if a packet cannot be read.
    """
    av = pyav(path)
    reason, expected = "it is missing", []
    # AVI stores when packets come instead of when frames are shown: frames take these times in their order.
    in_order = video.container.format.name == "avi"
    # A packet of another codec may contain no frame that is shown.
    one_frame_each = not in_order and video.codec_context.codec.canonical_name in _ONE_FRAME_PER_PACKET

    def missing(pts):
        seconds = None if pts is None else pts * video.time_base
        return None, seconds, f"cannot be decoded ({reason})"

    for packet in itertools.chain(packets, [None]):  # None flushes the decoder
        pts = None if packet is None else packet.dts if in_order else packet.pts
        if (in_order or one_frame_each) and pts is not None and not packet.is_discard:
            heapq.heappush(expected, pts)
        try:
            frames = video.codec_context.decode(packet)
        except av.FFmpegError as error:
            frames, reason = [], ffmpeg_reason(error)
            # At the end the decoder repeats the last error.
            if packet is not None and not one_frame_each:
                yield missing(heapq.heappop(expected) if expected else pts)
        for frame in frames:
            if hdr := HDR.get(frame.color_trc):
                raise BadImage(f"{path}: is recorded with high dynamic range ({hdr}); standard is required")
            if in_order:
                frame.pts = heapq.heappop(expected) if expected else None
            elif frame.pts is not None and not _is_time(frame.pts, video.time_base):
                frame.pts = None
            while expected and one_frame_each and frame.pts is not None and expected[0] <= frame.pts:
                pts = heapq.heappop(expected)
                if pts < frame.pts:
                    yield missing(pts)
            seconds = None if frame.pts is None else frame.pts * video.time_base
            yield frame, seconds, "is damaged" if frame.is_corrupt else None
    while expected and one_frame_each:
        yield missing(heapq.heappop(expected))


def to_pixels(frame):
    """Converts a frame to pixels as a player shows it.

    Colours follow the range and the matrix that the frame states. Without a matrix it is BT.709 above 1279 px of width
    or 576 px of height, else BT.601. More than 8 bits become 8. Pixels that share a colour difference get the same one,
    so that an unchanged frame is encoded to what it was.

    Returns:
        uint8 `(H, W, 3)` RGB or, for a frame with transparency, `(H, W, 4)` RGBA, upright.
    """
    layout = "rgba" if has_alpha(frame.format) else "rgb24"
    pixels = reformat(_without_chroma_location(frame), layout, "POINT", colour_coding(frame), RGB_CODING).to_ndarray()
    if "DISPLAYMATRIX" in [data.type.name for data in frame.side_data]:
        a, b, _, c, d, *_ = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32).astype(int)
        if abs(b) + abs(c) > abs(a) + abs(d):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels)


def has_alpha(pixel_format):
    """Returns whether an `av.VideoFormat` has transparency."""
    return any(component.is_alpha for component in pixel_format.components)


def _without_chroma_location(frame):
    """Copies a frame without the location of the colour differences that pixels share.

    The result of `restore_video` cannot state it, so FFmpeg would move the differences by half a pixel.
    """
    from av import VideoFrame

    if frame.format.chroma_width(2) == 2 and frame.format.chroma_height(2) == 2:
        return frame
    copy = VideoFrame(frame.width, frame.height, frame.format.name)
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    for plane, original in zip(copy.planes, frame.planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        of_original = np.frombuffer(original, np.uint8).reshape(plane.height, original.line_size)
        width = min(plane.line_size, original.line_size)
        rows[:, :width] = of_original[:, :width]
        plane.update(rows)
    return copy


def colour_coding(frame):
    """Returns `(matrix, range)` of an `av.VideoFrame` in FFmpeg's numbers; if it states none, what players assume."""
    if frame.format.is_rgb:
        return RGB_CODING
    matrix = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}.get(frame.colorspace)
    if matrix is None:
        matrix = 1 if frame.width >= 1280 or frame.height > 576 else 5
    full = frame.color_range == 2 or frame.format.name.startswith("yuvj")
    return matrix, 2 if full else 1


def reformat(frame, layout, kernel, coding, to_coding):
    """Converts a frame to another pixel format without the losses of FFmpeg's faster conversions.

    Args:
        frame: `av.VideoFrame`.
        layout: str, FFmpeg's name of a pixel format.
        kernel: str, how pixels that share a colour difference are joined, `"AREA"` (the mean), or parted, `"POINT"`.
        coding, to_coding: `(matrix, range)` of the frame and of the result; see `colour_coding`.
    """
    from av.video.reformatter import Interpolation

    return frame.reformat(
        format=layout,
        interpolation=int(Interpolation[kernel]) | _EXACT,
        src_colorspace=coding[0],
        src_color_range=coding[1],
        dst_colorspace=to_coding[0],
        dst_color_range=to_coding[1],
    )


def ffmpeg_reason(error):
    """Returns the message of an `av.FFmpegError` in a few words."""
    return error.strerror or type(error).__name__
