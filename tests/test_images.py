"""Every accepted form of X, and every refusal by its message."""

import io
import os
import pickle
import struct
import tracemalloc
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision.transforms.functional as tv
from PIL import Image
from scipy import sparse
from torchvision.models import EfficientNet_B0_Weights, ResNet18_Weights

from skadma import CNNClassifier
from skadma.images.dataset import ImageDataset, Preprocessing, is_table, n_images, take
from skadma.images.decoding import UnreadableImageError, from_file

SAME = Preprocessing(16, 16)


def tensors(X, preprocessing=SAME, **kwargs):
    dataset = ImageDataset(X, preprocessing, **kwargs)
    return torch.stack([dataset[i] for i in range(len(dataset))])


@pytest.fixture(scope="module")
def colour():
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def grey():
    return np.random.default_rng(1).integers(0, 256, (5, 16, 16), dtype=np.uint8)


def test_arrays(colour, grey):
    expected = torch.from_numpy(colour).permute(0, 3, 1, 2)
    first = colour.transpose(0, 3, 1, 2)
    for X in (
        colour,
        first,
        colour / 255,
        first.astype(np.float32) / 255,
        torch.from_numpy(first),
        colour.tolist(),
    ):
        if not isinstance(X, list):
            assert torch.equal(tensors(X), expected)
    rows = colour.reshape(5, -1)
    assert torch.equal(tensors(rows, image_shape=(16, 16, 3)), expected)
    table = pd.DataFrame(first.reshape(5, -1) / 255)
    assert torch.equal(tensors(table, image_shape=(3, 16, 16)), expected)
    expected = torch.from_numpy(grey)[:, None].expand(-1, 3, -1, -1)
    for X in (
        grey,
        grey / 255,
        grey[..., None],
        grey[:, None],
        grey.astype("f4") / 255,
    ):
        assert torch.equal(tensors(X), expected)
    flat = grey.reshape(5, -1)
    assert torch.equal(tensors(flat, image_shape=(16, 16)), expected)


def test_lists_of_pictures(colour):
    expected = torch.from_numpy(colour).permute(0, 3, 1, 2)
    pictures = [Image.fromarray(x) for x in colour]
    objects = np.empty(5, dtype=object)
    objects[:] = pictures
    for X in (
        pictures,
        tuple(pictures),
        objects,
        list(colour),
        [x / 255 for x in colour],
        [torch.from_numpy(x).permute(2, 0, 1) for x in colour],
        [pictures[0], colour[1], colour[2] / 255, *pictures[3:]],
    ):
        assert torch.equal(tensors(X), expected)


def test_paths(colour, tmp_path):
    paths = []
    for i, x in enumerate(colour):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(x).save(paths[-1])
    strings = [str(path) for path in paths]
    expected = torch.from_numpy(colour).permute(0, 3, 1, 2)
    for X in (
        paths,
        strings,
        np.array(strings),
        np.array(paths, dtype=object),
        pd.Series(strings, index=list("abcde")),
        tuple(paths),
    ):
        assert torch.equal(tensors(X), expected)
        dataset = pickle.loads(pickle.dumps(ImageDataset(X, SAME)))
        assert torch.equal(dataset[4], expected[4])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(())


class Labelled(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i], 7


def test_datasets(colour):
    expected = torch.from_numpy(colour).permute(0, 3, 1, 2)
    for items in (
        [Image.fromarray(x) for x in colour],
        colour,
        expected,
        expected / 255,
    ):
        assert torch.equal(tensors(Labelled(items)), expected)
    assert torch.equal(tensors(torch.utils.data.TensorDataset(expected)), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp"])
def test_modes_are_what_pil_makes_of_them(mode, suffix, colour, tmp_path):
    image = Image.fromarray(colour[0]).convert(mode)
    path = tmp_path / f"image.{suffix}"
    try:
        image.save(path)
    except (OSError, KeyError):
        pytest.skip(f"Pillow writes no {mode} {suffix}")
    with Image.open(path) as again:
        expected = torch.from_numpy(np.array(again.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(tensors([path])[0], expected)


def test_palette_and_alpha_by_hand(tmp_path):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert tensors([image])[0, :, 3, 3].tolist() == [10, 20, 30]
    image = Image.new("RGBA", (16, 16), (1, 2, 3, 0))
    assert tensors([image])[0, :, 3, 3].tolist() == [1, 2, 3]
    assert tensors([np.asarray(image)])[0, :, 3, 3].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257, 1), (65535, 255),
                                                 (32896, 128), (200, 1)])  # fmt: skip
