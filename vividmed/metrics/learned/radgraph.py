"""RadGraph F1 (Jain et al., 2021; Delbrouck et al., 2022): entities and relations that two reports share.

The network is that of the package ``radgraph``; the arithmetic is here, so that an empty prediction scores 0 instead of
ending the evaluation.
"""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vividmed.errors import VividMedError
from vividmed.metrics.learned.weights import file_hash, read_weights, weight_file
from vividmed.metrics.metric import ItemMetric, check_lengths, mean_of

Annotation = Mapping[str, Mapping[str, Any]]
"""Entities of a report by number: ``tokens``, ``label`` and ``relations``, pairs of type and number."""

_REMEDY = (
    "unpack radgraph.tar.gz of the repository StanfordAIMI/RRG_scorers there, and put the encoder that its config.json "
    "names, with its tokenizer, into the folder 'encoder' beside it"
)


class RadGraphAnnotator:
    """Finds entities and relations of reports with the package ``radgraph`` and local weights.

    Args:
        folder: ``config.json``, ``weights.th`` and ``vocabulary/`` of the model, and ``encoder/``.

    Raises:
        VividMedError: a file is missing or damaged, or the package is not installed.
    """

    def __init__(self, folder: str | Path):
        for name in ("config.json", "vocabulary", "encoder"):
            weight_file("radgraph", folder, name, remedy=_REMEDY)
        self.path = weight_file("radgraph", folder, "weights.th", remedy=_REMEDY)
        read_weights(self.path)  # names the file if it is damaged
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                from radgraph import RadGraph
        except ImportError as error:
            raise VividMedError(
                f'radgraph: the package is not installed ({error}); run: pip install "vividmed[clinical]"'
            ) from error
        with tempfile.TemporaryDirectory() as cache:
            try:
                _lay_out(Path(folder).resolve(), Path(cache) / "radgraph")
                # It prints the device.
                with contextlib.redirect_stdout(io.StringIO()), loadable_tokenizers():
                    self._model = RadGraph(model_type="radgraph", model_cache_dir=cache, cuda=-1)
            except Exception as error:  # the library's own, of many kinds
                reason = " ".join(str(error).replace(f"{cache}/radgraph", str(folder)).split())[:200]
                raise VividMedError(f"radgraph={folder}: cannot be loaded ({reason}); {_REMEDY}") from error

    def __call__(self, texts: Sequence[str]) -> list[Annotation]:
        """Entities of each report; none for an empty one."""
        asked = [number for number, text in enumerate(texts) if text.strip()]
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about reports of a single word
            found = self._model([texts[number] for number in asked]) if asked else {}
        entities: list[Annotation] = [{} for _ in texts]
        for place, number in enumerate(asked):
            entities[number] = found[str(place)]["entities"]
        return entities


@contextlib.contextmanager
def loadable_tokenizers() -> Iterator[None]:
    """Give the tokenizers that the package loads the methods that it calls and transformers 5 has removed."""
    from radgraph.allennlp.common import cached_transformers

    load = cached_transformers.get_tokenizer

    def load_with_methods(*args: Any, **kwargs: Any) -> Any:
        tokenizer = load(*args, **kwargs)
        if not hasattr(tokenizer, "encode_plus"):
            tokenizer.encode_plus = tokenizer.__call__
        if not hasattr(tokenizer, "build_inputs_with_special_tokens"):
            tokenizer.build_inputs_with_special_tokens = partial(_with_special_tokens, tokenizer)
        return tokenizer

    cached_transformers.get_tokenizer = load_with_methods
    try:
        yield
    finally:
        cached_transformers.get_tokenizer = load


def _with_special_tokens(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    return [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]


def _lay_out(folder: Path, target: Path) -> None:
    """Link the model's files where the package looks for them, with the encoder's local path in the configuration."""
    target.mkdir()
    for name in ("weights.th", "vocabulary"):
        (target / name).symlink_to(folder / name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    encoder = str(folder / "encoder")
    config["dataset_reader"]["token_indexers"]["bert"]["model_name"] = encoder
    config["model"]["embedder"]["token_embedders"]["bert"]["model_name"] = encoder
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")


def radgraph_scores(prediction: Annotation, reference: Annotation) -> dict[str, float]:
    """F1 of the sets of entities, at three levels, and F1 of entities and relations as RadCliQ takes them.

    ``simple``: entities by tokens and label. ``partial``: also whether an entity has relations; this is the published
    figure. ``complete``: also type and target of each relation.

    ``entities``, ``relations``: sets of entities, and of (entity, entity, type).
    """
    return {
        name: _f1(collect(prediction), collect(reference))
        for name, collect in {
            "simple": _simple,
            "partial": _partial,
            "complete": _complete,
            "entities": _simple,
            "relations": _relations,
        }.items()
    }


def _simple(entities: Annotation) -> set[Hashable]:
    return {(entity["tokens"], entity["label"]) for entity in entities.values()}


def _partial(entities: Annotation) -> set[Hashable]:
    return {(entity["tokens"], entity["label"], bool(entity["relations"])) for entity in entities.values()}


def _complete(entities: Annotation) -> set[Hashable]:
    found: set[Hashable] = set()
    for entity in entities.values():
        if not entity["relations"]:
            found.add((entity["tokens"], entity["label"]))
        for relation, other in entity["relations"]:
            tokens = entity["tokens"].lower()
            found.add((tokens, entity["label"], relation, entities[other]["tokens"].lower()))
    return found


def _relations(entities: Annotation) -> set[Hashable]:
    def named(entity: Mapping[str, Any]) -> Hashable:
        return entity["tokens"], entity["label"]

    return {
        (named(entity), named(entities[other]), relation)
        for entity in entities.values()
        for relation, other in entity["relations"]
    }


def _f1(found: set[Hashable], true: set[Hashable]) -> float:
    return 2 * len(found & true) / (len(found) + len(true)) if found and true else 0.0


class RadGraphF1(ItemMetric):
    """Mean over items of the three levels of :func:`radgraph_scores`; an empty prediction scores 0.

    Args:
        folder: see :class:`RadGraphAnnotator`.
        annotator: finds entities; that of the folder by default.
    """

    description = "F1 of entities and relations by RadGraph"

    def __init__(self, folder: str | Path = "", *, annotator: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.annotator = annotator or RadGraphAnnotator(folder)

    def scorer(self) -> Mapping[str, Any]:
        path = getattr(self.annotator, "path", None)
        return {} if path is None else {"file": path.name, "sha256": file_hash(path)}

    def score_items(self, predictions: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        check_lengths(predictions, references)
        found, true = self.annotator(predictions), self.annotator(references)
        return [
            {f"radgraph_{name}": scores[name] for name in ("simple", "partial", "complete")}
            for scores in map(radgraph_scores, found, true)
        ]

    def aggregate(self, items: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return mean_of(items)
