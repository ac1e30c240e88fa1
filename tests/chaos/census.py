"""What lives in a process, written as JSON into the folder that CENSUS_FOLDER names.

On SIGUSR1 `heap-PID.json`: how much the allocators hold, which costs nothing. On SIGUSR2 `census-PID.json`: every
object is counted, which itself takes some megabytes that the process keeps.

Only for processes that a test starts: `site` imports it there, before anything of Rampart.
"""

import asyncio
import ctypes
import gc
import json
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

LARGE = 50
"""Containers of so many entries are named by the attribute that holds them."""

SHOWN = 80
CACHE = type(lru_cache(str))
CONTAINERS = (dict, list, set, frozenset, tuple)


def take(number: int, _: object) -> None:
    """Raises nothing: it would be raised in whatever the process was doing."""
    name, count = ("heap", heap_kib) if number == signal.SIGUSR1 else ("census", _census)
    found: dict[str, Any]
    try:
        found = count()
    except Exception as error:  # noqa: BLE001 - whoever asked is told
        found = {"error": repr(error)}
    target = Path(os.environ["CENSUS_FOLDER"]) / f"{name}-{os.getpid()}.json"
    written = target.with_suffix(".new")
    written.write_text(json.dumps(found))
    written.rename(target)


def _census() -> dict[str, Any]:
    gc.collect()
    types = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    return {
        "blocks": sys.getallocatedblocks(),
        "tasks": len(asyncio.all_tasks(asyncio.get_event_loop())),
        "types": dict(types.most_common(SHOWN)),
        "containers": _containers() | _caches(),
    }


def heap_kib() -> dict[str, int]:
    """What the two allocators took from the system, and how much of it is in use, in KiB.

    Objects up to 512 bytes are Python's own business, everything larger is the C library's (glibc's only).
    """
    with tempfile.TemporaryFile("r+") as told:
        kept = os.dup(2)
        os.dup2(told.fileno(), 2)
        sys._debugmallocstats()  # says it on the standard error, and nowhere else
        os.dup2(kept, 2)
        os.close(kept)
        told.seek(0)
        small = told.read()
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    with tempfile.NamedTemporaryFile("r") as told:
        file = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
        libc.malloc_info(0, file)
        libc.fclose(file)
        large = told.read().rpartition("</heap>")[2]  # the sums over all of its arenas
    free = sum(int(size) for size in re.findall(r'<total type="(?:fast|rest)" count="\d+" size="(\d+)"', large))
    mapped = sum(int(size) for size in re.findall(r'<total type="mmap" count="\d+" size="(\d+)"', large))
    system = int(re.findall(r'<system type="current" size="(\d+)"', large)[-1])
    return {
        "python": _counted(small, "Total") // 1024,
        "python_in_use": _counted(small, "# bytes in allocated blocks") // 1024,
        "libc": (system + mapped) // 1024,
        "libc_in_use": (system + mapped - free) // 1024,
    }


def _counted(text: str, line: str) -> int:
    """The figure that a line of the allocator's table ends with."""
    found = re.search(line + r"[^\n]*= +([\d,]+)", text)
    return int(found[1].replace(",", "")) if found else 0


def _containers() -> dict[str, int]:
    """By class and attribute, the largest of each: all that our objects hold, from what is running down.

    Not from the list of the garbage collector: what was frozen is not in it.
    """
    found: dict[str, int] = {}
    seen: set[int] = set()
    waiting: list[Any] = list(_roots())
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, CONTAINERS):
            waiting += one.values() if isinstance(one, dict) else one
        elif type(one).__module__.startswith("controller."):
            for name, value in _attributes(one):
                if hasattr(value, "__len__") and not isinstance(value, (str, bytes)) and len(value) >= LARGE:
                    full = f"{type(one).__module__.removeprefix('controller.')}.{type(one).__qualname__}.{name}"
                    found[full] = max(len(value), found.get(full, 0))
                waiting.append(value)
    return found


def _caches() -> dict[str, int]:
    """Every `lru_cache` of ours, and how much is in it."""
    return {
        f"{name.removeprefix('controller.')}.{attribute}": value.cache_info().currsize
        for name, module in list(sys.modules.items())
        if name.startswith("controller.")
        for attribute, value in list(vars(module).items())
        if isinstance(value, CACHE)
    }


def _roots() -> Iterator[Any]:
    for task in asyncio.all_tasks(asyncio.get_event_loop()):
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None:
            yield from frame.f_locals.values()


def _attributes(holder: object) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(holder, "__dict__", {}).items())
    for kind in type(holder).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(holder, name):
                yield name, getattr(holder, name)


if "CENSUS_FOLDER" in os.environ:
    signal.signal(signal.SIGUSR1, take)
    signal.signal(signal.SIGUSR2, take)
