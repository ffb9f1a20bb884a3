"""A few of the damages that `fuzz.py` makes by the thousand."""

import fuzz
import pytest

from deblur_gan.training import build, run
from deblur_gan.weights import load as load_module


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's notes on damaged tags
@pytest.mark.parametrize(
    ("kind", "n"),
    [
        ("weights", 25),
        ("pytorch", 25),
        ("vgg", 25),
        pytest.param("states", 50, marks=pytest.mark.slow),
        ("photographs", 3),
        ("videos", 3),
    ],
)
def test_a_damaged_file_loads_or_is_refused_in_one_line(tmp_path, monkeypatch, kind, n):
    monkeypatch.chdir(tmp_path)
    for module, name in ((load_module, "build"), (run, "_fit"), (run, "build_gan"), (build, "PerceptualLoss")):
        monkeypatch.setattr(module, name, getattr(module, name))  # which some kinds replace
    if kind == "pytorch":
        pytest.importorskip("torch")
    if kind == "videos":
        pytest.importorskip("av", reason="video files require PyAV: pip install av")
    load, declared, sources = fuzz.KINDS[kind](tmp_path)
    for source in sources:
        whole = source.read_bytes()
        assert fuzz.outcome(load, declared, source).escaped is None
        load(source)
        for number in range(n):
            source.write_bytes(fuzz.damaged(whole, f"{source.name} suite {number}"))
            found = fuzz.outcome(load, declared, source)
            assert found.escaped is None, f"{source.name}, damage {number}: {found.escaped}"
