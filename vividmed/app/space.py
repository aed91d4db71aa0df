"""The page as a Docker Space of the Hugging Face Hub."""

from pathlib import Path

from vividmed.errors import VividMedError
from vividmed.files import write_atomically
from vividmed.version import __version__

_CARD = """---
title: VividMed
sdk: docker
app_port: 7860
pinned: false
models:
  - {model}
---

# VividMed

A page to look at scans with the model `{model}`. Research use only. Not a medical device; not for diagnosis.

Do not open scans of patients here. Scans are kept in memory only, until their tab is closed.

The Space needs vividmed {version}: put its wheel (`python -m build`, or `pip wheel --no-deps .` in a clone) next to the Dockerfile. A private model needs the secret `HF_TOKEN` in the settings of the Space.
"""

_DOCKERFILE = """FROM python:3.11-slim
RUN useradd --create-home --uid 1000 user
USER user
WORKDIR /home/user
ENV PATH=/home/user/.local/bin:$PATH HF_HUB_DISABLE_TELEMETRY=1
ARG TORCH=torch
RUN pip install --no-cache-dir --user "$TORCH"
COPY --chown=user *.whl ./
RUN pip install --no-cache-dir --user "$(ls vividmed-*.whl)[app]"
EXPOSE 7860
CMD ["vividmed", "app", "--model", "{model}", "--host", "0.0.0.0", "--port", "7860", "--public"]
"""


def write_space(folder: Path, *, model: str) -> None:
    """Write a Space.

    Args:
        folder: new or empty folder.
        model: repository of the model on the Hub.

    Raises:
        VividMedError: the folder contains something, or the model is not a repository.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VividMedError(f"--space {folder}: exists and is not an empty folder; name another one")
    owner, slash, name = model.partition("/")
    if not (owner and slash and name) or "/" in name or Path(model).exists() or not _is_plain(model):
        raise VividMedError(
            f"--model {model}: a Space loads its model from the Hub; push it with vividmed push, and give OWNER/NAME"
        )
    write_atomically(folder / "README.md", _CARD.format(model=model, version=__version__))
    write_atomically(folder / "Dockerfile", _DOCKERFILE.format(model=model))


def _is_plain(model: str) -> bool:
    return all(character.isalnum() or character in "-_./" for character in model)
