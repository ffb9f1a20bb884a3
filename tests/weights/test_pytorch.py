"""PyTorch's files: what torch writes is read, what is written torch reads, and nothing in a file is executed.

The files in `golden` were made by this file: `python tests/weights/test_pytorch.py`.
"""

import math
import os
import pickle
import re
import struct
import time
import zipfile
from collections import OrderedDict

import keras
import numpy as np
import pytest
from authors_pytorch import patch_critic, resnet_generator
from conftest import ROOT, photograph

from deblur_gan import weights
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.weights import (
    BadWeights,
    describe,
    hdf5,
    load_critic,
    load_generator,
    save_critic,
    save_pytorch,
)

GOLDEN = ROOT / "tests" / "golden"


torch = pytest.importorskip("torch")


def before_0_4(torch, state):
    """The state_dict as PyTorch stored it until 2018, with statistics of instance normalizations; nothing used them."""
    found = OrderedDict()
    for key, tensor in state.items():
        found[key] = tensor
        if key.endswith(".bias") and tensor.numel() > 3:
            *block, place, _ = key.split(".")
            for statistic in ("running_mean", "running_var"):
                found[".".join([*block, str(int(place) + 1), statistic])] = torch.full_like(tensor, 7.0)
    return found


def first_format(path, state):
    """Writes a state_dict of float32 arrays in the first format of `torch.save`, with every size as four bytes."""

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value):
        return b"J" + struct.pack("<i", value)

    def tensor(key, array):
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        kind = text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
        sides = b"".join(b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (array.shape, strides))
        storage = b"(" + kind + number(array.size) + b"NtQ"
        return b"ctorch._utils\n_rebuild_tensor\n(" + storage + number(0) + sides + b"tR"

    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
    entries = b"".join(text(key) + tensor(str(n), array) for n, (key, array) in enumerate(state.items()))
    parts += [b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u."]
    parts += [pickle.dumps([str(n) for n in range(len(state))], 2)]
    parts += [struct.pack("<q", array.size) + array.astype("<f4").tobytes() for array in state.values()]
    path.write_bytes(b"".join(parts))


def arrays_of(model, folder):
    """The state_dict that `save_pytorch` writes, as a dict of arrays."""
    save_pytorch(model, folder / "arrays.pth")
    return {key: tensor.numpy() for key, tensor in torch.load(folder / "arrays.pth", weights_only=True).items()}


def predicted(torch, network, x):
    with torch.no_grad():
        return network(torch.from_numpy(np.moveaxis(x, 3, 1).copy())).numpy().transpose(0, 2, 3, 1)


def padded_photograph():
    """A photograph of 37x45 pixels, padded as `deblur` does: float32 `(1, 40, 48, 3)` in [-1, 1]."""
    pixels = np.pad(photograph(3, 37, 45), ((0, 3), (0, 3), (0, 0)), mode="reflect")
    return (pixels[None] / 127.5 - 1).astype(np.float32)


def output(model, x):
    return keras.ops.convert_to_numpy(model(x))


def same_arrays(one, other):
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# ---- torch in the same process


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("dropout", "n_blocks"), [(True, 1), (False, 2)])
def test_what_torch_writes_is_read_and_comes_back_bit_by_bit(tmp_path, zipped, dropout, n_blocks):
    theirs, x = resnet_generator(torch, 4, n_blocks, dropout), padded_photograph()
    torch.save(theirs.state_dict(), tmp_path / "G.pth", _use_new_zipfile_serialization=zipped)
    ours = load_generator(tmp_path / "G.pth")
    np.testing.assert_allclose(output(ours, x), predicted(torch, theirs, x), atol=1e-4)
    assert describe(tmp_path / "G.pth") == {
        "network": "generator",
        "architecture": "paper",
        "ngf": 4,
        "n_blocks": n_blocks,
    }

    save_pytorch(ours, tmp_path / "back.pth", dropout=dropout)
    back = resnet_generator(torch, 4, n_blocks, dropout, seed=1)
    back.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True), strict=True)
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[key]), key
    with pytest.raises(RuntimeError, match="conv_block"):
        resnet_generator(torch, 4, n_blocks, not dropout).load_state_dict(torch.load(tmp_path / "back.pth"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_critic_of_torch_is_read_and_comes_back_bit_by_bit(tmp_path, zipped):
    theirs, x = patch_critic(torch, 4), padded_photograph()
    torch.save(theirs.state_dict(), tmp_path / "D.pth", _use_new_zipfile_serialization=zipped)
    ours = load_critic(tmp_path / "D.pth")
    np.testing.assert_allclose(output(ours, x), predicted(torch, theirs, x), atol=1e-4)
    assert describe(tmp_path / "D.pth") == {
        "network": "critic",
        "architecture": "paper",
        "ndf": 4,
        "image_shape": [None, None, 3],
    }
    save_pytorch(ours, tmp_path / "back.pth")
    back = patch_critic(torch, 4, seed=1)
    back.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True), strict=True)
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[key]), key


