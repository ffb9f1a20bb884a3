"""The examples in docstrings run and print what they show."""

import doctest
import importlib

import pytest
from conftest import ROOT

NEEDS = {"blur.optical_flow": "cv2"}
SLOW = {"data.samples"}
MODULES = [
    path.relative_to(ROOT / "deblur_gan").with_suffix("").as_posix().replace("/", ".")
    for path in sorted((ROOT / "deblur_gan").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MODULES]
)
def test_the_examples_of_a_module_run(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"an example needs {NEEDS[name]}")
    module = importlib.import_module(f"deblur_gan.{name}".removesuffix(".__init__"))
    assert doctest.testmod(module).failed == 0
