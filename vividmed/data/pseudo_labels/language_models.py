"""Language models that clean, tag and filter reports: any OpenAI-compatible endpoint, or a local transformers model.

Answers count only if the caller accepts them. One that is not accepted is asked for once more, with the reason; what
then still fails is reported and not used. Accepted and refused answers are kept by the digest of model, settings and
conversation, so that no question is asked twice.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vividmed.data.pseudo_labels.steps import AppendLog
from vividmed.data.pseudo_labels.study import digest
from vividmed.errors import VividMedError

Message = dict[str, str]
Acceptance = Callable[[str], str]
"""Takes an answer and returns why it must not count, as ``reason: detail``; empty if it may."""

ATTEMPTS = 2
_LONGEST_ANSWER = 200_000


@dataclass(frozen=True)
class Failure:
    """An answer that did not come, and why."""

    reason: str


@dataclass(frozen=True)
class Answer:
    """The outcome of a question.

    Attributes:
        text: the accepted answer; None if there is none.
        failures: what was wrong with each answer that was not accepted.
    """

    text: str | None
    failures: tuple[str, ...] = ()


class LanguageModel(ABC):
    """Answers conversations, several at a time, always the same way.

    Attributes:
        name: name of the model, which records and cards repeat.
        batch_size: number of conversations to hand over at once.
        max_new_tokens: longest answer.
    """

    name: str
    batch_size: int = 8
    max_new_tokens: int = 2048
    _kept: AppendLog | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides on an answer besides the conversation."""
        return {"model": self.name, "max_new_tokens": self.max_new_tokens, "temperature": 0}

    @abstractmethod
    def complete(self, conversations: Sequence[list[Message]]) -> list[str | Failure]:
        """Answer each conversation once, at temperature 0.

        Raises:
            VividMedError: the model cannot be used at all.
        """

    def keep_answers(self, path: Path) -> None:
        """Keep answers in a file, and use those that are there."""
        self._kept = AppendLog(path)
        self._known: dict[str, str] = {}
        for entry in self._kept.values():
            if isinstance(entry, dict) and isinstance(entry.get("answer"), str):
                self._known[str(entry.get("key"))] = entry["answer"]

    def ask(self, conversations: Sequence[list[Message]], acceptances: Sequence[Acceptance]) -> list[Answer]:
        """Ask until an answer is accepted, at most twice.

        Args:
            conversations: one per question.
            acceptances: one per question.
        """
        failures: list[tuple[str, ...]] = [()] * len(conversations)
        texts: list[str | None] = [None] * len(conversations)
        open_questions = {number: list(turns) for number, turns in enumerate(conversations)}
        for _ in range(ATTEMPTS):
            numbers = list(open_questions)
            for number, reply in zip(
                numbers, self._answers([open_questions[n] for n in numbers]), strict=True
            ):
                if isinstance(reply, Failure):
                    failures[number] += (reply.reason,)
                    continue
                problem = acceptances[number](reply)
                if not problem:
                    texts[number] = reply
                    del open_questions[number]
                    continue
                failures[number] += (problem,)
                open_questions[number] = [
                    *conversations[number],
                    {"role": "assistant", "content": reply[:_LONGEST_ANSWER]},
                    {
                        "role": "user",
                        "content": f"That answer cannot be used: {problem}. Follow the instructions and answer again.",
                    },
                ]
        return [Answer(*each) for each in zip(texts, failures, strict=True)]

    def _answers(self, conversations: Sequence[list[Message]]) -> list[str | Failure]:
        if self._kept is None:
            return self._complete(conversations)
        keys = [digest([self.settings, turns]) for turns in conversations]
        new = [number for number, key in enumerate(keys) if key not in self._known]
        replies = self._complete([conversations[number] for number in new])
        fresh: dict[int, str | Failure] = dict(zip(new, replies, strict=True))
        for number, reply in fresh.items():
            if isinstance(reply, str):
                self._known[keys[number]] = reply
                self._kept.write({"key": keys[number], "answer": reply})
        return [fresh.get(n, self._known.get(key, "")) for n, key in enumerate(keys)]

    def _complete(self, conversations: Sequence[list[Message]]) -> list[str | Failure]:
        if not conversations:
            return []
        replies = self.complete(conversations)
        return [reply if isinstance(reply, Failure) else _usable(reply) for reply in replies]


