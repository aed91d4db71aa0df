"""A merged model as a folder of its own: weights, processor, card, and the provenance of both of its parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peft
import torch
import transformers
from huggingface_hub import ModelCardData
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from vividmed.data.taxonomy_files import save_taxonomy
from vividmed.data.terms import combine_terms, write_provenance
from vividmed.errors import VividMedError
from vividmed.files import packaged_folder, write_atomically
from vividmed.hub.base_model import find_base_model_id
from vividmed.hub.cards import fill_template, safe_terms
from vividmed.hub.markdown import table_cell
from vividmed.models.adapters.merging import AdapterMerger, merge_checkpoint
from vividmed.models.adapters.settings import (
    ADAPTER_SETTINGS_FILE,
    configure_base,
    read_adapter_settings,
)
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.loading import check_complete
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.adapters.adapted_model import ADAPTER_WEIGHTS, BOUNDARY_TOKENS_FILE
from vividmed.training.adapters.peft import adapter_base, find_adapter, read_adapter_config
from vividmed.training.hub_files import model_folder, use_taxonomy_of_model
from vividmed.training.presence import read_record
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

    Weights are read, merged and written one tensor at a time, so that a base model of any size needs the memory of one
    file of the result. An adapter that was trained on quantised weights is merged into the unquantised base model.

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
    weights = model_folder(base)
    terms = combine_terms([*model_terms(adapter), *model_terms(base)])
    card = fill_template(
        packaged_folder("model_cards") / "merged.md.jinja",
        ModelCardData(
            library_name="transformers",
            pipeline_tag="image-text-to-text",
            base_model=find_base_model_id(base),
            base_model_relation="finetune",
            tags=["medical", "radiology", "vividmed"],
        ),
        {
            "name": table_cell(target.name),
            "adapter_name": table_cell(_name(adapter)),
            "base_name": table_cell(_name(base)),
            "provenance": safe_terms(terms),
            "modalities": {},
            "sources": [],
            "contact": "",
            "versions": {
                "vividmed": __version__,
                "transformers": transformers.__version__,
                "peft": peft.__version__,
                "torch": torch.__version__,
            },
        },
    )
    for place in (base, adapter):
        use_taxonomy_of_model(place)
    processor = VividMedProcessor.from_pretrained(str(adapter), revision=revision or "main")
    with (
        readable_write_errors(target),
        atomic_folder(target, is_writer=True, barrier=lambda: None) as partial,
    ):
        _write_weights(weights, source, partial, None if dtype == "auto" else as_dtype(dtype))
        processor.save_pretrained(partial)
        write_provenance(partial, terms)
        save_taxonomy(partial)
        write_atomically(partial / "README.md", card)


def _write_weights(base: Path, adapter: Path, output: Path, dtype: torch.dtype | None) -> None:
    """Merge tensor by tensor, and write a configuration that belongs to the merged weights."""
    config = VividMedConfig.from_pretrained(base)
    if getattr(config, "quantization_config", None) is not None:
        raise VividMedError(
            f"{base}: the base model is stored quantised; name the unquantised one that it was made from (--base-model)"
        )
    configure_base(config, read_adapter_settings(adapter / ADAPTER_SETTINGS_FILE))
    read_record(config, adapter)
    with torch.device("meta"):
        model = VividMedForCausalLM(config)
    wanted, tied = model.state_dict().keys(), model.all_tied_weights_keys
    with open_adapter(adapter) as merger:
        written = merge_checkpoint(
            base,
            merger,
            output,
            dtype=dtype,
            keep_float32=model._keep_in_fp32_modules_strict,
            new=wanted,
            tied=tied,
        )
    if tied.keys() & written:
        # The adapter has trained a head of its own.
        config.tie_word_embeddings, tied = False, {}
    check_complete(str(base), wanted - written - tied.keys())
    if dtype is not None:
        config.dtype = dtype
    config.architectures = [VividMedForCausalLM.__name__]
    config.save_pretrained(output)
    generation = base / "generation_config.json"
    if generation.is_file():
        write_atomically(output / generation.name, generation.read_bytes())


@contextmanager
def open_adapter(folder: Path) -> Iterator[AdapterMerger]:
    """The adapter of a folder, ready to be merged; its file stays open as long as the block runs.

    Raises:
        VividMedError: its configuration or file cannot be read, or it is of a kind that cannot be merged.
    """
    config = read_adapter_config(folder).to_dict()
    path = folder / ADAPTER_WEIGHTS
    own_file = folder / BOUNDARY_TOKENS_FILE
    tokens = load_file(own_file) if own_file.is_file() else {}
    try:
        with safe_open(path, framework="pt") as file:
            yield AdapterMerger(
                {**config, "peft_type": config["peft_type"].value},
                [*file.keys(), *tokens],
                lambda name: tokens[name] if name in tokens else file.get_tensor(name),
                source=str(folder),
            )
    except (OSError, SafetensorError) as error:
        if str(path) not in str(error) and not isinstance(error, SafetensorError | FileNotFoundError):
            raise
        raise VividMedError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); save or download the adapter again"
        ) from error


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A floating-point type by its name."""
    return dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)


def _name(place: str | Path) -> str:
    """Hub id, or the name of a local folder: its path says nothing to others."""
    return Path(place).resolve().name if Path(place).exists() else str(place)
