"""`deblur-gan restore`: which photographs are meant, where each result goes, and what is said."""

import errno
import functools
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import QUICKEST_BACKEND, ROOT, child_environment
from PIL import Image

from deblur_gan.backend import engine_and_precision
from deblur_gan.commands import ensemble_option, main
from deblur_gan.images.photographs import encoded, read_photograph, write_photograph
from deblur_gan.restoring import jobs
from deblur_gan.restoring.deblur import ENSEMBLES, deblur
from deblur_gan.restoring.jobs import find_jobs
from deblur_gan.restoring.photograph import restored_copy
from deblur_gan.weights import load_generator

MEUDEC = ROOT / "tests" / "golden" / "keras213_generator.h5"


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Keeps what the commands load: loading a generator and tracing its first prediction are most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deblur_gan.weights.load_generator", functools.cache(load_generator))
        yield


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def restore(weights, *arguments, **settings):
    # In float32, as `deblur` with `load_generator` restores, on every processor.
    command = ["restore", "--weight_path", str(weights), "--precision", "float32", *map(str, arguments)]
    return CliRunner().invoke(main, command, **settings)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(path, image, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return image


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


# ---- which photographs, and where they go


def test_a_folder_keeps_names_and_one_bad_file_stops_nothing(identity_weights):
    first, second = save("in/a.png", noise(9, 7, 3)), save("in/B.BMP", noise(5, 5, 3))
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes()[:60])
    Path("in/notes.txt").write_text("not a photograph")
    Path("in/._a.png").write_text("what macOS leaves on foreign disks")
    result = restore(identity_weights, "in")
    assert result.exit_code == 1 and "in/broken.png: cannot be decoded" in result.stderr
    assert "Restored 2 of 3 photographs into restored/ (0.0 megapixels, worked on at 10 to 18 pixels, " in result.stdout
    assert tree("restored") == ["B.BMP", "a.png"]
    np.testing.assert_array_equal(np.asarray(Image.open("restored/a.png")), first)
    np.testing.assert_array_equal(np.asarray(Image.open("restored/B.BMP")), second)


def test_files_and_folders_together_and_each_once(identity_weights):
    for name in ("in/a.png", "in/b.png", "c.png"):
        save(name, noise(8, 8, 3))
    result = restore(identity_weights, "c.png", "in", Path("in", "a.png").absolute(), "-o", "out")
    assert result.exit_code == 0, result.output
    assert tree("out") == ["a.png", "b.png", "c.png"] and "Restored 3 of 3" in result.stdout


def test_subfolders_are_named_or_kept(identity_weights):
    for name in ("in/a.png", "in/deep/a.png", "in/deep/er/a.png", "in/.hidden/a.png"):
        save(name, noise(8, 8, 3))
    result = restore(identity_weights, "in", "-o", "in/out")
    assert "in: its subfolders are not looked into: deep\n" in result.stderr and tree("in/out") == ["a.png"]
    for _ in range(2):  # the second time, results of the first lie in the tree
        result = restore(identity_weights, "in", "-o", "in/out", "--recursive")
        assert result.exit_code == 0 and "Restored 3 of 3" in result.stdout and "subfolders" not in result.stderr
        assert tree("in/out") == ["a.png", "deep/a.png", "deep/er/a.png"]


def test_of_two_photographs_of_one_name_the_second_is_refused(identity_weights):
    first, second = save("a/x.png", noise(8, 8, 3)), save("b/x.png", noise(9, 9, 3))
    result = restore(identity_weights, "a/x.png", "b", "-o", "out")
    assert result.exit_code == 1 and "Restored 1 of 2" in result.stdout
    assert "b/x.png: would be written to out/x.png, as a/x.png is; take another output folder" in result.stderr
    np.testing.assert_array_equal(np.asarray(Image.open("out/x.png")), first)
    # A result does not take the place of another photograph, whether or not it may take that of its own.
    result = restore(MEUDEC, "a/x.png", "b/x.png", "-o", "b/../b", "--overwrite")
    assert "a/x.png: would be written to b/../b/x.png, which is to be restored itself" in result.stderr
    np.testing.assert_array_equal(np.asarray(Image.open("b/x.png")), deblur(load_generator(MEUDEC), second))


