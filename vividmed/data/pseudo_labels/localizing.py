"""Step ``localize``: masks and boxes of the tagged targets, each checked against the report and against anatomy."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from datasets import DatasetDict

from vividmed.data.bad_rows import prepare_row
from vividmed.data.loading import load_prepared
from vividmed.data.masks import Box
from vividmed.data.pseudo_labels.agreement import (
    LEAST_ON_SIDE,
    Midline,
    adult_sizes,
    has_sides,
    helpers_of,
    midline,
    organ_problem,
    restrict_to_side,
    share_on_side,
    size_problem,
    view_problem,
)
from vividmed.data.pseudo_labels.localizers import Found, Localizer, Request, parts_of
from vividmed.data.pseudo_labels.sources import select_rows
from vividmed.data.pseudo_labels.steps import Step
from vividmed.data.pseudo_labels.study import Place, Reject, Study, digest
from vividmed.data.raw.mask_patch import MaskPatch
from vividmed.data.taxonomy import Taxonomy
from vividmed.errors import VividMedError
from vividmed.processing.medical_image import MedicalImage
from vividmed.processing.reading import read_encoded, read_image

Row = Mapping[str, Any]

NOT_USABLE = "the localizer could not be used"
"""Reason of a reject."""

_SEVERAL = frozenset(
    {
        "bone",
        "muscle",
        "blood vessel",
        "artery",
        "vein",
        "intervertebral disc",
        "costal cartilage",
        "fat",
        "intestine",
    }
)
"""Structures that exist more than once, besides pairs."""

_NO_IMAGE = MedicalImage(np.zeros((1, 1, 1, 1), dtype=np.uint8), np.eye(4))


class Localizing(Step):
    """Finds the targets of each study in its images.

    Args:
        localizer: finds targets.
        sizes: smallest and largest plausible volume in ml by target; those of adults by default.
        allow_outside_images: let rows name image files outside the data set's folder.
    """

    name = "localize"
    version = 2

    def __init__(
        self,
        localizer: Localizer,
        *,
        sizes: Mapping[str, tuple[float, float]] | None = None,
        allow_outside_images: bool = False,
    ) -> None:
        self.localizer = localizer
        self.sizes = adult_sizes() if sizes is None else dict(sizes)
        self.allow_outside_images = allow_outside_images
        self.taxonomy = Taxonomy.load()
        self._splits: dict[str, DatasetDict] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_splits": {}}

    @property
    def settings(self) -> dict[str, Any]:
        return {"localizer": self.localizer.settings, "sizes": digest(sorted(self.sizes.items()))[:12]}

    def fingerprints(self, studies: Sequence[Study]) -> list[str]:
        """Digests of the images, and of the files that the localizer would read."""
        found = []
        for study in studies:
            (row,) = self.rows([study])
            content = hashlib.sha256()
            images = encoded_images(row)
            for number, image in enumerate(images):
                content.update(image.get("bytes") or str(image.get("path")).encode())
                # Only the names matter here, so no image is decoded.
                request = Request(study.id, number, len(images), _NO_IMAGE, (), study.split)
                content.update(self.localizer.fingerprint(request).encode())
            found.append(content.hexdigest())
        return found

    def rows(self, studies: Sequence[Study]) -> list[dict[str, Any]]:
        """Rows of studies, images encoded."""
        rows = []
        for study in studies:
            if study.dataset not in self._splits:
                loaded = load_prepared(
                    study.dataset,
                    what=f"{study.dataset}:",
                    allow_outside_images=self.allow_outside_images,
                )
                self._splits[study.dataset] = loaded
            rows += select_rows(self._splits[study.dataset], [study])
        return rows

    def run(self, studies: Sequence[Study]) -> list[Study]:
        return [self._locate(study, row) for study, row in zip(studies, self.rows(studies), strict=True)]

    def figures(self, studies: Iterable[Study]) -> dict[str, int]:
        counts = Counter[str]()
        for study in studies:
            queries = _queries(study)
            located = {(place.target, place.side) for place in study.places}
            counts["targets named"] += len(queries)
            counts["targets found"] += len(located & set(queries))
            for place in study.places:
                counts["masks" if place.label_type == "mask" else "boxes"] += 1
                counts["places agreed"] += place.verdict == "agreed"
                counts["places for review"] += place.verdict == "review"
        return dict(counts)

    def _locate(self, study: Study, row: Row) -> Study:
        queries = _queries(study)
        if not queries:
            return study
        targets = tuple(dict.fromkeys(target for target, _ in queries))
        places: list[Place] = []
        images: list[MedicalImage] = []
        rejects: list[Reject] = []
        encoded = encoded_images(row)
        for number, content in enumerate(encoded):
            image = prepare_row(row, partial(_decode, content, number))
            images.append(image)
            request = Request(
                study.id,
                number,
                len(encoded),
                image,
                (*targets, *helpers_of(targets)),
                study.split,
            )
            try:
                found = list(self.localizer.locate(request))
            except VividMedError as error:
                rejects.append(Reject(self.name, NOT_USABLE, str(error)))
                continue
            places += self._places(study, number, image, len(encoded), found, queries)
        missing = [query for query in queries if query not in {(p.target, p.side) for p in places}]
        rejects += [Reject(self.name, "not found", _title(*query)) for query in missing]
        places = _compare_views(places, images, study.plane)
        rejects += [
            Reject(self.name, reason.partition(": ")[0], f"{_title(place.target, place.side)}: {reason}")
            for place in places
            for reason in place.reasons
        ]
        return study.rejecting(*rejects, places=tuple(places))

    def _places(
        self,
        study: Study,
        number: int,
        image: MedicalImage,
        images: int,
        found: Sequence[Found],
        queries: Sequence[tuple[str, str]],
    ) -> list[Place]:
        by_target = {each.target: each.patch for each in found if each.patch is not None}
        # Which of several 2D images is the frontal one is not recorded.
        sides = has_sides(image, study.plane) and (image.oriented or bool(study.plane) or images == 1)
        checks = _Checks(image, midline(image, by_target), by_target, sides)
        places = []
        for target, side in queries:
            named = [each for each in found if each.target == target]
            if side and sides:
                restricted = [restrict_to_side(image, each, side, checks.middle) for each in named]
                there = [each for each in restricted if each is not None]
            else:
                there = named
            elsewhere = f"other side: nothing on the {side}" if not there else ""
            best = self._best_box(target, there or named)
            for each in there or named:
                further = (
                    "" if best is None or each is best else "further box of a structure that exists once"
                )
                places.append(self._place(number, each, side, checks, elsewhere or further))
        return places

    def _best_box(self, target: str, found: Sequence[Found]) -> Found | None:
        """The box with the highest score of a structure that exists once; None if several boxes may be right."""
        several = self.taxonomy[target].category == "anomaly" or target in _SEVERAL or parts_of(target)
        if several or len(found) < 2 or any(each.box is None for each in found):
            return None
        return max(found, key=lambda each: each.score or 0.0)

    def _place(self, number: int, found: Found, side: str, checks: "_Checks", elsewhere: str) -> Place:
        named = side
        if not side and self.taxonomy[found.target].laterality == "place":
            named = next((word for word in ("left", "right") if word in found.target.split()), "")
        reasons = [elsewhere]
        if named and checks.has_sides and not elsewhere:
            share = share_on_side(checks.image, found, named, checks.middle)
            if share < (LEAST_ON_SIDE if checks.middle.certain else 0.5):
                reasons.append(f"other side: {share:.0%} on the {named}")
        reasons += [
            size_problem(checks.image, found, self.sizes),
            organ_problem(checks.image, found, checks.found),
        ]
        reasons = list(filter(None, reasons))
        packed = found.patch.packed() if found.patch is not None else None
        box = packed["box"] if packed else list(found.box or ())
        return Place(
            image=number,
            target=found.target,
            side=side,
            label_type="mask" if packed else "box",
            box=tuple(box),
            bits=packed["bits"] if packed else b"",
            score=found.score,
            localizer=self.localizer.name,
            verdict="review" if reasons else "agreed",
            reasons=tuple(reasons),
        )


@dataclass(frozen=True, eq=False)
class _Checks:
    """What the checks of one image share."""

    image: MedicalImage
    middle: Midline
    found: Mapping[str, MaskPatch]
    has_sides: bool


def _queries(study: Study) -> list[tuple[str, str]]:
    """Targets and sides that the phrases of a study name, in the order of the text."""
    named = (phrase for phrase in study.phrases if phrase.status == "present")
    return list(dict.fromkeys((phrase.target, phrase.side) for phrase in named))


def encoded_images(row: Row) -> list[dict[str, Any]]:
    """Images of a row as they are stored, 2D images before volumes."""
    return [*row["images"], *row["volumes"]]


def _decode(content: Mapping[str, Any], number: int, row: Row) -> MedicalImage:
    name = f"image {number}"
    if content.get("bytes") is not None:
        return read_encoded(content["bytes"], name)
    return read_image(content.get("path") or "")


def _compare_views(places: Sequence[Place], images: Sequence[MedicalImage], plane: str) -> list[Place]:
    """Send places to review whose target lies elsewhere in another image of the study."""
    reasons: dict[int, list[str]] = {}
    numbered = list(enumerate(places))
    for (i, one), (j, other) in combinations(numbered, 2):
        if one.image == other.image or (one.target, one.side) != (other.target, other.side):
            continue
        if one.label_type == "box" and any(
            _agree(a, b, images, plane) for a, b in _pairs(places, one, other)
        ):
            continue  # any pair of boxes of the target agrees
        if problem := _view_problem(one, other, images, plane):
            reasons.setdefault(i, []).append(problem)
            reasons.setdefault(j, []).append(problem)
    return [
        replace(place, verdict="review", reasons=(*place.reasons, *dict.fromkeys(reasons[n])))
        if n in reasons
        else place
        for n, place in numbered
    ]


def _pairs(places: Sequence[Place], one: Place, other: Place) -> Iterable[tuple[Place, Place]]:
    same = [place for place in places if (place.target, place.side) == (one.target, one.side)]
    first = [place for place in same if place.image == one.image]
    second = [place for place in same if place.image == other.image]
    return ((a, b) for a in first for b in second)


def _agree(one: Place, other: Place, images: Sequence[MedicalImage], plane: str) -> bool:
    return not _view_problem(one, other, images, plane)


def _view_problem(one: Place, other: Place, images: Sequence[MedicalImage], plane: str) -> str:
    return view_problem(
        (images[one.image], _as_box(one), plane), (images[other.image], _as_box(other), plane)
    )


def _as_box(place: Place) -> Box:
    z0, y0, x0, z1, y1, x1 = place.box
    return z0, y0, x0, z1, y1, x1


def _title(target: str, side: str) -> str:
    return f"{side} {target}".strip()
