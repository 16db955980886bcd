"""Colours of 16 bits, RGBA, byte orders, columns, generators, ranges of values."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skadma import ActiveLearner, CNNClassifier
from skadma.images.dataset import ImageDataset, Preprocessing
from skadma.images.decoding import from_file
from skadma.strategies import CoreSet, MarginSampling

from .conftest import tiny_classifier

SAME = Preprocessing(16, 16)


def tensors(X, preprocessing=SAME):
    dataset = ImageDataset(X, preprocessing)
    return torch.stack([dataset[i] for i in range(len(dataset))])


@pytest.fixture(scope="module")
def values():
    """An image of 12 bits in four channels; the last is alpha."""
    found = np.random.default_rng(0).integers(0, 4096, (16, 16, 4), dtype=np.uint16)
    found[..., 3] = 4095
    return found


def png16(array, significant=b""):
    """A PNG file of 16 bits, with grey and alpha, colours, or colours and alpha."""
    height, width, n_channels = array.shape
    kind = {2: 4, 3: 2, 4: 6}[n_channels]

    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    told = chunk(b"sBIT", significant) if significant else b""
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + told + data


def tiff16(array, order="<", alpha=None, compressed=False):
    """A TIFF file of 16 bits with colours, and alpha of a kind."""
    height, width, n_channels = array.shape
    data = array.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if compressed else data
    tags = [(256, width), (257, height), (258, 0), (259, 8 if compressed else 1),
            (262, 2), (273, 200), (277, n_channels), (278, height),
            (279, len(data))]  # fmt: skip
    tags += [] if alpha is None else [(338, alpha)]
    entries = b"".join(struct.pack(f"{order}HHII", t, 4, 1, v) for t, v in tags)
    bits = struct.pack(f"{order}HHII", 258, 3, n_channels, 180)
    entries = entries[:24] + bits + entries[36:]
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HIH", 42, 8, len(tags)) + entries + bytes(4)
    depths = struct.pack(f"{order}{n_channels}H", *[16] * n_channels)
    return head.ljust(180, b"\0") + depths.ljust(20, b"\0") + data


FILES = {
    "colours.png": lambda v: png16(v[..., :3]),
    "stated.png": lambda v: png16(v[..., :3], b"\x0c\x0c\x0c"),
    "alpha.png": png16,
    "grey.png": lambda v: png16(v[..., [0, 3]]),
    "colours.tif": lambda v: tiff16(v[..., :3]),
    "other-order.tif": lambda v: tiff16(v[..., :3], ">"),
    "compressed.tif": lambda v: tiff16(v[..., :3], "<", None, True),
    "compressed-other-order.tif": lambda v: tiff16(v[..., :3], ">", None, True),
    "unspecified.tif": lambda v: tiff16(v, "<", 0),
    "alpha.tif": lambda v: tiff16(v, "<", 2),
    "alpha-other-order.tif": lambda v: tiff16(v, ">", 2, True),
    "multiplied.tif": lambda v: tiff16(v, "<", 1),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:There are images of more than 8 bits")
def test_colours_of_16_bits(name, values, tmp_path):
    path = tmp_path / name
    path.write_bytes(FILES[name](values))
    colours = values[..., [0] * 3 if name == "grey.png" else [0, 1, 2]]
    assert ImageDataset([path], SAME).find_value_range() == (0, 4095)
    for how, top in (
        (SAME, 65535),
        (Preprocessing(16, 16, value_range=(0, 4095)), 4095),
    ):
        top = 4095 if name == "stated.png" else top
        expected = np.rint(colours * (255 / top)).transpose(2, 0, 1)
        np.testing.assert_array_equal(tensors([path], how)[0].numpy(), expected)
    with path.open("rb") as file:  # as the page shows it
        seen = from_file(file, name, to_be_seen=True)
    np.testing.assert_array_equal(seen, np.rint(colours * (255 / 4095)))


def test_pil_images_with_colours_of_16_bits_are_told(values, tmp_path):
    for name in ("colours.png", "alpha.tif"):
        path = tmp_path / name
        path.write_bytes(FILES[name](values))
        told = pytest.warns(UserWarning, match=r"X\[0\] is a PIL.*upper 8 bits")
        with Image.open(path) as opened, told:
            found = tensors([opened])[0].numpy()
        np.testing.assert_array_equal(found, (values[..., :3] >> 8).transpose(2, 0, 1))


def test_multiplied_colours_are_divided_by_alpha(values, tmp_path):
    clear = values.copy()
    clear[:8, :, 3] = 0
    clear[8:, :, :3] //= 2
    clear[8:, :, 3] = 2048
    clear[0, 0, 3] = 4095
    path = tmp_path / "multiplied.tif"
    path.write_bytes(tiff16(clear, "<", 1))
    pixels = tensors([path], Preprocessing(16, 16, value_range=(0, 4095)))[0].numpy()
    expected = np.rint(values[8:, :, :3] / 4095 * 255).transpose(2, 0, 1)
    assert np.abs(pixels[:, 8:] - expected).max() <= 1


def test_files_and_arrays_of_the_same_colours_agree(values, tmp_path):
    path = tmp_path / "colours.png"
    path.write_bytes(png16(values))
    expected = tensors([path])
    for X in ([values], [values[..., :3]], [values.astype(">u2")]):
        assert torch.equal(tensors(X), expected)


RGBA = np.random.default_rng(1).integers(0, 256, (6, 16, 16, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    "X",
    [
        RGBA,
        torch.from_numpy(RGBA),
        RGBA.transpose(0, 3, 1, 2),
        list(RGBA),
        [*RGBA.transpose(0, 3, 1, 2)],
        RGBA / 255,
        (RGBA / 255).astype(np.float32),
        [Image.fromarray(image) for image in RGBA],
    ],
)
def test_alpha_is_dropped_in_every_form(X, tmp_path):
    for suffix in ("png", "tif", "webp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(RGBA[0]).save(path, **{"lossless": True, "exact": True})
        expected = torch.from_numpy(RGBA[0, ..., :3]).permute(2, 0, 1)
        assert torch.equal(tensors([path])[0], expected)
    assert torch.equal(tensors(X)[0], expected)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">u2", ">i4", ">u4", ">f2"])
def test_arrays_in_the_other_byte_order(dtype):
    native = np.dtype(dtype).newbyteorder("=")
    X = RGBA[..., :3] / 255 if native.kind == "f" else RGBA[..., :3].astype(int) * 16
    X = X.astype(native)
    how = Preprocessing(16, 16, value_range=None if native.kind == "f" else (0, 4080))
    for form in (lambda X: X, list):
        found, expected = (tensors(form(a), how) for a in (X.astype(dtype), X))
        assert torch.equal(found, expected)
    if native.kind == "u" and native.itemsize == 2:
        assert torch.equal(tensors(list(X.astype(dtype))), tensors(list(X)))
        with pytest.warns(UserWarning, match="value_range"):
            found = ImageDataset(list(X.astype(dtype)), SAME).find_value_range()
        assert found == (0, 4095)


def test_arrays_in_the_other_byte_order_in_fit_and_predict(pictures):
    X, y = pictures
    clf = tiny_classifier()
    expected = clf.fit(X, y).predict_proba(X)
    floats = (X / 255).astype(">f4")
    np.testing.assert_allclose(clf.predict_proba(floats), expected, atol=1e-6)
    clf.fit(floats, y.astype(">i8") if y.dtype.kind in "iu" else y)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-6)
    rows = np.random.default_rng(0).normal(size=(12, 4)).astype(">f4")
    table = CNNClassifier(linear_network, training="probe", random_state=0)
    table.fit(rows, [0, 1] * 6)
    native = rows.astype(np.float32)
    np.testing.assert_array_equal(
        table.predict_proba(rows), table.predict_proba(native)
    )


def linear_network():
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    )


def test_integers_of_more_than_8_bits_name_the_parameter():
    X = np.full((2, 8, 8), 4000, np.uint16)
    with pytest.raises(ValueError, match=r"value_range=\(0, 4000\)"):
        ImageDataset(X, SAME)


# --- columns and generators -----------------------------------------------------------


class Column(Sequence):
    """As a column of images in `datasets`: an image is decoded when it is asked for."""

    def __init__(self, items):
        self.items = items
        self.n_read = 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.n_read += 1
        found = self.items[i]
        if isinstance(found, np.ndarray) and found.dtype == np.uint8:
            return Image.fromarray(found)
        return found


class Table(Column):
    """As a `datasets.Dataset`: an item is a dict, and there is a shape."""

    @property
    def shape(self):
        return len(self), 2

    def __getitem__(self, i):
        if isinstance(i, str):
            return Column(self.items)
        return {"image": super().__getitem__(i), "label": 0}


def test_a_column_is_like_a_list(pictures):
    X, y = pictures
    expected = tiny_classifier().fit(list(X), y)
    column = Column(list(X))
    clf = tiny_classifier().fit(column, y)
    for method in ("predict_proba", "predict", "decision_function", "source_proba"):
        found, wanted = (getattr(c, method)(X) for c in (clf, expected))
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(getattr(clf, method)(column), wanted)
    for found, wanted in zip(
        clf.embed(column).values(), expected.embed(X).values(), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    for strategy in (MarginSampling(random_state=0), CoreSet(random_state=0)):
        np.testing.assert_array_equal(
            strategy.query(clf, column, 5), strategy.query(clf, list(X), 5)
        )
    learners = [
        ActiveLearner(
            tiny_classifier(), MarginSampling(), n_rounds=2, n_instances=4,
            random_state=0,
        ).fit(pool, y)
        for pool in (Column(list(X)), list(X))
    ]  # fmt: skip
    np.testing.assert_array_equal(
        learners[0].queried_indices_, learners[1].queried_indices_
    )


def test_a_column_is_not_read_as_a_whole(pictures):
    column = Column(list(pictures[0]))
    dataset = ImageDataset(column, Preprocessing(32, 32))
    assert column.n_read <= 2
    dataset[3]
    assert column.n_read <= 3


def test_a_column_of_paths(pictures, tmp_path):
    X, _ = pictures
    paths = [str(tmp_path / f"{i}.png") for i in range(4)]
    for image, path in zip(X, paths, strict=False):
        Image.fromarray(image).save(path)
    found = ImageDataset(Column(paths), Preprocessing(32, 32))
    assert found.from_files
    assert found.name(2) == paths[2]


def test_a_table_of_datasets_names_its_columns(pictures):
    X, y = pictures
    clf = tiny_classifier().fit(X, y)
    for use in (lambda t: tiny_classifier().fit(t, y), clf.predict, clf.embed):
        with pytest.raises(ValueError, match=r"columns \['image', 'label'\]: give"):
            use(Table(list(X)))


UNSIZED = {
    "generator": lambda X: (image for image in X),
    "map": lambda X: map(Image.fromarray, X),
    "iterator": iter,
    "zip": lambda X: zip(X, X, strict=True),
    "loader": lambda X: torch.utils.data.DataLoader(list(X)),
    "set": lambda X: {"a.png"},
    "None": lambda X: None,
    "number": lambda X: 5,
    "path": lambda X: Path("a.png"),
    "text": lambda X: "a.png",
    "dict": lambda X: dict(enumerate(X)),
    "image": lambda X: Image.fromarray(X[0]),
}


@pytest.mark.parametrize("name", UNSIZED)
@pytest.mark.parametrize(
    "use",
    [
        lambda clf, X, y: tiny_classifier().fit(X, y),
        lambda clf, X, y: tiny_classifier().partial_fit(X, y),
        lambda clf, X, y: clf.predict(X),
        lambda clf, X, y: clf.predict_proba(X),
        lambda clf, X, y: clf.embed(X),
        lambda clf, X, y: tiny_classifier().embed(X),
        lambda clf, X, y: clf.source_proba(X),
        lambda clf, X, y: MarginSampling().query(clf, X, 2),
        lambda clf, X, y: CoreSet().query(clf, X, 2),
        lambda clf, X, y: MarginSampling().query(tiny_classifier(), X, 2),
        lambda clf, X, y: ActiveLearner(tiny_classifier(), CoreSet()).fit(X, y),
        lambda clf, X, y: clf.score(X, y),
    ],
)
def test_what_has_no_items_by_number_is_refused(name, use, pictures):
    X, y = pictures
    clf = fitted(pictures)
    with pytest.raises(ValueError, match=r"X is \w+.*Accepted are"):
        use(clf, UNSIZED[name](X), y)


FITTED = []


def fitted(pictures):
    if not FITTED:
        FITTED.append(tiny_classifier().fit(*pictures))
    return FITTED[0]


# --- the range of values, from fit to fit ---------------------------------------------


class Decoded(torch.utils.data.Dataset):
    """A Dataset that decodes on demand, and counts."""

    def __init__(self, items, labelled=False):
        self.items, self.labelled, self.n_read = items, labelled, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.n_read += 1
        return (self.items[i], 7) if self.labelled else self.items[i]


def twelve_bits(X, top=4095):
    return [np.rint(image / 255 * top).astype(np.uint16) for image in X]


@pytest.mark.parametrize("kind", [Decoded, Column])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(
    "form",
    [
        lambda a: a,
        lambda a: torch.from_numpy(a),
        lambda a: Image.fromarray(a[..., 0]),
        lambda a: a.astype(">u2"),
    ],
)
def test_images_of_a_dataset_are_read_for_their_range(kind, labelled, form, pictures):
    X, y = pictures
    X = np.repeat(X[..., :1], 3, axis=3)
    wide = [form(image) for image in twelve_bits(X)]
    if kind is Column:
        data = Column([(image, 7) if labelled else image for image in wide])
    else:
        data = Decoded(wide, labelled)
    with pytest.warns(UserWarning, match=r"value_range=\(0, 4095\)"):
        clf = tiny_classifier().fit(data, y)
    assert clf.value_range_ == (0, 4095)
    expected = tiny_classifier().fit(X, y).predict_proba(X)
    np.testing.assert_allclose(clf.predict_proba(data), expected, atol=1e-5)


def test_a_dataset_of_8_bits_is_not_read_twice(pictures):
    X = np.repeat(pictures[0], 10, axis=0)
    data = Decoded([Image.fromarray(image) for image in X])
    assert ImageDataset(data, Preprocessing(32, 32)).find_value_range() is None
    assert data.n_read <= 20


def test_items_that_fail_are_left_to_the_fit(pictures):
    class Failing(Decoded):
        def __getitem__(self, i):
            if i == 3:
                raise OSError("no such file")
            return super().__getitem__(i)

    with (
        pytest.warns(UserWarning, match=r"value_range=\(0, 4095\)"),
        pytest.warns(UserWarning, match=r"1 unreadable.*no such file"),
    ):
        clf = tiny_classifier(on_bad_image="skip").fit(
            Failing(twelve_bits(pictures[0])), pictures[1]
        )
    assert clf.value_range_ == (0, 4095)


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.filterwarnings("ignore:There are images of more than 8 bits")
def test_another_range_in_a_later_fit_is_told(warm_start, pictures, recwarn):
    X, y = pictures
    ten, twelve = twelve_bits(X, 1023), twelve_bits(X)
    clf = tiny_classifier(warm_start=warm_start).fit(ten, y)
    assert clf.value_range_ == (0, 1023)
    recwarn.clear()
    clf.fit(ten, y)
    assert not recwarn.list
    told = r"value_range=\(0, 4095\), and the last fit found \(0, 1023\)"
    with pytest.warns(UserWarning, match=told) as caught:
        clf.fit(twelve, y)
    assert len(caught) == 1
    assert clf.value_range_ == ((0, 1023) if warm_start else (0, 4095))
    top = clf.value_range_[1]
    eight = [
        (image.clip(0, top) * (255 / top)).round().astype(np.uint8) for image in twelve
    ]
    np.testing.assert_allclose(
        clf.predict_proba(twelve), clf.predict_proba(eight), atol=1e-5
    )
    assert clf.source_network_.preprocessing.value_range == clf.value_range_


@pytest.mark.filterwarnings("ignore:There are images of more than 8 bits")
def test_partial_fit_tells_another_range(pictures):
    X, y = pictures
    clf = tiny_classifier().fit(twelve_bits(X, 1023), y)
    with pytest.warns(UserWarning, match="goes on with that"):
        clf.partial_fit(twelve_bits(X), y)
    assert clf.value_range_ == (0, 1023)


def test_a_range_that_is_given_is_the_fitted_one(pictures, tmp_path, recwarn):
    X, y = pictures
    clf = tiny_classifier(value_range=[0, 2000], warm_start=True)
    clf.fit(twelve_bits(X, 1023), y).fit(twelve_bits(X), y)
    assert clf.value_range_ == (0, 2000)
    clf.save(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model", backbone=clf.backbone)
    assert loaded.value_range_ == (0, 2000)
    assert tiny_classifier().fit(X, y).value_range_ is None
    assert not recwarn.list
