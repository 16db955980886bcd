"""Files that run code where they are unpickled, for the tests of untrusted files."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.fixture
def target(tmp_path):
    """What must not come to be."""
    path = tmp_path / "was run"
    yield path
    assert not path.exists()


def bombs(target):
    """Files that run code where they are unpickled: pickles by all names."""
    plain = pickle.dumps({"a": Bomb(target)})
    zipped = io.BytesIO()
    torch.save({"a": Bomb(target)}, zipped)
    legacy = io.BytesIO()
    torch.save({"a": Bomb(target)}, legacy, _use_new_zipfile_serialization=False)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(plain)
            archive.addfile(info, io.BytesIO(plain))
    array = io.BytesIO()
    np.save(array, np.array([Bomb(target)], dtype=object), allow_pickle=True)
    npz = io.BytesIO()
    np.savez(npz, np.array([Bomb(target)], dtype=object))
    return {
        "pickle": plain,
        "torch zip": zipped.getvalue(),
        "torch legacy": legacy.getvalue(),
        "torch tar": tarred.getvalue(),
        "npy": array.getvalue(),
        "npz": npz.getvalue(),
    }


KINDS = ["pickle", "torch zip", "torch legacy", "torch tar", "npy", "npz"]
