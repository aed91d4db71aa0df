"""Clients of the test Hub: the real libraries in processes of their own.

The libraries read address and token from the environment when they are imported, so a test gives them to a fresh
process, which then carries out actions of :mod:`tests.hub.actions` one after the other.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

_LOOP = """
import json, logging, sys, time
wait = time.sleep
time.sleep = lambda seconds: wait(min(seconds, 0.02))  # retries follow one another without the usual pauses
logging.disable(logging.WARNING)
import tests.hub.actions as actions
answers = sys.stdout
sys.stdout = sys.stderr
for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        answer = {"value": getattr(actions, name)(**arguments)}
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), file=answers, flush=True)
"""


class ClientError(Exception):
    """An action raised; ``kind`` is the name of the exception's class in the client."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Client:
    """A process with its own cache that talks to one Hub as one user, or as nobody.

    Args:
        url: address of the Hub.
        token: of the user; None for nobody.
        home: folder of the cache.
    """

    def __init__(self, url: str, token: str | None, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        fixed = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOOP],
            env=kept | fixed | ({"HF_TOKEN": token} if token else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def __call__(self, action: str, /, **arguments: Any) -> Any:
        """Carry out an action.

        Returns:
            What it returned.

        Raises:
            ClientError: if it raised.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([action, arguments], default=str), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise ClientError(answer["error"], answer["message"])
        return answer["value"]

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()
