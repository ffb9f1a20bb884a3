import inspect
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
from click.testing import CliRunner
from PIL import Image

from deblur_gan.blur import blur_image, random_blur
from deblur_gan.pairs import find_pairs
from deblur_gan.photographs import BadImage, find_images, read_photograph, read_rgb
from deblur_gan.synthesis import blur_folder, write_sample_images

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


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
    options = {"rotation": (0, 0), "noise_sigma": (0, 0), "gamma": 1.0}
    blur_folder(sharp_dir, tmp_path / "pairs", save_kernels=True, **options)
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
    with pytest.raises(ValueError, match="n_per_image is 0"):
        blur_folder(sharp_dir, output_dir, n_per_image=0)
    with pytest.raises(ValueError, match="seed is -1"):
        blur_folder(sharp_dir, output_dir, seed=-1)
    (sharp_dir / "1.bmp").write_bytes((sharp_dir / "1.png").read_bytes())
    with pytest.raises(ValueError, match="1.png: would be written to the same file as 1.bmp"):
        blur_folder(sharp_dir, output_dir)
    with pytest.raises(ValueError, match="holds no photographs"):
        blur_folder(tmp_path, output_dir)
    assert not output_dir.exists()

    before = contents(tmp_path)
    (tmp_path / "B").symlink_to(sharp_dir)
    (sharp_dir / "1.bmp").unlink()
    with pytest.raises(ValueError, match="B is where the photographs come from"):
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


def test_blur_images_runs_from_anywhere(sharp_dir, tmp_path):
    (sharp_dir / "broken.jpg").write_bytes(b"nothing")
    arguments = ["--input_dir", "sharp", "--output_dir", "made/pairs", "--n_per_image", 2, "--seed", 3]
    arguments += ["--noise_sigma", 1.5, "--gamma", 1, "--rotation", "0:2", "--length", 20, "--save_kernels"]
    done = run("blur_images.py", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "broken.jpg" in done.stderr.splitlines()[-1]
    assert done.stdout.startswith("6 pairs written to made/pairs")
    ranges = {"noise_sigma": (1.5, 1.5), "gamma": 1.0, "rotation": (0, 2), "length": (20, 20)}
    blur_folder(sharp_dir, tmp_path / "expected", 2, 3, save_kernels=True, **ranges)
    assert contents(tmp_path / "made" / "pairs") == contents(tmp_path / "expected")


def command(script):
    return runpy.run_path(str(SCRIPTS / script))[Path(script).stem]


def test_the_script_has_the_defaults_of_the_function():
    parameters = inspect.signature(random_blur).parameters
    context = command("blur_images.py").make_context("blur_images.py", ["--input_dir", ".", "--output_dir", "pairs"])
    for name in ("length", "rotation", "noise_sigma", "gamma"):
        assert context.params[name] == parameters[name].default


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
        (["--gamma", "0"], "--gamma"),
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
