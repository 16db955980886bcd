"""State that torch keeps for a process or a thread: hold it, or set it aside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


class LockInTurns:
    """A reentrant lock that a thread does not get again while others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._turnstile = threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        if self._owner == threading.get_ident():
            self._lock.acquire()
        else:
            with self._turnstile:  # whoever waits for the lock holds it
                self._lock.acquire()
        self._owner = threading.get_ident()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._lock.release()


RANDOM_LOCK = LockInTurns()
"""Held while torch's global generator is another one: while a network is built, which
may take as long as a download, and in each step of training. Taken before
`NETWORK_LOCK`."""

NETWORK_LOCK = LockInTurns()
"""Held while a network is traced, which changes how all modules behave; and therefore
while a batch runs or a step is trained."""

_dtype_lock = threading.Lock()
_dtype_users: list[torch.dtype] = []
"""The default dtype that was found by each block that needs float32 for now."""


@contextmanager
def torch_defaults(*, training: bool = False) -> Iterator[None]:
    """Compute in float32, without autocast, and make tensors on the CPU by default.

    So it is whatever the caller has set, by ``torch.set_default_device`` for example.
    With `training`, outside of the caller's ``inference_mode`` and ``no_grad`` too. The
    default dtype is the process's: only where it is another one it changes for a while,
    until the last thread that needs float32 is done.
    """
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        try:
            is_cpu = torch.empty(0).device.type == "cpu"
        except Exception:  # a default device that this machine lacks
            is_cpu = False
        if not is_cpu:
            stack.enter_context(torch.device("cpu"))
        if training:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
        with _dtype_lock:
            _dtype_users.append(torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            with _dtype_lock:
                before = _dtype_users.pop(0)
                if _dtype_users:
                    _dtype_users[0] = before
                else:
                    torch.set_default_dtype(before)


@contextmanager
def seeded_torch(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the generators of the CPU and of `device`; afterwards they are as before.

    `RANDOM_LOCK` is held. Generators of other devices are not touched, since to read
    the state of a GPU's generator takes memory of that GPU.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with RANDOM_LOCK, torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for cuda in devices:
            with torch.cuda.device(cuda):
                torch.cuda.manual_seed(seed)
        yield


class RandomStream:
    """A stretch of torch's random numbers of its own, used in several pieces.

    Dropout and shuffling draw from torch's global generators. Within :meth:`use` these
    continue this stream, under both locks; afterwards they are as before.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed
        self._devices = [device] if device.type == "cuda" else []
        self._states: list[torch.Tensor] = []

    @contextmanager
    def use(self) -> Iterator[None]:
        """Draw from this stream within the block."""
        with RANDOM_LOCK, NETWORK_LOCK, torch.random.fork_rng(self._devices):
            if self._states:
                torch.set_rng_state(self._states[0])
                for device, state in zip(self._devices, self._states[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
            else:
                torch.default_generator.manual_seed(self._seed)
                for device in self._devices:
                    with torch.cuda.device(device):
                        torch.cuda.manual_seed(self._seed)
            try:
                yield
            finally:
                self._states = [torch.get_rng_state()]
                self._states += [torch.cuda.get_rng_state(d) for d in self._devices]
