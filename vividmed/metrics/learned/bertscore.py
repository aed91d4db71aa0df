"""BERTScore (Zhang et al., 2020) with a local encoder, by the package ``bert-score``."""

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from vividmed.errors import VividMedError
from vividmed.metrics.learned.weights import file_hash, from_folder
from vividmed.metrics.metric import ItemMetric, check_lengths, mean_of

PUBLISHED_MODEL = "distilroberta-base"
_PUBLISHED_LAYERS = (6, 5)
"""Layers of the published encoder, and the one that is compared."""


class BertScorer:
    """F1 of greedily matched token vectors.

    Args:
        place: folder of an encoder with its tokenizer, or ``FOLDER@LAYER``. Without a layer, that of the package's table
            is taken, by the name of the folder; of an encoder with six layers, the fifth, as published.

    Raises:
        VividMedError: the encoder cannot be loaded, or its layer is not known.
    """

    def __init__(self, place: str | Path):
        folder, at, layer = (str(place), "", "") if Path(place).is_dir() else str(place).rpartition("@")
        folder = folder or str(place)
        config = from_folder("bertscore", folder, AutoConfig.from_pretrained)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                from bert_score import BERTScorer
                from bert_score.utils import model2layers
            except ImportError as error:
                raise VividMedError(
                    f'bertscore: the package bert-score is not installed ({error}); run: pip install "vividmed[clinical]"'
                ) from error
            count = int(getattr(config, "num_hidden_layers", 0))
            known = model2layers.get(Path(folder).name)
            if known is None and count == _PUBLISHED_LAYERS[0]:
                known = _PUBLISHED_LAYERS[1]
            if at and not (layer.isdigit() and 0 < int(layer) <= count):
                raise VividMedError(f"bertscore={place}: the layer must be a number from 1 to {count}")
            if not at and known is None:
                raise VividMedError(
                    f"bertscore={place}: the layer to compare is not known for this encoder; give FOLDER@LAYER, 1 to {count}"
                )
            self.layer = int(layer) if at else int(known)
            try:
                self._scorer = BERTScorer(model_type=folder, num_layers=self.layer, device="cpu")
                self._scorer._tokenizer("report")  # one without a token for unknown words fails only here
            except Exception as error:  # the readers' own, of many kinds
                reason = " ".join(str(error).split())[:200]
                raise VividMedError(
                    f"bertscore={place}: cannot be loaded ({reason}); download the encoder with its tokenizer again"
                ) from error
        tokenizer, positions = self._scorer._tokenizer, int(getattr(config, "max_position_embeddings", 512))
        # A tokenizer without a limit of its own gets that of the encoder; RoBERTa's has two positions for padding.
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions - 2)
        self.folder = Path(folder)

    def __call__(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """F1 of each pair, not rescaled; 0 where one text is empty."""
        scores = [0.0] * len(predictions)
        full = [
            number
            for number, pair in enumerate(zip(predictions, references, strict=True))
            if all(text.strip() for text in pair)
        ]
        if full:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _, _, f1 = self._scorer.score(
                    [predictions[number] for number in full], [references[number] for number in full]
                )
            for number, value in zip(full, f1.tolist(), strict=True):
                scores[number] = value
        return scores

    def baseline(self) -> float:
        """F1 of unrelated English sentences with the published encoder, by the package's table."""
        import bert_score

        table = Path(bert_score.__file__).parent / "rescale_baseline" / "en" / f"{PUBLISHED_MODEL}.tsv"
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return float(rows[self.layer]["F"])

    def identity(self) -> dict[str, Any]:
        """Encoder, layer and hash of its weights."""
        weights = sorted([*self.folder.glob("*.safetensors"), *self.folder.glob("pytorch_model*.bin")])
        return {
            "encoder": self.folder.name,
            "layer": self.layer,
            **({"sha256": file_hash(weights[0])} if weights else {}),
        }


class BertScore(ItemMetric):
    """F1 of BERTScore of lower-cased texts, without idf and without rescaling, as published; the mean over items.

    Args:
        place: see :class:`BertScorer`.
    """

    description = "BERTScore F1, not rescaled"

    def __init__(self, place: str | Path, **kwargs: Any):
        super().__init__(**kwargs)
        self.bert_scorer = BertScorer(place)

    def scorer(self) -> Mapping[str, Any]:
        return self.bert_scorer.identity()

    def score_items(self, predictions: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        check_lengths(predictions, references)
        lower = ([text.lower() for text in texts] for texts in (predictions, references))
        return [{"bertscore": value} for value in self.bert_scorer(*lower)]

    def aggregate(self, items: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return mean_of(items)
