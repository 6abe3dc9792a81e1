from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from image_files import encode, fill, pack, picture, random_image, raw, write_lmdb

from lddgan.data import sources
from lddgan.data.digits import load_digits, scale_digits
from lddgan.data.images import BrokenImage
from lddgan.data.sources import cache_folder, hold_out, natural_key, open_source
from lddgan.errors import UserError


def names(source) -> list[str]:
    return [source.name(i) for i in range(len(source))]


def test_natural_order():
    given = ["b/2.png", "10.png", "b/10.png", "2.png", "a10/1.png", "a9/1.png", "02.png", "b c/1.png"]
    expected = ["02.png", "2.png", "10.png", "a9/1.png", "a10/1.png", "b/2.png", "b/10.png", "b c/1.png"]
    assert sorted(given, key=natural_key) == expected
    assert sorted(["9" * 5000, "1" + "0" * 5000], key=natural_key)[0] == "9" * 5000


def test_folder_is_read_in_natural_order_and_hidden_files_are_not(tmp_path):
    fill(tmp_path, ["10.png", "9.PNG", "sub/1.png", ".hidden.png", ".git/1.png", "__MACOSX/1.png", "notes.txt"])
    source = open_source(tmp_path, "all")
    assert names(source) == ["9.PNG", "10.png", "sub/1.png"]
    assert source.read(0) == picture(1)
    assert source.decode(0).mode == "RGB" and source.header(0) == (8, 8, 3)
    assert source.labels is None and source.classes == []


def test_class_folders_become_labels(tmp_path):
    fill(tmp_path, ["dog/1.png", "cat/deep/2.png", "cat/1.png", "class10/1.png", "class9/1.png"])
    source = open_source(tmp_path, "all")
    assert source.classes == ["cat", "class9", "class10", "dog"]
    assert dict(zip(names(source), source.labels or [], strict=True)) == {
        "cat/1.png": 0, "cat/deep/2.png": 0, "class9/1.png": 1, "class10/1.png": 2, "dog/1.png": 3,
    }  # fmt: skip


@pytest.mark.parametrize("files", [["cat/1.png", "cat/2.png"], ["cat/1.png", "dog/1.png", "loose.png"]])
def test_no_labels_from_one_folder_or_beside_loose_images(tmp_path, files):
    assert open_source(fill(tmp_path, files), "all").labels is None


@pytest.mark.parametrize("held_out", ["test", "val", "validation", "Test"])
def test_split_folders(tmp_path, held_out):
    fill(tmp_path, ["train/a/1.png", "train/b/1.png", f"{held_out}/b/2.png", "stray.png", "other/1.png"])
    train, test, whole = (open_source(tmp_path, split) for split in ("train", "test", "all"))
    assert names(train) == ["train/a/1.png", "train/b/1.png"] and train.labels == [0, 1]
    assert names(test) == [f"{held_out}/b/2.png"] and test.labels == [1]
    assert test.classes == train.classes == ["a", "b"]
    assert len(whole) == 3


def test_test_and_validation_folders_are_one_side(tmp_path):
    fill(tmp_path, ["train/1.png", "test/1.png", "val/1.png"])
    assert names(open_source(tmp_path, "test")) == ["test/1.png", "val/1.png"]


def test_train_folder_alone_holds_five_percent_out(tmp_path):
    fill(tmp_path, [f"train/{i}.png" for i in range(4)])
    assert len(open_source(tmp_path, "train")) == 3 and len(open_source(tmp_path, "test")) == 1


def test_a_folder_around_everything_is_looked_through(tmp_path):
    members = {f"set/{name}": picture(i) for i, name in enumerate(["train/a/1.png", "train/b/1.png", "val/a/1.png"])}
    source = open_source(pack(tmp_path / "x.zip", members | {"__MACOSX/set/._1.png": b"x"}), "test")
    assert names(source) == ["set/val/a/1.png"] and source.classes == ["a", "b"]


