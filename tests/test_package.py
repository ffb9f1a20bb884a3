"""What holds for the package as a whole and for all commands: imports, backends, what is installed."""

import os
import runpy
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT, child_environment
from PIL import Image

import deblur_gan

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
KERAS_SCRIPTS = ("train", "test", "deblur_image", "benchmark")


def python(*arguments, **environment):
    """Runs Python on this checkout, as from a shell that set nothing else."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=child_environment(**environment), capture_output=True, text=True, errors="replace"
    )


def test_keras_is_imported_only_when_work_starts():
    """The package, what works without a network, and every `--help`."""
    program = f"""
import contextlib, io, runpy, sys
import deblur_gan, deblur_gan.data.pairs, deblur_gan.blur.make_pairs
assert "deblur" in dir(deblur_gan)
for script in {[str(script) for script in SCRIPTS]}:
    sys.argv = [script, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        runpy.run_path(script, run_name="__main__")
    assert "Usage" in text.getvalue(), script
from deblur_gan.commands import main
def names(group, path):
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield from names(command, [*path, name]) if hasattr(command, "list_commands") else [[*path, name]]
for words in ([], *names(main, [])):
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        main([*words, "--help"], prog_name="deblur-gan")
    assert text.getvalue().startswith(" ".join(["Usage: deblur-gan", *words])), words
print(sorted({{"keras", "tensorflow", "jax", "torch"}} & set(sys.modules)))
"""
    result = python("-c", program)
    assert result.stdout == "[]\n", result.stderr


def test_public_names_are_what_their_modules_hold():
    for name in deblur_gan.__all__:
        assert getattr(deblur_gan, name).__module__.split(".")[0] == "deblur_gan"
    with pytest.raises(AttributeError, match="blur_gan"):
        _ = deblur_gan.blur_gan


@pytest.mark.parametrize("only", ["openvino", "jax", "torch"])
def test_every_public_name_loads_where_one_backend_is_installed(only):
    pytest.importorskip(only)
    program = f"""
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
hidden = {{"openvino", "tensorflow", "jax", "torch"}} - {{"{only}"}}
importlib.machinery.PathFinder.find_spec = lambda name, *rest: (
    None if name.partition(".")[0] in hidden else find(name, *rest))
from deblur_gan import *
from deblur_gan.training import DeblurGAN
import keras
print(keras.backend.backend())
try:
    DeblurGAN(None, None, None)
except ImportError as error:
    print(error)
"""
    result = python("-c", program, KERAS_BACKEND=None)
    lines = result.stdout.splitlines()
    assert lines and lines[0] == only, result.stderr
    assert only != "openvino" or lines[1] == "KERAS_BACKEND='openvino': training needs tensorflow, jax or torch"


@pytest.mark.slow
def test_keras_starts_without_a_word_and_knows_our_layers(tmp_path):
    path = tmp_path / "generator.h5"
    program = """
import sys
from deblur_gan.backend import start_backend
assert "keras" not in sys.modules
start_backend()
from deblur_gan import generator_model, load_generator, save_generator
save_generator(generator_model("paper", 1, 1), sys.argv[1])
load_generator(sys.argv[1])
sys.stderr.write("silent")
import keras
print([type(layer).__name__ for layer in keras.models.load_model(sys.argv[1], compile=False).layers])
"""
    result = python("-c", program, path)
    assert "ReflectionPadding2D" in result.stdout and "InstanceNormalization" in result.stdout, result.stderr
    assert result.stderr.startswith("silent")
    # On other backends Keras itself imports TensorFlow to load a model, which then prints notes.
    if keras.backend.backend() == "tensorflow":
        assert result.stderr == "silent"
    assert keras.models.load_model(path, compile=False).name == "generator"


@pytest.mark.parametrize("name", KERAS_SCRIPTS)
def test_a_backend_that_does_not_exist_is_said_in_one_line(name, tmp_path):
    data = ["--data_dir", tmp_path] if name in ("train", "test") else []
    result = python(ROOT / "scripts" / f"{name}.py", *data, KERAS_BACKEND="foo")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "KERAS_BACKEND=foo: cannot be used" in result.stderr and "tensorflow (" in result.stderr


def test_a_backend_that_cannot_train_is_refused_for_training():
    result = python(ROOT / "scripts" / "train.py", KERAS_BACKEND="numpy")
    assert result.returncode == 1 and "it cannot train" in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_is_no_note_arrives_and_nobody_is_waited_for():
    """A process that goes on after the import, and holds the error output, does not delay a command."""
    program = """
import os, subprocess
from deblur_gan.backend import without_notes
with without_notes():
    os.write(2, b"I0000 00:00:1795468796.041741 6165 cudart_stub.cc:31] Could not find cuda drivers\\n")
    os.write(2, b"E0000 00:00:1795468796.041741 6165 loader.cc:1] no such file\\n")
    print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid)
os.write(2, b"afterwards")
"""
    result = python("-c", program)
    os.kill(int(result.stdout), signal.SIGKILL)  # which it could not if it had ended
    assert result.stderr.endswith("no such file\nafterwards") and "cudart" not in result.stderr


def test_threads_that_hold_back_stderr_at_once_give_it_back():
    program = """
import os, threading, time
from deblur_gan.backend import without_notes

def hold(number):
    with without_notes():
        time.sleep(0.01 * number)
        os.write(2, b"E0000 of a thread\\n")

threads = [threading.Thread(target=hold, args=[number]) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os.write(2, b"afterwards\\n")
"""
    assert python("-c", program).stderr == 8 * "E0000 of a thread\n" + "afterwards\n"


def test_the_page_of_details_shows_the_detail_with_the_most_edges():
    corner_of_detail = runpy.run_path(str(ROOT / "docs" / "draw_stages.py"))["corner_of_detail"]
    image = np.full((300, 400, 3), 90, np.uint8)
    image[150:270, 200:320] += np.random.default_rng(0).integers(0, 60, (120, 120, 1), np.uint8)
    left, top = corner_of_detail(image)
    assert abs(left - 200) <= 1 and abs(top - 150) <= 1
    other = corner_of_detail(image, [(left, top)])
    assert max(abs(other[0] - left), abs(other[1] - top)) >= 90, "and then one next to it"


def test_a_gallery_that_differs_by_rounding_is_left_as_it_is(tmp_path):
    save_if_other = runpy.run_path(str(ROOT / "docs" / "draw_gallery.py"))["save_if_other"]
    path = tmp_path / "gallery.png"
    pixels = np.full((8, 8, 3), 100, np.uint8)
    for level, shown in ((100, 100), (101, 100), (102, 102)):
        pixels[2, 3, 1] = level
        save_if_other(Image.fromarray(pixels), path)
        assert np.asarray(Image.open(path))[2, 3, 1] == shown
