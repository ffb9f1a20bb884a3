"""Videos: what comes out of a clip beside its restored pixels is what went in."""

import io
import itertools
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import child_environment
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from deblur_gan.blur.recordings import read_frames
from deblur_gan.commands import main
from deblur_gan.images.photographs import BadImage
from deblur_gan.restoring.jobs import find_jobs
from deblur_gan.video import decode, encode
from deblur_gan.video.decode import to_pixels
from deblur_gan.video.encode import VideoFile
from deblur_gan.video.restore import restore_video

av = pytest.importorskip("av", reason="video files require the extra [video]")
Disposition = av.stream.Disposition

BT709 = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}
# A telephone's frames come when there is light enough.
UNEVEN = [0, 3000, 6100, 9000, 15000, 18010, 21000, 27500, 30000, 33100]


def pictures(n, width=64, height=48, seed=1):
    """Frames of soft colours, which every coding of colours can hold, that move to the left."""
    wide = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width + 4 * n, 3)), (3, 3, 0))
    colours = np.clip(128 + 40 * wide / wide.std() + (30, -10, -30), 30, 225).astype(np.uint8)
    return [np.ascontiguousarray(colours[:, 4 * i : 4 * i + width]) for i in range(n)]


def tone(context, seconds):
    """Packets of a tone in stereo."""
    samples = (8000 * np.sin(np.arange(int(context.sample_rate * seconds)) / 20)).astype(np.int16)
    sound = av.AudioFrame.from_ndarray(np.repeat(samples, 2)[np.newaxis], format="s16", layout="stereo")
    sound.sample_rate, sound.pts = context.sample_rate, 0
    resampler = av.AudioResampler(context.format, context.layout, context.sample_rate, context.frame_size or 1024)
    for part in [*resampler.resample(sound), *resampler.resample(None), None]:
        yield from context.encode(part)


def write_clip(path, codec="libx264", sound=None, n=10, pixels="yuv420p", times=None, turn=None, options=None, **size):
    """Writes a clip at 25 frames per second, or with frames at `times` in 90,000ths of a second."""
    tags = {name: size.pop(name) for name in BT709 if name in size}
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "a walk"
        video = container.add_stream(codec, rate=25, options=options or {})
        frames = pictures(n, **size)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pixels
        for name, value in tags.items():
            setattr(video.codec_context, name, value)
        if times:
            video.time_base = video.codec_context.time_base = Fraction(1, 90000)
        if turn is not None:
            video.set_display_rotation(*turn)
        audio = container.add_stream(sound, rate=48000) if sound else None
        for i, frame in enumerate(frames):
            coding = {"dst_colorspace": tags.get("colorspace"), "dst_color_range": tags.get("color_range")}
            coded = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels, **coding)
            if times:
                coded.pts, coded.time_base = times[i], Fraction(1, 90000)
            container.mux(video.encode(coded))
        container.mux(video.encode(None))
        if audio:
            for packet in tone(audio.codec_context, n / 25):
                packet.stream = audio
                container.mux(packet)
    return path


def packets(path, kind):
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        found = container.demux(streams) if streams else []
        return [(packet.pts, bytes(packet)) for packet in found if packet.size]


def frames(path):
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def shown(path):
    return [to_pixels(frame).astype(int) for frame in frames(path)]


def about(path):
    """What must not change: codecs, units of time, rate, then times, size, layout of pixels and colours of frames."""
    with av.open(str(path)) as container:
        streams = [(s.type, s.codec_context.codec.canonical_name, s.time_base) for s in container.streams]
        of_video = container.streams.video[0].average_rate, container.metadata.get("title")
    tags = [[getattr(frame, name) for name in BT709] for frame in frames(path)]
    return streams, of_video, [(f.pts, f.width, f.height, f.format.name) for f in frames(path)], tags


def identity(pixels):
    return pixels


def negative(pixels):
    return 255 - pixels


