"""PyTorch's files: the one guarded reader and the one writer of a state_dict of the authors' networks.

Torch is not needed: a reader of tensors alone is short, and nothing else here is worth a dependency of gigabytes. The
pickle is run by our own few operations because Python's, however restricted, takes any time and memory for a few bytes
(nested tuples as a key, a memo of 2^32 places). Here all values stem from the bytes of the file, every size is known
and lies inside the file before memory is taken for it, and what is named beside tensors ends the reading.

Names: `ResnetGenerator` and `NLayerDiscriminator` of https://github.com/KupynOrest/DeblurGAN, `models/networks.py`.
"""

import contextlib
import functools
import io
import math
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deblur_gan.files import printable
from deblur_gan.weights import hdf5
from deblur_gan.weights.hdf5 import BadFile, Layer

# What may be read of a file's structure, in bytes. A full-size generator takes 14 KiB.
_BUDGET = 2**18
_BLOCK = 2**20

# (out, in, h, w) of PyTorch's convolution to (h, w, in, out) of Keras', and as well (in, out, h, w) of its transposed
# convolution to (h, w, out, in); then the way back.
_TO_KERAS, _TO_PYTORCH = (2, 3, 1, 0), (3, 2, 0, 1)

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch DoubleStorage": "<f8",
    "torch LongStorage": "<i8",
}

_PREFIX = re.compile(r"(module\.)+")  # of DataParallel, once for each time that it was wrapped
_KNOWN = re.compile(r"model\.\d+\.(conv_block\.\d+\.)?(weight|bias|running_mean|running_var|num_batches_tracked)")


class _Global(NamedTuple):
    name: str


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def recognized(path):
    """Says whether a file begins as `torch.save` writes it, a pickle or an archive of one; False if it is none."""
    with contextlib.suppress(OSError):
        if Path(path).is_file():
            with open(path, "rb") as file:
                beginning = file.read(512)
            return beginning[:1] == b"\x80" or (beginning[:4] == b"PK\3\4" and b"data.pkl" in beginning)
    return False


@contextlib.contextmanager
def opened(path):
    """Opens a state_dict of the authors' generator or critic, of either format of `torch.save`.

    Args:
        path: str or Path.

    Yields:
        list of `hdf5.Layer`, the convolutions in the order of the forward pass, each with kernel and bias in Keras'
        order of axes (`Array`, not read yet).

    Raises:
        BadFile: also from `Array.read`: if the file is damaged or hostile, or holds something else.
    """
    with contextlib.ExitStack() as stack:
        with _in_one_line(path):
            file = stack.enter_context(_Bounded(path))
            archived = file.read(4) == b"PK\3\4"
            state, content = (_archived if archived else _in_a_row)(path, file)
            found = _layers(path, state, content)
        yield found


def convolutions(network, n_blocks=0, dropout=True):
    """Names the convolutions of the authors' networks.

    Args:
        network: "generator" or "critic".
        n_blocks: int, residual blocks of a generator.
        dropout: bool, whether its blocks have a dropout layer, which moves their second convolution by one place.

    Returns:
        list of str, in the order of the forward pass.
    """
    if network == "critic":
        return [f"model.{place}" for place in (0, 2, 5, 8, 11)]
    blocks = range(10, 10 + n_blocks)
    inside = [f"model.{block}.conv_block.{place}" for block in blocks for place in (1, 6 if dropout else 5)]
    return ["model.1", "model.4", "model.7", *inside, *(f"model.{blocks.stop + place}" for place in (0, 3, 7))]


