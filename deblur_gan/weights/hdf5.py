"""Reads and writes HDF5 as Keras writes it; safe on damaged and hostile files.

The reader covers the part of the format that Keras uses. It is our own for three reasons. libhdf5 can hang or crash on
a damaged file, and no signal ends it. A child process around it takes a third of a second for each file. Readers in
Python trust the sizes in a file (31 s and 6 GB for one of 3 MB). Here each step costs part of a budget, each address
lies inside the file, and memory is allocated only for numbers that exist.

Format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
"""

import contextlib
import io
import math
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
# The IEEE formats: the positions of a number's bits in a datatype message.
_FLOATS = {
    (2, 0, 16, 10, 5, 0, 10, 15): "f2",
    (4, 0, 32, 23, 8, 0, 23, 127): "f4",
    (8, 0, 64, 52, 11, 0, 52, 1023): "f8",
}
_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
_ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE = 0x0C, 0x10, 0x11
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
def opened(path):
    """Opens an HDF5 file, or the one inside a `.keras` archive.

    Nothing in the file is executed, and nothing outside of it is read. Time is bounded, and so is memory by the size
    of the file.

    Args:
        path: str or Path.

    Yields:
        `Group`, the root.

    Raises:
        BadWeights: also from within the `with` block: if the file is missing, damaged or hostile.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise BadWeights(f"{path}: is a folder; a file of weights is required")
        if not path.is_file():
            raise BadWeights(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            if file.read(4) == b"PK\3\4":
                file = _member_of_archive(path)
            yield _File(path, file).root()
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read ({error.strerror or error})") from None
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise BadWeights(f"{path}: damaged or not readable ({error})") from None


def layers(root):
    """Lists the layers of a file in the layout of Keras 2, in the order of the forward pass.

    Args:
        root: `Group`, the file's.

    Returns:
        list of `Layer` with weights, the arrays not read yet; None if the file has another layout.

    Raises:
        BadWeights: if something is missing or damaged.
    """
    if root.strings("layer_names") is None and "model_weights" in root:
        root = root.group("model_weights")
    names = root.strings("layer_names")
    if names is None:
        return None
    found = []
    for name in names:
        group = root.group(name)
        weights = group.strings("weight_names") or []
        if weights:
            found.append(Layer(name, [group.array(weight) for weight in weights]))
    return found


def file_of(layers, attributes):
    """Makes a file in the layout of Keras 2, which Keras 2 and Keras 3 read with `load_weights`.

    Args:
        layers: list of `Layer`, with or without weights; each array is a pair of its name and a NumPy array.
        attributes: dict of str, of the file.

    Returns:
        bytes.
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
        self._file = file
        self._messages = file.messages(address)
        self._links = None

    def __contains__(self, name):
        return name in self._members()

    def __len__(self):
        return len(self._members())

    def group(self, path):
        """Returns the group at `path` below this one; raises `BadWeights` if there is none."""
        group = self
        for part in _parts(path):
            group = Group(self._file, group._address(part, path))
        return group

    def array(self, path):
        """Returns the `Array` at `path` below this group; raises `BadWeights` if there is no usable one."""
        *groups, name = _parts(path) or self._file.refuse(f"nothing at {path!r} where weights are required")
        group = self.group("/".join(groups))
        return self._file.array(path, group._address(name, path))

    def strings(self, name):
        """Returns the list of str in an attribute, None if there is no such attribute.

        Keras splits a long list into `name0`, `name1` and so on.
        """
        attributes = self._attributes()
        pieces = [name] if name in attributes else []
        while pieces[:1] != [name] and f"{name}{len(pieces)}" in attributes:
            pieces.append(f"{name}{len(pieces)}")
        found = [string for piece in pieces for string in self._texts(piece, attributes[piece])]
        if len(found) > MAX_LAYERS:
            self._file.refuse(f"declares {len(found)} names in {name}; at most {MAX_LAYERS} are read")
        return found if pieces else None

    def _attributes(self):
        found = {}
        for kind, body in self._messages:
            if kind == _ATTRIBUTE:
                version, name_size, type_size, space_size = struct.unpack_from("<BxHHH", body)
                # Before version 3 the parts are padded to 8 bytes.
                start, unit = {1: (8, 8), 2: (8, 1), 3: (9, 1)}.get(version) or self._file.damaged("an attribute")
                parts = []
                for size in (name_size, type_size, space_size):
                    parts.append(body[start : start + size])
                    start += -(-size // unit) * unit
                found[parts[0].rstrip(b"\0").decode()] = (*parts[1:], body[start:])
        return found

    def _texts(self, name, attribute):
        datatype, dataspace, data = attribute
        count = math.prod(_shape(self._file, dataspace))
        if count == 0:
            return []  # of any type, because NumPy makes an empty list floating-point numbers
        kind, size = datatype[0] & 15, struct.unpack_from("<I", datatype, 4)[0]
        if kind in (3, 9) and count * size > len(data):
            self._file.damaged(f"the attribute {name}")
        if kind == 3 and size:
            strings = [data[start : start + size].split(b"\0")[0] for start in range(0, count * size, size)]
        elif kind == 9 and datatype[1] & 15 == 1:
            strings = [self._file.text(*struct.unpack_from("<IQI", data, 16 * number)) for number in range(count)]
        else:
            self._file.refuse(f"{name} are not strings")
        return [string.decode() for string in strings]

    def _address(self, name, path):
        address = self._members().get(name)
        if address is None:
            self._file.refuse(f"{'a link' if name in self else 'nothing'} at {path!r} where weights are required")
        return address

    def _members(self):
        if self._links is None:
            tables = [body for kind, body in self._messages if kind == _SYMBOL_TABLE]
            if not tables:
                self._file.refuse("not a group as Keras writes it where weights are required")
            self._links = self._file.links(*struct.unpack_from("<QQ", tables[0]))
        return self._links


class Array:
    """An array of floating-point numbers in a file: `shape`, `size`, and `read`."""

    def __init__(self, file, name, address):
        self._file, self._name = file, name
        messages = dict(reversed(file.messages(address)))
        if not {_DATASPACE, _DATATYPE, _LAYOUT} <= messages.keys():
            file.refuse(f"{name!r} is not an array")
        self._dtype = _float(messages[_DATATYPE]) or file.refuse(f"{name!r} is not an array of floating-point numbers")
        self.shape = _shape(file, messages[_DATASPACE])
        self.size = math.prod(self.shape)
        version, layout = struct.unpack_from("<BB", messages[_LAYOUT])
        if _EXTERNAL in messages or layout == 3:
            file.refuse(f"{name!r} keeps its numbers in another file, which is not read")
        if version != 3 or layout > 3:
            file.refuse(f"{name!r} is stored in a way that Keras does not use")
        body = messages[_LAYOUT][2:]
        self._filters = _filters(file, messages[_FILTERS]) if _FILTERS in messages else []
        self._chunks = self._content = None
        if layout == 2:
            self._chunk_shape, self._chunks = self._index(body)
            self.stored = sum(stored for _, _, stored, _ in self._chunks)
            return
        if layout == 1:
            self._address, self.stored = struct.unpack_from("<QQ", body)
        else:
            (size,) = struct.unpack_from("<H", body)
            self._content = body[2 : 2 + size]
            self._address, self.stored = None, len(self._content)
        if not self.size:
            self._content = b""
        elif self.stored < self.size * self._dtype.itemsize or self._address == _UNDEFINED:
            self._hollow()

    def read(self):
        """Reads the numbers.

        Returns:
            float32 array, all finite.

        Raises:
            BadWeights: if there are more than `MAX_NUMBERS`, or one is damaged or not finite.
        """
        if self.size > MAX_NUMBERS:
            self._file.refuse(f"{self._name!r} declares {self.size} numbers; at most {MAX_NUMBERS} are read")
        if self._chunks is None:
            content = self._content
            if content is None:
                content = self._file.content(self._address, self.size * self._dtype.itemsize)
            values = np.frombuffer(content, self._dtype, self.size).reshape(self.shape)
        else:
            values = np.empty(self.shape, self._dtype)
            for offset, address, stored, skipped in self._chunks:
                place = tuple(slice(start, start + side) for start, side in zip(offset, self._chunk_shape, strict=True))
                # A chunk at the border is stored whole.
                inside = tuple(slice(side) for side in values[place].shape)
                values[place] = self._chunk(self._file.content(address, stored), skipped)[inside]
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            self._file.refuse(f"{self._name!r} holds numbers that are not finite")
        return values

    def _hollow(self):
        self._file.refuse(f"{self._name!r} declares shape {self.shape} but holds fewer numbers")

    def _index(self, body):
        """Returns the shape of a chunk, and for each chunk its offset, address, stored size, and skipped filters."""
        rank, index = struct.unpack_from("<BQ", body)
        sides = struct.unpack_from(f"<{rank}I", body, 9)[:-1]
        if len(sides) != len(self.shape) or not all(
            0 < chunk <= side for chunk, side in zip(sides, self.shape, strict=True)
        ):
            self._file.refuse(f"{self._name!r} has shape {self.shape} in chunks of {sides}")
        if index == _UNDEFINED:
            self._hollow()
        chunks = {
            offset: (offset, address, stored, skipped)
            for (stored, skipped, *offset), address in self._file.tree(index, 1, f"<II{rank}Q")
            for offset in [tuple(offset[:-1])]
        }
        required = math.prod(-(-side // chunk) for side, chunk in zip(self.shape, sides, strict=True))
        grid = [range(0, side, chunk) for side, chunk in zip(self.shape, sides, strict=True)]
        if len(chunks) != required or any(start not in r for at in chunks for start, r in zip(at, grid, strict=True)):
            self._hollow()
        return sides, list(chunks.values())

    def _chunk(self, content, skipped):
        size = math.prod(self._chunk_shape) * self._dtype.itemsize
        used = [kind for number, kind in enumerate(self._filters) if not skipped >> number & 1]
        for kind in reversed(used):
            if kind == _GZIP:
                try:
                    content = zlib.decompressobj().decompress(content, size + 1)
                except zlib.error as error:
                    self._file.damaged(f"{self._name!r}: {error}")
            elif len(content) == size:
                content = np.frombuffer(content, np.uint8).reshape(self._dtype.itemsize, -1).T.tobytes()
        if len(content) != size:
            self._file.damaged(f"a chunk of {self._name!r} holds {len(content)} bytes instead of {size}")
        return np.frombuffer(content, self._dtype).reshape(self._chunk_shape)


class _File:
    """The structures of a file, each found by its address."""

    def __init__(self, path, file):
        self._path, self._file = path, file
        self._size = file.seek(0, io.SEEK_END)
        self._left = _BUDGET_OF_STRUCTURE
        self._arrays_left = self._size
        self._heaps = {}

    def root(self):
        if self.content(0, min(8, self._size)) != _SIGNATURE:
            self.refuse("not an HDF5 file; Keras weights (.h5, .weights.h5 or .keras) are required")
        start = self._part(0, 104)
        version, sizes = start[8], start[13:15]
        if version > 1:
            self.refuse("written in the format of HDF5 1.8 or later, which Keras does not use and which is not read")
        base, _, end, _, _, address = struct.unpack_from("<6Q", start, 24 + 4 * version)
        if sizes != b"\x08\x08" or base:
            self.damaged("its first bytes")
        if end > self._size:
            self.damaged(f"cut off: {self._size} bytes of {end}")
        return Group(self, address)

    def refuse(self, reason):
        raise BadWeights(f"{self._path}: {reason}")

    def damaged(self, what):
        self.refuse(f"damaged or not readable ({what})")

    def content(self, address, size):
        if address + size > self._size:
            self.damaged(f"{size} bytes at {address} of {self._size}")
        self._file.seek(address)
        return self._file.read(size)

    def _part(self, address, size):
        """Reads bytes of the structure of the file, and reduces the budget."""
        self._pay(size)
        return self.content(address, size)

    def _pay(self, size):
        self._left -= size + _PRICE_OF_A_STEP
        if self._left < 0:
            self.refuse("its structure is larger than that of any network")

    def array(self, name, address):
        array = Array(self, name, address)
        self._arrays_left -= array.stored
        if self._arrays_left < 0:
            self.refuse("its arrays overlap: together they hold more than the file")
        return array

    def messages(self, address):
        """Lists the messages of the object header at `address`: pairs of kind and content."""
        version, count, size = struct.unpack("<BxH4xI", self._part(address, 12))
        if version != 1:
            self.damaged(f"no object at {address}")
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
            self.damaged("the names of a group")
        names = self._part(address, size)
        found = {}
        for _, node in self.tree(tree, 0, "<Q"):
            signature, count = struct.unpack("<4s2xH", self._part(node, 8))
            if signature != b"SNOD":
                self.damaged("the members of a group")
            for name, header, cached in struct.iter_unpack("<QQI20x", self._part(node + 8, 40 * count)):
                end = names.find(b"\0", name)
                if end < 0:
                    self.damaged("a name")
                self._pay(end - name)
                found[names[name:end].decode()] = None if cached == 2 else header
        return found

    def tree(self, address, kind, key, level=None):
        """Yields the leaves of a B-tree: pairs of a key, unpacked by the format `key`, and an address."""
        signature, found, depth, count = struct.unpack("<4sBBH", self._part(address, 8))
        if signature != b"TREE" or found != kind or level not in (None, depth):
            self.damaged("a B-tree")
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
                self.damaged("a string")
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
            self.damaged("a string")
        return self._heaps[heap][number][:length] if length else b""


def _member_of_archive(path):
    limit = 8 * MAX_NUMBERS  # the weights, and an equal amount for the state of an optimizer
    try:
        with zipfile.ZipFile(path) as archive:
            try:
                entry = archive.getinfo("model.weights.h5")
            except KeyError:
                raise BadWeights(f"{path}: an archive without model.weights.h5; a .keras file is required") from None
            # Keras stores the file unpacked; a packed one may grow a thousandfold.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadWeights(f"{path}: packed in a way that Keras does not use")
            if entry.file_size > limit:
                raise BadWeights(f"{path}: unpacks to more than the {limit >> 20} MiB that are read at most")
            with archive.open(entry) as file:  # it ends at `file_size`
                content = io.BytesIO()
                while block := file.read(2**20):
                    content.write(block)
                return content
    except BadWeights:
        raise
    # zipfile raises many kinds of errors on damage.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError, OSError) as error:
        raise BadWeights(f"{path}: damaged or not readable ({reason(error)})") from None


def _parts(path):
    return [part for part in path.split("/") if part]


def _shape(file, dataspace):
    version, rank, _, kind = struct.unpack_from("<BBBB", dataspace)
    if version not in (1, 2) or (version == 2 and kind > 1) or rank > 32:
        file.damaged("the shape of an array")
    return struct.unpack_from(f"<{rank}Q", dataspace, 8 if version == 1 else 4)


def _float(datatype):
    """Returns the NumPy type of a datatype message, None unless it is a floating-point type of IEEE 754."""
    if datatype[0] & 15 != 1 or datatype[1] & 0x40:
        return None
    name = _FLOATS.get(struct.unpack_from("<I", datatype, 4) + struct.unpack_from("<HHBBBBI", datatype, 8))
    return name and np.dtype((">" if datatype[1] & 1 else "<") + name)


def _filters(file, body):
    version, count = struct.unpack_from("<BB", body)
    if version != 1:
        file.damaged("a filter")
    found, at = [], 8
    for _ in range(count):
        kind, name, values = struct.unpack_from("<HH2xH", body, at)
        found.append(kind)
        at += 8 + -(-name // 8) * 8 + 4 * (values + values % 2)
    if sorted(found) not in ([], [_GZIP], [_SHUFFLE], [_GZIP, _SHUFFLE]):
        file.refuse(f"packed with the filters {found}; gzip ({_GZIP}) and shuffle ({_SHUFFLE}) are read, each once")
    return found
