"""Language models that judge: an OpenAI-compatible endpoint, or a local model."""

import ipaddress
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from vividmed.errors import VividMedError
from vividmed.metrics.learned.weights import from_folder

API_KEY = "VIVIDMED_JUDGE_API_KEY"
"""Environment variable with the key of an endpoint."""
_TIMEOUT = 120


class Chat(Protocol):
    """Answers a system and a user message."""

    def __call__(self, system: str, user: str) -> str: ...

    def identity(self) -> Mapping[str, Any]:
        """Name of the model, for the record of a score."""


def open_chat(place: str, *, what: str, max_new_tokens: int = 512) -> Chat:
    """A model by its address or folder.

    Args:
        place: ``http(s)://HOST/v1``, with ``#MODEL`` to choose one of the models that are served; or a local folder.
        what: the metric that asks, for errors.
        max_new_tokens: longest answer.

    Raises:
        VividMedError: the endpoint cannot be reached, or the folder has no model.
    """
    if is_endpoint(place):
        return EndpointChat(place, what=what, max_new_tokens=max_new_tokens)
    return LocalChat(place, what=what, max_new_tokens=max_new_tokens)


def is_endpoint(place: str) -> bool:
    """Whether a place is an address, not a folder."""
    return place.startswith(("http://", "https://"))


def is_on_this_machine(place: str) -> bool:
    """Whether an address belongs to this machine."""
    host = urlsplit(place).hostname or ""
    try:
        return all(ipaddress.ip_address(info[4][0]).is_loopback for info in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


class EndpointChat:
    """An OpenAI-compatible endpoint, asked greedily.

    Requests are made with the standard library: the Hub's own client would send the user's Hub token along.

    Args:
        address: ``http(s)://HOST/v1``, with ``#MODEL`` to choose a model; by default the first that is served.
        what: the metric that asks, for errors.
        max_new_tokens: longest answer.
    """

    def __init__(self, address: str, *, what: str, max_new_tokens: int):
        self.base, _, self._model = address.partition("#")
        self.base = self.base.rstrip("/").removesuffix("/chat/completions")
        self.what = what
        self.max_new_tokens = max_new_tokens

    @cached_property
    def model(self) -> str:
        """Name of the model."""
        if self._model:
            return self._model
        try:
            return str(self._ask("models", None)["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise VividMedError(
                f"{self.what}={self.base}: names no model; give it as {self.base}#MODEL"
            ) from error

    def __call__(self, system: str, user: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "temperature": 0,
            "max_tokens": self.max_new_tokens,
        }
        answer = self._ask("chat/completions", body)
        try:
            return str(answer["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise VividMedError(
                f"{self.what}={self.base}: its answer is not that of an OpenAI-compatible endpoint; check the address"
            ) from error

    def identity(self) -> Mapping[str, Any]:
        return {"model": self.model, "endpoint": urlsplit(self.base).hostname, "temperature": 0}

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(API_KEY):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}/{path}", data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                return json.load(response)
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise VividMedError(
                f"{self.what}={self.base}: does not answer ({reason}); check the address, and {API_KEY} if it needs a key"
            ) from error


class LocalChat:
    """A causal language model of a local folder, greedy.

    Args:
        folder: model with its tokenizer.
        what: the metric that asks, for errors.
        max_new_tokens: longest answer.
    """

    def __init__(self, folder: str, *, what: str, max_new_tokens: int):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.folder = folder
        self.max_new_tokens = max_new_tokens
        self.tokenizer = from_folder(what, folder, AutoTokenizer.from_pretrained)
        self.model = from_folder(what, folder, AutoModelForCausalLM.from_pretrained).eval()
        if (accelerator := torch.accelerator.current_accelerator(check_available=True)) is not None:
            self.model.to(accelerator)

    def __call__(self, system: str, user: str) -> str:
        import torch

        text = self._prompt(system, user)
        batch = self.tokenizer(text, return_tensors="pt", add_special_tokens=not self.tokenizer.chat_template)
        ids = batch["input_ids"].to(self.model.device)
        with torch.no_grad():
            output = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
            )
        return self.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)

    def identity(self) -> Mapping[str, Any]:
        return {"model": Path(self.folder).name, "decoding": "greedy"}

    def _prompt(self, system: str, user: str) -> str:
        if not self.tokenizer.chat_template:
            return f"{system}\n\n{user}\n"
        messages: Sequence[Mapping[str, str]] = [
            {"role": "system", "content": system},
            {"role": "user", "content": user},
        ]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
