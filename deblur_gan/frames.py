"""Frames of recordings: video files and folders of frames as scenes, read one by one, and what makes a frame unfit."""

import heapq
import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from deblur_gan.photographs import BadImage, find_images, read_rgb

VIDEO_EXTENSIONS = (".3gp", ".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm")

# Transfer functions of the standard ITU-T H.273 whose values cannot be read as those of an ordinary picture.
_HDR = {16: "PQ", 18: "HLG"}

_ONE_FRAME_A_PACKET = ("dnxhd", "h264", "hevc", "mjpeg", "mpeg4", "prores")

# SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT and SWS_FULL_CHR_H_INP: without them FFmpeg rounds colours down by a level.
_EXACTLY = 0x40000 | 0x2000 | 0x4000

# How RGB is coded, as `colour_coding` says it: by whichever matrix, in the full range.
RGB_CODING = 1, 2


def find_scenes(source):
    """Finds recordings: a video file, a folder of frames, or a folder that holds such files and folders.

    Args:
        source: str or Path. Its hidden files and folders are passed over.

    Returns:
        list of `(name, Path)`, sorted: a video file or a folder of frames each. The name is that of the file or folder,
        with those of the folders between it and `source` before it.

    Raises:
        FileNotFoundError: if there is nothing of that name.
        ValueError: if a folder holds neither frames nor videos.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if source.is_file():
        return [(source.stem, source)]
    scenes = [(source.resolve().name, source)] if find_images(source) else _scenes_below(source)
    if not scenes:
        raise ValueError(f"{source}: holds neither frames nor videos")
    return scenes


def _scenes_below(folder, prefix=""):
    scenes = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            name = f"{prefix}{path.name}"
            scenes += ([(name, path)] if find_images(path) else []) + _scenes_below(path, f"{name}-")
        elif path.suffix.lower() in VIDEO_EXTENSIONS:
            scenes.append((f"{prefix}{path.stem}", path))
    return scenes


def read_frames(path, report, scale=1.0):
    """Reads the frames of a recording, one by one, in the order of time. What is broken is said and passed over.

    Args:
        path: Path of a video file, for which PyAV is required, or of a folder of frames, in the order of their names.
        report: function that gets a `BadImage` for each fault; of faults of one kind it gets the first, and at the end
            how many more there were. A change of the size of the frames is one.
        scale: float in (0, 1], factor to both sides.

    Yields:
        `(number, pixels)`: int, counted from 0 over all frames of the recording, and uint8 `(H, W, 3)` RGB, upright.
    """
    faults = {}

    def fault(kind, error):
        faults[kind] = faults.get(kind, 0) + 1
        if faults[kind] == 1:
            report(error)

    size, number = None, -1
    for number, pixels in (_of_folder if path.is_dir() else _of_video)(path, fault):
        height, width, _ = pixels.shape
        if size is not None and size != (width, height):
            change = f"frame {number} is {width}x{height}, but those before it are {size[0]}x{size[1]}"
            fault("size", BadImage(f"{path}: {change}; no pair is made across the change"))
        size = width, height
        yield number, reduced(pixels, scale)
    for kind, count in faults.items():
        if count > 1:
            report(BadImage(f"{path}: {count - 1} more faults of this kind: {kind}"))
    if number == 0:
        report(BadImage(f"{path}: has one frame; motion shows in two or more"))


def reduced(pixels, scale):
    """Reduces uint8 `(H, W, channels)` by a factor to both sides, to 1 px at least; bicubic with antialiasing."""
    if scale == 1:
        return pixels
    height, width, channels = pixels.shape
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC)).reshape(size[1], size[0], channels)


def _of_folder(path, fault):
    for number, file in enumerate(find_images(path)):
        try:
            yield number, read_rgb(file)
        except BadImage as error:
            fault("unreadable", error)


def _of_video(path, fault):
    av = pyav(path)
    number, whole = -1, True  # until a frame is damaged: those up to the next key frame are made from it
    try:
        with av.open(str(path.absolute())) as container:
            stream = main_video(path, container)
            for number, (frame, _, broken) in enumerate(decoded(path, stream, container.demux(stream))):
                whole = not broken and (whole or frame.key_frame)
                if whole:
                    yield number, picture(frame)[..., :3]
                else:
                    fault("broken", BadImage(f"{path}: frame {number} {broken or 'is damaged'}"))
    except av.FFmpegError as error:
        at = "" if number < 0 else f"after frame {number}, "
        raise BadImage(f"{path}: cannot be read as a video {at}({ffmpeg_reason(error)})") from None
    if number < 0:
        raise BadImage(f"{path}: holds no frame that can be decoded")


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
        raise BadImage(f"{path}: video files require PyAV: pip install deblur-gan[video]") from None
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


def sharpness(image):
    """How much of the finest contrast of a picture a blur of 9 px would take away: about 0.75 is sharp, 0.5 blurred.

    Args:
        image: uint8 `(H, W, 3)`.

    Returns:
        float in [0, 1], that of the direction, across or down, in which it is less; 0 for a flat picture.

    Reference:
        Crete et al., The Blur Effect: Perception and Estimation with a New No-Reference Perceptual Blur Metric,
        Human Vision and Electronic Imaging XII, 2007: this is 1 minus their measure.
    """
    from scipy import ndimage  # restoring a photograph gets here by way of `video`, and can do without

    grey = image @ np.float32([0.299, 0.587, 0.114])
    of_axes = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis))
        after = np.abs(np.diff(ndimage.uniform_filter1d(grey, 9, axis=axis), axis=axis))
        of_axes.append(float(np.maximum(steps - after, 0).sum() / max(steps.sum(), 1e-6)))
    return min(of_axes)


def is_cut(first, second):
    """Whether two frames of one size are of different scenes: neither their layout nor their colours fit.

    Frames of one scene that follow each other correlate by 0.89 and share 0.97 of their colours at least (1,121 frames
    of 21 recordings); of frames across a cut the median is 0.2 and 0.5.
    """
    layouts, colours = [], []
    for image in (first, second):
        small = Image.fromarray(image).resize((16, 9), Image.Resampling.BOX).convert("L")
        layout = np.asarray(small, np.float64) - np.asarray(small).mean()
        layouts.append(layout / max(np.linalg.norm(layout), 1e-9))
        bins = (image >> 6) @ np.array([16, 4, 1])
        colours.append(np.bincount(bins.ravel(), minlength=64) / bins.size)
    return np.sum(layouts[0] * layouts[1]) < 0.8 and np.minimum(*colours).sum() < 0.8


def is_still(first, second):
    """Whether nothing moved between two frames of one size but their noise: seen in means over 8 x 8 px."""
    small = [
        np.asarray(Image.fromarray(image).reduce((min(8, image.shape[1]), min(8, image.shape[0]))), np.float32)
        for image in (first, second)
    ]
    return np.abs(small[0] - small[1]).mean() < 0.5