def test_16_bit(value, expected, tmp_path):
    array = np.full((16, 16), value, dtype=np.uint16)
    path = tmp_path / "image.png"
    Image.fromarray(array).save(path)
    for X in ([path], [array], [Image.fromarray(array)]):
        assert (tensors(X) == expected).all()
    wide = Image.fromarray(array.astype(np.int32))
    assert wide.mode == "I"
    assert (tensors([wide]) == expected).all()


def test_modes_that_are_multiplied_by_alpha(colour):
    """As they are without; the last bits of dark colours are lost."""
    alpha = np.full((16, 16), 200, np.uint8)
    image = Image.fromarray(np.dstack([colour[0], alpha]))
    for mode in ("LA", "RGBA"):
        plain = image.convert(mode)
        found = tensors([plain.convert(mode[:-1] + "a")])[0].int()
        assert (found - tensors([plain])[0].int()).abs().max() <= 1


def test_an_image_that_pillow_cannot_convert_is_named(colour, monkeypatch):
    X = [Image.fromarray(colour[0]).convert("L")]
    monkeypatch.setattr(Image.Image, "convert", lambda *_: int("x"))
    with pytest.raises(UnreadableImageError, match=r"image 'X\[0\]' cannot be read"):
        tensors(X)


def test_mixed_sizes_and_modes(tmp_path):
    sizes = [(40, 16), (16, 90), (300, 200), (5, 5)]
    modes = ["L", "RGBA", "P", "RGB"]
    X = [Image.new(m, s, 3) for m, s in zip(modes, sizes, strict=True)]
    assert tensors(X).shape == (4, 3, 16, 16)


@pytest.mark.parametrize("weights", [ResNet18_Weights.DEFAULT,
                                     EfficientNet_B0_Weights.DEFAULT])  # fmt: skip
def test_resizes_as_torchvision_does(weights, data_dir):
    """The very pixels that a preset makes of a photograph."""
    preset = weights.transforms()
    preprocessing = Preprocessing(
        preset.crop_size[0], preset.resize_size[0], preset.interpolation.value
    )
    paths = sorted((data_dir / "dogs-vs-cats" / "cat").glob("*.jpg"))[:4]
    for path in paths:
        with Image.open(path) as image:
            picture = image.convert("RGB")
        preset.mean, preset.std = [0.0] * 3, [1.0] * 3
        expected = (preset(picture) * 255).round()
        assert torch.equal(tensors([path], preprocessing)[0].float(), expected)
        assert torch.equal(tensors([np.array(picture)], preprocessing)[0], expected)


def test_tensors_share_no_memory_with_the_input():
    small = Preprocessing(8, 8)
    for X in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 3, 8, 8), np.uint8)):
        ImageDataset(X, small)[0].add_(1)
        assert not X.any()


def test_real_photographs_by_path_and_by_array(elpv):
    import elpv_dataset

    X, _ = elpv
    folder = Path(elpv_dataset.__file__).parent / "data" / "images"
    path = folder / "cell0001.png"
    with Image.open(path) as image:
        array = np.asarray(image)
    small = Preprocessing(64, 73)
    assert torch.equal(tensors([path], small), tensors(array[None], small))
    assert tensors(X[:3], small).shape == (3, 3, 64, 64)


