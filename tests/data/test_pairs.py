"""Pairs on disk: found by name, checked, set aside, laid out; what does not fit is named and nothing else touched."""

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


def test_two_files_of_one_name_are_nobodys_pair(tmp_path):
    touch(tmp_path, "A/1.png", "A/1.jpg", "B/1.png")
    pairs, unmatched = find_pairs(tmp_path)
    assert not pairs and len(unmatched) == 3


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(NotADirectoryError, match="holds neither A/ and B/"):
        find_pairs(tmp_path)
    with pytest.raises(NotADirectoryError, match="no such folder"):
        find_pairs(Path("nowhere"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes in folders")
def test_pipes_and_links_to_nothing_are_named_and_not_waited_for(tmp_path):
    touch(tmp_path, "A/1.png", "B/2.png", "B/3.png", "B/4\n.png")
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


def test_whole_scenes_are_set_aside():
    gopro = [pair for i in range(20) for pair in named("000001", "000002", "000003", sequence=f"GOPR{i}")]
    flat = named(*(f"scene{i}_{frame:06d}" for i in range(20) for frame in range(3)))
    for pairs, scene in ((gopro, lambda p: p.sequence), (flat, lambda p: p.name.split("_")[0])):
        training, validation = set_aside(pairs, seed=3)
        assert sorted(training + validation) == sorted(pairs) and len(validation) == 6
        assert not {scene(pair) for pair in training} & {scene(pair) for pair in validation}
        assert set_aside(pairs, seed=3) == (training, validation)
        assert any(set_aside(pairs, seed)[1] != validation for seed in range(5))


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
    with pytest.raises(FileExistsError, match=r"GOPR1_000001\.png: another file"):
        organize_gopro(tree, images)
    assert mine.read_bytes() == before

    (tree / "train" / "GOPR2" / "sharp" / "000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"blur.000001\.png: has no counterpart"):
        organize_gopro(tree, tmp_path / "other")
    assert not (tmp_path / "other").exists()
