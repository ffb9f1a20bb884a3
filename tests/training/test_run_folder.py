"""The folder of a run: what is written, what is cut back, what is left alone."""

import csv
import importlib.metadata
import json
import os

import keras
import pytest
from PIL import Image

from deblur_gan.files import whole_file
from deblur_gan.training import run_folder
from deblur_gan.training.checkpoint import BadRun, Progress
from deblur_gan.training.run_folder import COLUMNS, RunFolder

PICTURE = Image.new("RGB", (12, 8))


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "weights", {"options": {"seed": 3}, "training_pairs": 8})


@pytest.fixture
def no_curves(monkeypatch):
    monkeypatch.setattr(run_folder, "_curves", lambda rows: b"")


def row(epoch, **changes):
    return {**dict.fromkeys(COLUMNS, 0.5), "epoch": epoch, **changes}


def test_a_backend_that_was_installed_under_another_name_is_recorded(tmp_path, monkeypatch):
    """tensorflow-cpu gives the module tensorflow, and no package of that name."""

    def unknown(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", unknown)
    folder = RunFolder.create(tmp_path, {})
    versions = json.loads((folder.path / "options.json").read_bytes())["versions"]
    assert keras.backend.backend() in versions and set(versions) >= {"python", "keras", "numpy", "deblur_gan"}


def test_folders_made_in_one_second_are_two_and_the_last_is_found(folder, tmp_path):
    other = RunFolder.create(tmp_path / "weights", {"options": {"seed": 4}})
    assert other.path != folder.path
    folder.write_options({"options": {"seed": 5}, "training_pairs": 8})  # as when that run goes on
    found = RunFolder.last(tmp_path / "weights")
    content = found.read_options()
    assert (found.path, content["options"], content["training_pairs"]) == (folder.path, {"seed": 5}, 8)
    with pytest.raises(BadRun, match="holds no run"):
        RunFolder.last(tmp_path)
    with pytest.raises(BadRun, match=r"holds no options\.json"):
        RunFolder(tmp_path).read_options()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b"[]", b"3", b"null", b'{"options": []}', b'{"options": null}', b"\xff\xfe", b"[" * 100_000],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_options_file_is_one_line(folder, content):
    (folder.path / "options.json").write_bytes(content)
    with pytest.raises(BadRun, match=r"options\.json: not the options of a run \([^\n]*\)$"):
        folder.read_options()


def test_going_on_removes_what_a_kill_left_and_nothing_else(folder):
    """Both kinds are made as they come about: a file that is never finished, and what people and programs put there."""
    folder.prepare(Progress())
    unfinished = []
    for name in ("state.npz", "log.csv", "pictures/epoch_001.png"):
        writing = whole_file(folder.path / name)
        unfinished.append((writing, writing.__enter__()))
    (folder.path / ".ipynb_checkpoints").mkdir()
    kept = [".notes.txt", ".gitignore", ".ipynb_checkpoints/log-checkpoint.csv", "pictures/.hidden.png", "notes.txt"]
    for name in kept:
        (folder.path / name).write_text("mine")
    before = {path for path in folder.path.rglob("*")}
    folder.prepare(Progress())
    assert before - set(folder.path.rglob("*")) == {path for _, path in unfinished}
    assert all((folder.path / name).read_text() == "mine" for name in kept)


def test_epochs_behind_the_checkpoint_are_cut_off(folder, no_curves):
    folder.prepare(Progress())
    folder.append(row(1), PICTURE)
    names = ("log.csv", "tensorboard/events.out.tfevents.0.deblur_gan")
    content = {name: (folder.path / name).read_bytes() for name in names}
    lengths = {name.split("/")[-1]: len(part) for name, part in content.items()}
    folder.append(row(2), PICTURE)
    with open(folder.path / "log.csv", "ab") as log:
        log.write(b"3,0.5")  # and a line that was not finished
    folder.prepare(Progress(epoch=1, lengths=lengths))
    assert {name: (folder.path / name).read_bytes() for name in names} == content


def test_scores_that_no_image_has_leave_a_gap(folder):
    folder.prepare(Progress())
    folder.append(row(1, val_psnr=None, blurred_psnr=None), PICTURE)
    folder.append(row(2), PICTURE)
    folder.append(row(3, val_psnr=None, blurred_psnr=None, val_ssim=None, blurred_ssim=None), PICTURE)
    with open(folder.path / "log.csv", newline="") as file:
        assert [line["val_psnr"] for line in csv.DictReader(file)] == ["", "0.5", ""]
    assert Image.open(folder.path / "curves.png").size == (960, 840)
    assert json.loads((folder.path / "options.json").read_text())["options"] == {"seed": 3}


def test_a_log_with_other_columns_or_a_damaged_line_is_one_line(folder, no_curves):
    folder.prepare(Progress())
    folder.append(row(1, val_psnr=None), PICTURE)
    log = folder.path / "log.csv"
    whole = log.read_text()
    assert folder.read_log() == [row(1, val_psnr=None)]
    for text, expected in (
        (whole.replace(",seconds", ""), "other columns"),
        (whole.replace("val_ssim", "ssim"), "other columns"),
        (whole.replace("0.5", "half", 1), "damaged"),
        (whole.rstrip() + ",3\n", "damaged"),
        ("\0" + whole, "other columns"),
    ):
        log.write_text(text)
        with pytest.raises(BadRun, match=rf"^[^\n]*log\.csv: {expected}[^\n]*$"):
            folder.read_log()


def test_a_pipe_for_options_is_not_waited_for(folder):
    (folder.path / "options.json").unlink()
    os.mkfifo(folder.path / "options.json")
    with pytest.raises(BadRun, match=r"holds no options\.json"):
        folder.read_options()


@pytest.mark.parametrize("n_losses", [1, 7, 12])
def test_any_number_of_losses_has_curves(folder, monkeypatch, n_losses):
    names = tuple(f"loss_{number}" for number in range(n_losses))
    monkeypatch.setattr(run_folder, "LOSSES", names)
    curves = [{"epoch": 1.0, **dict.fromkeys((*names, *COLUMNS[1:]), 0.5)}]
    assert run_folder._curves(curves).startswith(b"\x89PNG")
