"""Runs a step over studies: in shards, resumable, cached by content, with the same files after any interruption.

Every finished study is appended to a log at once, under a key: the digest of its content and of everything else that
decides on the result (step, version, settings, model, prompts). When all studies of a shard are done, the shard is
written as Parquet and its log is removed. A run that was killed at any point therefore resumes with the first study
that is neither in a shard nor in a log, and a run whose input or settings have changed repeats only what they affect.
"""

import base64
import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vividmed.data.pseudo_labels.sources import STEP_FILE, STUDIES, Source, read_note, read_studies
from vividmed.data.pseudo_labels.study import Reject, Study, digest, from_row, to_table
from vividmed.data.terms import write_terms
from vividmed.errors import VividMedError
from vividmed.files import alone_in, write_atomically
from vividmed.version import __version__

SHARD_STUDIES = 500
REJECTS_FILE = "rejects.csv"
_NOTES, _ANSWERS, _KEPT = ".unfinished", ".answers", "kept-"


class Step(ABC):
    """One step of making grounded reports.

    Attributes:
        name: name of the step.
        version: raised whenever the step gives another result for the same input and settings.
        batch_size: number of studies handed over at once.
    """

    name: str
    version: int = 1
    batch_size: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """Everything besides the study that decides on the result, as plain JSON."""
        return {}

    def fingerprints(self, studies: Sequence[Study]) -> list[str]:
        """Digests of what the step reads in addition to the records, such as images."""
        return [""] * len(studies)

    def open(self, answers: Path) -> None:  # noqa: B027 (most steps ask nobody)
        """Prepare to work on a shard.

        Args:
            answers: file in which the step may keep the answers of a model for this shard.
        """

    @abstractmethod
    def run(self, studies: Sequence[Study]) -> list[Study]:
        """Work on a few studies.

        Returns:
            One study per study, in the same order.
        """

    def figures(self, studies: Iterable[Study]) -> dict[str, int]:
        """Numbers to report about all results, by name."""
        return {}


@dataclass(frozen=True)
class StepShard:
    """Studies ``start`` to ``stop`` of the source, which one file will contain."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Result of a step.

    Attributes:
        output: folder of the step.
        studies: number of studies.
        worked_on: number of studies that this run worked on; 0 if nothing had changed.
        figures: numbers of the step by name.
        rejects: number of the step's rejects by reason.
    """

    output: Path
    studies: int
    worked_on: int
    figures: dict[str, int]
    rejects: dict[str, int]


