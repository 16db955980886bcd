"""Random logs: what the page counts is what the campaign says."""

import contextlib
import random
import uuid
import warnings

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.labelling.campaign import CampaignError, LabelFileError
from skadma.labelling.campaign.ledger import Mark, Operation
from skadma.labelling.campaign.state import read_state

from .conftest import TinyCNN
from .label_changes import CLASSES, assert_same, create, paint

ASIDE = ["?skip", "?cant-tell", "?not-an-image"]


class Chaos:
    """People who do whatever can be done to a campaign, by chance."""

    def __init__(self, campaign, ben, more, seed):
        self.campaign = campaign
        self.rng = random.Random(seed)
        self.ledgers = [campaign.ledger(), ben.ledger()]
        self.people = [campaign, ben]
        self.more = more
        self.done = []
        self.names = [f"class {i}" for i in range(100)]

    def mark(self):
        classes = self.campaign.classes
        if self.campaign.several_labels:
            some = self.rng.sample(classes, self.rng.randint(0, len(classes)))
            return self.rng.choice([";".join(some) or "?none"] * 4 + ASIDE)
        return self.rng.choice([*classes, *classes, *ASIDE])

    def path(self):
        with self.campaign._event_log.reading():
            return self.rng.choice(
                sorted(read_state(self.campaign._event_log).paths.values())
            )

    def teach(self):
        n = self.rng.choice([1, 1, 3])
        labels = {self.path(): self.mark() for _ in range(n)}
        self.rng.choice(self.people).teach(labels, train=False, partial=True)

    def take_back(self):
        self.rng.choice(self.people).undo()

    def add_class(self):
        self.campaign.add_classes([self.names.pop(0)])

    def rename(self):
        old = self.rng.choice(self.campaign.classes)
        new = self.rng.choice([self.names.pop(0), *CLASSES, *self.campaign.classes])
        self.campaign.rename_class(old, new)

    def merge(self):
        names = self.rng.sample(self.campaign.classes, 2)
        self.campaign.merge_classes(names, self.rng.choice([*names, "both"]))

    def add_pool(self):
        name = self.rng.choice(["more", "again"])
        self.campaign.add_pool(self.rng.choice(self.more), name)

    def draw(self):
        self.campaign.audits.draw(self.rng.choice([1, 2]), method="random")

    def answer(self):
        pending = self.campaign.audits.pending()
        if pending:
            path = self.rng.choice(pending).path
            self.campaign.audits.answer({path: self.mark()})

    def release(self):
        self.campaign.audits.release()

    def repeat(self):
        self.rng.choice(self.people).teach({self.path(): self.mark()}, blind=True)

    def confirm(self):
        self.campaign.confirm(self.path())

    def change_file(self):
        file = self.campaign.files([self.path()])[0]
        if self.rng.random() < 0.4:
            file.unlink(missing_ok=True)
        else:
            pixels = np.full((16, 16, 3), self.rng.randrange(256), np.uint8)
            Image.fromarray(pixels).save(file)
        self.campaign.refresh()

    def on_the_page(self):
        ledger = self.rng.choice(self.ledgers)
        kind = self.rng.random()
        if kind < 0.15 and self.done:
            operation = self.rng.choice(self.done)
        elif kind < 0.3 and self.done:
            name = self.rng.choice(self.done).id
            event = f"event-{self.rng.choice(self.campaign.log())['id']}"
            undo = self.rng.choice([name, event])
            operation = Operation(str(uuid.uuid4()), undo=undo)
        else:
            known = list(ledger._images)
            told = ledger.decisions
            marks = [
                Mark(s, self.mark(), told[s].mark if s in told else None)
                for s in self.rng.sample(known, min(3, len(known)))
            ]
            confirm = self.rng.random() < 0.1
            operation = Operation(str(uuid.uuid4()), marks, confirm=confirm)
        ledger.record([operation], self.rng.choice([None, 1, 2]))
        self.done.append(operation)

    def step(self):
        often = [self.on_the_page] * 10 + [self.teach] * 4 + [self.take_back] * 4
        often += [self.answer, self.repeat, self.rename] * 2
        rarely = [
            self.add_class, self.merge, self.add_pool, self.draw, self.release,
            self.confirm, self.change_file,
        ]  # fmt: skip
        # What cannot be done, such as to undo where nothing is left, changes nothing.
        with contextlib.suppress(CampaignError, LabelFileError):
            self.rng.choice(often + rarely)()


@pytest.mark.parametrize("seed", range(4))
def test_random_logs(tmp_path, seed):
    """In two of them a picture may have several labels."""
    with create(tmp_path, several_labels=seed > 1) as campaign:
        check_random_log(tmp_path, campaign, seed)


def check_random_log(tmp_path, campaign, seed):
    more = [paint(tmp_path / f"more{i}", 4, 10 + i) for i in range(2)]
    Image.open(tmp_path / "pool" / "00.png").save(more[0] / "copy.png")
    ben = Campaign.open(campaign.folder, who="ben", backbone=TinyCNN)
    chaos = Chaos(campaign, ben, more, seed)
    with ben, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that changed
        for _ in range(150):
            chaos.step()
            assert_same(chaos.ledgers[0], campaign)
            mine = [act for act in chaos.ledgers[0].acts.values() if act.who == "ana"]
            decided, again = (
                len({d.sha256 for act in mine if act.kind == kind
                     for d in act.decisions}) for kind in ("teach", "repeat")
            )  # fmt: skip
            n = int(0.4 / 0.6 * decided) - again
            there = campaign.repeats_due(1)  # in order, so that these are the first
            assert campaign.repeats_due(0.4) == there[: max(0, n)]
        assert_same(chaos.ledgers[1], campaign)
        assert_same(campaign.ledger(), campaign)
    kinds = {event["kind"] for event in campaign.log()}
    assert kinds >= {"teach", "undo", "classes", "scan", "repeat"}
    assert kinds & {"pool", "audit"}
