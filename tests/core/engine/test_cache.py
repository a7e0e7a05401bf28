"""The cache of embeddings: bounded, in order of use, one computation for many threads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_core.engine.cache import DEFAULT_MAX_BYTES, EmbeddingCache, content_key, shared_cache

THREADS = 16


@dataclass(frozen=True)
class Weight:
    """An embedding of which only the weight matters."""

    nbytes: int
    width: int = 1
    height: int = 1


def never() -> Weight:
    raise AssertionError("computed what was there")


def put(cache: EmbeddingCache, key: str, nbytes: int = 10) -> Weight:
    return cache.get_or_compute(key, lambda: Weight(nbytes))  # type: ignore[return-value]


def holds(cache: EmbeddingCache, key: str) -> bool:
    """Whether `key` is kept. Counts as a use of it."""
    missing: list[str] = []

    def compute() -> Weight:
        missing.append(key)
        raise LookupError(key)

    with suppress(LookupError):
        cache.get_or_compute(key, compute)
    return not missing


def test_the_second_time_comes_from_the_cache() -> None:
    cache = EmbeddingCache(100)
    first = put(cache, "a", 30)
    assert cache.get_or_compute("a", never) is first
    put(cache, "b", 20)
    stats = cache.stats
    assert (stats.hits, stats.misses, stats.entries, stats.nbytes, stats.max_bytes) == (1, 2, 2, 50, 100)


def test_the_least_recently_used_goes_first() -> None:
    cache = EmbeddingCache(30)
    for key in "abc":
        put(cache, key)
    put(cache, "a")
    put(cache, "d")
    assert [holds(cache, key) for key in "bacd"] == [False, True, True, True]


def test_a_large_entry_drops_as_many_as_it_must() -> None:
    cache = EmbeddingCache(100)
    for key in "abcde":
        put(cache, key, 20)
    put(cache, "large", 50)
    assert (cache.stats.entries, cache.stats.nbytes) == (3, 90)
    assert [holds(cache, key) for key in ("a", "b", "c", "d", "e", "large")] == [False] * 3 + [True] * 3


def test_an_entry_as_large_as_the_cache_is_kept() -> None:
    cache = EmbeddingCache(100)
    put(cache, "a", 1)
    put(cache, "b", 100)
    assert holds(cache, "b")
    assert cache.stats.nbytes == 100


def test_too_large_an_entry_is_returned_and_drops_nothing() -> None:
    cache = EmbeddingCache(100)
    put(cache, "a", 60)
    assert put(cache, "large", 101).nbytes == 101
    assert (cache.stats.entries, cache.stats.nbytes) == (1, 60)
    assert holds(cache, "a")
    assert not holds(cache, "large")


def test_clear_forgets_entries_and_keeps_counting() -> None:
    cache = EmbeddingCache(100)
    put(cache, "a")
    put(cache, "a")
    cache.clear()
    assert (cache.stats.entries, cache.stats.nbytes, cache.stats.hits, cache.stats.misses) == (0, 0, 1, 1)
    assert not holds(cache, "a")


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 60)), max_size=60))
def test_it_behaves_like_a_plain_model_of_itself(asked: list[tuple[str, int]]) -> None:
    cache = EmbeddingCache(100)
    kept: dict[str, int] = {}
    hits = 0
    for key, nbytes in asked:
        put(cache, key, nbytes)
        if key in kept:
            hits += 1
            kept[key] = kept.pop(key)
            continue
        kept[key] = nbytes
        while sum(kept.values()) > 100:
            kept.pop(next(iter(kept)))
    stats = cache.stats
    assert (stats.entries, stats.nbytes) == (len(kept), sum(kept.values()))
    assert (stats.hits, stats.misses) == (hits, len(asked) - hits)


def at_once(work: Callable[[int], object]) -> list[object]:
    """Call `work` in many threads that start together; errors are returned."""
    barrier = threading.Barrier(THREADS)

    def call(index: int) -> object:
        barrier.wait(10)
        try:
            return work(index)
        except Exception as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, range(THREADS), timeout=30))


def test_many_threads_share_one_computation() -> None:
    cache = EmbeddingCache(100)
    computed: list[int] = []

    def compute() -> Weight:
        computed.append(1)
        time.sleep(0.1)
        return Weight(10)

    found = at_once(lambda _: cache.get_or_compute("a", compute))
    assert len(computed) == 1
    assert all(embedding is found[0] for embedding in found)
    assert (cache.stats.hits, cache.stats.misses) == (THREADS - 1, 1)


def test_many_threads_share_one_computation_of_what_is_too_large_to_keep() -> None:
    cache = EmbeddingCache(5)
    computed: list[int] = []

    def compute() -> Weight:
        computed.append(1)
        time.sleep(0.1)
        return Weight(10)

    at_once(lambda _: cache.get_or_compute("a", compute))
    assert len(computed) == 1


def test_other_pictures_do_not_wait() -> None:
    cache = EmbeddingCache(1000)
    started, go_on = threading.Event(), threading.Event()

    def slow() -> Weight:
        started.set()
        assert go_on.wait(10)
        return Weight(1)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.get_or_compute, "slow", slow)
        assert started.wait(10)
        put(cache, "quick")
        assert cache.stats.entries == 1
        go_on.set()
        assert waiting.result(10).nbytes == 1


def test_an_error_goes_to_one_caller_and_the_next_tries_again() -> None:
    cache = EmbeddingCache(100)
    tries: list[int] = []

    def compute() -> Weight:
        tries.append(1)
        number = len(tries)
        time.sleep(0.02)
        if number <= 3:
            raise RuntimeError(f"try {number}")
        return Weight(10)

    found = at_once(lambda _: cache.get_or_compute("a", compute))
    errors = [str(error) for error in found if isinstance(error, Exception)]
    assert sorted(errors) == ["try 1", "try 2", "try 3"]
    assert len(tries) == 4
    assert len({id(embedding) for embedding in found if isinstance(embedding, Weight)}) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_error_nothing_is_left_behind(error: type[BaseException]) -> None:
    cache = EmbeddingCache(100)

    def compute() -> Weight:
        raise error

    for _ in range(2):
        with pytest.raises(error):
            cache.get_or_compute("a", compute)
    assert (cache.stats.entries, cache.stats.nbytes) == (0, 0)
    assert put(cache, "a").nbytes == 10


def test_the_bound_holds_under_load() -> None:
    cache = EmbeddingCache(1000)
    over: list[int] = []
    wrong: list[str] = []

    def work(index: int) -> None:
        rng = random.Random(index)
        for _ in range(400):
            number = rng.randrange(40)
            if put(cache, str(number), 50 + number).nbytes != 50 + number:
                wrong.append(str(number))
            if cache.stats.nbytes > 1000:
                over.append(cache.stats.nbytes)
            if rng.random() < 0.01:
                cache.clear()

    errors = [error for error in at_once(work) if error is not None]
    assert not errors
    assert not over
    assert not wrong
    stats = cache.stats
    assert stats.hits + stats.misses == THREADS * 400
    cache.clear()
    assert cache.stats.nbytes == 0


PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_equal_pixels_have_one_key_whatever_their_layout() -> None:
    key = content_key("m", PICTURE)
    read_only = PICTURE.copy()
    read_only.setflags(write=False)
    padded = np.zeros((4, 9, 3), np.uint8)
    padded[:, :6] = PICTURE
    layouts = [PICTURE.copy(), np.asfortranarray(PICTURE), padded[:, :6], PICTURE[::-1].copy()[::-1], read_only]
    assert {content_key("m", layout) for layout in layouts} == {key}


def test_other_pixels_shapes_and_models_have_other_keys() -> None:
    changed = PICTURE.copy()
    changed[-1, -1, -1] ^= 1
    pictures = [PICTURE, changed, PICTURE[::-1], PICTURE[:, ::-1], PICTURE[..., ::-1], PICTURE.reshape(6, 4, 3)]
    keys = {content_key(owner, picture) for owner in ("m@1", "m@2") for picture in pictures}
    assert len(keys) == 2 * len(pictures)


def test_one_cache_for_the_process() -> None:
    with ThreadPoolExecutor(8) as pool:
        caches = list(pool.map(lambda _: shared_cache, range(64)))
    assert all(cache is shared_cache for cache in caches)
    assert shared_cache.max_bytes == DEFAULT_MAX_BYTES
