"""Custom runs of a dataset: which model and options made a field, and how the run went.

A run in which there was nothing to do leaves the record of the one that did the work as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import fiftyone as fo

from pam_core.contracts import ModelInfo


class Provenance:
    """The run `key` of a dataset."""

    def __init__(self, dataset: fo.Dataset, key: str, method: str, info: ModelInfo) -> None:
        self.dataset, self.key, self.method, self.info = dataset, key, method, info
        self.model = f"{info.name} {info.revision}"
        self._registered = False

    def register(self, request: Any, **said: Any) -> None:
        """Say that there is work to do: what a request (a dataclass) asked for, of its label ids only how many.

        Said again, it changes nothing.
        """
        if self._registered:
            return
        self._registered = True
        config = self.dataset.init_run(
            method=self.method,
            model=self.model,
            description=self.info.description,
            licence=self.info.licence,
            request={**asdict(request), "label_ids": len(request.label_ids or ())},
            **said,
        )
        self.dataset.register_run(self.key, config, overwrite=True)

    def record(self, progress: Any) -> None:
        """Say how it went (a dataclass), if there was work to do."""
        if self._registered:
            self.dataset.save_run_results(self.key, self.dataset.init_run_results(self.key, **asdict(progress)))

    def earlier(self) -> Iterator[Any]:
        """The results of earlier runs of this method and model, the latest first."""
        for key in reversed(self.dataset.list_runs(method=self.method)):
            if self.dataset.get_run_info(key).config.model == self.model:
                results = self.dataset.load_run_results(key)
                if results is not None:
                    yield results