def test_a_format_that_makes_names_equal_loses_nothing(identity_weights):
    save("in/a.bmp", noise(8, 8, 3)), save("in/a.png", noise(8, 9, 3))
    result = restore(identity_weights, "in", "--format", "png")
    assert result.exit_code == 1 and "in/a.png: would be written to restored/a.png, as in/a.bmp is" in result.stderr
    assert Image.open("restored/a.png").size == (8, 8)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("x.cr2", b"II*\0\x10\0\0\0CR", "a camera's raw file"), ("x.GIF", b"GIF89a" + bytes(100), "it is GIF")],
    ids=["raw", "gif"],
)
def test_a_file_that_is_not_read_takes_no_name_from_a_photograph(identity_weights, name, content, said):
    save("in/x.jpg", noise(8, 8, 3))
    Path("in", name).write_bytes(content)
    result = restore(identity_weights, "in", "--format", "jpeg")
    assert result.exit_code == 1 and "Restored 1 of 2" in result.stdout and tree("restored") == ["x.jpg"]
    assert f"in/{name}: " in result.stderr and said in result.stderr and "would be written" not in result.stderr


def test_the_input_is_replaced_only_when_told():
    image = save("a.png", noise(8, 8, 3))
    result = restore(MEUDEC, "a.png", "-o", ".")
    assert result.exit_code == 1 and "a.png: the result would replace it" in result.stderr
    np.testing.assert_array_equal(np.asarray(Image.open("a.png")), image)
    assert restore(MEUDEC, "a.png", "-o", ".", "--overwrite").exit_code == 0
    assert (np.asarray(Image.open("a.png")) != image).any()


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_result_has_the_permissions_of_its_photograph_and_is_written_through_links(identity_weights):
    save("a.png", noise(8, 8, 3))
    Path("a.png").chmod(0o600)
    Path("b.png").symlink_to("a.png")
    for _ in range(2):  # a new file, and one that is replaced
        assert restore(identity_weights, "a.png").exit_code == 0
        assert Path("restored/a.png").stat().st_mode & 0o777 == 0o600
    assert restore(MEUDEC, "b.png", "-o", ".", "--overwrite").exit_code == 0
    assert Path("b.png").is_symlink() and Path("a.png").stat().st_mode & 0o777 == 0o600
    assert (np.asarray(Image.open("a.png")) != noise(8, 8, 3)).any()


def test_a_link_where_a_result_would_go_leads_to_no_other_photograph(identity_weights):
    save("in/a.png", noise(8, 8, 3)), save("in/b.png", noise(9, 9, 3))
    before = Path("in/b.png").read_bytes()
    Path("out").mkdir()
    Path("out/a.png").symlink_to("../in/b.png")
    result = restore(identity_weights, "in/a.png", "in/b.png", "-o", "out")
    assert result.exit_code == 1 and Path("in/b.png").read_bytes() == before
    assert "in/a.png: would be written to out/a.png, which is to be restored itself; take another" in result.stderr


def test_a_photograph_of_two_names_is_restored_once():
    image = save("in/a.png", noise(8, 8, 3))
    Path("in/z.png").symlink_to("a.png")
    result = restore(MEUDEC, "in", "-o", "in", "--overwrite")
    assert result.exit_code == 1 and "in/z.png: would be written to in/z.png, as in/a.png is" in result.stderr
    np.testing.assert_array_equal(np.asarray(Image.open("in/a.png")), deblur(load_generator(MEUDEC), image))


def test_names_that_differ_in_letter_case_lose_nothing_where_that_is_one_name(identity_weights, monkeypatch):
    first = save("a/x.png", noise(8, 8, 3))
    save("b/X.PNG", noise(9, 9, 3))
    for ignores_case in (False, True):
        monkeypatch.setattr(jobs, "_ignores_case", lambda folder, answer=ignores_case: answer)
        result = restore(identity_weights, "a", "b", "-o", f"out{ignores_case}")
        assert ("b/X.PNG: would be written to " in result.stderr) == ignores_case == bool(result.exit_code)
        assert tree(f"out{ignores_case}") == (["x.png"] if ignores_case else ["X.PNG", "x.png"])
        np.testing.assert_array_equal(np.asarray(Image.open(f"out{ignores_case}/x.png")), first)


def test_a_folder_of_a_system_that_tells_letter_cases_apart_is_known(tmp_path):
    Path("Folder").mkdir()
    assert jobs._ignores_case(str(tmp_path / "Folder" / "missing")) == Path("fOLDER").exists()
    assert not jobs._ignores_case(os.sep)


def test_shards_are_all_photographs_each_once():
    names = [f"{number}.png" for number in range(11)]
    for name in names:
        save(f"in/{name}", noise(4, 4, 3))
    shards = [find_jobs(["in"], "out", shard=(number, 4))[0] for number in (1, 2, 3, 4)]
    assert sorted(job.source.name for jobs in shards for job in jobs) == sorted(names)
    assert [job.source.name for job in shards[1]] == sorted(names)[1::4]
    given = [Path("in", name) for name in reversed(names)]
    assert find_jobs(given, "out", shard=(2, 4))[0] == shards[1], "by name, however they were named"