@pytest.mark.parametrize(
    ("name", "codec", "sound", "more"),
    [
        ("clip.mp4", "libx264", "aac", BT709),
        ("601.mp4", "libx264", None, BT709 | {"colorspace": 6}),
        ("full.mp4", "libx264", None, {"pixels": "yuvj420p", "colorspace": 1, "color_range": 2}),
        ("finer.mkv", "libx264", "flac", {"pixels": "yuv444p"}),
        (
            "ten_bits.mp4",
            "libx265",
            "aac",
            BT709 | {"pixels": "yuv420p10le", "options": {"x265-params": "log-level=0"}},
        ),
        ("clip.webm", "libvpx-vp9", "libopus", BT709),
        ("odd.webm", "libvpx-vp9", None, {"width": 63, "height": 47}),
        ("vp8.webm", "libvpx", None, {}),
        ("clip.avi", "mpeg4", "mp3", {}),
        ("motion.avi", "mjpeg", "pcm_s16le", {"pixels": "yuvj420p"}),
        ("clip.mpg", "mpeg2video", "mp2", {}),
        ("clip.ts", "libx264", "aac", {}),
        ("clip.mov", "prores_ks", "pcm_s16le", {"pixels": "yuv422p10le"}),
        ("lossless.mkv", "ffv1", None, {"pixels": "bgr0"}),
        ("uneven.mp4", "libx264", None, {"times": UNEVEN}),
    ],
)
def test_a_clip_comes_back_as_it_was_but_for_the_loss_of_encoding(tmp_path, name, codec, sound, more):
    clip, result = write_clip(tmp_path / name, codec, sound, **more), tmp_path / "restored" / name
    result.parent.mkdir()
    made = restore_video(identity, clip, result)
    assert (made.n_frames, made.size, made.notes) == (10, (more.get("width", 64), more.get("height", 48)), [])
    before, after = about(clip), about(result)
    assert after[2:] == before[2:] and after[0] == before[0]
    assert more.get("times") or after[1] == before[1]  # the mean rate of uneven frames depends on how long the last is
    assert packets(result, "audio") == packets(clip, "audio") and bool(packets(clip, "audio")) == bool(sound)
    for original, restored in zip(shown(clip), shown(result), strict=True):
        assert abs((restored - original).mean(axis=(0, 1))).max() < 0.7, "no cast"
        assert abs(restored - original).mean() < (0.01 if "lossless" in name else 2.5)
    assert tmp_path / "restored" == result.parent and [*result.parent.iterdir()] == [result]


def test_every_frame_goes_through_the_function(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", "ffv1", pixels="bgr0", n=3)
    seen = []

    def note(pixels):
        seen.append(pixels)
        return negative(pixels)

    restore_video(note, clip, tmp_path / "out.mkv")
    for original, given, restored in zip(pictures(3), seen, shown(tmp_path / "out.mkv"), strict=True):
        assert given.dtype == np.uint8 and given.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(given, original)
        np.testing.assert_array_equal(restored, 255 - original.astype(int))


@pytest.mark.parametrize("kind", ["yuva444p", "rgba"])
def test_transparency_is_copied(tmp_path, kind):
    path, codec = (tmp_path / "clip.mkv", "ffv1") if kind == "yuva444p" else (tmp_path / "clip.mov", "png")
    alpha = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, kind
        frame = np.dstack([pictures(1)[0], alpha])
        container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format=kind)))
        container.mux(video.encode(None))
    restore_video(negative, path, tmp_path / f"out{path.suffix}")
    (before,), (after,) = shown(path), shown(tmp_path / f"out{path.suffix}")
    assert np.ptp(before[..., 3]) > 200 and abs(after[..., 3] - before[..., 3]).max() <= 1
    assert abs(after[..., :3] - (255 - before[..., :3])).max() <= 3


@pytest.mark.parametrize("turn", [(90,), (180,), (270,), (0, True), (90, True), (270, False, True)])
def test_a_telephones_clip_is_turned_upright_with_its_uneven_frames_and_its_sound(tmp_path, turn):
    clip = tmp_path / "clip.mp4"
    write_clip(clip, "libx264", "aac", turn=turn, times=UNEVEN, width=96, height=54, **BT709)
    made = restore_video(identity, clip, tmp_path / "out.mp4")
    assert made.size == ((96, 54) if turn[0] in (0, 180) else (54, 96))
    after = frames(tmp_path / "out.mp4")
    assert [frame.pts for frame in after] == [frame.pts for frame in frames(clip)] == UNEVEN
    assert {frame.rotation for frame in after} == {0} and not [
        data for frame in after for data in frame.side_data if data.type.name == "DISPLAYMATRIX"
    ]
    assert packets(tmp_path / "out.mp4", "audio") == packets(clip, "audio")
    # What FFmpeg's own filters make of the matrix, by its definition: a point (x, y) is shown at (ax + cy, bx + dy).
    flat = [frame.to_ndarray(format="rgb24") for frame in frames(clip)]
    a, b, _, c, d, *_ = np.frombuffer(frames(clip)[0].side_data["DISPLAYMATRIX"], np.int32) / 65536
    y, x = np.mgrid[:54, :96]
    column, row = np.rint(a * x + c * y).astype(int), np.rint(b * x + d * y).astype(int)
    for picture_before, picture_after in zip(flat, shown(tmp_path / "out.mp4"), strict=True):
        upright = np.zeros_like(picture_after)
        upright[row - row.min(), column - column.min()] = picture_before
        assert abs(picture_after - upright).mean() < 4


