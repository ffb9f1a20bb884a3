"""Which backend is taken, and that OpenVINO, which only restores, restores as the others do."""

import json
import subprocess
import sys
import tomllib
import types

import click
import keras
import numpy as np
import pytest
from conftest import HAS_OPENVINO, ROOT, child_environment, photograph, save

from deblur_gan import backend, shipped_generator
from deblur_gan.networks import generator_model
from deblur_gan.restoring.deblur import deblur
from deblur_gan.weights import load_generator, save_generator

needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="OpenVINO is not installed, or Keras is too old for it")


@pytest.fixture
def python_with(monkeypatch, tmp_path):
    """A Python in which the backends given are installed and nothing chooses between them."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def install(*names):
        monkeypatch.setattr(backend, "_keras_version", lambda: backend.KERAS_FOR_OPENVINO)
        monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: name if name in names else None)

    return install


ALL = ("tensorflow", "jax", "torch", "openvino")


@pytest.mark.parametrize(
    ("installed", "purpose", "taken"),
    [
        (ALL, {"restoring": True}, "openvino"),
        (ALL, {"training": True}, "tensorflow"),
        (ALL, {}, "tensorflow"),
        (ALL[:3], {"restoring": True}, "tensorflow"),
        (ALL[1:], {"training": True}, "jax"),
        (ALL[3:], {}, "openvino"),
    ],
)
def test_the_first_that_is_installed_and_fits_is_taken(python_with, installed, purpose, taken):
    python_with(*installed)
    assert backend._choice(**{"training": False, "restoring": False} | purpose) == taken


def test_openvino_is_not_taken_by_a_keras_that_cannot_restore_with_it(python_with, monkeypatch):
    python_with(*ALL)
    monkeypatch.setattr(backend, "_keras_version", lambda: (3, 13))
    assert backend._choice(False, True) == "tensorflow"


def test_the_extra_asks_for_the_keras_that_openvino_needs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"keras>={'.'.join(map(str, backend.KERAS_FOR_OPENVINO))}" in extras["fast"]


def test_what_the_user_chose_is_taken(python_with, monkeypatch, tmp_path):
    python_with(*ALL)
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "tensorflow"}))  # as Keras writes it by itself
    assert backend._choice(False, True) == "openvino"
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    assert backend._choice(False, True) == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backend._choice(False, True) == "torch"


@pytest.mark.parametrize("content", ["", "[]", "{}", "\0"])
def test_a_damaged_configuration_chooses_nothing(python_with, tmp_path, content):
    python_with("torch")
    (tmp_path / "keras.json").write_text(content)
    assert backend._choice(False, True) == "torch"


def test_without_a_backend_one_line_says_which_to_choose(python_with, monkeypatch):
    python_with()
    monkeypatch.setattr(sys, "modules", {name: module for name, module in sys.modules.items() if name != "keras"})
    with pytest.raises(click.ClickException) as error:
        backend.start_backend(restoring=True)
    assert error.value.message == (
        "Keras: none of openvino, tensorflow, jax, torch is installed, and it needs one: pip install openvino"
    )
    with pytest.raises(click.ClickException, match="none of tensorflow, jax, torch is installed.* tensorflow$"):
        backend.start_backend(training=True)


@pytest.mark.parametrize(
    ("engine", "device", "instructions", "dtype"),
    [
        ("openvino", "cpu", "BF16 FP32", "mixed_bfloat16"),
        ("openvino", "cpu", "FP32", "float32"),
        ("tensorflow", "/job:localhost/replica:0/task:0/device:CPU:0", "avx512f amx_bf16", "mixed_bfloat16"),
        ("torch", "cpu", "avx512_bf16", "mixed_bfloat16"),
        ("torch", "cpu", "avx512f", "float32"),
        ("torch", "cuda:0", "amx_bf16", "float32"),
        ("jax", "TFRT_CPU_0", "amx_bf16", "float32"),
    ],
)
def test_auto_is_bfloat16_where_it_is_faster(monkeypatch, engine, device, instructions, dtype):
    capabilities = instructions.split()
    core = types.SimpleNamespace(get_property=lambda device, name: capabilities)
    monkeypatch.setattr(backend, "import_openvino", lambda: types.SimpleNamespace(Core=lambda: core))
    monkeypatch.setattr(backend, "_instructions", lambda: {*capabilities})
    monkeypatch.setattr(keras.backend, "backend", lambda: engine)
    monkeypatch.setattr(keras.ops, "zeros", lambda shape: types.SimpleNamespace(device=device))
    assert backend.dtype_to_restore_in() == dtype
    assert backend.dtype_to_restore_in("float32") == "float32"
    if engine == "openvino" and dtype == "float32":
        with pytest.raises(ValueError, match="precision 'bfloat16': OpenVINO does not compute in it on this processor"):
            backend.dtype_to_restore_in("bfloat16")
    else:
        assert backend.dtype_to_restore_in("bfloat16") == "mixed_bfloat16"


def test_auto_is_a_precision_on_this_machine_and_another_is_named():
    assert backend.dtype_to_restore_in() in ("float32", "mixed_bfloat16")
    with pytest.raises(ValueError, match="precision 'float16': must be one of auto, float32, bfloat16"):
        backend.dtype_to_restore_in("float16")


def test_a_module_that_is_put_off_is_loaded_when_it_is_used(monkeypatch, tmp_path):
    (tmp_path / "seldom_used.py").write_text("value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    with backend._put_off("seldom_used"):
        import seldom_used

        assert isinstance(seldom_used, types.ModuleType)
    assert "seldom_used" not in sys.modules
    assert seldom_used.value == 1
    with backend._put_off("seldom_used"):
        pass
    assert sys.modules.pop("seldom_used").value == 1


PROGRAM = """
import sys
import numpy as np
import openvino
from deblur_gan import restore

