import os
import re
import struct
import time

import h5py
import numpy as np
import pytest
from conftest import ROOT

from deblur_gan.weights import hdf5
from deblur_gan.weights.hdf5 import BadWeights

VALUES = np.random.default_rng(0).normal(0, 1, (5, 3, 7, 4))


def read(path, name="a/b"):
    with hdf5.opened(path) as root:
        return root.array(name).read()


def refused(path, message, name="a/b"):
    with pytest.raises(BadWeights, match=message) as caught:
        read(path, name)
    said = str(caught.value)
    assert said.startswith(f"{path}: "[:148]) and len(said) <= 300 and said.isprintable()
    assert str(caught.value).isprintable()


# ---- what h5py writes is read as h5py reads it


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (2, 3, 4, 4)},
        {"chunks": (5, 3, 7, 4), "compression": "gzip"},
        {"chunks": (1, 2, 3, 1), "compression": "gzip", "shuffle": True},
        {"chunks": (2, 2, 2, 2), "shuffle": True},
    ],
    ids=str,
)
def test_arrays(tmp_path, dtype, options):
    values = VALUES.astype(dtype)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/b", data=values, **options)
    found = read(tmp_path / "x.h5")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


def test_compact_scalar_and_empty_arrays(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(VALUES.shape)
        compact = h5py.h5d.create(file.id, b"compact", h5py.h5t.NATIVE_DOUBLE, space, plist)
        compact.write(h5py.h5s.ALL, h5py.h5s.ALL, VALUES)
        file["scalar"], file["empty"] = np.float32(2.5), np.zeros((0, 3), np.float32)
    np.testing.assert_array_equal(read(tmp_path / "x.h5", "compact"), VALUES.astype(np.float32))
    assert read(tmp_path / "x.h5", "scalar") == 2.5
    assert read(tmp_path / "x.h5", "empty").shape == (0, 3)


@pytest.mark.parametrize("count", [1, 9, 700])
def test_a_group_of_any_size(tmp_path, count):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(count):
            file[f"a/{number}"] = np.float32(number)
    with hdf5.opened(tmp_path / "x.h5") as root:
        group = root.group("a")
        assert len(group) == count
        assert f"{count - 1}" in group
        assert f"{count}" not in group
        assert [group.array(str(number)).read() for number in range(count)] == list(range(count))


@pytest.mark.parametrize(
    "value",
    [["one", "drei €"], [b"one", b"two"], np.array([b"one", b"three"]), "text", b"text", [], np.array([], "S1")],
    ids=repr,
)
def test_names(tmp_path, value):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["before"], file.attrs["names"], file.attrs["after"] = 3, value, "x" * 50_000
    expected = [value] if isinstance(value, str | bytes) else list(value)
    with hdf5.opened(tmp_path / "x.h5") as root:
        assert root.strings("names") == [text.decode() if isinstance(text, bytes) else text for text in expected]
        assert root.strings("after") == ["x" * 50_000]
        assert root.strings("nothing") is None
        with pytest.raises(BadWeights, match="before are not strings"):
            root.strings("before")


def test_names_in_pieces(tmp_path):
    names = [f"layer_{number}" for number in range(11)]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for piece in range(3):
            file.attrs[f"names{piece}"] = names[4 * piece : 4 * piece + 4]
    with hdf5.opened(tmp_path / "x.h5") as root:
        assert root.strings("names") == names


def test_what_is_written_is_what_h5py_reads(tmp_path):
    layers = [hdf5.Layer("none", []), hdf5.Layer("conv", [("conv/kernel", VALUES), ("conv/bias", VALUES[0, 0, 0])])]
    attributes = {"keras_version": "3.13", "backend": "jax", "about": "ü" * 100_000}
    (tmp_path / "x.h5").write_bytes(hdf5.file_of(layers, attributes))
    with h5py.File(tmp_path / "x.h5") as file:
        assert dict(file.attrs) == attributes
        root = file["model_weights"]
        assert list(root.attrs["layer_names"]) == [b"none", b"conv"]
        assert list(root["none"].attrs["weight_names"]) == []
        np.testing.assert_array_equal(root["conv/conv/kernel"], VALUES)
    with hdf5.opened(tmp_path / "x.h5") as root:
        ((name, (kernel, bias)),) = hdf5.layers(root)
        assert name == "conv"
        assert kernel.shape == VALUES.shape
        np.testing.assert_array_equal(bias.read(), VALUES[0, 0, 0].astype(np.float32))


# ---- what is refused, and at what price


def test_what_is_no_file_of_weights(tmp_path):
    (tmp_path / "text.h5").write_text("<html>404 not found</html>")
    (tmp_path / "empty.h5").touch()
    refused(tmp_path, "is a folder; a file of weights is required")
    refused(tmp_path / "nothing.h5", "no such file")
    refused(tmp_path / f"{'x' * 300}.h5", "cannot be read")
    refused(tmp_path / "text.h5", "not an HDF5 file")
    refused(tmp_path / "empty.h5", "not an HDF5 file")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.h5")
        refused(tmp_path / "pipe.h5", "not a regular file")  # and nobody waits for what is never written


def test_the_format_of_later_libraries_is_named(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file["a/b"] = VALUES
    refused(tmp_path / "x.h5", "in the format of HDF5 1.8 or later")


@pytest.mark.parametrize("part", range(20))
def test_a_cut_file_says_how_much_is_left(tmp_path, part):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b"] = VALUES
    content = (tmp_path / "x.h5").read_bytes()
    kept = 104 + part * (len(content) - 105) // 19
    (tmp_path / "x.h5").write_bytes(content[:kept])
    refused(tmp_path / "x.h5", f"cut off: {kept} bytes of {len(content)}")


@pytest.mark.parametrize("filters", [{"fletcher32": True}, {"compression": "lzf"}])
def test_other_filters_are_refused(tmp_path, filters):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a/b", data=VALUES, **filters)
    refused(tmp_path / "x.h5", "packed with the filters .* gzip .* and shuffle .* are read")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite(tmp_path, value):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b"] = np.array([1.0, value])
    refused(tmp_path / "x.h5", "'a/b' holds numbers that are not finite")


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (2**40,)},
        {"shape": (64, 64), "chunks": (8, 8)},
        {"shape": (64, 64), "chunks": (8, 8), "compression": "gzip", "fillvalue": 1.0},
        {"shape": (4, 4), "maxshape": (None, 4), "chunks": (2**27, 4)},
    ],
    ids=str,
)
def test_sizes_that_the_file_does_not_hold_cost_nothing(tmp_path, options):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        array = file.create_dataset("a/b", dtype=np.float32, **options)
        if len(options["shape"]) == 2 and options["chunks"][0] == 8:
            array[:8] = 1  # some of the chunks
    refused(tmp_path / "x.h5", "holds fewer numbers|in chunks of")


