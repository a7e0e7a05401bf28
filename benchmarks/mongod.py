"""A MongoDB for one benchmark or test."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path


class Mongod:
    """A MongoDB on a free loopback port, ended when the block ends."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home, self.options = home, options

    def __enter__(self) -> str:
        data = self.home / "mongo"
        data.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [
                str(find_mongod()), "--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1",
                "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--logpath", str(self.home / "mongod.log"),
                "--quiet", "--setParameter", "diagnosticDataCollectionEnabled=false", *self.options,
            ]
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return f"mongodb://127.0.0.1:{port}"
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.home / "mongod.log").read_text()[-2000:]) from None
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def find_mongod() -> Path:
    """The MongoDB that came with FiftyOne, or the machine's."""
    spec = importlib.util.find_spec("fiftyone")  # not imported yet: it would connect
    assert spec is not None and spec.origin is not None, "fiftyone is not installed"
    shipped = Path(spec.origin).parent / "db" / "bin" / "mongod"
    found = shipped if shipped.exists() else Path(shutil.which("mongod") or "mongod")
    if found.exists() and not os.access(found, os.X_OK):
        found.chmod(0o755)
    return found
