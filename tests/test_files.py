import errno
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deblur_gan import files
from deblur_gan.files import (
    UNFINISHED,
    clear_unfinished,
    locked,
    make_folder,
    printable,
    put_in_place,
    reason,
    shortened,
    staging_folder,
    whole_file,
    write_bytes,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half of what w")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / "missing" / "a.h5"):
        pass
    assert str(caught.value) == f"[Errno 2] No such file or directory: '{tmp_path / 'missing' / 'a.h5'}'"


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


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("of_old", [0o600, 0o640, 0o666, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions_and_its_links(tmp_path, of_old):
    old, like = tmp_path / "old", tmp_path / "like"
    for path, of_path in ((old, of_old), (like, 0o604)):
        path.write_bytes(b"before")
        path.chmod(of_path)
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "dead").symlink_to("made")
    for number, path in enumerate((old, tmp_path / "link")):
        with whole_file(path, like) as temporary:
            assert mode(temporary) & 0o177 == of_old & 0o177, "nobody reads it meanwhile who may not read it then"
            temporary.write_bytes(b"%d" % number)
        assert old.read_bytes() == b"%d" % number and mode(old) == of_old
    assert (tmp_path / "link").is_symlink()
    write_bytes(tmp_path / "dead", b"content", like)
    assert (tmp_path / "dead").is_symlink() and (tmp_path / "made").read_bytes() == b"content"
    assert mode(tmp_path / "made") == 0o604


def test_a_copy_is_readable_by_no_more_people_than_the_umask_allows(tmp_path):
    like = tmp_path / "like"
    like.write_bytes(b"")
    like.chmod(0o777)
    write_bytes(tmp_path / "new", b"", like)
    (tmp_path / "ordinary").write_text("")
    assert mode(tmp_path / "new") & 0o666 == mode(tmp_path / "ordinary")


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path):
    long_ago = time.time() - 3600
    left, young, folder = (tmp_path / f"{UNFINISHED}{number}" for number in range(3))
    for path in (left, young):
        path.write_bytes(b"half of what w")
    folder.mkdir()
    with whole_file(tmp_path / "a.txt") as written:
        for path in (left, written, folder):
            os.utime(path, (long_ago, long_ago))
        clear_unfinished(tmp_path)
        assert {*tmp_path.iterdir()} == {young, written, folder}
    os.utime(folder, (0, 0))
    clear_unfinished(tmp_path)
    assert {*tmp_path.iterdir()} == {young, tmp_path / "a.txt"}


@pytest.mark.skipif(files.fcntl is None, reason="a system without flock")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_stops_nothing(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with locked(tmp_path):
        write_bytes(tmp_path / "a", b"content")
    (tmp_path / f"{UNFINISHED}0").write_bytes(b"")
    os.utime(tmp_path / f"{UNFINISHED}0", (time.time() - 3600,) * 2)
    clear_unfinished(tmp_path)
    assert (tmp_path / f"{UNFINISHED}0").exists(), "it may be another process's"


def test_a_folder_that_cannot_be_made_or_written_to_is_named_with_the_reason(tmp_path, monkeypatch):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert not any((tmp_path / "a" / "b").iterdir())
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="dead: is a link to a folder that is missing; a folder is required"):
        make_folder(tmp_path / "dead")
    with pytest.raises(OSError, match="file: is a file; a folder is required"):
        make_folder(tmp_path / "file")

    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "a name that nobody gave")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match=r"a: cannot be written to \(Read-only file system\); take another folder$"):
        make_folder(tmp_path / "a")


def test_a_reason_is_one_line_that_fits_a_message():
    assert reason(ValueError(" two\n lines ")) == "two lines" and reason(KeyError()) == "KeyError"
    long = reason(ValueError("a" * 5000 + "z" * 3000))
    assert len(long) < 250 and long.startswith("aaa") and long.endswith("zzz") and "..." in long
    assert shortened("a" * 300) == "a" * 300 and len(shortened("a" * 301)) <= 300


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
        with staging_folder(target) as folder:
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
    with pytest.raises(OSError, match="No space"), staging_folder(target) as folder:
        (folder / "made").mkdir()
        put_in_place(folder / "made", target)
    assert (target / "content").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