def test_held_out_by_content(tmp_path):
    images = [picture(i % 40) for i in range(80)]  # every image twice
    for i, data in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(data)
    hashes = [hashlib.sha256(data).hexdigest() for data in images]
    train, test, whole = (open_source(tmp_path, split) for split in ("train", "test", "all"))
    assert whole.hashes == hashes
    expected = {h for h in hashes if int(h, 16) / 2**256 < 0.05} or {min(hashes)}
    assert set(test.hashes) == expected
    assert set(train.hashes) == set(hashes) - expected
    assert len(train) + len(test) == 80 and len(test) == 2 * len(expected)
    for path in tmp_path.iterdir():  # other names, same sides
        path.rename(path.with_name("renamed" + path.name))
    assert set(open_source(tmp_path, "test").hashes) == expected


def test_hold_out_shares_and_small_sets():
    many = [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(20000)]
    assert len(hold_out(many)) / 20000 == pytest.approx(0.05, abs=0.005)
    assert hold_out(["f" * 64, "e" * 64]) == {"e" * 64}
    assert hold_out(["0" * 64, "01" + "0" * 62]) == {"0" * 64}
    assert hold_out(["0" * 64, "0" * 64]) == hold_out(["f" * 64]) == hold_out([]) == set()


def test_one_image_trains_but_cannot_be_held_out(tmp_path):
    fill(tmp_path, ["1.png"])
    assert len(open_source(tmp_path, "train")) == 1
    with pytest.raises(UserError, match="one image only"):
        open_source(tmp_path, "test")
    (tmp_path / "2.png").write_bytes(picture(0))
    with pytest.raises(UserError, match="all different"):
        open_source(tmp_path, "test")


def test_empty_train_split(tmp_path):
    fill(tmp_path, ["test/1.png"])
    (tmp_path / "train").mkdir()
    assert len(open_source(tmp_path, "all")) == 1  # an empty folder is not there: the images are one plain set


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path, ["set/a/1.png", "elsewhere/2.png"])
    (tmp_path / "set/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/a/up").symlink_to(tmp_path / "set")
    assert names(open_source(tmp_path / "set", "all")) == ["a/1.png", "b/2.png"]


def test_zip_equals_folder(tmp_path):
    files = ["b/2.png", "b/10.png", "a/1.png"]
    folder = open_source(fill(tmp_path / "folder", files), "all")
    members = {name: (tmp_path / "folder" / name).read_bytes() for name in files}
    archive = open_source(pack(tmp_path / "x.zip", members | {".DS_Store": b"", "readme.txt": b""}), "all")
    assert names(archive) == names(folder) == ["a/1.png", "b/2.png", "b/10.png"]
    assert (archive.labels, archive.classes, archive.hashes) == (folder.labels, folder.classes, folder.hashes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "x.zip"]  # nothing was unpacked


