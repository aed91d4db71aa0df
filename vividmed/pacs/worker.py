"""Studies of an archive, predicted and answered with DICOM SEG and SR.

What was done is known from the archive itself. The identifiers of the objects depend on the series, the model and the
question, so before any work the worker asks whether the report of a series is there, with all that it refers to. The
objects of a study are stored by one request, after all of them were made: a worker that is killed leaves a study
either without results or with all of them, and does each study once when it runs again.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydicom.dataset import Dataset

from vividmed.errors import VividMedError
from vividmed.export.dicom_objects import object_uid
from vividmed.export.dicom_sr import build_dicom_sr
from vividmed.inference.predictor import Result
from vividmed.pacs.client import Pacs, Series, TokenError, pseudonym
from vividmed.processing.dicom.files import OTHER_MODALITIES
from vividmed.processing.reading import ImageSource
from vividmed.scratch import ScratchFolder

logger = logging.getLogger(__name__)

_SR_CLASSES = ("Enhanced", "Comprehensive")


class StudyPredictor(Protocol):
    """What answers: a :class:`vividmed.inference.predictor.Predictor`, or one behind a queue."""

    @property
    def identity(self) -> str:
        """What tells the model from others."""

    def predict_batch(self, scans: Sequence[ImageSource], **options: Any) -> Sequence[Result | VividMedError]:
        """For each scan its result, or the error for which it has none."""


@dataclass(frozen=True)
class Question:
    """What is asked about every series.

    Attributes:
        options: of :meth:`vividmed.inference.predictor.Predictor.predict_batch`.
        model: name of the model, for the objects.
    """

    options: dict[str, Any] = field(default_factory=dict)
    model: str = ""

    def identity(self, predictor: StudyPredictor) -> str:
        """What the identifiers of results depend on, apart from the series."""
        asked = sorted((name, str(value)) for name, value in self.options.items() if value)
        return f"{predictor.identity} {asked}"


@dataclass
class Outcome:
    """What became of a study.

    Attributes:
        study: StudyInstanceUID.
        state: ``"done"``, ``"done before"`` or ``"failed"``.
        stored: number of objects that were stored now.
        skipped: reasons why series were left out.
        error: reason of a failure.
    """

    study: str
    state: str = "done"
    stored: int = 0
    skipped: list[str] = field(default_factory=list)
    error: str = ""


Keep = Callable[[Series, Result], None]


def process_studies(
    predictor: StudyPredictor,
    studies: Iterable[str],
    *,
    source: Pacs,
    destination: Pacs | None,
    question: Question | None = None,
    series: Sequence[str] = (),
    keep: Keep | None = None,
) -> Iterator[Outcome]:
    """Predict the image series of studies and store the results.

    Args:
        predictor: the model.
        studies: StudyInstanceUIDs.
        source: archive of the images.
        destination: archive of the results, often the same; None stores nothing.
        question: what is asked; a report by default.
        series: SeriesInstanceUIDs to use; by default every series of images.
        keep: called with each result while the files of its series are there.

    Yields:
        For each study what became of it; a failure does not stop the others.

    Raises:
        TokenError: an archive does not accept the token, which no other study would change.
    """
    question = question or Question()
    for study in studies:
        try:
            yield _process(predictor, study, source, destination, question, series, keep)
        except TokenError:
            raise
        except VividMedError as error:
            logger.warning("study %s: %s", pseudonym(study), error)
            yield Outcome(study, "failed", error=str(error))


def watch(
    predictor: StudyPredictor,
    *,
    source: Pacs,
    destination: Pacs,
    stop: threading.Event,
    question: Question | None = None,
    filters: dict[str, str] | None = None,
    interval: float = 30.0,
    report: Callable[[Outcome], None] | None = None,
) -> None:
    """Answer studies as they arrive, until told to stop.

    A study is left alone until two looks at it have found the same images, since it may still be arriving.

    Args:
        predictor: the model.
        source: archive of the images.
        destination: archive of the results.
        stop: ends the loop, between two studies.
        question: what is asked; a report by default.
        filters: attributes of the studies, as in :meth:`vividmed.pacs.client.Pacs.find_studies`.
        interval: seconds between two looks.
        report: called with what became of each study.
    """
    seen: dict[str, tuple[Series, ...]] = {}
    finished: dict[str, tuple[Series, ...]] = {}
    while not stop.is_set():
        try:
            for study in source.find_studies(filters):
                if stop.is_set():
                    return
                now = tuple(image_series(source.find_series(study)))
                arrived = now and seen.get(study) == now
                seen[study] = now
                if not arrived or finished.get(study) == now:
                    continue
                for outcome in process_studies(
                    predictor, [study], source=source, destination=destination, question=question
                ):
                    if outcome.state != "failed":
                        finished[study] = now
                    if report is not None:
                        report(outcome)
        except VividMedError as error:
            logger.warning("%s", error)
        stop.wait(interval)


def image_series(series: Sequence[Series]) -> list[Series]:
    """Series of images; results, plans and reports are left out."""
    return [one for one in series if one.modality not in OTHER_MODALITIES and one.instances]


def _process(
    predictor: StudyPredictor,
    study: str,
    source: Pacs,
    destination: Pacs | None,
    question: Question,
    chosen: Sequence[str],
    keep: Keep | None,
) -> Outcome:
    found = image_series(source.find_series(study))
    if missing := set(chosen) - {one.uid for one in found}:
        raise VividMedError(
            f"study {pseudonym(study)} has no such series of images ({len(missing)} not found)"
        )
    found = [one for one in found if not chosen or one.uid in chosen]
    if not found:
        raise VividMedError(f"study {pseudonym(study)}: no images found in {source.name}; check the UID")
    identity = question.identity(predictor)
    left = found
    if destination is not None:
        left = [one for one in found if not _is_done(destination, one, identity)]
        if not left:
            return Outcome(study, "done before")
    outcome = Outcome(study)
    datasets: list[Dataset] = []
    answered = 0
    for one in left:
        with ScratchFolder("pacs") as scratch:
            folder = scratch.path / "series"
            source.fetch_series(one, folder)
            (result,) = predictor.predict_batch([folder], **question.options)
            try:
                if isinstance(result, VividMedError):
                    raise result
                if destination is not None:
                    datasets += _objects(result, one, identity, question.model)
                if keep is not None:
                    keep(one, result)
                answered += 1
            except VividMedError as error:
                reason = str(error).replace(str(folder), f"series {pseudonym(one.uid)}")
                outcome.skipped.append(reason)
                logger.warning("study %s: %s", pseudonym(study), reason)
    if not answered:
        if len(left) == len(found):
            raise VividMedError(outcome.skipped[0])
        outcome.state = "done before"
        return outcome
    if destination is not None:
        destination.store(datasets)
        uids = {str(dataset.SOPInstanceUID) for dataset in datasets}
        if missing := uids - set(destination.find_instances(study)):
            raise VividMedError(
                f"{destination.name}: took {len(uids)} objects but lists {len(uids) - len(missing)} of them; run again"
            )
        outcome.stored = len(uids)
    return outcome


def _objects(result: Result, series: Series, identity: str, model: str) -> list[Dataset]:
    """The objects of a result, those first that others refer to."""
    report, segmentation = build_dicom_sr(
        result.image, result.grounded, model=model, identity=_identity(identity, series)
    )
    return [*([] if segmentation is None else [segmentation]), report]


def _identity(identity: str, series: Series) -> str:
    """With the instances, so that a series that has grown is answered anew."""
    return f"{identity} {' '.join(series.instances)}"


def _is_done(destination: Pacs, series: Series, identity: str) -> bool:
    """Whether the report of a series is there, with all objects that it refers to."""
    uid = object_uid("SR", series.uid, identity=_identity(identity, series))
    report_series = object_uid("SR series", series.uid, identity=_identity(identity, series))
    if uid not in destination.find_instances(series.study, report_series):
        return False
    report = destination.fetch_instance(series.study, report_series, uid)
    ours = object_uid("SEG", series.uid, identity=_identity(identity, series))
    referenced = {
        str(item.ReferencedSOPInstanceUID)
        for evidence in report.get("CurrentRequestedProcedureEvidenceSequence", ())
        for each in evidence.ReferencedSeriesSequence
        for item in each.ReferencedSOPSequence
    }
    return ours not in referenced or ours in destination.find_instances(series.study)
