"""Pairs on disk are found by name, checked, set aside and laid out; errors name the file and touch no other."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, child_environment, negatives, noise, save

from deblur_gan.data.gopro import organize_gopro
from deblur_gan.data.pairs import Pair, check_pairs, find_pairs
from deblur_gan.data.split import set_aside


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize(("blurred", "sharp"), [("A", "B"), ("blur", "sharp")])
def test_pairs_are_found_by_name_whatever_is_missing(tmp_path, blurred, sharp):
    touch(tmp_path, f"{blurred}/1.png", f"{blurred}/2.png", f"{blurred}/3.jpg", f"{sharp}/1.png", f"{sharp}/3.png")
    pairs, unmatched = find_pairs(tmp_path)
    assert [(pair.name, pair.blurred.name, pair.sharp.name) for pair in pairs] == [
        ("1", "1.png", "1.png"),
        ("3", "3.jpg", "3.png"),
    ]
    assert unmatched == [tmp_path / blurred / "2.png"]


def test_gopro_tree_is_read_in_place(tmp_path):
    for sequence in ("GOPR2", "GOPR1"):
        touch(tmp_path, *(f"{sequence}/{folder}/000001.png" for folder in ("blur", "blur_gamma", "sharp")))
    touch(tmp_path, "readme.txt", "GOPR2/sharp/000002.png")
    for blur in ("blur", "blur_gamma"):
        pairs, unmatched = find_pairs(tmp_path, blur)
        assert [(pair.sequence, pair.name) for pair in pairs] == [("GOPR1", "000001"), ("GOPR2", "000001")]
        assert all(pair.blurred.parent.name == blur and pair.sharp.parent.name == "sharp" for pair in pairs)
        assert unmatched == [tmp_path / "GOPR2" / "sharp" / "000002.png"]


def test_a_scene_without_one_of_its_folders_is_reported(tmp_path):
    whole, no_sharp, no_gamma, no_blur = "GOPR1", "GOPR2", "GOPR3", "GOPR4"
    for scene, folders in (
        (whole, ("blur", "blur_gamma", "sharp", "gt")),
        (no_sharp, ("blur", "blur_gamma", "masks")),
        (no_gamma, ("blur", "sharp")),
        (no_blur, ("gt", "previews")),
    ):
        touch(tmp_path, *(f"{scene}/{folder}/1.png" for folder in folders))
    touch(tmp_path, "previews/1.png")
    pairs, unmatched = find_pairs(tmp_path)
    assert [(pair.sequence, pair.sharp.parent.name) for pair in pairs] == [(whole, "sharp"), (no_gamma, "sharp")]
    assert unmatched == [tmp_path / no_sharp / "blur" / "1.png", tmp_path / no_blur / "gt" / "1.png"]
    pairs, unmatched = find_pairs(tmp_path, "blur_gamma")
    assert [pair.sequence for pair in pairs] == [whole]
    assert unmatched == [
        tmp_path / scene / folder / "1.png"
        for scene, folder in ((no_sharp, "blur_gamma"), (no_gamma, "sharp"), (no_blur, "gt"))
    ]


@pytest.mark.parametrize(("first", "second"), [("A", "B"), ("input", "target")])
def test_scenes_that_are_called_like_sides_are_scenes(tmp_path, first, second):
    touch(tmp_path, *(f"{scene}/{side}/1.png" for scene in (first, second) for side in ("blur", "sharp")))
    pairs, unmatched = find_pairs(tmp_path)
    assert [(pair.sequence, pair.blurred, pair.sharp) for pair in pairs] == [
        (scene, *(tmp_path / scene / side / "1.png" for side in ("blur", "sharp"))) for scene in (first, second)
    ]
    assert not unmatched
    # Scenes next to A/ and B/ change nothing.
    touch(tmp_path, *(f"other/{name}" for name in ("A/1.png", "B/1.png", "more/blur/2.png", "more/sharp/2.png")))
    assert names_of(find_pairs(tmp_path / "other")[0]) == [("", "1", "1.png", "1.png")]


def test_two_files_of_one_name_are_nobodys_pair(tmp_path):
    touch(tmp_path, "A/1.png", "A/1.jpg", "B/1.png")
    pairs, unmatched = find_pairs(tmp_path)
    assert not pairs and len(unmatched) == 3


def test_a_folder_of_something_else_is_named(tmp_path):
    for touched in ("photo.jpg", "A/1.png", "train/blur/1.png", "val/A/1.png", "val/B/1.png"):
        touch(tmp_path, touched)
        with pytest.raises(NotADirectoryError, match="no pairs found; use A/ and B/, blur/ and sharp/") as caught:
            find_pairs(tmp_path)
        assert len(str(caught.value)) - len(str(tmp_path)) < 160
    with pytest.raises(NotADirectoryError, match="no such folder"):
        find_pairs(Path("nowhere"))


def names_of(pairs):
    return [(pair.sequence, pair.name, pair.blurred.name, pair.sharp.name) for pair in pairs]


def test_common_layouts_are_accepted(tmp_path):
    """Those of Restormer and NAFNet, RealBlur, REDS, and names in one folder; a file without a counterpart is named."""
    layouts = {
        "restormer": ("input/1.png", "target/1.png", "input/2.png"),
        "realblur": ("scene1/blur/blur_1.png", "scene1/gt/gt_1.png", "scene2/gt/gt_2.png", "scene2/blur/blur_7.png"),
        "reds": ("train_blur/000/01.png", "train_sharp/000/01.png", "train_sharp/001/01.png"),
        "reds_jpeg": ("val_blur_jpeg/000/01.jpg", "val_sharp/000/01.png", "val_sharp/000/02.png"),
        "one_folder": ("1_blur.png", "1_sharp.jpg", "2_blur.png", "readme.txt"),
        "suffixes": ("blur/1_blur.png", "sharp/1_sharp.png", "blur/2_blur.png"),
    }
    for layout, files in layouts.items():
        touch(tmp_path / layout, *files)
    found = {layout: find_pairs(tmp_path / layout) for layout in layouts}
    assert {layout: names_of(pairs) for layout, (pairs, _) in found.items()} == {
        "restormer": [("", "1", "1.png", "1.png")],
        "realblur": [("scene1", "1", "blur_1.png", "gt_1.png")],
        "reds": [("000", "01", "01.png", "01.png")],
        "reds_jpeg": [("000", "01", "01.jpg", "01.png")],
        "one_folder": [("", "1", "1_blur.png", "1_sharp.jpg")],
        "suffixes": [("", "1", "1_blur.png", "1_sharp.png")],
    }
    unmatched = {
        layout: [str(path.relative_to(tmp_path / layout)) for path in paths] for layout, (_, paths) in found.items()
    }
    assert unmatched == {
        "restormer": ["input/2.png"],
        "realblur": ["scene2/blur/blur_7.png", "scene2/gt/gt_2.png"],
        "reds": ["train_sharp/001/01.png"],
        "reds_jpeg": ["val_sharp/000/02.png"],
        "one_folder": ["2_blur.png"],
        "suffixes": ["blur/2_blur.png"],
    }


def test_a_folder_without_any_counterpart_is_named(tmp_path):
    touch(tmp_path, "A/readme.txt", "B/1.png", "B/2.png")
    pairs, unmatched = find_pairs(tmp_path)
    assert not pairs and unmatched == [tmp_path / "B" / "1.png", tmp_path / "B" / "2.png"]
    touch(tmp_path, "empty/A/readme.txt", "empty/B/readme.txt")
    assert find_pairs(tmp_path / "empty") == ([], [])


def test_a_side_in_a_name_that_both_files_share_is_a_part_of_the_name(tmp_path):
    touch(tmp_path, *(f"{side}/{name}.png" for side in "AB" for name in ("1", "1_blur", "gt_2")))
    pairs, unmatched = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["1", "1_blur", "gt_2"] and not unmatched


def test_a_list_of_pairs_is_read_in_any_order_of_its_columns(tmp_path):
    lines = {
        "RealBlur/scene050/gt/gt_1.png RealBlur/scene050/blur/blur_1.png": ("scene050", "1", "blur_1.png", "gt_1.png"),
        "train/GOPR1/blur/07.png train/GOPR1/sharp/07.png 1": ("GOPR1", "07", "07.png", "07.png"),
        "": None,
        "train/train_sharp/000/3.png train/train_blur/000/3.png": ("000", "3", "3.png", "3.png"),
        "A/my photo.png\tB/my photo.png": ("", "my photo", "my photo.png", "my photo.png"),
        "night_sharp.png night_blur.png": ("", "night", "night_blur.png", "night_sharp.png"),
    }
    file = tmp_path / "list.txt"
    file.write_text("\n".join(lines), encoding="utf-8")
    pairs, unmatched = find_pairs(file)
    assert names_of(pairs) == [expected for expected in lines.values() if expected] and not unmatched
    assert pairs[0].sharp == tmp_path / "RealBlur/scene050/gt/gt_1.png"
    assert all("No such file" in problem or "no such" in problem.lower() for problem in check_pairs(pairs))
    for line in ("1.png 2.png", "blur/1.png", "blur/1.png blur/2.png", "\x00\xff", "sharp/1.png gt/1.png"):
        file.write_text(f"A/1.png B/1.png\n{line}\n", encoding="utf-8")
        with pytest.raises(NotADirectoryError, match=r"list\.txt: line 2 is no pair of paths"):
            find_pairs(file)


def test_sequences_of_a_list_that_clash_are_told_apart_by_more_of_their_path(tmp_path):
    lines = {
        "train/train_blur/000/1.png train/train_sharp/000/1.png": "train/train_blur/000",
        "train/train_blur/000/2.png train/train_sharp/000/2.png": "train/train_blur/000",  # a folder is one scene
        "val/val_blur/000/1.png val/val_sharp/000/1.png": "val/val_blur/000",
        "../more/val_blur/000/1.png ../more/val_sharp/000/1.png": "more/val_blur/000",
        "train/train_blur/001/1.png train/train_sharp/001/1.png": "001",
        "val/val_blur/001/2.png val/val_sharp/001/2.png": "001",
        "train/GOPR1/blur/1.png train/GOPR1/sharp/1.png": "train/GOPR1",
        "test/GOPR1/sharp/1.png test/GOPR1/blur/1.png": "test/GOPR1",
    }
    file = tmp_path / "data" / "list.txt"
    file.parent.mkdir()
    file.write_text("\n".join(lines), encoding="utf-8")
    pairs, _ = find_pairs(file)
    assert [pair.sequence for pair in pairs] == list(lines.values())
    assert len({(pair.sequence, pair.name) for pair in pairs}) == len(lines)


def test_a_pair_that_is_twice_in_a_list_is_refused(tmp_path):
    file = tmp_path / "list.txt"
    for again in ("blur/1.png sharp/1.png 5", "sharp/1.png ./blur/1.png"):
        file.write_text(f"blur/1.png sharp/1.png\nblur/2.png sharp/2.png\n\n{again}\n", encoding="utf-8")
        with pytest.raises(NotADirectoryError, match=r"list\.txt: line 4 names the same pair as line 1"):
            find_pairs(file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes in folders")
def test_pipes_and_links_to_nothing_are_named_and_not_waited_for(tmp_path):
    touch(tmp_path, "A/1.png", "B/2.png", "B/3.png", "B/4\n.png")
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(NotADirectoryError, match=r"list\.txt: no such folder"):
        find_pairs(tmp_path / "list.txt")
    os.mkfifo(tmp_path / "B" / "1.png")
    (tmp_path / "A" / "2.png").symlink_to("2.png")
    (tmp_path / "A" / "3.png").symlink_to("nowhere")
    problems = check_pairs(*find_pairs(tmp_path))
    for name, reason in (
        ("B/1.png", "is a pipe"),
        ("A/2.png", os.strerror(errno.ELOOP)),
        ("A/3.png", "a link to a file that"),
    ):
        assert any(problem.startswith(f"{tmp_path / name}: {reason}") for problem in problems)
    assert any(problem.startswith(f"{tmp_path / 'B'}/4\\n.png: no single counterpart") for problem in problems)


def test_a_gopro_tree_of_links_is_laid_out_as_its_files(tmp_path):
    frame = "test/GOPR1/{}/000001.png"
    for side in ("blur", "sharp"):
        touch(tmp_path, f"storage/{side}.png")
        (tmp_path / frame.format(side)).parent.mkdir(parents=True)
        (tmp_path / frame.format(side)).symlink_to(f"../../../storage/{side}.png")
    for _ in range(2):
        assert organize_gopro(tmp_path, tmp_path / "images") == {"test": 1}
    copy = tmp_path / "images" / "test" / "B" / "GOPR1_000001.png"
    assert copy.samefile(tmp_path / "storage" / "sharp.png") and not copy.is_symlink()
    for wrong in ("pipe", "device"):
        (tmp_path / "storage" / "blur.png").unlink()
        if wrong == "pipe":
            os.mkfifo(tmp_path / "storage" / "blur.png")
        else:
            (tmp_path / "storage" / "blur.png").symlink_to("/dev/zero")
        with pytest.raises(OSError, match="is a pipe, a socket or a device"):
            organize_gopro(tmp_path, tmp_path / "elsewhere")
    (tmp_path / "storage" / "blur.png").unlink()
    with pytest.raises(FileNotFoundError, match="000001.png|blur.png"):
        organize_gopro(tmp_path, tmp_path / "elsewhere")


def test_check_pairs_names_every_problem(tmp_path):
    good, same, small, broken = negatives(tmp_path, 4)
    same.blurred.write_bytes(same.sharp.read_bytes())
    save(small.sharp, noise(0, 30, 30))
    broken.sharp.write_bytes(broken.sharp.read_bytes()[:200])
    alone = save(tmp_path / "A" / "alone.png", noise(0))
    problems = check_pairs(*find_pairs(tmp_path))
    assert len(problems) == 4 and all("\n" not in problem for problem in problems)
    for problem, (path, reason) in zip(
        problems,
        [
            (alone, "no single counterpart"),
            (same.blurred, "the same picture as"),
            (small.blurred, "is 48x40, but"),
            (broken.sharp, "cannot be decoded"),
        ],
        strict=True,
    ):
        assert problem.startswith(str(path)) and reason in problem
    assert check_pairs([good]) == []


def named(*names, sequence=""):
    return [Pair(name, sequence, Path(name), Path(name)) for name in names]


@pytest.mark.parametrize(("n_scenes", "n_frames", "n_validation"), [(20, 3, 6), (12, 5, 10), (3, 4, 4), (2, 30, 30)])
def test_whole_scenes_are_set_aside(n_scenes, n_frames, n_validation):
    """Never a part of one: not if the share wanted ends within a scene, nor if there are two or three scenes only."""
    frames = [f"{frame:06d}" for frame in range(n_frames)]
    gopro = [pair for i in range(n_scenes) for pair in named(*frames, sequence=f"GOPR{i}")]
    flat = named(*(f"scene{i}_{frame}" for i in range(n_scenes) for frame in frames))
    for pairs, scene in ((gopro, lambda p: p.sequence), (flat, lambda p: p.name.split("_")[0])):
        training, validation = set_aside(pairs, seed=3)
        assert sorted(training + validation) == sorted(pairs) and len(validation) == n_validation
        assert not {scene(pair) for pair in training} & {scene(pair) for pair in validation}
        assert set_aside(pairs, seed=3) == (training, validation)
        assert n_scenes < 4 or any(set_aside(pairs, seed)[1] != validation for seed in range(5))


def test_of_large_scenes_the_smallest_is_set_aside():
    pairs = [pair for i, n in enumerate((30, 20, 25)) for pair in named(*map(str, range(n)), sequence=f"GOPR{i}")]
    assert {pair.sequence for pair in set_aside(pairs, seed=0)[1]} == {"GOPR1"}


@pytest.mark.parametrize("names", [["a", "b"], ["img_1", "img_2", "img_3"], [f"p{i}" for i in range(40)]])
def test_single_pairs_are_set_aside_where_there_are_no_scenes(names):
    training, validation = set_aside(named(*names), seed=0)
    assert len(validation) == max(1, round(len(names) / 10))
    assert sorted(training + validation) == sorted(named(*names))


def gopro(folder, blurs=("blur", "blur_gamma")):
    for part, sequence, frames in [("train", "GOPR1", 2), ("train", "GOPR2", 1), ("test", "GOPR3", 1)]:
        for number, kind in enumerate((*blurs, "sharp")):
            for frame in range(1, frames + 1):
                save(folder / part / sequence / kind / f"{frame:06d}.png", noise(100 * number + frame, 8, 8))
    return folder


def organize(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "organize_gopro_dataset.py"), *(str(a) for a in arguments)],
        env=child_environment(KERAS_BACKEND="jax"),
        capture_output=True,
        text=True,
        check=False,
    )


def test_gopro_is_laid_out_and_can_be_interrupted(tmp_path):
    tree = gopro(tmp_path / "GOPRO_Large")
    images = tmp_path / "images"
    done = organize("--dir_in", tree, "--dir_out", images)
    assert (done.returncode, done.stdout) == (0, f"{images}/train: 3 pairs\n{images}/test: 1 pairs\n")
    names = ["GOPR1_000001.png", "GOPR1_000002.png", "GOPR2_000001.png"]
    assert sorted(path.name for path in (images / "train" / "A").iterdir()) == names
    assert (images / "train" / "B" / names[1]).samefile(tree / "train" / "GOPR1" / "sharp" / "000002.png")
    pairs, unmatched = find_pairs(images / "train")
    assert [pair.name for pair in pairs] == [name[:-4] for name in names] and not unmatched

    (images / "train" / "A" / names[0]).unlink()
    organize_gopro(tree, images)
    assert (images / "train" / "A" / names[0]).samefile(tree / "train" / "GOPR1" / "blur" / "000001.png")


def test_gopro_is_copied_where_links_do_not_work(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    tree = gopro(tmp_path / "GOPRO_Large")
    for _ in range(2):
        assert organize_gopro(tree, tmp_path / "images", blur="blur_gamma") == {"train": 3, "test": 1}
    copy, original = (
        tmp_path / "images" / "test" / "A" / "GOPR3_000001.png",
        tree / "test" / "GOPR3" / "blur_gamma" / "000001.png",
    )
    assert copy.read_bytes() == original.read_bytes() and not copy.samefile(original)


def test_gopro_mistakes_are_one_line(tmp_path):
    tree = gopro(tmp_path / "GOPRO_Large")
    images = tmp_path / "images"
    missing = organize("--dir_in", tmp_path / "nowhere", "--dir_out", images)
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1 and "nowhere" in missing.stderr
    assert "Traceback" not in missing.stderr and not images.exists()

    mine = save(images / "train" / "A" / "GOPR1_000001.png", noise(0))
    before = mine.read_bytes()
    with pytest.raises(FileExistsError, match=r"GOPR1_000001\.png: is another file"):
        organize_gopro(tree, images)
    assert mine.read_bytes() == before

    (tree / "train" / "GOPR2" / "sharp" / "000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"blur.000001\.png: has no counterpart"):
        organize_gopro(tree, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_gopro_is_not_laid_out_among_other_pairs(tmp_path):
    tree = gopro(tmp_path / "GOPRO_Large")
    for other in ("test/A/camera.png", "train/B/scene/1.jpg"):
        images = tmp_path / Path(other).name
        mine = save(images / other, noise(0))
        with pytest.raises(FileExistsError) as caught:
            organize_gopro(tree, images)
        assert str(caught.value) == f"{mine}: is not of {tree}; choose a folder without other images"
        assert [path for path in images.rglob("*") if path.is_file()] == [mine]
    # Files of a killed copy and of a file manager, and the frames themselves, are no other pairs.
    images = tmp_path / "images"
    touch(images, "train/A/.unfinished-0.png", "train/A/Thumbs.db", "test/real/1.png")
    for _ in range(2):
        assert organize_gopro(tree, images) == {"train": 3, "test": 1}
