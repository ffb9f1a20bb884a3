"""Which files a run trains on and validates with, and what tells that they are still the same."""

import os
import shutil

import pytest
from conftest import noise, save, write_pairs

from deblur_gan.training.checkpoint import BadRun
from deblur_gan.training.options import Options
from deblur_gan.training.run_data import find_data


def found(folders, check=False, **changes):
    return find_data(Options(**folders, **{"n_val_images": 2, **changes}), check)


@pytest.fixture
def photographs(tmp_path):
    for number in range(20):
        save(tmp_path / "photographs" / f"{number}.png", noise(number))
    return tmp_path / "photographs"


def test_nothing_is_trained_on_and_validated_with(photographs, pairs):
    """With photographs alone, with pairs alone, and with both; what is set aside is not lost either."""
    for seed in range(5):
        data = found({"synthetic": (photographs,)}, seed=seed)
        assert len(data.validation_photographs) == 2
        assert not set(data.validation_photographs) & set(data.photographs)
        assert {*data.validation_photographs, *data.photographs} == set(photographs.iterdir())
        data = found({"data_dir": (pairs,), "synthetic": (photographs,)}, seed=seed)
        assert not set(data.validation_pairs) & set(data.pairs) and len(data.photographs) == 20
        assert len(data.validation_pairs) + len(data.pairs) == 9 and data.validation_pairs


@pytest.mark.parametrize(("n_scenes", "noted"), [(1, True), (2, False), (3, False)])
def test_validation_with_a_scene_that_is_trained_on_is_reported(tmp_path, capsys, n_scenes, noted):
    for scene in range(n_scenes):
        write_pairs(tmp_path / f"GOPR{scene}", range(4), first=4 * scene)
    data = found({"data_dir": (tmp_path,)}, check=True)
    shared = {pair.sequence for pair in data.pairs} & {pair.sequence for pair in data.validation_pairs}
    assert bool(shared) == noted == ("one scene, so validation flatters" in capsys.readouterr().err)


def test_a_list_of_pairs_is_trained_on(tmp_path, pairs):
    file = tmp_path / "list.txt"
    file.write_text("".join(f"images/train/sharp/{i}.png images/train/blur/{i}.png\n" for i in range(5)))
    data = found({"data_dir": (file,)}, check=True)
    assert {pair.blurred for pair in data.pairs + data.validation_pairs} == {pairs / f"blur/{i}.png" for i in range(5)}
    file.write_text("blur/missing.png sharp/missing.png\n")
    with pytest.raises(BadRun, match="cannot be trained on"):
        found({"data_dir": (file,)}, check=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRun, match="no pairs found") as caught:
        found({"data_dir": (tmp_path / "empty",)})
    assert len(str(caught.value)) <= 300


def test_a_scene_that_a_list_has_in_two_folders_is_not_split(tmp_path):
    lines = []
    for number, (kind, scene) in enumerate((kind, scene) for kind in "JR" for scene in range(6)):
        write_pairs(tmp_path / kind / f"scene{scene}", "12", first=2 * number)
        lines += [f"{kind}/scene{scene}/blur/{name}.png {kind}/scene{scene}/sharp/{name}.png\n" for name in "12"]
    (tmp_path / "list.txt").write_text("".join(lines))
    data = found({"data_dir": (tmp_path / "list.txt",)})
    validated = {pair.sharp.parent.parent.name for pair in data.validation_pairs}
    assert validated and not validated & {pair.sharp.parent.parent.name for pair in data.pairs}


def test_each_folder_is_a_source(photographs, pairs, tmp_path):
    write_pairs(tmp_path / "more", range(40), first=50)
    data = found({"data_dir": (pairs, tmp_path / "more"), "synthetic": (photographs,)}, n_images=20)
    (n_first, n_second, n_photographs), n_pairs = data.n_of_sources, len(data.pairs)
    assert (n_first + n_second, n_photographs) == (n_pairs, len(data.photographs)) == (20, 20)
    assert all(pair.sharp.is_relative_to(pairs) for pair in data.pairs[:n_first])
    assert all(pair.sharp.is_relative_to(tmp_path / "more") for pair in data.pairs[n_first:])


def test_the_same_pictures_elsewhere_and_later_are_the_same(photographs, pairs, tmp_path):
    folders = {"data_dir": (pairs,), "synthetic": (photographs,)}
    record = found(folders).record()
    shutil.copytree(pairs, tmp_path / "moved" / "pairs")
    shutil.copytree(photographs, tmp_path / "moved" / "photographs")
    for path in (tmp_path / "moved").rglob("*.png"):
        os.utime(path, (1, 1))
    moved = {"data_dir": (tmp_path / "moved/pairs",), "synthetic": (tmp_path / "moved/photographs",)}
    assert found(moved).record() == record


