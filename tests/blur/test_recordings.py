import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from scipy import ndimage

from deblur_gan.blur.recordings import find_scenes, is_cut, is_still, read_frames
from deblur_gan.images.photographs import BadImage, read_rgb
from deblur_gan.images.sharpness import sharpness


@pytest.fixture(scope="module")
def photograph():
    return read_rgb(Path(skimage.__file__).parent / "data" / "astronaut.png")[:192, 96:352]


def pictures(n, height=48, width=64):
    """Frames with a gradient to the right and a block that moves, so that turns and mix-ups show."""
    frames = []
    for i in range(n):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[...] = np.linspace(0, 200, width, dtype=np.uint8)[:, np.newaxis]
        frame[4:12, 4 * i : 4 * i + 8] = (250, 40, 40)
        frames.append(frame)
    return frames


def write_video(path, frames, codec="ffv1", pixels="rgb24", **attributes):
    """Writes a video of RGB frames; `attributes` are those of the codec's context."""
    av = pytest.importorskip("av", reason="video files require the extra [video]")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], pixels
        for name, value in attributes.items():
            setattr(stream.codec_context, name, value)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def read(path, **options):
    said = []
    frames = list(read_frames(path, lambda error: said.append(str(error)), **options))
    return [number for number, _ in frames], [frame for _, frame in frames], said


def save(folder, frames):
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i:05}.png")


def test_scenes_are_files_and_folders_and_named_after_both(tmp_path):
    for name in ("walk", "trip/day1", "trip/day2", ".hidden"):
        save(tmp_path / name, pictures(1))
    (tmp_path / "trip" / "clip.MP4").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    names = [name for name, _ in find_scenes(tmp_path)]
    assert names == ["trip-clip", "trip-day1", "trip-day2", "walk"]
    assert find_scenes(tmp_path / "walk") == [("walk", tmp_path / "walk")]
    assert find_scenes(tmp_path / "trip" / "clip.MP4") == [("clip", tmp_path / "trip" / "clip.MP4")]
    with pytest.raises(ValueError, match="empty: contains neither frames nor videos"):
        find_scenes(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="missing: no such file"):
        find_scenes(tmp_path / "missing")


def test_faults_of_a_folder_are_said_once_and_its_other_frames_are_read(tmp_path):
    frames = pictures(8)
    frames[5:7] = pictures(2, 30, 40)
    save(tmp_path / "walk", frames)
    for broken in (1, 3):
        (tmp_path / "walk" / f"{broken:05}.png").write_bytes(b"nothing")
    numbers, found, said = read(tmp_path / "walk")
    assert numbers == [0, 2, 4, 5, 6, 7]
    assert all(np.array_equal(frame, frames[number]) for number, frame in zip(numbers, found, strict=True))
    assert len(said) == 4
    assert "00001.png: not an image" in said[0]
    assert "walk: frame 5 is 40x30, but those before it are 64x48" in said[1]
    assert sorted(line.rpartition(": ")[2] for line in said[2:]) == ["size", "unreadable"]
    _, small, _ = read(tmp_path / "walk", scale=0.5)
    assert small[0].shape == (24, 32, 3)
    save(tmp_path / "one", pictures(1))
    assert read(tmp_path / "one")[2] == [f"{tmp_path / 'one'}: has one frame; motion shows in two or more"]


@pytest.mark.parametrize(("pixels", "tolerance"), [("bgr0", 0), ("yuv444p10le", 3)])
def test_a_video_is_read_in_order_8_bit_or_more(tmp_path, pixels, tolerance):
    frames = pictures(7)
    write_video(tmp_path / "clip.mkv", frames, pixels=pixels)
    numbers, found, said = read(tmp_path / "clip.mkv")
    assert numbers == list(range(7)) and said == []
    for frame, original in zip(found, frames, strict=True):
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - original).max() <= tolerance
    write_video(tmp_path / "one.mkv", frames[:1], pixels=pixels)
    assert read(tmp_path / "one.mkv")[2] == [f"{tmp_path / 'one.mkv'}: has one frame; motion shows in two or more"]


def test_a_turned_video_is_read_upright(tmp_path):
    frames = pictures(3)
    write_video(tmp_path / "clip.mp4", frames, "mpeg4", "yuv420p", bit_rate=4_000_000)
    _, upright, _ = read(tmp_path / "clip.mp4")
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    one, perspective = 1 << 16, 1 << 30
    assert struct.unpack_from(">9i", content, matrix) == (one, 0, 0, 0, one, 0, 0, 0, perspective)
    # What a telephone held upright writes: x goes down, y to the left.
    struct.pack_into(">9i", content, matrix, 0, one, 0, -one, 0, 0, 48 * one, 0, perspective)
    (tmp_path / "turned.mp4").write_bytes(content)
    _, turned, said = read(tmp_path / "turned.mp4")
    assert said == []
    for frame, original in zip(turned, upright, strict=True):
        assert np.array_equal(frame, np.rot90(original, -1))


