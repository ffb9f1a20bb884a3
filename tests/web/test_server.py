"""The server of the page by HTTP: the same bytes as `deblur-gan restore`, and no harm from whatever is sent."""

# ruff: noqa: F401, F811 (fixtures are found by their names)

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, child_environment, free_port
from PIL import Image
from serving import (
    NAME,
    PATIENCE,
    Served,
    eventually,
    form,
    generators,
    pictures,
    pixels,
    served,
    tiles,
    wanted,
    weights,
)

from deblur_gan.commands import main
from deblur_gan.images.photographs import read_rgb
from deblur_gan.restoring.deblur import deblur
from deblur_gan.web import restorer, server, uploads


def sentence(answer, status):
    """Returns the error of an answer with this status: one printable sentence, without a path of this machine."""
    assert answer[0] == status, answer
    error = json.loads(answer[2])["error"]
    assert set(json.loads(answer[2])) == {"error"} and len(error) <= 300 and error.isprintable()
    assert str(ROOT) not in error and "/tmp" not in error and "Traceback" not in error
    return error


# ---- photographs


@pytest.mark.parametrize(
    ("size", "scales"),
    [((4000, 3000), (0.24, 0.16)), ((600, 400), (1.6, 1)), ((90, 160), (2, 1)), ((960, 960), (1, 2 / 3))],
)
def test_an_estimate_counts_both_working_copies(size, scales):
    def cost(scale):
        job = restorer.Job(b"", "photo.jpg", "faithful", scale=scale)
        job.plan(size)
        return job.cost("finer")

    assert cost("auto") == pytest.approx(sum(map(cost, scales)))


def test_a_form_and_bytes_come_back_as_restore_writes_them(served, pictures, wanted):
    for name, kind in ((NAME, "image/jpeg"), ("second.png", "image/png"), ("third.tiff", "image/tiff")):
        status, headers, content = served.post(pictures / name)
        assert status == 200 and content == wanted()[name] and headers["Content-Type"] == kind
        assert f"filename*=UTF-8''{urllib.request.quote(name, safe='')}" in headers["Content-Disposition"]
        assert served.ask("restore", (pictures / name).read_bytes())[2] == content
    assert served.idle()
    assert served.status["views"] == {"fast": 1, "finer": 4, "finest": 8}  # times as long


def test_fields_reach_deblur(served, pictures, generators):
    blurred = read_rgb(pictures / "second.png")
    for fields, expected in (
        ({"strength": 0.5}, {"strength": 0.5}),
        ({"weights": "crisper"}, {}),
        ({"views": "finer"}, {"ensemble": restorer.VIEWS["finer"]}),
        ({"views": "finest", "scale": "auto"}, {"ensemble": restorer.VIEWS["finest"]}),
        ({"scale": 1}, {"scale": 1.0}),
        ({"scale": 0.5, "strength": "0"}, {"strength": 0}),
    ):
        answer = served.post(pictures / "second.png", **fields)
        restored = deblur(generators[fields.get("weights", "faithful")], blurred, **expected)
        np.testing.assert_array_equal(pixels(answer[2]), restored, str(fields))
        query = "&".join(f"{name}={value}" for name, value in fields.items())
        assert served.ask(f"restore?{query}", (pictures / "second.png").read_bytes())[2] == answer[2]


def test_what_is_not_kept_is_in_a_header(served, tmp_path):
    rgba = Image.fromarray(np.full((30, 40, 4), 200, np.uint8))
    rgba.save(tmp_path / "a.bmp")
    status, headers, _ = served.post(tmp_path / "a.bmp")
    assert status == 200 and headers["X-Notes"] is None or "transparency" in headers["X-Notes"]
    (tmp_path / "b.png").write_bytes((tmp_path / "a.bmp").read_bytes())  # the content decides, the name stays
    assert 'filename="b.png"' in served.post(tmp_path / "b.png")[1]["Content-Disposition"]


