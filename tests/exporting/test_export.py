"""Generators as files for other engines: what comes out of them, and what is left where something goes wrong."""

import functools
import hashlib
import importlib.util
import io
import json
import zipfile

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, photograph, write_pairs
from PIL import Image
from test_package import python

from deblur_gan import deblur, generator_model, load_generator, save_generator, save_pytorch
from deblur_gan.commands.export import export as export_command
from deblur_gan.data.samples import blurred_sample
from deblur_gan.exporting import FORMATS, export, h5, onnx
from deblur_gan.exporting.conversion import Engine
from deblur_gan.exporting.export import CannotExport, export_generator, load_exported, require_exportable
from deblur_gan.files import UNFINISHED
from deblur_gan.images.photographs import find_images
from deblur_gan.weights import BadWeights, describe

CONVERTED = {format: known.precisions for format, known in FORMATS.items() if "tensorflow" in known.needs}
WHOLE = [(format, "float32") for format in CONVERTED]
LESS_PRECISE = [(format, precision) for format in CONVERTED for precision in CONVERTED[format][1:]]


def need(format):
    """Skips where the engine of a format is not installed."""
    for module in FORMATS[format].needs:
        pytest.importorskip(module)
    if "tensorflow" in FORMATS[format].needs and keras.backend.backend() != "tensorflow":
        pytest.skip("converted on TensorFlow")


@pytest.fixture(scope="module", autouse=True)
def compared_on_little():
    """`export_generator` compares on a small crop and calibrates with two photographs: what is tested here is more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_COMPARED_SIZES", ((83, 66),))
        patch.setattr(onnx, "find_images", lambda folder: find_images(folder)[:2])
        yield


def tiny(path, architecture="paper"):
    """A small generator, each bias and statistic off its neutral start, and its weights in a file."""
    generator = generator_model(architecture, ngf=16 if architecture == "paper" else 4, n_blocks=1)
    rng = np.random.default_rng(1)
    for layer in generator.layers:
        moved = [w + rng.uniform(0, 0.1, w.shape).astype(np.float32) if w.ndim == 1 else w for w in layer.get_weights()]
        layer.set_weights(moved)
    save_generator(generator, path, {"epoch": 3})
    return generator


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function from architecture, format and precision to `(weights, generator, path)`; each file is made once."""
    folder = tmp_path_factory.mktemp("made")

    @functools.cache
    def source(architecture):
        weights = folder / f"{architecture}.h5"
        return weights, tiny(weights, architecture)

    @functools.cache
    def export_once(architecture, format, precision="float32"):
        need(format)
        weights, generator = source(architecture)
        path = folder / f"{architecture}_{precision}{FORMATS[format].suffix}"
        differs = export_generator(weights, path, format, precision)
        assert 0 <= differs <= (1 if precision == "float32" else 255)
        return weights, generator, path

    return export_once


def difference(generator, other, image):
    return np.abs(deblur(generator, image).astype(int) - deblur(other, image)).max()


# ---- what an exported file restores


@pytest.mark.parametrize(
    ("architecture", "format"),
    [
        pytest.param(architecture, format, marks=pytest.mark.slow if format in CONVERTED else ())
        for architecture, formats in (("paper", FORMATS), ("meudec", CONVERTED))
        for format in formats
    ],
)
def test_a_file_restores_as_deblur_does_at_any_size(architecture, format, made):
    _, generator, path = made(architecture, format)
    restored_by = load_exported(path, generator)
    for size in ((37, 53), (128, 65), (1, 9)):
        assert difference(generator, restored_by, photograph(0, *size)) <= 1
    assert difference(generator, restored_by, np.stack([photograph(1, 37, 53), photograph(2, 37, 53)])) <= 1
    changed = deblur(generator, photograph(0, 37, 53))
    assert np.abs(changed.astype(int) - photograph(0, 37, 53)).max() > 5, "it changes something"


