"""The few steps that a synchronous and an asynchronous client take in different ways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def pause(seconds: float) -> None:
    """Waits."""
    time.sleep(seconds)


async def async_pause(seconds: float) -> None:
    """Waits, and lets others go on."""
    await asyncio.sleep(seconds)


def run(function: Callable[[Item], Made], item: Item) -> Made:
    """Computes something that takes a while."""
    return function(item)


async def async_run(function: Callable[[Item], Made], item: Item) -> Made:
    """Computes something that takes a while on another thread."""
    return await asyncio.to_thread(function, item)


def map_all(function: Callable[[Item], Made], items: Iterable[Item], at_a_time: int) -> list[Made]:
    """The results for all items, in their order. The first error ends it, and nothing new is begun then."""
    with ThreadPoolExecutor(at_a_time) as pool:
        waiting = [pool.submit(function, item) for item in items]
        try:
            return [each.result() for each in waiting]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


async def async_map(function: Callable[[Item], Awaitable[Made]], items: Iterable[Item], at_a_time: int) -> list[Made]:
    """The results for all items, in their order. The first error ends it, and what is under way is cancelled then."""
    places = asyncio.Semaphore(at_a_time)

    async def one(item: Item) -> Made:
        async with places:
            return await function(item)

    waiting = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*waiting))
    except BaseException:
        for each in waiting:
            each.cancel()
        raise