def test_existing_results_are_left_out_and_no_backend_starts_for_none(identity_weights, monkeypatch):
    for name in "ab":
        save(f"in/{name}.png", noise(8, 8, 3))
    save("restored/b_sharp.png", noise(3, 3, 3))
    result = restore(identity_weights, "in", "--suffix", "_sharp", "--skip_existing")
    assert result.exit_code == 0 and "Restored 1 of 1" in result.stdout
    assert "Left out 1, whose results exist" in result.stdout
    assert Image.open("restored/b_sharp.png").size == (3, 3) and tree("restored") == ["a_sharp.png", "b_sharp.png"]
    monkeypatch.setattr("deblur_gan.backend.start_backend", None)
    assert restore(identity_weights, "in", "--suffix", "_sharp", "--skip_existing").exit_code == 0


def test_photographs_in_the_output_folder_are_no_results_of_themselves(identity_weights):
    save("in/a.png", noise(8, 8, 3)), save("in/b.png", noise(8, 8, 3))
    before = {name: Path("in", name).read_bytes() for name in ("a.png", "b.png")}
    Path("link").symlink_to("in")
    for folder in ("in", "link"):
        result = restore(identity_weights, "in", "-o", folder, "--skip_existing")
        assert result.exit_code == 1 and "Restored 0 of 2" in result.stdout and "Left out" not in result.stdout
        assert result.stderr.count("the result would replace it; take another output folder or --overwrite") == 2
    assert {name: Path("in", name).read_bytes() for name in before} == before
    result = restore(identity_weights, "in", "-o", "in", "--skip_existing", "--overwrite")
    assert result.exit_code == 0 and "Restored 2 of 2" in result.stdout


def test_results_next_to_their_originals_are_no_originals(identity_weights):
    names = ["a.png", "b.png", "c.png", "d.png", "deep/a.png"]
    for name in names:
        save(f"in/{name}", noise(8, 8, 3))
    Path("link").symlink_to("in")
    command = ["in", "--recursive", "-o", "link", "--suffix", "_s", "--skip_existing"]
    for shard, said in (("1/2", "Restored 3 of 3"), ("2/2", "Restored 2 of 2")):  # one after the other
        result = restore(identity_weights, *command, "--shard", shard)
        assert result.exit_code == 0 and said in result.stdout
    everything = sorted([*names, *(name.replace(".", "_s.") for name in names)])
    assert tree("in") == everything
    result = restore(identity_weights, *command)
    assert "Restored 0 of 0" in result.stdout and "Left out 5, whose results exist" in result.stdout
    assert tree("in") == everything
    # A file that is refused has no result.
    save("in/a.gif", noise(8, 8, 3)), save("in/a_s.gif", noise(8, 8, 3))
    assert "in/a_s.gif: not an image that can be read: it is GIF" in restore(identity_weights, *command).stderr


def test_an_original_with_the_name_of_anothers_result_is_replaced_only_when_told(identity_weights):
    first, second = save("in/x.png", noise(8, 8, 3)), save("in/x_s.png", noise(9, 9, 3))
    command = ["in", "-o", "in", "--suffix", "_s"]
    said = (
        "in/x.png: in/x_s.png is there, which has the name of its result; take another suffix or output folder, or "
        "--skip_existing to keep it or --overwrite to replace it\n"
    )
    result = restore(identity_weights, *command)
    assert result.exit_code == 1 and said in result.stderr and "Restored 0 of 1" in result.stdout
    result = restore(identity_weights, *command, "--dry_run")
    assert (result.exit_code, result.stdout) == (1, said)
    assert restore(identity_weights, *command, "--skip_existing").exit_code == 0
    save("other/x.png", noise(7, 7, 3))
    result = restore(identity_weights, "other", *command)
    assert result.exit_code == 1 and said.replace("in/x.png:", "other/x.png:") in result.stderr
    np.testing.assert_array_equal(np.asarray(Image.open("in/x_s.png")), second)
    # A file that the command line names is a photograph to restore.
    result = restore(identity_weights, "in", "in/x_s.png", "-o", "in", "--suffix", "_s", "--overwrite")
    assert "in/x.png: would be written to in/x_s.png, which is to be restored itself" in result.stderr
    assert Image.open("in/x_s_s.png").size == Image.open("in/x_s.png").size == (9, 9)
    Path("in/x_s_s.png").unlink()
    result = restore(identity_weights, *command, "--overwrite", "--dry_run")
    assert (result.exit_code, result.stdout) == (0, "in/x.png -> in/x_s.png\n")
    assert restore(identity_weights, *command, "--overwrite").exit_code == 0 and tree("in") == ["x.png", "x_s.png"]
    np.testing.assert_array_equal(np.asarray(Image.open("in/x_s.png")), first)


