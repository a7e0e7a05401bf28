"""Image embeddings by content, so that a second prompt on a picture costs only the mask decoder.

One cache serves the process (`shared_cache`). Entries belong to the loaded model that made them and go with it. The
cache is bounded in bytes, safe to use from many threads, and has each picture encoded once even where several threads
want it at the same time.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from cachetools import LRUCache

from pam_core.contracts import RegionModel
from pam_core.questions import ImageEmbedding
from pam_core.types import Picture

DEFAULT_MAX_BYTES = 512 * 2**20

Key = tuple[int, tuple[int, ...], bytes]
"""The loaded model's number, the picture's shape, and a digest of its pixels."""


@dataclass(frozen=True)
class CacheStats:
    """Counters and current size of a cache."""

    hits: int = 0
    misses: int = 0
    entries: int = 0
    nbytes: int = 0
    max_bytes: int = 0


class EmbeddingCache:
    """Least recently used embeddings, up to `max_bytes`. An embedding larger than that is returned but not kept."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._lock = threading.RLock()  # a model may be collected, and its entries dropped, while it is held
        self.resize(max_bytes)
        self._pending: dict[Key, Future[ImageEmbedding]] = {}
        self._owners: dict[int, int] = {}
        self._numbers = itertools.count()
        self._hits = self._misses = 0

    def resize(self, max_bytes: int) -> None:
        """Set the limit in bytes, and forget every embedding."""
        with self._lock:
            self._entries: LRUCache[Key, ImageEmbedding] = LRUCache(max_bytes, getsizeof=lambda entry: entry.nbytes)

    def embed(self, model: RegionModel, pictures: Sequence[Picture]) -> list[ImageEmbedding]:
        """The model's embedding of each picture; those that are not cached are computed in one call.

        Pictures that another thread is computing are waited for. Where the model raises, this caller gets the error
        and others who wait try again.
        """
        owner = self._owner(model)
        keys = [_key(owner, picture) for picture in pictures]
        found: dict[Key, ImageEmbedding] = {}
        while len(found) < len(set(keys)):
            mine, waiting = self._claim(keys, found)
            if mine:
                found.update(self._compute(model, {key: pictures[keys.index(key)] for key in mine}))
            for key, future in waiting.items():
                try:
                    found[key] = future.result()
                except _ComputationFailedError:
                    continue
                with self._lock:
                    self._hits += 1
        return [found[key] for key in keys]

    def _owner(self, model: RegionModel) -> int:
        """The number of a loaded model: another for each instance, however alike they are."""
        with self._lock:
            if id(model) not in self._owners:
                self._owners[id(model)] = next(self._numbers)
                weakref.finalize(model, self._drop, id(model))
            return self._owners[id(model)]

    def _claim(
        self, keys: Sequence[Key], found: dict[Key, ImageEmbedding]
    ) -> tuple[list[Key], dict[Key, Future[ImageEmbedding]]]:
        """Cached entries go to `found`; the keys to compute here, and the futures of those computed elsewhere."""
        mine: list[Key] = []
        waiting: dict[Key, Future[ImageEmbedding]] = {}
        with self._lock:
            for key in dict.fromkeys(keys):
                if key in found:
                    continue
                if key in self._entries:
                    self._hits += 1
                    found[key] = self._entries[key]
                elif key in self._pending:
                    waiting[key] = self._pending[key]
                else:
                    self._misses += 1
                    self._pending[key] = Future()
                    mine.append(key)
        return mine, waiting

    def _compute(self, model: RegionModel, pictures: dict[Key, Picture]) -> dict[Key, ImageEmbedding]:
        try:
            # Copies: an embedding may hold its picture, and outlives the call.
            computed = dict(zip(pictures, model.embed([p.copy() for p in pictures.values()]), strict=True))
        except BaseException:
            with self._lock:
                for key in pictures:
                    self._pending.pop(key).set_exception(_ComputationFailedError())
            raise
        with self._lock:
            for key, embedding in computed.items():
                if embedding.nbytes <= self.max_bytes:
                    self._entries[key] = embedding
                self._pending.pop(key).set_result(embedding)
        return computed

    def _drop(self, model_id: int) -> None:
        """Forget the entries of a model that is gone."""
        with self._lock:
            owner = self._owners.pop(model_id)
            for key in [key for key in self._entries if key[0] == owner]:
                del self._entries[key]

    def clear(self) -> None:
        """Forget every embedding; the counters stay."""
        with self._lock:
            self._entries.clear()

    @property
    def max_bytes(self) -> int:
        return int(self._entries.maxsize)

    @property
    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(
                self._hits, self._misses, len(self._entries), int(self._entries.currsize), self.max_bytes
            )


class _ComputationFailedError(Exception):
    """The computation that was waited for failed."""


def _key(owner: int, picture: Picture) -> Key:
    data = picture.data if picture.flags.c_contiguous else picture.tobytes()
    return owner, picture.shape, hashlib.blake2b(data, digest_size=16).digest()


shared_cache = EmbeddingCache()
"""The cache that everything in this process shares."""
