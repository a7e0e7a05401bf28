"""Writes a record in a process of its own, to be killed or starved: FILE [MAX_BYTES]. Ends with 3 when starved."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from pam_core.errors import DatasetError
from pam_core.video import FrameResult
from pam_plugins.video_io.record import Record
from tests.factories import make_region


def main(path: str, max_bytes: str = "0") -> int:
    if int(max_bytes):
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(max_bytes), int(max_bytes)))
    record = Record(Path(path))
    try:
        for index in count():
            record.write(FrameResult(index, index / 25, (make_region(track_id=1, frame=index),)))
    except DatasetError as error:
        print(error, file=sys.stderr)
    return 3


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