@pytest.mark.skipif(os.name == "nt", reason="limits and messages of POSIX")
@pytest.mark.parametrize(
    ("name", "why"), [("x" * 250, "File name too long"), ("locked", "Permission denied")], ids=["too long", "locked"]
)
def test_a_result_that_cannot_be_looked_for_is_named_and_stops_nothing(identity_weights, monkeypatch, name, why):
    save(f"in/{name}.png", noise(8, 8, 3)), save("in/z.png", noise(8, 8, 3))
    Path("restored").mkdir()
    stat = os.stat

    def refuse(path, *arguments, **settings):
        if str(path).endswith("locked_sharp.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *arguments, **settings)

    monkeypatch.setattr(os, "stat", refuse)
    command = ["in", "--suffix", "_sharp"]
    result = restore(identity_weights, *command, "--dry_run")
    line, other = result.stdout.splitlines()
    assert line.startswith(f"in/{name}.png: cannot be written to restored/{name}_sharp.png ({why}); take another")
    assert result.exit_code == 1 and other == "in/z.png -> restored/z_sharp.png"
    result = restore(identity_weights, *command, "--skip_existing")
    assert result.exit_code == 1 and line in result.stderr and tree("restored") == ["z_sharp.png"]
    result = restore(identity_weights, *command, "--skip_existing")
    assert result.exit_code == 1 and "Left out 1, whose results exist" in result.stdout


def test_a_dry_run_says_where_each_would_go_and_writes_nothing(identity_weights):
    save("in/a.jpeg", noise(8, 8, 3)), save("in/deep/b.png", noise(8, 8, 3))
    result = restore(identity_weights, "in", "--recursive", "--format", "jpeg", "--dry_run")
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout == "in/a.jpeg -> restored/a.jpeg\nin/deep/b.png -> restored/deep/b.jpg\n"
    assert not Path("restored").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes in folders")
def test_whatever_looks_like_a_picture_is_restored_or_named(identity_weights):
    for folder in ("holi\nday", "out", ".hidden"):
        Path("in", folder).mkdir(parents=True)
    for name in ("a.jfif", "b.TIF", "c\nd.png"):
        save(Path("in", name), noise(8, 8, 3))
    others = ("animation.gif", "drawing.svg", "camera.NEF", "phone.jxl")
    for name in others:
        Path("in", name).write_bytes(b"something else")
    os.mkfifo("in/pipe.png")
    Path("in/broken.jpg").symlink_to("nowhere.jpg")
    Path("in/notes.txt").write_text("not a picture")
    for _ in range(2):  # the second time, results of the first are replaced
        result = restore(identity_weights, "in", "-o", "in/out")
        assert result.exit_code == 1 and "Restored 3 of 9" in result.stdout
        for name in (*others, "pipe.png", "broken.jpg"):
            assert result.stderr.count(f"in/{name}: ") == 1
        assert "in: its subfolders are not looked into: holi\\nday\n" in result.stderr
        assert "notes.txt" not in result.stderr
        assert tree("in/out") == ["a.jfif", "b.TIF", "c\nd.png"]


def test_a_link_that_cannot_be_followed_stops_nothing(identity_weights):
    """To a name that is too long here; a link into a closed folder raises as well."""
    save("in/a.png", noise(8, 8, 3))
    Path("in/b.png").symlink_to(300 * "x")
    result = restore(identity_weights, "in", "-o", "out")
    assert result.exit_code == 1 and "Restored 1 of 2" in result.stdout and tree("out") == ["a.png"]
    assert result.stderr.count("in/b.png: ") == 1


def test_a_dry_run_names_what_is_left_out(identity_weights):
    save("in/a.png", noise(8, 8, 3)), save("in/deep/b.png", noise(8, 8, 3))
    Path("in/film.mp4").write_bytes(b"")
    result = restore(identity_weights, "in", "--dry_run")
    assert (result.exit_code, result.stdout) == (0, "in/a.png -> restored/a.png\n")
    assert result.stderr == (
        "in: its subfolders are not looked into: deep\nin: its videos are skipped; name them: film.mp4\n"
    )


def test_a_folder_of_nothing_but_subfolders_says_how_to_restore_them(identity_weights):
    save("in/deep/a.png", noise(8, 8, 3))
    result = restore(identity_weights, "in")
    assert result.exit_code == 1 and result.stderr == (
        "Error: in: no image in this folder; --recursive restores its subfolders: deep\n"
    )
    assert restore(identity_weights, "in", "--recursive").exit_code == 0


def test_nothing_to_restore_is_said(identity_weights):
    Path("in").mkdir()
    result = restore(identity_weights, "in")
    assert result.exit_code == 1 and "in: no image in this folder" in result.stderr
    assert not Path("restored").exists()


def test_the_commands_offer_every_ensemble():
    [option] = ensemble_option(click.command()(lambda: None)).params
    assert tuple(option.type.choices) == ENSEMBLES


FILES = [path for folder in ("cases", "hostile") for path in sorted((ROOT / "tests" / folder).glob("*.*"))]


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix != ".md"], ids=lambda path: path.name)
def test_every_hard_file_ends_in_a_picture_or_in_one_line(identity_weights, path):
    resource = pytest.importorskip("resource")
    save("photo.png", noise(8, 8, 3))
    before, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = path.suffix in (".h5", ".keras")
    result = restore(path if weights else identity_weights, "photo.png" if weights else path, "--strength", "0")
    assert time.process_time() - before < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < (2**30 if sys.platform == "darwin" else 2**20)
    lines = [line for line in result.stderr.splitlines() if str(path) in line]
    assert len(lines) <= 1 and all(len(line) <= 300 + len("Error: ") for line in lines)
    assert "Traceback" not in result.output and isinstance(result.exception, (SystemExit, type(None)))
    if result.exit_code:
        assert lines and tree(".") == ["photo.png"]
    else:
        assert not weights and not read_photograph(Path("restored", path.name)).notes


