"""Language model: logits, losses, hidden states and gradients of ragged batches, and generation."""

from collections.abc import Iterator

import torch

from tests.parity.harness import Check, Golden, case, close, equal
from tests.parity.models import published_model
from vividmed.models.generation import extend_position_ids

TEXT_INPUTS = ("input_ids", "token_type_ids", "position_ids", "attention_mask")


def image_inputs(golden: Golden, name: str) -> dict:
    description, tensors = golden.case(name), golden.tensors(name)
    return {
        "pixel_values": golden.images(tensors),
        "patch_sizes": torch.tensor(description["patch_size"]),
        "pool_sizes": torch.tensor(description["pool_size"]),
    }


@case("02_lm")
def language_model(golden: Golden) -> Iterator[Check]:
    model = published_model(golden)
    tensors = golden.tensors("02_lm")
    inputs = {name: tensors[name] for name in TEXT_INPUTS} | image_inputs(golden, "02_lm")
    real = tensors["attention_mask"].bool()

    outputs = model(
        **inputs, labels=tensors["labels"], label_weights=tensors["weight"], output_hidden_states=True
    )
    yield close("loss", outputs.loss, tensors["loss"])
    yield close("logits", outputs.logits[real], tensors["logits"][real])
    for i, hidden_states in enumerate(outputs.hidden_states):
        yield close(f"hidden_states.{i}", hidden_states[real], tensors[f"hidden_states.{i}"][real])

    outputs.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, published in tensors.items():
        if name.startswith("grad."):
            yield close(name, gradients[name.removeprefix("grad.")], published)
    for name, norm in golden.case("02_lm")["grad_norms"].items():
        if name in gradients:
            yield close(f"gradient norm of {name}", gradients[name].norm(), torch.tensor(norm))

    unweighted = model(**inputs, labels=tensors["labels"]).loss
    yield close("loss_without_weight", unweighted, tensors["loss_without_weight"])


@case("02_lm_no_image")
@torch.no_grad()
def text_only(golden: Golden) -> Iterator[Check]:
    model = published_model(golden)
    tensors = golden.tensors("02_lm_no_image")
    inputs = {name: tensors[name] for name in ("input_ids", "attention_mask")}
    real = tensors["attention_mask"].bool()

    outputs = model(
        **inputs, position_ids=tensors["position_ids"], labels=tensors["labels"], output_hidden_states=True
    )
    yield close("loss", outputs.loss, tensors["loss"])
    yield close("logits", outputs.logits[real], tensors["logits"][real])
    yield close("last_hidden", outputs.hidden_states[-1][real], tensors["last_hidden"][real])
    yield close("logits_arange", model(**inputs).logits[real], tensors["logits_arange"][real])

    positions = tensors["position_ids"][:1]
    prefill = model(input_ids=inputs["input_ids"][:1], position_ids=positions, use_cache=True)
    cache = prefill.past_key_values
    yield close("cache_key_layer0", cache.layers[0].keys, tensors["cache_key_layer0"])
    yield close("cache_value_layer0", cache.layers[0].values, tensors["cache_value_layer0"])
    step = model(
        input_ids=torch.tensor([[golden.special_token_ids["bop"]]]),
        position_ids=positions[:, -1:] + 1,
        past_key_values=cache,
    )
    yield close("decode_logits", step.logits, tensors["decode_logits"])


@case("03_generate")
@torch.no_grad()
def generation(golden: Golden) -> Iterator[Check]:
    model = published_model(golden)
    tensors = golden.tensors("03_generate")
    for i, run in enumerate(golden.case("03_generate")["runs"]):
        inputs = {name: tensors[f"{i}.{name}"] for name in TEXT_INPUTS}
        new_ids = tensors[f"{i}.new_ids"]
        output = model.generate(
            **inputs,
            pixel_values=[tensors[f"{i}.image"]],
            patch_sizes=torch.tensor([run["patch_size"]]),
            pool_sizes=torch.tensor([run["pool_size"]]),
            max_new_tokens=len(new_ids),
            do_sample=False,
            output_logits=True,
            output_hidden_states=True,
            return_dict_in_generate=True,
        )
        prompt_length = inputs["input_ids"].shape[1]
        yield equal(f"{i}.new_ids", output.sequences[0, prompt_length:], new_ids)
        yield close(f"{i}.step_logits", torch.cat(output.logits), tensors[f"{i}.step_logits"])
        last_hidden = torch.cat([step[-1][:, -1] for step in output.hidden_states])
        yield close(f"{i}.step_hidden", last_hidden, tensors[f"{i}.step_hidden"])
        positions = extend_position_ids(
            inputs["position_ids"],
            output.sequences[:, :-1],
            model.config.phrase_start_token_id,
            model.config.phrase_end_token_id,
        )
        yield equal(f"{i}.fed_position_ids", positions[0, prompt_length:], tensors[f"{i}.fed_position_ids"])
