"""Reads and writes HDF5 as Keras writes it; safe on damaged and hostile files.

The reader covers the part of the format that Keras uses. It is our own for three reasons. libhdf5 can hang or crash on
a damaged file, and no signal ends it. A child process around it takes a third of a second for each file. Readers in
Python trust the sizes in a file (31 s and 6 GB for one of 3 MB). Here each step costs part of a budget, each address
lies inside the file, and memory is allocated only for numbers that exist.

Format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import contextlib
import functools
import io
import itertools
import math
import shutil
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from deblur_gan.files import printable, reason, shortened

# The largest network that is read: six times the full-size generator.
MAX_NUMBERS = 2**26
MAX_LAYERS = 2000
# Limit in bytes for reading the structure of a file. A full-size generator uses 0.3 MiB. Each step costs some more.
_BUDGET_OF_STRUCTURE = 2**24
_PRICE_OF_A_STEP = 64

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# The IEEE formats: the size of a number and the positions of its bits, as a datatype message states them.
_FLOATS = {
    (2, 0, 16, 10, 5, 0, 10, 15): "f2",
    (4, 0, 32, 23, 8, 0, 23, 127): "f4",
    (8, 0, 64, 52, 11, 0, 52, 1023): "f8",
}
_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
_ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE = 0x0C, 0x10, 0x11
_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = range(4)
_GZIP, _SHUFFLE = 1, 2
_UNDEFINED = 2**64 - 1


class BadWeights(ValueError):
    """A file that cannot be used as weights; the message is one line with its name and the reason."""

    def __init__(self, message):
        super().__init__(shortened(printable(message)))


class Layer(NamedTuple):
    """A layer that holds weights: its name and its arrays (`Array`, NumPy arrays, or anything with a shape)."""

    name: str
    arrays: list


@contextlib.contextmanager
def naming(source):
    """Puts a path, or what else a message is about, before the message of every `BadWeights` raised inside."""
    try:
        yield
    except BadWeights as error:
        raise BadWeights(f"{source}: {error}") from None


@contextlib.contextmanager
def opened(path):
    """Opens an HDF5 file, or the one inside a `.keras` archive, and yields its root `Group`.

    Nothing in the file is executed, and nothing outside of it is read. Time is bounded, and so is memory by the size
    of the file. Raises `BadWeights`, also from within the `with` block, if the file is missing, damaged or hostile.
    """
    path = Path(path)
    with naming(path):
        try:
            if path.is_dir():
                raise BadWeights("is a folder; a file of weights is required")
            if not path.is_file():
                raise BadWeights("not a regular file" if path.exists() else "no such file")
            with path.open("rb") as file:
                if file.read(4) == b"PK\3\4":
                    file = _member_of_archive(file)
                yield _File(file).root()
        except OSError as error:
            raise BadWeights(f"cannot be read ({error.strerror or error})") from None
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise _damaged(error) from None


def layers(root):
    """Lists the layers with weights of a file in the layout of Keras 2, in the order of the forward pass.

    Their arrays are not read yet. Returns None if the file has another layout.
    """
    if root.strings("layer_names") is None and "model_weights" in root:
        root = root.group("model_weights")
    names = root.strings("layer_names")
    if names is None:
        return None
    groups = ((name, root.group(name)) for name in names)
    found = [Layer(name, list(map(group.array, group.strings("weight_names") or []))) for name, group in groups]
    return [layer for layer in found if layer.arrays]


def file_of(layers, attributes):
    """Returns the bytes of a file in the layout of Keras 2, which Keras 2 and Keras 3 read with `load_weights`.

    `layers` lists `Layer`, with or without weights; each array is a pair of its name and a NumPy array. `attributes`
    maps the file's attributes to str.
    """
    content = io.BytesIO()
    # In memory, because HDF5 crashes the process if a disk is full. Keras 2 of 2017 reads only the earliest format.
    with h5py.File(content, "w", libver="earliest") as file:
        file.attrs.update(attributes)
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = np.array([layer.name.encode() for layer in layers])
        for key in ("backend", "keras_version"):
            root.attrs[key] = attributes[key].encode()
        for name, arrays in layers:
            group = root.create_group(name)
            group.attrs["weight_names"] = np.array([weight.encode() for weight, _ in arrays], "S" if arrays else "S1")
            for weight, values in arrays:
                group.create_dataset(weight, data=values)
    return content.getvalue()


class Group:
    """A group of a file: it contains groups and arrays by name, and attributes."""

    def __init__(self, file, address):
        self._file, self._messages = file, file.messages(address)

    def __contains__(self, name):
        return name in self._members

    def __len__(self):
        return len(self._members)

    @functools.cached_property
    def _members(self):
        for kind, body in self._messages:
            if kind == _SYMBOL_TABLE:
                return self._file.links(*struct.unpack_from("<QQ", body))
        raise BadWeights("not a group as Keras writes it where weights are required")

    def group(self, path):
        """Returns the group at `path` below this one."""
        group = self
        for name in filter(None, path.split("/")):
            group = Group(self._file, group._address(name, path))
        return group

    def array(self, path):
        """Returns the `Array` at `path` below this group."""
        groups, _, name = path.rpartition("/")
        return Array(self._file, path, self.group(groups)._address(name, path))

    def _address(self, name, path):
        address = self._members.get(name)
        if address is None:
            raise BadWeights(f"{'a link' if name in self else 'nothing'} at {path!r} where weights are required")
        return address

    def strings(self, name):
        """Returns the list of str in an attribute, None if there is no such attribute.

        Keras splits a long list into `name0`, `name1` and so on.
        """
        attributes = self._attributes()
        pieces = [name] if name in attributes else []
        while pieces[:1] != [name] and f"{name}{len(pieces)}" in attributes:
            pieces.append(f"{name}{len(pieces)}")
        found = [string for piece in pieces for string in self._texts(piece, *attributes[piece])]
        if len(found) > MAX_LAYERS:
            raise BadWeights(f"declares {len(found)} names in {name}; at most {MAX_LAYERS} are read")
        return found if pieces else None

    def _attributes(self):
        """Returns the datatype, the dataspace and the data of each attribute: dict from name to three bytes."""
        found = {}
        for kind, body in self._messages:
            if kind == _ATTRIBUTE:
                version, *sizes = struct.unpack_from("<BxHHH", body)
                if version not in (1, 2, 3):
                    raise _damaged("an attribute")
                # Version 1 pads each part to 8 bytes, and version 3 begins with one byte more.
                start, unit, parts = 9 if version == 3 else 8, 8 if version == 1 else 1, []
                for size in sizes:
                    parts.append(body[start : start + size])
                    start += -(-size // unit) * unit
                found[parts[0].rstrip(b"\0").decode()] = (*parts[1:], body[start:])
        return found

    def _texts(self, name, datatype, dataspace, data):
        count = math.prod(_shape(dataspace))
        if count == 0:
            return []  # of any type, because NumPy makes an empty list floating-point numbers
        kind, size = datatype[0] & 15, struct.unpack_from("<I", datatype, 4)[0]
        if kind in (3, 9) and count * size > len(data):
            raise _damaged(f"the attribute {name}")
        if kind == 3 and size:
            strings = [data[start : start + size].split(b"\0")[0] for start in range(0, count * size, size)]
        elif kind == 9 and datatype[1] & 15 == 1:
            strings = [self._file.text(*struct.unpack_from("<IQI", data, 16 * number)) for number in range(count)]
        else:
            raise BadWeights(f"{name} are not strings")
        return [string.decode() for string in strings]


class Array:
    """An array of floating-point numbers in a file: `shape`, and `read`.

    It consists of chunks, each with its place, a function that reads its bytes, and the filters that were skipped. An
    array that is not divided is one chunk.
    """

    def __init__(self, file, name, address):
        self._file, self._name, self._filters = file, name, []
        messages = dict(reversed(file.messages(address)))
        if not {_DATASPACE, _DATATYPE, _LAYOUT} <= messages.keys():
            raise BadWeights(f"{name!r} is not an array")
        self._dtype = _float(messages[_DATATYPE])
        if self._dtype is None:
            raise BadWeights(f"{name!r} is not an array of floating-point numbers")
        self.shape = _shape(messages[_DATASPACE])
        version, layout = struct.unpack_from("<BB", messages[_LAYOUT])
        if _EXTERNAL in messages or layout == _VIRTUAL:
            raise BadWeights(f"{name!r} keeps its numbers in another file, which is not read")
        if version != 3 or layout > _VIRTUAL:
            raise BadWeights(f"{name!r} is stored in a way that Keras does not use")
        body, size = messages[_LAYOUT][2:], math.prod(self.shape) * self._dtype.itemsize
        if layout == _CHUNKED:
            self._filters = _filters(messages.get(_FILTERS, b"\1\0"))
            self._chunk_shape, self._chunks = self._index(body)
            return
        if layout == _CONTIGUOUS:
            address, stored = struct.unpack_from("<QQ", body)
            read = functools.partial(file.numbers, address, size)
        else:
            (stored,) = struct.unpack_from("<H", body)
            address, read = 0, lambda: body[2 : 2 + size]
        if size and (stored < size or address == _UNDEFINED):
            raise self._hollow()
        self._chunk_shape, self._chunks = self.shape, [(len(self.shape) * (0,), read, 0)] if size else []

    def read(self):
        """Returns the numbers as a float32 array; raises `BadWeights` if there are too many, or one is not finite."""
        size = math.prod(side or 1 for side in self.shape)  # NumPy bounds empty arrays, too
        if size > MAX_NUMBERS:
            raise BadWeights(f"{self._name!r} declares {size} numbers; at most {MAX_NUMBERS} are read")
        values = np.empty(self.shape, np.float32)
        for start, read, skipped in self._chunks:
            place = tuple(slice(*ends) for ends in zip(start, np.add(start, self._chunk_shape), strict=True))
            # A chunk at the border is stored whole.
            inside = tuple(slice(side) for side in values[place].shape)
            with np.errstate(over="ignore"):
                values[place] = self._unpacked(read(), skipped)[inside]
        if not np.isfinite(values).all():
            raise BadWeights(f"{self._name!r} holds numbers that are not finite")
        return values

    def _hollow(self):
        return BadWeights(f"{self._name!r} declares shape {self.shape} but holds fewer numbers")

    def _index(self, body):
        """Returns the shape of a chunk, and the list of chunks."""
        rank, index = struct.unpack_from("<BQ", body)
        sides = struct.unpack_from(f"<{rank}I", body, 9)[:-1]
        both = list(zip(self.shape, sides, strict=False))
        if len(sides) != len(self.shape) or not all(0 < chunk <= side for side, chunk in both):
            raise BadWeights(f"{self._name!r} has shape {self.shape} in chunks of {sides}")
        found = self._file.tree(index, 1, f"<II{rank}Q") if index != _UNDEFINED else ()
        chunks = [
            (tuple(start[:-1]), functools.partial(self._file.numbers, address, stored), skipped)
            for (stored, skipped, *start), address in found
        ]
        # The number comes first: the places of a hostile shape do not fit into memory.
        if len(chunks) != math.prod(-(-side // chunk) for side, chunk in both) or {
            start for start, *_ in chunks
        } != set(itertools.product(*(range(0, side, chunk) for side, chunk in both))):
            raise self._hollow()
        return sides, chunks

    def _unpacked(self, content, skipped):
        size = math.prod(self._chunk_shape) * self._dtype.itemsize
        used = [kind for number, kind in enumerate(self._filters) if not skipped >> number & 1]
        for kind in reversed(used):
            if kind == _GZIP:
                try:
                    content = zlib.decompressobj().decompress(content, size + 1)
                except zlib.error as error:
                    raise _damaged(f"{self._name!r}: {error}") from None
            elif len(content) == size:
                content = np.frombuffer(content, np.uint8).reshape(self._dtype.itemsize, -1).T.tobytes()
        if len(content) != size:
            raise _damaged(f"a chunk of {self._name!r} holds {len(content)} bytes instead of {size}")
        return np.frombuffer(content, self._dtype).reshape(self._chunk_shape)


class _File:
    """The structures of a file, each found by its address."""

    def __init__(self, file):
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        self._structure_left, self._numbers_left = _BUDGET_OF_STRUCTURE, self._size
        self._heaps = {}

    def root(self):
        if self._content(0, min(8, self._size)) != _SIGNATURE:
            raise BadWeights("not an HDF5 file; Keras weights (.h5, .weights.h5 or .keras) are required")
        start = self._part(0, 104)
        version, sizes = start[8], start[13:15]
        if version > 1:
            raise BadWeights(
                "written in the format of HDF5 1.8 or later, which Keras does not use and which is not read"
            )
        base, _, end, _, _, address = struct.unpack_from("<6Q", start, 24 + 4 * version)
        if sizes != b"\x08\x08" or base:
            raise _damaged("its first bytes")
        if end > self._size:
            raise _damaged(f"cut off: {self._size} bytes of {end}")
        return Group(self, address)

    def _content(self, address, size):
        if address + size > self._size:
            raise _damaged(f"{size} bytes at {address} of {self._size}")
        self._file.seek(address)
        return self._file.read(size)

    def numbers(self, address, size):
        """Reads bytes of an array; all arrays together hold no more than the file."""
        self._numbers_left -= size
        if self._numbers_left < 0:
            raise BadWeights("its arrays overlap: together they hold more than the file")
        return self._content(address, size)

    def _part(self, address, size):
        """Reads bytes of the structure of the file, and reduces the budget."""
        self._pay(size)
        return self._content(address, size)

    def _pay(self, size):
        self._structure_left -= size + _PRICE_OF_A_STEP
        if self._structure_left < 0:
            raise BadWeights("its structure is larger than that of any network")

    def messages(self, address):
        """Lists the messages of the object header at `address`: pairs of kind and content."""
        version, count, size = struct.unpack("<BxH4xI", self._part(address, 12))
        if version != 1:
            raise _damaged(f"no object at {address}")
        found, blocks = [], [(address + 16, size)]
        for start, size in blocks:  # which grows
            block = self._part(start, size)
            at = 0
            while at + 8 <= size and len(found) < count:
                kind, length, flags = struct.unpack_from("<HHB", block, at)
                body = block[at + 8 : at + 8 + length]
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", body))
                # A shared message is a pointer; Keras writes none.
                found.append((-1 if flags & 2 else kind, body))
                at += 8 + length
        return found

    def links(self, tree, heap):
        """Returns the members of a group: dict from name to address, or to None for a link."""
        signature, size, address = struct.unpack("<4s4xQ8xQ", self._part(heap, 32))
        if signature != b"HEAP":
            raise _damaged("the names of a group")
        names = self._part(address, size)
        found = {}
        for _, node in self.tree(tree, 0, "<Q"):
            signature, count = struct.unpack("<4s2xH", self._part(node, 8))
            if signature != b"SNOD":
                raise _damaged("the members of a group")
            for name, header, cached in struct.iter_unpack("<QQI20x", self._part(node + 8, 40 * count)):
                end = names.find(b"\0", name)
                if end < 0:
                    raise _damaged("a name")
                self._pay(end - name)
                found[names[name:end].decode()] = None if cached == 2 else header
        return found

    def tree(self, address, kind, key, level=None):
        """Yields the leaves of a B-tree: pairs of a key, unpacked by the format `key`, and an address."""
        signature, found, depth, count = struct.unpack("<4sBBH", self._part(address, 8))
        if signature != b"TREE" or found != kind or level not in (None, depth):
            raise _damaged("a B-tree")
        size = struct.calcsize(key)
        entries = self._part(address + 24, (size + 8) * count)
        for at in range(0, len(entries), size + 8):
            (child,) = struct.unpack_from("<Q", entries, at + size)
            if depth:
                yield from self.tree(child, kind, key, depth - 1)
            else:
                yield struct.unpack_from(key, entries, at), child

    def text(self, length, heap, number):
        """Returns the bytes of a string of variable length, object `number` of the global heap at `heap`."""
        if heap not in self._heaps:
            signature, size = struct.unpack("<4s4xQ", self._part(heap, 16))
            if signature != b"GCOL":
                raise _damaged("a string")
            content, at, objects = self._part(heap, size), 16, {}
            while at + 16 <= size:
                index, stored = struct.unpack_from("<H6xQ", content, at)
                if index == 0:  # the free space at the end
                    break
                objects[index] = content[at + 16 : at + 16 + stored]
                at += 16 + -(-stored // 8) * 8
            self._heaps[heap] = objects
        self._pay(length)
        if length > len(self._heaps[heap].get(number, b"")):
            raise _damaged("a string")
        return self._heaps[heap][number][:length] if length else b""


def _damaged(what):
    return BadWeights(f"damaged or not readable ({what})")


def _member_of_archive(archive):
    limit = 8 * MAX_NUMBERS  # the weights, and an equal amount for the state of an optimizer
    content = io.BytesIO()
    try:
        archive = zipfile.ZipFile(archive)
        if "model.weights.h5" not in archive.namelist():
            raise BadWeights("an archive without model.weights.h5; a .keras file is required")
        # Keras stores the file unpacked; a packed one may grow a thousandfold.
        entry = archive.getinfo("model.weights.h5")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadWeights("packed in a way that Keras does not use")
        if entry.file_size > limit:
            raise BadWeights(f"unpacks to more than the {limit >> 20} MiB that are read at most")
        with archive.open(entry) as file:  # it ends at `file_size`
            shutil.copyfileobj(file, content, 2**20)
    except (BadWeights, MemoryError):
        raise
    except Exception as error:  # zipfile raises many kinds of errors on damage
        raise _damaged(reason(error)) from None
    return content


def _shape(dataspace):
    version, rank, _, kind = struct.unpack_from("<BBBB", dataspace)
    if version not in (1, 2) or (version == 2 and kind > 1) or rank > 32:
        raise _damaged("the shape of an array")
    return struct.unpack_from(f"<{rank}Q", dataspace, 8 if version == 1 else 4)


def _float(datatype):
    """Returns the NumPy type of a datatype message, None unless it is a floating-point type of IEEE 754."""
    if datatype[0] & 15 != 1 or datatype[1] & 0x40:
        return None
    name = _FLOATS.get(struct.unpack_from("<IHHBBBBI", datatype, 4))
    return name and np.dtype((">" if datatype[1] & 1 else "<") + name)


def _filters(message):
    """Lists the filters of a chunked array in the order in which they were applied."""
    version, count = struct.unpack_from("<BB", message)
    if version != 1:
        raise _damaged("a filter")
    found, at = [], 8
    for _ in range(count):
        kind, name, values = struct.unpack_from("<HH2xH", message, at)
        found.append(kind)
        at += 8 + -(-name // 8) * 8 + 4 * (values + values % 2)
    if sorted(found) not in ([], [_GZIP], [_SHUFFLE], [_GZIP, _SHUFFLE]):
        raise BadWeights(
            f"packed with the filters {found}; gzip ({_GZIP}) and shuffle ({_SHUFFLE}) are read, each once"
        )
    return found