# ---- what is written


def test_side_by_side_is_blurred_then_restored():
    image = save("a.png", noise(12, 16, 4))
    restore(MEUDEC, "a.png", "--side_by_side")
    both = np.asarray(Image.open("restored/a.png"))
    np.testing.assert_array_equal(both[:, :16], image)
    np.testing.assert_array_equal(both[:, 16:, :3], deblur(load_generator(MEUDEC), image[:, :, :3]))
    np.testing.assert_array_equal(both[:, 16:, 3], image[:, :, 3])


def test_strength_tiles_and_ensemble_are_those_of_deblur():
    image = save("a.png", noise(40, 50, 3))
    assert restore(MEUDEC, "a.png", "--strength", "0.5", "--tile_size", "24", "--ensemble", "4").exit_code == 0
    expected = deblur(load_generator(MEUDEC), image, tile_size=24, strength=0.5, ensemble=4)
    np.testing.assert_array_equal(np.asarray(Image.open("restored/a.png")), expected)


def test_a_jpeg_keeps_its_quality_unless_another_is_given(identity_weights):
    image = np.repeat(np.repeat(noise(16, 16, 3), 8, 0), 8, 1)
    for quality in (30, 75, 95):
        save(f"in/{quality}.jpg", image, quality=quality)
    restore(identity_weights, "in")
    for quality in (30, 75, 95):
        copy, original = Image.open(f"restored/{quality}.jpg"), Image.open(f"in/{quality}.jpg")
        assert copy.quantization == original.quantization and copy.layer == original.layer
    restore(identity_weights, "in", "--quality", "75")
    for quality in (30, 75, 95):
        assert Image.open(f"restored/{quality}.jpg").quantization == Image.open("in/75.jpg").quantization


@pytest.mark.parametrize(("file_format", "extension", "name"), [("jpeg", ".jpg", "JPEG"), ("webp", ".webp", "WEBP")])
def test_another_format_has_its_extension_and_says_what_it_cannot_hold(identity_weights, file_format, extension, name):
    save("a.png", noise(8, 8, 4), dpi=(300, 300))
    result = restore(identity_weights, "a.png", "--format", file_format, "--quality", "80")
    assert result.exit_code == 0 and Image.open(f"restored/a{extension}").format == name
    lost = "its transparency cannot be kept in JPEG" if name == "JPEG" else "its resolution cannot be kept in WEBP"
    assert f"a.png: restored, but {lost}" in result.stderr
    if name == "JPEG":
        assert round(Image.open("restored/a.jpg").info["dpi"][0]) == 300


def test_metadata_that_is_lost_is_said_and_the_picture_restored(identity_weights):
    path = ROOT / "tests" / "hostile" / "bad_exif_header.png"
    result = restore(identity_weights, path)
    assert result.exit_code == 0 and f"{path}: restored, but its EXIF data cannot be kept" in result.stderr
    assert Image.open(Path("restored", path.name)).size == (40, 30)
    line = json.loads(restore(identity_weights, path, "--json").stdout)
    assert line["dropped"][0].startswith("its EXIF data cannot be kept")


