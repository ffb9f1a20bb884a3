import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from deblur_gan import evaluation, restoration
from deblur_gan.evaluation import METRICS, PROTOCOLS, evaluate, format_comparison, format_table, read_pair
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.photographs import BadImage
from deblur_gan.weights import BadWeights, save_critic, save_generator

SCRIPT = Path(__file__).parent.parent / "scripts" / "test.py"

# The test split of GoPro: sequences and how many pairs each has here.
SEQUENCES = {
    "GOPR0384_11_00": 1,
    "GOPR0384_11_05": 1,
    "GOPR0385_11_01": 1,
    "GOPR0396_11_00": 1,
    "GOPR0410_11_00": 2,
    "GOPR0854_11_00": 1,
    "GOPR0862_11_00": 1,
    "GOPR0868_11_00": 2,
    "GOPR0869_11_00": 1,
    "GOPR0871_11_00": 1,
    "GOPR0881_11_01": 1,
}


def photograph(seed, height=36, width=48):
    values = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (2, 2, 0))
    return (127.5 + 127.5 * np.tanh(15 * values)).astype(np.uint8)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def blur(image, width):
    return gaussian_filter(image.astype(float), (0, width, 0)).astype(np.uint8)


def write_pairs(folder, names, **size):
    for number, name in enumerate(names):
        write(folder / "sharp" / f"{name}.png", photograph(number, **size))
        write(folder / "blur" / f"{name}.png", blur(photograph(number, **size), 1 + number % 3))
    return folder