@pytest.mark.parametrize(
    ("X", "got"),
    [
        (None, "X is NoneType"),
        ("photo.png", r"X is str, which is no sequence.*Put a single path"),
        (Path("photo.png"), "X is PosixPath|X is WindowsPath"),
        (5, "X is int"),
        (np.array(5), "X is ndarray"),
        ({"a": 1}, "X is dict"),
        (Image.new("L", (4, 4)), "X is Image"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((5, 64), np.uint8), "give image_shape="),
        (np.zeros((5, 5, 8, 8), np.uint8), r"shape \(5, 5, 8, 8\)"),
        (np.zeros((2, 2, 3, 8, 8), np.uint8), r"shape \(2, 2, 3, 8, 8\)"),
        (np.zeros((0, 8, 8), np.uint8), "0 images"),
        ([], "0 images"),
        (np.zeros((2, 0, 8), np.uint8), r"shape \(2, 0, 8\)"),
        (np.full((2, 8, 8), 9), r"from 9 to 9\. Cast them with X\.astype"),
        (np.full((2, 8, 8), 999), r"from 999 to 999\. Scale"),
        (np.full((2, 8, 8), 200.0), r"from 200 to 200; floats must be in \[0, 1\]"),
        (np.full((2, 8, 8), -0.1), "from -0.1 to -0.1"),
        (np.full((2, 8, 8), np.nan), "contains NaN"),
        (np.full((2, 8, 8), np.inf), "from inf to inf"),
        (np.full((2, 8, 8), 1j), "complex128"),
        (np.full((2, 8, 8), 9, np.uint16), "uint16"),
        (sparse.eye(4).tocsr(), "sparse matrix"),
        (torch.rand(2, 8, 8).to_sparse(), "tensor of torch.float32, torch.sparse_coo"),
        (Stream(), "X is Stream, which is no sequence"),
        (["a.png", Image.new("L", (4, 4))], r"X\[0\] is a path, X\[1\] is Image"),
        ([Image.new("L", (4, 4)), 5], r"X\[1\] is int"),
        ([[1, 2], [3]], "no array can be made"),
    ],
)
def test_refused(X, got):
    with pytest.raises(ValueError, match=got) as error:
        n_images(X)  # what all methods ask first
        ImageDataset(X, SAME)
    assert "Accepted are: a uint8 array (n, H, W)" in str(error.value)


@pytest.mark.parametrize(
    ("item", "got"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"X\[1\] has shape \(4, 4, 5\)"),
        (np.zeros(4, np.uint8), r"X\[1\] has shape \(4,\)"),
        (np.full((4, 4), 7), r"X\[1\] has int64 values from 7 to 7"),
        (np.full((4, 4), np.nan), r"X\[1\] contains NaN"),
        ("text", r"X\[1\] is str"),
    ],
)
def test_refused_when_its_turn_comes(item, got):
    dataset = ImageDataset(Labelled([np.zeros((4, 4), np.uint8), item]), SAME)
    dataset[0]
    with pytest.raises(ValueError, match=got):
        dataset[1]


def test_image_shape_that_does_not_fit():
    with pytest.raises(ValueError, match=r"\(8, 9\) has 72 numbers instead of 64"):
        ImageDataset(np.zeros((2, 64)), SAME, image_shape=(8, 9))


def test_files_that_cannot_be_read(tmp_path, colour):
    good = tmp_path / "good.png"
    Image.fromarray(colour[0]).save(good)
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:200])
    text = tmp_path / "text.png"
    text.write_text("no image")
    paths = [good, tmp_path / "missing.png", cut, text, tmp_path]
    dataset = ImageDataset(paths, SAME)
    assert dataset.readable().tolist() == [True, False, False, False, False]
    for i in (1, 2, 3, 4):
        with pytest.raises(UnreadableImageError, match=paths[i].name):
            dataset[i]