@pytest.mark.parametrize("member", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:\\evil.png"])
def test_zip_member_that_climbs_out_is_named(tmp_path, member):
    path = pack(tmp_path / "x.zip", {"1.png": picture(0), member: picture(1)})
    with pytest.raises(UserError) as caught:
        open_source(path)
    assert f"'{member}'" in str(caught.value) and "outside the archive" in str(caught.value)


def test_damaged_zip_member_is_broken(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("1.png", picture(0))
        archive.writestr("2.png", picture(1))
    data = bytearray(path.read_bytes())
    data[100] ^= 255  # within the pixels of the first member
    path.write_bytes(data)
    source = open_source(path, "all")
    with pytest.raises(BrokenImage, match="CRC"):
        source.decode(0)
    assert len(set(source.hashes)) == 2
    assert source.decode(1).size == (8, 8)


def test_zip_bomb_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("lddgan.data.stores.MAX_BYTES", 1000)
    source = open_source(pack(tmp_path / "x.zip", {"1.png": b"0" * 1001}), "all")
    with pytest.raises(BrokenImage, match="zip bomb"):
        source.decode(0)


@pytest.mark.parametrize("subdir", [True, False])
def test_celeba_hq_lmdb(tmp_path, subdir):
    write_lmdb(tmp_path / "train.lmdb", {str(i).encode(): raw(i).tobytes() for i in range(12)}, subdir)
    write_lmdb(tmp_path / "validation.lmdb", {str(i).encode(): raw(90 + i).tobytes() for i in range(3)}, subdir)
    train, test = open_source(tmp_path, "train"), open_source(tmp_path, "test")
    assert names(train) == [f"train.lmdb/{i}" for i in range(12)]
    assert (len(test), len(open_source(tmp_path, "all"))) == (3, 15)
    np.testing.assert_array_equal(np.asarray(train.decode(11)), raw(11))
    np.testing.assert_array_equal(np.asarray(test.decode(2)), raw(92))
    assert train.header(0) == (8, 8, 3)
    alone = open_source(tmp_path / "train.lmdb", "all")
    assert names(alone) == [str(i) for i in range(12)]
    assert len(open_source(tmp_path / "train.lmdb", "test")) >= 1


def test_lsun_lmdb_holds_encoded_images(tmp_path):
    images = {hashlib.sha1(bytes([i])).hexdigest().encode(): picture(i, side=8 + i) for i in range(4)}
    path = write_lmdb(tmp_path / "church_outdoor_train_lmdb", images)
    source = open_source(path, "all")
    assert len(source) == 4
    for i in range(4):
        assert source.read(i) == images[source.name(i).encode()]
        assert source.header(i)[:2] == source.decode(i).size


def test_raw_pixels_are_told_from_an_encoded_image_of_the_same_length(tmp_path):
    data = encode(random_image("L"))
    data += b"\0" * (3 * 16 * 16 - len(data))  # bytes after the end of a PNG are allowed
    source = open_source(write_lmdb(tmp_path / "x.lmdb", {b"0": data, b"1": b"\0" * 768, b"2": b"\0" * 767}), "all")
    assert source.decode(0).size == (12, 10)
    assert source.decode(1).size == (16, 16)
    with pytest.raises(BrokenImage):
        source.decode(2)


def _decode_sum(source) -> int:
    return int(np.asarray(source.decode(1)).astype(int).sum())


@pytest.mark.parametrize("kind", ["zip", "lmdb", "folder"])
@pytest.mark.parametrize("start", ["fork", "pickle"])
def test_sources_survive_fork_and_pickle(tmp_path, kind, start):
    images = {str(i): picture(i) for i in range(3)}
    if kind == "zip":
        path = pack(tmp_path / "x.zip", {f"{name}.png": data for name, data in images.items()})
    elif kind == "lmdb":
        path = write_lmdb(tmp_path / "x.lmdb", {name.encode(): data for name, data in images.items()})
    else:
        path = fill(tmp_path / "x", ["0.png", "1.png", "2.png"])
    source = open_source(path, "all")
    expected = _decode_sum(source)  # the handle is open now
    if start == "pickle":
        assert _decode_sum(pickle.loads(pickle.dumps(source))) == expected
    else:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_decode_sum, [source] * 4) == [expected] * 4
            receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
            child = multiprocessing.get_context("fork").Process(target=lambda: sender.send(_decode_sum(source)))
            child.start()
            assert receiver.poll(20) and receiver.recv() == expected
            child.join()
    assert _decode_sum(source) == expected


def test_digits_are_the_published_ones():
    pixels, labels = load_digits()
    assert pixels.shape == (1797, 8, 8) and pixels.dtype == np.uint8 and pixels.max() == 16
    assert int(pixels.astype(np.int64).sum()) == 561718
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert scale_digits(np.arange(17)).tolist() == [round(v * 255 / 16) for v in range(17)]
    source = open_source("digits", "all")
    assert (len(source), source.classes, (source.labels or [])[:3]) == (1797, [str(i) for i in range(10)], [0, 1, 2])
    image = source.decode(5)
    assert image.mode == "L" and source.header(5) == (8, 8, 1)
    np.testing.assert_array_equal(np.asarray(image), np.rint(pixels[5] * 255.0 / 16))
    assert source.hashes[5] == hashlib.sha256(pixels[5].tobytes()).hexdigest()


def test_digits_are_split_by_content():
    train, test = open_source("digits", "train"), open_source("digits", "test")
    assert (len(train), len(test)) == (1717, 80)
    assert not set(train.hashes) & set(test.hashes)
    assert all(int(value, 16) / 2**256 < 0.05 for value in test.hashes)


def test_cifar10_and_stl10_come_through_torchvision(monkeypatch, tmp_path):
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path))
    asked = []

    def cifar10(root, download, train):
        asked.append((root, download))
        data = np.full((5 if train else 2, 32, 32, 3), 7 if train else 9, np.uint8)
        return SimpleNamespace(data=data, targets=[i % 2 for i in range(len(data))], classes=["x", "y"])

    def stl10(root, download, split):
        return SimpleNamespace(data=np.full((3 if split == "test" else 6, 3, 96, 96), 5, np.uint8))

    monkeypatch.setattr("torchvision.datasets.CIFAR10", cifar10)
    monkeypatch.setattr("torchvision.datasets.STL10", stl10)
    train, test = open_source("cifar10", "train"), open_source("cifar10", "test")
    assert (len(train), train.labels, train.classes, test.labels) == (5, [0, 1, 0, 1, 0], ["x", "y"], [0, 1])
    assert set(np.asarray(test.decode(0)).ravel()) == {9}
    assert asked[0] == (str(tmp_path / "cifar10"), True)
    assert len(open_source("stl10", "train")) == 6 and open_source("stl10", "test").header(0) == (96, 96, 3)


