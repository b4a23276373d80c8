"""Laws of jaxmlp.download, with a host on this machine: slow, broken, lying, redirecting, wrong."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from archive_format import archive
from web_host import answers, dribbles, floods, hosting, serves

from jaxmlp.data import download, exchange, synthetic
from jaxmlp.data import files as data_files
from jaxmlp.data.loading import load_data as load
from jaxmlp.errors import DataError

REPOSITORY = Path(__file__).parents[1]
CONTENT = np.random.default_rng(5).bytes(300_007)
HALF = 150_000
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
LENGTH = len(CONTENT)
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, no proxy, and CONTENT as the official archive."""
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    official(monkeypatch, CONTENT)
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setenv("JAXMLP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def official(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(download, "SIZE", len(content))
    monkeypatch.setattr(download, "SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(data_files, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())


@pytest.fixture
def ask(cache, monkeypatch):
    """Fetches from a host that behaves so: the content, or the error's text; and the requests."""

    def run(*behaviours) -> SimpleNamespace:
        with hosting(*behaviours) as host:
            monkeypatch.setenv("JAXMLP_CIFAR10_URL", host.url)
            try:
                path = download.fetch(cache)
            except DataError as error:
                text = str(error).replace(host.url.removesuffix("/archive")[7:], "HOST")
                return SimpleNamespace(content=None, error=text, requests=host.requests)
            return SimpleNamespace(content=path.read_bytes(), error="", requests=host.requests)

    return run


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(exchange, "PATIENCE", 0.5)


@pytest.fixture
def hasty(monkeypatch) -> None:
    monkeypatch.setattr(exchange, "WINDOW", 1.0)


def keep(cache: Path, content: bytes) -> None:
    download.partial(cache).write_bytes(content)


def kept(cache: Path) -> bytes | None:
    """What has stayed; nothing else may."""
    names = [path.name for path in cache.iterdir() if path.suffix != ".lock"]
    assert names in ([], [download.partial(cache).name])
    return download.partial(cache).read_bytes() if names else None


# ---- facts and promises


def test_address_size_and_checksum_are_those_that_tfds_records(monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.undo()
    place = Path(tfds.__file__).parent / "url_checksums" / "cifar10.txt"
    url, size, checksum, name = place.read_text().split()
    assert (url, int(size), checksum) == (download.URL, download.SIZE, download.SHA256)
    assert name == data_files.ARCHIVE


def test_the_promised_limits(monkeypatch):
    monkeypatch.undo()
    assert (exchange.PATIENCE, exchange.SLOWEST, exchange.WINDOW) == (5, 100_000, 30)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "nonsense", "http://", "http://[", "http://a:b/"]
)
def test_an_address_that_is_not_of_the_web_is_bad_input(monkeypatch, url):
    monkeypatch.setenv("JAXMLP_CIFAR10_URL", url)
    with pytest.raises(ValueError, match=r"JAXMLP_CIFAR10_URL .* choose") as caught:
        load("auto")
    assert "\n" not in str(caught.value)


# ---- a host that is as it should be


def test_the_archive_is_fetched(ask, cache):
    assert ask(serves(CONTENT)).content == CONTENT
    assert kept(cache) == CONTENT


def test_a_host_that_tells_no_length_serves(ask):
    assert ask(answers(200, CONTENT)).content == CONTENT


def test_a_host_that_sends_in_chunks_serves(ask):
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (LENGTH, CONTENT)
    assert ask(answers(200, body, Transfer_Encoding="chunked")).content == CONTENT


def test_a_redirection_is_followed(ask):
    result = ask(answers(302, Location="/elsewhere", Content_Length=0), serves(CONTENT))
    assert result.content == CONTENT
    assert [request["path"] for request in result.requests] == ["/archive", "/elsewhere"]


def test_a_range_is_asked_for_behind_a_redirection_too(ask, cache):
    keep(cache, CONTENT[:HALF])
    result = ask(answers(307, Location="/elsewhere", Content_Length=0), serves(CONTENT))
    assert result.content == CONTENT
    assert result.requests[1]["Range"] == f"bytes={HALF}-"


def test_a_proxy_is_asked_where_the_environment_names_one(cache, monkeypatch):
    with hosting(serves(CONTENT)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/archive"))
        monkeypatch.setenv("JAXMLP_CIFAR10_URL", "http://no-such-host.invalid/archive")
        assert download.fetch(cache).read_bytes() == CONTENT
    assert proxy.requests[0]["path"] == "http://no-such-host.invalid/archive"


# ---- going on where it stopped


def test_what_an_earlier_command_left_is_not_asked_for_again(ask, cache):
    keep(cache, CONTENT[:HALF])
    result = ask(serves(CONTENT))
    assert result.content == CONTENT
    assert [request["Range"] for request in result.requests] == [f"bytes={HALF}-"]


def test_a_whole_file_that_was_left_is_verified_without_the_host(ask, cache):
    keep(cache, CONTENT)
    result = ask(serves(b""))
    assert (result.content, result.requests) == (CONTENT, [])


def test_a_break_is_mended_within_the_command(ask):
    result = ask(serves(CONTENT, stop_after=HALF, etag='"1"'), serves(CONTENT, etag='"1"'))
    assert result.content == CONTENT
    assert [request.get("Range") for request in result.requests] == [None, f"bytes={HALF}-"]
    assert result.requests[1]["If-Range"] == '"1"'


def test_a_file_that_changed_on_the_host_is_had_from_its_start(ask):
    result = ask(serves(OTHER, stop_after=HALF, etag='"1"'), serves(CONTENT, etag='"2"'))
    assert result.content == CONTENT
    assert len(result.requests) == 2


def test_a_host_without_ranges_starts_over(ask, cache):
    keep(cache, CONTENT[:HALF])
    result = ask(serves(CONTENT, ranges=False))
    assert (result.content, len(result.requests)) == (CONTENT, 1)


WRONG_RANGES = {
    "another start": answers(206, b"x", Content_Range=f"bytes 7-{LENGTH - 1}/{LENGTH}"),
    "no range": answers(206, b"x"),
    "nonsense": answers(206, b"x", Content_Range="bytes all"),
    "refused": answers(416, Content_Length=0),
}


@pytest.mark.parametrize("behaviour", WRONG_RANGES.values(), ids=WRONG_RANGES.keys())
def test_a_host_that_gives_another_range_is_asked_for_all(ask, cache, behaviour):
    keep(cache, CONTENT[:HALF])
    result = ask(behaviour, serves(CONTENT))
    assert result.content == CONTENT
    assert "Range" not in result.requests[1]


@pytest.mark.parametrize("left", [OTHER, OTHER[:1] + OTHER[2:], CONTENT + b"x", b"\0" * HALF])
def test_what_was_left_and_is_wrong_is_thrown_away_and_all_asked_for(ask, cache, left):
    keep(cache, left)
    assert ask(serves(CONTENT)).content == CONTENT


def test_of_flipped_bits_in_what_was_left_none_is_believed(cache, ask):
    draw = np.random.default_rng(2)
    for _ in range(20):
        flipped = bytearray(CONTENT[:HALF])
        flipped[draw.integers(HALF)] ^= 1 << draw.integers(8)
        keep(cache, bytes(flipped))
        assert ask(serves(CONTENT)).content == CONTENT


def test_breaks_are_mended_so_many_times_and_the_next_command_goes_on(ask, cache):
    step = 40_000
    result = ask(serves(CONTENT, stop_after=step))
    assert "HOST broke off" in result.error
    assert len(result.requests) == download.MOST_CONNECTIONS
    assert kept(cache) == CONTENT[: step * download.MOST_CONNECTIONS]
    assert ask(serves(CONTENT)).content == CONTENT


def test_who_goes_on_is_told_how_much_stays(ask, cache, monkeypatch):
    official(monkeypatch, bytes(3_000_000))
    result = ask(serves(bytes(3_000_000), stop_after=2_000_000), answers(503))
    assert result.error.endswith("; 2 MB stay, the next command goes on")


# ---- a host that is not as it should be


def closes(exchange) -> None:
    """Says nothing."""


NO_ANSWER = {
    "silent": dribbles(b"", b""),
    "a head without end": dribbles(OK, b"X: y\r\n"),
    "a head in pieces": dribbles(b"HTTP/1.1 ", b"2"),
}
TOO_SLOW = {
    "a byte now and then": dribbles(OK + b"Content-Length: %d\r\n\r\n" % LENGTH),
    "stalls": dribbles(OK + b"\r\n" + CONTENT[:9], b""),
    "slow chunks": dribbles(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a chunk's length in pieces": dribbles(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
}
GIVEN_UP = {
    "closes": (closes, "does not answer (Remote end closed connection"),
    "no HTTP": (dribbles(b"SSH-2.0\r\n"), "does not answer (SSH-2.0)"),
    "absent": (answers(404, b"<html>", Content_Length=6), "answered 404 Not Found"),
    "busy": (answers(503), "answered 503 Service Unavailable"),
    "no content": (answers(204), "answered 204"),
    "a page": (answers(200, b"<html>", Content_Length=6), "gives 6 bytes, not the archive's 3"),
    "an unmeasured page": (answers(200, b"<html>"), "broke off"),
    "too long": (serves(CONTENT + b"x"), f"gives {LENGTH + 1} bytes, not the archive's {LENGTH}"),
    "too short": (serves(CONTENT[:-1]), f"gives {LENGTH - 1} bytes, not the archive's"),
    "no length": (answers(200, b"x", Content_Length="\x1b[31m" + "9" * 99), "gives [31m999"),
    "wrong": (serves(OTHER), "gave another file (SHA-256"),
    "endless": (floods(OK + b"\r\n"), "gave another file (SHA-256"),
    "compressed": (answers(200, bytes(LENGTH), Content_Encoding="gzip"), "gave another file"),
    "a circle": (answers(302, Location="/archive"), "answered 302"),
    "to a file": (answers(302, Location="file:///etc/passwd"), "answered 302"),
    "to FTP": (
        answers(302, Location="ftp://127.0.0.1/a"),
        "does not answer (it redirects to",
    ),
    "to nowhere": (answers(302, Location="http://127.0.0.1:1/"), "does not answer"),
    "a long way of going on": (
        dribbles(b"HTTP/1.1 302 Found\r\nLocation: /archive\r\n\r\n"),
        "answered 302",
    ),
}


@pytest.mark.parametrize("kind", GIVEN_UP)
def test_a_host_that_is_not_as_it_should_be_is_given_up_in_one_line(ask, cache, kind):
    behaviour, words = GIVEN_UP[kind]
    result = ask(behaviour)
    assert result.content is None
    assert f"HOST {words}" in result.error
    assert len(result.error) < 140
    assert result.error.isprintable()
    left = kept(cache)
    assert left is None or kind == "an unmeasured page"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("behaviour", NO_ANSWER.values(), ids=NO_ANSWER.keys())
def test_a_host_that_does_not_answer_in_time_is_given_up(ask, cache, behaviour):
    assert ask(behaviour).error == "HOST did not answer within 0.5 seconds"
    assert kept(cache) is None


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("behaviour", TOO_SLOW.values(), ids=TOO_SLOW.keys())
def test_a_host_that_is_too_slow_is_given_up(ask, behaviour):
    assert ask(behaviour).error == "HOST gave less than 100 kB/s for 1 seconds"


@pytest.mark.usefixtures("hasty")
def test_a_host_that_is_slow_by_many_connections_is_slow(ask, monkeypatch):
    monkeypatch.setattr(download, "MOST_CONNECTIONS", 10**6)
    assert "gave less than 100 kB/s" in ask(serves(CONTENT, stop_after=7)).error


@pytest.mark.usefixtures("hasty")
def test_a_slow_host_leaves_what_it_gave(ask, cache):
    result = ask(dribbles(OK + b"Content-Length: %d\r\n\r\n" % LENGTH + CONTENT[:20_000], b""))
    assert "gave less" in result.error
    assert kept(cache) == CONTENT[:20_000]


def test_a_host_that_nobody_is_gets_given_up(cache, monkeypatch):
    monkeypatch.setenv("JAXMLP_CIFAR10_URL", "http://127.0.0.1:1/")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1 does not answer .*refused"):
        download.fetch(cache)
    assert kept(cache) is None


@pytest.mark.usefixtures("impatient")
def test_looking_up_a_name_takes_no_longer_than_an_answer(cache, monkeypatch):
    with hosting(dribbles(b"", b"")) as host:

        def hang(*args, **options):
            host.over.wait(60)
            raise OSError("too late")

        monkeypatch.setattr("socket.getaddrinfo", hang)
        monkeypatch.setenv("JAXMLP_CIFAR10_URL", "http://name.invalid/")
        with pytest.raises(DataError, match=r"name\.invalid did not answer within"):
            download.fetch(cache)


def test_a_host_without_a_certificate_is_not_trusted(cache, monkeypatch, tmp_path):
    import ssl

    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            tmp_path / "key",
            "-out",
            tmp_path / "certificate",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
        ],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with hosting(serves(CONTENT)) as host:
        host.socket = context.wrap_socket(host.socket, server_side=True)
        monkeypatch.setattr(host, "handle_error", lambda *args: None)
        monkeypatch.setenv("JAXMLP_CIFAR10_URL", host.url.replace("http:", "https:"))
        with pytest.raises(DataError, match="CERTIFICATE_VERIFY_FAILED"):
            download.fetch(cache)


# ---- the disk


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(ask, cache, monkeypatch):
    monkeypatch.setattr(download, "ARRAYS_SIZE", 10**18)
    result = ask(serves(CONTENT))
    assert "MB free, " in result.error
    assert "set JAXMLP_CACHE" in result.error
    assert (result.requests, kept(cache)) == ([], None)


def test_a_disk_that_fills_up_is_emptied_again(ask, cache, monkeypatch):
    opened = download._opened

    def small(path):
        file = opened(path)

        def write(chunk):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(file, "write", write)
        return file

    keep(cache, CONTENT[:HALF])
    monkeypatch.setattr(download, "_opened", small)
    assert "No space left on device" in ask(serves(CONTENT)).error
    assert kept(cache) is None


@pytest.mark.parametrize("what", ["a link", "a directory", "a pipe"])
def test_what_is_not_ours_in_the_place_of_the_partial_file_stays(ask, cache, tmp_path, what):
    (tmp_path / "mine").write_bytes(b"mine")
    path = download.partial(cache)
    make = {"a link": lambda: path.symlink_to(tmp_path / "mine"), "a directory": path.mkdir}
    make.get(what, lambda: os.mkfifo(path))()
    before = path.lstat()
    assert "move it away" in ask(serves(CONTENT)).error
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/cache cannot be written .*JAXMLP_CACHE"):  # noqa: SIM117
        with download.alone(tmp_path / "file" / "cache"):
            pass


# ---- whole commands


@pytest.fixture
def tiny(monkeypatch):
    """A tiny archive, official by decree, and a tiny stand-in."""
    content, arrays = archive()
    official(monkeypatch, content)
    monkeypatch.setattr(synthetic, "synthetic_cifar10", lambda: tuple(arrays.values()))
    return content


FLAGS = ["--batch-size", "7", "--hidden", "3", "--epochs", "1", "--no-forecast"]


def test_the_first_command_trains_on_what_the_host_gives(command, tiny, monkeypatch, cache):
    with hosting(serves(tiny)) as host:
        monkeypatch.setenv("JAXMLP_CIFAR10_URL", host.url)
        status, output, errors = command(*FLAGS, data=None)
    assert (status, "CIFAR-10 from its official binary archive" in output) == (0, True)
    assert "downloading CIFAR-10 from 127.0.0.1" in errors
    assert kept_names(cache) == ["cifar10"]
    status, output, errors = command(*FLAGS, "--overwrite", data=None)
    assert (status, "official binary archive" in output, errors) == (0, True, "")


@pytest.mark.usefixtures("impatient", "hasty")
@pytest.mark.parametrize("kind", ["stalls", "silent", "wrong", "too long", "a circle", "closes"])
def test_a_host_that_fails_leads_to_the_stand_in_or_for_cifar10_to_an_error(
    command, tiny, monkeypatch, kind
):
    behaviours = NO_ANSWER | TOO_SLOW | {kind: pair[0] for kind, pair in GIVEN_UP.items()}
    with hosting(behaviours[kind]) as host:
        monkeypatch.setenv("JAXMLP_CIFAR10_URL", host.url)
        status, output, _ = command(*FLAGS, data=None)
        assert status == 0
        assert "WARNING: this runs on the synthetic stand-in" in output
        assert "\nwhy: 127.0.0.1" in output
        assert "\nto bring CIFAR-10: get https://" in output
        status, output, errors = command(*FLAGS, data="cifar10")
    assert (status, output) == (1, "")
    assert errors.splitlines()[-1].startswith("error: no CIFAR-10 here, and 127.0.0.1")


def test_json_stands_alone_on_standard_output(command, tiny, monkeypatch):
    with hosting(serves(tiny)) as host:
        monkeypatch.setenv("JAXMLP_CIFAR10_URL", host.url)
        _, output, errors = command(*FLAGS, "--json", data=None)
    assert output.startswith("{")
    assert "downloading" in errors


def kept_names(cache: Path) -> list[str]:
    names = [path.name for path in cache.iterdir() if path.suffix != ".lock"]
    return sorted(name.split("-v")[0] for name in names if name not in (".lock", "xla"))


# ---- processes that are killed, interrupted, or many

CHILD = """
import sys
from jaxmlp.data import download, files, loading
download.SIZE, download.SHA256, files.ARCHIVE_MD5 = int(sys.argv[1]), *sys.argv[2:4]
dataset = loading.load_data("cifar10")
print(dataset.source, len(dataset.train_labels))
"""
LOADED = "CIFAR-10 from its official binary archive 7\n"


def start(content: bytes, url: str) -> Any:
    known = [len(content), hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, known)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "JAXMLP_CIFAR10_URL": url},
    )


