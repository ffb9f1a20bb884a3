"""Files on disk that appear whole or not at all, locks, and harmless messages of one line."""

import contextlib
import csv
import hashlib
import io
import os
import secrets
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# How the temporary names of this file begin; a killed process leaves such files, which `clear_unfinished` removes.
UNFINISHED = ".unfinished-"
_LONGEST_MESSAGE = 300
_A_MINUTE, _A_DAY = 60, 86_400


@contextmanager
def whole_file(path, like=None):
    """Lets a file appear whole or not at all: it is written under a temporary name next to `path`, then renamed.

    A file that is replaced keeps its permissions, and a link its place: the file it points to is replaced. A new file
    gets the permissions of the file `like`, as far as the umask allows. After an error the older file is still there.

    >>> with whole_file("scores.csv") as temporary:
    ...     n_characters = temporary.write_text("image,psnr")
    """
    path = Path(os.path.realpath(path) if os.path.islink(path) else path)
    replaced = path.exists()
    mode = 0o666 if not replaced and like is None else (path if replaced else Path(like)).stat().st_mode & 0o777
    # The temporary name is short whatever the name of `path` is: file systems allow 255 bytes.
    temporary = _unfinished(path, path.suffix[-16:])
    # `os.open` applies the umask without changing it; the umask belongs to all threads.
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # not the temporary name
    held = os.fdopen(descriptor, "wb")
    if fcntl is None:
        held.close()  # Windows renames no open file
    else:
        _lock(held)
    try:
        with contextlib.closing(held):
            if not replaced:
                mode = temporary.stat().st_mode & 0o777
            _set_mode(temporary, mode | 0o200)  # writable, until it is written
            yield temporary
            _set_mode(temporary, mode)
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _unfinished(path, extension=""):
    return path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}{extension}")


def _set_mode(path, mode):
    with contextlib.suppress(OSError):  # some file systems have no permissions
        path.chmod(mode)


def write_bytes(path, content, like=None):
    """Writes bytes-like `content` to `path`, whole or not at all; see `whole_file`."""
    with whole_file(path, like) as temporary:
        temporary.write_bytes(content)


def csv_bytes(rows):
    r"""Formats rows of cells as CSV in UTF-8.

    >>> csv_bytes([["name", "score"], ["a, b", 1.5]])
    b'name,score\n"a, b",1.5\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def sha256_of(path):
    """Returns the sha256 of the content of a file, str of 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path):
    """Makes a folder and its parents if they are missing, and checks that files can be written there.

    Raises OSError with one line that has the folder and the reason.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except FileExistsError:
        missing = os.path.islink(path) and not os.path.exists(path)
        what = "a link to a folder that is missing" if missing else "a file"
        raise FileExistsError(f"{path}: is {what}; a folder is required") from None
    except OSError as error:
        raise OSError(f"{path}: cannot be written to ({error.strerror}); take another folder") from None


def clear_unfinished(folder):
    """Removes what killed processes left in a folder under a temporary name.

    A file that a running process writes is locked, and stays. Where the file system has no locks, and for a staging
    folder, only what was last changed a day ago goes.
    """
    for path in Path(folder).glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):  # BlockingIOError, too: somebody writes it
            age = time.time() - path.stat().st_mtime
            if path.is_dir():
                if age > _A_DAY:
                    shutil.rmtree(path, ignore_errors=True)
            elif age > _A_MINUTE:
                with open(path, "rb") as file:
                    locked_now = _lock(file)
                if locked_now or age > _A_DAY:
                    path.unlink()


def _lock(file):
    """Returns whether an open file or folder is now locked for this process; some file systems have no locks.

    Raises BlockingIOError if another process holds the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (AttributeError, OSError):  # Windows; a shared file system without locks
        return False
    return True


@contextmanager
def staging_folder(path):
    """Makes a temporary folder next to `path`, for a result that `put_in_place` then moves to `path`.

    >>> with staging_folder("model") as folder:
    ...     (folder / "model").mkdir()
    ...     put_in_place(folder / "model", "model")
    """
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=Path(path).parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def put_in_place(made, path):
    """Renames a file or folder in the `staging_folder` of `path` to `path`, and replaces an older one."""
    path = Path(path)
    if not path.is_dir():
        os.replace(made, path)
        return
    former = _unfinished(path)  # a folder is not replaced in one step
    os.rename(path, former)
    try:
        os.rename(made, path)
    except BaseException:
        os.rename(former, path)
        raise
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def locked(folder):
    """Locks a folder against other processes, until the block or the process ends.

    Raises BlockingIOError if another process, or another place of this one, holds the lock. Windows and some shared
    file systems have no such lock; there it never raises.
    """
    if fcntl is None:  # Windows opens no folder
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise BlockingIOError(
            f"{folder}: another process is writing there; wait for it, or take another folder"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def printable(text):
    r"""Returns a file name, or a text that contains one, for a terminal, a table or a page.

    Line breaks, escape codes of terminals, marks that turn the direction of writing, and bytes that are no text become
    `\n`, `\x1b`, `\u202e`, `\xff`. Every character of the result is printable; other text is unchanged.
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in str(text))


def _escaped(letter):
    if "\udc80" <= letter <= "\udcff":  # how Python holds a byte that is not UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def reason(error):
    """Returns the text of an exception in one line, shortened in the middle; the name of its class if it has none."""
    return shortened(" ".join(str(error).split()), 200) or type(error).__name__


def shortened(text, longest=_LONGEST_MESSAGE):
    """Returns a text of at most `longest` characters; of a longer one the middle is left out.

    >>> shortened("abcdefghij", 7)
    'ab...ij'
    """
    half = (longest - 3) // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"