def test_a_part_begins_and_ends_where_it_should_with_its_sound(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", "libx264", "aac", n=50, options={"g": "15"})
    made = restore_video(identity, clip, tmp_path / "out.mp4", start=0.8, duration=0.4)
    assert made.n_frames == 10 and made.notes == []
    all_frames, part = shown(clip), shown(tmp_path / "out.mp4")
    nearest = [int(np.argmin([abs(restored - other).mean() for other in all_frames])) for restored in part]
    assert nearest == list(range(20, 30))
    assert [frame.time for frame in frames(tmp_path / "out.mp4")] == pytest.approx([i / 25 for i in range(10)])
    sound = [(pts, content) for pts, content in packets(clip, "audio") if 38400 <= pts < 57600]
    cut_out = packets(tmp_path / "out.mp4", "audio")
    assert [content for _, content in cut_out] == [content for _, content in sound]
    # MP4 says in milliseconds when a track begins.
    assert [pts for pts, _ in cut_out] == pytest.approx([pts - 38400 for pts, _ in sound], abs=48)
    assert restore_video(identity, clip, tmp_path / "out.mp4", duration=0.1).n_frames == 3
    assert restore_video(identity, clip, tmp_path / "out.mp4", start=1.9).n_frames == 2
    with pytest.raises(BadImage, match="clip.mp4: no frame of it lies in the part"):
        restore_video(identity, clip, tmp_path / "out.mp4", start=2)


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [("clip.ts", "libx264", "aac"), ("clip.mts", "libx264", "aac"), ("clip.mpg", "mpeg2video", "mp2")],
)
def test_a_part_of_a_container_without_an_index_has_every_frame(tmp_path, name, codec, sound):
    parts = {}
    for file in ("clip.mp4", name):
        target = tmp_path / f"out{Path(file).suffix}"
        clip = write_clip(tmp_path / file, codec, sound, n=300, options={"g": "100", "bf": "2", "sc_threshold": "0"})
        for part in ((5, None), (2, 1)):
            made = restore_video(identity, clip, target, *part)
            assert made.notes == [] and made.n_frames == (25 if part[1] else 175)
            parts[file, part] = shown(target), [content for _, content in packets(target, "audio")]
    for part in ((5, None), (2, 1)):
        (as_mp4, its_sound), (found, sound_found) = parts["clip.mp4", part], parts[name, part]
        assert max(abs(one - other).mean() for one, other in zip(found, as_mp4, strict=True)) < 1
        assert abs(len(its_sound) - len(sound_found)) <= 1  # the first frame and the sound begin a few samples apart


def damage(path, number, share=(1 / 3, 2 / 3)):
    """Overwrites a part of the packet of a frame."""
    content, packet = bytearray(path.read_bytes()), packets(path, "video")[number][1]
    first, last = (int(len(packet) * part) for part in share)
    start = content.index(packet)
    content[start + first : start + last] = np.random.default_rng(1).bytes(last - first)
    path.write_bytes(content)


