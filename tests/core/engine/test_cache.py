"""The cache of embeddings: bounded, in order of use, one computation for many threads, gone with its model."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_core.engine.cache import DEFAULT_MAX_BYTES, EmbeddingCache, shared_cache
from pam_core.types import Picture

THREADS = 16


@dataclass(frozen=True)
class Weight:
    """An embedding of which only the weight matters."""

    nbytes: int
    width: int = 1
    height: int = 1


def picture(key: str, nbytes: int = 10) -> Picture:
    """A picture that `Encoder` makes an embedding of `nbytes` of."""
    return np.array([[[ord(key[0]), nbytes % 256, nbytes // 256]]], np.uint8)


class Encoder:
    """A model that encodes `picture(...)`; `batches` holds the keys of each call."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.before = before
        self.batches: list[str] = []

    def embed(self, pictures: Sequence[Picture]) -> list[Weight]:
        self.batches.append("".join(chr(each[0, 0, 0]) for each in pictures))
        self.before()
        return [Weight(int(each[0, 0, 1]) + 256 * int(each[0, 0, 2])) for each in pictures]


class Cached:
    """A cache with one model."""

    def __init__(self, max_bytes: int, before: Callable[[], None] = lambda: None) -> None:
        self.cache, self.model = EmbeddingCache(max_bytes), Encoder(before)

    def put(self, key: str, nbytes: int = 10) -> Weight:
        (embedding,) = self.cache.embed(self.model, [picture(key, nbytes)])  # type: ignore[arg-type]
        assert isinstance(embedding, Weight)
        return embedding

    def holds(self, key: str, nbytes: int = 10) -> bool:
        """Whether it is kept. Counts as a use of it, and leaves nothing behind where it is not."""
        entries = set(self.cache._entries)
        before = len(self.model.batches)
        self.put(key, nbytes)
        for new in set(self.cache._entries) - entries:
            del self.cache._entries[new]
        return len(self.model.batches) == before


def test_the_second_time_comes_from_the_cache() -> None:
    cached = Cached(100)
    first = cached.put("a", 30)
    assert cached.put("a", 30) is first
    cached.put("b", 20)
    stats = cached.cache.stats
    assert (stats.hits, stats.misses, stats.entries, stats.nbytes, stats.max_bytes) == (1, 2, 2, 50, 100)


def test_a_batch_computes_what_is_missing_in_one_call_and_each_picture_once() -> None:
    cached = Cached(100)
    cached.put("a")
    pictures = [picture(key) for key in "bacbca"]
    embeddings = cached.cache.embed(cached.model, pictures)  # type: ignore[arg-type]
    assert cached.model.batches == ["a", "bc"]
    assert [id(each) for each in embeddings] == [id(embeddings["bacbca".index(key)]) for key in "bacbca"]
    assert cached.cache.embed(cached.model, []) == []  # type: ignore[arg-type]


def test_the_least_recently_used_goes_first() -> None:
    cached = Cached(30)
    for key in "abc":
        cached.put(key)
    cached.put("a")
    cached.put("d")
    assert cached.holds("a") and cached.holds("c") and cached.holds("d")
    assert not cached.holds("b")


def test_too_large_an_entry_is_returned_and_drops_nothing() -> None:
    cached = Cached(100)
    cached.put("a", 60)
    assert cached.put("z", 101).nbytes == 101
    assert (cached.cache.stats.entries, cached.cache.stats.nbytes) == (1, 60)
    assert cached.holds("a", 60)
    assert cached.put("y", 100).nbytes == 100
    assert cached.holds("y", 100)


def test_clear_forgets_entries_and_keeps_counting() -> None:
    cached = Cached(100)
    cached.put("a")
    cached.put("a")
    cached.cache.clear()
    stats = cached.cache.stats
    assert (stats.entries, stats.nbytes, stats.hits, stats.misses) == (0, 0, 1, 1)
    assert not cached.holds("a")


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 60)), max_size=60))
def test_it_behaves_like_a_plain_model_of_itself(requests: list[tuple[str, int]]) -> None:
    cached = Cached(100)
    kept: dict[tuple[str, int], int] = {}
    hits = 0
    for key in requests:
        cached.put(*key)
        if key in kept:
            hits += 1
            kept[key] = kept.pop(key)
            continue
        kept[key] = key[1]
        while sum(kept.values()) > 100:
            kept.pop(next(iter(kept)))
    stats = cached.cache.stats
    assert (stats.entries, stats.nbytes) == (len(kept), sum(kept.values()))
    assert (stats.hits, stats.misses) == (hits, len(requests) - hits)


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


@pytest.mark.parametrize("max_bytes", [100, 5])
def test_many_threads_share_one_computation_also_of_what_is_too_large_to_keep(max_bytes: int) -> None:
    cached = Cached(max_bytes, lambda: time.sleep(0.1))
    found = at_once(lambda _: cached.put("a"))
    assert cached.model.batches == ["a"]
    assert all(embedding is found[0] for embedding in found)
    assert (cached.cache.stats.hits, cached.cache.stats.misses) == (THREADS - 1, 1)


