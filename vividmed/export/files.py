"""Files that appear whole or not at all."""

import os
from pathlib import Path

from vividmed.errors import VividMedError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk and rename it; missing folders are made.

    Raises:
        VividMedError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise VividMedError(
            f"{path}: cannot be written ({error.strerror or error}); give a path with room and write permission"
        ) from error
