"""A run over a folder in a process of its own, to be killed or starved: FOLDER OUT [SECONDS [MAX_BYTES]].

Needs no torch, so it starts fast. Ends with 0 when everything is done and with 3 where OUT cannot be written.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from pam_core.errors import DatasetError
from pam_plugins.datasets.contracts import Job
from pam_plugins.datasets.jsonl import JsonLinesSink
from pam_plugins.options import Options
from pam_plugins.pipeline import run
from tests.factories import FakeModel


def main(folder: str, out: str, seconds: str = "0", max_bytes: str = "0") -> int:
    if int(max_bytes):
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(max_bytes), int(max_bytes)))
    jobs = [Job(path) for path in sorted(Path(folder).iterdir())]
    try:
        with closing(JsonLinesSink(Path(out))) as sink:
            for _ in run(jobs, [sink], FakeModel(seconds=float(seconds)), Options()):
                pass
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
