import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
from click.testing import CliRunner
from conftest import ROOT, blur, photograph, save
from PIL import Image
from test_recordings import write_video

from deblur_gan.blur.camera import blur_image
from deblur_gan.blur.make_pairs import blur_folder, blur_recordings
from deblur_gan.blur.optical_flow import random_flow_blur
from deblur_gan.blur.ranges import KINDS
from deblur_gan.data.pairs import find_pairs
from deblur_gan.data.samples import write_sample_images
from deblur_gan.data.split import set_aside
from deblur_gan.images.photographs import BadImage, find_images, read_photograph, read_rgb
from deblur_gan.images.sharpness import sharpness

SCRIPTS = ROOT / "scripts"


def run(script, *arguments, cwd):
    return subprocess.run(
        [sys.executable, SCRIPTS / script, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def save_random_image(path, size, mode, rng):
    """Writes an image of width and height `size` in one of Pillow's modes, or palette with transparency (PA)."""
    width, height = size
    if mode.startswith("I;16"):
        image = Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
    else:
        rgba = Image.fromarray(rng.integers(0, 256, (height, width, 4), np.uint8))
        image = rgba.quantize(16) if mode == "PA" else rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)
    image.save(path)


@pytest.fixture
def sharp_dir(tmp_path):
    folder = tmp_path / "sharp"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, (size, mode) in enumerate([((40, 30), "RGB"), ((33, 21), "L"), ((25, 60), "RGBA")]):
        save_random_image(folder / f"{i}.png", size, mode, rng)
    return folder


def test_pairs_are_read_as_a_data_set(sharp_dir, tmp_path):
    n_pairs, failures = blur_folder(sharp_dir, tmp_path / "pairs", n_per_image=11)
    pairs, unmatched = find_pairs(tmp_path / "pairs")
    assert (n_pairs, failures, unmatched) == (33, [], [])
    assert [pair.name for pair in pairs] == [f"{i}_{j:02}" for i in range(3) for j in range(11)]
    for pair in pairs:
        sharp = read_rgb(sharp_dir / f"{pair.name[0]}.png")
        assert np.array_equal(read_rgb(pair.sharp), sharp)
        assert read_rgb(pair.blurred).shape == sharp.shape
        assert not np.array_equal(read_rgb(pair.blurred), sharp)
    assert len(set(contents(tmp_path / "pairs" / "A").values())) == 33


def test_grey_stays_grey(sharp_dir, tmp_path):
    blur_folder(sharp_dir, tmp_path / "pairs", noise_sigma=(5, 5))
    for side in "AB":
        assert read_photograph(tmp_path / "pairs" / side / "1.png").grey


def test_the_bytes_depend_on_seed_name_and_number_alone(sharp_dir, tmp_path):
    for name, options in {"one": {"n_workers": 1}, "many": {"n_workers": 7}, "seed": {"seed": 1}}.items():
        blur_folder(sharp_dir, tmp_path / name, n_per_image=3, save_kernels=True, **options)
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    seed = contents(tmp_path / "seed")
    for path, content in contents(tmp_path / "one").items():
        assert (seed[path] == content) == (path.parts[0] == "B")

    (sharp_dir / "0.png").unlink()
    blur_folder(sharp_dir, tmp_path / "fewer", n_per_image=2, save_kernels=True)
    fewer, one = contents(tmp_path / "fewer"), contents(tmp_path / "one")
    assert len(fewer) == 12
    assert all(one[path] == content for path, content in fewer.items())


def test_a_saved_kernel_is_the_kernel_of_the_pair(sharp_dir, tmp_path):
    options = {"rotation": None, "noise_sigma": None, "gamma": 1.0}
    blur_folder(sharp_dir, tmp_path / "pairs", save_kernels=True, kind="paper", **options)
    for path in find_images(sharp_dir):
        kernel = np.asarray(Image.open(tmp_path / "pairs" / "kernels" / path.name), np.float64)
        assert kernel.max() == 65535
        blurred = blur_image(read_rgb(path), kernel / kernel.sum())
        difference = blurred.astype(int) - read_rgb(tmp_path / "pairs" / "A" / path.name)
        assert np.abs(difference).max() <= 1


def test_an_unreadable_file_is_named_and_the_others_are_made(sharp_dir, tmp_path):
    (sharp_dir / "broken.jpg").write_bytes(b"nothing")
    n_pairs, failures = blur_folder(sharp_dir, tmp_path / "pairs", n_per_image=2)
    assert n_pairs == 6
    assert [type(failure) for failure in failures] == [BadImage]
    assert "broken.jpg" in str(failures[0])
    pairs, unmatched = find_pairs(tmp_path / "pairs")
    assert (len(pairs), unmatched) == (6, [])


def test_what_cannot_be_done_is_said_before_anything_is_written(sharp_dir, tmp_path):
    output_dir = tmp_path / "pairs"
    with pytest.raises(NotADirectoryError, match="missing"):
        blur_folder(tmp_path / "missing", output_dir)
    with pytest.raises(ValueError, match="rotation is 3 to 2"):
        blur_folder(sharp_dir, output_dir, rotation=(3, 2))
    with pytest.raises(ValueError, match="gamma is 0"):
        blur_folder(sharp_dir, output_dir, gamma=(0, 1, 0.1))
    with pytest.raises(ValueError, match="extent is 3 to 2"):
        blur_folder(sharp_dir, output_dir, extent=(3, 2))
    with pytest.raises(ValueError, match="jpeg is 110"):
        blur_folder(sharp_dir, output_dir, jpeg=(90, 110, 0.1))
    with pytest.raises(ValueError, match="kind is 'hand'"):
        blur_folder(sharp_dir, output_dir, kind="hand")
    with pytest.raises(ValueError, match="crop is 0"):
        blur_folder(sharp_dir, output_dir, crop=0)
    with pytest.raises(ValueError, match="n_per_image is 0"):
        blur_folder(sharp_dir, output_dir, n_per_image=0)
    with pytest.raises(ValueError, match="seed is -1"):
        blur_folder(sharp_dir, output_dir, seed=-1)
    (sharp_dir / "1.bmp").write_bytes((sharp_dir / "1.png").read_bytes())
    with pytest.raises(ValueError, match="1.png: would be written to the same file as 1.bmp"):
        blur_folder(sharp_dir, output_dir)
    with pytest.raises(ValueError, match="contains no photographs"):
        blur_folder(tmp_path, output_dir)
    assert not output_dir.exists()

    before = contents(tmp_path)
    (tmp_path / "B").symlink_to(sharp_dir)
    (sharp_dir / "1.bmp").unlink()
    with pytest.raises(ValueError, match="its folder B is also read from"):
        blur_folder(sharp_dir, tmp_path)
    assert {path for path in contents(tmp_path)} == {path for path in before if path.name != "1.bmp"}


def test_any_size_and_mode_gives_a_pair(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "sharp").mkdir()
    sizes = [(1, 1), (1, 2), (2000, 50), (50, 2000), (1, 300)]
    sizes += [tuple(int(side) for side in np.exp(rng.uniform(0, 5, 2))) for _ in range(75)]
    kinds = {"1": "png", "L": "jpg", "LA": "png", "P": "bmp", "PA": "png", "RGB": "webp", "RGBA": "tif", "CMYK": "jpg"}
    kinds["I;16"] = "png"
    for i, size in enumerate(sizes):
        mode = list(kinds)[i % len(kinds)]
        save_random_image(tmp_path / "sharp" / f"{i:03}.{kinds[mode]}", size, mode, rng)
    assert blur_folder(tmp_path / "sharp", tmp_path / "pairs") == (len(sizes), [])
    for pair, size in zip(find_pairs(tmp_path / "pairs")[0], sizes, strict=True):
        assert Image.open(pair.blurred).size == Image.open(pair.sharp).size == size


@pytest.mark.slow
def test_the_sample_data_set_is_the_same_twice_and_tests_on_other_photographs(tmp_path):
    done = run("make_sample_images.py", "--output_dir", "samples", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "10 training and 4 test pairs written to samples\n")
    once = contents(tmp_path / "samples")
    assert write_sample_images(tmp_path / "samples") == (10, 4)
    assert once == contents(tmp_path / "samples")
    assert Image.open(tmp_path / "samples" / "real" / "clock_motion.png").size == (400, 300)

    sources = {path.name: read_rgb(path) for path in (Path(skimage.__file__).parent / "data").glob("*.*g")}
    used = {}
    for part, n_pairs in (("train", 10), ("test", 4)):
        pairs, unmatched = find_pairs(tmp_path / "samples" / part)
        assert (len(pairs), unmatched) == (n_pairs, [])
        used[part] = set()
        for pair in pairs:
            sharp, blurred = read_rgb(pair.sharp), read_rgb(pair.blurred)
            assert min(sharp.shape[:2]) >= 256
            assert sharp.shape == blurred.shape
            assert (
                np.abs(np.diff(blurred.astype(int), axis=1)).mean() < np.abs(np.diff(sharp.astype(int), axis=1)).mean()
            )
            used[part].add(source_of(sharp, sources))
    # Two views of one motorcycle count as one.
    assert not {name.split("_")[0] for name in used["train"]} & {name.split("_")[0] for name in used["test"]}


def source_of(crop, sources):
    """The name of the photograph that `crop` was cut from."""
    row = crop[0].tobytes()
    found = [name for name, pixels in sources.items() if row in pixels.tobytes()]
    assert len(found) == 1
    return found[0]


def test_samples_are_not_mixed_with_a_data_set(tmp_path):
    (tmp_path / "train" / "GOPR0372_07_00" / "sharp").mkdir(parents=True)
    mine = tmp_path / "train" / "GOPR0372_07_00" / "sharp" / "000047.png"
    Image.new("RGB", (8, 8)).save(mine)
    with pytest.raises(FileExistsError, match="000047.png"):
        write_sample_images(tmp_path)
    assert list(contents(tmp_path)) == [mine.relative_to(tmp_path)]


def test_crops_are_parts_of_the_photographs(sharp_dir, tmp_path):
    n_pairs, failures = blur_folder(sharp_dir, tmp_path / "pairs", n_per_image=4, crop=24, seed=5)
    assert n_pairs == 8
    assert ["1.png: is 33x21; at least 24x24 is required" in str(failure) for failure in failures] == [True]
    for pair in find_pairs(tmp_path / "pairs")[0]:
        sharp, whole = read_rgb(pair.sharp), read_rgb(sharp_dir / f"{pair.name[0]}.png")
        places = np.lib.stride_tricks.sliding_window_view(whole, (24, 24, 3))
        assert (places == sharp).all(axis=(-1, -2, -3)).any()
        assert read_rgb(pair.blurred).shape == (24, 24, 3)


def test_masks_say_what_moves_and_those_that_do_not_match_are_named(sharp_dir, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros((30, 40), np.uint8)
    mask[:, 25:] = 255
    for name, pixels in (("0", mask), ("1", mask), ("other", mask)):
        Image.fromarray(pixels).save(masks / f"{name}.png")
    ranges = {"length": None, "extent": 0, "long_extent": None, "tremor": None, "rotation": None, "zoom": None}
    ranges |= {"moving": 6, "lights": None, "noise_sigma": None, "jpeg": None, "gamma": 1}
    n_pairs, failures = blur_folder(sharp_dir, tmp_path / "pairs", mask_dir=masks, **ranges)
    assert n_pairs == 2
    lines = sorted(map(str, failures))
    assert "1.png: is 40x30, but" in lines[0] and "1.png is 33x21; one size is required" in lines[0]
    assert lines[1:] == [f"{masks / 'other.png'}: no photograph has its name"]
    blur_folder(sharp_dir, tmp_path / "half", mask_dir=masks, scale=0.5, **ranges)
    assert [read_rgb(path).shape[:2] for path in find_images(tmp_path / "half" / "B")] == [(15, 20), (30, 12)]
    changed = (read_rgb(tmp_path / "pairs" / "A" / "0.png") != read_rgb(sharp_dir / "0.png")).any(axis=-1)
    assert changed[:, 32:].mean() > 0.9 and not changed[:, :18].any()


def recording(folder, n, seed=0, step=2, size=(64, 96)):
    """Frames of a camera that pans over a picture of soft-edged areas."""
    picture = photograph(seed, size[0], size[1] + step * n)
    for i in range(n):
        save(folder / f"{i:03}.png", np.roll(picture, -step * i, axis=1)[:, : size[1]])
    return folder


OF_FLOW = {"min_sharpness": 0.0}


def test_recordings_become_pairs_with_the_frames_untouched_and_scenes_kept_together(tmp_path):
    pytest.importorskip("cv2", reason="optical flow requires the extra [video]")
    for seed, name in enumerate(("walk", "street", "room", "yard_2", "quay")):
        recording(tmp_path / "frames" / name, 5, seed)
    n_pairs, left_out, failures = blur_recordings([tmp_path / "frames"], tmp_path / "pairs", n_per_frame=2, **OF_FLOW)
    assert (n_pairs, left_out, failures) == (40, {}, [])
    pairs, unmatched = find_pairs(tmp_path / "pairs")
    assert unmatched == [] and pairs[0].name == "quay_0000000" and pairs[-1].name == "yard_2_0000031"
    for pair in pairs:
        scene, _, number = pair.name.rpartition("_")
        frame = read_rgb(tmp_path / "frames" / scene / f"{int(number[:-1]):03}.png")
        assert np.array_equal(read_rgb(pair.sharp), frame)
        assert not np.array_equal(read_rgb(pair.blurred), frame)
    training, validation = set_aside(pairs, seed=0)
    assert not {pair.name.rpartition("_")[0] for pair in training} & {p.name.rpartition("_")[0] for p in validation}
    assert len(set(contents(tmp_path / "pairs" / "A").values())) == 40


@pytest.mark.parametrize("frames", [None, (3, 5)])
def test_the_pairs_of_a_recording_depend_on_it_the_seed_and_their_number_alone(tmp_path, frames):
    pytest.importorskip("cv2", reason="optical flow requires the extra [video]")
    walk, street = (recording(tmp_path / name, 9, seed) for seed, name in enumerate(("walk", "street")))
    options = {"frames": frames, "crop": 40, "n_per_frame": 2, **OF_FLOW, "noise_sigma": (1, 2)}
    blur_recordings([walk, street], tmp_path / "both", n_workers=3, **options)
    blur_recordings([walk], tmp_path / "one", n_workers=1, **options)
    blur_recordings([walk], tmp_path / "seed", seed=1, **options)
    both, one, seed = (contents(tmp_path / name) for name in ("both", "one", "seed"))
    of_walk = {path: content for path, content in both.items() if path.name.startswith("walk")}
    assert of_walk == one and len(both) == 2 * len(one) > 4
    assert not set(one.values()) & set(seed.values())


def test_averaged_frames_lie_on_their_middle_one(tmp_path):
    walk = recording(tmp_path / "walk", 11)
    frames = [read_rgb(path) for path in find_images(walk)]
    n_pairs, left_out, failures = blur_recordings([walk], tmp_path / "pairs", (5, 5), gamma=1, **OF_FLOW)
    assert (n_pairs, left_out, failures) == (2, {}, [])
    for pair, middle in zip(find_pairs(tmp_path / "pairs")[0], (2, 7), strict=True):
        assert pair.name == f"walk_{middle:06}"
        assert np.array_equal(read_rgb(pair.sharp), frames[middle])
        mean = np.mean(frames[middle - 2 : middle + 3], axis=0)
        assert np.abs(read_rgb(pair.blurred) - mean).max() <= 0.5 + 1e-3
    n_pairs, _, _ = blur_recordings([walk], tmp_path / "every", (3, 3), every=2, scale=0.5, **OF_FLOW)
    assert n_pairs == 2
    assert read_rgb(tmp_path / "every" / "B" / "walk_000007.png").shape == (32, 48, 3)


@pytest.mark.parametrize("frames", [None, (3, 3)])
def test_frames_that_make_no_good_pair_are_counted(tmp_path, frames):
    if frames is None:
        pytest.importorskip("cv2", reason="optical flow requires the extra [video]")
    walk = recording(tmp_path / "walk", 6, seed=1)
    for i in range(6, 12):  # another scene, and then a still one
        picture = np.roll(photograph(7, 64, 120) // 4, -3 * min(i, 8), axis=1)[:, :96]
        save(walk / f"{i:03}.png", picture)
    still = tmp_path / "still"
    for i in range(4):
        save(still / f"{i:03}.png", photograph(3, 64, 96))
    soft = recording(tmp_path / "soft", 4)
    for path in find_images(soft):
        save(path, blur(read_rgb(path), 9))
    n_pairs, left_out, failures = blur_recordings(
        [walk, still, soft], tmp_path / "pairs", frames, min_sharpness=0.3, n_workers=1
    )
    if frames is None:  # a cut, 3 and 3 still pairs, of 11, 3 and 3
        assert (n_pairs, left_out) == (7, {"at a scene cut": 1, "still": 6, "blurred": 3})
    else:  # groups of three: 0-2, 3-5, 6-8, the still 9-11; of the others one each
        assert (n_pairs, left_out) == (3, {"still": 2, "blurred": 1})
    lines = [str(failure) for failure in failures]
    assert [line.rpartition("/")[2].split(" (")[0] for line in lines] == [
        "still: no pair was made of it",
        "soft: no pair was made of it",
    ]


def test_flow_that_does_not_come_home_is_counted(tmp_path):
    pytest.importorskip("cv2", reason="optical flow requires the extra [video]")
    rng = np.random.default_rng(0)
    for i in range(3):  # of one colour and layout, but nothing in one is in the next
        drops = np.kron(rng.integers(0, 256, (32, 48, 1), np.uint8), np.ones((4, 4, 3), np.uint8))
        save(tmp_path / "rain" / f"{i}.png", drops)
    n_pairs, left_out, _ = blur_recordings([tmp_path / "rain"], tmp_path / "pairs", **OF_FLOW)
    assert (n_pairs, left_out) == (0, {"with unreliable flow": 2})


@pytest.mark.parametrize(("share", "n_pairs"), [(0.28, 2), (0.32, 0)])
def test_flow_may_be_unreliable_in_three_of_ten_pixels(tmp_path, monkeypatch, share, n_pairs):
    pytest.importorskip("cv2", reason="optical flow requires the extra [video]")
    monkeypatch.setattr("deblur_gan.blur.make_pairs.unreliable_share", lambda *_: share)
    assert blur_recordings([recording(tmp_path / "walk", 3)], tmp_path / "pairs", **OF_FLOW)[0] == n_pairs


@pytest.mark.parametrize(("frames", "numbers"), [(None, [0, 1, 2, 4, 5, 6]), ((3, 3), [1, 5])])
def test_no_pair_is_made_across_a_change_of_size(tmp_path, frames, numbers):
    if frames is None:
        pytest.importorskip("cv2", reason="optical flow requires the extra [video]")
    walk = recording(tmp_path / "walk", 8)
    for path in find_images(walk)[4:]:
        save(path, read_rgb(path)[:50, :80])
    n_pairs, _, failures = blur_recordings([walk], tmp_path / "pairs", frames, **OF_FLOW)
    assert [int(pair.name[-6:]) for pair in find_pairs(tmp_path / "pairs")[0]] == numbers
    assert n_pairs == len(numbers) and len(failures) == 1
    assert "walk: frame 4 is 80x50, but those before it are 96x64; no pair" in str(failures[0])


def test_every_pair_of_a_recording_has_a_generator_of_its_own(tmp_path, monkeypatch):
    drawn = []

    def spy(group, rng, window=None, **ranges):
        drawn.append(rng.random())
        return group[0][window or ...]

    monkeypatch.setattr("deblur_gan.blur.make_pairs.average_frames", spy)
    blur_recordings([recording(tmp_path / "walk", 12)], tmp_path / "pairs", (3, 3), n_per_frame=5, **OF_FLOW)
    assert len(set(drawn[2:])) == len(drawn[2:]) == 20  # the first two check the ranges


def test_a_part_that_is_blurred_already_is_drawn_again(tmp_path):
    texture = np.random.default_rng(0).integers(0, 256, (64, 400, 3), np.uint8)
    texture[:, 200:] = blur(blur(texture, 4)[:, 200:].swapaxes(0, 1), 4).swapaxes(0, 1)
    for i in range(3):
        save(tmp_path / "walk" / f"{i}.png", np.roll(texture, i, axis=1))
    blur_recordings([tmp_path / "walk"], tmp_path / "pairs", (3, 3), n_per_frame=40, crop=40)
    crops = [read_rgb(path) for path in find_images(tmp_path / "pairs" / "B")]
    sharp = sum(sharpness(crop) >= 0.6 for crop in crops)
    assert len(crops) == 40 and sharp > 32  # about half without a second draw


def test_a_video_becomes_the_pairs_of_its_frames(tmp_path):
    pytest.importorskip("av", reason="video files require the extra [video]")
    frames = [read_rgb(path) for path in find_images(recording(tmp_path / "walk", 6))]
    write_video(tmp_path / "walk.mkv", frames, pixels="bgr0")
    for source, name in (("walk", "of_folder"), ("walk.mkv", "of_video")):
        made = blur_recordings([tmp_path / source], tmp_path / name, (3, 3), **OF_FLOW)
        assert made == (2, {}, [])
    assert contents(tmp_path / "of_folder") == contents(tmp_path / "of_video")


def test_a_bad_recording_is_one_line_and_the_others_are_made(tmp_path):
    walk = recording(tmp_path / "in" / "walk", 7)
    (walk / "002.png").write_bytes(b"nothing")
    recording(tmp_path / "in" / "small", 4, size=(20, 30))
    save(tmp_path / "in" / "one" / "000.png", photograph(0))
    (tmp_path / "in" / "text.mp4").write_bytes(b"nothing")
    arguments = ["--output_dir", tmp_path / "pairs", "--frames", "3", "--min_sharpness", "0", tmp_path / "in"]
    done = CliRunner().invoke(command("blur_recordings.py"), list(map(str, arguments)))
    assert done.exit_code == 1, done.output
    assert "1 pairs written" in done.output
    lines = [line for line in done.output.splitlines() if str(tmp_path / "in") in line]
    assert len(lines) == 4
    for name, reason in (("small", "30x20"), ("text.mp4", ""), ("one", "one frame"), ("002.png", "not an image")):
        assert sum(f"{name}: " in line and reason in line for line in lines) == 1, name
    assert "Traceback" not in done.output
    assert [pair.name for pair in find_pairs(tmp_path / "pairs")[0]] == ["walk_000004"]


def test_what_cannot_be_done_with_recordings_is_said_before_anything_is_written(tmp_path):
    walk = recording(tmp_path / "walk", 3)
    for options, message in (
        ({"frames": (2, 2)}, "frames is 2 to 2"),
        ({"frames": (5, 3)}, "frames is 5 to 3"),
        ({"frames": (3, 10**15)}, "frames is 3 to 1000000000000000; an odd number from 3 to 999"),
        ({"frames": (3, 3), "every": 0}, "every is 0"),
        ({"frames": (3, 3), "scale": 1.5}, "scale is 1.5"),
        ({"frames": (3, 3), "gamma": 0}, "gamma is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            blur_recordings([walk], tmp_path / "pairs", **options)
    with pytest.raises(ValueError, match="walk: has the same name as"):
        blur_recordings([walk, walk], tmp_path / "pairs", (3, 3))
    with pytest.raises(FileNotFoundError, match="missing"):
        blur_recordings([tmp_path / "missing"], tmp_path / "pairs", (3, 3))
    recording(tmp_path / "B", 3)
    with pytest.raises(ValueError, match="its folder B is also read from"):
        blur_recordings([tmp_path / "B"], tmp_path, (3, 3))
    assert not (tmp_path / "pairs").exists() and not (tmp_path / "A").exists()
    for arguments, named in (
        (["--frames", "x"], "--frames"),
        (["--frames", "3:\u00b2"], "--frames"),
        (["--frames", "3", "--bend", "1"], "--bend"),
    ):
        done = CliRunner().invoke(command("blur_recordings.py"), [str(walk), "--output_dir", "pairs", *arguments])
        assert done.exit_code == 2 and named in done.output.splitlines()[-1]


def test_names_do_nothing_to_the_terminal(tmp_path):
    for name in ("\x1b[31m.png", "\x1b[31m.bmp"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "train" / "A").mkdir(parents=True)
    (tmp_path / "train" / "A" / "\x1b[31m.png").touch()
    for script, arguments in (
        ("blur_images.py", ["--input_dir", tmp_path, "--output_dir", tmp_path / "out"]),
        ("make_sample_images.py", ["--output_dir", tmp_path]),
    ):
        done = CliRunner().invoke(command(script), list(map(str, arguments)))
        assert done.exit_code == 1 and "\\x1b[31m" in done.stderr and "\x1b" not in done.output


def test_blur_images_runs_from_anywhere(sharp_dir, tmp_path):
    (sharp_dir / "broken.jpg").write_bytes(b"nothing")
    arguments = ["--input_dir", "sharp", "--output_dir", "made/pairs", "--n_per_image", 2, "--seed", 3]
    arguments += ["--noise_sigma", 1.5, "--gamma", 1, "--rotation", "0:2", "--length", 20, "--save_kernels"]
    done = run("blur_images.py", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "broken.jpg" in done.stderr.splitlines()[-1]
    assert done.stdout.startswith("6 pairs written to made/pairs")
    ranges = {"noise_sigma": 1.5, "gamma": 1.0, "rotation": (0, 2), "length": 20}
    blur_folder(sharp_dir, tmp_path / "expected", 2, 3, save_kernels=True, **ranges)
    assert contents(tmp_path / "made" / "pairs") == contents(tmp_path / "expected")


def command(script):
    return runpy.run_path(str(SCRIPTS / script))[Path(script).stem]


def test_the_script_has_a_flag_for_each_range_and_its_help_says_the_defaults():
    script = command("blur_images.py")
    flags = {parameter.name: parameter for parameter in script.params}
    for name in {name for ranges in KINDS.values() for name in ranges}:
        assert name in flags
    assert "[default: 0.5:20 or none]" in flags["extent"].help
    assert "[default: 5:60@0.2 or 5:60]" in flags["length"].help
    convert = flags["extent"].type
    assert convert("1:2@0.5") == (1, 2, 0.5) and convert("3") == 3 and convert("none") == (0, 0, 0)
    flow_flags = {parameter.name for parameter in command("blur_recordings.py").params}
    ranges = list(inspect.signature(random_flow_blur).parameters)[4:]
    assert flow_flags >= set(ranges) and len(ranges) == 7


def test_too_little_memory_is_one_line(sharp_dir, tmp_path, monkeypatch):
    def blur_folder(*_, **__):
        raise MemoryError("Unable to allocate 33.3 TiB")

    monkeypatch.setattr("deblur_gan.blur.make_pairs.blur_folder", blur_folder)
    arguments = ["--input_dir", str(sharp_dir), "--output_dir", str(tmp_path / "pairs"), "--extent", "1000000"]
    result = CliRunner().invoke(command("blur_images.py"), arguments)
    assert (result.exit_code, result.stderr) == (1, "Error: not enough memory (Unable to allocate 33.3 TiB)\n")


@pytest.mark.parametrize("kind", list(KINDS))
def test_without_any_range_a_photograph_stays_as_it_is(kind, sharp_dir, tmp_path):
    """The ranges of the kind; those that it lacks are none."""
    off = ["--kind", kind, *(text for name in KINDS[kind] for text in (f"--{name}", "none"))]
    done = CliRunner().invoke(
        command("blur_images.py"), ["--input_dir", str(sharp_dir), "--output_dir", str(tmp_path / "same"), *off]
    )
    assert done.exit_code == 0, done.output
    for path in find_images(tmp_path / "same" / "A"):
        np.testing.assert_array_equal(read_rgb(path), read_rgb(tmp_path / "same" / "B" / path.name))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--input_dir", "."], "--output_dir"),
        (["--input_dir", "missing"], "--input_dir"),
        (["--n_per_image", "0"], "--n_per_image"),
        (["--seed", "-1"], "--seed"),
        (["--length", "long"], "--length"),
        (["--rotation", "2:1"], "--rotation"),
        (["--rotation", "-1"], "--rotation"),
        (["--noise_sigma", "nan"], "--noise_sigma"),
        (["--noise_sigma", "1:inf"], "--noise_sigma"),
        (["--jpeg", "80:90@2"], "--jpeg"),
        (["--moving", "1:2@"], "--moving"),
        (["--crop", "0"], "--crop"),
        (["--kind", "hand"], "--kind"),
        (["--n_workers", "0"], "--n_workers"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_flag(arguments, named):
    done = CliRunner().invoke(command("blur_images.py"), arguments)
    assert done.exit_code == 2
    assert sum(line.startswith("Error: ") for line in done.output.splitlines()) == 1
    assert done.output.splitlines()[-1].startswith("Error: ")
    assert named in done.output.splitlines()[-1]


def test_work_that_cannot_be_done_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed" / "test" / "A").mkdir(parents=True)
    (tmp_path / "mixed" / "test" / "A" / "mine.png").write_bytes(b"")
    for script, arguments, named in (
        ("blur_images.py", ["--input_dir", tmp_path / "empty", "--output_dir", tmp_path / "out"], "empty"),
        ("blur_recordings.py", ["--frames", 3, tmp_path / "empty", "--output_dir", tmp_path / "out"], "empty"),
        ("make_sample_images.py", ["--output_dir", tmp_path / "mixed"], "mine.png"),
    ):
        done = CliRunner().invoke(command(script), list(map(str, arguments)))
        assert done.exit_code == 1
        assert len(done.output.splitlines()) == 1
        assert done.output.startswith("Error: ") and named in done.output


def test_the_page_of_pictures_is_what_the_code_draws(tmp_path):
    docs = SCRIPTS.parent / "docs"
    draw = runpy.run_path(str(docs / "draw_camera_shake.py"))["draw_camera_shake"]
    done = CliRunner().invoke(draw, ["--output", str(tmp_path / "page.png")])
    assert done.exit_code == 0, done.output
    drawn, committed = read_rgb(tmp_path / "page.png"), read_rgb(docs / "camera_shake.png")
    assert drawn.shape == committed.shape
    # Fonts and the last digit may differ between versions of Pillow and NumPy.
    assert np.abs(drawn.astype(int) - committed).mean() < 1
