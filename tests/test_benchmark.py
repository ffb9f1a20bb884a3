"""`scripts/benchmark.py`: its arithmetic and the form of what it prints; never how long anything takes."""

import re
import sys

import keras
import pytest
from click.testing import CliRunner
from conftest import ROOT
from ending import yields_and_ends

sys.path.append(str(ROOT / "scripts"))
from benchmark import benchmark  # noqa: E402
from benchmarks import against_torch, table  # noqa: E402
from benchmarks.measuring import Setting, time_in_turn  # noqa: E402

TINY = Setting("paper", 2, 2, 32, 2, "float32", 2, False)


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_row_follows_from_the_seconds_of_a_step():
    """2 samples in a step of t seconds are 2 / t per second; 200 epochs are 200 * 1051 steps."""
    for seconds in (0.004, 0.5, 7.0):
        row = cells(table.training_row(TINY, (seconds / 4, 2**29), (seconds, 3 * 2**29)))
        assert row[:4] == ["2", "32", "2", "float32"] and row[6] == "1.50"
        found = [float(row[column]) for column in (4, 5, 7)]
        assert found == pytest.approx([2 / seconds, 8 / seconds, 200 * 1051 * seconds / 3600], rel=0.005)
    assert cells(table.training_row(TINY._replace(batch_size=3000), (1, 1), (36, 1)))[7] == "2", "a step an epoch"


def test_what_does_not_fit_into_memory_says_so_in_its_cell():
    columns = table.training_row(TINY, (1, 1), (1, 1)).count("|")
    for found, wanted in (((), ["out of memory"] * 2), (((1.0, 1),), ["out of memory", "2"])):
        row = table.training_row(TINY, *found)
        assert row.count("|") == columns and cells(row)[4:6] == wanted and cells(row)[6:] == ["", ""]
    assert table.restoring_row(2).count("|") == table.restoring_row(2, (1.0, 2**30)).count("|")
    assert cells(table.restoring_row(2, (1.25, 2**30))) == ["2", "1.25", "1.00"]


def test_a_measurement_that_takes_all_memory_ends_alone(capfd):
    for how in ("full", "GPU", "killed"):
        assert table.in_a_process(yields_and_ends, how) == ["begun"]
    with pytest.raises(table.click.ClickException, match="exit code 1"):
        table.in_a_process(yields_and_ends, "other")
    assert "OSError: other" in capfd.readouterr().err


def test_the_table_holds_every_combination_once_and_restoring_for_each_width(monkeypatch):
    found = {"_measure_training": ["here", (1.0, 1), (2.0, 1)], "_measure_restoring": ["there", (1.0, 1)]}
    monkeypatch.setattr(table, "in_a_process", lambda function, *_: found[function.__name__])
    flags = "--ngf 8 --ngf 16 --image_size 64 --image_size 32 --batch_size 3 --precision float32"
    lines = CliRunner().invoke(benchmark, ["--table", *flags.split()]).output.splitlines()
    rows = [cells(line)[:3] for line in lines if re.match(r"\| \d", line)]
    assert rows[:4] == [[ngf, size, "3"] for ngf in ("8", "16") for size in ("64", "32")]
    assert [row[0] for row in rows[4:]] == ["8", "16"]
    lines = CliRunner().invoke(benchmark, ["--table"]).output.splitlines()
    assert {cells(line)[3] for line in lines if len(cells(line)) == 8} >= {"float32", "mixed_bfloat16"}


@pytest.mark.slow
def test_a_tiny_table_says_where_it_was_measured_and_agrees_with_itself(monkeypatch):
    """In this process, because each other one imports TensorFlow."""
    monkeypatch.setattr(table, "in_a_process", lambda function, *arguments: list(function(*arguments)))
    flags = "--ngf 2 --ndf 2 --image_size 32 --batch_size 2 --critic_updates 2 --n_steps 1 --precision float32"
    done = CliRunner().invoke(benchmark, ["--table", *flags.split()])
    assert done.exit_code == 0, done.output
    assert f"keras {keras.__version__}" in done.stdout.splitlines()[0]
    training, restoring = (cells(line) for line in done.stdout.splitlines() if re.match(r"\| \d", line))
    rate, alone, memory, hours = map(float, training[4:])
    assert min(rate, alone, memory) > 0 and rate * hours == pytest.approx(200 * 2 * 1051 / 3600, rel=0.01)
    assert restoring[0] == "2" and all(float(cell) > 0 for cell in restoring)
    assert "2103 pairs, each once in an epoch" in done.stdout.splitlines()[-1]


def test_a_backend_that_does_not_exist_is_one_line():
    result = CliRunner().invoke(benchmark, ["--table"], env={"KERAS_BACKEND": "foo"})
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert "KERAS_BACKEND=foo: cannot be used" in result.output


def test_times_are_taken_in_turn_after_two_calls_of_each():
    calls = []
    wall, cpu = time_in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert "".join(calls) == "aabb" + "ab" * 3
    assert [len(seconds) for times in (wall, cpu) for seconds in times.values()] == [3] * 4


def test_a_ratio_is_the_median_of_those_of_each_turn():
    assert against_torch.ratio([2, 4, 6], [1, 1, 2]) == "3.00 (2.00 to 4.00)"


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's optimizers load triton, before TensorFlow")
def test_both_take_the_step_and_are_compared(monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    against_torch.print_ratios([TINY], 3, ["full step"])
    about, what, *_, row = capsys.readouterr().out.splitlines()
    assert f"PyTorch {torch.__version__}" in about and "2 updates of the critic" in what and "no VGG" in what
    name, *medians, eager, compiled = cells(row)
    assert name == "full step" and all(float(median.removesuffix(" s")) >= 0 for median in medians)
    for ratio in (eager, compiled):
        median, least, most = map(float, re.fullmatch(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", ratio).groups())
        assert 0 <= least <= median <= most


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--table", "--plain"], "--table and --plain: must be given one at a time"),
        (["--kind", "full step"], "--kind: must be given with --against"),
        (["--against", "torch", "--kind", "other"], "--kind 'other': must be one of restore 256x256, "),
        (["--against", "torch", "--generator", "meudec"], "--against torch: must be of the paper generator"),
        (["--table", "--image_size", "33"], "--image_size 33: must be a multiple of 4"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, said):
    result = CliRunner().invoke(benchmark, flags)
    assert result.exit_code == 2 and said in result.output.splitlines()[-1]