def test_other_pixels_under_the_same_names_are_noticed(photographs, pairs):
    folders = {"data_dir": (pairs,), "synthetic": (photographs,)}
    before = found(folders)
    kinds = {
        "training_pairs": before.pairs[0].sharp,
        "validation_images": before.validation_pairs[0].blurred,
        "training_photographs": before.photographs[3],
    }
    for kind, path in kinds.items():
        kept = path.read_bytes()
        save(path, noise(1000))
        changed = found(folders).record()["fingerprints"]
        path.write_bytes(kept)
        same = before.record()["fingerprints"]
        assert {name for name in same if changed[name] != same[name]} == {kind}


def test_folders_without_use_are_named(tmp_path, pairs):
    with pytest.raises(BadRun, match="nowhere: no such folder.*deblur-gan organize"):
        found({"data_dir": (tmp_path / "nowhere",)})
    with pytest.raises(BadRun, match="no photographs for --synthetic"):
        found({"synthetic": (str(tmp_path),)})
    shutil.copy(pairs / "blur" / "1.png", pairs / "sharp" / "1.png")
    with pytest.raises(BadRun, match="cannot be trained on for 1 reasons"):
        found({"data_dir": (pairs,)}, check=True)


def test_a_folder_called_val_beside_train_is_validated_with(pairs):
    write_pairs(pairs.with_name("val"), ["a", "b", "c"], first=30)
    data = found({"data_dir": (pairs,)})
    assert [pair.name for pair in data.validation_pairs] == ["a", "c"] and len(data.pairs) == 9
    shutil.move(pairs, pairs.with_name("other"))
    data = found({"data_dir": (pairs.with_name("other"),)})
    assert not {pair.name for pair in data.validation_pairs} & {"a", "b", "c"} and len(data.pairs) == 8


def test_images_that_are_trained_on_are_not_validated_with(pairs, tmp_path):
    """Under the same name, as links, as a sequence of a GoPro tree, and as photographs."""
    refused = r"^--val_dir [^\n]*: (\d+) of its \d+ pairs are trained on, too; [^\n]*$"
    for val_dir in (pairs, tmp_path / "link", tmp_path / "links"):
        if val_dir.name == "link":
            val_dir.symlink_to(pairs)
        if val_dir.name == "links":
            write_pairs(val_dir, ["a"], first=40)
            for kind in ("blur", "sharp"):
                os.link(pairs / kind / "3.png", val_dir / kind / "renamed.png")
        with pytest.raises(BadRun, match=refused):
            found({"data_dir": (pairs,), "val_dir": (val_dir,)})
    gopro = tmp_path / "GOPRO"
    for first, sequence in enumerate(("GOPR1", "GOPR2")):
        write_pairs(gopro / sequence, range(4), first=50 + 10 * first)
    with pytest.raises(BadRun, match=refused):
        found({"data_dir": (gopro,), "val_dir": (gopro / "GOPR2",)})
    with pytest.raises(BadRun, match=refused):
        found({"synthetic": (pairs / "sharp",), "val_dir": (pairs,)})
    data = found({"data_dir": (pairs,), "synthetic": (pairs / "sharp",)})
    (held_out,) = data.validation_pairs
    assert held_out.sharp not in data.photographs and len(data.photographs) == 8


def test_a_pipe_among_the_data_is_not_waited_for(pairs, photographs):
    os.mkfifo(photographs / "pipe.png")
    with pytest.raises(BadRun, match=r"pipe\.png: not a file; remove it"):
        found({"synthetic": (photographs,)}, n_val_images=0).record()
    for kind in ("blur", "sharp"):
        os.mkfifo(pairs / kind / "pipe.png")
    with pytest.raises(BadRun, match=r"pipe\.png: not a file; remove it"):
        found({"data_dir": (pairs,)}, n_val_images=0).record()


def test_a_photograph_that_cannot_be_read_is_found_before_training(photographs, capsys):
    path = photographs / "7.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadRun, match="photographs: cannot be trained on for 1 reasons"):
        found({"synthetic": (photographs,)}, check=True)
    assert f"{path}: " in capsys.readouterr().err


def test_photographs_that_are_all_set_aside_are_not_trained_on(pairs, tmp_path):
    validated = found({"data_dir": (pairs,)}).validation_pairs
    for pair in validated:
        (tmp_path / "again").mkdir(exist_ok=True)
        os.link(pair.sharp, tmp_path / "again" / pair.sharp.name)
    with pytest.raises(BadRun, match="again: no photographs for --synthetic but those set aside"):
        found({"data_dir": (pairs,), "synthetic": (tmp_path / "again",)})