def test_json_is_a_line_for_each_photograph(identity_weights):
    save("in/a.png", noise(20, 30, 3))
    Path("in/b.png").write_text("nothing")
    result = restore(identity_weights, "in", "--json")
    assert result.exit_code == 1
    good, bad = map(json.loads, result.stdout.splitlines())
    assert good.pop("seconds") > 0
    size = Path("restored/a.png").stat().st_size
    assert good == {
        **{"file": "in/a.png", "restored": "restored/a.png", "width": 30, "height": 20, "dropped": []},
        "engine": engine_and_precision("float32"),
        **{"bytes": size, "original_bytes": Path("in/a.png").stat().st_size},
    }
    assert bad.keys() == {"file", "error"} and bad["error"].startswith("in/b.png: not an image")


def test_json_has_the_bytes_of_an_original_that_was_replaced():
    save("a.png", np.full((20, 30, 3), 90, np.uint8), compress_level=0)
    before = Path("a.png").stat().st_size
    line = json.loads(restore(MEUDEC, "a.png", "-o", ".", "--overwrite", "--json").stdout)
    assert line["original_bytes"] == before != Path("a.png").stat().st_size == line["bytes"]


def test_a_dash_is_standard_input_and_output(identity_weights):
    image = save("a.png", noise(8, 8, 3))
    result = restore(identity_weights, "-", input=Path("a.png").read_bytes())
    assert result.exit_code == 0 and result.stderr == ""
    found = Image.open(io.BytesIO(result.stdout_bytes))
    assert found.format == "PNG"
    np.testing.assert_array_equal(np.asarray(found), image)
    result = restore(identity_weights, "-", "--format", "bmp", input=Path("a.png").read_bytes())
    assert Image.open(io.BytesIO(result.stdout_bytes)).format == "BMP" and tree(".") == ["a.png"]
    result = restore(identity_weights, "-", input=b"no picture")
    assert result.exit_code == 1 and result.stdout_bytes == b""
    assert result.stderr.startswith("Error: the input: not an image that can be read") and tree(".") == ["a.png"]


def test_weights_that_are_unfit_end_a_dash_in_one_line(identity_weights, monkeypatch):
    monkeypatch.setattr("deblur_gan.restoring.deblur.predict", lambda generator, values: np.full_like(values, np.nan))
    save("a.png", noise(8, 8, 3))
    result = restore(identity_weights, "-", input=Path("a.png").read_bytes())
    assert (result.exit_code, result.stdout_bytes, type(result.exception)) == (1, b"", SystemExit)
    assert result.stderr == "Error: the output of the generator is not finite; its weights are unfit\n"


# ---- the next is read and the last is written, while the network works on one


def test_neighbours_are_read_and_written_meanwhile_and_no_more_than_one_is_ahead(monkeypatch):
    events, known = [], threading.Condition()

    def say(event, path):
        with known:
            events.append((event, Path(path).stem))
            known.notify_all()

    def read(path):
        say("reads", path)
        return read_photograph(path)

    def write(path, photograph, like):
        if path.stem == "d":
            raise OSError("the disk is full")
        write_photograph(path, photograph)
        say("wrote", path)

    def restore(pixels):
        name = "abcdef"[pixels.shape[1] - 8]
        say("restores", name)
        meanwhile = {"a": {("reads", "b")}, "b": {("reads", "c"), ("wrote", "a")}}.get(name, set())
        with known:
            assert known.wait_for(lambda: meanwhile <= {*events}, 60), f"{meanwhile} is waited for, after {events}"
        return 255 - pixels

    monkeypatch.setattr(jobs, "read_photograph", read)
    monkeypatch.setattr(jobs, "write_photograph", write)
    for number, name in enumerate("abcdef"):
        save(f"in/{name}.png", noise(8, 8 + number, 3))
    Path("in/e.png").write_bytes(b"no picture")

    outcomes = list(jobs.restore_files(lambda: restore, find_jobs(["in"], "out")[0]))
    assert [outcome.job.source.stem for outcome in outcomes] == [*"abcdef"]
    assert all(outcome.seconds > 0 for outcome in outcomes)
    errors = {outcome.job.source.stem: outcome.error for outcome in outcomes if outcome.error}
    assert errors.keys() == {"d", "e"} and errors["d"].startswith(
        "in/d.png: cannot be written to out (the disk is full); "
    )
    assert tree("out") == ["a.png", "b.png", "c.png", "f.png"]
    for name in "abcf":
        alone = restored_copy(lambda pixels: 255 - pixels, read_photograph(f"in/{name}.png"))
        assert Path(f"out/{name}.png").read_bytes() == encoded(alone)
    for ahead, name in zip("cdef", "abcd", strict=True):
        assert events.index(("reads", ahead)) > events.index(("restores", name))


