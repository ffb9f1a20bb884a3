import contextlib
import csv
import functools
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import conftest
import h5py
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, blur, child_environment, save
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

import deblur_gan.evaluation.measure as measuring
import deblur_gan.restoring.deblur as deblurring
from deblur_gan.evaluation import journal, results
from deblur_gan.evaluation.measure import METRICS, PROTOCOLS
from deblur_gan.evaluation.report import format_comparison, format_table
from deblur_gan.evaluation.results import evaluate
from deblur_gan.files import locked, sha256_of
from deblur_gan.images.photographs import BadImage
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.training import run
from deblur_gan.training.gan import DeblurGAN
from deblur_gan.training.options import Options
from deblur_gan.weights import BadWeights, load_generator, save_critic, save_generator

SCRIPT = ROOT / "scripts" / "test.py"

# Sequences as in the test split of GoPro, and how many pairs each has here.
SEQUENCES = {"GOPR0384_11_00": 1, "GOPR0396_11_00": 2, "GOPR0410_11_00": 1, "GOPR0871_11_00": 1, "GOPR0881_11_01": 1}


def photograph(seed, height=24, width=32):
    return conftest.photograph(seed, height, width)


def write_pairs(folder, names, **size):
    for number, name in enumerate(names):
        save(folder / "sharp" / f"{name}.png", photograph(number, **size))
        save(folder / "blur" / f"{name}.png", blur(photograph(number, **size), 1 + number % 3))
    return folder