def test_a_damaged_frame_is_named_and_kept_as_it_was(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", "mpeg4", n=8, options={"g": "4"}, width=128, height=96)
    damage(clip, 5)
    made = restore_video(negative, clip, tmp_path / "out.mkv")
    assert made.notes == ["the frame at 0:00:00.200 is damaged; it is kept as it was"]
    for number, (original, restored) in enumerate(zip(shown(clip), shown(tmp_path / "out.mkv"), strict=True)):
        kept, changed = abs(restored - original).mean(), abs(restored - (255 - original)).mean()
        assert (kept < 3 < changed) if number == 5 else (changed < 3 < kept)


def test_a_frame_that_cannot_be_decoded_is_named_and_the_others_keep_their_times(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", n=8, options={"bf": "0"})
    damage(clip, 5, (0.01, 1))
    made = restore_video(identity, clip, tmp_path / "out.mkv")
    (note,) = made.notes
    assert note.startswith("the frame at 0:00:00.200 cannot be decoded (") and note.endswith("is shown instead")
    times = [pts for number, (pts, _) in enumerate(packets(clip, "video")) if number != 5]
    assert [frame.pts for frame in frames(tmp_path / "out.mkv")] == times and made.n_frames == 7


def test_frames_that_a_decoder_leaves_out_without_a_word_are_named(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", "libx265", n=24, options={"x265-params": "log-level=0:bframes=0"})
    content = bytearray(clip.read_bytes())
    for number in range(6, 18):  # a kind of unit that decoders pass over
        content[content.index(packets(clip, "video")[number][1]) + 4] = 41 << 1
    clip.write_bytes(content)
    made = restore_video(identity, clip, tmp_path / "out.mp4")
    assert made.n_frames == len(frames(clip)) <= 12
    assert made.notes[0].startswith("the frame at 0:00:00.240 cannot be decoded") and len(made.notes) == 11
    assert made.notes[-1] == f"{24 - made.n_frames - 10} more frames are damaged or cannot be decoded"


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi"])
def test_of_a_file_that_is_cut_what_is_there_is_restored_and_the_rest_told(tmp_path, name):
    clip = write_clip(tmp_path / name, "mpeg4", "mp3", n=60)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    made = restore_video(identity, clip, tmp_path / f"out{clip.suffix}")
    assert 5 < made.n_frames < 40 and made.notes[-1].startswith("it is cut: it ends after 0:00:0")
    assert made.n_frames == len(frames(tmp_path / f"out{clip.suffix}"))


def test_a_second_sound_subtitles_letters_and_chapters_come_over(tmp_path):
    first = write_clip(tmp_path / "clip.mkv", "libx264", "aac", n=25)
    words = io.BytesIO(b"1\n00:00:00,200 --> 00:00:00,500\nA word.\n\n")
    with (
        av.open(str(first)) as clip,
        av.open(words, format="srt") as words,
        av.open(str(tmp_path / "full.mkv"), "w") as container,
    ):
        sources = [*clip.streams, words.streams[0]]
        copies = {stream: container.add_stream_from_template(stream, opaque=True) for stream in sources}
        copies[clip.streams.audio[0]].metadata["language"] = "deu"
        other = container.add_stream("flac", rate=44100)
        container.add_attachment("type.ttf", "font/ttf", b"letters")
        container.set_chapters(
            [{"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "out"}}]
        )
        for source in (words, clip):
            for packet in source.demux():
                if packet.size:
                    packet.stream = copies[packet.stream]
                    container.mux(packet)
        for packet in tone(other.codec_context, 1):
            packet.stream = other
            container.mux(packet)
    made = restore_video(identity, tmp_path / "full.mkv", tmp_path / "out.mkv")
    assert made.notes == []
    for kind in ("audio", "subtitle"):
        assert packets(tmp_path / "out.mkv", kind) == packets(tmp_path / "full.mkv", kind) != []
    with av.open(str(tmp_path / "out.mkv")) as container:
        with av.open(str(tmp_path / "full.mkv")) as full:
            assert [(stream.type, stream.disposition) for stream in container.streams] == [
                (stream.type, stream.disposition) for stream in full.streams
            ]
        assert len(container.streams) == 5 and container.streams.audio[0].metadata["language"] == "deu"
        assert [chapter["metadata"] for chapter in container.chapters()] == [{"title": "out"}]


@pytest.mark.parametrize("part", [{}, {"start": 0.2}])
def test_a_cover_comes_over(tmp_path, part):
    cover = io.BytesIO()
    Image.fromarray(pictures(1)[0]).save(cover, "PNG")
    content = cover.getvalue()
    first = write_clip(tmp_path / "first.mp4")
    (tmp_path / "cover.png").write_bytes(content)
    with (
        av.open(str(first)) as clip,
        av.open(str(tmp_path / "cover.png")) as cover,
        av.open(str(tmp_path / "clip.mp4"), "w") as container,
    ):
        copies = {
            stream: container.add_stream_from_template(stream, opaque=True)
            for stream in (cover.streams[0], clip.streams[0])
        }
        copies[cover.streams[0]].disposition = Disposition.attached_pic
        for source in (cover, clip):
            for packet in source.demux():
                if packet.size:
                    packet.stream = copies[packet.stream]
                    container.mux(packet)
    made = restore_video(identity, tmp_path / "clip.mp4", tmp_path / "out.mp4", **part)
    assert made.size == (64, 48) and made.notes == [] and made.n_frames == (5 if part else 10)
    with av.open(str(tmp_path / "out.mp4")) as container:
        (stream,) = [stream for stream in container.streams if stream.disposition & Disposition.attached_pic]
        assert [bytes(packet) for packet in container.demux(stream) if packet.size] == [content]


def test_a_codec_that_is_not_written_here_becomes_h264_in_the_same_colours(tmp_path):
    clip = write_clip(tmp_path / "clip.avi", "cinepak", pixels="rgb24", n=3)
    made = restore_video(identity, clip, tmp_path / "out.avi")
    assert made.notes == ["it is written as H.264: cinepak cannot be written here"]
    for original, restored in zip(shown(clip), shown(tmp_path / "out.avi"), strict=True):
        assert abs((restored - original).mean(axis=(0, 1))).max() < 0.7


def test_what_is_refused_is_refused_in_one_line_and_nothing_is_left(tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"nothing " * 100)
    hdr = {"color_trc": 18, "color_primaries": 9, "colorspace": 9, "options": {"x265-params": "log-level=0"}}
    write_clip(tmp_path / "hdr.mp4", "libx265", n=2, pixels="yuv420p10le", **hdr)
    write_clip(tmp_path / "fields.mp4", n=4, options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
    write_clip(tmp_path / "clear.webm", "libvpx-vp9", n=2, pixels="yuva420p")
    write_clip(tmp_path / "clip.mp4", n=2)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        audio = container.add_stream("aac", rate=48000)
        for packet in tone(audio.codec_context, 0.1):
            packet.stream = audio
            container.mux(packet)
    before = sorted(tmp_path.iterdir())
    for name, target, line in (
        ("text.mp4", "out.mp4", "text.mp4: cannot be read as a video"),
        ("hdr.mp4", "out.mp4", r"hdr.mp4: is recorded with high dynamic range \(HLG\)"),
        ("fields.mp4", "out.mp4", "fields.mp4: is interlaced"),
        ("clear.webm", "out.webm", "clear.webm: has the transparency of WebM"),
        ("sound.mp4", "out.mp4", "sound.mp4: contains no video"),
        ("clip.mp4", "out.webm", "out.webm: cannot be written: neither h264 nor H.264 can be encoded"),
        ("clip.mp4", "out.text", "out.text: no container of videos has this extension"),
    ):
        with pytest.raises(BadImage, match=line) as error:
            restore_video(identity, tmp_path / name, tmp_path / target)
        assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


def test_neither_a_fault_nor_an_interruption_leaves_half_a_file(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", "libx264", "aac")
    (tmp_path / "out.mp4").write_bytes(b"an older one")

    for error in (KeyboardInterrupt, FloatingPointError):
        count = iter(range(5))

        def fail(pixels, count=count, error=error):
            if next(count) == 4:
                raise error
            return pixels

        with pytest.raises(error):
            restore_video(fail, clip, tmp_path / "out.mp4")
        assert (tmp_path / "out.mp4").read_bytes() == b"an older one"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


# ---- files as people have them, and damaged ones


def read_both(path, target):
    """Restores a video and reads its frames for training pairs; returns `(RestoredVideo, number of frames)`."""
    return restore_video(identity, path, target), sum(1 for _ in read_frames(path, lambda fault: None))


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv", "clip.mp4", "clip.mov", "clip.webm", "clip.ts", "clip.mpg"])
def test_tags_that_are_not_utf8_come_over_as_they_are(tmp_path, name):
    codec = {".webm": "libvpx", ".mpg": "mpeg2video"}.get(Path(name).suffix, "libx264")
    latin = "J\udcf6rg"  # how Python keeps a byte that is not UTF-8
    with av.open(str(tmp_path / name), "w", metadata_errors="surrogateescape") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        container.metadata["title"] = container.metadata["service_name"] = video.metadata["language"] = latin
        if name.endswith("mkv"):
            chapter = {"id": 1, "start": 0, "end": 50, "time_base": Fraction(1, 1000), "metadata": {"title": latin}}
            container.set_chapters([chapter])
        for frame in pictures(3):
            coded = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            container.mux(video.encode(coded))
        container.mux(video.encode(None))
    made, n_frames = read_both(tmp_path / name, tmp_path / f"out_{name}")
    assert made.n_frames == n_frames == 3

    def tags(path):
        with av.open(str(path), metadata_errors="surrogateescape") as container:
            chapters = [chapter["metadata"] for chapter in container.chapters()]
            ours = {
                key: value
                for key, value in container.streams[0].metadata.items()
                if key != "ENCODER" and value != "und"
            }
            return container.metadata.get("title"), ours, chapters

    assert tags(tmp_path / f"out_{name}") == tags(tmp_path / name)
    assert name.endswith(("mpg", "ts")) or tags(tmp_path / name)[0] == latin


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv", "clip.mp4", "clip.ts", "clip.mpg"])
def test_frames_larger_than_a_photograph_may_be_are_refused(tmp_path, monkeypatch, name):
    codec = {".mpg": "mpeg2video", ".ts": "libx264"}.get(Path(name).suffix, "mpeg4")
    clip = write_clip(tmp_path / name, codec, n=2)
    monkeypatch.setattr(decode, "MAX_PIXELS", 64 * 48 - 1)
    for read in (lambda: restore_video(identity, clip, tmp_path / f"out_{name}"), lambda: [*read_frames(clip, print)]):
        with pytest.raises(BadImage, match=f"{name}: its frames have no size, or more than the 3071 pixels"):
            read()


def test_frames_that_become_larger_than_a_photograph_may_be_are_not_decoded(tmp_path, monkeypatch):
    sizes = [write_clip(tmp_path / f"{n}.mkv", "mjpeg", n=5, pixels="yuvj420p", width=n) for n in (64, 128)]
    with av.open(str(sizes[0])) as small, av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream_from_template(small.streams.video[0])
        for number, (_, content) in enumerate(packets(sizes[0], "video") + packets(sizes[1], "video")):
            packet = av.Packet(content)
            packet.pts = packet.dts = 40 * number
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
            container.mux(packet)
    monkeypatch.setattr(decode, "MAX_PIXELS", 64 * 48)
    made = restore_video(identity, tmp_path / "clip.mkv", tmp_path / "out.mkv")
    assert (made.size, made.n_frames, len(made.notes)) == ((64, 48), 5, 5)
    assert made.notes[0].startswith("the frame at 0:00:00.200 cannot be decoded")


LISTS = {
    "ffconcat version 1.0\nfile neighbour.mp4\n": "clip.mp4",
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nneighbour.ts\n#EXT-X-ENDLIST\n": "clip.ts",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n": "clip.mkv",
    '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">': "clip.mov",
}


@pytest.mark.parametrize("content", LISTS, ids=LISTS.values())
def test_a_list_of_other_files_is_not_a_video(tmp_path, content):
    for name in ("neighbour.mp4", "neighbour.ts"):
        write_clip(tmp_path / name, n=2)
    clip = tmp_path / LISTS[content]
    clip.write_text(content)
    for read in (lambda: restore_video(identity, clip, tmp_path / "out.mkv"), lambda: [*read_frames(clip, print)]):
        with pytest.raises(BadImage, match=f"{clip.name}: cannot be read as a video"):
            read()


@pytest.mark.parametrize(
    ("name", "codec", "size", "written"),
    [
        ("thin.mkv", "ffv1", (2, 900), "H.264"),
        ("thin.mkv", "mpeg4", (1, 33), None),
        ("odd.avi", "utvideo", (64, 48), None),
        ("small.mp4", "mpeg4", (8, 8), None),
        ("flat.webm", "libvpx-vp9", (64, 1), None),
        ("thin.mov", "png", (1, 1), None),
    ],
)
def test_frames_of_any_size_are_written(tmp_path, name, codec, size, written):
    pixels = {"png": "rgb24"}.get(codec, "yuv420p")
    options = {"level": "1"} if codec == "ffv1" else {}  # later versions cut frames into slices
    clip = write_clip(tmp_path / name, codec, n=2, pixels=pixels, options=options, width=size[0], height=size[1])
    made = restore_video(identity, clip, tmp_path / f"out_{name}")
    assert (made.n_frames, made.size) == (2, size)
    assert made.notes == ([f"it is written as {written}: {codec} cannot be written here"] if written else [])
    assert shown(tmp_path / f"out_{name}")[0].shape == (*size[::-1], 3)


def test_an_encoder_that_takes_no_such_frames_gives_way_to_h264(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", n=2, width=8)
    with av.open(str(clip)) as container:
        frame, video = next(container.decode(video=0)), container.streams.video[0]
        for name, layout, width in (
            ("libx265", "yuv420p", 40),
            ("libsvtav1", "yuv420p", 2),
            ("huffyuv", "yuv422p", 63),
        ):
            settings = {"width": width, "height": 48, "pix_fmt": layout, "framerate": Fraction(25)}
            with pytest.raises((ValueError, NotImplementedError)):
                encode._try_encoder(name, {}, settings)
        monkey = VideoFile(tmp_path / "out.mkv", tmp_path / "out.mkv", video, None)
        with pytest.raises(BadImage, match=r"out.mkv: cannot be written: neither h264 nor H.264 .* at 0x48 pixels"):
            monkey.size = (0, 48)
            monkey._add_encoder(frame)


def test_a_slow_film_whose_last_frame_is_decoded_early_is_not_cut(tmp_path):
    clip = write_clip(tmp_path / "slow.mp4", n=3, times=[0, 180_000, 360_000])
    made = restore_video(identity, clip, tmp_path / "out.mp4")
    assert made.notes == [] and [frame.time for frame in frames(tmp_path / "out.mp4")] == [0, 2, 4]


@pytest.mark.parametrize("name", ["late.mkv", "late.mp4", "late.mov", "late.webm", "late.ts"])
def test_a_film_that_starts_late_is_not_cut_and_keeps_its_times(tmp_path, name):
    times = [180_000 + 3600 * i for i in range(30)]
    clip = write_clip(
        tmp_path / name, "libvpx" if name.endswith("webm") else "libx264", n=30, times=times, options={"g": "5"}
    )
    made = restore_video(identity, clip, tmp_path / f"out_{name}")
    assert made.notes == [] and made.n_frames == 30
    assert [frame.time for frame in frames(tmp_path / f"out_{name}")] == [frame.time for frame in frames(clip)]


@pytest.mark.parametrize("atom", ["mvhd", "mdhd", "tkhd", "elst", "stts", "ctts", "stsz", "stsc", "edts"])
def test_times_that_make_no_sense_end_in_a_video_or_one_line(tmp_path, atom):
    whole = write_clip(tmp_path / "clip.mp4", "libx264", "aac").read_bytes()
    for value in (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x00\x01"):
        for offset in range(8, 40, 4):
            content, start = bytearray(whole), whole.find(atom.encode())
            content[start + offset : start + offset + 4] = value
            (tmp_path / "clip.mp4").write_bytes(content)
            bars = []

            def progress(total, unit, bars=bars):
                bars.append(total)
                return tqdm(total=total, unit=unit, disable=True)

            try:
                restore_video(identity, tmp_path / "clip.mp4", tmp_path / "out.mp4", progress=progress)
            except (BadImage, OSError) as error:
                assert "mp4: " in str(error) and "\n" not in str(error)
            assert not bars or bars[0] is None or bars[0] <= len(content)


# ---- what a copy must not lose


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hevc_in_mp4_has_the_tag_that_apples_players_require(tmp_path, n):
    clip = write_clip(tmp_path / "clip.mp4", "libx265", n=n, options={"x265-params": "log-level=0"})
    assert restore_video(identity, clip, tmp_path / "out.mp4").n_frames == n
    assert [frame.pts for frame in frames(tmp_path / "out.mp4")] == [frame.pts for frame in frames(clip)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv"])
def test_the_last_frame_keeps_its_duration(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        encoded = [
            packet
            for frame in [*pictures(3), None]
            for packet in video.encode(frame if frame is None else av.VideoFrame.from_ndarray(frame, format="rgb24"))
        ]
        for number, packet in enumerate(encoded):
            packet.pts = packet.dts = number
            packet.duration, packet.time_base = (20 if number == 2 else 1), Fraction(1, 25)
            container.mux(packet)
    restore_video(identity, tmp_path / name, tmp_path / f"out_{name}")
    for path in (tmp_path / name, tmp_path / f"out_{name}"):
        with av.open(str(path)) as container:
            assert container.duration == pytest.approx(22 / 25 * 1_000_000, abs=2000)


def test_sound_whose_times_go_back_is_copied_whole(tmp_path):
    clip = write_clip(tmp_path / "clip.mkv", "mpeg4", "mp3")
    content, sound = bytearray(clip.read_bytes()), packets(clip, "audio")
    for number in (5, 6):  # Matroska keeps the time of a packet in two bytes, three before its content
        place = content.index(sound[number][1]) - 3
        content[place : place + 2] = (1).to_bytes(2)
    clip.write_bytes(content)
    times = [pts for pts, _ in packets(clip, "audio")]
    assert times != sorted(times)
    made = restore_video(identity, clip, tmp_path / "out.mkv")
    copied = packets(tmp_path / "out.mkv", "audio")
    assert made.notes == [] and [packet for _, packet in copied] == [packet for _, packet in sound]
    assert all(one[0] < other[0] for one, other in itertools.pairwise(copied))


def test_sound_that_lies_after_its_pictures_in_the_file_is_found(tmp_path):
    clip = tmp_path / "clip.mkv"
    source = write_clip(tmp_path / "first.mkv", "mpeg4", "mp3", n=50)
    with (
        av.open(str(source)) as first,
        av.open(str(clip), "w", container_options={"max_interleave_delta": "1"}) as container,
    ):
        copies = [container.add_stream_from_template(stream, opaque=True) for stream in first.streams]
        read = sorted((p for p in first.demux() if p.size), key=lambda packet: packet.stream.type != "video")
        for packet in read:
            packet.stream = copies[packet.stream.index]
            container.mux(packet)
    with av.open(str(clip)) as container:
        kinds = [packet.stream.type for packet in container.demux() if packet.size]
    assert kinds.index("audio") >= 25, "the sound of the part lies after all its pictures"
    restore_video(identity, clip, tmp_path / "out.mkv", duration=0.4)
    wanted = [content for pts, content in packets(clip, "audio") if pts < 400]
    assert [content for _, content in packets(tmp_path / "out.mkv", "audio")] == wanted != []


def test_restoring_photographs_loads_no_video_code():
    program = "import sys; from deblur_gan import restore; print([m for m in sys.modules if 'deblur_gan.video.' in m])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=child_environment())
    assert result.stdout == "[]\n", result.stderr


# ---- the command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", "libx264", "aac")
    return tmp_path


def restore(identity_weights, *arguments):
    return CliRunner().invoke(main, ["restore", "--weight_path", str(identity_weights), *map(str, arguments)])


def test_the_command_restores_a_video_as_the_function_does(folder, identity_weights, capfd):
    result = restore(identity_weights, "clip.mp4", "--start", "0.2", "--duration", "0:00:00.12", "--json")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    said = json.loads(line)
    assert (said["frames"], said["width"], said["height"], said["dropped"]) == (3, 64, 48, [])
    restore_video(identity, "clip.mp4", "out.mp4", start=0.2, duration=0.12)
    for one, other in zip(shown("restored/clip.mp4"), shown("out.mp4"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert "0/3" in result.stderr and capfd.readouterr().err == ""  # encoders write past Python


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_result_has_the_permissions_of_its_video(folder):
    Path("clip.mp4").chmod(0o600)
    restore_video(identity, "clip.mp4", "out.mp4")
    assert Path("out.mp4").stat().st_mode & 0o777 == 0o600


def test_videos_of_a_folder_are_named_and_restored_where_they_are_named(folder, identity_weights):
    (folder / "in" / "deep").mkdir(parents=True)
    for place in ("in", "in/deep"):
        (folder / place / "clip.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    result = restore(identity_weights, "in")
    assert result.exit_code == 1 and "in: no image in this folder; name its videos to restore them" in result.output
    Image.fromarray(pictures(1)[0]).save("in/photo.png")
    result = restore(identity_weights, "in", "--recursive")
    assert "in: its videos are skipped; name them: clip.mp4, deep/clip.mp4\n" in result.stderr
    result = restore(identity_weights, "in", "in/deep/clip.mp4", "--format", "webp", "-o", "out")
    assert result.exit_code == 0 and "Restored 2 of 2 files into out/" in result.stdout, result.output
    assert sorted(path.name for path in Path("out").iterdir()) == ["clip.mp4", "photo.webp"]
    jobs, left_out = find_jobs(["in/clip.mp4"], "out", suffix="_sharp")
    assert [job.target for job in jobs] == [Path("out/clip_sharp.mp4")] and left_out == []


def test_a_shard_without_a_video_takes_the_times_of_the_others(folder, identity_weights):
    for shard, said in (("1/2", "Restored 1 of 1 files"), ("2/2", "Restored 0 of 0 photographs")):
        result = restore(identity_weights, "clip.mp4", "--duration", "0.1", "--shard", shard)
        assert result.exit_code == 0 and said in result.stdout, result.output


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["clip.mp4", "--start", "1:75"], 2, "'1:75' is no time such as"),
        (["clip.mp4", "--start", "9"], 1, "clip.mp4: no frame of it lies in the part that was asked for"),
        (["photo.png", "--duration", "1"], 2, "--start and --duration are for videos; give one"),
        (["clip.mp4", "--side_by_side"], 1, "clip.mp4: side by side is only for photographs"),
        (["clip.mp4", "-o", "."], 1, "clip.mp4: the result would replace it"),
    ],
)
def test_what_makes_no_sense_is_one_line(folder, identity_weights, arguments, code, line):
    Path("photo.png").write_bytes(b"")
    before = Path("clip.mp4").read_bytes()
    result = restore(identity_weights, *arguments)
    assert result.exit_code == code and line in result.output and "Traceback" not in result.output
    assert Path("clip.mp4").read_bytes() == before