def half_then_waits(content: bytes, reached):
    def behave(exchange) -> None:
        exchange.head(200, Content_Length=len(content))
        exchange.wfile.write(content[: len(content) // 2])
        reached()
        exchange.wait()

    return behave


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_midway_leaves_its_half_to_the_next(tiny, cache, number):
    half = len(tiny) // 2

    def end() -> None:
        while not download.partial(cache).exists() or len(kept(cache) or b"") < half:
            assert children[0].poll() is None
        children[0].send_signal(number)

    with hosting(half_then_waits(tiny, end), serves(tiny)) as host:
        children = [start(tiny, host.url)]
        children[0].communicate(timeout=60)
        assert children[0].returncode == -number
        assert kept(cache) == tiny[:half]
        children.append(start(tiny, host.url))
        output, _ = children[1].communicate(timeout=60)
        assert (children[1].returncode, output) == (0, LOADED)
        assert host.requests[1]["Range"] == f"bytes={half}-"
    assert kept_names(cache) == ["cifar10"]


def test_of_two_commands_at_once_one_downloads_and_the_other_uses_it(tiny, cache):
    children = []

    def second(exchange) -> None:
        children.append(start(tiny, host.url))
        for line in children[1].stderr:
            if "another command is downloading" in line:
                break
        serves(tiny)(exchange)

    with hosting(second) as host:
        children.append(start(tiny, host.url))
        for child in (children[0], None):
            output, errors = (child or children[1]).communicate(timeout=60)
            assert (output, "Traceback" in errors) == (LOADED, False)
        assert len(host.requests) == 1
    assert kept_names(cache) == ["cifar10"]


def test_another_command_that_stands_still_is_not_waited_for(cache, monkeypatch, capsys):
    monkeypatch.setattr(download, "STANDSTILL", 0.05)
    with download.alone(cache), pytest.raises(DataError, match=r"brought nothing .*; end it"):  # noqa: SIM117
        with download.alone(cache):
            pass
    assert "another command is downloading CIFAR-10; waiting" in capsys.readouterr().err


def test_another_command_is_waited_for_while_it_brings_something(cache, monkeypatch):
    monkeypatch.setattr(download, "STANDSTILL", 0.05)
    sizes = iter([1, 2, 2, 3, 3, 3])
    monkeypatch.setattr(download, "_size", lambda path: next(sizes))
    with download.alone(cache), pytest.raises(DataError, match="brought nothing"):  # noqa: SIM117
        with download.alone(cache):
            pass
    assert next(sizes, None) is None
