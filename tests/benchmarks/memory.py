"""How much memory a program takes, with all that it starts."""

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import psutil


@contextlib.contextmanager
def peak_of(process_id: int) -> Iterator[SimpleNamespace]:
    """Watches a process and all below it; `.bytes` is the most that they held at once, shared pages counted once.

    Sampled ten times a second, as a proportional set size.
    """
    process, peak, done = psutil.Process(process_id), SimpleNamespace(bytes=0), threading.Event()

    def sample():
        while not done.wait(0.1):
            held = 0
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended
                for member in [process, *process.children(recursive=True)]:
                    held += member.memory_full_info().pss
            peak.bytes = max(peak.bytes, held)

    watch = threading.Thread(target=sample)
    watch.start()
    try:
        yield peak
    finally:
        done.set()
        watch.join()