def test_failed_download_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("LDDGAN_CACHE", str(tmp_path))

    def fail(**_):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fail)
    with pytest.raises(UserError, match="'cifar10' could not be downloaded .no route to host.: connect"):
        open_source("cifar10")


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("LDDGAN_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("LDDGAN_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "lddgan"


def make_bad(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / {"text zip": "x.zip", "text lmdb": "x.lmdb", "image": "x.png", "text": "x.txt"}.get(kind, "x")
    if kind in ("text zip", "text lmdb", "text"):
        path.write_text("this is text")
    elif kind == "image":
        path.write_bytes(picture(0))
    elif kind == "empty":
        path.mkdir()
    elif kind == "no images":
        (path / "sub").mkdir(parents=True)
        (path / "sub/readme.txt").write_text("text")
    elif kind == "empty zip":
        path = pack(tmp_path / "e.zip", {})
    elif kind == "empty lmdb":
        path = write_lmdb(tmp_path / "e.lmdb", {})
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "does not exist"),
        ("empty", "holds no images"),
        ("no images", "holds no images"),
        ("empty zip", "holds no images"),
        ("empty lmdb", "is empty"),
        ("text zip", "not a readable zip"),
        ("text lmdb", "not a readable LMDB"),
        ("image", "single image"),
        ("text", "unknown kind"),
    ],
)
def test_bad_paths_are_named(tmp_path, kind, says):
    path = make_bad(tmp_path, kind)
    with pytest.raises(UserError, match=says) as caught:
        open_source(path)
    assert f"'{path}'" in str(caught.value) and ": " in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_split():
    with pytest.raises(UserError, match="'valid' is not a split"):
        open_source("digits", "valid")  # pyright: ignore[reportArgumentType]


def test_named_sets_win_over_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "digits", ["1.png"])
    assert len(open_source("digits", "all")) == 1797
    assert len(open_source("./digits", "all")) == 1
    assert sources.NAMED_SETS == ("cifar10", "stl10", "digits")
