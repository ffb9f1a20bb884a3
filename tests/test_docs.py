"""Tests README.md and docs/: snippets run, command lines parse, links and names resolve."""

import importlib
import importlib.util
import io
import re
import runpy
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import click
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, save
from PIL import Image

import deblur_gan
from deblur_gan.blur.ranges import KINDS
from deblur_gan.commands import main
from deblur_gan.commands.range_options import RangeType
from deblur_gan.data.samples import blurred_sample, write_sample_images
from deblur_gan.evaluation.metrics import psnr, ssim
from deblur_gan.exporting import FORMATS
from deblur_gan.exporting.export import export_generator
from deblur_gan.images.photographs import read_rgb
from deblur_gan.networks import generator_model
from deblur_gan.training.options import MAY_CHANGE
from deblur_gan.weights import load_generator, save_generator

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "weights" / "README.md"])
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}


def blocks(language):
    """`(page, line, block)` of every fenced block of a language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [
        (page, text.count("\n", 0, match.start()) + 1, match[1])
        for page, text in TEXTS.items()
        for match in fence.finditer(text)
    ]


def prose(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


# ---- snippets


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The root of a clone in which `make_sample_images.py` was run; of its photographs for testing, a part is left.

    Its `meudec` file has no bias or statistic at its neutral value, which those of the box are.
    """
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "weights", folder / "weights", ignore=lambda root, names: set(names) - {"generator.h5"})
    write_sample_images(folder / "images")
    for path in (folder / "images" / "test").glob("*/*.png"):
        save(path, np.asarray(Image.open(path))[100:195, 150:277])
    meudec = generator_model("meudec", ngf=32)
    rng = np.random.default_rng(1)
    for layer in meudec.layers:
        moved = [w + rng.uniform(0, 0.1, w.shape).astype(np.float32) if w.ndim == 1 else w for w in layer.get_weights()]
        layer.set_weights(moved)
    save_generator(meudec, folder / "weights" / "meudec_generator.h5")
    return folder


# What the examples of docs/export.md import, and the format of the file that they restore with.
EXPORTED = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "from ai_edge_litert": "litert",
    "tf.saved_model": "saved_model",
}


def exported_in(block):
    return [format for used, format in EXPORTED.items() if used in block]


SNIPPETS = [pytest.param(block, id=f"{page}:{line}") for page, line, block in blocks("python")]


@pytest.mark.slow
@pytest.mark.parametrize("block", [snippet for snippet in SNIPPETS if exported_in(*snippet.values)])
def test_examples_for_other_engines_restore_as_deblur_does(block, clone, tmp_path, monkeypatch):
    """With small networks; tests/exporting has the shipped one in every format."""
    (format,) = exported_in(block)
    for module in FORMATS[format].needs:
        pytest.importorskip(module)
    if "tensorflow" in FORMATS[format].needs and keras.backend.backend() != "tensorflow":
        pytest.skip("Keras converts this format on TensorFlow only")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clone / "images", "images")
    generator = generator_model("paper", ngf=8, n_blocks=1)
    save_generator(generator, "generator.h5")
    made = Path(f"generator{FORMATS[format].suffix}")
    export_generator("generator.h5", made, format)
    found = {}
    exec(block, found)
    assert f'"{made.name}"' in block and {"keras", "deblur_gan"}.isdisjoint(found)
    blurred = read_rgb("images/test/A/chelsea.png")
    # The examples take neither tiles nor a working size.
    ours = deblur_gan.deblur(generator, blurred, tile_size=max(blurred.shape), scale=1)
    np.testing.assert_allclose(found["restored"].astype(int), ours, atol=1)
    assert np.abs(ours.astype(int) - blurred).max() > 5, "it changes something"
    np.testing.assert_array_equal(read_rgb("restored.png"), found["restored"])


@pytest.mark.slow
@pytest.mark.parametrize("block", [snippet for snippet in SNIPPETS if not exported_in(*snippet.values)])
def test_snippets_run_as_printed(block, clone, monkeypatch):
    for name, module in (("tf_keras", "tf_keras"), ("save_pytorch", "torch")):
        if name in block:
            pytest.importorskip(module)
    if "/restore" in block:
        pytest.skip("tests/web/test_server.py runs it, with a server")
    monkeypatch.chdir(clone)
    found = {}
    exec(block, found)
    if "restored" in found:
        np.testing.assert_array_equal(found["restored"], deblur_gan.deblur(found["generator"], found["blurred"]))
    elif "generator" in found:
        file = "weights/meudec_generator.h5" if "meudec" in block else "weights/generator.h5"
        x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
        ours = keras.ops.convert_to_numpy(load_generator(file)(x))
        assert np.isfinite(ours).all()
        # Keras 2 computes on TensorFlow, whatever the backend is: a hundredth of a grey level apart on others.
        atol = 1e-5 if keras.backend.backend() == "tensorflow" else 0.01 / 127.5
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found["generator"](x)), ours, atol=atol)
    if "means" in found:
        images = {side: [read_rgb(path) for path in sorted(Path("images/test").glob(f"{side}/*"))] for side in "AB"}
        restored = [deblur_gan.deblur(found["generator"], blurred) for blurred in images["A"]]
        for kind, shown in (("blurred", images["A"]), ("restored", restored)):
            for name, metric in (("psnr", psnr), ("ssim", ssim)):
                scores = [metric(sharp, image) for sharp, image in zip(images["B"], shown, strict=True)]
                assert found["means"][kind][name] == pytest.approx(np.mean(scores))
    if "history" in found:
        assert all(np.isfinite(values).all() for values in found["history"].history.values())
    if "sharp" in found:
        assert found["blurred"].shape == found["sharp"].shape and found["kernel"].sum() == pytest.approx(1)
        assert not np.array_equal(found["blurred"], found["sharp"])


