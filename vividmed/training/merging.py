"""A merged model as a folder of its own: weights, processor, card, and the provenance of both of its parts."""

from dataclasses import asdict
from pathlib import Path

import peft
import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData

from vividmed.data.terms import combine_terms, write_provenance
from vividmed.errors import VividMedError
from vividmed.files import packaged_folder, write_atomically
from vividmed.hub.base_model import find_base_model_id
from vividmed.hub.markdown import table_cell
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.peft import adapter_base, find_adapter, merge_adapter
from vividmed.training.runs.checkpointing import atomic_folder, readable_write_errors
from vividmed.training.runs.provenance import model_terms
from vividmed.version import __version__


def save_merged_model(
    adapter: str | Path,
    folder: str | Path,
    *,
    base_model: str | None = None,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
) -> None:
    """Merge an adapter into its base model and save the result with processor, card and provenance.

    Args:
        adapter: local folder or Hub id of the adapter; its processor is saved with the model.
        folder: folder to write, which must be empty or new.
        base_model: local folder or Hub id of the base model; by default the one that the adapter was trained on.
        revision: branch, tag or commit of the adapter's repository.
        dtype: precision of the merged weights; by default that of the base model.

    Raises:
        VividMedError: there is no such adapter, it does not fit the base model, or the folder is not empty or cannot
            be written.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise VividMedError(f"{target}: is not empty; name a new folder for the merged model")
    source = find_adapter(adapter, revision=revision)
    if source is None:
        raise VividMedError(
            f"{adapter}: is not an adapter; name a folder or Hub repository that one was saved in"
        )
    base = adapter_base(source) if base_model is None else base_model
    model = merge_adapter(VividMedForCausalLM.from_pretrained(base, dtype=dtype), source)
    terms = combine_terms([*model_terms(adapter), *model_terms(base)])
    card = ModelCard.from_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag="image-text-to-text",
            base_model=find_base_model_id(base),
            base_model_relation="finetune",
            tags=["medical", "radiology", "vividmed"],
        ),
        template_path=str(packaged_folder("model_cards") / "merged.md.jinja"),
        name=target.name,
        adapter_name=_name(adapter),
        base_name=_name(base),
        provenance=[{name: table_cell(value) for name, value in asdict(each).items()} for each in terms],
        versions={
            "vividmed": __version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
            "torch": torch.__version__,
        },
    )
    processor = VividMedProcessor.from_pretrained(str(adapter), revision=revision or "main")
    with (
        readable_write_errors(target),
        atomic_folder(target, is_writer=True, barrier=lambda: None) as partial,
    ):
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        write_provenance(partial, terms)
        write_atomically(partial / "README.md", str(card))


def _name(place: str | Path) -> str:
    """Hub id, or the name of a local folder: its path says nothing to others."""
    return Path(place).resolve().name if Path(place).exists() else str(place)
