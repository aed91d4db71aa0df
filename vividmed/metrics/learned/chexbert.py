"""CheXbert (Smit et al., 2020): a BERT that labels 14 conditions of a chest X-ray report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer

from vividmed.errors import VividMedError
from vividmed.metrics.classification import classification_figures, f1_by_condition, stacked
from vividmed.metrics.learned.weights import (
    file_hash,
    fill,
    from_folder,
    load_tokenizer,
    read_weights,
    weight_file,
)
from vividmed.metrics.metric import ItemMetric, check_lengths

CONDITIONS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
    "No Finding",
)
FIVE = (1, 4, 5, 7, 9)
"""Places of the five conditions of the CheXpert competition."""
_POSITIVE = (1, 3)
"""Classes of a head are blank, positive, negative and uncertain; uncertain counts as positive."""
_LONGEST = 512
_REMEDY = "take chexbert.pth of the repository StanfordAIMI/RRG_scorers, and vocab.txt of bert-base-uncased"


class _Network(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.bert = BertModel(config)
        sizes = [4] * (len(CONDITIONS) - 1) + [2]
        self.linear_heads = nn.ModuleList(nn.Linear(config.hidden_size, size) for size in sizes)

    @classmethod
    def of_folder(cls, folder: str, **options: Any) -> "_Network":
        """A network of the size that ``config.json`` states; that of bert-base-uncased without one."""
        has_config = (Path(folder) / "config.json").exists()
        return cls(BertConfig.from_pretrained(folder, **options) if has_config else BertConfig())


class CheXbertLabeller:
    """Labels reports, and embeds them.

    Args:
        folder: ``chexbert.pth`` and the tokenizer of bert-base-uncased (``vocab.txt`` or ``tokenizer.json``);
            ``config.json`` if the encoder is not of that size.

    Raises:
        VividMedError: a file is missing or damaged.
    """

    def __init__(self, folder: str | Path):
        self.path = weight_file("chexbert", folder, "chexbert.pth", remedy=_REMEDY)
        if not any((Path(folder) / name).exists() for name in ("vocab.txt", "tokenizer.json")):
            weight_file("chexbert", folder, "vocab.txt", remedy=_REMEDY)
        self.model = from_folder("chexbert", folder, _Network.of_folder).eval()
        size = self.model.bert.config.vocab_size
        self.tokenizer = load_tokenizer("chexbert", folder, BertTokenizer.from_pretrained, size=size)
        state = read_weights(self.path).get("model_state_dict")
        if not isinstance(state, Mapping):
            raise VividMedError(f"{self.path}: has no 'model_state_dict'; {_REMEDY}")
        fill(self.model, {str(name).removeprefix("module."): state[name] for name in state}, self.path)

    @torch.no_grad()
    def embed(self, text: str) -> np.ndarray:
        """(hidden size,) last state of the first token."""
        ids = self.tokenizer(" ".join(text.split()))["input_ids"]
        if len(ids) > _LONGEST:
            ids = [*ids[: _LONGEST - 1], self.tokenizer.sep_token_id]
        return self.model.bert(torch.tensor([ids])).last_hidden_state[0, 0].numpy()

    @torch.no_grad()
    def __call__(self, text: str) -> np.ndarray:
        """(14,) bool: conditions that the report states as present or uncertain, in the order of ``CONDITIONS``."""
        state = torch.from_numpy(self.embed(text))
        return np.array([int(head(state).argmax()) in _POSITIVE for head in self.model.linear_heads])


class CheXbert(ItemMetric):
    """Agreement of the conditions that CheXbert finds in prediction and reference.

    ``chexbert_14_*`` are over all conditions, ``chexbert_5_*`` over those of the competition; see
    :func:`vividmed.metrics.classification.classification_figures`. ``chexbert_f1/CONDITION`` is the F1 of one.

    Args:
        folder: see :class:`CheXbertLabeller`.
    """

    description = "agreement of 14 conditions by CheXbert"

    def __init__(self, folder: str | Path, **kwargs: Any):
        super().__init__(**kwargs)
        self.labeller = CheXbertLabeller(folder)

    def scorer(self) -> Mapping[str, Any]:
        return {
            "file": self.labeller.path.name,
            "sha256": file_hash(self.labeller.path),
            "uncertain counts as": "positive",
        }

    def score_items(
        self, predictions: Sequence[str], references: Sequence[str]
    ) -> list[Mapping[str, np.ndarray]]:
        check_lengths(predictions, references)
        return [
            {"found": self.labeller(prediction), "true": self.labeller(reference)}
            for prediction, reference in zip(predictions, references, strict=True)
        ]

    def aggregate(self, items: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        found, true = stacked(items)
        chosen = {"14": list(range(len(CONDITIONS))), "5": list(FIVE)}
        figures = {
            f"chexbert_{number}_{name}": value
            for number, places in chosen.items()
            for name, value in classification_figures(found[:, places], true[:, places]).items()
        }
        by_condition = f1_by_condition(found, true, CONDITIONS)
        return figures | {f"chexbert_f1/{name}": value for name, value in by_condition.items()}