# ---- command lines


def commands():
    """`(page, line, words)` of every command line in the pages that calls `deblur-gan` or a Python file of it."""
    found = []
    for page, line, block in blocks("sh"):
        common = next((other for where, _, other in blocks("sh") if where == page and other.startswith("--")), "")
        block = block.replace("COMMON", common.rstrip()).replace("\\\n", " ")
        for command in re.split(r"\n|&&", block):
            words = shlex.split(command, comments=True)
            if words[:1] == ["python"] and words[1].endswith(".py"):
                found.append((page, line, words[1:]))
            if words[:1] == ["deblur-gan"]:
                found.append((page, line, words))
    return found


def script(path):
    """The click command of a Python file, without running it."""
    spec = importlib.util.spec_from_file_location(f"docs_test_{Path(path).stem}", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (command,) = [value for value in vars(module).values() if isinstance(value, click.Command)]
    return command


@pytest.mark.parametrize("words", [pytest.param(words, id=f"{page}:{line}") for page, line, words in commands()])
def test_command_lines_parse(words, monkeypatch):
    # The reader's files are not here; whether one exists is all that is not checked.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    command, name, words = (main if words[0] == "deblur-gan" else script(words[0])), words[0], list(words[1:])
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(click.Context(command), words)
    command.make_context(name, words)


# What the schedulers bring, so that their job files run here: what they would start is printed, not started.
SCHEDULER = """
set -euo pipefail
scontrol() { printf '%s\\n' node1 node2; }
deblur-gan() { echo "${KERAS_DISTRIBUTION_JOB_ADDRESSES-} ${KERAS_DISTRIBUTION_PROCESS_ID-} deblur-gan $*"; }
srun() { for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done; }
exec() { "$@"; }
export -f deblur-gan exec
export SLURM_JOB_NODELIST=node[1-2] SLURM_NTASKS=2 SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=8 JOB_COMPLETION_INDEX=2
"""


def job_files():
    """The shell of every job file in the pages; that of a YAML file is what a container is to run."""
    yield from ((page, line, block) for page, line, block in blocks("bash"))
    for page, line, block in blocks("yaml"):
        for shell in re.findall(r"^( +)- \|\n((?:\1  .*\n)+)", block, re.MULTILINE):
            yield page, line, textwrap.dedent(shell[1])


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{page}:{line}") for page, line, block in job_files()])
def test_job_files_start_what_they_should(block, monkeypatch):
    run = subprocess.run(["bash"], input=SCHEDULER + block, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and not run.stderr, run.stderr
    started = [line.split(" deblur-gan ") for line in run.stdout.splitlines()]
    for number, (variables, line) in enumerate(started):
        test_command_lines_parse(["deblur-gan", *line.split()], monkeypatch)
        if "train" in line:
            # Slurm starts a process for each task here, Kubernetes one in each pod.
            assert variables == (f"node1:29400 {number}" if len(started) > 1 else " 2")
        else:
            assert "--shard 3/8" in line  # the third, whether it is called 3 or, counted from 0 on, 2
    assert len(started) in (1, 2)


def test_every_script_is_used_in_the_pages():
    used = {words[0] for _, _, words in commands()}
    assert {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")} <= used


def functions(group):
    """The commands of a group and of the groups in it."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield from functions(command) if isinstance(command, click.Group) else [command]


SCRIPTS = [f"scripts/{path.name}" for path in sorted((ROOT / "scripts").glob("*.py"))]


@pytest.mark.parametrize(
    "script, arguments, code, line",
    [
        ("average_weights", "two.h5 --output missing/mean.h5", 1, "missing/mean.h5"),
        ("average_weights", "no.h5 --output mean.h5", 1, "no.h5: not an HDF5 file"),
        ("calibrate_colours", "--weight_path no.h5 --data_dir . --output mean.h5", 1, "no.h5: not an HDF5 file"),
        ("draw_gallery", "--weight_path no.h5 --output a.png", 1, "no.h5: not an HDF5 file"),
        ("draw_gallery", "--reds empty --weight_path two.h5 --output a.png", 1, "empty: no pairs found"),
        ("draw_stages", "--data_dir empty --output a.png", 1, "empty: no pairs found"),
        ("draw_large_photograph", "no.h5 --output a.jpg", 1, "no.h5: "),
        ("measure_grid", "empty", 1, "empty: contains no photograph with flat parts"),
        ("measure_grid", "noise", 1, "noise: contains no photograph with flat parts"),
        ("measure_grid", "noise --scale big", 2, "'big': must be auto, or a number above 0"),
        ("measure_vgg19", "--data_dir empty --vgg_weights no.h5", 1, "no.h5: not an HDF5 file"),
        ("measure_working_size", "--data_dir empty --weight_path two.h5", 1, "empty: no pairs found"),
    ],
)
def test_scripts_of_the_pages_report_bad_input_in_one_line(script, arguments, code, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "docs")  # where Python looks for what a script imports
    save_generator(generator_model("paper", 2, 1), "two.h5")
    Path("no.h5").write_bytes(b"no")
    Path("empty").mkdir()
    save(Path("noise/a.png"), np.random.default_rng(0).integers(0, 256, (64, 64, 3), "uint8"))
    before = sorted(tmp_path.rglob("*"))
    command = runpy.run_path(str(ROOT / "docs" / f"{script}.py"))["main"]
    result = CliRunner().invoke(command, shlex.split(arguments))
    assert result.exit_code == code and isinstance(result.exception, SystemExit), result.exception
    message = result.stderr.splitlines()[-1]
    assert message.startswith("Error: ") and line in message
    assert sorted(tmp_path.rglob("*")) == before


def test_every_flag_that_is_mentioned_exists():
    commands = [main, *map(script, SCRIPTS), *functions(main)]
    flags = {flag for command in commands for param in command.params for flag in param.opts}
    flags |= set(re.findall(r'"(--\w+)"', "".join(path.read_text() for path in (ROOT / "docs").glob("*.py"))))
    for page, text in TEXTS.items():
        mentioned = set(re.findall(r"(?<![\w-])--[a-z]\w*", prose(text)))
        # Those of TensorBoard, curl and pytest are among them.
        unknown = mentioned - flags - {"--help", "--logdir", "--data", "--dist"}
        assert not unknown, f"{page}: {unknown}"


def test_defaults_in_the_table_of_flags_are_those_of_train():
    defaults = script("scripts/train.py").make_context("train.py", []).params
    rows = re.findall(r"^\| `--(\w+)` \| (.*?) \|", TEXTS["README.md"], re.MULTILINE)
    assert len(rows) == 8
    for name, printed in rows:
        default = {(): "none", None: "none"}.get(defaults[name], f"`{defaults[name]}`")
        assert printed == {"data_dir": "`images/train`"}.get(name, default), name


def test_the_table_of_kinds_of_blur_is_theirs():
    rows = re.findall(r"^\| `--(\w+)` \|.*?\| ([^|]+) \| ([^|]+) \|$", TEXTS["docs/synthetic_blur.md"], re.MULTILINE)
    printed = [{name: RangeType().convert(row[kind], None, None) for name, *row in rows} for kind in (0, 1)]
    for kind, ranges in zip(printed, (KINDS["handheld"], KINDS["paper"]), strict=True):
        off = RangeType().convert("none", None, None)
        wanted = {name: off if ranges.get(name) is None else tuple((*ranges[name], 1.0)[:3]) for name in kind}
        assert kind == wanted and ranges.keys() <= kind.keys()


def test_the_flags_that_may_change_are_those_of_resume():
    sentence = re.search(r"may change when a run is resumed:(.*?)\.", TEXTS["docs/training.md"], re.DOTALL)[1]
    assert sorted(re.findall(r"`--(\w+)`", sentence)) == sorted(MAY_CHANGE)


# ---- links and names


def anchors(text):
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_links_between_the_pages_resolve():
    for page, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / page).parent / path if path else ROOT / page
            assert file.exists(), f"{page}: {target}"
            if anchor:
                assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page}: {target}"


def test_files_and_names_that_are_mentioned_exist():
    folders = [ROOT, *(ROOT / name for name in ("scripts", "docs", "tests")), *ROOT.glob("deblur_gan/**/")]
    for page, text in TEXTS.items():
        for code in re.findall(r"`([^`\n]+)`", prose(text)):
            for file in re.findall(r"[\w/]+\.py\b", code):
                assert any((folder / file).is_file() for folder in folders), f"{page}: {file}"
            for name in re.findall(r"\bdeblur_gan(?:\.\w+)+", code):
                module, _, attribute = name.rpartition(".")
                known = hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(name)
                assert known, f"{page}: {name}"


def test_readme_lists_every_folder():
    listed = re.findall(r"^\| \[`(\w+)/`\]\(deblur_gan/\1\) \|", TEXTS["README.md"], re.MULTILINE)
    assert sorted(listed) == sorted(path.parent.name for path in ROOT.glob("deblur_gan/*/__init__.py"))
    for file in ROOT.glob("deblur_gan/[a-z]*.py"):
        assert f"`{file.name}`" in TEXTS["README.md"]


def test_the_sample_in_the_snippets_is_one_of_ours():
    assert Image.open(io.BytesIO(blurred_sample("coffee"))).size == (600, 400)