@pytest.mark.parametrize("zipped", [True, False])
def test_the_ways_in_which_torch_stores_the_same_weights(tmp_path, zipped):
    state = resnet_generator(torch, 2, 1).state_dict()

    def load(state):
        torch.save(state, tmp_path / "G.pth", _use_new_zipfile_serialization=zipped)
        return load_generator(tmp_path / "G.pth")

    expected = load(state)
    together = torch.cat([tensor.flatten() for tensor in state.values()])
    pieces = together.split([tensor.numel() for tensor in state.values()])
    for same in (
        before_0_4(torch, state),
        {f"module.{key}": state[key] for key in reversed(state)},
        {key: tensor.double() for key, tensor in state.items()},
        {
            key: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            for key, tensor in state.items()
        },
        {key: piece.view(tensor.shape) for (key, tensor), piece in zip(state.items(), pieces, strict=True)},
    ):
        same_arrays(load(same), expected)
    repeated = load(state | {"model.4.bias": torch.ones(1).bfloat16().expand(4)})
    np.testing.assert_array_equal(repeated.get_layer("down1_conv").bias, np.ones(4))
    halves = load({key: tensor.half() for key, tensor in state.items()})
    for half, whole in zip(halves.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(half, whole.astype(np.float16).astype(np.float32))


def test_other_networks_of_torch_are_refused(tmp_path):
    path = tmp_path / "G.pth"
    state = resnet_generator(torch, 2, 1).state_dict()
    for other, message in (
        (resnet_generator(torch, 2, 1, norm="batch").state_dict(), r"'model\.2\.weight' .* \(--norm batch\)"),
        ({"model": state}, "holds 'model'; a state_dict"),
        ({"fpn.enc0.weight": state["model.1.weight"]}, "holds 'fpn.enc0.weight'; a state_dict"),
        ([1, 2], "a PyTorch file, but a state_dict"),
        ({key: state[key] for key in list(state)[:-1]}, r"lacks 'model\.\d+\.bias'"),
        (state | {"model.40.bias": state["model.1.bias"].clone()}, "also holds 'model.40.bias'"),
        (state | {"model.1.weight": torch.zeros(2, 3, 5, 5)}, r"first kernel has shape \(5, 5, 3, 2\)"),
        (state | {"model.4.weight": torch.zeros(4, 3, 3, 3)}, r"'model\.4' .* \(3, 3, 3, 4\) where \(3, 3, 2, 4\) is"),
        (state | {"model.4.bias": torch.zeros(4, dtype=torch.int64)}, "not a tensor of floating-point numbers"),
        (state | {"model.4.bias": torch.tensor([0, 0, 0, np.nan])}, "not finite"),
    ):
        for zipped in (True, False):
            torch.save(other, path, _use_new_zipfile_serialization=zipped)
            refused(path, message)


# ---- files that torch made, without torch


@pytest.mark.parametrize("name", ["torch_generator.pth", "torch_generator_2017.pth", "torch_generator_float16.pth"])
def test_golden_generators(tmp_path, name):
    golden = np.load(GOLDEN / "torch_io.npz")
    ours = load_generator(GOLDEN / name)
    tolerance = 1e-2 if "float16" in name else 1e-4
    np.testing.assert_allclose(output(ours, golden["x"]), golden["generator"], atol=tolerance)
    save_pytorch(ours, tmp_path / "G.pth")
    same_arrays(load_generator(tmp_path / "G.pth"), ours)
    weights.save_generator(ours, tmp_path / "g.h5")
    same_arrays(load_generator(tmp_path / "g.h5"), ours)


def test_golden_critic(tmp_path):
    golden = np.load(GOLDEN / "torch_io.npz")
    ours = load_critic(GOLDEN / "torch_critic.pth")
    np.testing.assert_allclose(output(ours, golden["x"]), golden["critic"], atol=1e-4)
    save_pytorch(ours, tmp_path / "D.pth")
    same_arrays(load_critic(tmp_path / "D.pth"), ours)
    refused(tmp_path / "D.pth", "holds a paper critic with ndf=1; a generator is required")


def test_a_pickle_of_python_2_is_read(tmp_path):
    """There text is of bytes, and an OrderedDict is made from a list of lists of key and value."""
    path = tmp_path / "G.pth"
    generator = generator_model("paper", 1, 1)
    first_format(path, arrays_of(generator, tmp_path))
    pickled, numbers = path.read_bytes().split(b"tRu.")
    pickled = re.sub(
        rb"X(.)\0\0\0", rb"U\1", pickled.replace(b"OrderedDict\n)R(", b"OrderedDict\n(]("), flags=re.DOTALL
    )
    pickled = re.sub(rb"(U.m[\w.]+)(ctorch\._utils.*?tR)", rb"](\1\2e", pickled + b"tR", flags=re.DOTALL)
    assert b"OrderedDict\n(](](U\x0emodel.1.weightc" in pickled
    path.write_bytes(pickled + b"etR." + numbers)
    same_arrays(load_generator(path), generator)


# ---- what is not a state_dict, and hostile files


def refused(path, message):
    start = time.process_time()
    with pytest.raises(BadWeights, match=re.escape(str(path))) as caught:
        load_generator(path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 300
    assert time.process_time() - start < 10


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def head(tmp_path):
    """What a state_dict begins with in the first format, and the pickle of the state itself."""
    first_format(tmp_path / "G.pth", {"model.1.weight": np.zeros((1, 3, 7, 7)), "model.1.bias": np.zeros(1)})
    content = (tmp_path / "G.pth").read_bytes()
    return content[: content.index(b"\x80\x02ccoll")], content[content.index(b"\x80\x02ccoll") :]


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_file_is_not_executed(tmp_path, head, protocol):
    bomb = pickle.dumps({"model.1.weight": Command(f"touch {tmp_path / 'executed'}")}, protocol)
    refusal = f"names '{os.name} system'; only tensors are read" if protocol == 2 else "a pickle of protocol 4"
    path = tmp_path / "G.pth"
    for content in (bomb, head[0] + bomb):
        path.write_bytes(content)
        refused(path, refusal)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bomb)
    refused(path, refusal)
    assert list(tmp_path.iterdir()) == [path]
    pickle.loads(bomb)
    assert (tmp_path / "executed").exists()


def test_hostile_pickles_are_refused_at_once(tmp_path, head):
    """Several take Python's own unpickler hours or tens of gigabytes, whatever it is forbidden to name."""
    path = tmp_path / "G.pth"
    start, no_keys = b"\x80\x02", pickle.dumps([], 2)
    nested = b"K\0" + b"q\0h\0\x86" * 90  # a tuple twice in a tuple twice in a tuple: 2^90 to hash or to show
    many = b"X\1\0\0\0kN\x86q\2" + b"h\2" * 60_000
    pairs = b"ccollections\nOrderedDict\nq\0]q\1(" + many + b"e"
    for pickled, message in (
        (start + b"(ios\nsystem\n.", "damaged, or not a state_dict"),
        (start + b"(lI1\ntR.", "damaged, or not a state_dict"),
        (start + b"cbuiltins\neval\n.", "names 'builtins eval'"),
        (start + b"ctorch\nFloatStorage\n)R.", "damaged"),
        (start + b"}r\xff\xff\xff\xff.", "a PyTorch file, but"),  # the memo's place of a number near 2^32
        (start + b"\x8d" + struct.pack("<Q", 2**62) + b"x.", "damaged"),
        (start + b"X" + struct.pack("<I", 2**31) + b"x.", "damaged"),
        (start + b"}" + nested + b"K\1s.", "uses an object twice"),
        (start + nested + nested + b"\x93.", "uses an object twice"),
        (start + b"}." + start + b"]" + nested + b"a.", "uses an object twice"),
        (start + nested.replace(b"q\0", b"q\1q\0") + b"K\1s.", "uses an object twice"),
        (start + pairs + b"h\0h\1\x85R" * 20_000 + b"}.", "uses an object twice"),
        (start + pairs.replace(b"]q\1", b"]") + b"q\1" + b"h\0h\1\x85R" * 20_000 + b"}.", "uses an object twice"),
        (start + pairs + b"\x85Rq\1" + b"h\0h\1\x85R" * 20_000 + b"}.", "uses an object twice"),
        (
            start + b"(" + many + b"t" + pairs[: pairs.index(b"]")] + b"h\2\x85R" * 20_000 + b"}.",
            "uses an object twice",
        ),
        (start + b"(" * 10**6, "damaged"),
        (start + b"]q\0" + b"h\0a" * 1000 + b".", "uses an object twice"),  # a list that holds itself
        (start, "damaged"),
        (start + b"}.", "a PyTorch file, but"),
    ):
        path.write_bytes(head[0] + pickled + no_keys)
        refused(path, message)


def test_sizes_are_held_to_the_file(tmp_path, head):
    path = tmp_path / "G.pth"
    first_format(path, arrays_of(generator_model("paper", 1, 1), tmp_path))
    whole = path.read_bytes()
    size = b"X\3\0\0\0cpuJ" + struct.pack("<i", 147)  # of the first kernel
    at = whole.index(size) + len(size)
    assert whole[at : at + 2] == b"Nt"
    sides = b"".join(b"J" + struct.pack("<i", side) for side in (1, 3, 7, 7)) + b"t(J" + struct.pack("<i", 147)
    for old, new, message in (
        (size, size[:-4] + struct.pack("<i", 2**30), "declares a size of 1073741824, but the file has only 5879 bytes"),
        (size, size[:-4] + struct.pack("<i", -1), "declares a size of -1"),
        (struct.pack("<q", 147), struct.pack("<q", 2**40), "damaged, or not a state_dict"),
        (b"NtQJ\0\0\0\0", b"NtQJ\1\0\0\0", "damaged, or not a state_dict"),
        (b"(J\1\0\0\0J\3\0\0\0", b"(J\1\0\0\0J\4\0\0\0", "damaged, or not a state_dict"),
        (
            sides,
            sides.replace(b"J\1", b"J\2").replace(b"J\x93", b"J\0"),
            r"'model.1' has an array of shape \(1,\) where \(2,\) is required",
        ),
        (b"(J\x93\0\0\0J\x31\0\0\0", b"(J\x93\0\0\0J\x32\0\0\0", "damaged, or not a state_dict"),
    ):
        changed = whole.replace(old, new, 1)
        assert changed != whole
        path.write_bytes(changed)
        refused(path, message)
    path.write_bytes(whole)
    load_generator(path)


@pytest.mark.parametrize("kept", [0, 1, 2, 20, 100, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(tmp_path, kept):
    for name in ("torch_generator.pth", "torch_generator_2017.pth"):
        content = (GOLDEN / name).read_bytes()
        (tmp_path / name).write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
        refused(tmp_path / name, "damaged|not an HDF5 file")


def rezipped(source, target, compression=zipfile.ZIP_STORED, **changed):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, changed.get(name.split("/", 1)[1].replace("/", "_"), old.read(name)))


def test_archives_that_torch_does_not_write_are_refused(tmp_path, monkeypatch):
    golden, path = GOLDEN / "torch_generator.pth", tmp_path / "G.pth"
    for change, message in (
        ({"compression": zipfile.ZIP_DEFLATED}, "packed in a way that PyTorch does not use"),
        ({"data_0": b"1234"}, "damaged, or not a state_dict"),
        ({"data.pkl": bytes(2**19)}, "its pickle has more than 262144 bytes"),
    ):
        rezipped(golden, path, **change)
        refused(path, message)
    rezipped(golden, path)
    same_arrays(load_generator(path), load_generator(golden))
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(20000):
            archive.writestr(f"{number:060}", b"")
    refused(path, "damaged")
    path.write_bytes(golden.read_bytes())
    monkeypatch.setattr(hdf5, "MAX_NUMBERS", 100)
    refused(path, "networks of at most 100 are read")


# ---- writing


def test_only_the_authors_networks_are_written(tmp_path):
    with pytest.raises(
        ValueError, match="the model is a meudec generator with ngf=2, n_blocks=1; the authors' code has"
    ):
        save_pytorch(generator_model("meudec", 2, 1), tmp_path / "G.pth")
    assert not list(tmp_path.iterdir())


def test_a_critic_of_any_size_and_precision_is_written(tmp_path):
    critic = critic_model("paper", 2, (32, 32, 3), dtype="mixed_bfloat16")
    save_pytorch(critic, tmp_path / "D.pth")
    save_critic(critic, tmp_path / "c.h5")
    same_arrays(load_critic(tmp_path / "D.pth"), load_critic(tmp_path / "c.h5"))


def main():
    import torch

    generator, critic, x = resnet_generator(torch, 1, 1), patch_critic(torch, 1), padded_photograph()
    state = generator.state_dict()
    torch.save(state, GOLDEN / "torch_generator.pth")
    torch.save(before_0_4(torch, state), GOLDEN / "torch_generator_2017.pth", _use_new_zipfile_serialization=False)
    halves = {f"module.{key}": tensor.half() for key, tensor in state.items()}
    torch.save(halves, GOLDEN / "torch_generator_float16.pth")
    torch.save(critic.state_dict(), GOLDEN / "torch_critic.pth")
    outputs = {"generator": predicted(torch, generator, x), "critic": predicted(torch, critic, x)}
    np.savez_compressed(GOLDEN / "torch_io.npz", x=x, **outputs)


if __name__ == "__main__":
    main()
