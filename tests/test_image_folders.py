"""The one rule for reading folders of images."""

import errno
import os
import warnings

import pytest

import skadma.images.folder
from skadma.bench.datasets import load_dataset
from skadma.centers import SourceCenters
from skadma.images.folder import (
    find_left_out,
    image_files,
    images_by_class,
    iter_images,
)

from .conftest import tiny_classifier


@pytest.fixture
def photos(tmp_path):
    """A folder with two folders below, and what is hidden in it."""
    root = tmp_path / "photos"
    seen = ["a.png", "b.JPG", "notes.txt", "x/c.png", "y/d.png"]
    hidden = [".hidden.png", "._b.JPG", ".cache/e.png", "x/.cache/f.png"]
    for name in seen + hidden:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


FOUND = ["a.png", "b.JPG", "x/c.png", "y/d.png"]


def paths(root):
    return [path for path, _ in iter_images(root)]


class Entry:
    """An entry of a folder of which the system cannot say what it is."""

    def __init__(self, entry, error):
        self.name, self._error = entry.name, error

    def is_dir(self, *, follow_symlinks=True):
        raise self._error

    stat = is_dir


def failing(monkeypatch, name, error, *, at_entry=False):
    """Let the folder of this name, or the first of its entries, fail."""
    scandir = os.scandir

    class Listing:
        def __init__(self, folder):
            self.folder, self.entries = folder, scandir(folder)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.entries.close()

        def __iter__(self):
            for entry in self.entries:
                if self.folder.name != name:
                    yield entry
                elif at_entry:
                    yield Entry(entry, error)
                else:
                    raise error

    monkeypatch.setattr(skadma.images.folder.os, "scandir", Listing)


def test_hidden_files_and_folders_are_passed_over(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paths(photos) == FOUND
        assert image_files(photos) == [str(photos / path) for path in FOUND]


def test_a_link_to_itself_leaves_out_itself_alone(photos):
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "x" / "loop").symlink_to("loop")  # no image by its name
    with pytest.warns(
        UserWarning, match=r"'loop\.jpg' is left out: .*symbolic"
    ) as said:
        assert paths(photos) == FOUND
    assert len(said) == 1


def test_links_are_followed_to_files_alone(photos):
    (photos / "again.png").symlink_to("a.png")
    (photos / "all").symlink_to(photos)
    (photos / "all.png").symlink_to(photos)
    os.mkfifo(photos / "pipe.png")
    assert paths(photos) == sorted([*FOUND, "again.png"])


def test_what_is_no_file_by_an_image_s_name_is_listed(photos):
    (photos / "all.png").symlink_to(photos)
    os.mkfifo(photos / "pipe.png")
    assert find_left_out(photos) == {
        ".txt": ["notes.txt"],
        "link to a folder": ["all.png"],
        "no regular file": ["pipe.png"],
    }


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_not_unicode_are_listed_as_text(photos):
    """They can be written, to a page for example."""
    for name in (b"caf\xe9.png", b"caf\xe9.txt", b"a.\xe9"):
        (photos / os.fsdecode(name)).touch()
    found = find_left_out(photos)
    assert sorted(found[".txt"]) == ["caf\\udce9.txt", "notes.txt"]
    for reason, names in found.items():
        "".join([reason, *names]).encode()
    assert sum(map(len, found.values())) == 4


def test_a_link_into_a_folder_without_permission(photos, monkeypatch):
    """The link's target cannot be looked at: one entry, not the whole folder."""
    error = PermissionError(errno.EACCES, "Permission denied")
    failing(monkeypatch, "x", error, at_entry=True)
    with pytest.warns(UserWarning, match=r"'x/c\.png' is left out: Permission denied"):
        assert paths(photos) == [path for path in FOUND if path != "x/c.png"]


def test_a_folder_without_permission_is_left_out_by_name(photos, monkeypatch):
    failing(monkeypatch, "x", PermissionError(errno.EACCES, "Permission denied"))
    with pytest.warns(UserWarning, match="'x/' is left out: Permission denied"):
        assert paths(photos) == [path for path in FOUND if path != "x/c.png"]


def test_the_folder_that_is_asked_for_must_be_readable(photos, monkeypatch):
    failing(monkeypatch, "photos", PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(PermissionError, match="photos"):
        paths(photos)


@pytest.mark.parametrize("at_entry", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
@pytest.mark.parametrize("name", ["photos", "x"])
def test_a_disk_that_fails_halfway_is_an_error(
    photos, monkeypatch, name, number, at_entry
):
    failing(monkeypatch, name, OSError(number, os.strerror(number)), at_entry=at_entry)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        paths(photos)
    assert raised.value.errno == number
    assert raised.value.filename == str(photos if name == "photos" else photos / "x")
    with pytest.raises(OSError, match=os.strerror(number)):
        images_by_class(photos)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        paths(tmp_path / "nowhere")


def test_a_class_for_each_subfolder(photos):
    (photos / "empty").mkdir()
    (photos / "linked").symlink_to(photos / "x")
    (photos / "loop").symlink_to("loop")
    with pytest.warns(UserWarning, match="'loop' is left out"):
        found = images_by_class(photos)
    assert list(found) == ["empty", "linked", "x", "y"]
    assert found["empty"] == []
    assert found["linked"] == [str(photos / "linked" / "c.png")]
    assert found["x"] == [str(photos / "x" / "c.png")]


def test_a_hidden_folder_is_no_class(tmp_path, pictures):
    from PIL import Image

    X, y = pictures
    for k in range(5):
        (tmp_path / f"class {k}").mkdir()
        Image.fromarray(X[k]).save(tmp_path / f"class {k}" / "image.png")
    (tmp_path / ".thumbnails").mkdir()
    Image.fromarray(X[9]).save(tmp_path / ".thumbnails" / "image.png")
    assert set(load_dataset("folder", tmp_path).y) == {f"class {k}" for k in range(5)}
    centers = SourceCenters.from_dataset(tiny_classifier(), tmp_path)
    assert centers.classes.tolist() == list(range(5))
