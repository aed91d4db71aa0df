"""Temporary images of patients do not outlive their process."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from vividmed.scratch import ScratchFolder

PROGRAM = """
import sys
from vividmed.scratch import ScratchFolder

folder = ScratchFolder("scans")
(folder.path / "scan.dcm").write_bytes(b"pixels")
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = [sys.executable, "-c", PROGRAM]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            scan = Path(process.stdout.readline().strip()) / "scan.dcm"
            with ScratchFolder("scans"):
                assert scan.is_file()
        finally:
            process.kill()
    assert scan.is_file()
    with ScratchFolder("scans") as own:
        assert [own.path.parent] == list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