@pytest.fixture(scope="module")
def gopro(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gopro") / "test"
    for number, (sequence, count) in enumerate(SEQUENCES.items()):
        for frame in range(1, count + 1):
            sharp = photograph(100 * number + frame)
            save(folder / sequence / "sharp" / f"{frame:06}.png", sharp)
            save(folder / sequence / "blur" / f"{frame:06}.png", blur(sharp, 2))
            save(folder / sequence / "blur_gamma" / f"{frame:06}.png", blur(sharp, 3))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weight files: "identity" restores nothing at all; "paper" and "meudec" are random; "huge" overflows."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(0)
    files = {}
    for name, architecture, scale in (("identity", "paper", 0), ("paper", "paper", 0.3), ("meudec", "meudec", 0.1)):
        generator = generator_model(architecture, ngf=2, n_blocks=1)
        head = generator.get_layer("head_conv")
        head.set_weights([scale * weight for weight in head.get_weights()])
        files[name] = folder / f"{name}.h5"
        save_generator(generator, files[name])
    stem = generator.layers[[bool(layer.weights) for layer in generator.layers].index(True)]
    stem.set_weights([np.full_like(weight, 3e38) for weight in stem.get_weights()])
    files["huge"] = folder / "huge.h5"
    save_generator(generator, files["huge"])
    return files


@pytest.fixture
def measured(monkeypatch):
    """List to which every pair is added that is measured, as (protocol, name)."""
    calls, measure = [], measuring.measure

    def counted(*arguments, **options):
        for row in measure(*arguments, **options):
            calls.append((row.protocol, row.name))
            yield row

    monkeypatch.setattr(results, "measure", counted)
    return calls


@pytest.fixture
def quick(monkeypatch):
    """Lets a few weights brighten instead of a network restore, where the network is not the point."""

    def brighten(generator, images, tile_size=None, ensemble=1, scale="auto"):
        head = generator.get_layer("head_conv").get_weights()[0]
        step = 0 if not head.any() else 1 + int(abs(head[0, 0, 0, 0]) * 1e4) % 5
        return np.clip(images.astype(int) + step, 0, 255).astype(np.uint8)

    monkeypatch.setattr(measuring, "deblur", brighten)


def read_csv(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def read_json(folder):
    return json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(("name", "ensemble"), [("paper", 1), ("meudec", 1), ("paper", 4)])
def test_restored_row_is_the_score_of_what_deblur_returns(weights, tmp_path, name, ensemble):
    folder = write_pairs(tmp_path / "data", ["one"])
    [result], _ = evaluate([weights[name]], folder, tmp_path / "results", save_images=True, ensemble=ensemble)
    blurred = np.asarray(Image.open(folder / "blur" / "one.png"))
    restored = deblurring.deblur(load_generator(weights[name]), blurred, ensemble=ensemble)
    [row] = result.rows["full"]
    sharp = np.asarray(Image.open(folder / "sharp" / "one.png"))
    assert row.restored["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, restored))
    assert row.restored != row.blurred
    np.testing.assert_array_equal(np.asarray(Image.open(result.folder / "restored" / "full" / "one.png")), restored)


def test_gopro_tree_in_place_equals_its_pairs_organized(weights, gopro, tmp_path, quick):
    for sequence, count in SEQUENCES.items():
        for frame in range(1, count + 1):
            for folder, organized in (("blur", "A"), ("sharp", "B")):
                target = tmp_path / "organized" / organized / f"{sequence}_{frame:06}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(gopro / sequence / folder / f"{frame:06}.png", target)
    [tree], _ = evaluate([weights["paper"]], gopro, tmp_path / "tree", ["full", "half"])
    [flat], _ = evaluate([weights["paper"]], tmp_path / "organized", tmp_path / "flat", ["full", "half"])

    for protocol in ("full", "half"):
        of_tree = {f"{row.sequence}_{row.name}": (row.blurred, row.restored) for row in tree.rows[protocol]}
        assert of_tree == {row.name: (row.blurred, row.restored) for row in flat.rows[protocol]}
        sequences = tree.summaries[protocol]["sequences"]
        assert {sequence: means["n_images"] for sequence, means in sequences.items()} == SEQUENCES
        assert flat.summaries[protocol]["sequences"] == {}
        overall, of_flat = tree.summaries[protocol]["overall"], flat.summaries[protocol]["overall"]
        # Every image counts the same, whatever the length of its sequence.
        weighted = sum(means["n_images"] * means["restored"]["psnr"] for means in sequences.values())
        assert overall["restored"]["psnr"] == pytest.approx(weighted / sum(SEQUENCES.values()))
        assert overall["restored"] == of_flat["restored"] and overall["blurred"] == of_flat["blurred"]
    assert read_json(tree.folder)["data"]["sha256"] == read_json(flat.folder)["data"]["sha256"]
    assert all(f"| {sequence} |" in format_table(tree) for sequence in SEQUENCES)


def test_blur_gamma_is_the_other_folder(weights, gopro, tmp_path, quick):
    [result], _ = evaluate([weights["identity"]], gopro, tmp_path / "results", blur="blur_gamma")
    first = next(iter(SEQUENCES))
    sharp, gamma = (np.asarray(Image.open(gopro / first / kind / "000001.png")) for kind in ("sharp", "blur_gamma"))
    assert result.rows["full"][0].blurred["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, gamma))
    for kind in "AB":
        save(tmp_path / "organized" / kind / "one.png", photograph(0))
    with pytest.raises(NotADirectoryError, match="no pairs found; blur_gamma requires"):
        evaluate([weights["identity"]], tmp_path / "organized", tmp_path / "results", blur="blur_gamma")


def test_files_agree_with_each_other(weights, gopro, tmp_path, quick):
    command = ["python", "scripts/test.py", "--protocol", "half"]
    [result], _ = evaluate([weights["paper"]], gopro, tmp_path, ["half"], command=command)
    rows, content = read_csv(result.folder), read_json(result.folder)
    overall = content["protocols"]["half"]["overall"]
    for metric in METRICS:
        for kind in ("blurred", "restored", "gain"):
            mean = np.mean([float(row[f"{metric}_{kind}"]) for row in rows])
            assert overall[kind][metric] == pytest.approx(mean)
        assert overall["gain"][metric] == pytest.approx(overall["restored"][metric] - overall["blurred"][metric])
    assert abs(overall["gain"]["psnr"]) > 0.01
    assert overall["n_images"] == len(rows) == sum(SEQUENCES.values())
    assert content["command"] == command
    assert content["weights"]["sha256"] == sha256_of(weights["paper"]) == rows[0]["weights"]
    assert content["weights"]["architecture"] == "paper"
    assert content["protocols"]["half"]["description"] == PROTOCOLS["half"].description
    assert content["versions"]["keras"] == keras.__version__
    assert "cpu" in content["device"].lower() or "gpu" in content["device"].lower()
    assert set(content["metrics"]) == set(METRICS)
    assert f"{overall['restored']['psnr']:.2f}" in format_table(result)

    text = (result.folder / "index.html").read_text(encoding="utf-8")
    assert text.count("<tr><td><img") == len(rows)
    ranked = [f"{row['sequence']}/{row['name']}" for row in sorted(rows, key=lambda row: float(row["psnr_gain"]))]
    captions = dict(re.findall(r"<b>(\w+ gain)</b> (\S+): PSNR", text))
    assert captions == {
        "Best gain": ranked[-1],
        "Median gain": ranked[len(ranked) // 2],
        "Worst gain": ranked[0],
    }


def test_perfect_images_are_counted_and_leave_valid_json(weights, tmp_path, quick):
    folder = write_pairs(tmp_path / "data", ["one", "two", "three"])
    shutil.copy(folder / "sharp" / "two.png", folder / "blur" / "two.png")
    [result], _ = evaluate([weights["identity"]], folder, tmp_path / "results")
    assert [row.name for row in result.rows["full"] if row.perfect] == ["two"]
    assert "1 of 3 images equal their sharp version" in format_table(result)
    assert read_json(result.folder)["protocols"]["full"]["overall"]["n_perfect"] == 1
    for name in ("one", "three"):
        (folder / "sharp" / f"{name}.png").unlink()
    [result], _ = evaluate([weights["identity"]], folder, tmp_path / "results")
    overall = read_json(result.folder)["protocols"]["full"]["overall"]
    assert overall["restored"]["psnr"] is None and overall["gain"]["ssim"] == 0
    assert "|         - |  1.0000 |" in format_table(result)


def test_every_row_is_on_disk_before_the_next_image(weights, tmp_path, measured, monkeypatch):
    """What a killed run leaves is what stands on the disk at that moment."""
    folder, path = write_pairs(tmp_path / "data", "abcd"), tmp_path / "out" / "identity" / "metrics.csv"
    on_disk = []

    def stop_at_the_third(_, images, tile_size, ensemble, scale):
        on_disk.append([line.split(",")[2] for line in path.read_text().splitlines()[1:]])
        if len(on_disk) == 4:
            raise KeyboardInterrupt
        return images

    monkeypatch.setattr(measuring, "deblur", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate([weights["identity"]], folder, tmp_path / "out")
    assert on_disk == [[], ["a"], ["a", "b"], ["a", "b", "c"]]
    before = read_csv(path.parent)
    monkeypatch.setattr(measuring, "deblur", lambda _, images, tile_size, ensemble, scale: images)
    [result], _ = evaluate([weights["identity"]], folder, tmp_path / "out")
    assert read_csv(path.parent)[:3] == before and measured == [("full", name) for name in "abcd"]
    assert result.summaries["full"]["overall"]["n_images"] == 4


@pytest.mark.slow
def test_only_what_is_not_measured_yet_is_measured(weights, tmp_path, measured, quick):
    folder = write_pairs(tmp_path / "data", ["a", "b", "c", "d"])

    def run(protocols=("full",), **options):
        measured.clear()
        [result], _ = evaluate([weights["paper"]], folder, tmp_path / "results", protocols, **options)
        return result

    first = run()
    assert measured == [("full", name) for name in "abcd"]
    again = run()
    assert measured == [] and again.rows == first.rows and again.summaries == first.summaries

    # An interruption leaves the last line unfinished.
    path = again.folder / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole[: whole.rindex(",") - 80])
    assert run().rows["full"][:3] == first.rows["full"][:3] and measured == [("full", "d")]

    # Another protocol adds its rows and keeps those there are.
    run(protocols=["half"])
    assert measured == [("half", name) for name in "abcd"]
    assert [row["protocol"] for row in read_csv(again.folder)] == ["half"] * 4 + ["full"] * 4
    run(protocols=["half", "full"])
    assert measured == []

    # A part of the pairs has all it needs, and does not throw the rest away.
    assert len(run(n_images=2).rows["full"]) == 2
    assert measured == [] and len(read_csv(again.folder)) == 8

    run(save_images=True)
    assert measured == [("full", name) for name in "abcd"]
    (again.folder / "restored" / "full" / "b.png").unlink()
    run(save_images=True)
    assert measured == [("full", "b")]

    save(folder / "blur" / "c.png", photograph(77))
    changed = run()
    assert measured == [("full", "c")] and changed.rows["full"][2].blurred != first.rows["full"][2].blurred

    pictures = again.folder / "restored" / "full"
    assert len(list(pictures.iterdir())) == 3  # of "c" there was one of the former photograph
    run(tile_size=16)
    assert measured == [("full", name) for name in "abcd"]
    run(tile_size=16, precision="bfloat16")
    assert measured == [("full", name) for name in "abcd"]
    assert read_json(again.folder)["precision"] == "bfloat16"
    run(tile_size=16, precision="bfloat16", ensemble=2)
    assert measured == [("full", name) for name in "abcd"]
    assert read_json(again.folder)["ensemble"] == 2
    run(tile_size=16, precision="bfloat16", ensemble=2, align=3)
    assert measured == [("full", name) for name in "abcd"]
    assert read_json(again.folder)["align"] == 3
    assert list(pictures.iterdir()) == []
    assert len(list((again.folder / "thumbnails").iterdir())) == 4


def test_rows_of_other_data_stay(weights, gopro, tmp_path, measured, quick):
    evaluate([weights["paper"]], gopro, tmp_path / "results")
    folder = tmp_path / "results" / "paper"
    before = read_csv(folder)
    other = write_pairs(tmp_path / "other", "ab")
    for name in "ab":
        (other / "sharp" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(BadImage, match="none of 2 pairs can be used"):
        evaluate([weights["paper"]], other, tmp_path / "results")
    assert read_csv(folder) == before
    # A line that an interruption left unfinished is no row of other data.
    with open(folder / "metrics.csv", "a") as file:
        file.write(",".join([*before[0].values()])[:-3])
    write_pairs(other, "ab")
    [result], _ = evaluate([weights["paper"]], other, tmp_path / "results")
    assert result.summaries["full"]["overall"]["n_images"] == 2
    rows = read_csv(folder)
    assert [row["name"] for row in rows[:2]] == ["a", "b"] and rows[2:] == before
    measured.clear()
    evaluate([weights["paper"]], gopro, tmp_path / "results")
    assert measured == [] and read_csv(folder) == [*before, *rows[:2]]


def test_rows_of_other_settings_are_replaced_once_all_is_measured(weights, tmp_path, measured, quick, capsys):
    folder = write_pairs(tmp_path / "data", "abc")

    def run(**options):
        measured.clear()
        evaluate([weights["paper"]], folder, tmp_path / "results", **options)
        return capsys.readouterr().err

    notice = f"{tmp_path / 'results' / 'paper' / 'metrics.csv'}: when all is measured, 3 rows of other photographs or "
    assert "when all is measured" not in run()
    before = read_csv(tmp_path / "results" / "paper")
    brighten, left = measuring.deblur, 2

    def stop_at_the_third(*arguments, **options):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return brighten(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "deblur", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            run(align=1)
    rows = read_csv(tmp_path / "results" / "paper")
    assert rows[:3] == before and [row["name"] for row in rows[3:]] == ["a", "b"]
    # A run with either settings resumes from here.
    assert notice in run(align=1) and measured == [("full", "c")]
    after = read_csv(tmp_path / "results" / "paper")
    assert [row["name"] for row in after] == ["a", "b", "c"] and after[:2] == rows[3:]
    assert notice in run() and read_csv(tmp_path / "results" / "paper")[0]["key"] == before[0]["key"]


def test_rows_of_other_versions_are_measured_again(weights, tmp_path, measured, monkeypatch, quick):
    folder = write_pairs(tmp_path / "data", ["a"])
    evaluate([weights["paper"]], folder, tmp_path / "results")
    monkeypatch.setattr(journal, "DEFINITIONS", journal.DEFINITIONS + 1)
    evaluate([weights["paper"]], folder, tmp_path / "results")
    assert len(measured) == 2


def test_unusable_files_are_named_and_the_rest_is_measured(weights, tmp_path, quick):
    folder = write_pairs(tmp_path / "data", ["good", "cut", "small"])
    save(folder / "sharp" / "alone.png", photograph(0))
    whole = (folder / "blur" / "cut.png").read_bytes()
    (folder / "blur" / "cut.png").write_bytes(whole[: len(whole) // 2])
    save(folder / "blur" / "other_size.png", photograph(0, 30, 30))
    save(folder / "sharp" / "other_size.png", photograph(0, 30, 31))
    for kind in ("blur", "sharp"):
        save(folder / kind / "small.png", photograph(0, 21, 40))
    paths = [weights["identity"], weights["paper"]]
    found, problems = evaluate(paths, folder, tmp_path / "results", list(PROTOCOLS))
    for result in found:
        names = {protocol: [row.name for row in rows] for protocol, rows in result.rows.items()}
        assert names == {"full": ["good", "small"], "half": ["good"], "256": ["good", "small"]}
    assert len(problems) == 4
    for start, reason in (
        (folder / "sharp" / "alone.png", "no counterpart"),
        (folder / "blur" / "cut.png", ""),
        (folder / "blur" / "other_size.png", "is 30x30, but"),
        (folder / "blur" / "small.png", "20x10 under protocol half; SSIM requires 11"),
    ):
        assert any(line.startswith(str(start)) and reason in line for line in problems)
    assert read_json(found[1].folder)["problems"] == problems
    assert "Files left out: 4" in (found[0].folder / "index.html").read_text()


def test_no_usable_pair(weights, tmp_path):
    folder = write_pairs(tmp_path / "data", ["one"])
    (folder / "sharp" / "one.png").write_bytes(b"no image")
    with pytest.raises(BadImage, match="none of 1 pairs can be used"):
        evaluate([weights["identity"]], folder, tmp_path / "results")
    (folder / "sharp" / "one.png").unlink()
    with pytest.raises(BadImage, match="no photograph has both"):
        evaluate([weights["identity"]], folder, tmp_path / "results")


def test_a_list_of_two_data_sets_gives_each_pair_its_own_score(weights, tmp_path, quick, measured):
    for number, part in enumerate(("train", "val")):
        save(tmp_path / part / f"{part}_sharp" / "000" / "1.png", photograph(number))
        save(tmp_path / part / f"{part}_blur" / "000" / "1.png", blur(photograph(number), 2 + number))
    file = tmp_path / "list.txt"
    file.write_text(
        "".join(f"{part}/{part}_blur/000/1.png {part}/{part}_sharp/000/1.png\n" for part in ("train", "val"))
    )
    [result], _ = evaluate([weights["paper"]], file, tmp_path / "results")
    train, val = result.rows["full"]
    assert len(measured) == 2 and train.blurred != val.blurred and train.sequence != val.sequence


def test_two_pairs_of_one_name_are_refused_before_anything_is_measured(weights, gopro, tmp_path, measured, monkeypatch):
    monkeypatch.chdir(gopro)
    scene = next(iter(SEQUENCES))
    files = [Path(scene, kind, "000001.png") for kind in ("blur", "blur_gamma")]
    (gopro / "list.txt").write_text("".join(f"{file} {scene}/sharp/000001.png\n" for file in files))
    with pytest.raises(BadImage) as caught:
        evaluate([weights["paper"]], "list.txt", tmp_path / "results")
    expected = f"{scene}/000001: is the name of both {files[0]} and {files[1]}; measure one of them at a time"
    assert str(caught.value) == expected
    assert measured == [] and not (tmp_path / "results").exists()


def test_n_images_are_spread_over_the_sequences(weights, gopro, tmp_path, quick):
    [result], _ = evaluate([weights["identity"]], gopro, tmp_path, n_images=3)
    sequences = [row.sequence for row in result.rows["full"]]
    assert sequences == [sorted(SEQUENCES)[number] for number in (0, 1, 3)]


def test_several_weight_files_give_one_comparison(weights, gopro, tmp_path, quick):
    names = ["identity", "paper", "meudec"]
    found, _ = evaluate([weights[name] for name in names], gopro, tmp_path, ["full", "half"], n_images=3)
    assert [result.name for result in found] == names
    table = format_comparison(found).splitlines()
    assert len(table) == 2 + 2 * (1 + 3)
    with open(tmp_path / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["weights"], row["protocol"]) for row in rows] == [(n, p) for n in names for p in ("full", "half")]
    for row, result in zip(rows[::2], found, strict=True):
        overall = result.summaries["full"]["overall"]
        assert float(row["psnr_restored"]) == overall["restored"]["psnr"]
        assert row["psnr_blurred"] == rows[0]["psnr_blurred"]
        [line] = [line for line in table[2:6] if f"| {result.name} " in line]
        assert f"{overall['restored']['psnr']:.2f}" in line and f"{overall['gain']['psnr']:+.2f}" in line


def test_other_weights_of_one_name_get_a_folder_of_their_own(weights, gopro, tmp_path, quick, measured):
    """Every run of training leaves a generator_best.h5."""
    paths = [tmp_path / run / "generator_best.h5" for run in ("first", "second", "else/second")]
    for path, name in zip(paths, ("identity", "paper", "meudec"), strict=True):
        path.parent.mkdir(parents=True)
        shutil.copy(weights[name], path)

    def run(*weight_paths):
        return [result.name for result in evaluate(weight_paths, gopro, tmp_path / "results", n_images=1)[0]]

    suffix = sha256_of(paths[2])[:8]
    for _ in range(2):  # the second time, each finds its own results again
        assert run(paths[0]) == ["generator_best"]
        assert run(paths[1]) == ["second_generator_best"]
        assert run(paths[2]) == [f"generator_best_{suffix}"]
        assert len(measured) == 3
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        *("generator_best", "second_generator_best", f"generator_best_{suffix}")
    }
    assert run(*paths[:2]) == ["first_generator_best", "second_generator_best"]
    with pytest.raises(BadWeights, match="given twice"):
        run(paths[0], paths[0])
    # Trained on in the same place: what was measured before stays.
    before = read_csv(tmp_path / "results" / "generator_best")
    shutil.copy(weights["meudec"], paths[0])
    assert run(paths[0]) == [f"generator_best_{suffix}"]
    assert read_csv(tmp_path / "results" / "generator_best") == before
    # A table that is not from here is not overwritten either.
    (tmp_path / "results" / "paper").mkdir()
    (tmp_path / "results" / "paper" / "metrics.csv").write_text("mine\n1\n")
    assert run(weights["paper"]) == [f"{weights['paper'].parent.name}_paper"]


def test_one_process_writes_to_a_folder(weights, gopro, tmp_path, quick):
    evaluate([weights["paper"]], gopro, tmp_path, n_images=2)
    before = read_csv(tmp_path / "paper")
    with locked(tmp_path / "paper"), pytest.raises(BlockingIOError, match="paper: another process is writing there"):
        evaluate([weights["paper"]], gopro, tmp_path, ["half"])
    assert read_csv(tmp_path / "paper") == before
    evaluate([weights["paper"]], gopro, tmp_path, ["half"])
    assert [row["protocol"] for row in read_csv(tmp_path / "paper")] == ["half"] * 6 + ["full"] * 2


def test_a_folder_that_others_took_in_the_meantime_is_left_alone(weights, gopro, tmp_path, monkeypatch, quick):
    taken = tmp_path / "paper" / "metrics.csv"

    @contextlib.contextmanager
    def locked_late(folder):
        """Between the look into the folder and the lock, another process begins and ends."""
        taken.write_text("mine\n1\n")
        yield

    monkeypatch.setattr(results, "locked", locked_late)
    with pytest.raises(BadWeights, match="paper holds the results of other weights by now"):
        evaluate([weights["paper"]], gopro, tmp_path, n_images=1)
    assert taken.read_text() == "mine\n1\n"


def test_every_weight_file_is_looked_at_before_anything_is_measured(weights, gopro, tmp_path, measured):
    critic = tmp_path / "critic.h5"
    save_critic(critic_model("paper", ndf=2), critic)
    (tmp_path / "broken.h5").write_bytes(b"no weights")
    for path in (critic, tmp_path / "broken.h5", tmp_path / "missing.h5"):
        with pytest.raises(BadWeights, match=path.name):
            evaluate([weights["identity"], path], gopro, tmp_path / "results")
    assert measured == [] and not (tmp_path / "results").exists()


def test_what_a_weight_file_says_of_itself_does_not_pass_for_what_was_found(
    weights, gopro, tmp_path, quick, monkeypatch
):
    path = Path(shutil.copy(weights["paper"], tmp_path / "forged.h5"))
    forged = {"path": "official.h5", "sha256": "0000", "package_version": "<script>alert(1)</script>"}
    forged["training"] = {"note": "<script>alert(2)</script>\x1b[2J"}
    with h5py.File(path, "r+") as file:
        file.attrs["deblur_gan"] = json.dumps(json.loads(file.attrs["deblur_gan"]) | forged)
    # Even if the reader of weight files let all of it through.
    describe = results.describe
    monkeypatch.setattr(results, "describe", lambda path: {**describe(path), **forged})
    [result], _ = evaluate([path], gopro, tmp_path / "results", n_images=1)
    content = read_json(result.folder)["weights"]
    assert content["path"] == str(path) and content["sha256"] == sha256_of(path)
    page = (result.folder / "index.html").read_text(encoding="utf-8")
    assert f"{path} (sha256 {content['sha256']})" in page
    assert "official.h5" not in page and "<script>alert" not in page


def test_a_weight_file_that_nests_its_notes_deeply_costs_no_scores(weights, gopro, tmp_path, quick, monkeypatch):
    deep = []
    for _ in range(5000):
        deep = [deep]
    describe = results.describe
    monkeypatch.setattr(results, "describe", lambda path: {**describe(path), "training": {"deep": deep}})
    [result], _ = evaluate([weights["paper"]], gopro, tmp_path, n_images=1)
    assert read_json(result.folder)["weights"]["training"] == "nested too deeply"


@pytest.mark.parametrize(
    "wrong",
    [
        {"protocols": ["quarter"]},
        {"protocols": []},
        {"n_images": 0},
        {"batch_size": 0},
        {"weight_paths": []},
        {"precision": "half"},
    ],
    ids=str,
)
def test_arguments_out_of_range(weights, gopro, tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        evaluate(**{"weight_paths": [weights["identity"]], "data_dir": gopro, "output_dir": tmp_path / "out", **wrong})
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_names_that_act_on_a_terminal_are_shown_and_found_again(weights, tmp_path, quick, measured):
    names = ["new\nline", "\x1b[31mred\x1b[0m", "\u202egnp.sharp", 'a,"b"', "<b>bold", "new\\nline"]
    folder = write_pairs(tmp_path / "data" / "se\x1bquence", names)
    (folder / "blur" / "bad\x1b]0;.png").write_bytes(b"")
    (folder / "sharp" / "bad\x1b]0;.png").write_bytes(b"")
    path = Path(shutil.copy(weights["paper"], tmp_path / "\x1bweights.h5"))
    for _ in range(2):
        [result], problems = evaluate([path], folder.parent, tmp_path / "results", save_images=True, command=["\x07"])
        assert sorted(row.name for row in result.rows["full"]) == sorted(names)
        assert len(measured) == len(names)  # the second time, all rows are found again
    texts = [(result.folder / name).read_text() for name in ("metrics.csv", "metrics.json", "index.html")]
    for text in (*texts, format_table(result), format_comparison([result]), *problems):
        assert text.replace("\n", "").isprintable()
    assert sorted(row["name"] for row in read_csv(result.folder))[0] == "<b>bold" and "<b>bold" not in texts[2]
    assert len(texts[0].splitlines()) == 1 + len(names)


@pytest.mark.slow
def test_the_validation_of_a_run_and_this_give_the_same_numbers(tmp_path, monkeypatch):
    """One way of scoring: what a run says of its best generator is what anybody measures on the same pairs."""
    write_pairs(tmp_path / "train", ["a", "b", "c"])
    validation = write_pairs(tmp_path / "val", ["d", "e"], height=30, width=40)
    eager = functools.partialmethod(DeblurGAN.compile, run_eagerly=True)
    monkeypatch.setattr(DeblurGAN, "compile", eager)
    options = Options(
        data_dir=(str(tmp_path / "train"),),
        val_dir=(str(validation),),
        log_dir=str(tmp_path / "weights"),
        **{"n_epochs": 1, "crop_size": 16, "scale": 1.0, "ngf": 2, "n_blocks": 1, "ndf": 2, "critic_updates": 0},
        **{"perceptual_weight": 0.0, "pixel_weight": 10.0, "learning_rate": 0.01},
    )
    run_dir = run.train(options)
    with open(run_dir / "log.csv", newline="") as file:
        [row] = csv.DictReader(file)
    [result], _ = evaluate([run_dir / "generator_best.h5"], validation, tmp_path / "results")
    overall = result.summaries["full"]["overall"]
    for metric in ("psnr", "ssim"):
        assert float(row[f"blurred_{metric}"]) == pytest.approx(overall["blurred"][metric], abs=1e-6)
        # Another graph of the same network may round single pixels another way.
        assert float(row[f"val_{metric}"]) == pytest.approx(overall["restored"][metric], abs=1e-3)
    assert abs(overall["gain"]["psnr"]) > 0.01


def invoke(*arguments):
    """`scripts/test.py` within this process; returns the exit code and stderr."""
    outcome = CliRunner().invoke(runpy.run_path(str(SCRIPT))["test"], list(map(str, arguments)))
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), outcome.exception
    return outcome.exit_code, outcome.stderr


def test_weights_that_overflow_are_named_in_one_line(weights, gopro, tmp_path):
    code, err = invoke("--data_dir", gopro, "--weight_path", weights["huge"], "--output_dir", tmp_path)
    assert code == 1 and f"Error: {weights['huge']}: the output of the generator is not finite" in err


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_script_measures_and_says_what_it_left_out(weights, tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    write_pairs(tmp_path / "data", ["one", "two"])
    (tmp_path / "data" / "blur" / "two.png").write_bytes(b"")
    done = subprocess.run(
        [
            *(sys.executable, SCRIPT, "--data_dir", "data", "--save_images"),
            *("--weight_path", weights["identity"], "--weight_path", weights["paper"]),
            *("--protocol", "256", "--protocol", "full"),
        ],
        cwd=tmp_path,
        env=child_environment(KERAS_BACKEND=backend),
        text=True,
        capture_output=True,
        timeout=300,
    )
    out, err = done.stdout, done.stderr
    assert done.returncode == 1, err
    assert "Files left out: 1" in err and f"data{os.sep}blur{os.sep}two.png" in err and "Traceback" not in err
    assert out.index("Protocol full") < out.index("Protocol 256") < out.index("Comparison")
    for name in ("identity", "paper"):
        folder = tmp_path / "results" / name
        assert {path.name for path in folder.iterdir()} == {
            *("metrics.csv", "metrics.json", "index.html", "thumbnails", "restored")
        }
        assert (folder / "restored" / "256" / "one.png").exists()
        assert read_json(folder)["command"][1].endswith("test.py")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "results"}


def test_help_does_not_wait_for_keras(tmp_path):
    program = (
        f"import runpy, sys\nsys.argv = ['test.py', '--help']\n"
        f"try:\n    runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, 'keras' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout.endswith("0 False False\n"), done.stderr
    assert f"[{'|'.join(PROTOCOLS)}]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data_dir", "nowhere"], "nowhere: no such folder"),
        (["--data_dir", ".", "--weight_path", "none.h5"], "'--weight_path': Path 'none.h5' does not exist"),
        (["--protocol", "quarter"], "quarter"),
        (["--n_images", "0"], "--n_images"),
    ],
)
def test_script_refuses_a_command_line_that_makes_no_sense(tmp_path, arguments, named, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, err = invoke(*arguments)
    assert code == 2 and named in err
    assert list(tmp_path.iterdir()) == []