@pytest.mark.slow
@pytest.mark.parametrize("format", CONVERTED)
def test_the_shipped_file_restores_the_sample_photographs(format, shipped_restored, tmp_path):
    need(format)
    generator, images = shipped_restored
    path = tmp_path / f"generator{FORMATS[format].suffix}"
    export_generator(ROOT / "weights" / "generator.h5", path, format)
    restored_by = load_exported(path, generator)
    for blurred, restored in images:
        assert np.abs(deblur(restored_by, blurred).astype(int) - restored).max() <= 1


@pytest.fixture(scope="module")
def shipped_restored():
    """The generator in the box, and parts of the sample photographs beside what it makes of them."""
    generator = load_generator(ROOT / "weights" / "generator.h5")
    samples = [Image.open(io.BytesIO(blurred_sample(name))) for name in ("camera", "chelsea", "coffee", "rocket")]
    parts = [np.asarray(sample.convert("RGB"))[100:196, 150:278] for sample in samples]
    return generator, [(image, deblur(generator, image)) for image in parts]


@pytest.mark.slow
@pytest.mark.parametrize(("format", "precision"), LESS_PRECISE)
def test_less_precision_takes_less_room_and_restores_nearly_the_same(format, precision, made):
    _, generator, path = made("paper", format, precision)
    whole = made("paper", format)[2]
    files = ((file.with_suffix(".bin") if format == "openvino" else file) for file in (path, whole))
    smaller, larger = (file.stat().st_size for file in files)
    assert smaller < {"float16": 0.7, "int8": 0.6}[precision] * larger

    restorers = [load_exported(path, generator)]
    if (format, precision) == ("onnx", "int8"):
        compiled = pytest.importorskip("openvino").Core().compile_model(path, "CPU")
        restorers.append(Engine(lambda values: compiled(values)[0], generator.layers))
    image = photograph(4, 37, 53)
    change = deblur(generator, image).astype(float) - image
    for restored_by in restorers:
        error = deblur(restored_by, image).astype(float) - deblur(generator, image)
        assert np.square(error).mean() < {"float16": 0.001, "int8": 0.1}[precision] * np.square(change).mean()