def test_a_compressed_bomb_is_not_unpacked(tmp_path):
    """One chunk whose stream holds far more than the chunk: only one byte too many is unpacked."""
    import tracemalloc
    import zlib

    bomb = zlib.compress(bytes(2**26), 9)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        array = file.create_dataset("a/b", (8, 8), np.float32, chunks=(8, 8), compression="gzip")
        array.id.write_direct_chunk((0, 0), bomb)
    tracemalloc.start()
    try:
        refused(tmp_path / "x.h5", "a chunk of 'a/b' holds 257 bytes instead of 256")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_structures_that_lead_back_to_themselves_end(tmp_path):
    path = tmp_path / "x.h5"

    def fresh():
        with h5py.File(path, "w") as file:
            file["a/b"] = VALUES
            for number in range(40):  # more than an object header begins with
                file.attrs[f"attribute{number}"] = "x"

    fresh()
    content = path.read_bytes()
    tree = content.index(b"TREE")
    # An inner node all of whose children are the node itself, at every level that it may claim.
    path.write_bytes(
        content[:tree]
        + struct.pack("<4sBBH", b"TREE", 0, 255, 16)
        + content[tree + 8 : tree + 24]
        + 16 * struct.pack("<QQ", 0, tree)
        + content[tree + 24 + 256 :]
    )
    refused(path, "damaged or not readable")

    fresh()
    content = bytearray(path.read_bytes())
    (root,) = struct.unpack_from("<Q", content, 64)
    struct.pack_into("<H", content, root + 2, 65535)
    # The first message goes on at the first message.
    struct.pack_into("<HHBxxxQQ", content, root + 16, 0x10, 16, 0, root + 16, 2**10)
    path.write_bytes(content)
    start = time.process_time()
    refused(path, "its structure is larger than that of any network")
    assert time.process_time() - start < 10


def test_many_names_of_one_long_string_are_paid_for(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["names"] = ["x" * 2**20, *(f"{number}" for number in range(1500))]
    content = bytearray((tmp_path / "x.h5").read_bytes())
    # Length, heap and number of the first name, then of the next two.
    first = re.search(rb"\0\0\x10\0.{12}\x01\0\0\0.{12}\x01\0\0\0", content, re.DOTALL).start()
    for number in range(1, 1501):  # every name is the first
        content[first + 16 * number : first + 16 * number + 16] = content[first : first + 16]
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(BadWeights, match="its structure is larger"), hdf5.opened(tmp_path / "x.h5") as root:
        root.strings("names")


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "hostile").glob("*.h5")), ids=lambda path: path.name)
def test_hostile_files_are_refused_at_once(path):
    start = time.process_time()
    try:
        with hdf5.opened(path) as root:
            for layer in hdf5.layers(root) or []:
                for array in layer.arrays:
                    array.read()
            assert hdf5.layers(root) is None and path.name == "layers_is_dataset.h5"
    except BadWeights as error:
        assert str(error).isprintable()
    assert time.process_time() - start < 10
