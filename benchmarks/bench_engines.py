"""Features by other engines and in other precisions, in one run.

    pip install skadma[onnx,openvino]
    python benchmarks/bench_engines.py FOLDER [--json FILE] [--threads 1]

FOLDER has subfolders of images, one for each class. EfficientNet-Lite0 at 128 x 128 on
batches of 16, decoded and normalised before the clock starts. Seconds are the
processor's, the least of nine passes. Beside them: how far the penultimate features are
from float32's, and of 20 images chosen by margin and by UncertaintyHerding's coverage
how many are the same. "engine=" and "precision=" are options of CNNClassifier; the
others are not. Int8 is ONNX Runtime's static quantisation (QDQ, per channel, calibrated
on 64 of the images); OpenVINO runs the same file. About 3 minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import onnxruntime as ort
import openvino as ov
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from sklearn.linear_model import LogisticRegression

from skadma import CNNClassifier
from skadma.bench.datasets import class_folders
from skadma.images.dataset import ImageDataset
from skadma.networks.adapted import Normalize
from skadma.networks.engines import Engine
from skadma.strategies import MarginSampling, UncertaintyHerding

BATCH, N_IMAGES, N_LABELS = 16, 320, 40
EXTRACTOR = "skadma's extractor"
Run = Callable[[torch.Tensor], np.ndarray]


def own_runs(clf: CNNClassifier) -> tuple[torch.nn.Module, dict[str, Run]]:
    """The plain network, and the extractor's frozen subgraph by each of its engines."""
    source, cpu = clf.source_network(), torch.device("cpu")
    end = source.graph.layers[-2].output
    plain = source.graph.extract(source.module, [end], None)
    part = source.inference_subgraph([end], None, cpu)

    def run_by(engine: Engine) -> Run:
        ready = engine.compile(part, cpu)
        if engine.name == "openvino":
            return lambda x: ready(x)[0].numpy()
        last = torch.channels_last
        return lambda x: ready(x.contiguous(memory_format=last))[0].numpy()

    return plain, {
        "torch, plain": lambda x: plain(x)[0].numpy(),
        EXTRACTOR: run_by(Engine()),
        'precision="bfloat16"': run_by(Engine("torch", "bfloat16")),
        'engine="openvino"': run_by(Engine("openvino")),
        'engine="openvino", precision="bfloat16"': run_by(
            Engine("openvino", "bfloat16")
        ),
    }


def engine_runs(
    plain: torch.nn.Module, images: torch.Tensor, folder: Path, threads: int
) -> dict[str, Run]:
    """Engines that are no option of the package, on the same graph."""
    single, ready, int8 = (str(folder / n) for n in ("f.onnx", "r.onnx", "i.onnx"))
    exported = torch.onnx.export(plain, (images[:BATCH],), dynamo=True)
    exported.save(single)
    quant_pre_process(single, ready)

    class Reader(CalibrationDataReader):
        batches = iter(images[: 4 * BATCH].split(BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch.numpy()}

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    name = ort.InferenceSession(single, options).get_inputs()[0].name
    quantize_static(ready, int8, Reader(), per_channel=True)
    core, runs = ov.Core(), {}

    def onnx(path: str) -> Run:
        session = ort.InferenceSession(path, options)
        return lambda x: session.run(None, {name: x.numpy()})[0]

    def openvino(path: str) -> Run:
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        model = core.compile_model(core.read_model(path), "CPU", settings)
        return lambda x: model(x.numpy())[0]

    runs["ONNX Runtime, float32"] = onnx(single)
    runs["ONNX Runtime, int8"] = onnx(int8)
    runs["OpenVINO, int8"] = openvino(int8)
    return runs


def choices(features: np.ndarray, y: np.ndarray) -> list[set[int]]:
    """What two strategies choose after a regression on the first labels."""
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    model = LogisticRegression(C=100, max_iter=1000).fit(rows[:N_LABELS], y[:N_LABELS])
    known = {"X_labeled": rows[:N_LABELS], "y_labeled": y[:N_LABELS]}
    return [
        set(kind(random_state=0).query(model, rows[N_LABELS:], 20, **known))
        for kind in (MarginSampling, UncertaintyHerding)
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=Path("engines.json"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clf = CNNClassifier("efficientnet_lite0", image_size=128)
    X, y = class_folders(options.folder)
    some = np.random.default_rng(0).choice(len(X), N_IMAGES, replace=False)
    clf.embed(X[:2], -2)  # from now on the process keeps memory as after any pass
    source = clf.source_network()
    images = ImageDataset(X[some], source.preprocessing)
    tensors = torch.stack([images[i] for i in range(N_IMAGES)])
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        inputs = Normalize(source.preprocessing)(tensors)
        plain, runs = own_runs(clf)
        runs |= engine_runs(plain, inputs, Path(folder), options.threads)
        found = {n: [np.concatenate([r(b) for b in inputs.split(BATCH)])]
                 for n, r in runs.items()}  # fmt: skip
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(9):  # in turns, so that all have the same neighbours
            for name, run in runs.items():
                begin = process_time()
                for batch in inputs.split(BATCH):
                    run(batch)
                spent[name].append(process_time() - begin)
    truth = found["torch, plain"][0]
    expected, rows = choices(truth, y[some]), []
    print("| engine | ms an image | extractor / it | features off | margin | herding |")
    print("|---|---|---|---|---|---|")
    for name, (features,) in found.items():
        ms = 1e3 * min(spent[name]) / N_IMAGES
        ratio = min(spent[EXTRACTOR]) / min(spent[name])
        off = float(np.linalg.norm(features - truth) / np.linalg.norm(truth))
        same = [
            len(a & b)
            for a, b in zip(choices(features, y[some]), expected, strict=True)
        ]
        print(
            f"| {name} | {ms:.2f} | {ratio:.2f} | {off:.2g} | {same[0]} | {same[1]} |"
        )
        rows.append(
            {"engine": name, "ms": ms, "ratio": ratio, "off": off, "same": same}
        )
    versions = {m.__name__: m.__version__ for m in (torch, ort, ov)}
    options.json.write_text(
        json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
