"""Reads and writes PyTorch's files: state_dicts of the authors' networks.

`torch.load(weights_only=True)` reads the tensors. Before it runs, the pickle is looked through, because a few bytes can
take torch hours or all memory (nested tuples as a key of a dict, sizes of storages that the file does not hold).

Names: `ResnetGenerator` and `NLayerDiscriminator` of https://github.com/KupynOrest/DeblurGAN, `models/networks.py`.
"""

import collections
import contextlib
import io
import pickletools
import re
import zipfile
from pathlib import Path

import numpy as np

from deblur_gan.files import reason
from deblur_gan.weights import hdf5
from deblur_gan.weights.hdf5 import BadWeights, Layer

# The largest pickle that is read, in bytes. That of a full-size generator has 14 KiB.
_MAX_PICKLE = 2**18
# The largest file, in bytes: a generator of `hdf5.MAX_NUMBERS` in float64.
_MAX_FILE = 8 * hdf5.MAX_NUMBERS

# From the axes (out, in, h, w) of PyTorch's convolution to (h, w, in, out) of Keras', and from (in, out, h, w) of its
# transposed convolution to (h, w, out, in); then the other direction.
_TO_KERAS, _TO_PYTORCH = (2, 3, 1, 0), (3, 2, 0, 1)

# The first number in the first format of torch.save; the only integer that may be larger than the file.
_MAGIC = 0x1950A86A20F9469CFC6C

