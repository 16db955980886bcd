"""SourceCenters: Eq. 1-2, files, and what does not fit together."""

# ruff: noqa: F811

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.base import clone

from skadma import SourceCenters
from skadma.strategies import ADMA

from . import reference
from .center_sources import source  # noqa: F401
from .conftest import lite0, tiny_classifier


def test_nearest_to_the_class_mean(source):
    X, y = source
    clf = tiny_classifier(scan_batch_size=7)
    centers = SourceCenters.from_dataset(clf, X, y)
    expected = reference.center_indices(clf.embed(X, [-2])[-2].astype(float), y)
    assert centers.classes.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(centers.inputs, X[expected].transpose(0, 3, 1, 2))


def test_real_network_and_photographs(data_dir):
    """Ten photographs of each kind of animal: the centre is one of its own kind."""
    files, y = [], []
    for label, number in (("cat", 281), ("dog", 207)):
        files += sorted((data_dir / "dogs-vs-cats" / label).glob("*.jpg"))[:10]
        y += [number] * 10
    clf = lite0(image_size=96)
    centers = SourceCenters.from_dataset(clf, files, y)
    expected = reference.center_indices(
        clf.embed(files, [-2])[-2].astype(float), np.array(y)
    )
    # Sorted by class: the dog's number comes first.
    assert centers.classes.tolist() == [207, 281]
    assert centers.class_names == ("golden retriever", "tabby")
    chosen = clf.embed([files[i] for i in expected], [-2])[-2]
    kept = clf.embed(centers.inputs.transpose(0, 2, 3, 1), [-2])[-2]
    assert kept.shape == chosen.shape
    by_name = SourceCenters.from_dataset(
        clf, files, ["tabby"] * 10 + ["golden retriever"] * 10
    )
    np.testing.assert_array_equal(by_name.inputs, centers.inputs)


def test_fitting_the_estimator_changes_no_centre(source, pictures):
    X, y = source
    clf = tiny_classifier()
    before = SourceCenters.from_dataset(clf, X, y)
    clf.fit(*pictures)
    after = SourceCenters.from_dataset(clf, X, y)
    np.testing.assert_array_equal(before.inputs, after.inputs)
    assert before.fingerprint == after.fingerprint


def test_save_and_load(tmp_path, source):
    X, y = source
    centers = SourceCenters.from_dataset(tiny_classifier(), X, y)
    path = tmp_path / "centers.safetensors"
    centers.save(path)
    loaded = SourceCenters.load(path)
    for name, value in vars(centers).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
    assert repr(loaded) == repr(centers)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.full(40, 5), "classes 0 to 4"),
        (np.full(40, -1), "classes 0 to 4"),
        (["cat"] * 40, "class names of TinyCNN are not known"),
        ([0, 1], "inconsistent numbers"),
    ],
)
def test_wrong_labels(y, message, source):
    with pytest.raises(ValueError, match=message):
        SourceCenters.from_dataset(tiny_classifier(), source[0], y)


def test_unknown_class_name(pictures):
    with pytest.raises(ValueError, match=r"does not have: \['Katze'\]"):
        SourceCenters.from_dataset(lite0(), pictures[0], ["Katze"] * 24)


def test_centres_of_another_network(source, pictures):
    X, y = source
    centers = SourceCenters.from_dataset(tiny_classifier(), X, y)
    pool = pictures[0]
    with pytest.raises(ValueError, match=r"made with TinyCNN.*efficientnet_lite0"):
        ADMA(centers).query(lite0(image_size=32), pool)
    with pytest.raises(ValueError, match="Set image_size=32"):
        ADMA(centers).query(tiny_classifier(image_size=40), pool)


def test_wrong_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        SourceCenters.load(tmp_path / "nowhere.safetensors")
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a file of centres"):
        SourceCenters.load(path)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="not a file of centres"):
        SourceCenters.load(path)


VALUES = ["", "null", "-1", "0", "65536", "1e300", "[", "[" * 10**5, "[[1]]", "true",
          '{"a": 1}', str(10**21), "9" * 5000, "[1, 2, 3, 4, 5]"]  # fmt: skip


def test_files_that_somebody_changed(source, tmp_path):
    """Each is refused, when it is read or when it is used, or serves."""
    clf, path = tiny_classifier(max_epochs=0), tmp_path / "centers.safetensors"
    centers = SourceCenters.from_dataset(clf, *source)
    centers.save(path)
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    flat = centers.inputs.reshape(5, -1).astype(np.float32)
    changes = [(tensors, {**metadata, k: v}) for k in metadata for v in VALUES]
    changes += [({**tensors, "classes": np.array([0, 1, 2, 3, n])}, metadata)
                for n in (-1, 5, 10**6, 2**62)]  # fmt: skip
    changes += [({**tensors, "inputs": x}, metadata)
                for x in (flat, flat * np.nan, centers.inputs[:3])]  # fmt: skip
    served = 0
    for changed, about in changes:
        save_file(changed, path, about)
        try:
            found = SourceCenters.load(path)
        except ValueError as error:
            assert str(path) in str(error)
            continue
        try:
            assert len(ADMA(found).query(clf, source[0], 2)) == 2
            served += 1
        except ValueError as error:
            assert not isinstance(error, UnicodeError)
    assert served  # the file as it was is among them


def test_clones_share_the_centres(source):
    X, y = source
    centers = SourceCenters.from_dataset(tiny_classifier(), X, y)
    assert clone(ADMA(centers)).centers is centers


def test_one_centre_is_too_few(source, pictures):
    centers = SourceCenters.from_dataset(tiny_classifier(), source[0][:3], [1, 1, 1])
    with pytest.raises(ValueError, match="at least 2 centres"):
        ADMA(centers).query(tiny_classifier(), pictures[0])
