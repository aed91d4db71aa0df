"""Arguments that ``vividmed serve`` and ``vividmed app`` have in common."""

import argparse
import os
import socket
from pathlib import Path
from typing import Any

from shtab import DIRECTORY, FILE

from vividmed.cli.parser import positive_int


def add_server_arguments(parser: argparse.ArgumentParser, *, port: int) -> None:
    """Add the arguments.

    Args:
        parser: of the verb.
        port: default port.
    """
    model = parser.add_argument(
        "--model", required=True, help="folder or repository of a model or an adapter"
    )
    model.complete = DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--name", help="name of the model for clients (default: its folder's or repository's)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=port, help=f"0 takes a free one (default: {port})")
    token = parser.add_argument("--token-file", type=Path, help="file with the bearer token")
    token.complete = FILE  # type: ignore[attr-defined]
    parser.add_argument(
        "--cors-origin", action="append", default=[], help="origin of a web page that may call; repeatable"
    )
    parser.add_argument("--batch-size", type=positive_int, default=8, help="questions per batch (default: 8)")
    parser.add_argument("--max-requests", type=positive_int, default=64, help="at a time (default: 64)")
    parser.add_argument("--max-body-mb", type=positive_int, default=256, help="per request (default: 256)")
    parser.add_argument("--max-image-mb", type=positive_int, default=1024, help="decoded (default: 1024)")
    parser.add_argument(
        "--max-new-tokens", type=positive_int, default=1024, help="per answer (default: 1024)"
    )
    parser.add_argument(
        "--timeout", type=positive_int, default=300, help="seconds per request (default: 300)"
    )
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: the accelerator, if there is one)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="default: float32"
    )
    parser.add_argument("--load-in-4bit", action="store_true", help="quantise the model (needs bitsandbytes)")


def server_settings(args: argparse.Namespace, *, public: bool = False) -> Any:
    """Settings of the server; also sets the limit of decoded images, which is the process's.

    Args:
        args: parsed arguments.
        public: whether everyone may use the server without a token.

    Raises:
        VividMedError: the address needs a token, or a token or origin is unusable.
    """
    from vividmed.processing.limits import MAX_BYTES_VARIABLE
    from vividmed.serving.settings import (
        MIB,
        ServerSettings,
        check_access,
        check_origins,
        model_name,
        read_token,
    )

    token = read_token(args.token_file)
    body = args.max_body_mb * MIB
    os.environ[MAX_BYTES_VARIABLE] = str(args.max_image_mb * MIB)
    return ServerSettings(
        model_name=args.name or model_name(args.model),
        token=token,
        allowed_hosts=check_access(args.host, token, public=public),
        cors_origins=check_origins(args.cors_origin),
        max_body_bytes=body,
        max_bytes_in_flight=4 * body,
        max_requests=args.max_requests,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        timeout=float(args.timeout),
    )


def load_predictor(args: argparse.Namespace) -> Any:
    """Load the model."""
    import torch

    from vividmed.inference.predictor import Predictor

    return Predictor(
        args.model, device=args.device, dtype=getattr(torch, args.dtype), load_in_4bit=args.load_in_4bit
    )


def server_address(host: str, listener: socket.socket) -> str:
    """Address of a server for people."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 0 to 65535")
    return int(text)