def test_take_and_count(colour, tmp_path):
    strings = [f"{i}.png" for i in range(5)]
    forms = [
        colour,
        torch.from_numpy(colour),
        list(colour),
        tuple(colour),
        strings,
        np.array(strings),
        pd.Series(strings, index=list("edcba")),
        pd.DataFrame(colour.reshape(5, -1)),
        sparse.csr_matrix(colour.reshape(5, -1)),
        Labelled(strings),
    ]
    mask = np.array([True, False, False, True, False])
    for X in forms:
        assert n_images(X) == 5
        for indices in ([3, 0], np.array([3, 0])):
            part = take(X, indices)
            assert n_images(part) == 2
        assert n_images(take(X, mask)) == 2
    assert take(strings, [3, 0]) == ["3.png", "0.png"]
    assert take(forms[6], [3, 0]).tolist() == ["3.png", "0.png"]
    assert take(forms[-1], [3, 0])[0] == ("3.png", 7)
    np.testing.assert_array_equal(take(colour, [3, 0]), colour[[3, 0]])


@pytest.mark.parametrize(
    ("X", "table"),
    [
        (np.zeros((3, 4)), True),
        (np.zeros(3), True),
        ([[1, 2], [3, 4]], True),
        (pd.DataFrame({"a": [1]}), True),
        (sparse.eye(3).tocsr(), True),
        (np.zeros((3, 4, 4)), False),
        (["a.png"], False),
        (np.array(["a.png"]), False),
        (pd.Series(["a.png"]), False),
        ([Image.new("L", (4, 4))], False),
        ([np.zeros((4, 4))], False),
        (Labelled([1]), False),
    ],
)
def test_tables_and_images_are_told_apart(X, table):
    assert is_table(X) is table