_GLOBALS = re.compile(r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch \w+Storage")
# The operations after which the top of the stack is a name, a text or a number.
_PLAIN = re.compile(r"GLOBAL|\w*(STRING|UNICODE)\w*|BININT\d?|LONG1|BINFLOAT|NONE|NEW(TRUE|FALSE)")
_PREFIX = re.compile(r"^(module\.)+")  # of DataParallel, once for each time that it was wrapped
_KNOWN = re.compile(r"model\.\d+\.(conv_block\.\d+\.)?(weight|bias|running_mean|running_var|num_batches_tracked)")


def recognized(path):
    """Returns True if a file begins as `torch.save` writes it, with a pickle or an archive of one."""
    with contextlib.suppress(OSError):
        if Path(path).is_file():
            with open(path, "rb") as file:
                beginning = file.read(512)
            return beginning[:1] == b"\x80" or (beginning[:4] == b"PK\3\4" and b"data.pkl" in beginning)
    return False


def read_layers(path):
    """Lists the convolutions of a state_dict of the authors' generator or critic, in either format of `torch.save`.

    They are `Layer` in the order of the forward pass, each with kernel and bias in Keras' order of axes. Raises
    `BadWeights` if PyTorch is not installed, or the file is damaged or hostile, or holds something else.
    """
    torch = _import_torch()
    try:
        size = Path(path).stat().st_size
        if size > _MAX_FILE:
            raise BadWeights(f"has {size} bytes; PyTorch files of at most {_MAX_FILE} are read")
        with open(path, "rb") as file:
            for pickle in _pickles(file, size):
                _check_pickle(pickle, size)
    except BadWeights:
        raise
    except OSError as error:
        raise BadWeights(f"cannot be read ({error.strerror or error})") from None
    # zipfile and pickletools fail on damage with many kinds of errors.
    except Exception as error:
        raise BadWeights(f"damaged or not readable ({reason(error)})") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds too, and its messages about sizes are often wrong
        raise BadWeights("damaged, or not a state_dict of tensors; nothing in it was executed") from None
    return _layers(torch, state)


def convolutions(network, n_blocks=0, dropout=True):
    """Names the convolutions of the authors' generator or critic, in the order of the forward pass.

    With dropout, the second convolution of a residual block stands one place later.
    """
    if network == "critic":
        return [f"model.{place}" for place in (0, 2, 5, 8, 11)]
    blocks = range(10, 10 + n_blocks)
    inside = [f"model.{block}.conv_block.{place}" for block in blocks for place in (1, 6 if dropout else 5)]
    return ["model.1", "model.4", "model.7", *inside, *(f"model.{blocks.stop + place}" for place in (0, 3, 7))]


def file_of(names, layers):
    """Returns the bytes of a state_dict in the first format of `torch.save`, which every version of PyTorch reads.

    `layers` lists kernel and bias of each layer: float32 arrays in Keras' order of axes.
    """
    torch = _import_torch()
    state = collections.OrderedDict()
    for name, (kernel, bias) in zip(names, layers, strict=True):
        state[f"{name}.weight"] = torch.tensor(kernel.transpose(_TO_PYTORCH).copy())
        state[f"{name}.bias"] = torch.tensor(bias)
    content = io.BytesIO()
    torch.save(state, content, _use_new_zipfile_serialization=False)
    return content.getvalue()


class Array:
    """A tensor of a file: `shape` in Keras' order of axes, and `read`."""

    def __init__(self, name, tensor):
        self._name, self._tensor = name, tensor.permute(_TO_KERAS) if tensor.ndim == 4 else tensor
        self.shape = tuple(self._tensor.shape)

    def read(self):
        """Returns the numbers as a float32 array; raises `BadWeights` if one is not finite."""
        with np.errstate(over="ignore"):
            values = self._tensor.double().numpy().astype(np.float32, order="C")
        if not np.isfinite(values).all():
            raise BadWeights(f"{self._name!r} holds numbers that are not finite")
        return values


def _import_torch():
    try:
        import torch
    except ImportError:
        raise BadWeights("PyTorch files need PyTorch, which is not installed; pip install torch") from None
    return torch


def _pickles(file, size):
    """Yields a stream at the beginning of each pickle of a file, up to which the former must have been read."""
    if file.read(4) != b"PK\3\4":  # the format until PyTorch 1.6: five pickles, then the storages
        file.seek(0)
        yield from 5 * [io.BytesIO(file.read(_MAX_PICKLE))]
        return
    # The format since then: an archive of a pickle and of one entry for each storage, not packed.
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                raise BadWeights("an archive packed in a way that PyTorch does not use")
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        if archive.getinfo(name).file_size > _MAX_PICKLE:
            raise BadWeights(f"its pickle has more than {_MAX_PICKLE} bytes")
        yield io.BytesIO(archive.read(name))


def _check_pickle(stream, size):
    """Refuses a pickle that names anything but tensors, or that could take much more time or memory than its size."""
    last, plain = "", set()
    for operation, argument, _ in pickletools.genops(stream):
        name = operation.name
        if name == "PROTO" and argument != 2:
            raise BadWeights(f"a pickle of protocol {argument}; torch.save writes protocol 2")
        if name == "GLOBAL" and not _GLOBALS.fullmatch(argument):
            raise BadWeights(f"names {argument[:80]!r}; only tensors are read, and nothing is executed")
        if name.startswith(("BININT", "LONG1")) and not 0 <= argument <= max(size, 2**16) and argument != _MAGIC:
            raise BadWeights(f"declares a size of {argument}, but the file has only {size} bytes")
        if name in ("BINPUT", "LONG_BINPUT"):
            (plain.add if _PLAIN.fullmatch(last) else plain.discard)(argument)
            continue
        # Tuples, lists and dicts that are used again and again can stand for 2^90 objects.
        if "GET" in name and argument not in plain:
            raise BadWeights(
                "uses an object twice that is neither text nor a number; no state_dict of these networks does"
            )
        last = name


def _layers(torch, state):
    """Lists the convolutions of a state_dict, which must be those of one of the authors' networks and nothing else."""
    wanted = "a state_dict of the authors' ResnetGenerator or NLayerDiscriminator is required"
    if not isinstance(state, dict) or not state:
        raise BadWeights(f"a PyTorch file, but {wanted}")
    tensors = {}
    for key, value in state.items():
        name = _PREFIX.sub("", str(key), count=1)
        if not isinstance(value, torch.Tensor) or not _KNOWN.fullmatch(name):
            raise BadWeights(f"a PyTorch file that holds {str(key)[:80]!r}; {wanted}")
        if name.endswith("weight") and value.ndim == 1:
            raise BadWeights(
                f"{name[:80]!r} belongs to a normalization with weights (--norm batch); of PyTorch files only those "
                "with --norm instance are read"
            )
        # Until version 0.4, PyTorch stored statistics of instance normalizations, which nothing used.
        if name.endswith((".weight", ".bias")):
            tensors[name] = value
    blocks = {name.split(".")[1] for name in tensors if ".conv_block." in name}
    network = "critic" if "model.0.weight" in tensors else "generator"
    names = convolutions(network, len(blocks), any(".conv_block.6." in name for name in tensors))
    required = [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    for different, what in ((set(required) - tensors.keys(), "lacks"), (tensors.keys() - required, "also holds")):
        if different:
            inside = f" with {len(blocks)} residual blocks" if network == "generator" else ""
            raise BadWeights(f"looks like the authors' {network}{inside}, but {what} {min(different)[:80]!r}")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise BadWeights(f"{name!r} is not a tensor of floating-point numbers")
    return [Layer(name, [Array(key, tensors[key]) for key in (f"{name}.weight", f"{name}.bias")]) for name in names]
