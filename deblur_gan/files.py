"""Files on disk: everything that is written here appears whole or not at all, and names are shown without harm."""

import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# What whole_file's temporary names begin with; a killed process leaves one behind.
UNFINISHED = ".unfinished-"


@contextmanager
def whole_file(path):
    """Lets a file appear whole or not at all: it is written under a temporary name beside `path`, then renamed.

    Args:
        path: str or Path; its folder exists.

    Yields:
        Path that ends as `path` does, to be written; on leaving without an error it takes the place of `path`.

    Raises:
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    path = Path(path)
    # The name is short whatever the name of `path` is: file systems allow 255 bytes, and this one must not need more.
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}{path.suffix[-16:]}")
    # With 0o666 the umask gives the rights of any new file, and is not touched: it belongs to all threads.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path, content):
    """Writes bytes-like `content` to `path`, whole or not at all; see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def workshop(path):
    """Gives a folder beside `path`, in which something is made that `put_in_place` then puts there.

    Args:
        path: str or Path; its folder exists.

    Yields:
        Path of the folder, which is gone afterwards with all that is still in it.

    Raises:
        OSError: if it cannot be made.
    """
    folder = Path(path).with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(made, path):
    """Renames a file or folder; what stood at `path` before is replaced.

    Args:
        made: Path in the `workshop` of `path`.
        path: str or Path.

    Raises:
        OSError: if it cannot be renamed; what stood at `path` before is then still there.
    """
    path = Path(path)
    if not path.is_dir():
        os.replace(made, path)
        return
    former = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")  # a folder is not replaced in one step
    os.rename(path, former)
    try:
        os.rename(made, path)
    except BaseException:
        os.rename(former, path)
        raise
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def locked(folder):
    """Keeps other processes out of a folder, until it is left or the process ends, however that happens.

    Args:
        folder: str or Path; it exists.

    Raises:
        BlockingIOError: if another process, or another place of this one, holds it. Windows has no such lock.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"{folder}: another process is writing there; wait for it, or take another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


def printable(text):
    """A file name, or a text that holds one, as it may be shown on a terminal, in a table or on a page.

    A file name may hold line breaks, escape codes that act on the terminal, marks that turn the direction of writing,
    and bytes that are no text. They come out as `\\n`, `\\x1b`, `\\u202e`, `\\xff`: one line, and nothing acts.

    Args:
        text: str or Path.

    Returns:
        str in which every character is printable (`str.isprintable`); other text comes back as it is.
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in str(text))


def _escaped(letter):
    if "\udc80" <= letter <= "\udcff":  # how Python holds a byte that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def reason(error):
    """What an exception says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