@pytest.fixture(scope="module")
def gopro(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gopro") / "test"
    for number, (sequence, count) in enumerate(SEQUENCES.items()):
        for frame in range(1, count + 1):
            sharp = photograph(100 * number + frame)
            write(folder / sequence / "sharp" / f"{frame:06}.png", sharp)
            write(folder / sequence / "blur" / f"{frame:06}.png", blur(sharp, 2))
            write(folder / sequence / "blur_gamma" / f"{frame:06}.png", blur(sharp, 3))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weight files: "identity" restores nothing at all; "paper" and "meudec" are random."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(0)
    files = {}
    for name, architecture, scale in (("identity", "paper", 0), ("paper", "paper", 0.1), ("meudec", "meudec", 0.1)):
        generator = generator_model(architecture, ngf=2, n_blocks=1)
        head = generator.get_layer("head_conv")
        head.set_weights([scale * weight for weight in head.get_weights()])
        files[name] = folder / f"{name}.h5"
        save_generator(generator, files[name])
    return files


@pytest.fixture
def measured(monkeypatch):
    """List to which every pair is added that is measured, as (protocol, name)."""
    calls, measure_batch = [], evaluation._measure_batch

    def counted(generator, protocol, batch, *rest):
        calls.extend((protocol, pair.name) for pair, _, _ in batch)
        return measure_batch(generator, protocol, batch, *rest)

    monkeypatch.setattr(evaluation, "_measure_batch", counted)
    return calls


def read_csv(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("tile_size", [None, 100])
def test_identity_scores_exactly_the_blurred_row(weights, tmp_path, tile_size):
    folder = write_pairs(tmp_path / "data", ["one", "two"], height=131, width=210)
    [result], problems = evaluate(
        [weights["identity"]], folder, tmp_path / "results", list(PROTOCOLS), tile_size=tile_size
    )
    assert problems == []
    for protocol in PROTOCOLS:
        for row in result.rows[protocol]:
            assert row.restored == row.blurred and np.isfinite(row.restored["psnr"])
        overall = result.summaries[protocol]["overall"]
        assert overall["n_images"] == 2
        assert overall["restored"] == overall["blurred"] and set(overall["gain"].values()) == {0.0}


def test_gopro_tree_in_place_equals_its_pairs_organized(weights, gopro, tmp_path):
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
    data = [json.loads((result.folder / "metrics.json").read_text())["data"] for result in (tree, flat)]
    assert data[0]["sha256"] == data[1]["sha256"]
    assert all(f"| {sequence} |" in format_table(tree) for sequence in SEQUENCES)


def test_blur_gamma_is_the_other_folder(weights, gopro, tmp_path):
    [result], _ = evaluate([weights["identity"]], gopro, tmp_path, blur="blur_gamma")
    first = next(iter(SEQUENCES))
    sharp, gamma = (np.asarray(Image.open(gopro / first / kind / "000001.png")) for kind in ("sharp", "blur_gamma"))
    assert result.rows["full"][0].blurred["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, gamma))


@pytest.mark.parametrize(("protocol", "size"), [("full", (51, 35)), ("half", (25, 17)), ("256", (256, 256))])
def test_protocols(weights, tmp_path, protocol, size):
    folder = write_pairs(tmp_path / "data", ["one"], height=35, width=51)
    [result], _ = evaluate([weights["identity"]], folder, tmp_path / "results", [protocol])
    [row] = result.rows[protocol]
    images = [
        np.asarray(Image.open(folder / kind / "one.png").resize(size, Image.Resampling.BICUBIC))
        for kind in ("sharp", "blur")
    ]
    assert (row.width, row.height) == size
    assert row.blurred["psnr"] == pytest.approx(peak_signal_noise_ratio(*images), abs=1e-6)


@pytest.mark.parametrize("name", ["paper", "meudec"])
def test_restored_row_is_the_score_of_what_deblur_returns(weights, tmp_path, name):
    folder = write_pairs(tmp_path / "data", ["one"])
    [result], _ = evaluate([weights[name]], folder, tmp_path / "results", save_images=True)
    generator = evaluation.load_generator(weights[name])
    restored = restoration.deblur(generator, np.asarray(Image.open(folder / "blur" / "one.png")))
    [row] = result.rows["full"]
    sharp = np.asarray(Image.open(folder / "sharp" / "one.png"))
    assert row.restored["psnr"] == pytest.approx(peak_signal_noise_ratio(sharp, restored))
    assert row.restored != row.blurred
    np.testing.assert_array_equal(np.asarray(Image.open(result.folder / "restored" / "full" / "one.png")), restored)


def test_files_agree_with_each_other(weights, gopro, tmp_path):
    command = ["python", "scripts/test.py", "--protocol", "half"]
    [result], _ = evaluate([weights["paper"]], gopro, tmp_path, ["half"], command=command)
    rows = read_csv(result.folder)
    content = json.loads((result.folder / "metrics.json").read_text())
    overall = content["protocols"]["half"]["overall"]
    for metric in METRICS:
        for kind in ("blurred", "restored", "gain"):
            mean = np.mean([float(row[f"{metric}_{kind}"]) for row in rows])
            assert overall[kind][metric] == pytest.approx(mean)
        assert overall["gain"][metric] == pytest.approx(overall["restored"][metric] - overall["blurred"][metric])
    assert overall["gain"]["psnr"] < -0.01
    assert overall["n_images"] == len(rows) == sum(SEQUENCES.values())
    assert content["command"] == command
    assert content["weights"]["sha256"] == evaluation._sha256(weights["paper"])
    assert content["weights"]["architecture"] == "paper"
    assert content["protocols"]["half"]["description"] == PROTOCOLS["half"].description
    assert content["versions"]["keras"] == keras.__version__
    assert "cpu" in content["device"].lower() or "gpu" in content["device"].lower()
    assert set(content["metrics"]) == set(METRICS)
    assert f"{overall['restored']['psnr']:.2f}" in format_table(result)


def test_page_shows_every_image_and_the_extremes(weights, gopro, tmp_path):
    [result], _ = evaluate([weights["paper"]], gopro, tmp_path)
    text = (result.folder / "index.html").read_text(encoding="utf-8")
    rows = result.rows["full"]
    assert text.count("<tr><td><img") == len(rows)
    captions = dict(re.findall(r"<b>(\w+ gain)</b> (\S+): PSNR", text))
    ranked = [f"{row.sequence}/{row.name}" for row in sorted(rows, key=lambda row: row.gain["psnr"])]
    assert captions == {
        "Best gain": ranked[-1],
        "Median gain": ranked[len(ranked) // 2],
        "Worst gain": ranked[0],
    }


def test_perfect_images_do_not_poison_the_mean(weights, tmp_path):
    folder = write_pairs(tmp_path / "data", ["one", "two", "three"])
    shutil.copy(folder / "sharp" / "two.png", folder / "blur" / "two.png")
    [result], _ = evaluate([weights["identity"]], folder, tmp_path / "results")
    rows, overall = result.rows["full"], result.summaries["full"]["overall"]
    psnrs = [row.blurred["psnr"] for row in rows]
    assert np.isinf(psnrs[2]) and rows[2].name == "two"
    assert overall["n_perfect"] == 1 and overall["n_images"] == 3
    for kind in ("blurred", "restored"):
        assert overall[kind]["psnr"] == pytest.approx(np.mean(psnrs[:2]))
        assert overall[kind]["ssim"] == pytest.approx(np.mean([getattr(row, kind)["ssim"] for row in rows]))
    assert overall["gain"]["psnr"] == 0
    assert "1 of 3 images equal their sharp version" in format_table(result)
    json.loads((result.folder / "metrics.json").read_text(), parse_constant=pytest.fail)


def test_nothing_but_perfect_images(weights, tmp_path):
    folder = write_pairs(tmp_path / "data", ["one"])
    shutil.copy(folder / "sharp" / "one.png", folder / "blur" / "one.png")
    [result], _ = evaluate([weights["identity"]], folder, tmp_path / "results")
    assert result.summaries["full"]["overall"]["restored"]["psnr"] is None
    assert json.loads((result.folder / "metrics.json").read_text())["protocols"]["full"]["overall"]["gain"]["ssim"] == 0
    assert "|         - |  1.0000 |" in format_table(result)


def test_only_what_is_not_measured_yet_is_measured(weights, tmp_path, measured):
    folder = write_pairs(tmp_path / "data", ["a", "b", "c", "d"])

    weight_path = shutil.copy(weights["paper"], tmp_path / "generator.h5")

    def run(protocols=("full",), **options):
        measured.clear()
        [result], _ = evaluate([weight_path], folder, tmp_path / "results", protocols, **options)
        return result

    first = run()
    assert measured == [("full", name) for name in "abcd"]
    again = run()
    assert measured == [] and again.rows == first.rows and again.summaries == first.summaries

    # An interruption leaves the last line unfinished.
    path = again.folder / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole[: whole.rindex(",") - 30])
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

    write(folder / "blur" / "c.png", photograph(77))
    changed = run()
    assert measured == [("full", "c")] and changed.rows["full"][2].blurred != first.rows["full"][2].blurred

    pictures = again.folder / "restored" / "full"
    assert len(list(pictures.iterdir())) == 3  # of "c" there was one of the former photograph
    run(tile_size=16)
    assert measured == [("full", name) for name in "abcd"]
    assert list(pictures.iterdir()) == []

    shutil.copy(weights["meudec"], weight_path)
    assert run(tile_size=16).rows["full"][0].restored != first.rows["full"][0].restored
    assert measured == [("full", name) for name in "abcd"]
    assert len(list((again.folder / "thumbnails").iterdir())) == 4


def test_rows_of_other_versions_are_measured_again(weights, tmp_path, measured, monkeypatch):
    folder = write_pairs(tmp_path / "data", ["a"])
    evaluate([weights["paper"]], folder, tmp_path / "results")
    monkeypatch.setattr(evaluation, "DEFINITIONS", evaluation.DEFINITIONS + 1)
    evaluate([weights["paper"]], folder, tmp_path / "results")
    assert len(measured) == 2


def test_batches_hold_one_size_and_change_nothing(weights, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    for number, size in enumerate([(36, 48)] * 5 + [(20, 48)] + [(36, 48)] * 2):
        write(folder / "sharp" / f"{number}.png", photograph(number, *size))
        write(folder / "blur" / f"{number}.png", blur(photograph(number, *size), 2))
    [one], _ = evaluate([weights["paper"]], folder, tmp_path / "one")

    shapes, deblur = [], evaluation.deblur

    def recorded(generator, image, *rest):
        shapes.append(image.shape)
        return deblur(generator, image, *rest)

    monkeypatch.setattr(evaluation, "deblur", recorded)
    # Two images fit under the limit above which `deblur` would take tiles, three do not.
    for module in (evaluation, restoration):
        monkeypatch.setattr(module, "WHOLE_IMAGE_PIXELS", 36 * 48 * 2)
    monkeypatch.setattr(restoration, "TILE_SIZE", 16)
    [three], _ = evaluate([weights["paper"]], folder, tmp_path / "three", batch_size=3)
    assert shapes[:4] == [(3, 36, 48, 3), (2, 36, 48, 3), (1, 20, 48, 3), (2, 36, 48, 3)]
    for alone, batched in zip(one.rows["full"], three.rows["full"], strict=True):
        assert alone.name == batched.name and alone.blurred == batched.blurred
        # The order of sums within a convolution may differ, and with it the rounding of single pixels.
        assert batched.restored == pytest.approx(alone.restored, abs=1e-3)


def test_unusable_files_are_named_and_the_rest_is_measured(weights, tmp_path):
    folder = write_pairs(tmp_path / "data", ["good", "cut", "small"])
    write(folder / "sharp" / "alone.png", photograph(0))
    whole = (folder / "blur" / "cut.png").read_bytes()
    (folder / "blur" / "cut.png").write_bytes(whole[: len(whole) // 2])
    write(folder / "blur" / "other_size.png", photograph(0, 30, 30))
    write(folder / "sharp" / "other_size.png", photograph(0, 30, 31))
    for kind in ("blur", "sharp"):
        write(folder / kind / "small.png", photograph(0, 21, 40))
    results, problems = evaluate([weights["identity"], weights["paper"]], folder, tmp_path / "results", list(PROTOCOLS))
    for result in results:
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
    assert json.loads((results[1].folder / "metrics.json").read_text())["problems"] == problems
    assert "files left out" in (results[0].folder / "index.html").read_text()


def test_no_usable_pair(weights, tmp_path):
    folder = write_pairs(tmp_path / "data", ["one"])
    (folder / "sharp" / "one.png").write_bytes(b"no image")
    with pytest.raises(BadImage, match="none of 1 pairs can be used"):
        evaluate([weights["identity"]], folder, tmp_path / "results")
    (folder / "sharp" / "one.png").unlink()
    with pytest.raises(BadImage, match="no photograph has both"):
        evaluate([weights["identity"]], folder, tmp_path / "results")


def test_n_images_are_spread_over_the_sequences(weights, gopro, tmp_path):
    [result], _ = evaluate([weights["identity"]], gopro, tmp_path, n_images=6)
    sequences = [row.sequence for row in result.rows["full"]]
    assert len(sequences) == len(set(sequences)) == 6
    assert sequences[0] == min(SEQUENCES) and sequences[-1] > sorted(SEQUENCES)[7]


def test_several_weight_files_give_one_comparison(weights, gopro, tmp_path):
    names = ["identity", "paper", "meudec"]
    results, _ = evaluate([weights[name] for name in names], gopro, tmp_path, ["full", "half"], n_images=3)
    assert [result.name for result in results] == names
    table = format_comparison(results).splitlines()
    assert len(table) == 2 + 2 * (1 + 3)
    with open(tmp_path / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["weights"], row["protocol"]) for row in rows] == [(n, p) for n in names for p in ("full", "half")]
    for row, result in zip(rows[::2], results, strict=True):
        overall = result.summaries["full"]["overall"]
        assert float(row["psnr_restored"]) == overall["restored"]["psnr"]
        assert row["psnr_blurred"] == rows[0]["psnr_blurred"]
        [line] = [line for line in table[2:6] if f"| {result.name} " in line]
        assert f"{overall['restored']['psnr']:.2f}" in line and f"{overall['gain']['psnr']:+.2f}" in line


def test_weight_files_of_one_name_get_the_name_of_their_folder(weights, gopro, tmp_path):
    paths = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        paths.append(shutil.copy(weights["identity"], tmp_path / run / "generator.h5"))
    results, _ = evaluate(paths, gopro, tmp_path / "results", n_images=1)
    assert [result.folder.name for result in results] == ["first_generator", "second_generator"]
    with pytest.raises(BadWeights, match="would both be called"):
        evaluate([paths[0], paths[0]], gopro, tmp_path / "results")


def test_every_weight_file_is_looked_at_before_anything_is_measured(weights, gopro, tmp_path, measured):
    critic = tmp_path / "critic.h5"
    save_critic(critic_model("paper", ndf=2), critic)
    (tmp_path / "broken.h5").write_bytes(b"no weights")
    for path in (critic, tmp_path / "broken.h5", tmp_path / "missing.h5"):
        with pytest.raises(BadWeights, match=path.name):
            evaluate([weights["identity"], path], gopro, tmp_path / "results")
    assert measured == [] and not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "wrong", [{"protocols": ["quarter"]}, {"protocols": []}, {"n_images": 0}, {"batch_size": 0}], ids=str
)
def test_arguments_out_of_range(weights, gopro, tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        evaluate([weights["identity"]], gopro, tmp_path / "results", **wrong)
    assert not (tmp_path / "results").exists()


def test_read_pair_takes_both_files_the_same_way(gopro):
    [first, *_], _ = evaluation.find_pairs(gopro)
    blurred, sharp = read_pair(first, "half")
    assert blurred.shape == sharp.shape == (18, 24, 3) and blurred.dtype == sharp.dtype == np.uint8


def start(*arguments, folder, backend="tensorflow"):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent), "KERAS_BACKEND": backend}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(*arguments, **options):
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_script_measures_and_says_what_it_left_out(weights, tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    write_pairs(tmp_path / "data", ["one", "two"])
    (tmp_path / "data" / "blur" / "two.png").write_bytes(b"")
    code, out, err = run(
        *("--data_dir", "data", "--weight_path", weights["identity"], "--weight_path", weights["paper"]),
        *("--protocol", "256", "--protocol", "full", "--save_images"),
        folder=tmp_path,
        backend=backend,
    )
    assert code == 1, err
    assert "1 files left out" in err and f"data{os.sep}blur{os.sep}two.png" in err and "Traceback" not in err
    assert out.index("Protocol full") < out.index("Protocol 256") < out.index("Comparison")
    for name in ("identity", "paper"):
        folder = tmp_path / "results" / name
        assert {path.name for path in folder.iterdir()} == {
            *("metrics.csv", "metrics.json", "index.html", "thumbnails", "restored")
        }
        assert (folder / "restored" / "256" / "one.png").exists()
        assert json.loads((folder / "metrics.json").read_text())["command"][1].endswith("test.py")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "results"}


def test_a_killed_run_goes_on_where_it_stopped(weights, tmp_path):
    write_pairs(tmp_path / "data", [f"{number:03}" for number in range(20)], height=96, width=128)
    arguments = ("--data_dir", "data", "--weight_path", weights["paper"], "--output_dir", "out")
    path = tmp_path / "out" / "paper" / "metrics.csv"
    process = start(*arguments, folder=tmp_path)
    while not path.exists() or path.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = read_csv(path.parent)
    assert 3 <= len(before) < 20

    [result], _ = evaluate([weights["paper"]], tmp_path / "data", tmp_path / "out")
    after = read_csv(path.parent)
    assert [row["name"] for row in after] == [f"{number:03}" for number in range(20)]
    # Times would differ had they been measured again.
    assert after[: len(before)] == before
    assert result.summaries["full"]["overall"]["n_images"] == 20


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
def test_script_refuses_a_command_line_that_makes_no_sense(tmp_path, arguments, named):
    code, _, err = run(*arguments, folder=tmp_path)
    assert code == 2 and named in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
