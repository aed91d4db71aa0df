"""VividMed's decoder compared with ``LlamaForCausalLM`` of the same widths, in one run.

    python -m benchmarks.decoder [--rounds 7] [--decode-tokens 64]

Training is a forward and a backward pass of a batch of 4 x 512 tokens. Half of them are image tokens, whose features are
given, so that both sides run only a decoder, and a quarter is supervised. Llama computes the logits of every position,
because its loss needs them. Decoding writes one token at a time with a dynamic cache after a prompt of 512 tokens.

The two sides take turns. Times are CPU seconds, because other programs may share the machine; on an idle machine they are
wall-clock seconds times the number of threads. The program prints medians, and the median ratio of VividMed to Llama.
"""

import argparse
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPooling

from benchmarks.timing import Times, alternate, median, ratio
from vividmed import VividMedConfig, VividMedForCausalLM

TRAINING_TARGET, DECODING_TARGET = 0.75, 0.95
BATCH, LENGTH, IMAGE_TOKENS, SUPERVISED = 4, 512, 256, 128
WIDTHS = {
    "vocab_size": 32008,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
}


def build_models() -> tuple[VividMedForCausalLM, LlamaForCausalLM]:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
    }
    ours = VividMedForCausalLM(VividMedConfig(text_config=WIDTHS, vision_config=vision))
    return ours, LlamaForCausalLM(LlamaConfig(**WIDTHS))


def training_steps(ours: VividMedForCausalLM, llama: LlamaForCausalLM) -> tuple[Callable, Callable]:
    """One forward and backward of each side on the same tokens."""
    input_ids = torch.randint(3, WIDTHS["vocab_size"], (BATCH, LENGTH))
    token_type_ids = torch.zeros_like(input_ids)
    token_type_ids[:, 1 : 1 + IMAGE_TOKENS] = 1
    labels = torch.full_like(input_ids, -100)
    labels[:, -SUPERVISED:] = input_ids[:, -SUPERVISED:]
    # Ours takes labels that are already shifted; Llama shifts them itself.
    shifted = labels.roll(-1, dims=1)
    shifted[:, -1] = -100
    features = [torch.randn(IMAGE_TOKENS, WIDTHS["hidden_size"]) for _ in range(BATCH)]
    images = {"image": BaseModelOutputWithPooling(pooler_output=features)}

    def our_step() -> None:
        ours.zero_grad()
        ours(
            input_ids=input_ids, token_type_ids=token_type_ids, labels=shifted, mm_encoder_outputs=images
        ).loss.backward()

    def llama_step() -> None:
        llama.zero_grad()
        llama(input_ids=input_ids, labels=labels).loss.backward()

    ours.train(), llama.train()
    return our_step, llama_step


def decoding_runs(
    ours: VividMedForCausalLM, llama: LlamaForCausalLM, tokens: int
) -> tuple[Callable, Callable, Callable, Callable]:
    """Preparation (prefill) and timed loop of each side."""
    prompt = torch.randint(3, WIDTHS["vocab_size"], (1, LENGTH))
    ours.eval(), llama.eval()
    caches: dict[str, object] = {}

    def prefill(name: str, model: torch.nn.Module) -> None:
        with torch.no_grad():
            caches[name] = model(input_ids=prompt, use_cache=True, logits_to_keep=1).past_key_values

    def decode(name: str, model: torch.nn.Module) -> None:
        token = prompt[:, -1:]
        with torch.no_grad():
            for step in range(tokens):
                positions = torch.tensor([[LENGTH + step]])
                output = model(
                    input_ids=token, position_ids=positions, past_key_values=caches[name], use_cache=True
                )
                token = output.logits[:, -1].argmax(-1, keepdim=True)

    return (
        lambda: prefill("ours", ours),
        lambda: decode("ours", ours),
        lambda: prefill("llama", llama),
        lambda: decode("llama", llama),
    )


def report(name: str, times: Times, target: float) -> None:
    """Print the medians and the ratio of both sides."""
    print(
        f"{name:<22}VividMed {median(times, 'ours'):7.3f} s   Llama {median(times, 'llama'):7.3f} s   "
        f"ratio {ratio(times, 'ours', 'llama'):.3f} (target <= {target:.2f})"
    )


def main() -> None:
    """Measure training and decoding, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="number of timed rounds after one warm-up")
    parser.add_argument("--decode-tokens", type=int, default=64, help="number of tokens to decode per round")
    arguments = parser.parse_args()
    models = build_models()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32, CPU seconds, "
        f"medians of {arguments.rounds} rounds"
    )
    our_step, llama_step = training_steps(*models)
    times = alternate({"ours": our_step, "llama": llama_step}, arguments.rounds)
    report("forward + backward", times, target=TRAINING_TARGET)

    our_prefill, our_decode, llama_prefill, llama_decode = decoding_runs(*models, arguments.decode_tokens)
    times = alternate(
        {"ours": our_decode, "llama": llama_decode},
        arguments.rounds,
        before={"ours": our_prefill, "llama": llama_prefill},
    )
    report(f"decode {arguments.decode_tokens} tokens", times, target=DECODING_TARGET)


if __name__ == "__main__":
    main()
