"""Folders of models: configurations of model and processor, YAML files of stages, and weights."""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import torch
import yaml

from benchmarks.fuzz.mutation import damage_bytes, damage_text, damage_value, odd_value
from vividmed.models.configuration_vividmed import VividMedConfig
from vividmed.models.modeling_vividmed import VividMedForCausalLM
from vividmed.processing.processing_vividmed import VividMedProcessor
from vividmed.training.stages.command import parse

_STAGE = {
    "learning_rate": 1e-4, "max_steps": 10, "per_device_train_batch_size": 2, "lr_scheduler_type": "cosine",
    "max_length": 256, "dtype": "float32", "train_split": "train", "weight_decay": 0.1, "logging_steps": 5,
}  # fmt: skip


class Configurations:
    """config.json, processor configurations and the YAML files of stages."""

    name = "configurations"
    share = 15

    def try_one(self, rng: Random, folder: Path) -> None:
        """Damage one of the files and read it as the library does."""
        match rng.randrange(3):
            case 0:
                _write(folder / "config.json", _saved() / "config.json", rng)
                (folder / "model.safetensors").symlink_to(_saved() / "model.safetensors")
                VividMedForCausalLM.from_pretrained(folder)
            case 1:
                shutil.copytree(_saved(), folder, dirs_exist_ok=True)
                _write(folder / "processor_config.json", _saved() / "processor_config.json", rng)
                VividMedProcessor.from_pretrained(folder)
            case _:
                text = yaml.safe_dump(damage_value(_STAGE, rng))
                path = folder / "stage.yaml"
                path.write_bytes(
                    (damage_text(text, rng) if rng.random() < 0.3 else text).encode(errors="replace")
                )
                options = ("--output_dir", str(folder / "out"), "--use_cpu", "true")
                parse(["--stage", "vlm", "--config", str(path), *options])


class Checkpoints:
    """Weights with damaged headers, tensors that are missing, and values that are not finite."""

    name = "checkpoints"
    share = 5

    def try_one(self, rng: Random, folder: Path) -> None:
        """Damage the file of weights and load the model."""
        shutil.copytree(_saved(), folder, dirs_exist_ok=True)
        path = folder / "model.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        if rng.random() < 0.6:
            header = json.loads(content[8 : 8 + length])
            name = rng.choice(list(header))
            match rng.randrange(4):
                case 0:
                    del header[name]
                case 1:
                    header[rng.choice(("x", "model.layers.0.x", ""))] = header.pop(name)
                case 2:
                    header[name] = damage_value(header[name], rng)
                case _:
                    header[name] = odd_value(rng)
            encoded = json.dumps(header).encode()
            content = len(encoded).to_bytes(8, "little") + encoded + content[8 + length :]
            if rng.random() < 0.1:
                content = rng.choice((0, 2**40, 2**63, length - 1)).to_bytes(8, "little") + content[8:]
        elif rng.random() < 0.5:
            place = 8 + length + 4 * rng.randrange((len(content) - length - 8) // 4)
            content = content[:place] + rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\xff")) + content[place + 4 :]
        else:
            content = damage_bytes(content, rng, header=length)
        path.write_bytes(content)
        VividMedForCausalLM.from_pretrained(folder)


def _write(path: Path, original: Path, rng: Random) -> None:
    text = json.dumps(damage_value(json.loads(original.read_text()), rng))
    if rng.random() < 0.1:
        text = damage_text(text, rng)
    path.write_bytes(text.encode(errors="surrogatepass"))


@cache
def _saved() -> Path:
    """A tiny model and its processor, saved once for this process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-model-"))
    processor = VividMedProcessor.tiny()
    torch.manual_seed(0)
    VividMedForCausalLM(VividMedConfig.tiny(vocab_size=len(processor.tokenizer))).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