def test_what_is_being_written_when_ctrl_c_comes_is_finished_and_counted(monkeypatch):
    interrupted = threading.Event()

    def restore(pixels):
        if pixels.shape[1] > 8:
            interrupted.set()
            raise KeyboardInterrupt
        return pixels

    def write(path, photograph, like):
        assert interrupted.wait(60)
        write_photograph(path, photograph)

    monkeypatch.setattr(jobs, "write_photograph", write)
    for number, name in enumerate("abc"):
        save(f"in/{name}.png", noise(8, 8 + number, 3))
    outcomes = jobs.restore_files(lambda: restore, find_jobs(["in"], "out")[0])
    assert next(outcomes).error is None and tree("out") == ["a.png"]
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert tree("out") == ["a.png"]


# ---- first looks, then loads


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"some text", "a.png: not an image"),
        ("cut.jpg", None, "cut.jpg: cannot be decoded (image file is truncated"),
        ("a.gif", b"GIF89a" + bytes(100), "a.gif: "),
    ],
)
def test_what_cannot_be_read_is_refused_before_a_backend_starts(identity_weights, monkeypatch, name, content, said):
    if content is None:
        file = io.BytesIO()
        Image.fromarray(noise(64, 64, 3)).save(file, "JPEG")
        content = file.getvalue()[:-400]
    Path(name).write_bytes(content)
    monkeypatch.setattr("deblur_gan.backend.start_backend", lambda **_: pytest.fail("a backend starts"))
    result = restore(identity_weights, name)
    assert result.exit_code == 1 and said in result.stderr, result.stderr
    result = restore(identity_weights, "-", input=content)
    assert result.exit_code == 1 and result.stderr.startswith("Error: the input: ")


def test_a_folder_that_cannot_be_written_to_is_refused_before_a_backend_starts(identity_weights, monkeypatch):
    save("a.png", noise(8, 8, 3))
    Path("dead").symlink_to("nowhere")
    monkeypatch.setattr("deblur_gan.backend.start_backend", lambda **_: pytest.fail("a backend starts"))
    result = restore(identity_weights, "a.png", "-o", "dead")
    assert result.exit_code == 1 and result.stderr == (
        "Error: dead: is a link to a folder that is missing; a folder is required\n"
    )


def test_a_full_disk_is_named_with_the_folder_and_stops_nothing(identity_weights, monkeypatch):
    for name in ("in/a.png", "in/b.png"):
        save(name, noise(9, 7, 3))

    def write(path, photograph, source):
        if source.name == "a.png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_photograph(path, photograph, source)

    monkeypatch.setattr(jobs, "write_photograph", write)
    result = restore(identity_weights, "in", "-o", "out")
    assert result.exit_code == 1 and tree("out") == ["b.png"]
    (line,) = (line for line in result.output.splitlines() if "a.png" in line and "space" in line)
    assert "a.png: cannot be written to out (No space left on device); check its space and permissions" in line


def test_the_network_is_loaded_once_and_what_is_wrong_with_it_is_said_once(identity_weights):
    loads = []

    def load():
        loads.append(None)
        return lambda pixels: pixels

    for name in "abc":
        save(f"in/{name}.png", noise(8, 8, 3))
    outcomes = list(jobs.restore_files(load, find_jobs(["in"], "out")[0]))
    assert not any(outcome.error for outcome in outcomes) and len(loads) == 1
    Path("bad.h5").write_bytes(b"no weights")
    result = restore("bad.h5", "in")
    assert result.exit_code == 1 and result.stderr.count("bad.h5: ") == 1 and "a.png" not in result.stderr


def test_restoring_a_photograph_loads_no_video_code(identity_weights):
    save("a.png", noise(8, 8, 3))
    program = """
import sys
from deblur_gan import restore
from deblur_gan.restoring.jobs import find_jobs, restore_files
[outcome] = restore_files(lambda: lambda pixels: pixels, find_jobs(["a.png"], "out")[0])
print(outcome.error, [name for name in sys.modules if name.startswith("deblur_gan.video.")])
"""
    done = subprocess.run([sys.executable, "-c", program], env=child_environment(), capture_output=True, text=True)
    assert done.stdout == "None []\n", done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_being_ended_is_as_ctrl_c_and_leaves_nothing_unfinished(identity_weights, name):
    save("in/a.png", noise(8, 8, 3)), save("in/b.png", noise(8, 9, 3))
    program = """
import os, signal, sys
import deblur_gan.restoring.deblur
from deblur_gan.commands import main
from deblur_gan.files import whole_file

def deblur(generator, pixels, **_):
    if pixels.shape[1] == 9:
        with whole_file("restored/b.png"):
            os.kill(os.getpid(), getattr(signal, sys.argv.pop()))
            signal.pause()
    return pixels

number = getattr(signal, sys.argv[-1])
signal.signal(number, signal.SIG_DFL)  # pytest itself may run where it is ignored, under nohup
deblur_gan.restoring.deblur.deblur = deblur
main(sys.argv[1:-1])
"""
    command = [sys.executable, "-c", program, "restore", "in", "--weight_path", identity_weights, name]
    environment = child_environment(KERAS_BACKEND=QUICKEST_BACKEND)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130 and tree("restored") == ["a.png"], done.stderr
    assert "Interrupted: 1 of 2 photographs are restored" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_dash_ends_as_the_help_says(name):
    program = """
import os, signal, sys
from deblur_gan.commands import main

class Input:
    def read():
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        signal.pause()

signal.signal(signal.SIGINT, signal.default_int_handler)  # under nohup they are ignored
signal.signal(signal.SIGTERM, signal.SIG_DFL)
sys.stdin = type("", (), {"buffer": Input})
main(["restore", "-"])
"""
    command = [sys.executable, "-c", program, name]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nAborted!\n")