def file_of(names, layers):
    """Makes a state_dict in the first format of `torch.save`, which every version of PyTorch reads.

    Args:
        names: list of str, of the layers; see `convolutions`.
        layers: list of pairs, kernel and bias of each layer: float32 arrays in Keras' order of axes.

    Returns:
        bytes.
    """
    tensors = {}
    for name, (kernel, bias) in zip(names, layers, strict=True):
        tensors |= {f"{name}.weight": kernel.transpose(_TO_PYTORCH), f"{name}.bias": bias}
    entries = b"".join(_text(key) + _pickled_tensor(str(n), array) for n, (key, array) in enumerate(tensors.items()))
    keys = [str(number) for number in range(len(tensors))]
    system = {"protocol_version": _PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(value, 2) for value in (_MAGIC, _PROTOCOL, system)]
    parts += [b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u.", pickle.dumps(keys, 2)]
    parts += [struct.pack("<q", array.size) + array.astype("<f4").tobytes() for array in tensors.values()]
    return b"".join(parts)


def _pickled_tensor(key, array):
    strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
    storage = (
        b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(key) + _text("cpu") + _int(array.size) + b"NtQ"
    )
    sides = b"".join(b"(" + b"".join(map(_int, numbers)) + b"t" for numbers in (array.shape, strides))
    return b"ctorch._utils\n_rebuild_tensor\n(" + storage + _int(0) + sides + b"tR"


def _text(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _int(number):
    return b"J" + struct.pack("<i", number)


class Array:
    """A tensor in a file, in Keras' order of axes: `shape`, and `read`."""

    def __init__(self, path, name, tensor, content):
        self._path, self._name, self._content = path, name, content
        self._storage, self._offset, shape, strides = tensor
        axes = _TO_KERAS if len(shape) == 4 else range(len(shape))
        self.shape, self._strides = (tuple(numbers[axis] for axis in axes) for numbers in (shape, strides))
        last = self._offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        if self._storage.dtype.kind != "f":
            raise BadFile(f"{path}: {name!r} is not a tensor of floating-point numbers")
        if not 0 < math.prod(shape) <= self._storage.size or last >= self._storage.size:
            raise BadFile(f"{path}: {name!r} declares shape {shape} but holds {self._storage.size} numbers")

    def read(self):
        """Reads the numbers.

        Returns:
            float32 array, all finite.

        Raises:
            BadFile: if there are more than `MAX_NUMBERS`, or one is damaged or not finite.
        """
        if self._storage.size > hdf5.MAX_NUMBERS:
            raise BadFile(
                f"{self._path}: {self._name!r} is one of {self._storage.size} numbers; "
                f"at most {hdf5.MAX_NUMBERS} are read"
            )
        with _in_one_line(self._path):
            numbers = np.frombuffer(self._content(self._storage), self._storage.dtype)[self._offset :]
        strides = [stride * numbers.itemsize for stride in self._strides]
        with np.errstate(over="ignore"):
            values = np.lib.stride_tricks.as_strided(numbers, self.shape, strides).astype(np.float32, order="C")
        if not np.isfinite(values).all():
            raise BadFile(f"{self._path}: {self._name!r} holds numbers that are not finite")
        return values


def _layers(path, state, content):
    """The convolutions in a state_dict, which must be those of one of the authors' networks and nothing else."""
    wanted = "a state_dict of the authors' ResnetGenerator or NLayerDiscriminator is required"
    if not isinstance(state, dict) or not state:
        raise BadFile(f"{path}: a PyTorch file, but {wanted}")
    tensors = {}
    for key, value in state.items():
        name = _PREFIX.sub("", key, count=1) if key.startswith("module.") else key
        if not isinstance(value, _Tensor) or not _KNOWN.fullmatch(name):
            raise BadFile(f"{path}: a PyTorch file that holds {key[:80]!r}; {wanted}")
        tensors[name] = value
    scaled = [name for name, tensor in tensors.items() if name.endswith("weight") and len(tensor.shape) == 1]
    if scaled:
        raise BadFile(
            f"{path}: {scaled[0][:80]!r} belongs to a normalization with weights (--norm batch); of PyTorch files "
            "those with --norm instance are read: meudec, which has batch normalization, is another network"
        )
    # Until version 0.4, PyTorch stored statistics of instance normalizations, which nothing used.
    used = {name: tensor for name, tensor in tensors.items() if name.endswith((".weight", ".bias"))}
    blocks = {name.split(".")[1] for name in used if ".conv_block." in name}
    network = "critic" if "model.0.weight" in used else "generator"
    names = convolutions(network, len(blocks), any(".conv_block.6." in name for name in used))
    required = dict.fromkeys(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))
    for left_out, what in ((required.keys() - used, "lacks"), (used.keys() - required, "also holds")):
        if left_out:
            inside = f" with {len(blocks)} residual blocks" if network == "generator" else ""
            raise BadFile(f"{path}: looks like the authors' {network}{inside}, but {what} {min(left_out)[:80]!r}")
    arrays = {name: Array(path, name, used[name], content) for name in required}
    return [Layer(name, [arrays[f"{name}.weight"], arrays[f"{name}.bias"]]) for name in names]


# ---- the two formats: each function returns the pickled object and a function that reads a storage


def _in_a_row(path, file):
    """The format until version 1.6: five pickles, then the storages, each after its size."""
    file.seek(0)
    head, storages = io.BytesIO(file.read(_BUDGET)), {}
    if _unpickled(path, head, storages) != _MAGIC:
        raise BadFile(f"{path}: a pickle, but not one of torch.save")
    protocol, system = _unpickled(path, head, storages), _unpickled(path, head, storages)
    if protocol != _PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BadFile(f"{path}: written by torch.save of another version or on a machine of another byte order")
    state, keys = _unpickled(path, head, storages), _unpickled(path, head, storages)
    places, place, end = {}, head.tell(), file.seek(0, io.SEEK_END)
    for key in keys:
        storage = storages[_text_of(key)]
        file.seek(place)
        (size,) = struct.unpack("<q", file.read(8))
        places[key] = place + 8
        place += 8 + storage.size * storage.dtype.itemsize
        if size != storage.size or place > end:
            raise BadFile(f"{path}: damaged or cut off: {end} bytes of at least {place}")

    @functools.cache
    def content(storage):
        file.seek(places[storage.key])
        return _read(file, storage.size * storage.dtype.itemsize)

    return state, content


def _archived(path, file):
    """The format since version 1.6: an archive of a pickle and of one entry for each storage, not packed."""
    archive = zipfile.ZipFile(file)
    name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
    folder = name.removesuffix("data.pkl")

    def entry(name, size=None):
        found = archive.getinfo(folder + name)
        if found.compress_type != zipfile.ZIP_STORED:
            raise BadFile(f"{path}: packed in a way that PyTorch does not use")
        if size is None and found.file_size > _BUDGET:
            raise BadFile(f"{path}: {name} has {found.file_size} bytes; at most {_BUDGET} are read")
        if size is not None and found.file_size != size:
            raise BadFile(f"{path}: the storage {name[:80]!r} has {found.file_size} bytes instead of {size}")
        with archive.open(found) as member:  # which checks the sum, and that nothing is missing
            return _read(member, found.file_size)

    @functools.cache
    def content(storage):
        return entry(f"data/{storage.key}", storage.size * storage.dtype.itemsize)

    if f"{folder}byteorder" in archive.namelist() and entry("byteorder") != b"little":
        raise BadFile(f"{path}: written on a machine of another byte order")
    return _unpickled(path, io.BytesIO(entry("data.pkl")), {}), content


def _read(file, size):
    """Reads `size` bytes, or fewer where the file ends, block by block: memory is taken for what is there alone."""
    blocks = []
    while size and (block := file.read(min(size, _BLOCK))):
        blocks.append(block)
        size -= len(block)
    if size:
        raise EOFError("the file ends too early")
    return b"".join(blocks)


class _Bounded(io.FileIO):
    """A file of which no more than a block is read at once, so that no directory of an archive is larger."""

    def read(self, size=-1):
        content = super().read(_BLOCK + 1 if size < 0 else min(size, _BLOCK + 1))
        if len(content) > _BLOCK:
            raise BadFile(f"{self.name}: an archive of too many files")
        return content


@contextlib.contextmanager
def _in_one_line(path):
    try:
        yield
    except BadFile:
        raise
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror or error})") from None
    # pickletools and zipfile meet damage with whichever error they trip over.
    except (
        *(ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, RuntimeError, StopIteration),
        *(TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error),
    ) as error:
        said = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        raise BadFile(f"{path}: damaged or not readable ({said})") from None


