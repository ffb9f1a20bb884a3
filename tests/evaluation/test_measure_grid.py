"""The measure of the woven pattern of docs/measure_grid.py: a known pattern gives its amplitude, nothing else does."""

import runpy

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, save

SCRIPT = runpy.run_path(str(ROOT / "docs" / "measure_grid.py"))
grid = SCRIPT["grid"]


def pattern(amplitude, period=4, size=96, seed=0):
    """A pattern of which no two phases are equal, of mean 0 in each channel, whose root mean square is `amplitude`."""
    cell = np.random.default_rng(seed).normal(size=(period, period, 3))
    cell -= cell.mean(axis=(0, 1))
    cell *= amplitude / np.sqrt((cell**2).mean())
    return np.tile(cell, (size // period, size // period, 1)), np.ptp(cell, axis=(0, 1)).mean()


FLAT = np.full((96, 96, 3), 120.0)
SLOPE = FLAT + np.linspace(0, 30, 96)[:, None, None]
NOISE = np.random.default_rng(1).normal(0, 1, FLAT.shape)


@pytest.mark.parametrize("amplitude", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("under", [FLAT, SLOPE, FLAT + NOISE], ids=["flat", "slope", "noise"])
@pytest.mark.parametrize("period", [4, 8])
def test_a_known_pattern_gives_its_amplitude(amplitude, under, period):
    added, spread = pattern(amplitude, period)
    strength, found, share = grid(under + added, flat_in=under, period=period)
    assert strength == pytest.approx(amplitude, abs=0.05 + 0.02 * amplitude) and share == 1
    assert found == pytest.approx(spread, abs=0.4 + 0.02 * amplitude)


def test_flat_sloping_and_noisy_pictures_have_none():
    assert grid(FLAT) == (0, 0, 1)
    assert max(grid(SLOPE)[:2]) < 0.02
    strength, spread, _ = grid(FLAT + NOISE)
    # The root mean square of the noise is 1; a phase has 64 pixels in a window, and 9 times as many in all.
    assert strength < 0.05 and spread < 5 / np.sqrt(9 * 64)


def test_only_flat_parts_count():
    image = FLAT + pattern(1.0)[0]
    image[:, 32:] += np.random.default_rng(2).normal(0, 40, image[:, 32:].shape)
    strength, _, share = grid(image)
    assert strength == pytest.approx(1, abs=0.05) and share == pytest.approx(1 / 3)
    assert np.isnan(grid(np.random.default_rng(2).normal(120, 40, FLAT.shape))[0])
    # The pattern of a difference, where the photograph is flat.
    assert grid(image - FLAT, flat_in=FLAT)[2] == 1


def test_the_script_prints_a_row_for_each_size(tmp_path, identity_weights):
    save(tmp_path / "flat.png", (FLAT + NOISE).round().astype(np.uint8))
    result = CliRunner().invoke(SCRIPT["main"], [str(tmp_path), "--weight_path", str(identity_weights)])
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ") for line in result.output.splitlines()[2:]]
    assert [row[2] for row in rows] == ["1", "auto"]
    assert all(row[3] == "100%" and row[6:] == ["0.00 / 0.00", "0.00 / 0.00 |"] for row in rows)
