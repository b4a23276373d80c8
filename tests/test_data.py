"""Laws of jaxmlp.data: what is loaded, from where, and what happens when it is not as it should be.

No test opens a connection, needs TensorFlow, or looks outside its own temporary directory; only
the test of a whole prepared CIFAR-10 reads one, where there is one.
"""

import hashlib
import importlib.util
import inspect
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_format import write_archive
from tfds_format import tfds_example, write_tfds

from jaxmlp.data import array_cache, download, synthetic
from jaxmlp.data import files as data_files
from jaxmlp.data import tfds as tfds_cifar10
from jaxmlp.data.dataset import Dataset
from jaxmlp.data.dataset import first_images as first
from jaxmlp.data.loading import STAND_IN
from jaxmlp.data.loading import load_data as load
from jaxmlp.errors import DataError

HEIGHT, WIDTH = 4, 5
REPOSITORY = Path(__file__).parents[1]
TFDS = Path(os.environ.get("JAXMLP_TEST_TFDS", REPOSITORY.parent / "shared" / "tfds"))
REAL_TENSORFLOW = tfds_cifar10.tensorflow
NO_NETWORK = "somewhere did not answer within 5 seconds"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty home: no cache, no prepared data, no TensorFlow, no network."""
    for name in ("TFDS_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JAXMLP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "fetch", no_network)
    monkeypatch.setattr(tfds_cifar10, "tensorflow", lambda: None)
    monkeypatch.setattr(synthetic, "synthetic_cifar10", lambda: tuple(arrays(7).values()))
    return tmp_path / "cache"


def no_network(cache: Path) -> Path:
    raise DataError(NO_NETWORK)


@pytest.fixture
def warned():
    """A list for the warnings of `load`: pass warned.append."""
    return []


def arrays(seed: int, train: int = 5, test: int = 3) -> dict[str, np.ndarray]:
    """Channels first, as `load` gives them; labels reach 9, in the training images only."""
    draw = np.random.default_rng(seed)
    images = [draw.integers(0, 256, (n, 3, HEIGHT, WIDTH), np.uint8) for n in (train, test)]
    labels = [draw.permutation(n).astype(np.int32) for n in (train, test)]
    labels[0][2] = 9
    return dict(zip(data_files.KEYS, (images[0], labels[0], images[1], labels[1]), strict=True))


def same(dataset: Dataset, expected: dict[str, np.ndarray]) -> bool:
    found = [getattr(dataset, key) for key in data_files.KEYS]
    return all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(found, expected.values(), strict=True)
    )


def entries(cache: Path) -> list[Path]:
    """All there is in the cache, but the locks: these stay, empty, and hold nothing up."""
    if not cache.exists():
        return []
    return sorted(path for path in cache.iterdir() if not path.name.endswith(".lock"))


def stored(entry: Path) -> array_cache.Entry:
    found = array_cache.load(entry)
    assert found is not None
    return found


def full(*args, **options):
    raise OSError(28, "No space left on device")


def assert_one_line(text: object, *words: str) -> None:
    assert "\n" not in str(text)
    for word in words:
        assert word in str(text)


# ---- fixtures in the formats of others


def npz(**changes) -> dict[str, Any]:
    """The content of a good .npz, channels last, with changes; None removes a key."""
    good: dict[str, Any] = arrays(1)
    for key in ("train_images", "test_images"):
        good[key] = good[key].transpose(0, 2, 3, 1)
    good.update(changes)
    return {key: value for key, value in good.items() if value is not None}


# ---- what is loaded


def test_importing_it_loads_neither_jax_nor_tfds():
    code = (
        "import sys, jaxmlp.data.loading; "
        "print({'jax', 'tensorflow_datasets', 'tensorflow', 'PIL', 'torch'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert result.stdout.strip() == "set()"


@pytest.mark.smoke
def test_tfds_examples_come_out_in_the_order_of_their_ids(tmp_path, warned):
    content = arrays(1)
    write_tfds(tmp_path / "tfds", content)
    dataset = load("cifar10", data_dir=tmp_path / "tfds", warn=warned.append)
    assert same(dataset, content)
    assert (dataset.name, dataset.classes) == ("cifar10", 10)
    assert dataset.source == "CIFAR-10 prepared by TFDS"
    assert len(warned) == 1
    assert_one_line(warned[0], "decoding", "once")


def test_the_first_training_images_are_loaded_when_so_many_are_asked_for(tmp_path):
    np.savez(tmp_path / "own.npz", **npz())
    whole = load(tmp_path / "own.npz")
    few = load(tmp_path / "own.npz", train_size=3)
    np.testing.assert_array_equal(few.train_images, whole.train_images[:3])
    assert (few.sha256, len(few.test_labels)) == (first(whole, 3).sha256, len(whole.test_labels))
    with pytest.raises(ValueError, match="train size 99 exceeds the"):
        load(tmp_path / "own.npz", train_size=99)


def test_reading_tfds_says_nothing_of_its_own_and_warns_of_nothing(tmp_path):
    write_tfds(tmp_path, arrays(1))
    code = (
        "import sys, pathlib; from jaxmlp.data.loading import load_data; "
        "load_data('cifar10', pathlib.Path(sys.argv[1]), warn=lambda message: None)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    assert result.stdout + result.stderr == ""


@pytest.mark.parametrize("below", ["", "cifar10", "cifar10/3.0.2"])
def test_a_path_to_any_level_of_a_tfds_directory_is_enough(tmp_path, warned, below):
    content = arrays(1)
    write_tfds(tmp_path, content)
    assert same(load(str(tmp_path / below), warn=warned.append), content)


def test_a_version_directory_of_another_name_is_read(tmp_path, warned):
    path = write_tfds(tmp_path, arrays(1)).rename(tmp_path / "my copy")
    assert same(load(str(path), warn=warned.append), arrays(1))


def test_a_version_directory_without_its_info_is_damaged_rather_than_absent(tmp_path, warned):
    version = write_tfds(tmp_path, arrays(1))
    (version / "dataset_info.json").unlink()
    with pytest.raises(DataError, match=r"cannot read .*3\.0\.2"):
        load(str(version), warn=warned.append)


def test_the_newest_version_is_read_and_unfinished_ones_are_not(tmp_path, warned):
    old = write_tfds(tmp_path / "a", arrays(1))
    old.rename(old.with_name("3.0.9"))
    write_tfds(tmp_path / "b", arrays(2)).rename(old.with_name("3.0.10"))
    old.with_name("incomplete.ABCDEF_3.0.11").mkdir()
    assert same(load(str(tmp_path / "a"), warn=warned.append), arrays(2))


def test_the_archive_is_read_batch_by_batch_in_order(tmp_path, monkeypatch, cache, warned):
    content = write_archive(tmp_path / "cifar-10-binary.tar.gz", monkeypatch)
    dataset = load(str(tmp_path / "cifar-10-binary.tar.gz"), warn=warned.append)
    assert same(dataset, content)
    assert same(load(str(tmp_path / "cifar-10-binary.tar.gz"), warn=warned.append), content)
    assert (dataset.name, dataset.classes) == ("cifar10", 10)
    assert "archive" in dataset.source
    assert len(entries(cache)) == 1
    assert warned == []


def test_an_archive_that_moved_is_still_in_the_cache(tmp_path, monkeypatch, warned):
    path = tmp_path / "cifar-10-binary.tar.gz"
    content = write_archive(path, monkeypatch)
    load(str(path))
    monkeypatch.setattr(data_files, "read_archive", None)
    assert same(load(str(path.rename(tmp_path / "renamed.tgz"))), content)


@pytest.mark.parametrize("keys", [data_files.KEYS, data_files.KERAS_KEYS])
def test_an_npz_is_turned_to_channels_first_and_not_cached(tmp_path, cache, warned, keys):
    np.savez(tmp_path / "own.npz", **dict(zip(keys, npz().values(), strict=True)))
    dataset = load(str(tmp_path / "own.npz"), warn=warned.append)
    assert same(dataset, arrays(1))
    assert (dataset.name, dataset.classes, warned) == ("own", 10, [])
    assert entries(cache) == []


@pytest.mark.parametrize("shape", [(1, 28, 1), (3, 4, 2), (28, 3, 16), (4, 4, 4), (2, 3, 3)])
def test_channels_last_are_taken_as_that_however_small_the_images(tmp_path, shape):
    images = {"train_images": zeros(5, *shape), "test_images": zeros(3, *shape)}
    np.savez(tmp_path / "small.npz", **npz(**images))
    channels_first = (shape[2], *shape[:2])
    assert load(str(tmp_path / "small.npz")).train_images.shape[1:] == channels_first


def test_an_npz_of_grey_images_gets_one_channel(tmp_path):
    grey = {key: arrays(1)[key][:, 0] for key in ("train_images", "test_images")}
    np.savez_compressed(tmp_path / "grey.npz", **npz(**grey))
    assert load(str(tmp_path / "grey.npz")).train_images.shape == (5, 1, HEIGHT, WIDTH)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64, ">i2"])
def test_labels_of_any_integer_type_become_int32(tmp_path, dtype):
    labels = {key: arrays(1)[key].astype(dtype) for key in ("train_labels", "test_labels")}
    np.savez(tmp_path / "x.npz", **npz(**labels))
    assert same(load(str(tmp_path / "x.npz")), arrays(1))


def test_the_arrays_are_read_only_from_memory_and_from_the_cache_alike(tmp_path):
    np.savez(tmp_path / "x.npz", **npz())
    for dataset in (load(str(tmp_path / "x.npz")), load("synthetic"), load("synthetic")):
        for key in data_files.KEYS:
            assert not getattr(dataset, key).flags.writeable


def test_no_source_names_a_place_on_this_machine(tmp_path, monkeypatch, warned):
    np.savez(tmp_path / "x.npz", **npz())
    write_archive(tmp_path / "a.tgz", monkeypatch)
    write_tfds(tmp_path / "tfds", arrays(1))
    for name in ("synthetic", *(str(tmp_path / n) for n in ("x.npz", "a.tgz", "tfds"))):
        dataset = load(name, warn=warned.append)
        assert str(tmp_path) not in dataset.source + dataset.name


# ---- fingerprints


def test_the_fingerprint_does_not_depend_on_how_the_arrays_came(tmp_path, warned):
    write_tfds(tmp_path, arrays(1))
    np.savez(tmp_path / "x.npz", **npz())
    read = load("cifar10", data_dir=tmp_path, warn=warned.append)
    cached = load("cifar10", data_dir=tmp_path, warn=warned.append)
    assert read.sha256 == cached.sha256 == load(str(tmp_path / "x.npz")).sha256


@pytest.mark.parametrize("key", data_files.KEYS)
def test_the_fingerprint_changes_with_any_element_of_any_array(tmp_path, key):
    changed = npz()
    changed[key] = changed[key].copy()
    changed[key].flat[-1] ^= 1
    np.savez(tmp_path / "x.npz", **npz())
    np.savez(tmp_path / "y.npz", **changed)
    assert load(str(tmp_path / "x.npz")).sha256 != load(str(tmp_path / "y.npz")).sha256


def test_the_fingerprint_covers_shape_and_dtype():
    values = np.arange(6, dtype=np.int32)
    variants = [values, values.reshape(2, 3), values.reshape(3, 2), values.view(np.uint32)]
    prints = {array_cache.fingerprint(array_cache.describe({"x": x})) for x in variants}
    assert len(prints) == 4


def test_first_keeps_the_first_training_images_and_every_class():
    whole = load("synthetic")
    part = first(whole, 2)
    assert same(part, {**arrays(7), **{k: v[:2] for k, v in arrays(7).items() if "train" in k}})
    assert part.classes == whole.classes == 10  # label 9 is training image 2, which is cut off
    assert part.sha256 != whole.sha256
    assert first(whole, 5).sha256 == whole.sha256


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (6, "train size 6 exceeds the 5 training images; choose 1 to 5"),
        (0, "train size 0 is below 1; choose 1 to 5"),
        (-2, "train size -2 is below 1; choose 1 to 5"),
    ],
)
def test_first_refuses_what_is_not_there(size, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        first(load("synthetic"), size)


# ---- where CIFAR-10 is looked for


def test_auto_without_cifar10_trains_on_the_stand_in_and_says_so_in_three_short_lines(warned):
    dataset = load("auto", warn=warned.append)
    assert same(dataset, arrays(7))
    assert (dataset.name, len(warned)) == ("synthetic", 1)
    assert "NOT CIFAR-10" in dataset.source
    first_line, why, remedy = warned[0].splitlines()
    assert first_line.startswith("WARNING: this runs on the synthetic stand-in")
    assert why == f"why: {NO_NETWORK}"
    assert remedy.startswith("to bring CIFAR-10: get https://www.cs.toronto.edu/~kriz/cifar-10-bin")
    assert max(map(len, warned[0].splitlines())) <= 110


def test_cifar10_without_cifar10_is_an_error_with_what_was_tried_and_the_remedy(warned):
    with pytest.raises(DataError) as caught:
        load("cifar10", warn=warned.append)
    assert type(caught.value) is DataError  # the scripts go by the name
    assert_one_line(caught.value, "no CIFAR-10", NO_NETWORK, "get https://", "--data PATH")
    assert warned == []


def test_synthetic_asked_for_is_no_reason_to_warn(warned):
    assert load("synthetic", warn=warned.append).name == "synthetic"
    assert warned == []


@pytest.mark.parametrize("data", ["auto", "cifar10"])
def test_the_archive_is_downloaded_read_cached_and_deleted(
    tmp_path, monkeypatch, cache, warned, data
):
    path = tmp_path / "downloaded"
    content = write_archive(path, monkeypatch)
    monkeypatch.setattr(download, "fetch", lambda cache: path)
    assert same(load(data, warn=warned.append), content)
    assert not path.exists()
    monkeypatch.setattr(download, "fetch", None)
    assert same(load(data, warn=warned.append), content)
    assert len(entries(cache)) == 1
    assert warned == []


def test_an_archive_whose_arrays_cannot_be_cached_is_used_from_memory(
    tmp_path, monkeypatch, cache, warned
):
    content = write_archive(tmp_path / "downloaded", monkeypatch)
    monkeypatch.setattr(download, "fetch", lambda cache: tmp_path / "downloaded")
    monkeypatch.setattr(np, "save", full)
    assert same(load("auto", warn=warned.append), content)
    assert_one_line(warned[0], "No space left on device", "JAXMLP_CACHE")
    assert entries(cache) == []


def test_prepared_data_and_the_cache_come_before_a_download(tmp_path, monkeypatch, warned):
    monkeypatch.setattr(download, "fetch", None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    write_tfds(tmp_path, arrays(1))
    assert same(load("auto", warn=warned.append), arrays(1))
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert same(load("auto", warn=warned.append), arrays(1))


def test_the_cache_serves_when_the_source_is_gone(tmp_path, monkeypatch, warned):
    path = tmp_path / "cifar-10-binary.tar.gz"
    content = write_archive(path, monkeypatch)
    load(str(path))
    path.unlink()
    assert same(load("auto", warn=warned.append), content)
    assert same(load("cifar10", warn=warned.append), content)
    assert warned == []


def test_of_several_cached_copies_the_one_made_last_serves(tmp_path, cache, warned):
    for seed in (1, 2):
        write_tfds(tmp_path / str(seed), arrays(seed))
        load("cifar10", data_dir=tmp_path / str(seed), warn=warned.append)
    assert len(entries(cache)) == 2
    assert same(load("cifar10", warn=warned.append), arrays(2))
    for entry in entries(cache):  # now the first copy is the later one
        first_copy = stored(entry).arrays["train_labels"][0] == arrays(1)["train_labels"][0]
        os.utime(entry / "meta.json", (2e9, 2e9) if first_copy else (1e9, 1e9))
    assert same(load("cifar10", warn=warned.append), arrays(1))


def test_a_data_dir_never_gets_the_cached_copy_of_another(tmp_path, warned):
    for seed in (1, 2, 1, 2):
        if not (tmp_path / str(seed)).exists():
            write_tfds(tmp_path / str(seed), arrays(seed))
        dataset = load("auto", data_dir=tmp_path / str(seed), warn=warned.append)
        assert same(dataset, arrays(seed))
    assert len(warned) == 2  # each was decoded once


def test_a_data_dir_whose_files_changed_is_read_again(tmp_path, warned):
    write_tfds(tmp_path / "tfds", arrays(1))
    load("cifar10", data_dir=tmp_path / "tfds", warn=warned.append)
    (tmp_path / "tfds").rename(tmp_path / "old")
    write_tfds(tmp_path / "tfds", arrays(2))
    dataset = load("cifar10", data_dir=tmp_path / "tfds", warn=warned.append)
    assert same(dataset, arrays(2))


def test_a_copy_elsewhere_with_the_same_names_sizes_and_times_is_another_copy(tmp_path, warned):
    for seed in (1, 2):
        for path in write_tfds(tmp_path / str(seed), arrays(seed)).iterdir():
            os.utime(path, (1e9, 1e9))
    sizes = [[p.stat().st_size for p in sorted(tmp_path.glob(f"{s}/**/*.*"))] for s in (1, 2)]
    assert sizes[0] == sizes[1]
    for seed in (1, 2):
        dataset = load("cifar10", data_dir=tmp_path / str(seed), warn=warned.append)
        assert same(dataset, arrays(seed))


def test_a_data_dir_without_cifar10_is_named_and_the_cache_does_not_stand_in(tmp_path, warned):
    write_tfds(tmp_path / "tfds", arrays(1))
    load("cifar10", data_dir=tmp_path / "tfds", warn=warned.append)
    (tmp_path / "empty").mkdir()
    dataset = load("auto", data_dir=tmp_path / "empty", warn=warned.append)
    assert dataset.name == "synthetic"
    assert_one_line(warned[-2], f"{tmp_path / 'empty'} holds no CIFAR-10")
    assert warned[-1].startswith("WARNING")


def test_after_a_data_dir_without_cifar10_the_official_archive_serves(
    tmp_path, monkeypatch, warned
):
    content = write_archive(tmp_path / "archive.tgz", monkeypatch)
    load(str(tmp_path / "archive.tgz"))
    (tmp_path / "empty").mkdir()
    assert same(load("cifar10", data_dir=tmp_path / "empty", warn=warned.append), content)
    assert_one_line(*warned, "holds no CIFAR-10")


@pytest.mark.parametrize("data", ["auto", "cifar10", "synthetic", "somewhere/else.npz"])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_data_dir_that_is_no_directory_is_bad_input(tmp_path, warned, data, kind):
    path = tmp_path / kind
    if kind == "file":
        path.touch()
    with pytest.raises(ValueError, match="data dir") as caught:
        load(data, data_dir=path, warn=warned.append)
    assert_one_line(caught.value, str(path), "choose", "cifar10/<version>")
    assert warned == []


def test_no_home_directory_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.delenv("JAXMLP_CACHE")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DataError, match=r"home directory.*set HOME"):
        load("synthetic")


@pytest.mark.parametrize(
    ("argument", "jaxmlp_cache", "xdg", "place"),
    [
        ("argument", "env", "/xdg", "argument"),
        (None, "env", "xdg", "env"),
        (None, "", "xdg", "xdg/jaxmlp"),
        (None, "", "", "home/.cache/jaxmlp"),
        (None, "", "relative", "home/.cache/jaxmlp"),
    ],
)
def test_the_cache_lies_where_it_was_asked_for(
    tmp_path, monkeypatch, argument, jaxmlp_cache, xdg, place
):
    def absolute(name: str) -> str:
        return str(tmp_path / name) if name not in ("", "relative") else name

    monkeypatch.setenv("JAXMLP_CACHE", absolute(jaxmlp_cache))
    monkeypatch.setenv("XDG_CACHE_HOME", absolute(xdg))
    load("synthetic", cache_dir=argument and tmp_path / argument)
    assert len(entries(tmp_path / place)) == 1


# ---- bad files


@pytest.mark.parametrize(
    "name", ["", "CIFAR10", "no/such/place", "nul\0", "x" * 5000, "line\nbreak"]
)
def test_data_that_names_nothing_is_bad_input(tmp_path, name):
    with pytest.raises(ValueError, match="choose auto, cifar10, synthetic") as caught:
        load(name)
    assert_one_line(caught.value, repr(name), ".npz")


@pytest.mark.parametrize("path", ["/dev/null", "notes.txt"])
def test_a_file_of_another_kind_is_bad_input(tmp_path, path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"cifar-10-binary\.tar\.gz"):
        load(str(tmp_path / path))


def object_array() -> np.ndarray:
    array = np.empty(5, object)
    array[:] = [{"a": 1}] * 5
    return array


def zeros(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


BAD_NPZ = {
    "missing key": (npz(train_labels=None), ["test_images", "must hold train_images, train_l"]),
    "no key": ({}, ["holds the arrays none", "x_train"]),
    "float images": (npz(train_images=zeros(5, 4, 5, 3, dtype=float)), ["are float64", "uint8"]),
    "float labels": (npz(test_labels=zeros(3, dtype=float)), ["are float64", "integers"]),
    "boolean labels": (npz(test_labels=zeros(3, dtype=bool)), ["test labels are bool", "integers"]),
    "flat images": (npz(test_images=zeros(3, 60)), ["(3, 60)", "(n, height, width)"]),
    "scalar images": (npz(train_images=np.uint8(3)), ["shape ()", "(n, height, width)"]),
    "other size": (npz(test_images=zeros(3, 5, 4, 3)), ["4 x 5", "5 x 4", "one size"]),
    "other channels": (npz(test_images=zeros(3, 4, 5)), ["3 channels", "1 channels"]),
    "channels first": (
        npz(train_images=zeros(5, 3, 32, 32)),
        ["training images have shape (5, 3, 32, 32)", "numpy.moveaxis(images, 1, -1)"],
    ),
    "grey, channels first": (
        npz(train_images=zeros(5, 1, 28, 28), test_images=zeros(3, 1, 28, 28)),
        ["(5, 1, 28, 28), which looks like channels first", "(n, height, width, channels)"],
    ),
    "fewer labels": (npz(train_labels=np.arange(4)), ["(4,)", "5 images", "(5,)"]),
    "column labels": (npz(train_labels=zeros(5, 1)), ["(5, 1)", "(5,)", "flattened"]),
    "no images": (
        npz(test_images=zeros(0, 4, 5, 3), test_labels=zeros(0)),
        ["(0, 4, 5, 3)", "none of them 0"],
    ),
    "no pixels": (npz(test_images=zeros(3, 0, 5, 3)), ["(3, 0, 5, 3)"]),
    "negative label": (npz(train_labels=np.arange(5) - 1), ["from -1 to 3", "from 0"]),
    "huge label": (npz(test_labels=np.full(3, 2**63, np.uint64)), [str(2**63), "from 0"]),
    "one class": (
        npz(train_labels=zeros(5), test_labels=zeros(3)),
        ["every label is 0", "2 classes"],
    ),
    "pickled objects": (npz(train_labels=object_array()), ["allow_pickle=False", "numpy.savez"]),
}


@pytest.mark.parametrize("defect", BAD_NPZ)
def test_an_npz_with_a_defect_is_an_error_of_value_rule_and_remedy(tmp_path, defect):
    content, words = BAD_NPZ[defect]
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "bad.npz"))
    assert_one_line(caught.value, "bad.npz", *words)


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


SPOILED = {
    "empty": lambda content: b"",
    "text": lambda content: b"not a zip\n",
    "half": lambda content: content[: len(content) // 2],
    "bit": _flip,
    "pickle": lambda content: b"\x80\x04N.",
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_a_file_that_is_no_whole_npz_is_an_error_that_names_it(tmp_path, spoil):
    path = tmp_path / "bad.npz"
    np.savez_compressed(path, **npz())
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load(str(path))
    assert_one_line(caught.value, f"cannot read {path}", "numpy.savez")


def test_an_npz_with_a_member_that_is_no_array_is_an_error(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, **npz(train_labels=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_labels.npy", b"no array at all")
    with pytest.raises(DataError, match=r"bad\.npz"):
        load(str(path))


def test_an_npz_larger_than_memory_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "bomb.npz", **npz())
    monkeypatch.setattr(os, "sysconf", lambda name: 8)  # 64 bytes of memory
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(DataError, match=r"unpacks to \d+ bytes, more than the 64 .*; save fewer"):
        load(str(tmp_path / "bomb.npz"))


def test_an_npz_whose_header_claims_more_than_any_memory_is_an_error(tmp_path):
    path = tmp_path / "liar.npz"
    np.savez(path, **npz(train_images=None))
    member = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**15, 4, 5, 3)}
    np.lib.format.write_array_header_1_0(member, claim)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", member.getvalue())
    with pytest.raises(DataError, match=r"cannot read .*liar\.npz"):
        load(str(path))


def test_an_archive_with_another_checksum_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, monkeypatch)
    path.write_bytes(_flip(path.read_bytes()))
    monkeypatch.setattr(tarfile, "open", None)
    with pytest.raises(DataError) as caught:
        load(str(path))
    found = hashlib.md5(path.read_bytes()).hexdigest()
    assert_one_line(caught.value, str(path), found, data_files.ARCHIVE_MD5, "get cifar-10-binary")


def test_the_checksum_is_the_published_one():
    assert data_files.ARCHIVE_MD5 == "c32a1d4ab5d03f1284b67883e8d87530"


@pytest.mark.parametrize("known_by", ["name", "checksum"])
def test_the_archive_of_pickles_is_refused_with_the_name_of_the_other(
    tmp_path, monkeypatch, known_by
):
    path = tmp_path / ("cifar-10-python.tar.gz" if known_by == "name" else "renamed.tar.gz")
    write_archive(path, monkeypatch)
    if known_by == "checksum":
        monkeypatch.setattr(data_files, "PICKLE_ARCHIVE_MD5", data_files.ARCHIVE_MD5)
    with pytest.raises(DataError, match="pickles") as caught:
        load(str(path))
    assert_one_line(caught.value, str(path), "never loaded", "get cifar-10-binary.tar.gz")


@pytest.mark.parametrize("fault", ["leave_out", "spoil"])
def test_an_archive_without_a_whole_batch_is_an_error(tmp_path, monkeypatch, fault):
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, monkeypatch, **{fault: data_files.TRAIN_MEMBERS[3]})
    with pytest.raises(DataError, match=r"data_batch_4\.bin"):
        load(str(path))


def test_a_directory_without_tfds_data_is_an_error(tmp_path):
    (tmp_path / "cifar-10-batches-bin").mkdir()
    with pytest.raises(DataError) as caught:
        load(str(tmp_path))
    assert_one_line(caught.value, str(tmp_path), "cifar10/<version>", "cifar-10-binary.tar.gz")


def _edit(name: str, before: str, after: str):
    def edit(version: Path) -> None:
        text = (version / name).read_text()
        assert before in text
        (version / name).write_text(text.replace(before, after))

    return edit


def _spoil(name: str, change):
    return lambda version: (version / name).write_bytes(change((version / name).read_bytes()))


SHARD = "cifar10-train.array_record-00001-of-00002"
DAMAGED_TFDS = {
    "missing shard": (lambda version: (version / SHARD).unlink(), SHARD),
    "truncated shard": (_spoil(SHARD, lambda b: b[:-1]), SHARD),
    "half a shard": (_spoil(SHARD, lambda b: b[: len(b) // 2]), SHARD),
    "empty shard": (_spoil(SHARD, lambda b: b""), SHARD),
    "flipped bit": (_spoil(SHARD, lambda b: b[:90] + bytes([b[90] ^ 1]) + b[91:]), SHARD),
    "shard is a directory": (
        lambda version: ((version / SHARD).unlink(), (version / SHARD).mkdir()),
        SHARD,
    ),
    "more promised": (_edit("dataset_info.json", '"3"', '"4"'), "holds 3 examples of 4"),
    "fewer promised": (_edit("dataset_info.json", '"3"', '"2"'), "holds 3 examples of 2"),
    "no info": (lambda version: (version / "dataset_info.json").unlink(), "3.0.2"),
    "info is garbage": (_spoil("dataset_info.json", lambda b: b"{"), "3.0.2"),
    "no features": (lambda version: (version / "features.json").unlink(), "3.0.2"),
    "no test split": (_edit("dataset_info.json", '"test"', '"validation"'), "3.0.2"),
    "other features": (_edit("features.json", '"label"', '"class"'), "it has no 'label'"),
    "other data set": (_edit("dataset_info.json", '"cifar10"', '"cifar100"'), "holds cifar100"),
    "other format": (_edit("dataset_info.json", "array_record", "riegeli"), "is riegeli"),
}


@pytest.mark.parametrize("damage", DAMAGED_TFDS)
@pytest.mark.parametrize("data", ["auto", "path"])
def test_damaged_tfds_data_is_an_error_that_names_the_file_and_no_reason_to_fall_back(
    tmp_path, cache, warned, damage, data
):
    change, word = DAMAGED_TFDS[damage]
    change(write_tfds(tmp_path, arrays(1)))
    asked: dict[str, Any] = {"data": str(tmp_path)} if data == "path" else {"data_dir": tmp_path}
    with pytest.raises(DataError) as caught:
        load(**asked, warn=warned.append)
    assert_one_line(caught.value, str(tmp_path), word, ";")
    assert entries(cache) == []


def test_an_id_that_occurs_twice_is_an_error(tmp_path, warned):
    write_tfds(tmp_path, arrays(1), shards=((3, 0), (0, 1, 2)))
    with pytest.raises(DataError, match="ids of the train split repeat"):
        load("cifar10", data_dir=tmp_path, warn=warned.append)


def test_tfrecord_without_tensorflow_is_an_error_with_a_remedy(tmp_path, monkeypatch, warned):
    _edit("dataset_info.json", "array_record", "tfrecord")(write_tfds(tmp_path, arrays(1)))
    monkeypatch.setattr(tfds_cifar10, "tensorflow", REAL_TENSORFLOW)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(DataError) as caught:
        load("auto", data_dir=tmp_path, warn=warned.append)
    assert_one_line(caught.value, "TFRecord", "not installed", "'.[prepare]'", "array_record")


@pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason="needs tensorflow")
def test_tfrecord_is_read_with_tensorflow(tmp_path, monkeypatch, warned):
    monkeypatch.setattr(tfds_cifar10, "tensorflow", REAL_TENSORFLOW)
    content = arrays(1)
    version = write_tfds(tmp_path, content)
    writer = REAL_TENSORFLOW().io.TFRecordWriter
    splits = {
        "train-00000-of-00002": (3, 0),
        "train-00001-of-00002": (4, 1, 2),
        "test-00000-of-00001": (2, 0, 1),
    }
    for name, indices in splits.items():
        split, place = name.split("-", 1)
        with writer(str(version / f"cifar10-{split}.tfrecord-{place}")) as file:
            for index in indices:
                file.write(tfds_example(content, split, index))
    _edit("dataset_info.json", "array_record", "tfrecord")(version)
    assert same(load(str(tmp_path), warn=warned.append), content)


# ---- the cache


def test_a_cached_dataset_is_mapped_and_its_source_is_not_read(tmp_path, monkeypatch, warned):
    monkeypatch.setattr(synthetic, "synthetic_cifar10", lambda: tuple(arrays(7).values()))
    made = load("synthetic")
    monkeypatch.setattr(synthetic, "synthetic_cifar10", None)
    found = load("synthetic", warn=warned.append)
    assert isinstance(found.train_images, np.memmap)
    assert same(found, arrays(7))
    assert (found.sha256, found.source, found.classes) == (made.sha256, made.source, made.classes)
    assert warned == []


def test_a_changed_generator_or_numpy_is_another_entry(monkeypatch, cache):
    load("synthetic")
    monkeypatch.setattr(inspect, "getsource", lambda module: "changed")
    load("synthetic")
    monkeypatch.setattr(np, "__version__", "99")
    load("synthetic")
    assert len(entries(cache)) == 3


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "bit flipped": lambda path: path.write_bytes(_flip(path.read_bytes())),
    "last bit flipped": lambda path: path.write_bytes(_flip_last(path.read_bytes())),
    "deleted": lambda path: path.unlink(),
    "a directory": _replace_by_directory,
    "garbage": lambda path: path.write_bytes(b"\xff[]"),
    "another value": lambda path: path.write_bytes(b"null"),
}


def _flip_last(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("name", ["meta.json", *(f"{key}.npy" for key in data_files.KEYS)])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_rebuilt_with_a_warning(cache, warned, name, damage):
    load("synthetic")
    [entry] = entries(cache)
    DAMAGE[damage](entry / name)
    assert same(load("synthetic", warn=warned.append), arrays(7))
    assert len(warned) == 1
    assert_one_line(warned[0], entry.name, "damaged")
    assert same(load("synthetic", warn=warned.append), arrays(7))
    assert len(warned) == 1
    assert entries(cache) == [entry]


@pytest.mark.parametrize("what", ["a file", "a dangling link", "a directory with a file"])
def test_something_else_in_the_place_of_an_entry_stays_and_the_run_goes_on_from_memory(
    cache, warned, what
):
    load("synthetic")
    [entry] = entries(cache)
    entry.rename(cache / "moved")
    if what == "a file":
        entry.write_bytes(b"mine")
    elif what == "a dangling link":
        entry.symlink_to("nowhere")
    else:
        entry.mkdir()
        (entry / "notes").write_bytes(b"mine")
    before = entry.lstat().st_ino
    assert same(load("synthetic", warn=warned.append), arrays(7))
    assert ["damaged" in warned[0], "move away what stands at" in warned[1]] == [True, True]
    assert entry.lstat().st_ino == before


def test_an_empty_directory_in_the_place_of_an_entry_is_replaced(cache, warned):
    load("synthetic")
    [entry] = entries(cache)
    entry.rename(cache / "moved")
    entry.mkdir()
    assert same(load("synthetic", warn=warned.append), arrays(7))
    assert len(warned) == 1
    assert (entry / "meta.json").is_file()


def test_the_pixels_of_an_entry_are_checked_even_when_meta_json_agrees_with_itself(cache, warned):
    load("synthetic")
    [entry] = entries(cache)
    other = arrays(8)["train_images"]
    np.save(entry / "train_images.npy", other)
    assert same(load("synthetic", warn=warned.append), arrays(7))
    assert "train_images.npy does not match" in warned[0]


def test_meta_json_is_checked_to_the_letter(cache, warned):
    load("synthetic")
    [entry] = entries(cache)
    _edit("meta.json", "NOT CIFAR-10", "now CIFAR-10")(entry)
    assert load("synthetic", warn=warned.append).source == STAND_IN
    assert "meta.json does not match" in warned[0]


@pytest.mark.parametrize("data", ["auto", "cifar10"])
def test_a_damaged_entry_whose_source_is_gone_is_said_and_not_used(tmp_path, cache, warned, data):
    version = write_tfds(tmp_path / "tfds", arrays(1))
    load(str(version))
    [entry] = entries(cache)
    (entry / "test_labels.npy").unlink()
    if data == "cifar10":
        with pytest.raises(DataError, match="no CIFAR-10 here"):
            load(data, warn=warned.append)
    else:
        assert load(data, warn=warned.append).name == "synthetic"
        assert warned[1].startswith("WARNING")
    assert_one_line(warned[0], entry.name, "damaged", "will not be used")
    assert not entry.exists()


def test_an_older_intact_copy_serves_for_a_damaged_one(tmp_path, cache, warned):
    for seed in (1, 2):
        load(str(write_tfds(tmp_path / str(seed), arrays(seed))), warn=warned.append)
    newest = array_cache.newest_first(cache, "cifar10")[0]
    (newest / "meta.json").write_bytes(b"{}")
    os.utime(newest / "meta.json", (2e9, 2e9))
    assert same(load("cifar10", warn=warned.append), arrays(1))
    assert "damaged" in warned[-1]


def test_entries_of_another_schema_are_left_alone(tmp_path, monkeypatch, cache, warned):
    load(str(write_tfds(tmp_path, arrays(1))), warn=warned.append)
    [entry] = entries(cache)
    monkeypatch.setattr(array_cache, "SCHEMA", array_cache.SCHEMA + 1)
    assert load("auto", warn=warned.append).name == "synthetic"
    assert entry.exists()
    load(str(tmp_path), warn=warned.append)
    assert sum(path.name.startswith("cifar10-") for path in entries(cache)) == 2


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tmp_path, warned):
    (tmp_path / "file").write_bytes(b"")
    dataset = load("synthetic", cache_dir=tmp_path / "file" / "cache", warn=warned.append)
    assert same(dataset, arrays(7))
    assert len(warned) == 1
    assert_one_line(warned[0], str(tmp_path / "file"), "cannot be written", "set JAXMLP_CACHE")
    load("synthetic")
    assert dataset.sha256 == load("synthetic").sha256


@pytest.mark.parametrize(
    "call", ["numpy.save", "os.fsync", "pathlib.Path.mkdir", "pathlib.Path.rename"]
)
def test_a_disk_that_fills_up_costs_a_warning_and_nothing_stays(monkeypatch, cache, warned, call):
    cache.mkdir()
    monkeypatch.setattr(call, full)
    assert same(load("synthetic", warn=warned.append), arrays(7))
    assert len(warned) == 1
    assert_one_line(warned[0], "No space left on device", "memory", "JAXMLP_CACHE")
    assert entries(cache) == []


def test_a_damaged_entry_that_cannot_be_replaced_is_not_used(monkeypatch, cache, warned):
    load("synthetic")
    [entry] = entries(cache)
    (entry / "meta.json").write_bytes(b"{}")

    def read_only(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert same(load("synthetic", warn=warned.append), arrays(7))
    assert ["damaged" in warned[0], "cannot be written" in warned[1]] == [True, True]


def test_ctrl_c_while_writing_passes_through_and_leaves_nothing(monkeypatch, cache):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("synthetic")
    assert entries(cache) == []


def test_who_comes_second_uses_the_entry_of_who_came_first(monkeypatch, cache, warned):
    winner, loser = arrays(1), arrays(2)

    def overtaken():
        monkeypatch.setattr(synthetic, "synthetic_cifar10", lambda: tuple(winner.values()))
        load("synthetic")
        return tuple(loser.values())

    monkeypatch.setattr(synthetic, "synthetic_cifar10", overtaken)
    assert same(load("synthetic", warn=warned.append), winner)
    assert (len(entries(cache)), warned) == (1, [])


# ---- a whole CIFAR-10, where there is one


@pytest.mark.skipif(not (TFDS / "cifar10").is_dir(), reason="no prepared CIFAR-10 here")
def test_a_prepared_cifar10_is_cifar10(warned):
    dataset = load("cifar10", data_dir=TFDS, warn=warned.append)
    assert dataset.train_images.shape == (50_000, 3, 32, 32)
    assert dataset.test_images.shape == (10_000, 3, 32, 32)
    assert dataset.classes == 10
    assert np.bincount(dataset.train_labels).tolist() == [5000] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1000] * 10
    # Published channel means; FACTS allows 0.002 for a re-encoded copy.
    means = dataset.train_images.mean(axis=(0, 2, 3), dtype=np.float64) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.002)
    again = load("cifar10", data_dir=TFDS, warn=warned.append)
    assert again.sha256 == dataset.sha256
    assert len(warned) == 1
