"""Options of a run: one list of defaults and bounds, for Python, for the flags of train.py and for old runs."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT

from deblur_gan.architectures import MAX_BLOCKS
from deblur_gan.training.options import BadOption, Options, is_path, kind

FIELDS = dataclasses.fields(Options)


def script():
    """The command of `scripts/train.py`, to be called without starting a process."""
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "scripts" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train


def out_of_bounds(field):
    rules, step = field.metadata, 1 if kind(field) is int else 1e-6
    found = [rules[rule] for rule in ("above", "below") if rule in rules]
    found += [rules["at_least"] - step] if "at_least" in rules else []
    found += [rules["at_most"] + step] if "at_most" in rules else []
    return found + ([float("nan"), float("inf"), -float("inf")] if kind(field) is float else [])


def test_a_critic_to_start_from_needs_updates():
    with pytest.raises(BadOption, match="critic.h5: --critic_updates 0 uses no critic$"):
        Options(init_critic_from="critic.h5", critic_updates=0)


def test_flags_are_the_options_under_names_that_stay():
    """Keeps the command lines of earlier versions usable."""
    names = """
    n_epochs data_dir synthetic val_dir blur n_images n_val_images crop_size scale resize_or_crop batch_size
    steps_per_epoch cache n_workers generator critic ngf n_blocks ndf dropout init_from vgg vgg_weights critic_updates
    penalty_weight perceptual_weight pixel_weight pixel_loss learning_rate schedule ema mixed_precision multi_gpu seed
    log_dir save_every checkpoint_minutes init_critic_from
    """
    assert set(names.split()) <= {field.name for field in FIELDS}
    flags = {param.name: param for param in script().params}
    assert set(flags) == {*(field.name for field in FIELDS), "resume"}
    assert all(flags[field.name].help == field.metadata["help"] for field in FIELDS)


def test_defaults_are_those_of_the_flags():
    flags = script().make_context("train.py", []).params
    options = Options()
    for field in FIELDS:
        if not is_path(field):
            assert getattr(options, field.name) == flags[field.name] == field.default, field.name
    assert options.data_dir == (str(Path("images", "train").absolute()),)
    assert Options(synthetic="photographs").data_dir == ()
    assert options.log_dir == str(Path("weights").absolute())
    assert (options.cache, options.init_from, options.vgg_weights) == (None, None, "imagenet")


@pytest.mark.parametrize("field", [field for field in FIELDS if out_of_bounds(field)], ids=lambda field: field.name)
def test_bounds_hold_in_python_and_on_the_command_line(field):
    for value in out_of_bounds(field):
        with pytest.raises(BadOption, match=rf"^--{field.name} [^\n]*: must be [^\n]*$"):
            Options(**{field.name: value})
        result = CliRunner().invoke(script(), [f"--{field.name}={value}"])
        assert result.exit_code == 2 and f"--{field.name}" in result.output.splitlines()[-1]


@pytest.mark.parametrize("value", [11805916207174113034240, 10**4000, -(10**4000)], ids=lambda value: "huge")
def test_numbers_that_overflow_are_refused_in_one_line(value):
    for field in FIELDS:
        if kind(field) in (int, float) and (kind(field) is int or abs(value) > 1e308):
            with pytest.raises(BadOption, match=rf"^--{field.name} [^\n]{{1,200}}$"):
                Options(**{field.name: value})


def test_values_of_another_type_or_choice_are_refused():
    for field in FIELDS:
        wrong = [object(), {}, b"x", 3 + 4j]
        wrong += [] if kind(field) is bool else [True]
        wrong += ["3"] if kind(field) in (int, float, bool) else [3]
        wrong += [2.5] if kind(field) is int else []
        wrong += ["other"] if "choices" in field.metadata else []
        wrong += ["", "a\0b"] if kind(field) is str else []
        wrong += [None] if field.default is not None else []
        for value in wrong:
            with pytest.raises(BadOption, match=rf"^--{field.name} "):
                Options(**{field.name: value})


def test_mixtures_of_blur_and_shares_are_read():
    assert Options().mixture == {"handheld": 1} and Options().share_of_each is None
    options = Options(blur_mix="handheld:4,paper:0.5", data_dir=["a", "b"], synthetic="c", shares="1:10:2")
    assert options.mixture == {"handheld": 4, "paper": 0.5} and options.share_of_each == (1, 10, 2)
    wrong = [
        ("blur_mix", mix) for mix in ("other:1", "paper", "paper:", "paper:-1", "paper:nan", "paper:1,", "paper:0")
    ]
    wrong += [("blur_mix", "paper:1,paper:2"), ("blur_mix", "paper:1e999")]
    wrong += [("shares", shares) for shares in ("0", "1:2", "-1", "1.5", "1:", "a", "10000", "\u0663")]
    for name, value in wrong:
        with pytest.raises(BadOption, match=rf"^--{name} [^\n]*: must [^\n]*$"):
            Options(**{name: value})
    result = CliRunner().invoke(script(), ["--blur_mix", "handheld:4,other:1"])
    assert result.exit_code == 2 and "--blur_mix" in result.output.splitlines()[-1]


def test_options_that_do_not_go_together_are_refused():
    for critic, crop_size in (("paper", 30), ("meudec", 36)):
        with pytest.raises(BadOption, match=f"^--crop_size {crop_size}: must be a multiple of"):
            Options(critic=critic, crop_size=crop_size)
    with pytest.raises(BadOption, match="^--crop_size 28: must be at least 32 for --grid_weight$"):
        Options(crop_size=28, grid_weight=0.1)
    with pytest.raises(BadOption, match="leaves nothing to learn from"):
        Options(critic_updates=0, perceptual_weight=0)
    with pytest.raises(BadOption, match="^--freeze_normalization: a paper generator has no batch normalization$"):
        Options(generator="paper", freeze_normalization=True)


def test_a_folder_is_given_once_by_whichever_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs").mkdir()
    Path("link").symlink_to("pairs")
    for name in ("data_dir", "synthetic", "val_dir"):
        for other in ("pairs", tmp_path / "pairs", "link/../pairs/", "link"):
            with pytest.raises(BadOption, match=rf"^--{name} [^\n]*: is given twice[^\n]* must be given once$"):
                Options(**{name: ["pairs", "more", other]})
    assert len(Options(data_dir=["pairs", "more"], val_dir="pairs").data_dir) == 2
    flags = ["--data_dir", "pairs", "--data_dir", "link", "--n_images", "2", "--shares", "1:1"]
    result = CliRunner().invoke(script(), flags)
    assert result.exit_code == 2 and "link: is given twice (as " in result.output.splitlines()[-1]


def test_no_more_blocks_are_trained_than_can_be_saved():
    assert {field.name: field.metadata.get("at_most") for field in FIELDS}["n_blocks"] == MAX_BLOCKS


def test_options_survive_json_and_take_numpys_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = Options(
        data_dir=[Path("here"), "/there"], n_epochs=np.int64(3), learning_rate=np.float32(0.5), pixel_weight=1
    )
    assert options.data_dir == (str(tmp_path / "here"), "/there")
    assert options == Options(**json.loads(json.dumps(dataclasses.asdict(options))))


def test_help_needs_neither_keras_nor_numpy():
    program = "import sys, deblur_gan.training.options; print({'keras', 'numpy', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert click.Context(script()).get_help()


@pytest.mark.parametrize("value", ["", "x", "0", "2:1", "1:2:3", "nan", "0.1:1", "1:5"])
def test_a_working_scale_is_a_number_or_a_range(value):
    with pytest.raises(BadOption, match=r"^--working_scale '[^\n]*': must be a number or LOW:HIGH"):
        Options(working_scale=value)


def test_a_working_scale_goes_with_crops():
    assert Options(working_scale="1:1.5").working_scale_range == (1, 1.5)
    with pytest.raises(BadOption, match="^--working_scale 1.5: is for crops"):
        Options(working_scale="1.5", resize_or_crop="resize")
