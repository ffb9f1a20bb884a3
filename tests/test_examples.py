"""The examples in docstrings run and print what they show.

They find `keras`, `np`, `Path` and the public names imported, `weights/`, and a `photo.jpg` of 1280x720.
"""

import doctest
import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, noise, save

import deblur_gan

NEEDS = {"blur.optical_flow": "cv2", "weights.save": "torch"}
SLOW = {"data.samples", "restoring.deblur", "training.gan", "web.restorer"}
MODULES = [
    path.relative_to(ROOT / "deblur_gan").with_suffix("").as_posix().replace("/", ".")
    for path in sorted((ROOT / "deblur_gan").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MODULES]
)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"an example needs {NEEDS[name]}")
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    save(tmp_path / "photo.jpg", noise(0, 720, 1280))
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"deblur_gan.{name}".removesuffix(".__init__"))
    names = {name: getattr(deblur_gan, name) for name in deblur_gan.__all__}
    assert doctest.testmod(module, extraglobs={**names, "keras": keras, "np": np, "Path": Path}).failed == 0


@pytest.mark.parametrize("name", deblur_gan.__all__)
def test_a_public_name_has_an_example(name):
    assert ">>>" in getattr(deblur_gan, name).__doc__
