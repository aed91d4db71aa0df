"""A report on its way to a grounded report: one record per row of the data set that it comes from."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from vividmed.data.masks import PackedMask

Verdict = Literal["agreed", "review", "accepted", "rejected"]
"""``agreed``: all checks passed; ``review``: a person must decide; ``accepted`` and ``rejected``: a person did."""

USABLE: tuple[Verdict, ...] = ("agreed", "accepted")


@dataclass(frozen=True)
class TaggedPhrase:
    """A phrase of the report and the target that it names.

    Attributes:
        text: the phrase.
        start: first character in the study's text.
        end: one past the last character.
        target: canonical name in the taxonomy.
        side: side of the body that the words around the phrase name and the target does not: ``left``, ``right`` or ``""``.
        status: ``present``, ``absent``, ``uncertain`` or ``not assessable``.
        tagger: ``rules`` or the name of a language model.
        verdict: whether the target counts.
        reasons: why not, if it does not.
    """

    text: str
    start: int
    end: int
    target: str
    side: str = ""
    status: str = "present"
    tagger: str = "rules"
    verdict: Verdict = "agreed"
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a target is in one image of the study.

    Attributes:
        image: number of the image in the row, 2D images before volumes, from 0.
        target: canonical name in the taxonomy.
        side: as of the phrases that it belongs to.
        label_type: ``mask`` or ``box``.
        box: voxel corners (z0, y0, x0, z1, y1, x1), half-open, on the grid of the row's image.
        bits: voxels inside the box as :func:`vividmed.data.masks.pack_mask` stores them; empty for a box.
        score: confidence of the localizer; None if it gives none.
        localizer: name of the localizer.
        verdict: whether the place counts.
        reasons: what does not agree.
    """

    image: int
    target: str
    side: str
    label_type: Literal["mask", "box"]
    box: tuple[int, ...]
    bits: bytes = b""
    score: float | None = None
    localizer: str = ""
    verdict: Verdict = "agreed"
    reasons: tuple[str, ...] = ()

    @property
    def packed(self) -> PackedMask:
        """The mask as rows store it."""
        return PackedMask(target=self.target, box=list(self.box), bits=self.bits)


@dataclass(frozen=True)
class Reject:
    """Something that a step did not let through.

    Attributes:
        step: the step.
        reason: why, in a few words; rejects are counted by it.
        detail: what exactly.
    """

    step: str
    reason: str
    detail: str = ""

    @classmethod
    def of(cls, step: str, problem: str, detail: str = "") -> "Reject":
        """A reject of ``reason: detail``, so that reasons can be counted."""
        reason, _, more = problem.partition(": ")
        return cls(step, reason, ": ".join(filter(None, (more, detail))))


@dataclass(frozen=True, kw_only=True)
class Study:
    """A report, its phrases, and where they are in its images.

    Attributes:
        id: of the row that it comes from.
        patient: pseudonym.
        split: split of the row.
        modality: modalities of the images.
        plane: plane or view of the images, if all have the same; else empty.
        source: data set that the row names.
        licence: licence that the row names.
        dataset: folder or repository of the row.
        row: index of the row in its split.
        report: text as it was given, without markers.
        text: text as the steps have left it.
        phrases: in the order of the text, not overlapping.
        places: places of the targets.
        rejects: what the steps did not let through.
        key: digest of everything that decided on this record; empty before the first step.
    """

    id: str
    patient: str
    split: str
    modality: str
    plane: str
    source: str
    licence: str
    dataset: str
    row: int
    report: str
    text: str
    phrases: tuple[TaggedPhrase, ...] = ()
    places: tuple[Place, ...] = ()
    rejects: tuple[Reject, ...] = ()
    key: str = ""

    def rejecting(self, *rejects: Reject, **changes: Any) -> "Study":
        """A copy with further rejects and other changes."""
        return replace(self, rejects=(*self.rejects, *rejects), **changes)

    def digest(self) -> str:
        """Digest of the content; it does not depend on where the data set lies."""
        content = asdict(replace(self, key="", dataset="", row=0))
        for place in content["places"]:
            place["bits"] = hashlib.sha256(place["bits"]).hexdigest()
        return digest(content)


def digest(content: Any) -> str:
    """SHA-256 of anything that JSON can express."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


_TEXT, _INT = pa.string(), pa.int32()
_REASONS = pa.list_(_TEXT)
SCHEMA = pa.schema(
    {
        "id": _TEXT,
        "patient": _TEXT,
        "split": _TEXT,
        "modality": _TEXT,
        "plane": _TEXT,
        "source": _TEXT,
        "licence": _TEXT,
        "dataset": _TEXT,
        "row": pa.int64(),
        "report": _TEXT,
        "text": _TEXT,
        "phrases": pa.list_(
            pa.struct(
                {
                    "text": _TEXT,
                    "start": _INT,
                    "end": _INT,
                    "target": _TEXT,
                    "side": _TEXT,
                    "status": _TEXT,
                    "tagger": _TEXT,
                    "verdict": _TEXT,
                    "reasons": _REASONS,
                }
            )
        ),
        "places": pa.list_(
            pa.struct(
                {
                    "image": _INT,
                    "target": _TEXT,
                    "side": _TEXT,
                    "label_type": _TEXT,
                    "box": pa.list_(_INT),
                    "bits": pa.binary(),
                    "score": pa.float64(),
                    "localizer": _TEXT,
                    "verdict": _TEXT,
                    "reasons": _REASONS,
                }
            )
        ),
        "rejects": pa.list_(pa.struct({"step": _TEXT, "reason": _TEXT, "detail": _TEXT})),
        "key": _TEXT,
    }
)
"""Columns of the Parquet files between the steps."""


def to_table(studies: Iterable[Study]) -> pa.Table:
    """Studies as a table."""
    return pa.Table.from_pylist([asdict(study) for study in studies], schema=SCHEMA)


def from_row(row: dict[str, Any]) -> Study:
    """A study of a row of the table."""
    phrases = tuple(
        TaggedPhrase(**{**each, "reasons": tuple(each["reasons"])}) for each in row.pop("phrases")
    )
    places = tuple(
        Place(**{**each, "box": tuple(each["box"]), "reasons": tuple(each["reasons"])})
        for each in row.pop("places")
    )
    rejects = tuple(Reject(**each) for each in row.pop("rejects"))
    return Study(**row, phrases=phrases, places=places, rejects=rejects)