def test_what_a_killed_run_left_is_removed_by_the_next(identity_weights):
    save("a.png", noise(8, 8, 3))
    Path("restored").mkdir()
    Path("restored/.unfinished-0123.png").write_bytes(b"half")
    os.utime("restored/.unfinished-0123.png", (0, 0))
    assert restore(identity_weights, "a.png").exit_code == 0 and tree("restored") == ["a.png"]


# ---- what is said


def test_an_interruption_says_how_many_are_done(monkeypatch, identity_weights):
    for name in "abc":
        save(f"in/{name}.png", noise(8, 8, 3))
    calls = []

    def interrupted(generator, image, *arguments, **settings):
        calls.append(image.ndim)  # it calls itself, with one dimension more
        if calls.count(3) == 2:
            raise KeyboardInterrupt
        return deblur(generator, image, *arguments, **settings)

    monkeypatch.setattr("deblur_gan.restoring.deblur.deblur", interrupted)
    result = restore(identity_weights, "in")
    assert result.exit_code == 130 and tree("restored") == ["a.png"]
    said = "Interrupted: 1 of 3 photographs are restored, in restored/; --skip_existing resumes there"
    assert result.stderr.splitlines()[-1] == said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "Path 'missing.png' does not exist"),
        (["a.png", "--shard", "9/8"], "'9/8' is not NUMBER/COUNT"),
        (["a.png", "--shard", "0/8"], "'0/8' is not NUMBER/COUNT"),
        (["a.png", "--suffix", "../b"], "'../b' cannot be part of a file name"),
        (["a.png", "--strength", "2"], "--strength"),
        (["a.png", "--quality", "0"], "--quality"),
        (["a.png", "--format", "gif"], "--format"),
        (["a.png", "--precision", "float16"], "--precision"),
        (["-", "a.png"], "- is one photograph"),
        (["-", "-o", "out"], "--output_dir cannot be given with it"),
        (["-", "--json"], "--json cannot be given with it"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(identity_weights, arguments, message):
    save("a.png", noise(8, 8, 3))
    result = restore(identity_weights, *arguments)
    assert result.exit_code == 2 and message in result.stderr.splitlines()[-1] and not Path("restored").exists()


@pytest.mark.slow
def test_the_precision_is_said_and_is_that_of_the_network():
    image = save("a.png", noise(40, 50, 3))
    for precision, dtype in (("float32", "float32"), ("bfloat16", "mixed_bfloat16")):
        result = restore(MEUDEC, "a.png", "--precision", precision)
        assert result.exit_code == 0 and f", {engine_and_precision(dtype)})\n" in result.stdout
        assert f" in {precision})" in result.stdout
        expected = deblur(load_generator(MEUDEC, dtype), image)
        np.testing.assert_array_equal(np.asarray(Image.open("restored/a.png")), expected)


def test_a_name_that_the_output_cannot_encode_is_escaped(identity_weights):
    save("照片.png", noise(8, 8, 3))
    command = [sys.executable, "-m", "deblur_gan", "restore", "照片.png", "-o", "出", "--weight_path", identity_weights]
    dry = r"\u7167\u7247.png -> \u51fa"
    for more, said in (["--dry_run"], dry), ([], r"Restored 1 of 1 photographs into \u51fa/ ("):
        environment = child_environment(PYTHONIOENCODING="cp1252", KERAS_BACKEND=QUICKEST_BACKEND)
        done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith(said), done.stderr


def test_as_a_process_it_is_quiet_but_for_the_bar(identity_weights):
    save("a.png", noise(8, 8, 3))
    command = [sys.executable, "-m", "deblur_gan", "restore", "a.png", "--weight_path", identity_weights]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("Restored 1 of 1 photographs into restored/"), done.stderr
    assert all("photo" in line for line in done.stderr.replace("\r", "\n").split("\n") if line), done.stderr
