import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from deblur_gan.files import UNFINISHED, printable, put_in_place, whole_file, workshop, write_bytes


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half of what w")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_unfinished_can_be_told_and_keeps_the_ending(tmp_path):
    with whole_file(tmp_path / "a.tar.gz") as temporary:
        assert temporary.name.startswith(UNFINISHED) and temporary.suffix == ".gz"
        assert list(tmp_path.iterdir()) == [temporary]


@pytest.mark.parametrize("name", ["n" * 251 + ".txt", "." + "n" * 254, "n." + "e" * 253, "ä" * 127])
def test_every_name_that_a_file_may_have_can_be_written(tmp_path, name):
    write_bytes(tmp_path / name, b"content")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"content")]


def test_a_new_file_has_the_rights_of_a_new_file_and_no_thread_sees_another_umask(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask belongs to all threads"))
    (tmp_path / "ordinary").write_text("")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_bytes(tmp_path / f"{number}", b""), range(8)))
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "ordinary").stat().st_mode}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Große Straße, 東京 'a'.jpg", "Große Straße, 東京 'a'.jpg"),
        ("a\nb\r\t.jpg", "a\\nb\\r\\t.jpg"),
        ("\x1b[31mred\x07\x9b.jpg", "\\x1b[31mred\\x07\\x9b.jpg"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("line\u2028paragraph\u2029", "line\\u2028paragraph\\u2029"),
        (os.fsdecode(b"latin-\xe9.jpg"), "latin-\\xe9.jpg"),
    ],
)
def test_names_are_shown_without_harm(name, shown):
    assert printable(name) == shown


def test_a_folder_takes_the_place_of_another_or_the_other_stays(tmp_path, monkeypatch):
    target = tmp_path / "model"
    for content in ("first", "second"):
        with workshop(target) as folder:
            (folder / "made").mkdir()
            (folder / "made" / "content").write_text(content)
            put_in_place(folder / "made", target)
        assert (target / "content").read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    rename = os.rename

    def full(source, destination):
        if source.name == "made":
            raise OSError("No space left on device")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"), workshop(target) as folder:
        (folder / "made").mkdir()
        put_in_place(folder / "made", target)
    assert (target / "content").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