@pytest.mark.parametrize("dropout", [True, False])
def test_pth_is_what_save_pytorch_writes(dropout, tmp_path):
    need("pth")
    generator = tiny(tmp_path / "tiny.h5")
    assert export_generator(tmp_path / "tiny.h5", tmp_path / "exported.pth", "pth", dropout=dropout) == 0
    save_pytorch(generator, tmp_path / "saved.pth", dropout)
    # The bytes contain addresses in memory.
    exported, saved = (
        importlib.import_module("torch").load(tmp_path / name, weights_only=True)
        for name in ("exported.pth", "saved.pth")
    )
    assert list(exported) == list(saved)
    for ours, theirs in zip(exported.values(), saved.values(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.slow
def test_h5_keeps_what_trained_it_and_takes_half_the_room_in_float16(tmp_path):
    generator = tiny(tmp_path / "tiny.h5")
    export_generator(tmp_path / "tiny.h5", tmp_path / "half.h5", "h5", "float16")
    export_generator(tmp_path / "half.h5", tmp_path / "whole_again.h5", "h5")
    size = {name: (tmp_path / f"{name}.h5").stat().st_size for name in ("tiny", "half", "whole_again")}
    assert size["half"] < 0.7 * size["tiny"] and size["whole_again"] == size["tiny"]
    for name in ("half", "whole_again"):
        assert describe(tmp_path / f"{name}.h5")["training"] == {"epoch": 3}
        for ours, stored in zip(
            generator.get_weights(), load_generator(tmp_path / f"{name}.h5").get_weights(), strict=True
        ):
            assert stored.dtype == np.float32
            np.testing.assert_array_equal(stored, ours.astype(np.float16))


def test_a_weight_that_float16_does_not_hold_is_refused(tmp_path):
    generator = tiny(tmp_path / "tiny.h5")
    head = generator.get_layer("head_conv")
    head.set_weights([head.kernel, np.full(3, 1e5)])
    save_generator(generator, tmp_path / "large.h5")
    with pytest.raises(CannotExport, match=r"large\.h5: cannot be written as h5, float16 \(.*too large for float16\)$"):
        export_generator(tmp_path / "large.h5", tmp_path / "half.h5", "h5", "float16")
    assert not (tmp_path / "half.h5").exists()


def test_a_saved_model_loads_whatever_its_folder_is_called(made, tmp_path):
    _, generator, path = made("paper", "saved_model")
    for name in ("deblur.v2", "deblur.h5", "deblur"):
        (tmp_path / name).symlink_to(path)
        assert difference(generator, load_exported(tmp_path / name, generator), photograph(0, 37, 53)) <= 1


@pytest.mark.parametrize("name", ["no.onnx", "no", "a.v2", "a", *(f"a{known.suffix}" for known in FORMATS.values())])
def test_what_is_not_an_exported_generator_is_refused_in_one_line(name, tmp_path):
    need(next((format for format, known in FORMATS.items() if name == f"a{known.suffix}"), "h5"))
    if name == "a":
        (tmp_path / name).mkdir()
    elif not name.startswith("no"):
        (tmp_path / name).write_bytes(b"no network " * 100)
    with pytest.raises(FileNotFoundError if name.startswith("no") else BadWeights) as refusal:
        load_exported(tmp_path / name, generator_model("paper", 1, 1))
    assert str(refusal.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(refusal.value)


def test_an_engine_restores_many_sizes_on_every_backend():
    """On JAX more than `SIZES_COMPILED` of them discard what Keras compiled, which an engine has not."""
    engine = Engine(lambda values: values, [])
    for width in range(64, 64 + 4 * 20, 4):
        image = photograph(0, 64, width)
        np.testing.assert_array_equal(deblur(engine, image, scale=1), image)


# ---- what it says about itself


def said(format, path):
    """The JSON in a file, read as its engine's users read it."""
    if format == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["deblur_gan"]
    if format == "openvino":
        import openvino

        return openvino.Core().read_model(path).get_rt_info("deblur_gan").value
    if format == "litert":
        return zipfile.ZipFile(path).read("deblur_gan.json")
    return (path / "assets.extra" / "deblur_gan.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("format", "precision"), WHOLE + LESS_PRECISE)
def test_a_file_says_how_it_is_used_and_where_it_comes_from(format, precision, made):
    weights, _, path = made("paper", format, precision)
    found = json.loads(said(format, path))
    use = {"layout": "NHWC", "channels": "RGB", "value_range": [-1, 1], "size_multiple": 4, "smallest_side": 64}
    source = {"precision": precision, "source_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert found == {**describe(weights), **use, **source, "full_contrast": 32, "tile_size": 304}
    assert found["training"] == {"epoch": 3} and found["architecture"] == "paper"


@pytest.mark.slow
def test_onnx_names_what_is_free(made):
    path = made("paper", "onnx")[2]
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    tensors = [(tensor.name, tensor.shape) for tensor in (*session.get_inputs(), *session.get_outputs())]
    assert tensors == [(name, ["batch", "height", "width", 3]) for name in ("blurred", "restored")]


# ---- what is refused, and what is left then


@pytest.mark.parametrize(
    ("output", "format", "precision", "line"),
    [
        ("g.onnx", "pth", "float32", "g.onnx: the name of a file in the format pth must end in .pth"),
        ("g.xml", "openvino", "int8", "int8: openvino has float32 and float16; OpenVINO reads the int8 file of "),
        ("g", "saved_model", "float16", "--precision float16: saved_model has float32"),
        ("folder.onnx", "onnx", "float32", "folder.onnx: is a folder; the name of a file is required"),
        ("model.xml", "openvino", "float32", "model.bin: is a folder; the name of a file is required"),
        (
            "g.weights.h5",
            "h5",
            "float32",
            "g.weights.h5: the name of a weight file must end in .h5 and not in .weights",
        ),
        ("g.onnx", "onnx", "float64", "--precision float64: onnx has float32 and float16 and int8"),
        ("g.pb", "pb", "float32", "format 'pb': must be one of h5, pth, onnx"),
        ("folder.onnx", "saved_model", "float32", "folder.onnx: exists and is not a SavedModel; it is not replaced"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(output, format, precision, line, tmp_path):
    for name in ("folder.onnx", "model.bin"):
        (tmp_path / name).mkdir()
    with pytest.raises(CannotExport) as refusal:
        require_exportable(tmp_path / output, format, precision)
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("format", "missing"),
    [("onnx", "onnx tf2onnx"), ("openvino", "openvino"), ("litert", "ai_edge_litert"), ("saved_model", "tensorflow")],
)
def test_an_engine_that_is_missing_is_named_as_pip_installs_it(format, missing, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None if module in missing.split() else module)
    with pytest.raises(CannotExport) as refusal:
        require_exportable(tmp_path / f"g{FORMATS[format].suffix}", format)
    assert str(refusal.value).endswith(f"{missing} is not installed; pip install {missing}")


def broken(*arguments, **options):
    raise RuntimeError("no such\noperation")


@pytest.mark.parametrize(
    ("place", "replacement", "line"),
    [
        ("load", lambda path, generator: Engine(lambda values: values + 0.05, []), "grey levels"),
        ("load", lambda path, generator: Engine(lambda values: np.nan * values, []), "not finite"),
        ("save_generator", broken, r"cannot be written as h5, float32 \(no such operation\)"),
    ],
)
def test_nothing_is_left_of_a_file_that_fails(place, replacement, line, tmp_path, monkeypatch):
    tiny(tmp_path / "tiny.h5")
    (tmp_path / "exported.h5").write_text("the former one")
    monkeypatch.setattr(h5, place, replacement)
    with pytest.raises(CannotExport, match=line):
        export_generator(tmp_path / "tiny.h5", tmp_path / "exported.h5", "h5")
    assert (tmp_path / "exported.h5").read_text() == "the former one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported.h5", "tiny.h5"]


# ---- the command


@pytest.mark.parametrize(
    ("format", "precision", "name", "files"),
    [
        pytest.param("openvino", "float16", "tiny.xml", ["tiny.bin", "tiny.xml"], marks=pytest.mark.slow),
        pytest.param("saved_model", "float32", "deblur.v2", ["deblur.v2"], marks=pytest.mark.slow),
    ],
)
def test_the_command_measures_the_loss_and_leaves_only_its_files(format, precision, name, files, tmp_path):
    need(format)
    tiny(tmp_path / "tiny.h5")
    write_pairs(tmp_path / "pairs", ["a", "b"])
    words = ["--weight_path", tmp_path / "tiny.h5", "--format", format, "-o", tmp_path / "new" / name]
    result = CliRunner().invoke(
        export_command, [*map(str, words), "--precision", precision, "--data_dir", str(tmp_path / "pairs")]
    )
    assert result.exit_code == 0, result.output
    assert "PSNR on 2 pairs" in result.stdout and "loss" in result.stdout
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == files


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--format", "pth", "-o", "x.onnx"], 2, "x.onnx: the name of a file in the format pth must end in .pth"),
        (["--format", "onnx", "-o", "x.onnx", "--no_dropout"], 2, "--no_dropout: onnx has no dropout; it is for pth"),
        (["--format", "pth", "-o", "x.pth", "--data_dir", "nowhere"], 1, "nowhere: no such folder"),
        (["--format", "pth", "-o", "x.pth", "--weight_path", "text.h5"], 1, "text.h5"),
        (["--format", "pth", "-o", "x.pth", "--weight_path", "meudec.h5"], 1, "the model is a meudec generator"),
    ],
)
def test_the_command_refuses_in_one_line(words, code, line, tmp_path, monkeypatch):
    need(words[1])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.h5").write_text("no weights")
    tiny(tmp_path / "meudec.h5", "meudec")
    result = CliRunner().invoke(export_command, words)
    assert result.exit_code == code and line in result.stderr.splitlines()[-1], result.output
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".h5"]


@pytest.mark.slow
def test_the_command_converts_on_tensorflow_and_stays_quiet(tmp_path):
    need("litert")
    tiny(tmp_path / "tiny.h5")
    words = ["--weight_path", tmp_path / "tiny.h5", "--format", "litert", "-o", tmp_path / "tiny.tflite"]
    result = python("-m", "deblur_gan", "export", *words, KERAS_BACKEND="jax")
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert (tmp_path / "tiny.tflite").exists() and not list(tmp_path.glob(f"{UNFINISHED}*"))
