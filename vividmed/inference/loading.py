"""A trained model and its processor, by folder or repository; adapters come with their base model."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from vividmed.errors import VividMedError
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.adapters.peft import adapter_base, find_adapter, load_adapter
from vividmed.training.hub_files import check_place, use_taxonomy_of_model


def load_trained(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    load_in_4bit: bool = False,
) -> tuple[PreTrainedModel, VividMedProcessor]:
    """Load a model to use it.

    Args:
        name: folder or Hub repository of a model, or of an adapter, whose base model is then loaded too.
        device: where to put it; the accelerator by default, if there is one.
        dtype: of the weights; segmenters stay in float32.
        load_in_4bit: quantise the linear layers of the language model and the vision tower (needs bitsandbytes).

    Returns:
        The model in evaluation mode, and its processor.

    Raises:
        VividMedError: there is no model or no processor, they cannot be read, or the device cannot be used.
    """
    if not str(name).strip():
        raise VividMedError(
            "the model has no name; give the folder of a model, or a repository as namespace/name"
        )
    target = _usable_device(device)
    check_place(name, "model")
    use_taxonomy_of_model(name)
    adapter = find_adapter(name)
    source = str(name) if adapter is None else adapter_base(adapter)
    options: dict[str, Any] = {"dtype": dtype}
    if load_in_4bit:
        quantisation = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        options |= {"quantization_config": quantisation, "device_map": {"": target}}
    try:
        processor = VividMedProcessor.from_pretrained(str(name))
        model: Any = VividMedForCausalLM.from_pretrained(source, **options)
    except (OSError, ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise VividMedError(
            f"{name}: cannot be loaded ({reason}); give a folder or repository with a VividMed model and its processor"
        ) from error
    if adapter is not None:
        model = load_adapter(model, adapter)
    if not load_in_4bit:
        model = model.to(target)
    return model.eval(), processor


def identify(model: Any) -> str:
    """Digest of the weights and of what the configuration says about grounding, wherever they were loaded from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)][:64].float().cpu().numpy()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + some.tobytes())
    digest.update(repr((model.config.target_forms, model.config.presence_thresholds)).encode())
    return digest.hexdigest()


def _usable_device(name: str | torch.device | None) -> torch.device:
    if name is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.zeros(1, device=name).device
        if device.type == "meta":
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise VividMedError(f"device {name}: cannot be used ({reason}); try cpu") from error
    return device