@dataclass(frozen=True)
class StepPlan:
    """A step and its input, divided into shards that any process can finish on its own.

    Attributes:
        step: the step.
        source: studies that it works on.
        output: folder to write to.
        shard_studies: number of studies per shard.
    """

    step: Step
    source: Source
    output: Path
    shard_studies: int = SHARD_STUDIES

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def logs(self) -> Path:
        """Folder for the logs of executors."""
        return self.output / _NOTES / "executor"

    @cached_property
    def shards(self) -> list[StepShard]:
        """Shards in order."""
        edges = range(0, len(self.source), self.shard_studies)
        return [
            StepShard(f"{number:05d}", start, min(len(self.source), start + self.shard_studies))
            for number, start in enumerate(edges)
        ]

    def work_on(self, shard: StepShard, *, progress: Callable[[int], object] | None = None) -> int:
        """Finish a shard.

        Args:
            shard: one of :attr:`shards`.
            progress: called with the number of studies that were finished, again and again.

        Returns:
            Number of studies worked on.
        """
        studies = self.source.load(shard.start, shard.stop)
        fingerprints = self.step.fingerprints(studies)
        keys = [self._key(*each) for each in zip(studies, fingerprints, strict=True)]
        path = self._file(shard)
        if path.is_file() and _keys(path) == keys:
            if progress:
                progress(len(studies))
            return 0
        log = StudyLog(self.output / _NOTES / f"{shard.name}.jsonl")
        wanted = dict(zip(keys, studies, strict=True))
        done = self._known(set(keys), log)
        to_do = [key for key in wanted if key not in done]
        if progress:
            progress(len(studies) - len(to_do))
        self.step.open(self.output / _ANSWERS / f"{shard.name}.jsonl")
        for start in range(0, len(to_do), self.step.batch_size):
            batch = to_do[start : start + self.step.batch_size]
            results = self.step.run([wanted[key] for key in batch])
            for key, result in zip(batch, results, strict=True):
                done[key] = replace(result, key=key)
                log.append(done[key])
            if progress:
                progress(len(batch))
        # A study is located by the source of this run, wherever the cached one lay.
        finished = [
            replace(done[key], dataset=study.dataset, row=study.row)
            for key, study in zip(keys, studies, strict=True)
        ]
        self._keep_for_others(path, set(keys))
        write_table(path, to_table(finished))
        log.remove()
        return len(to_do)

    def finish(self, worked_on: int) -> StepResult:
        """Write what describes the whole: counts, rejects and terms.

        Raises:
            VividMedError: a shard is missing.
        """
        wanted = {self._file(shard) for shard in self.shards}
        if missing := sorted(path.name for path in wanted if not path.is_file()):
            raise VividMedError(f"{self.output}: shard {missing[0]} is not finished; run the command again")
        stale = [path for path in (self.output / STUDIES).glob("*.parquet") if path not in wanted]
        for path in [*stale, *(self.output / _NOTES).glob(f"{_KEPT}*.jsonl")]:
            path.unlink()
        rejects = [(study.id, reject) for study in self._results() for reject in study.rejects]
        own = Counter(reject.reason for _, reject in rejects if reject.step == self.step.name)
        result = StepResult(
            output=self.output,
            studies=len(self.source),
            worked_on=worked_on,
            figures=self.step.figures(self._results()),
            rejects=dict(sorted(own.items())),
        )
        write_atomically(self.output / REJECTS_FILE, _rejects_table(rejects))
        write_terms(self.output, self.source.terms)
        note = {
            "step": self.step.name,
            "version": self.step.version,
            "vividmed": __version__,
            "settings": self.step.settings,
            "studies": result.studies,
            "figures": result.figures,
            "rejects": result.rejects,
            "history": self.source.history,
        }
        write_atomically(self.output / STEP_FILE, json.dumps(note, indent=1, ensure_ascii=False) + "\n")
        return result

    def _key(self, study: Study, fingerprint: str) -> str:
        return digest([self.step.name, self.step.version, self.step.settings, study.digest(), fingerprint])

    def _known(self, keys: set[str], log: "StudyLog") -> dict[str, Study]:
        """Results of these keys in the shard's log, in shards of an earlier run, or in logs of another division."""
        found = {study.key: study for study in log.read() if study.key in keys}
        places = [*sorted((self.output / STUDIES).glob("*.parquet"))]
        for path in places if len(found) < len(keys) else []:
            if keys & set(_keys(path) or ()) - found.keys():
                found |= {study.key: study for study in read_studies(path) if study.key in keys}
        others = [path for path in sorted(log.path.parent.glob("*.jsonl")) if path != log.path]
        for path in others if len(found) < len(keys) else []:
            found |= {study.key: study for study in StudyLog(path).read() if study.key in keys}
        return found

    def _keep_for_others(self, path: Path, keys: set[str]) -> None:
        """Keep the studies of a shard that is about to be replaced, if only the input moved them to other shards."""
        if not path.is_file() or not self._is_same_step:
            return
        kept = StudyLog(self.output / _NOTES / f"{_KEPT}{path.stem}.jsonl")
        for study in read_studies(path):
            if study.key not in keys:
                kept.append(study)

    @cached_property
    def _is_same_step(self) -> bool:
        """Whether the folder was written by this step with these settings."""
        try:
            note = read_note(self.output)
        except VividMedError:
            return False
        settings = json.loads(json.dumps(self.step.settings))
        return (note["step"], note.get("version"), note.get("settings")) == (
            self.step.name,
            self.step.version,
            settings,
        )

    def _results(self) -> Iterator[Study]:
        for shard in self.shards:
            yield from read_studies(self._file(shard))

    def _file(self, shard: StepShard) -> Path:
        return self.output / STUDIES / f"{shard.name}.parquet"


def run_step(
    step: Step,
    source: Source,
    output: Path,
    *,
    shard_studies: int = SHARD_STUDIES,
    progress: Callable[[int], object] | None = None,
) -> StepResult:
    """Run a step in this process.

    Safe to interrupt: run it again to resume. If nothing changed, it does nothing.

    Args:
        step: the step.
        source: studies that it works on.
        output: folder to write to.
        shard_studies: number of studies per file.
        progress: called with the number of studies that were finished, again and again.

    Raises:
        VividMedError: another run works on the same folder, or the folder cannot be written.
    """
    plan = StepPlan(step, source, output, shard_studies)
    with alone_in(output):
        return plan.finish(sum(plan.work_on(shard, progress=progress) for shard in plan.shards))


class AppendLog:
    """JSON values, one per line, in a file that grows; a line that a killed run left incomplete does not count.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def values(self) -> Iterator[Any]:
        """Values in the order of writing."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue

    def write(self, value: Any) -> None:
        """Append a value at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        # What a killed run left of its last line must not swallow this one.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            torn = self.path.stat().st_size and self._last_byte() != b"\n"
            os.write(descriptor, (b"\n" if torn else b"") + line)
        finally:
            os.close(descriptor)

    def _last_byte(self) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1)

    def remove(self) -> None:
        """Delete the file, if it exists."""
        self.path.unlink(missing_ok=True)


class StudyLog(AppendLog):
    """Finished studies of an unfinished shard."""

    def read(self) -> Iterator[Study]:
        """Studies in the order in which they were finished."""
        for value in self.values():
            for place in value["places"]:
                place["bits"] = base64.b64decode(place["bits"])
            yield from_row(value)

    def append(self, study: Study) -> None:
        """Add a study."""
        value = asdict(study)
        for place in value["places"]:
            place["bits"] = base64.b64encode(place["bits"]).decode()
        self.write(value)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, complete or not at all."""
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    write_atomically(path, stream.getbuffer())


def _keys(path: Path) -> list[str] | None:
    """Keys of a shard; None if it is damaged."""
    try:
        return pq.read_table(path, columns=["key"])["key"].to_pylist()
    except (OSError, ValueError):
        return None


def _rejects_table(rejects: Iterable[tuple[str, Reject]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("id", "step", "reason", "detail"))
    writer.writerows((key, each.step, each.reason, each.detail) for key, each in rejects)
    return stream.getvalue()