# ---- the pickle


def _unpickled(path, stream, storages):
    """Runs a pickle that makes tensors, and dicts, lists and tuples of them, of text and of numbers.

    Args:
        path: for messages.
        stream: binary stream; it is left after the pickle. What it holds bounds the time and the memory.
        storages: dict to which the storages are added that it names, by their keys.

    Returns:
        The object.
    """
    stack, marked, memo = [], [], {}

    def refuse(what):
        raise BadFile(f"{path}: {what}; tensors alone are read, and nothing is executed")

    def since_mark():
        nonlocal stack
        items, stack = stack, marked.pop()
        return items

    for operation, argument, _ in pickletools.genops(stream):
        match operation.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marked.append(stack)
                stack = []
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(operation.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":  # the last two of Python 2
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(operation.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                items = tuple(since_mark())  # which changes the stack
                stack.append(items)
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS":
                items = [stack.pop()] if operation.name == "APPEND" else since_mark()
                list.extend(stack[-1], items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS":
                items = [stack.pop(-2), stack.pop()] if operation.name == "SETITEM" else since_mark()
                dict.update(stack[-1], _dict(zip(items[::2], items[1::2], strict=True)))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL" | "STACK_GLOBAL":
                name = argument or f"{_text_of(stack.pop(-2))} {_text_of(stack.pop())}"
                if name not in _CALLED and name not in _DTYPES:
                    refuse(f"names {name[:80]!r}")
                stack.append(_Global(name))
            case "BINPERSID":
                storage = _storage(*stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    refuse(f"names the storage {storage.key[:80]!r} twice with other sizes")
                stack.append(storage)
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop().name
                stack.append(_CALLED[called](*arguments))
            case "BUILD":
                stack.pop()  # the versions of the modules
            case other:
                refuse(f"holds the operation {other}")
    raise ValueError("a pickle without an end")


def _text_of(value):
    if type(value) is not str:
        raise ValueError("text is required")
    return value


def _dict(pairs):
    # The keys are text: to hash a tuple of tuples takes a time without bound.
    return {_text_of(key): value for key, value in pairs}


def _ordered_dict(*pairs):
    found = {}
    for given in pairs[:1]:  # by Python 2
        found = _dict(given)
        list.clear(given)  # so that a list that is handed over again and again costs no time
    return found


def _storage(kind, dtype, key, location, size, view=None):
    if kind != "storage" or view is not None:
        raise ValueError("a storage of another kind")
    return _Storage(_text_of(key), np.dtype(_DTYPES[dtype.name]), _natural(size))


def _tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > 8:
        raise ValueError("a tensor of another kind")
    return _Tensor(storage, _natural(offset), tuple(map(_natural, shape)), tuple(map(_natural, strides)))


def _natural(number):
    if type(number) is not int or not 0 <= number < 2**62:
        raise ValueError("a size that is not a number")
    return number


_CALLED = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
}
