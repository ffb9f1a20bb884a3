"""Frames of recordings: video files and folders of frames as scenes, read one by one, and what makes a frame unfit."""

import heapq
import itertools

import numpy as np

from deblur_gan.images.photographs import BadImage

# Transfer functions of the standard ITU-T H.273 whose values cannot be read as those of an ordinary picture.
_HDR = {16: "PQ", 18: "HLG"}

_ONE_FRAME_A_PACKET = ("dnxhd", "h264", "hevc", "mjpeg", "mpeg4", "prores")

# SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT and SWS_FULL_CHR_H_INP: without them FFmpeg rounds colours down by a level.
_EXACTLY = 0x40000 | 0x2000 | 0x4000

# How RGB is coded, as `colour_coding` says it: by whichever matrix, in the full range.
RGB_CODING = 1, 2


def pyav(path):
    """The module `av`, which is not required but for videos.

    Args:
        path: str or Path of the video that it is wanted for.

    Raises:
        BadImage: if it is not installed.
    """
    try:
        import av
    except ImportError:
        raise BadImage(f"{path}: video files require PyAV: pip install av") from None
    return av


def main_video(path, container):
    """The first stream of moving pictures of an open `av.container.InputContainer`; a cover is none.

    Raises:
        BadImage: if there is none.
    """
    for stream in container.streams.video:
        # A codec that is not known here has no context.
        if stream.codec_context is not None and not stream.disposition & stream.disposition.attached_pic:
            stream.thread_type = "AUTO"
            return stream
    raise BadImage(f"{path}: holds no video")


def decoded(path, stream, packets):
    """Decodes the frames of a video in the order of time, and tells those that are broken.

    Args:
        path: str or Path, for messages.
        stream: `av.VideoStream`.
        packets: iterable of its `av.Packet`s.

    Yields:
        `(frame, seconds, broken)`: `av.VideoFrame`, or None if there is none to show; Fraction, its time, or None if it
        is not known; str, what is broken about it, such as "is damaged", or None.

    Raises:
        BadImage: if the video is recorded with high dynamic range.
        av.FFmpegError: if a packet cannot be read.
    """
    av = pyav(path)
    reason, awaited = "it is missing", []
    # AVI says when packets come, and not when their frames are shown: frames take those times in their order.
    in_order = stream.container.format.name == "avi"
    # A packet of another codec may hold no frame that is shown.
    one_frame_each = not in_order and stream.codec_context.codec.canonical_name in _ONE_FRAME_A_PACKET

    def missing(pts):
        seconds = None if pts is None else pts * stream.time_base
        return None, seconds, f"cannot be decoded ({reason})"

    for packet in itertools.chain(packets, [None]):
        if packet is not None and not packet.size:
            continue  # PyAV empties the decoder with it; here None does, once
        pts = None if packet is None else packet.dts if in_order else packet.pts
        if (in_order or one_frame_each) and pts is not None and not packet.is_discard:
            heapq.heappush(awaited, pts)
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError as error:
            frames, reason = [], ffmpeg_reason(error)
            # The decoder says so once more when it is emptied at the end.
            if packet is not None and not one_frame_each:
                yield missing(heapq.heappop(awaited) if awaited else pts)
        for frame in frames:
            if frame.color_trc in _HDR:
                hdr = _HDR[frame.color_trc]
                raise BadImage(f"{path}: is recorded with high dynamic range ({hdr}); standard is required")
            if in_order:
                frame.pts = heapq.heappop(awaited) if awaited else None
            while awaited and one_frame_each and frame.pts is not None and awaited[0] <= frame.pts:
                pts = heapq.heappop(awaited)
                if pts < frame.pts:
                    yield missing(pts)
            seconds = None if frame.pts is None else frame.pts * stream.time_base
            yield frame, seconds, "is damaged" if frame.is_corrupt else None
    while awaited and one_frame_each:
        yield missing(heapq.heappop(awaited))


def picture(frame):
    """The picture of a frame of a video, as a player shows it.

    The colours are those that the range and the matrix of the frame say; where it says no matrix, that of BT.709 above
    1279 px of width or 576 px of height, else that of BT.601. More than 8 bits become 8. Pixels that share a colour
    difference get the same one, so that `video.restore_video` can give back what it got.

    Args:
        frame: `av.VideoFrame`.

    Returns:
        uint8 `(H, W, 3)` RGB or, of a frame with transparency, `(H, W, 4)` RGBA, upright.
    """
    layout = "rgba" if any(component.is_alpha for component in frame.format.components) else "rgb24"
    colours = reformatted(_centred(frame), layout, "POINT", colour_coding(frame), RGB_CODING)
    pixels = colours.to_ndarray()
    if "DISPLAYMATRIX" in [data.type.name for data in frame.side_data]:
        a, b, _, c, d, *_ = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32)
        if abs(b) + abs(c) > abs(a) + abs(d):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels)


def _centred(frame):
    """A copy that does not say where between pixels their shared colour differences lie.

    The result of `restore_video` cannot say it, and FFmpeg would move the differences by half a pixel on the way.
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
    """`(matrix, range)` of an `av.VideoFrame`, as FFmpeg numbers them; where it says none, what players take."""
    if frame.format.is_rgb:
        return RGB_CODING
    matrix = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}.get(frame.colorspace)
    if matrix is None:
        matrix = 1 if frame.width >= 1280 or frame.height > 576 else 5
    full = frame.color_range == 2 or frame.format.name.startswith("yuvj")
    return matrix, 2 if full else 1


def reformatted(frame, layout, kernel, coding, to_coding):
    """An `av.VideoFrame` with another layout of pixels, without the losses of FFmpeg's faster conversions.

    Args:
        frame: `av.VideoFrame`.
        layout: str, FFmpeg's name of a format of pixels.
        kernel: str, how pixels come to share a colour difference: `"AREA"`, the mean; or how they part: `"POINT"`.
        coding, to_coding: `(matrix, range)` of the frame and of the result; see `colour_coding`.
    """
    from av.video.reformatter import Interpolation

    return frame.reformat(
        format=layout,
        interpolation=int(Interpolation[kernel]) | _EXACTLY,
        src_colorspace=coding[0],
        src_color_range=coding[1],
        dst_colorspace=to_coding[0],
        dst_color_range=to_coding[1],
    )


def ffmpeg_reason(error):
    """What an `av.FFmpegError` says, in a few words."""
    return error.strerror or type(error).__name__
