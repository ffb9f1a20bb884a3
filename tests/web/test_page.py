"""The page of `deblur-gan serve`, in a real browser and through its API: bytes equal to those of `restore`."""

import base64
import functools
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, child_environment, photograph
from PIL import Image

from deblur_gan.backend import dtype_to_restore_in
from deblur_gan.commands import main
from deblur_gan.images.photographs import read_rgb
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.restoring.deblur import deblur
from deblur_gan.restoring.jobs import find_jobs, restore_files
from deblur_gan.weights import load_generator, save_critic, save_generator

pytest.importorskip("gradio", reason='needs Gradio: pip install -e ".[web]"')

from deblur_gan import page  # noqa: E402

NAME = "Straße & Café (1).jpg"
PATIENCE = 12  # seconds that a busy machine may take
SECRET = b"the secret of another file"
# Whom this process looks up and connects to while the page is served.
HOSTS = set()


def note_hosts(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        HOSTS.add(arguments[1][0])
    if event == "socket.getaddrinfo":
        HOSTS.add(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two tiny generators that change what they are given."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for seed, name in enumerate(("generator.h5", "other.h5")):
        keras.utils.set_random_seed(seed)
        paths[name] = folder / name
        save_generator(generator_model("meudec", ngf=4, n_blocks=1), paths[name])
    return paths


class Served:
    """The page, served by a thread of this process.

    Attributes:
        url: str, of the page, with a slash in the end.
        folder: Path of the temporary folder.
    """

    def __init__(self, weights):
        sys.addaudithook(note_hosts)
        HOSTS.clear()
        listener = page.listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        started = queue.Queue()

        def run():
            try:
                page.serve(listener, weights, started.put)
            except BaseException as error:
                started.put(error)

        self._thread = threading.Thread(target=run)
        self._thread.start()
        self._server = started.get(timeout=600)
        if isinstance(self._server, BaseException):
            raise self._server
        self.folder = Path(os.environ["GRADIO_TEMP_DIR"]).parent

    def close(self):
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def ask(self, path, body=None):
        """`(status, text)` of a request; with a body it is posted as JSON."""
        request = urllib.request.Request(self.url + path.lstrip("/"))
        if body is not None:
            request = urllib.request.Request(
                self.url + path.lstrip("/"), json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def restore(self, photographs, strength=1, weights="generator.h5", ensemble=1):
        """`(event, data)` of the last word of the endpoint `restore`."""
        status, text = self.ask("gradio_api/call/restore", {"data": [photographs, strength, weights, ensemble]})
        if status != 200:
            return "refused", text.decode()
        _, text = self.ask(f"gradio_api/call/restore/{json.loads(text)['event_id']}")
        event, data = re.findall(r"event: (\w+)\ndata: (.*)", text.decode())[-1]
        return event, json.loads(data)

    def upload(self, path):
        """Uploads a file; returns it as the endpoints take it."""
        out = subprocess.run(
            ["curl", "-sS", self.url + "gradio_api/upload", "-F", f"files=@{path}"], capture_output=True, check=True
        ).stdout
        return file_data(json.loads(out)[0], orig_name=path.name)


def file_data(path, **more):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


@pytest.fixture(scope="module")
def served(weights):
    served = Served(weights)
    yield served
    served.close()
    assert not served.folder.exists()
    assert served.folder.name.startswith("deblur-gan-")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Photographs with metadata, a text that is called .jpg, and a few kilobytes that claim 100 megapixels."""
    folder = tmp_path_factory.mktemp("pictures")
    exif = Image.Exif()
    exif[0x010E] = "a street"
    exif[0x0112] = 6  # stands on its side
    Image.fromarray(photograph(1, 90, 120)).save(folder / NAME, quality=80, exif=exif, dpi=(300, 300))
    Image.fromarray(photograph(2, 64, 50)).save(folder / "second.png")
    Image.fromarray(photograph(3, 70, 50)).save(folder / "third.tiff")
    (folder / "text.jpg").write_text("this is no picture")
    Image.new("1", (10_000, 10_000)).save(folder / "huge.png")
    return folder


@pytest.fixture(scope="module")
def wanted(pictures, weights, tmp_path_factory):
    """What `restore` makes of the pictures, by name."""
    folder = tmp_path_factory.mktemp("wanted")
    generator = load_generator(weights["generator.h5"], dtype_to_restore_in())
    list(restore_files(lambda: functools.partial(deblur, generator), find_jobs([pictures], folder)[0]))
    results = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(results) == {NAME, "second.png", "third.tiff"}
    return results


# ---- in a browser


@pytest.fixture
def tab(served, chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(1000 * PATIENCE)
    tab = context.new_page()
    tab.asked = []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(served.url)
    tab.locator("#photographs input[type=file]").wait_for(state="attached")
    yield tab
    context.close()


def drop(tab, selector, *paths, hovering=None):
    """Drops files on an element as a hand does, which was over it or, until that very moment, over another one."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    devtools = tab.context.new_cdp_session(tab)
    before = hovering or selector
    for kind, over in (("dragEnter", before), ("dragOver", before), ("drop", selector)):
        box = tab.locator(over).bounding_box()
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        devtools.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def links(tab, *names):
    """Waits until the results have these names; returns their links."""
    tab.wait_for_function(
        "(names) => JSON.stringify([...document.querySelectorAll('#restored a')].map((a) => a.download)) === names",
        arg=json.dumps(names, ensure_ascii=False, separators=(",", ":")),
    )
    return tab.locator("#restored a").all()


def downloaded(tab, link):
    with tab.expect_download() as download:
        link.click()
    return download.value.suggested_filename, download.value.path().read_bytes()


# How far the restored photograph is cut off, in percent; null before both pictures are there.
CUT = """() => {
  const images = [...document.querySelectorAll('#slider img')];
  if (images.length !== 2 || images.some((image) => !image.naturalWidth)) return null;
  const cut = /([\\d.]+)%\\)/.exec(images[1].style.clipPath);
  return cut && Number(cut[1]);
}"""


def sizes(tab):
    return tab.locator("#slider img").evaluate_all("(images) => images.map((i) => [i.naturalWidth, i.naturalHeight])")


def test_a_photograph_is_dropped_compared_and_downloaded(tab, served, pictures, wanted):
    drop(tab, "#photographs", pictures / NAME)
    (link,) = links(tab, NAME)
    tab.wait_for_function(f"() => ({CUT})() !== null")
    assert sizes(tab) == [[90, 120], [90, 120]]  # upright, at full resolution
    before = tab.evaluate(CUT)
    handle = tab.locator("#slider [data-testid=slider] .icon-wrap").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 40, y, steps=4)
    tab.mouse.up()
    tab.wait_for_function(f"(before) => ({CUT})() < before - 2", arg=before)
    name, content = downloaded(tab, link)
    assert name == NAME and content == wanted[NAME]
    assert not tab.locator("#notes").is_visible()
    # Nothing was asked of anyone else.
    assert {url for url in tab.asked if not url.startswith((served.url, "data:", "blob:"))} == set()


@pytest.mark.parametrize("hovering", ["footer", "h1"])
def test_several_at_once_dropped_beside_the_field_and_one_that_is_no_picture(tab, pictures, wanted, hovering):
    names = "third.tiff", "text.jpg", "second.png"
    drop(tab, "footer", *(pictures / name for name in names), hovering=hovering)
    found = links(tab, "third.tiff", "second.png")
    assert [downloaded(tab, link)[1] for link in found] == [wanted["third.tiff"], wanted["second.png"]]
    note = tab.locator("#notes textarea")
    note.wait_for()
    assert note.input_value().startswith("text.jpg: not an image that can be read; JPEG")
    # A browser shows no TIFF, but a copy of it.
    tab.wait_for_function(f"() => ({CUT})() !== null")
    assert sizes(tab) == [[50, 70], [50, 70]]
    tab.locator("#which input").click()
    tab.get_by_role("option", name="2. second.png").click()
    tab.wait_for_function("() => document.querySelector('#slider img').naturalHeight === 64")
    assert sizes(tab) == [[50, 64], [50, 64]]


def test_a_picture_beyond_the_limits_is_refused_in_words_and_a_sample_follows(tab, pictures):
    drop(tab, "#photographs", pictures / "huge.png")
    note = tab.locator("#notes textarea")
    note.wait_for()
    assert re.fullmatch(r"huge.png: claims 10000x10000 pixels, of which \d+ bytes hold too little", note.input_value())
    assert tab.locator("#restored a").count() == 0 and not tab.locator("#slider").is_visible()
    tab.locator("#samples button").nth(1).click()
    links(tab, "chelsea.png")
    tab.wait_for_function(f"() => ({CUT})() !== null")
    note.wait_for(state="hidden")


def test_a_picture_is_pasted_and_taken_away(tab, pictures):
    content = base64.b64encode((pictures / "second.png").read_bytes()).decode()
    tab.evaluate(
        """async (content) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          await navigator.clipboard.write([new ClipboardItem({'image/png': new Blob([bytes], {type: 'image/png'})})]);
        }""",
        content,
    )
    tab.keyboard.press("Control+v")
    links(tab, "image.png")
    tab.wait_for_function(f"() => ({CUT})() !== null")
    assert sizes(tab) == [[50, 64], [50, 64]]
    tab.locator("#photographs").get_by_label("Clear").click()
    links(tab)
    tab.locator("#slider").wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_sticks_out(served, chromium, pictures, scheme):
    context = chromium.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme=scheme
    )
    context.set_default_timeout(1000 * PATIENCE)
    tab = context.new_page()
    tab.goto(served.url)
    tab.locator("#photographs input[type=file]").set_input_files(pictures / NAME)
    links(tab, NAME)
    tab.wait_for_function(f"() => ({CUT})() !== null")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", ground)[0]) < 60) == (scheme == "dark")
    context.close()


# ---- through its API


def test_what_the_pages_say_of_curl_and_python_works_as_printed(served, pictures, wanted, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "page.md").read_text(encoding="utf-8").replace("http://127.0.0.1:7860/", served.url)
    (shell,) = [block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "curl" in block]
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shutil.copy(pictures / NAME, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    before = set(HOSTS)
    exec(python, found := {})
    HOSTS.intersection_update(before)  # Gradio's client, other than the page, looks for Hugging Face
    assert Path(found["restored"][0]).read_bytes() == wanted[NAME]
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    subprocess.run(["bash", "-euc", shell], check=True)
    assert (tmp_path / "restored.jpg").read_bytes() == wanted[NAME]


def test_strength_weights_and_ensemble_are_those_that_were_asked_for(served, pictures, weights):
    upload = served.upload(pictures / "second.png")
    blurred = read_rgb(pictures / "second.png")
    generators = {name: load_generator(path, dtype_to_restore_in()) for name, path in weights.items()}
    for name, strength, ensemble in (
        ("generator.h5", 1, 1),
        ("generator.h5", 1, 4),
        ("other.h5", 1, 1),
        ("other.h5", 0.5, 1),
        ("other.h5", 0, 1),
    ):
        event, (files, notes, *_) = served.restore([upload], strength, name, ensemble)
        assert event == "complete" and notes == ""
        restored = read_rgb(files[0]["path"])
        expected = deblur(generators[name], blurred, strength=strength, ensemble=ensemble)
        np.testing.assert_array_equal(restored, expected)
        assert files[0]["orig_name"] == "second.png"
    np.testing.assert_array_equal(restored, blurred)
    assert served.restore([upload], 1, "../generator.h5")[0] == "error"
    assert served.restore([upload], ensemble=3)[0] == "error"
    assert served.restore([upload], 2)[0] == "error" or "strength" in served.restore([upload], 2)[1][1]


def test_the_same_photograph_is_restored_once(served, pictures, monkeypatch):
    calls = []
    monkeypatch.setattr(page, "deblur", lambda *a, **k: calls.append(1) or deblur(*a, **k))
    upload = served.upload(pictures / "second.png")
    first, again, other = (served.restore([upload], strength)[1][0][0] for strength in (0.3, 0.3, 0.4))
    assert first["path"] == again["path"] != other["path"] and len(calls) == 2


def test_two_visitors_wait_for_each_other(served, pictures, monkeypatch):
    at_work, most = [], []

    def watched(*arguments, **options):
        at_work.append(1)
        most.append(len(at_work))
        try:
            return deblur(*arguments, **options)
        finally:
            at_work.pop()

    monkeypatch.setattr(page, "deblur", watched)
    uploads = [served.upload(pictures / name) for name in ("second.png", "third.tiff", NAME)]
    with ThreadPoolExecutor() as visitors:
        answers = list(visitors.map(lambda upload: served.restore([upload], 0.7), uploads))
    assert [data[0][0]["orig_name"] for _, data in answers] == ["second.png", "third.tiff", NAME]
    assert most == [1, 1, 1]


def test_a_name_that_points_elsewhere_stays_in_its_folder(served, pictures):
    upload = served.upload(pictures / "second.png")
    for name, kept in (("../../evil.png", "evil.png"), ("/etc/passwd", "passwd"), ("..", None), ("a\0b.png", None)):
        event, (files, notes, *_) = served.restore([upload | {"orig_name": name}])
        assert event == "complete"
        if kept:
            assert files[0]["orig_name"] == kept and Path(files[0]["path"]).is_relative_to(served.folder / "cache")
        else:
            assert files is None and notes
    assert not list(served.folder.parent.glob("evil.png"))


def test_no_other_file_is_read_and_no_address_fetched(served, pictures, weights, tmp_path):
    secret = tmp_path / "secret.png"
    Image.fromarray(photograph(9)).save(secret)
    secret.write_bytes(secret.read_bytes() + SECRET)
    uploaded = Path(served.upload(pictures / "second.png")["path"])
    aside = Path(os.path.relpath(secret, uploaded.parent))
    elsewhere = [secret, uploaded.parent / aside, "https://example.com/photo.png", "http://127.0.0.1:1/photo.png"]
    for path in elsewhere:
        for data in (file_data(path), file_data(path, url=str(path)), {"path": str(path)}, str(path)):
            event, said = served.restore([data])
            assert event in ("error", "refused"), said
        assert "gradio_api" in served.url or served.ask(f"gradio_api/file={path}")[0] == 403
    # Nor by what the page keeps to itself: every function, with the file at every place.
    _, config = served.ask("config")
    for function in json.loads(config)["dependencies"]:
        for data in ([[file_data(secret)]], [file_data(secret)], file_data(secret)):
            served.ask(
                "gradio_api/queue/join",
                {"fn_index": function["id"], "data": [data] * max(1, len(function["inputs"])), "session_hash": "x"},
            )
    served.restore([served.upload(pictures / "second.png")])  # after them in the queue
    assert not any(SECRET in path.read_bytes() for path in served.folder.rglob("*") if path.is_file())
    assert served.ask("gradio_api/file=" + str(weights["generator.h5"]))[0] == 403
    assert "example.com" not in HOSTS


def test_a_malformed_call_is_one_line_on_the_terminal(served, tmp_path, capfd):
    inside = file_data("a\0b")
    calls = [
        [],
        [[], 1, "generator.h5"],
        [5, 1, "generator.h5", 1],
        [[5], 1, "generator.h5", 1],
        [[], "much", "generator.h5", 1],
        [[], 2, "generator.h5", 1],
        [[], None, None, None],
        [[], 1, "nothing\n.h5", 1],
        [[], 1, "generator.h5", 3],
        [[], 1, "generator.h5", "many"],
        [[file_data(tmp_path)], 1, "generator.h5", 1],
        [[inside], 1, 5, 1],
    ]
    capfd.readouterr()
    for number, data in enumerate(calls, 1):
        _, answer = served.ask("gradio_api/call/restore", {"data": data})
        _, answer = served.ask(f"gradio_api/call/restore/{json.loads(answer)['event_id']}")
        assert answer.startswith(b"event: error"), data
        said = capfd.readouterr().err
        assert re.fullmatch(r"A call of the page was refused: .{5,300}\n", said), (number, data)


def test_the_served_page_names_no_one_to_ask(served):
    with urllib.request.urlopen(served.url) as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy
    loaded = re.findall(r"""<(?:script|link|img|iframe)[^>]*?(?:src|href)=["'](?:https?:)?//([^/"']+)""", text)
    assert {host for host in loaded if host not in served.url} == set()
    assert {host for host in HOSTS if host not in ("127.0.0.1", "localhost", "0.0.0.0", None)} == set()


# ---- the command


def test_the_command_serves_until_ctrl_c_and_leaves_nothing(weights, pictures, wanted, tmp_path):
    for name in ("tmp", "home", "work"):
        (tmp_path / name).mkdir()
    environment = child_environment(
        TMPDIR=str(tmp_path / "tmp"),
        HOME=str(tmp_path / "home"),
        KERAS_HOME=str(Path.home() / ".keras"),
        HTTP_PROXY="http://127.0.0.1:1",
        GRADIO_TEMP_DIR=None,
    )
    command = [
        sys.executable,
        "-m",
        "deblur_gan",
        "serve",
        "--port",
        "0",
        "--weight_path",
        str(weights["generator.h5"]),
    ]
    server = subprocess.Popen(
        command, cwd=tmp_path / "work", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = server.stdout.readline()
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+/", line)
        with urllib.request.urlopen(url) as answer:
            assert b"Restore blurred photographs" in answer.read()
        (folder,) = (tmp_path / "tmp").iterdir()
        assert folder.name.startswith("deblur-gan-")
        server.send_signal(signal.SIGINT)
        out, errors = server.communicate(timeout=PATIENCE)
    finally:
        server.kill()
    assert (server.returncode, out, errors) == (0, "Closed\n", "")
    assert [*(tmp_path / "tmp").iterdir(), *(tmp_path / "work").iterdir()] == []
    # Keras and what it imports keep their own settings and caches there.
    theirs = {"matplotlib", "intel", ".keras"}
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file() and not theirs & set(path.parts)] == []
    assert list((ROOT / "deblur_gan").rglob("*.pyi")) == []  # as Gradio makes where a component is subclassed


def test_what_cannot_be_served_is_said_in_one_line(served, tmp_path, monkeypatch):
    port = re.search(r":(\d+)/", served.url)[1]
    result = CliRunner().invoke(main, ["serve", "--port", port])
    assert result.exit_code == 1 and result.output.count("\n") == 1
    assert f"--host 127.0.0.1 --port {port}: cannot be served at (Address already in use)" in result.output
    result = CliRunner().invoke(main, ["serve", "--host", "192.0.2.1", "--port", "0"])
    assert result.exit_code == 1 and "--host 192.0.2.1 --port 0: cannot be served at" in result.output
    (tmp_path / "text.h5").write_text("no weights")
    result = CliRunner().invoke(main, ["serve", "--port", "0", "--weight_path", str(tmp_path / "text.h5")])
    assert result.exit_code == 1 and result.output.count("\n") == 1 and "text.h5" in result.output
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    result = CliRunner().invoke(main, ["serve"])
    assert result.exit_code == 1 and 'pip install "deblur-gan[web]"' in result.output


def test_only_generators_are_offered(weights, tmp_path, monkeypatch):
    for name, path in weights.items():
        shutil.copy(path, tmp_path / name)
    save_critic(critic_model("paper", 2), tmp_path / "critic.h5")
    (tmp_path / "damaged.h5").write_text("no weights")
    monkeypatch.setattr(page, "shipped_generator", lambda: tmp_path / "generator.h5")
    assert list(page.weights_in_the_box()) == ["generator.h5", "other.h5"]


def test_the_given_weights_come_first_then_those_in_the_box(weights):
    shipped = list(page.weights_in_the_box())
    assert shipped[0] == "generator.h5" and page.weights_in_the_box()["generator.h5"].stat().st_size > 1e6
    assert list(page.weights_in_the_box(weights["other.h5"])) == ["other.h5", *shipped]
    assert page.weights_in_the_box(weights["generator.h5"])["generator.h5"] == weights["generator.h5"]