def jpegs(frames):
    files = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    return files


def test_a_change_of_size_and_a_broken_frame_of_a_video_are_said(tmp_path):
    pytest.importorskip("av", reason="video files require the extra [video]")
    (tmp_path / "size.mjpeg").write_bytes(b"".join(jpegs(pictures(3) + pictures(3, 32, 48))))
    numbers, found, said = read(tmp_path / "size.mjpeg")
    assert numbers == list(range(6)) and found[2].shape != found[3].shape
    assert len(said) == 1 and "size.mjpeg: frame 3 is 48x32, but those before it are 64x48" in said[0]

    write_video(tmp_path / "clip.avi", pictures(6), "mjpeg", "yuvj420p")
    content = bytearray((tmp_path / "clip.avi").read_bytes())
    starts = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"]
    content[starts[2] : starts[3] - 16] = bytes(starts[3] - 16 - starts[2])
    (tmp_path / "clip.avi").write_bytes(content)
    numbers, _, said = read(tmp_path / "clip.avi")
    assert numbers == [0, 1, 3, 4, 5]
    assert len(said) == 1 and "clip.avi: frame 2 cannot be decoded" in said[0]


def test_what_is_made_from_a_damaged_frame_is_left_out(tmp_path):
    av = pytest.importorskip("av", reason="video files require the extra [video]")
    rng = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(rng.integers(0, 256, (96, 128, 3)).astype(float), (2, 2, 0))
    texture = np.clip(128 + 8 * (texture - texture.mean()), 0, 255).astype(np.uint8)
    frames = [np.roll(texture, 3 * i, axis=1) for i in range(12)]
    write_video(tmp_path / "clip.mkv", frames, "mpeg4", "yuv420p", gop_size=4)
    with av.open(str(tmp_path / "clip.mkv")) as container:
        packet = bytes([*container.demux(video=0)][5])
    content = bytearray((tmp_path / "clip.mkv").read_bytes())
    start = content.index(packet) + len(packet) // 3
    content[start : start + len(packet) // 3] = rng.bytes(len(packet) // 3)
    (tmp_path / "clip.mkv").write_bytes(content)
    numbers, _, said = read(tmp_path / "clip.mkv")
    assert numbers == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert said == [
        f"{tmp_path / 'clip.mkv'}: frame 5 is damaged",
        f"{tmp_path / 'clip.mkv'}: 2 more faults of this kind: broken",
    ]


def test_what_is_no_video_of_the_ordinary_kind_is_one_line(tmp_path):
    pytest.importorskip("av", reason="video files require the extra [video]")
    (tmp_path / "text.mp4").write_bytes(b"nothing " * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_video(tmp_path / "hdr.mkv", pictures(2), "ffv1", "yuv444p10le", color_trc=16)
    os.mkfifo(tmp_path / "pipe.mp4")
    assert len(find_scenes(tmp_path)) == 4 and find_scenes(tmp_path / "pipe.mp4")[0][0] == "pipe"
    for name, reason in (
        ("text", "cannot be read as a video"),
        ("empty", "cannot be read"),
        ("hdr", "dynamic range"),
        ("pipe", "a pipe, a socket or a device"),
    ):
        path = next(tmp_path.glob(f"{name}.*"))
        with pytest.raises(BadImage, match=f"{path.name}: .*{reason}") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_blur_takes_sharpness_away(photograph):
    sharp = sharpness(photograph)
    for sigma in (1, 2, 4):
        blurred = sharpness(ndimage.gaussian_filter(photograph, (sigma, sigma, 0)))
        assert blurred < sharp - 0.05
        sharp = blurred
    # Motion blur in one direction is enough.
    assert sharpness(ndimage.uniform_filter(photograph, (1, 9, 1))) < 0.6 < sharpness(photograph)
    assert sharpness(np.full((40, 40, 3), 7, np.uint8)) == 0


def test_cuts_and_stills_are_told_from_motion(photograph):
    other = read_rgb(Path(skimage.__file__).parent / "data" / "coffee.png")[:192, :256]
    moved = np.roll(photograph, (6, -11), (0, 1))
    noise = np.random.default_rng(0).normal(0, 4, photograph.shape)
    noisy = np.clip(photograph + noise, 0, 255).astype(np.uint8)
    assert is_cut(photograph, other) and not is_cut(photograph, moved) and not is_cut(photograph, noisy)
    assert is_still(photograph, photograph) and not is_still(photograph, np.roll(photograph, 2, 1))
    assert is_still(photograph, np.clip(photograph + noise - noise.mean(), 0, 255).round().astype(np.uint8))
    flat = np.full_like(photograph, 9)
    assert is_still(flat, flat) and not is_still(flat[:5, :3], photograph[:5, :3])
