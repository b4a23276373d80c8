"""Laws of the cache of arrays: whole or not at all, believed when intact; nobody else's files."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxmlp.data import array_cache
from jaxmlp.data.array_cache import DamagedEntryError, discard, load, store

REPOSITORY = Path(__file__).parents[1]
NAME = f"x-v{array_cache.SCHEMA}-0123456789abcdef"
FLIPS = 1000


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "train_images": draw.integers(0, 256, (5, 3, 4, 2), np.uint8),
        "train_labels": np.arange(5, dtype=np.int32),
        "test_images": draw.integers(0, 256, (6, 3, 4, 2), np.uint8),
        "test_labels": np.arange(6, dtype=np.int32) % 2,
    }


@pytest.fixture
def entry(tmp_path) -> Path:
    path = tmp_path / "cache" / NAME
    store(path, arrays(), "a source")
    return path


def found(entry: Path) -> array_cache.Entry:
    loaded = load(entry)
    assert loaded is not None
    return loaded


def is_whole(entry: Path, seed: int = 0) -> bool:
    stored = found(entry).arrays
    return all(np.array_equal(stored[key], array) for key, array in arrays(seed).items())


def names(cache: Path) -> list[str]:
    """All there is in the cache, but the lock: it stays, empty, and holds nothing up."""
    return sorted(path.name for path in cache.iterdir() if path.name != array_cache.LOCK)


# ---- nothing damaged is believed


def test_of_a_thousand_flipped_bits_none_is_believed(entry):
    draw = np.random.default_rng(20)
    files = sorted(entry.iterdir())
    for _ in range(FLIPS):
        path = files[draw.integers(len(files))]
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[draw.integers(len(content))] ^= 1 << draw.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(DamagedEntryError):
            load(entry)
        path.write_bytes(content)
    assert is_whole(entry)


@pytest.mark.parametrize("name", array_cache.FILES)
@pytest.mark.parametrize("more", [b"\0", b" ", b"\n"])
def test_a_file_that_has_grown_is_not_believed(entry, name, more):
    with (entry / name).open("ab") as file:
        file.write(more)
    with pytest.raises(DamagedEntryError):
        load(entry)


def _set(*path: str, to: Any):
    def change(meta: dict) -> object:
        place = meta
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        return meta

    return change


def _without(*path: str):
    def change(meta: dict) -> object:
        place = meta
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        return meta

    return change


OUTSIDE = {"dtype": "|u1", "shape": [1], "sha256": "0"}
SEALED = {
    "no arrays": _without("arrays"),
    "a missing array": _without("arrays", "test_labels"),
    "a missing shape": _without("arrays", "test_labels", "shape"),
    "another shape": _set("arrays", "test_labels", "shape", to=[3, 2]),
    "another dtype": _set("arrays", "train_images", "dtype", to="|O"),
    "one array more, outside": _set("arrays", "../../outside", to=OUTSIDE),
    "arrays that are a list": _set("arrays", to=["train_images"]),
    "no headers": _without("headers"),
    "a missing header": _without("headers", "train_labels"),
    "no source": _without("source"),
    "a source that is no text": _set("source", to=["x"]),
    "a list": lambda meta: [meta],
    "nothing": lambda meta: {},
    "a very long source": _set("source", to="x" * 100_000),
}


@pytest.mark.parametrize("change", SEALED.values(), ids=SEALED.keys())
def test_a_meta_json_that_agrees_with_itself_alone_is_not_believed(entry, change):
    meta = json.loads((entry / "meta.json").read_bytes())
    del meta["checksum"]
    changed = change(meta)
    sealed = array_cache._sealed(changed) if isinstance(changed, dict) else json.dumps(changed)
    (entry / "meta.json").write_bytes(sealed if isinstance(sealed, bytes) else sealed.encode())
    with pytest.raises(DamagedEntryError) as caught:
        load(entry)
    assert "\n" not in str(caught.value)


INCONSISTENT = {
    "fewer labels": {"train_labels": np.arange(4, dtype=np.int32)},
    "wide labels": {"train_labels": np.arange(5)},
    "negative labels": {"test_labels": np.arange(6, dtype=np.int32) - 1},
    "one class": {k: np.zeros(n, np.int32) for k, n in (("train_labels", 5), ("test_labels", 6))},
    "float images": {"train_images": np.zeros((5, 3, 4, 2))},
    "flat images": {"train_images": np.zeros((5, 24), np.uint8)},
    "no images": {"train_images": np.zeros((0, 3, 4, 2), np.uint8)},
    "two sizes": {"test_images": np.zeros((6, 3, 2, 4), np.uint8)},
}


@pytest.mark.parametrize("change", INCONSISTENT.values(), ids=INCONSISTENT.keys())
def test_arrays_that_are_no_data_set_are_not_believed_however_well_sealed(entry, change):
    discard(entry)
    array_cache._remove(entry)
    store(entry, arrays() | change, "a source")
    with pytest.raises(DamagedEntryError):
        load(entry)


@pytest.mark.parametrize("content", [b"[" * 60_000, b"", b"1" * 60_000, b'{"a":' * 9000, b"\xff"])
def test_a_meta_json_that_parsers_choke_on_is_a_damaged_entry(entry, content):
    (entry / "meta.json").write_bytes(content)
    with pytest.raises(DamagedEntryError):
        load(entry)


@pytest.mark.parametrize("name", ["meta.json", "test_images.npy"])
def test_a_named_pipe_is_not_waited_for(entry, name):
    (entry / name).unlink()
    os.mkfifo(entry / name)
    with pytest.raises(DamagedEntryError):
        load(entry)


def test_a_pickled_array_is_not_loaded(entry):
    np.save(entry / "test_labels.npy", np.array([{}] * 6), allow_pickle=True)
    with pytest.raises(DamagedEntryError):
        load(entry)


# ---- nothing else is touched

FOREIGN = [
    "notes.txt",
    "xla/program",
    ".tmp-1-x-y/mine",
    "cifar10-v1-0123456789abcdef/meta.json",
    f"x-v{array_cache.SCHEMA}-notes/meta.json",
    f"x-v{array_cache.SCHEMA}-fedcba9876543210/mine",
    f"x-v{array_cache.SCHEMA}-0123456789abcdef0/train_images.npy",
    f"{NAME}/mine.txt",
    f"{NAME}/weights.npy",
    f"{NAME}/meta.json.old",
    f"{NAME}/folder/meta.json",
    NAME,
    f"{array_cache.UNFINISHED}/mine",
    array_cache.UNFINISHED,
    array_cache.LOCK,
    "train_images.npy",
    "meta.json",
]
ACTIONS = ["store", "damage", "discard", "abandon", "load all"]


def put(cache: Path, name: str) -> bool:
    """Whether the user's file could be put there."""
    path = cache / name
    with contextlib.suppress(FileExistsError, NotADirectoryError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(f"mine: {name}")
            os.utime(path, (1e9, 1e9))
            os.utime(path.parent, (1e9, 1e9))
            return True
    return False


def act(cache: Path, action: str) -> None:
    entry = cache / NAME
    if action == "store":
        store(entry, arrays(), "a source")
    elif action == "damage" and (entry / "test_labels.npy").is_file():
        (entry / "meta.json").write_bytes(b"{}")
    elif action == "discard":
        discard(entry)
    elif action == "abandon":
        (cache / array_cache.UNFINISHED).mkdir()
        (cache / array_cache.UNFINISHED / "train_images.npy").write_bytes(b"half")
    for path in array_cache.newest_first(cache, "x") if action == "load all" else ():
        try:
            load(path)
        except DamagedEntryError:
            discard(path)


@settings(max_examples=60, deadline=None)
@example([*FOREIGN, *ACTIONS, *ACTIONS])
@example([*reversed(FOREIGN), *reversed(ACTIONS), *ACTIONS])
@example([ACTIONS[0], *FOREIGN, *ACTIONS])
@given(
    st.lists(st.one_of(st.sampled_from(ACTIONS), st.sampled_from(FOREIGN)), min_size=3, max_size=12)
)
def test_a_file_that_is_not_ours_is_never_deleted_or_changed(steps):
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        cache.mkdir()
        foreign = set()
        for step in steps:
            if step in ACTIONS:
                with contextlib.suppress(OSError):  # something of the user's is in the way
                    act(cache, step)
            elif put(cache, step):
                foreign.add(step)
            for name in foreign:
                assert (cache / name).read_text() == f"mine: {name}"


def test_a_link_to_a_users_directory_is_not_emptied(tmp_path, entry):
    entry.rename(tmp_path / "mine")
    (tmp_path / "mine" / "meta.json").write_bytes(b"mine")
    entry.symlink_to(tmp_path / "mine")
    discard(entry)
    with pytest.raises(FileExistsError, match="move away what stands at"):
        store(entry, arrays(), "a source")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == sorted(array_cache.FILES)
    assert (tmp_path / "mine" / "meta.json").read_bytes() == b"mine"


def test_an_entry_that_was_mended_meanwhile_is_not_discarded(entry):
    discard(entry)
    assert is_whole(entry)


# ---- several writers, and killed ones

CHILD = """
import sys
from pathlib import Path
from test_array_cache import arrays
from jaxmlp.data import array_cache
seed, entry = int(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(8):
    array_cache.store(entry, arrays(seed), "a child")
    assert array_cache.load(entry) is not None
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from test_array_cache import NAME, arrays, damage, is_whole, names, put
from jaxmlp.data import array_cache

def die_at(moment):
    calls = []
    def dying(function):
        def call(*args, **options):
            calls.append(function)
            if len(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)
        return call
    for name in ("mkdir", "rename", "unlink", "rmdir", "open"):
        setattr(Path, name, dying(getattr(Path, name)))
    os.fsync = dying(os.fsync)

moment, killed = 0, True
while killed:
    moment += 1
    entry = Path(sys.argv[1]) / str(moment) / NAME
    entry.parent.mkdir()
    put(entry.parent, "notes.txt")
    damaged = sys.argv[2] == "damaged"
    if damaged:
        damage(entry)
    process = os.fork()
    if not process:
        die_at(moment)
        array_cache.store(entry, arrays(), "a child")
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(process, 0)[1])
    try:
        assert array_cache.load(entry) is None or is_whole(entry)
    except array_cache.DamagedEntryError:
        assert damaged
    array_cache.store(entry, arrays(), "the next")
    assert is_whole(entry)
    assert names(entry.parent) == ["notes.txt", NAME]
print(moment)
"""


def damage(entry: Path) -> None:
    store(entry, arrays(1), "before")
    (entry / "meta.json").write_bytes(b"{}")


def start(code: str, *arguments: object) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"},
    )


def test_processes_that_build_the_same_entry_at_once_all_find_it_whole(tmp_path):
    entry = tmp_path / "cache" / NAME
    children = [start(CHILD, seed, entry) for seed in range(4)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:  # all are waiting: let them go
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        output, errors = child.communicate(timeout=60)
        assert (child.returncode, output, errors) == (0, "", "")
    assert names(entry.parent) == [NAME]
    assert sum(is_whole(entry, seed) for seed in range(4)) == 1


@pytest.mark.parametrize("before", ["empty", "damaged"])
def test_a_writer_killed_at_any_moment_leaves_nothing_that_would_be_used(tmp_path, before):
    child = start(KILLED, tmp_path, before)
    output, errors = child.communicate(timeout=120)
    assert (child.returncode, errors) == (0, "")
    assert int(output) > 20  # it was killed at so many moments, less one