def test_lines_tell_the_progress_and_the_bytes_follow(served, pictures, wanted):
    for name, n_copies in (("second.png", 0), ("third.tiff", 2)):
        content = served.post(pictures / name, headers={"Accept": server.LINES})[2]
        *_, last = states = [json.loads(line) for line in re.findall(rb"^(\{.*\})\n", content, re.MULTILINE)]
        assert last["state"] == "restored" and last["name"] == name and last["notes"] == []
        assert {state["state"] for state in states} <= {"loading", "waiting", "restoring", "restored"}
        n_bytes = last["bytes"] + sum(last["copies"])
        assert content[-n_bytes:][: last["bytes"]] == wanted()[name]
        assert last["times"]["fast"] <= last["times"]["finer"] <= last["times"]["finest"]
        copies = content[-n_bytes:][last["bytes"] :]
        assert len(last["copies"]) == n_copies
        if n_copies:  # the photograph before and after, as a browser displays it
            before, after = copies[: last["copies"][0]], copies[last["copies"][0] :]
            np.testing.assert_array_equal(pixels(before), read_rgb(pictures / name))
            np.testing.assert_array_equal(pixels(after), pixels(wanted()[name]))
        width, height = last["size"]
        assert last["working_size"] == [2 * width, 2 * height]  # small photographs are enlarged
    content = served.post(pictures / "huge.png", headers={"Accept": server.LINES})
    lines = content[2].splitlines()
    assert b"claims 10000x10000 pixels" in lines[-1] and json.loads(lines[-1])["status"] == 415
    eventually(served.idle)


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"strength": 2}, 422, "strength '2': must be a number from 0 to 1"),
        ({"strength": "nan"}, 422, "strength 'nan': "),
        ({"strength": "much\x1b[31m"}, 422, "strength "),
        ({"scale": 0}, 422, "scale '0': must be a number from 0.01 to 4"),
        ({"scale": "9" * 5000}, 422, "scale '999"),
        ({"views": 4}, 422, "views '4': must be one of fast, finer, finest"),
        ({"weights": "../generator.h5"}, 422, "weights '../generator.h5': must be one of faithful, crisper"),
        ({"colour": "red"}, 422, "field 'colour': is not known; "),
        ({str(number): "" for number in range(100)}, 400, "the form: cannot be read (Too many fields"),
        ({"strength": "1" * 2_000_000}, 400, "the form: cannot be read (Part exceeded"),
    ],
)
def test_a_bad_value_is_refused(served, pictures, fields, status, says):
    assert sentence(served.post(pictures / "second.png", **fields), status).startswith(says)


def test_a_working_copy_of_more_than_50_megapixels_is_refused_unless_its_size_is_chosen(
    served, pictures, tmp_path, tiles
):
    tiles.release(300)  # for those that are restored
    Image.new("1", (4000, 3000)).save(tmp_path / "flat.png", dpi=(72, 72))
    refused = (
        "scale 3: the working copy would have 12000x9000 pixels; at most 50 megapixels are allowed: "
        "take a smaller scale, or auto"
    )
    assert sentence(served.post(tmp_path / "flat.png", scale=3), 422) == refused
    for scale in (2, "auto"):
        assert served.post(tmp_path / "flat.png", scale=scale)[0] == 200
    content = (tmp_path / "flat.png").read_bytes()
    at = content.index(b"pHYs") + 5
    content = content[:at] + b"!" + content[at + 1 :]  # a wrong checksum: the size is found when its turn comes
    assert sentence(served.ask("restore?scale=3", content), 422) == refused


def test_what_is_no_photograph_is_refused(served, pictures, tmp_path):
    assert sentence(served.post(pictures / "text.jpg"), 415).startswith("text.jpg: not an image that can be read")
    assert sentence(served.post(pictures / "huge.png"), 415).startswith("huge.png: claims 10000x10000 pixels")
    Image.new("L", (9, 9)).save(tmp_path / "a.gif")
    assert sentence(served.post(tmp_path / "a.gif"), 415).startswith("a.gif: ")
    (tmp_path / "cut.png").write_bytes((pictures / "second.png").read_bytes()[:-500])
    assert sentence(served.post(tmp_path / "cut.png"), 415).startswith("cut.png: ")
    (tmp_path / "empty.png").touch()
    for answer in (served.post(tmp_path / "empty.png"), served.ask("restore", b"")):
        assert sentence(answer, 422).startswith("photograph: is missing or empty")
    for path in sorted((ROOT / "tests" / "hostile").iterdir()):
        answer = served.post(path)
        assert answer[0] == 200 or sentence(answer, 415)