compiled = []
compile_model = openvino.compile_model
openvino.compile_model = lambda *arguments: compiled.append(1) or compile_model(*arguments)
blurred = np.load(sys.argv[1])
restored = {name: restore(blurred[name]) for name in blurred}
print(len(compiled), [name for name in ("tensorflow", "scipy.signal") if name in sys.modules])
restored["tiles"] = restore(blurred["a"], tile_size=64)
restored["float32"] = restore(blurred["a"], precision="float32")
if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
    restored["bfloat16"] = restore(blurred["a"], precision="bfloat16")
np.savez(sys.argv[2], **restored)
"""


@pytest.mark.slow
@needs_openvino
def test_openvino_is_picked_compiles_once_for_a_size_and_restores_as_the_others_do(tmp_path):
    blurred = {name: photograph(seed, 90, 130) for seed, name in enumerate("abc")} | {"d": photograph(3, 51, 33)}
    np.savez(tmp_path / "blurred.npz", **blurred)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "blurred.npz", tmp_path / "restored.npz"],
        env=child_environment(KERAS_HOME=str(tmp_path), KERAS_BACKEND=None),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("4 []\n", "")
    generator, restored = load_generator(shipped_generator()), np.load(tmp_path / "restored.npz")
    ours = {name: deblur(generator, image) for name, image in blurred.items()}
    ours["tiles"] = deblur(generator, blurred["a"], tile_size=64)
    for name in ours:
        difference = np.abs(restored[name].astype(int) - ours[name])
        change = np.abs(ours[name].astype(int) - blurred[name[0] if name != "tiles" else "a"])
        # Processors that have bfloat16 compute in it.
        assert difference.max() <= 4 and difference.mean() <= 0.1 * change.mean(), name
    # float32 keeps 16 bits more than bfloat16: it hardly ever rounds to another level. Each is what it is called.
    assert (restored["float32"] != ours["a"]).mean() < 0.002
    if "bfloat16" in restored:
        in_bfloat16 = deblur(load_generator(shipped_generator(), "mixed_bfloat16"), blurred["a"])
        for image in (in_bfloat16, restored["bfloat16"]):
            assert (image != ours["a"]).mean() > 0.002
            assert np.abs(image.astype(int) - ours["a"]).max() <= 4


@pytest.mark.slow
@needs_openvino
def test_weights_that_are_set_later_count_on_openvino():
    program = """
import numpy as np
from deblur_gan import deblur
from deblur_gan.networks import generator_model

blurred = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
first, second = (generator_model("paper", ngf=4, n_blocks=1) for _ in range(2))
for generator in (first, second):
    generator.set_weights([weight * 9 for weight in generator.get_weights()])  # so that they change the photograph
before, wanted = deblur(first, blurred), deblur(second, blurred)
first.set_weights(second.get_weights())
print((before != wanted).any(), (deblur(first, blurred) == wanted).all())
"""
    environment = child_environment(KERAS_BACKEND="openvino")
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "True True\n", done.stderr


@pytest.mark.slow
@needs_openvino
def test_the_command_picks_it_too(tmp_path):
    save(tmp_path / "a.png", photograph(0))
    program = """
import sys
from deblur_gan.commands import main
main(["restore", "a.png"], standalone_mode=False)
print([name for name in ("tensorflow", "openvino") if name in sys.modules])
"""
    environment = child_environment(KERAS_HOME=str(tmp_path), HOME=str(tmp_path), KERAS_BACKEND=None)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.endswith("\n['openvino']\n"), done.stderr
    assert not (tmp_path / "intel").exists()  # where OpenVINO's telemetry would keep who this is


@pytest.mark.slow
@needs_openvino
def test_it_is_scored_on_openvino(tmp_path):
    """Whose arrays do not say which device they are on."""
    for side in ("A", "B"):
        (tmp_path / side).mkdir()
        save(tmp_path / side / "1.png", photograph(0))
    save_generator(generator_model("paper", ngf=4, n_blocks=1), tmp_path / "generator.h5")
    command = ["test", "--weight_path", "generator.h5", "--data_dir", ".", "--protocol", "full", "--output_dir", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "deblur_gan", *command],
        cwd=tmp_path,
        env=child_environment(KERAS_BACKEND="openvino"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "generator" / "metrics.json").read_text())["device"] == "CPU"
