"""Processes that tests/crash.py kills beside the steps of a campaign.

The page's server while it records decisions, predictions for a folder, and a feature
store that is built.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import threading
import uuid
from pathlib import Path

import numpy as np

from skadma import Campaign
from skadma.features.store import FeatureStore
from skadma.labelling import predict
from skadma.labelling.campaign.ledger import Mark, Operation

from .conftest import tiny_classifier
from .crash_steps import make_pool
from .crash_ways import Killer, count_lines_of, in_child, kill_later, told
from .label_site import CLASSES, Site, paint

AT_ONCE = 2
"""Decisions of an operation, which are recorded together."""


class PageServer:
    """'skadma label', killed while decisions are sent to it."""

    def __init__(self, scratch: Path) -> None:
        self.folder, self.fresh = scratch / "labelled", scratch / "fresh"
        self.pool = paint(scratch / "shown", 24)
        site = Site(self.fresh, self.pool)
        site.stop()

    def trial(self, rng: random.Random) -> bool:
        """Kill it once; whether it was killed before all was sent."""
        import httpx  # only here, as not every installation for tests has it

        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.fresh, self.folder)
        contents = told(contents_of, self.folder)
        operations = [
            {
                "id": str(uuid.UUID(int=rng.getrandbits(128))),
                "via": "grid",
                "marks": [
                    {"sha256": sha256, "mark": rng.choice([*CLASSES, "?cant-tell"])}
                    for sha256 in contents[k : k + AT_ONCE]
                ],
            }
            for k in range(0, len(contents), AT_ONCE)
        ]
        site = Site(self.folder, self.pool)
        client = site.client()
        end = threading.Timer(rng.uniform(0, 0.4), site.process.kill)
        end.start()
        acknowledged = []
        try:
            for operation in operations:
                body = {"operations": [operation]}
                answer = client.post("/api/operations", json=body)
                (outcome,) = answer.json()["outcomes"]
                assert outcome["status"] == "recorded", f"page: {outcome}"
                acknowledged.append(operation)
        except httpx.TransportError:  # it is killed
            pass
        finally:
            end.join()
            site.kill()
            client.close()
        held = told(held_in, self.folder)
        for n, operation in enumerate(operations):
            expected = {mark["sha256"]: mark["mark"] for mark in operation["marks"]}
            found = {sha: held[sha] for sha in expected if sha in held}
            safe = operation in acknowledged
            assert found == expected or (not safe and not found), (
                f"page: operation {n}, {'' if safe else 'not '}acknowledged: {found}"
            )
        told(send_again, self.folder, operations)
        every = {m["sha256"]: m["mark"] for o in operations for m in o["marks"]}
        assert told(held_in, self.folder) == every, "page: another outcome"
        return len(acknowledged) < len(operations)


def contents_of(folder: Path) -> list[str]:
    with Campaign.open(folder) as campaign:
        return list(campaign.ledger().available())


def held_in(folder: Path) -> dict[str, str]:
    with Campaign.open(folder) as campaign:
        return {s: d.mark for s, d in campaign.ledger().decisions.items()}


def send_again(folder: Path, operations: list[dict]) -> None:
    """As the page does when the server is there again."""
    with Campaign.open(folder) as campaign:
        ledger = campaign.ledger()
        for each in operations:
            marks = [Mark(**mark) for mark in each["marks"]]
            (outcome,) = ledger.record([Operation(each["id"], marks)])
            assert outcome.status in ("recorded", "known") and not outcome.refused


class Resumed:
    """Something that is written in a folder, and goes on when it is begun again."""

    def __init__(self, scratch: Path) -> None:
        self.folder = scratch / type(self).__name__
        self.pool = scratch / f"{type(self).__name__} pictures"
        make_pool(self.pool)
        self.lines = count_lines_of(self.begin_anew)
        self.expected = self.files()

    def begin_anew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.go_on()

    def go_on(self) -> None:
        raise NotImplementedError

    def files(self) -> dict[str, str]:
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def trial(self, rng: random.Random) -> bool:
        """Kill it at a random line or after a random time."""
        by_line = rng.random() < 0.5
        killer = Killer(at=rng.randint(1, self.lines)) if by_line else None

        def task(write: int) -> None:
            if killer is not None:
                killer.start()
            self.begin_anew()

        with kill_later(None if by_line else rng.uniform(0, 1)):
            status, said = in_child(task)
        assert not status or os.WIFSIGNALED(status), said
        self.check_killed()
        again, said = in_child(lambda write: self.go_on())
        assert again == 0, f"{type(self).__name__}: not to be done again: {said}"
        found = self.files()
        other = {
            k for k in found | self.expected if found.get(k) != self.expected.get(k)
        }
        assert not other, f"{type(self).__name__}: other files {sorted(other)}"
        return bool(status)

    def check_killed(self) -> None:
        """What is there under its name is whole."""


class Predictions(Resumed):
    """Predictions for a folder of pictures."""

    def go_on(self) -> None:
        predict._GROUP_SIZE = 4
        X = np.stack([np.full((32, 32, 3), 30 * i, np.uint8) for i in range(8)])
        clf = tiny_classifier(max_epochs=1).fit(X, list("abababab"))
        self.folder.mkdir(exist_ok=True)
        out = self.folder / "out.csv"
        if not out.exists():
            predict.predict_files(clf, [self.pool], out, overwrite=False)

    def check_killed(self) -> None:
        out = self.files().get("out.csv") if self.folder.exists() else None
        assert out in (None, self.expected["out.csv"]), "predict: half a table"


class Store(Resumed):
    """A feature store of pictures.

    What a killed process had begun to write may lie there: it may be another machine's
    that still writes, so nobody removes it, and nothing reads it.
    """

    def files(self) -> dict[str, str]:
        found = super().files()
        return {name: digest for name, digest in found.items() if name[-5:] != ".part"}

    def go_on(self) -> None:
        images = [str(path) for path in sorted(self.pool.iterdir())]
        FeatureStore.build(
            tiny_classifier(), images, self.folder, dtype="float32", shard_rows=4
        )
