"""Lays out the GoPro data set as folders of pairs."""

import os
import shutil
from pathlib import Path

from tqdm import tqdm

from deblur_gan.data.pairs import find_pairs
from deblur_gan.files import whole_file


def organize_gopro(dir_in, dir_out, blur="blur", show_progress=False):
    """Lays out the GoPro tree `{train,test}/<sequence>/{blur,blur_gamma,sharp}/` as `{train,test}/{A,B}/`.

    A file becomes `<sequence>_<frame>.png`, in `A/` if blurred and in `B/` if sharp. It is a hard link where the file
    system allows it (no space is taken), else a copy. Files that are there already are passed over, so an interrupted
    call is simply repeated.

    Args:
        dir_in: str or Path, the unpacked `GOPRO_Large`.
        dir_out: str or Path, made where it is missing.
        blur: "blur" or "blur_gamma", which blurred frames to take.
        show_progress: bool, a progress bar on stderr.

    Returns:
        dict of the number of pairs in "train" and "test", those that `dir_in` has.

    Raises:
        NotADirectoryError: if `dir_in` is not such a tree.
        FileNotFoundError: if a frame has no counterpart; nothing is written then.
        FileExistsError: if another file stands where one is to be written; it is left alone.
    """
    dir_in, dir_out = Path(dir_in), Path(dir_out)
    parts = [part for part in ("train", "test") if (dir_in / part).is_dir()]
    if not parts:
        raise NotADirectoryError(f"{dir_in}: holds neither train/ nor test/; the unpacked GOPRO_Large is required")
    found = {}
    for part in parts:
        found[part], unmatched = find_pairs(dir_in / part, blur)
        if unmatched:
            raise FileNotFoundError(
                f"{unmatched[0]}: has no counterpart, as {len(unmatched)} files of {dir_in / part}; "
                "is it completely unpacked?"
            )
    links = []
    for part, pairs in found.items():
        for pair in pairs:
            prefix = f"{pair.sequence}_" if pair.sequence else ""
            for letter, source in (("A", pair.blurred), ("B", pair.sharp)):
                links.append((source, dir_out / part / letter / f"{prefix}{source.name}"))
    for folder in {target.parent for _, target in links}:
        folder.mkdir(parents=True, exist_ok=True)
    for source, target in tqdm(links, desc="organizing", unit=" files", disable=not show_progress, leave=False):
        _link_or_copy(source, target)
    return {part: len(pairs) for part, pairs in found.items()}


def _link_or_copy(source, target):
    source = Path(os.path.realpath(source, strict=True))  # a data set may itself be made of links, relative ones too
    if target.exists():
        there, wanted = target.stat(), source.stat()
        if (there.st_size, there.st_mtime_ns) != (wanted.st_size, wanted.st_mtime_ns):
            raise FileExistsError(f"{target}: another file than {source} stands there; move it away first")
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with whole_file(target) as temporary:
            shutil.copy2(source, temporary)
