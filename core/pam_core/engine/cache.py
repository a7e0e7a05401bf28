"""Keeps what models saw of pictures, so that the second click on one costs only the decoder.

One cache serves the whole process (`shared_cache`). It is keyed by content, bounded in bytes, safe to use from many
threads, and computes each entry once even where several threads ask for it together. It knows nothing of models.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache

from pam_core.contracts import CacheStats, ImageEmbedding, Picture

DEFAULT_MAX_BYTES = 512 * 2**20


def content_key(owner: str, picture: Picture) -> str:
    """A key for what `owner` (a model and its revision) sees in `picture`: the same for the same pixels."""
    digest = hashlib.blake2b(picture.data if picture.flags.c_contiguous else picture.tobytes(), digest_size=16)
    return f"{owner}|{picture.shape}|{digest.hexdigest()}"


class _TryAgainError(Exception):
    """The computation that was waited for failed."""


class EmbeddingCache:
    """Least recently used embeddings, up to `max_bytes`. An embedding larger than that is returned but not kept."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self._under_way: dict[str, Future[ImageEmbedding]] = {}
        self._lock = threading.Lock()
        self._nbytes = self._hits = self._misses = 0

    def get_or_compute(self, key: str, compute: Callable[[], ImageEmbedding]) -> ImageEmbedding:
        """The entry of `key`; computed by the first to ask, waited for by those who ask meanwhile.

        Where `compute` raises, that caller gets the error and the next in line tries again.
        """
        while True:
            with self._lock:
                if key in self._entries:
                    self._hits += 1
                    self._entries.move_to_end(key)
                    return self._entries[key]
                waiting = self._under_way.get(key)
                if waiting is None:
                    self._misses += 1
                    done: Future[ImageEmbedding] = Future()
                    self._under_way[key] = done
                    break
            with suppress(_TryAgainError):
                embedding = waiting.result()
                with self._lock:
                    self._hits += 1
                return embedding
        try:
            embedding = compute()
            with self._lock:
                self._keep(key, embedding)
                del self._under_way[key]
        except BaseException:
            with self._lock:
                del self._under_way[key]
            done.set_exception(_TryAgainError())
            raise
        done.set_result(embedding)
        return embedding

    def _keep(self, key: str, embedding: ImageEmbedding) -> None:
        if embedding.nbytes > self.max_bytes:
            return
        self._entries[key] = embedding
        self._nbytes += embedding.nbytes
        while self._nbytes > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._nbytes -= dropped.nbytes

    def clear(self) -> None:
        """Forget every embedding; the counters stay."""
        with self._lock:
            self._entries.clear()
            self._nbytes = 0

    @property
    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(self._hits, self._misses, len(self._entries), self._nbytes, self.max_bytes)


@lru_cache(maxsize=1)
def shared_cache() -> EmbeddingCache:
    """The cache that everything in this process shares."""
    return EmbeddingCache()
