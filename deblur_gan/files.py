"""Files on disk: everything that is written here appears whole or not at all."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path):
    """Lets a file appear whole or not at all: it is written under a temporary name beside `path`, then renamed.

    Args:
        path: str or Path; its folder exists.

    Yields:
        Path with the extension of `path`, to be written; on leaving without an error it takes the place of `path`.

    Raises:
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp makes private files; a result has the rights that any new file here would have.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_bytes(path, content):
    """Writes bytes-like `content` to `path`, whole or not at all; see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