def test_batches_that_overlap_compute_each_picture_once() -> None:
    cached = Cached(10_000, lambda: time.sleep(0.01))

    def work(index: int) -> list[object]:
        keys = [chr(97 + (index + offset) % 20) for offset in range(6)]
        return list(cached.cache.embed(cached.model, [picture(key) for key in keys]))  # type: ignore[arg-type]

    assert not [error for error in at_once(work) if isinstance(error, Exception)]
    computed = "".join(cached.model.batches)
    assert len(computed) == len(set(computed)) == 20


def test_other_pictures_do_not_wait() -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        if not started.is_set():
            started.set()
            assert go_on.wait(10)

    cached = Cached(1000, slow)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cached.put, "s", 1)
        assert started.wait(10)
        cached.put("q")
        assert cached.cache.stats.entries == 1
        go_on.set()
        assert waiting.result(10).nbytes == 1


def test_an_error_goes_to_one_caller_and_the_next_tries_again() -> None:
    tries: list[int] = []

    def fail_thrice() -> None:
        tries.append(1)
        number = len(tries)
        time.sleep(0.02)
        if number <= 3:
            raise RuntimeError(f"try {number}")

    cached = Cached(100, fail_thrice)
    found = at_once(lambda _: cached.put("a"))
    errors = [str(error) for error in found if isinstance(error, Exception)]
    assert sorted(errors) == ["try 1", "try 2", "try 3"]
    assert len(tries) == 4
    assert len({id(embedding) for embedding in found if isinstance(embedding, Weight)}) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_after_an_error_nothing_is_left_behind(error: type[BaseException]) -> None:
    failures = [error, error]

    def fail() -> None:
        if failures:
            raise failures.pop()

    cached = Cached(100, fail)
    for _ in range(2):
        with pytest.raises(error):
            cached.put("a")
    assert (cached.cache.stats.entries, cached.cache.stats.nbytes, cached.cache._pending) == (0, 0, {})
    assert cached.put("a").nbytes == 10


def test_the_bound_holds_under_load() -> None:
    cached = Cached(1000)
    over: list[int] = []
    wrong: list[int] = []

    def work(index: int) -> None:
        rng = random.Random(index)
        for _ in range(400):
            number = rng.randrange(40)
            if cached.put("k", 50 + number).nbytes != 50 + number:
                wrong.append(number)
            if cached.cache.stats.nbytes > 1000:
                over.append(cached.cache.stats.nbytes)
            if rng.random() < 0.01:
                cached.cache.clear()

    assert not [error for error in at_once(work) if error is not None]
    assert not over and not wrong
    stats = cached.cache.stats
    assert stats.hits + stats.misses == THREADS * 400


PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def misses(model: Encoder, *pictures: Picture) -> int:
    """How many of these pictures are encoded."""
    cache = EmbeddingCache(10**6)
    cache.embed(model, pictures)  # type: ignore[arg-type]
    return cache.stats.misses


def test_equal_pixels_are_one_entry_whatever_their_layout() -> None:
    read_only = PICTURE.copy()
    read_only.setflags(write=False)
    padded = np.zeros((4, 9, 3), np.uint8)
    padded[:, :6] = PICTURE
    layouts = [PICTURE.copy(), np.asfortranarray(PICTURE), padded[:, :6], PICTURE[::-1].copy()[::-1], read_only]
    assert misses(Encoder(), *layouts) == 1


def test_other_pixels_and_shapes_are_other_entries() -> None:
    changed = PICTURE.copy()
    changed[-1, -1, -1] ^= 1
    pictures = [PICTURE, changed, PICTURE[::-1], PICTURE[:, ::-1], PICTURE[..., ::-1], PICTURE.reshape(6, 4, 3)]
    assert misses(Encoder(), *pictures) == len(pictures)


def test_two_loaded_instances_of_one_model_never_share_an_embedding() -> None:
    """They may be on other devices, or of another precision."""
    cache = EmbeddingCache(1000)
    first, second = Encoder(), Encoder()
    for model in (first, second):
        cache.embed(model, [picture("a")])  # type: ignore[arg-type]
    assert first.batches == second.batches == ["a"]
    assert cache.stats.entries == 2


def test_the_entries_of_a_model_go_with_it() -> None:
    cache = EmbeddingCache(1000)
    first, second = Encoder(), Encoder()
    for model in (first, second):
        cache.embed(model, [picture(key) for key in "abc"])  # type: ignore[arg-type]
    del first, model
    gc.collect()
    assert (cache.stats.entries, cache.stats.nbytes) == (3, 30)
    del second
    gc.collect()
    assert (cache.stats.entries, cache.stats.nbytes, cache._owners) == (0, 0, {})


def test_the_picture_given_may_be_changed_afterwards() -> None:
    kept: list[Picture] = []

    class Keeping(Encoder):
        def embed(self, pictures: Sequence[Picture]) -> list[Weight]:
            kept.extend(pictures)
            return super().embed(pictures)

    pixels = picture("a")
    EmbeddingCache(100).embed(Keeping(), [pixels])  # type: ignore[arg-type]
    pixels[:] = 0
    assert kept[0][0, 0, 0] == ord("a")


def test_the_shared_cache_has_its_default_size() -> None:
    assert shared_cache.max_bytes == DEFAULT_MAX_BYTES