def test_odd_names_stay_names(served, pictures):
    for name, kept in (
        ("../../evil.png", "evil.png"),
        (r"C:\Users\me\photo.png", "photo.png"),
        ("..", "photograph"),
        ("", "photograph"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\x1b[31mb.png", "a\\x1b[31mb.png"),
        ("long" * 300 + ".png", None),
    ):
        status, headers, _ = served.post(pictures / "second.png", name=name)
        assert status in (200, 422)  # without a name it is no file
        if status == 200:
            said = headers["Content-Disposition"]
            assert said.isprintable() and len(said) < 1000
            assert kept is None or said.endswith("UTF-8''" + urllib.request.quote(kept, safe=""))


def test_a_malformed_form_is_refused(served):
    rng = np.random.default_rng(0)
    body, headers = form(b"content", "a.png", strength=1)
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"):
        assert sentence(served.ask("restore", body, {"Content-Type": kind}), 400)
    for _ in range(100):
        damaged = bytearray(body)
        for place in rng.integers(0, len(body), 4):
            damaged[place] = rng.integers(256)
        cut = bytes(damaged[: rng.integers(1, len(body))])
        answer = served.ask("restore", cut, headers)
        assert sentence(answer, answer[0]) and answer[0] in (400, 415, 422)
    assert sentence(served.ask("restore", body + form(b"again", "b.png")[0], headers), 415)
    two = body.replace(b"--xx--", b"").rstrip() + b"\r\n" + form(b"again", "b.png")[0]
    assert sentence(served.ask("restore", two, headers), 400)
    assert served.idle()


# ---- who gets in


def test_only_local_hosts_and_the_own_page_get_in(served, pictures):
    body, headers = form((pictures / "second.png").read_bytes(), "a.png")
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", "", "192.168.1.1"):
        assert sentence(served.ask("", headers={"Host": host}), 403).startswith(f"host {host!r}")
        assert sentence(served.ask("restore", body, headers | {"Host": host}), 403)
    for host in ("localhost", "LOCALHOST:7860", "127.0.0.1", "[::1]:7860"):
        assert served.ask("", headers={"Host": host})[0] == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[", "file://"):
        assert sentence(served.ask("restore", body, headers | {"Origin": origin}), 403).startswith("origin ")
    for extra in ({}, {"Origin": served.url.rstrip("/")}):
        answer = served.ask("restore", body, headers | extra)
        assert answer[0] == 200 and not [name for name in answer[1] if name.lower().startswith("access-control")]
    assert sentence(served.ask("restore"), 405) and sentence(served.ask("openapi.json"), 404)
    assert sentence(served.ask("monitoring/summary"), 404) and sentence(served.ask("samples/..%2fpage.png"), 404)


def test_every_answer_has_the_policy(served):
    for path in ("", "page.js", "slider.js", "status", "samples/chelsea.png", "none"):
        headers = served.ask(path)[1]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert "http" not in headers["Content-Security-Policy"] and "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and "Server" not in headers


def test_the_page_is_small_and_names_no_other_host():
    files = [ROOT / "deblur_gan" / folder / name for folder, name, _ in server._FILES.values()]
    assert sum(path.stat().st_size for path in files) < 60_000
    for path in files:
        assert set(re.findall(r"https?://[^/\s\"'<]+", path.read_text(encoding="utf-8"))) <= {
            "http://127.0.0.1:7860",
            "http://www.w3.org",
        }


def test_other_hosts_and_a_path_below_which_a_proxy_publishes(weights, pictures, wanted):
    served = Served(weights, allowed_hosts=["Photos.example"], root_path="/deblur")
    try:
        for prefix in ("", "deblur/"):
            assert served.ask(prefix, headers={"Host": "photos.example"})[0] == 200
            answer = served.ask(f"{prefix}restore", (pictures / "second.png").read_bytes())
            assert answer[2] == wanted()["second.png"]
        assert served.ask("deblur")[0] == 200  # with a slash, after a redirect
        assert sentence(served.ask("", headers={"Host": "other.example"}), 403)
    finally:
        served.close()


# ---- many, large, slow, gone


def test_visitors_are_served_in_turn_and_told_their_place(served, pictures, tiles):
    with ThreadPoolExecutor() as visitors:
        first = visitors.submit(served.post, pictures / "second.png")
        eventually(lambda: tiles.begun == 1)
        answers = []
        for number in (1, 2):
            answers.append(visitors.submit(served.post, pictures / "second.png", headers={"Accept": server.LINES}))
            eventually(lambda number=number: len(served.restorer.jobs) == number + 1)
        time.sleep(0.5)
        assert tiles.begun == 1
        tiles.release(150)
        eventually(lambda: tiles.begun == 2)
        assert first.result()[0] == 200
        time.sleep(0.5)
        tiles.release(150)
        places = [re.findall(rb'"waiting", "place": (\d)', answer.result()[2]) for answer in answers]
        assert places[0][0] == b"1"
        # At the end it may be seen before its own restoration begins, with nobody before it.
        assert list(dict.fromkeys(places[1])) in ([b"2", b"1"], [b"2", b"1", b"0"])
        assert b'"done": 50, "total": 100' in answers[0].result()[2]


def test_a_visitor_that_goes_frees_its_place_within_two_tiles(served, pictures, tiles):
    body, headers = form((pictures / "second.png").read_bytes(), "a.png")
    for accept in ("*/*", server.LINES):
        begun, done = tiles.begun, tiles.n_done
        gone, waiting = (http.client.HTTPConnection("127.0.0.1", served.port) for _ in range(2))
        for connection in (gone, waiting):
            connection.request("POST", "/restore", body, headers | {"Accept": accept})
            eventually(lambda begun=begun: tiles.begun == begun + 1)
        eventually(lambda: len(served.restorer.jobs) == 2)
        waiting.close()  # one that waits
        gone.close()  # and the one whose photograph is being restored
        eventually(lambda: all(job.cancelled for job in served.restorer.jobs))
        tiles.release(2)
        eventually(served.idle)
        assert tiles.begun == begun + 1 and tiles.n_done <= done + 2
        tiles.n_done = 0
        while tiles._released.acquire(blocking=False):
            pass


def test_fifty_at_once_are_restored_or_told_to_come_later(served, pictures, tiles):
    with ThreadPoolExecutor(50) as visitors:
        answers = [visitors.submit(served.post, pictures / "second.png") for _ in range(50)]
        eventually(lambda: sum(answer.done() for answer in answers) == 50 - server.LONGEST_QUEUE)
        for answer in answers:
            if answer.done():
                assert "photographs are waiting; try again later" in sentence(answer.result(), 429)
                assert answer.result()[1]["Retry-After"]
        tiles.release(100 * 50)
        assert [answer.result()[0] for answer in answers].count(200) == server.LONGEST_QUEUE
    assert served.idle()


def test_equal_photographs_are_told_apart_without_reading_them(served, pictures, tiles):
    class Content(bytes):
        def __eq__(self, other):
            pytest.fail("two files were compared")

        __hash__ = None

    content = (pictures / "second.png").read_bytes()
    jobs = [restorer.Job(Content(content), "second.png", "faithful") for _ in range(3)]
    for job in jobs:
        served.restorer.submit(job)
    assert served.restorer.state(jobs[2])["place"] == 2
    for job in reversed(jobs):
        served.restorer.cancel(job)
    tiles.release(2)
    eventually(lambda: not served.restorer.jobs)


def test_two_threads_take_equal_photographs_out_of_the_queue_and_none_stays(monkeypatch):
    monkeypatch.setattr(restorer.Restorer, "_restore", lambda *_: time.sleep(0.002))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            queue = restorer.Restorer({})
            jobs = [restorer.Job(bytes(2**20), "photo.jpg", "faithful") for _ in range(30)]
            for job in jobs:
                queue.submit(job)
            for job in reversed(jobs):  # while the other thread ends those at the beginning
                queue.cancel(job)
            queue.close()
            assert queue.jobs == []
    finally:
        sys.setswitchinterval(interval)


def test_before_its_turn_only_the_head_of_a_photograph_is_read(served, pictures, tmp_path, tiles, monkeypatch):
    read, begun = restorer.read_photograph, []
    monkeypatch.setattr(restorer, "read_photograph", lambda content, name: begun.append(name) or read(content, name))
    monkeypatch.setitem(served.restorer._seconds_per_tile, "faithful", 1.0)
    Image.new("1", (14_000, 14_000)).save(tmp_path / "large.png")  # more than Pillow opens if it is not told to
    Image.new("L", (50, 64)).save(tmp_path / "damaged.png", dpi=(72, 72))
    content = (tmp_path / "damaged.png").read_bytes()
    at = content.index(b"pHYs") + 5
    (tmp_path / "damaged.png").write_bytes(content[:at] + b"!" + content[at + 1 :])  # a wrong checksum
    with ThreadPoolExecutor() as visitors:
        visitors.submit(served.post, pictures / "second.png")
        eventually(lambda: tiles.begun == 1)
        answers = []
        for name in ("large.png", "damaged.png"):
            answers.append(visitors.submit(served.post, tmp_path / name, headers={"Accept": server.LINES}))
            eventually(lambda: len(served.restorer.jobs) + len(begun) >= 2 + len(answers))
        answers.append(visitors.submit(served.post, pictures / "text.jpg"))
        eventually(answers[-1].done)  # that needs no turn
        time.sleep(0.5)
        begun_before = list(begun)
        tiles.release(200)
        large, damaged, _ = (answer.result()[2] for answer in answers)
    assert begun_before == ["second.png"]
    assert b"claims 14000x14000 pixels" in large.splitlines()[-1]
    assert b'"place": 2, "seconds": null' in damaged  # its size is not known yet
    assert b'"notes": ["its resolution cannot be kept' in damaged
    eventually(served.idle)


@contextlib.contextmanager
def files_opened_to_write():
    """Collects the files that this process opens to write, temporary files without a name too."""
    opened, watching = [], True

    def watch(event, arguments):
        if watching and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            opened.append(arguments[0])

    sys.addaudithook(watch)
    try:
        yield opened
    finally:
        watching = False


def test_uploads_stay_in_memory_and_two_hundred_aborted_ones_leave_nothing(served, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    head = b"POST /restore HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=xx\r\n"
    part = b'--xx\r\nContent-Disposition: form-data; name="photograph"; filename="a.png"\r\n\r\n' + bytes(2_000_000)
    whole = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(whole).save(tmp_path / "whole.png")
    with files_opened_to_write() as opened:
        assert served.post(tmp_path / "whole.png", scale=0.1)[0] == 200
        assert served.ask("restore?scale=0.1", (tmp_path / "whole.png").read_bytes())[0] == 200
    (tmp_path / "whole.png").unlink()
    for number in range(200):
        connection = socket.create_connection(("127.0.0.1", served.port))
        connection.sendall(head + b"Content-Length: 9000000\r\n\r\n" + part[: 10_000 * number])
        connection.close()
    eventually(served.idle)
    assert opened == [] and not list(tmp_path.iterdir())


def test_too_large_is_refused_before_and_while_it_comes(served, pictures, monkeypatch):
    monkeypatch.setattr(uploads, "LARGEST_UPLOAD", 2**20)
    big = bytes(2**21)
    assert "larger than 1 MB" in sentence(served.ask("restore", big), 413)
    assert "larger than 1 MB" in sentence(served.ask("restore", *form(big, "a.png")), 413)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request(
        "POST", "/restore", iter([big[: 2**19]] * 3), {"Transfer-Encoding": "chunked"}, encode_chunked=True
    )
    answer = connection.getresponse()
    assert "larger than 1 MB" in sentence((answer.status, answer.headers, answer.read()), 413)
    connection.close()
    monkeypatch.setattr(uploads, "LARGEST_TOTAL", 100)
    assert "take the memory" in sentence(served.post(pictures / "second.png"), 503)
    eventually(served.idle)


@pytest.mark.slow
def test_eight_uploads_of_100_megabytes_do_not_take_more_than_there_is_room_for(served, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    most, watching = [0], True

    def watch():
        while watching:
            most[0] = max(most[0], served.status["bytes_held"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as visitors:
        answers = [visitors.submit(served.ask, "restore", *form(bytes(100 * 2**20), "a.png")) for _ in range(8)]
        assert {answer.result()[0] for answer in answers} <= {415, 503}
    watching = False
    watcher.join()
    assert most[0] <= uploads.LARGEST_TOTAL and not list(tmp_path.iterdir())
    eventually(served.idle)


def test_slow_visitors_do_not_stay(served, pictures, monkeypatch):
    monkeypatch.setattr(uploads, "LONGEST_PAUSE", 0.5)
    monkeypatch.setattr(server, "LONGEST_PAUSE", 0.5)
    slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(30)]
    for connection in slow:
        connection.sendall(b"POST /restore HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nbeginning")
    assert served.post(pictures / "second.png")[0] == 200  # they keep nobody else from it
    for connection in slow:
        connection.settimeout(PATIENCE)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        connection.close()
    # One that asks and does not read. The answer is larger than what the system's buffers take.
    result = restorer.Result(bytes(50_000_000), "image/png", (1, 1), 1.0)
    monkeypatch.setattr(served.restorer, "_restore", lambda job: result)
    connection = socket.create_connection(("127.0.0.1", served.port))
    content = (pictures / "second.png").read_bytes()
    connection.sendall(
        b"POST /restore HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    )
    eventually(lambda: served.status["bytes_held"] > 50_000_000)
    eventually(served.idle)
    connection.close()


def test_an_error_inside_names_no_path_and_the_next_photograph_is_restored(
    served, pictures, wanted, capfd, monkeypatch
):
    def fails(*_, **__):
        raise OSError(28, "No space left on device", "/secret/place\x1b[31m")

    with monkeypatch.context() as patched:
        patched.setattr("deblur_gan.restoring.deblur.deblur", fails)
        assert sentence(served.post(pictures / "second.png"), 500).startswith("second.png: could not be restored")
        said = capfd.readouterr().out
        assert "No space left" in said and all(line.isprintable() for line in said.splitlines())
        patched.setattr("deblur_gan.restoring.deblur.deblur", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
        assert "not enough memory" in sentence(served.post(pictures / "second.png"), 503)
    assert served.post(pictures / "second.png")[2] == wanted()["second.png"]


def test_what_is_sent_does_not_act_on_the_terminal(served, pictures, capfd):
    served.ask("%1b%5b31m")
    for line in (b"GET /\x1b[31m HTTP/1.1", b"GET /?\x9b31m HTTP/1.1", b"\x1b]0;title\x07"):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(line + b"\r\nHost: localhost\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 4")
    served.post(pictures / "text.jpg", name="\x1b]0;title\x07.jpg")
    said = capfd.readouterr()
    assert said.err == "" and said.out.startswith("Refused (415): \\x1b]0;title\\x07.jpg: not an image")
    assert all(line.isprintable() for line in said.out.splitlines())


def test_it_answers_before_the_network_is_loaded(weights, pictures, wanted, monkeypatch):
    loading = threading.Event()
    generator = restorer.Restorer._generator
    monkeypatch.setattr(restorer.Restorer, "_generator", lambda *a: loading.wait(PATIENCE) and generator(*a))
    served = Served(weights)
    try:
        assert served.ask()[0] == 200 and not served.status["ready"]
        with ThreadPoolExecutor() as visitors:
            answer = visitors.submit(served.post, pictures / "second.png", headers={"Accept": server.LINES})
            eventually(lambda: served.restorer.jobs)
            time.sleep(0.5)
            loading.set()
            assert b'"state": "loading"' in answer.result()[2]
            assert answer.result()[2].endswith(wanted()["second.png"])
        assert served.status["ready"]
    finally:
        served.close()


# ---- the command


def serve(tmp_path, weights, *options, prefix=(), **environment):
    """Starts the command; returns the process and the address that it prints."""
    command = [
        *prefix,
        sys.executable,
        "-m",
        "deblur_gan",
        "serve",
        "--port",
        "0",
        "--weight_path",
        str(weights),
        *options,
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=child_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]


def posted(address, path):
    body, headers = form(path.read_bytes(), path.name)
    with urllib.request.urlopen(urllib.request.Request(f"{address}/restore", body, headers), timeout=60) as answer:
        return answer.read()


@pytest.mark.slow
def test_the_command_writes_nothing_asks_nobody_and_stays_as_large_as_it_is(weights, pictures, tmp_path):
    """Until Ctrl-C; and when it is killed, nothing is left, and it starts again."""
    for name in ("tmp", "home", "work"):
        (tmp_path / name).mkdir()
    environment = {
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": str(tmp_path / "home"),
        "KERAS_HOME": str(Path.home() / ".keras"),
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    process, address = serve(tmp_path / "work", weights["faithful"], **environment)
    try:
        sizes = []
        for number in range(300):
            assert posted(address, pictures / ("second.png" if number % 2 else NAME))
            if number in (100, 299) and Path(f"/proc/{process.pid}/statm").exists():
                sizes.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 / 2**20)
            assert not list((tmp_path / "tmp").iterdir())
        assert not sizes or sizes[1] < sizes[0] + 30
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=4 * PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, out, errors) == (0, "Closed\n", "")
    assert not list((tmp_path / "work").iterdir())
    # Keras and its libraries keep settings and caches there.
    theirs = {"matplotlib", "intel", ".keras"}
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file() and not theirs & set(path.parts)] == []

    for _ in range(2):
        process, address = serve(tmp_path / "work", weights["faithful"], **environment)
        assert posted(address, pictures / "second.png")
        process.kill()
        process.communicate()
        assert not list((tmp_path / "tmp").iterdir()) and not list((tmp_path / "work").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_system_calls_neither_write_a_photograph_nor_connect(weights, pictures, tmp_path):
    log = tmp_path / "calls"
    calls = "--trace=openat,open,creat,connect,mkdir,rename,unlink"
    process, address = serve(tmp_path, weights["faithful"], prefix=["strace", "-D", "-f", "-qq", calls, "-o", str(log)])
    for name in (NAME, "second.png", "third.tiff"):
        posted(address, pictures / name)
    before = log.stat().st_size
    for name in (NAME, "second.png", "third.tiff"):
        posted(address, pictures / name)
    during = log.read_bytes()[before:].decode(errors="replace")
    process.terminate()
    process.communicate(timeout=4 * PATIENCE)
    written = [line for line in during.splitlines() if re.search(r"O_WRONLY|O_RDWR|O_CREAT|mkdir\(|rename\(", line)]
    assert written == []
    everything = log.read_text(errors="replace")
    assert re.findall(r"sin6?_addr.*", everything) == []


def test_a_network_that_cannot_be_loaded_ends_the_command_in_one_line(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    result = CliRunner().invoke(main, ["serve", "--port", "0", "--weight_path", str(tmp_path / "text.h5")])
    assert result.exit_code == 1 and "text.h5" in result.output.splitlines()[-1] and "Traceback" not in result.output


def test_bad_options_are_refused(served):
    for options, says in (
        (["--host", "0.0.0.0"], "--host 0.0.0.0: lets other machines in, without a password; add --allow_host"),
        (["--allow_host", "http://a"], "'http://a' is not a host name or address"),
        (["--allow_host", "*"], "'*' is not a host name or address"),
        (["--root_path", "deblur"], "'deblur' is not a path such as /deblur"),
    ):
        result = CliRunner().invoke(main, ["serve", *options])
        assert result.exit_code == 2 and says in " ".join(result.output.split())
    for options, says in (
        (["--port", str(served.port)], f"--host 127.0.0.1 --port {served.port}: cannot be opened (Address already in"),
        (["--host", "192.0.2.1", "--port", "0", "--allow_host", "a"], "--host 192.0.2.1 --port 0: cannot be opened"),
    ):
        result = CliRunner().invoke(main, ["serve", *options])
        assert result.exit_code == 1 and result.output.count("\n") == 1 and says in result.output


def test_the_server_starts_without_keras():
    code = "import sys, deblur_gan.web.server; assert not {'keras', 'tensorflow', 'openvino'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=child_environment(), check=True)


def test_the_networks_of_the_package_are_offered_in_plain_words(tmp_path):
    weights, labels = server.offered_weights()
    assert list(labels.values()) == ["Faithful", "Crisper", "Meudec's network"]
    assert all(path.exists() for path in weights.values()) and list(weights)[0] == "faithful"
    (tmp_path / "mine.h5").touch()
    weights, labels = server.offered_weights(tmp_path / "mine.h5")
    assert list(labels.values()) == ["mine.h5", "Faithful", "Crisper", "Meudec's network"]
    assert weights["mine"] == tmp_path / "mine.h5"


# ---- docs/page.md

PAGE = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")


def block(language, containing=""):
    """Returns the block of docs/page.md in a language that contains a text."""
    (found,) = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in text]
    return found


@pytest.mark.parametrize("language", ["sh", "python", "js"])
def test_the_examples_of_the_docs_run(served, pictures, wanted, tmp_path, language):
    program = {"sh": "curl", "python": sys.executable, "js": "node"}[language]
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    if language == "python":
        pytest.importorskip("requests")
    shutil.copy(pictures / NAME, tmp_path / "blurred.jpg")
    code = block(language, "/restore").replace("http://127.0.0.1:7860/", served.url)
    run = {"sh": ["bash", "-euc"], "python": [program, "-c"], "js": [program, "-e"]}[language]
    subprocess.run([*run, code], cwd=tmp_path, check=True, timeout=4 * PATIENCE)
    restored = (tmp_path / "restored.jpg").read_bytes()
    assert restored == wanted(1.0 if language == "sh" else 0.8)[NAME]


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["nginx", "caddy"])
def test_behind_a_proxy_as_in_the_docs(weights, pictures, wanted, tmp_path, proxy):
    program = shutil.which(proxy, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip(f"needs {proxy} (Debian: apt-get install {proxy})")
    port = free_port()
    served = Served(weights, allowed_hosts=["photos.example"])
    lines = block(proxy).replace("127.0.0.1:7860", f"127.0.0.1:{served.port}")
    config = tmp_path / "config"
    if proxy == "nginx":
        names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{name}_temp_path {tmp_path}/{name};" for name in names)
        config.write_text(
            f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}\n"
            f"http {{ access_log off; {folders} server {{ listen 127.0.0.1:{port}; {lines} }} }}"
        )
        command = [program, "-c", str(config), "-e", f"{tmp_path}/log"]
    else:
        config.write_text(
            "{\n admin off\n auto_https off\n}\n"
            + lines.replace("photos.example {", f"http://photos.example:{port} {{")
        )
        command = [program, "run", "--adapter", "caddyfile", "--config", str(config)]
    environment = child_environment(HOME=str(tmp_path), XDG_DATA_HOME=None, XDG_CONFIG_HOME=None)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host = {"Host": f"photos.example:{port}"}
    try:

        def ask(path, *body, **headers):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/deblur/{path}", *body)
            for name, value in (host | headers).items():
                request.add_header(name, value)
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read()

        def answers():
            try:
                return ask("")
            except OSError:
                return b""

        eventually(lambda: b"Restore blurred photographs" in answers())
        body, headers = form((pictures / NAME).read_bytes(), NAME)
        origin = {"Origin": f"http://photos.example:{port}"}
        assert ask("restore", body, **headers, **origin) == wanted()[NAME]
        lines = ask("restore", body, **headers, Accept=server.LINES)
        assert b'"state": "restored"' in lines and lines.endswith(wanted()[NAME])
        big = np.random.default_rng(0).integers(0, 256, (1200, 1000, 3), dtype=np.uint8)  # above nginx's own limit
        Image.fromarray(big).save(tmp_path / "big.png")
        assert len(ask("restore", (tmp_path / "big.png").read_bytes())) > 1_000_000
    finally:
        process.terminate()
        process.wait(PATIENCE)
        served.close()
