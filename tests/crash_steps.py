"""What tests/crash.py does to a campaign, and what it must come to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.labelling.campaign import LabelRow
from skadma.labelling.campaign.class_names import read_class_names
from skadma.strategies import MarginSampling

from .conftest import TinyCNN

LABELS = "abc"


class Run:
    """What all steps of a run share."""

    more = Path()  # a second pool
    warm_start = False
    ack_pipe = -1  # where to tell that decisions are safe


def make_pool(folder: Path, seed: int = 0) -> None:
    """24 random pictures of three classes; the label is in the name."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(24):
        pixels = rng.integers(0, 90, (32, 32, 3))
        pixels[:, :, i % 3] += 120
        name = f"{i:02} ü {LABELS[i % 3]}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)


def truth(path: str) -> str:
    return path[-5]


def renamed_truth(path: str) -> str:
    """As the classes are called after the step "rename"."""
    return truth(path).replace("c", "e")


def create(base: Path) -> Campaign:
    estimator = CNNClassifier(
        TinyCNN, image_size=32, n_frozen_layers=1, max_epochs=2, lr=1e-2, head_lr=1e-2
    )
    return Campaign.create(
        base / "campaign",
        base / "pool",
        list(LABELS),
        estimator,
        MarginSampling(),
        n_instances=4,
        warm_start=Run.warm_start,
    )


def reopen(base: Path, who: str = "eva") -> Campaign:
    return Campaign.open(
        base / "campaign", pool=base / "pool", backbone=TinyCNN, who=who
    )


def teach(campaign: Campaign, truth: Callable[[str], str] = truth) -> None:
    answers = {p.path: truth(p.path) for p in campaign.query()}
    campaign.teach(answers, train=False)
    acknowledge(campaign)
    campaign.estimator()


def relabel(campaign: Campaign) -> None:
    path, decision, _ = min(campaign.decisions(), key=lambda row: row[0])
    wrong = LABELS[LABELS.index(decision.label) - 1]
    campaign.relabel(path, wrong)


def skip(campaign: Campaign) -> None:
    paths = [p.path for p in campaign.query()]
    marks = dict(zip(paths, ("?skip", "?cant-tell", "?not-an-image"), strict=False))
    campaign.teach(marks)


def repeat(campaign: Campaign) -> None:
    """Two people see labelled images again, as one file of answers tells."""
    due = campaign.repeats_due(1, "max")[:3]
    rows = [
        LabelRow(p.path, p.path, label, p.sha256, who=who)
        for p, label in zip(due, "aba", strict=True)
        for who in ("max", "ida")
    ]
    campaign.teach(rows, blind=True)
    acknowledge(campaign)


def answer(campaign: Campaign) -> None:
    """Label what was drawn, and use it."""
    campaign.audits.answer({p.path: truth(p.path) for p in campaign.audits.pending()})
    acknowledge(campaign)
    campaign.audits.estimate()


STEPS = {
    "start": None,
    "query": lambda campaign: campaign.query(),
    "teach": teach,
    "relabel": relabel,
    "query again": lambda campaign: campaign.query(),
    "undo": lambda campaign: campaign.undo(),
    "skip": skip,
    "teach again": teach,
    "repeat": repeat,
    "undo repeat": lambda campaign: campaign.undo(),
    "repeat again": repeat,
    "draw": lambda campaign: campaign.audits.draw(4),
    "answer": answer,
    "release": lambda campaign: campaign.audits.release(),
    "add classes": lambda campaign: campaign.add_classes(["d", "f"]),
    "rename": lambda campaign: campaign.rename_class("c", "e"),
    "add a pool": lambda campaign: campaign.add_pool(Run.more),
    "undo the pool": lambda campaign: campaign.undo(),
    "add it again": lambda campaign: campaign.add_pool(Run.more),
    "teach renamed": lambda campaign: teach(campaign, renamed_truth),
    "merge": lambda campaign: campaign.merge_classes(["a", "d"], "ad"),
    "undo the merge": lambda campaign: campaign.undo(),
}


def acknowledge(campaign: Campaign) -> None:
    """Tell the parent that decisions are safe, and how long the WAL is by now."""
    if Run.ack_pipe >= 0:
        wal = campaign.folder / "campaign.sqlite-wal"
        size = wal.stat().st_size if wal.exists() else 0
        os.write(Run.ack_pipe, f"{size}\n".encode())


def do_step(step: str, base: Path) -> None:
    campaign = create(base) if step == "start" else reopen(base)
    with campaign:
        if step != "start":
            STEPS[step](campaign)
    if Run.ack_pipe >= 0:
        os.write(Run.ack_pipe, b"done\n")


def what_was_said(campaign: Campaign) -> list:
    """What holds, and what was said blind of it."""
    decisions = [(p, d.mark, s) for p, d, s in campaign.decisions()]
    agreement = campaign.agreement()
    status = campaign.status()
    pending = [p.path for p in campaign.audits.pending()]
    pairs = [(p.first, p.second, str(p)) for p in agreement.pairs]
    return (
        sorted(decisions)
        + sorted(pairs)
        + [(d.path, d.second, d.other) for d in agreement.disagreements]
        + [(status.audit, status.audit_answered, str(pending))]
        + [("classes", name, n) for name, n in status.labels.items()]
        + [
            ("former", *names)
            for names in read_class_names(campaign._event_log).former.items()
        ]
        + [("pool", name, status.n_images) for name in campaign.pools]
    )


def outcome(base: Path) -> dict:
    """All that must not depend on what happened on the way."""
    with reopen(base) as campaign:
        decisions = what_was_said(campaign)
        known = campaign.status().audit_answered
        estimate = str(campaign.audits.estimate()) if known else ""
        query = [
            [value for name, value in vars(p).items() if name != "as_of"]
            for p in campaign.query()
        ]
        network = campaign.estimator()
        bits = ""
        if hasattr(network, "net_"):
            values = network.net_.module_.state_dict().values()
            joined = b"".join(v.numpy().tobytes() for v in values)
            bits = hashlib.sha256(joined).hexdigest()
    return {"decisions": decisions, "query": query, "model": bits, "estimate": estimate}


def decided(base: Path) -> list:
    with reopen(base) as campaign:
        return what_was_said(campaign)