class LocalModel(LanguageModel):
    """A causal language model of transformers with a chat template, decoded greedily.

    Args:
        name: folder or Hub repository.
        batch_size: number of conversations per batch.
        max_new_tokens: longest answer.
        device: device of the model; the accelerator by default, if there is one.
    """

    def __init__(
        self, name: str, *, batch_size: int = 8, max_new_tokens: int = 2048, device: str | None = None
    ) -> None:
        self.source = name
        # Records and cards are passed on; folders of this machine are not for them.
        self.name = Path(name).resolve().name if Path(name).is_dir() else name
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self._device = device
        self._loaded: tuple[Any, Any] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "weights": weights_of(self.source)}

    def complete(self, conversations: Sequence[list[Message]]) -> list[str | Failure]:
        import torch

        model, tokenizer = self._load()
        batch = self._encode(tokenizer, list(conversations)).to(model.device)
        longest = getattr(model.config, "max_position_embeddings", None)
        start = batch["input_ids"].shape[1]
        if longest is not None and start >= longest:
            if len(conversations) == 1:
                return [Failure("the question is longer than the model can read")]
            return [reply for turns in conversations for reply in self.complete([turns])]
        limit = self.max_new_tokens if longest is None else min(self.max_new_tokens, longest - start)
        with torch.inference_mode():
            output = model.generate(**batch, max_new_tokens=limit, do_sample=False)
        return list(tokenizer.batch_decode(output[:, start:], skip_special_tokens=True))

    def _encode(self, tokenizer: Any, conversations: list[list[Message]]) -> Any:
        """Tokens of conversations; chat templates without a system role get the instruction with the first question."""
        from jinja2 import TemplateError

        options = {"padding": True, "return_tensors": "pt", "return_dict": True}
        for turns in (conversations, [_without_system(each) for each in conversations]):
            try:
                return tokenizer.apply_chat_template(turns, add_generation_prompt=True, **options)
            except TemplateError as error:
                problem = error
        raise VividMedError(
            f"--model {self.source}: its chat template cannot write the conversation ({problem}); give another model"
        ) from problem

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoModelForCausalLM, AutoTokenizer

            accelerator = torch.accelerator.current_accelerator(check_available=True)
            device = torch.device(self._device or accelerator or "cpu")
            # Processors emulate half precision, many times slower than single precision.
            dtype = torch.float32 if device.type == "cpu" else "auto"
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.source, padding_side="left")
                model = AutoModelForCausalLM.from_pretrained(self.source, dtype=dtype, use_safetensors=True)
            except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
                reason = " ".join(str(error).split())[:200]
                raise VividMedError(
                    f"--model {self.source}: cannot be loaded ({reason}); give a folder or repository of a causal language "
                    "model, or an --endpoint that serves it"
                ) from error
            if tokenizer.chat_template is None:
                raise VividMedError(
                    f"--model {self.source}: has no chat template; give a model that was trained to follow instructions"
                )
            if tokenizer.pad_token_id is None:
                tokenizer.pad_token = tokenizer.eos_token
            # Greedy decoding without the sampling settings of the model's own generation config.
            model.generation_config = type(model.generation_config)(
                eos_token_id=model.generation_config.eos_token_id, pad_token_id=tokenizer.pad_token_id
            )
            self._loaded = model.to(device).eval(), tokenizer
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}


def _usable(reply: str) -> str | Failure:
    """An answer that can be stored and sent."""
    if len(reply) > _LONGEST_ANSWER:
        return Failure("the answer is far too long")
    try:
        reply.encode()
    except UnicodeEncodeError:
        return Failure("the answer is not valid text")
    return reply


def weights_of(source: str) -> list[list[Any]]:
    """Names, sizes and times of the weights of a local model; a repository is known by its name."""
    paths = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths] or [[source]]


def _without_system(turns: Sequence[Message]) -> list[Message]:
    """A conversation whose instruction stands in front of its first question."""
    if turns[0]["role"] != "system":
        return list(turns)
    first = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
    return [first, *turns[2:]]