def test_reduced_decoding_of_jpeg_files(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    ramp = np.linspace(0, 255, 400)[:, None] + np.zeros((400, 320))
    photo = Image.fromarray(ramp.astype(np.uint8)).convert("RGB")
    for kind in ("jpg", "png"):
        photo.save(tmp_path / f"large.{kind}", exif=exif, quality=95)
        photo.resize((90, 90)).save(tmp_path / f"small.{kind}", exif=exif)
    paths = sorted(map(str, tmp_path.iterdir()))
    full = tensors(paths, Preprocessing(16, 16)).int()
    reduced = tensors(paths, Preprocessing(16, 16, reduced=True)).int()
    differ = [not torch.equal(a, b) for a, b in zip(full, reduced, strict=True)]
    assert differ == [path.endswith("large.jpg") for path in paths]
    assert (full - reduced).abs().max() <= 2
    assert reduced[0, 0, :, 15].max() < 40  # what was above is now on the right
    assert from_file(paths[0], "", 48).shape == (80, 100, 3)
    assert from_file(paths[0], "", 81).shape == (160, 200, 3)


def test_reduced_decoding_is_part_of_what_is_kept():
    plain, reduced = (
        CNNClassifier("squeezenet1_1", weights=None, image_size=32, reduced_decoding=r)
        for r in (False, True)
    )
    sources = plain.source_network(), reduced.source_network()
    assert [source.preprocessing.least for source in sources] == [None, 111]
    assert sources[0].fingerprint == sources[1].fingerprint
    assert sources[0].namespace != sources[1].namespace


@pytest.mark.parametrize("size", [(65000, 1), (1, 65000), (65000, 3), (2, 50000)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_lines_are_cropped_before_they_are_enlarged(size, interpolation, tmp_path):
    usual = Preprocessing(224, 256, interpolation)
    ramp = np.linspace(0, 255, max(size)).astype(np.uint8)
    line = Image.fromarray(np.broadcast_to(ramp, (min(size), max(size))).copy())
    line = line if size[0] > size[1] else line.transpose(Image.Transpose.ROTATE_270)
    line.save(tmp_path / "line.png")
    tracemalloc.start()
    for X in ([tmp_path / "line.png"], [line], np.asarray(line)[None]):
        found = tensors(X, usual)
        assert found.shape == (1, 3, 224, 224)
        assert (found.int() - 127).abs().max() <= 1
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(70, 1), (1, 400), (900, 11), (9, 3000), (60, 1)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_and_resize_give_the_same_in_either_order(size, interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    resized = tv.resize(image, [40], tv.InterpolationMode(interpolation))
    expected = tv.pil_to_tensor(tv.center_crop(resized, [32]))
    found = tensors(pixels[None], Preprocessing(32, 40, interpolation))[0]
    differences = (found.int() - expected.int()).abs()  # Pillow rounds between passes
    assert differences.float().mean() < 0.5
    assert differences.max() <= (1 if interpolation == "bilinear" else 30)


@pytest.mark.parametrize("error", [MemoryError, ValueError, OSError])
def test_what_fails_after_decoding_names_the_image(
    error, colour, tmp_path, monkeypatch
):
    def fail(*args):
        raise error("no more")

    path = tmp_path / "large.png"
    Image.fromarray(colour[0]).save(path)
    monkeypatch.setattr(Image.Image, "resize", fail)
    for X, name in (
        ([path], "large.png"),
        ([Image.fromarray(colour[0])], r"X\[0\]"),
        (colour[:1], r"X\[0\]"),
    ):
        dataset = ImageDataset(X, Preprocessing(8, 8))
        _, load = dataset.keyed(0)
        for decode in (partial(dataset.__getitem__, 0), load):
            with pytest.raises(UnreadableImageError, match=f"{name}.*no more"):
                decode()


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xff\xfe.png", b"a\x80/b.png"])
def test_names_that_are_not_unicode(name, colour, tmp_path):
    path = tmp_path / os.fsdecode(name)
    try:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(colour[0]).save(path, "PNG")
    except OSError:
        pytest.skip("the file system has Unicode names only")
    plain = str(tmp_path / "plain.png")
    Image.fromarray(colour[0]).save(plain)
    for X in ([str(path)], [path], np.array([str(path)])):
        dataset = ImageDataset([*X, plain], SAME)
        (key, load), (other, _) = dataset.keyed(0), dataset.keyed(1)
        assert key != other
        assert torch.equal(load(), dataset[1])
    path.unlink()
    with pytest.raises(UnreadableImageError) as error:
        dataset.keyed(0)
    str(error.value).encode()  # it can be printed


@pytest.mark.parametrize("name", ["nul\0.png", "lone\ud800.png"])
def test_names_that_no_file_can_have(name):
    dataset = ImageDataset([name], SAME)
    for read in (dataset.__getitem__, dataset.keyed):
        with pytest.raises(UnreadableImageError) as error:
            read(0)
        str(error.value).encode()


class Broken(Labelled):
    def __getitem__(self, i):
        if self.items[i] is None:
            raise OSError("truncated")
        return super().__getitem__(i)


def bad_forms(colour):
    """Forms of five images of which those numbered 1 and 3 cannot be used."""
    pictures = [Image.fromarray(x) for x in colour]
    for i in (1, 3):
        data = io.BytesIO()
        pictures[i].save(data, "PNG")
        pictures[i] = Image.open(io.BytesIO(data.getvalue()[:200]))
    arrays = [x / 255 for x in colour]
    arrays[1] = np.full((4, 4), np.nan)
    arrays[3] = np.zeros((4, 4, 5), np.uint8)
    objects = np.empty(5, dtype=object)
    for i, picture in enumerate(pictures):
        objects[i] = picture
    gaps = [x if i not in (1, 3) else None for i, x in enumerate(colour)]
    return [
        pictures,
        tuple(pictures),
        objects,
        pd.Series(objects, index=list("edcba")),
        arrays,
        Broken(gaps),
        torch.utils.data.Subset(Broken([None, *gaps]), range(1, 6)),
    ]


def test_bad_images_in_any_form_keep_their_numbers(colour):
    for X in bad_forms(colour):
        dataset = ImageDataset(X, SAME)
        assert dataset.readable().tolist() == [True, False, True, False, True]
        chosen = take(take(X, [4, 3, 2]), np.array([False, True, True]))
        for some in (ImageDataset(chosen, SAME), dataset.select(np.array([3, 2]))):
            again = pickle.loads(pickle.dumps(take(chosen, [1])))
            assert ImageDataset(again, SAME).name(0) == "X[2]"
            with pytest.raises(UnreadableImageError, match=r"X\[3\]"):
                some[0]
            assert torch.equal(some[1], dataset[2])


def wide_files(folder):
    """Grey files whose largest value is 4095 or 200, with that value's range."""
    ramp = np.linspace(0, 1, 256).reshape(16, 16)
    twelve = np.rint(ramp * 4095).astype(np.uint16)
    plain = Image.fromarray(twelve)
    plain.save(folder / "told.tif", tiffinfo={340: 0, 341: 4095})
    plain.save(folder / "untold.tif")
    plain.save(folder / "untold.png")
    eight = np.rint(ramp * 255).astype(np.uint16)
    Image.fromarray(eight).save(folder / "eight.png")
    Image.fromarray(eight.astype(np.int32)).save(folder / "signed32.tif")
    data = (folder / "untold.png").read_bytes()
    chunk = b"sBIT\x0c"
    told = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (folder / "told.png").write_bytes(data[:33] + told + data[33:])
    _tiff(folder / "uint32.tif", twelve.astype("<u4"), 1)
    _tiff(folder / "int16.tif", (twelve // 2 - 1024).astype("<i2"), 2)
    return np.rint(ramp * 255)


def _tiff(path, array, sample_format):
    height, width = array.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, array.itemsize * 8),
            (259, 3, 1), (262, 3, 1), (273, 4, 134), (277, 3, 1), (278, 4, height),
            (279, 4, array.nbytes), (339, 3, sample_format)]  # fmt: skip
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    entries = b"".join(struct.pack("<HHII", t, kind, 1, v) for t, kind, v in tags)
    path.write_bytes((head + entries + bytes(4)).ljust(134, b"\0") + array.tobytes())


@pytest.mark.parametrize("name", ["told.tif", "told.png"])
def test_value_range_that_a_file_states(name, tmp_path, recwarn):
    ramp = wide_files(tmp_path)
    assert np.abs(tensors([tmp_path / name])[0, 0].numpy() - ramp).max() <= 1
    assert ImageDataset([tmp_path / name], SAME).find_value_range() == (0, 4095)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("untold.tif", (0, 4095)),
        ("untold.png", (0, 4095)),
        ("eight.png", (0, 255)),
        ("uint32.tif", (0, 4095)),
        ("int16.tif", (-1024, 1023)),
        ("signed32.tif", (0, 255)),
    ],
)
def test_value_range_that_the_values_tell(name, expected, tmp_path):
    ramp = wide_files(tmp_path)
    path = tmp_path / name
    with Image.open(path) as opened:
        opened.load()
    for X in ([path], [opened]):
        with pytest.warns(UserWarning, match="value_range=") as caught:
            found = ImageDataset(X, SAME).find_value_range()
        assert found == expected
        assert str(found) in str(caught[0].message)
        pixels = tensors(X, Preprocessing(16, 16, value_range=found))[0, 0].numpy()
        assert np.abs(pixels - ramp).max() <= 1


def test_value_range_of_arrays():
    ramp = np.linspace(0, 1, 256).reshape(16, 16)
    expected = torch.from_numpy(np.rint(ramp * 255))
    for X in (
        np.rint(ramp * 4095)[None],
        np.rint(ramp * 4095).astype(np.uint16)[None],
        [np.rint(ramp * 4095).astype(np.uint16)],
        [np.rint(ramp * 4095).astype(int)],
        [Image.fromarray((ramp * 4095).astype(np.float32))],
    ):
        found = tensors(X, Preprocessing(16, 16, value_range=(0, 4095)))[0, 0]
        assert (found - expected).abs().max() <= 1
    colour = np.arange(768, dtype=np.uint8).reshape(1, 16, 16, 3)
    narrow = Preprocessing(16, 16, value_range=(0, 4095))
    assert torch.equal(tensors(colour, narrow), tensors(colour))


def test_images_of_8_bits_are_not_decoded_to_find_the_range(
    colour, tmp_path, monkeypatch
):
    for suffix in ("png", "jpg", "bmp", "webp", "gif"):
        Image.fromarray(colour[0]).save(tmp_path / f"a.{suffix}")
    monkeypatch.setattr(Image, "open", None)
    assert ImageDataset(list(tmp_path.iterdir()), SAME).find_value_range() is None
