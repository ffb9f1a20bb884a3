import errno
import os
from pathlib import Path

import pytest

from deblur_gan.pairs import check_pairs, find_pairs, organize_gopro


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
