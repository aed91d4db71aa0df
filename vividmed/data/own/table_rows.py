"""Reads single rows of a table of images and texts; what cannot be read is refused with its column and reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vividmed.data.own.cells import cell_paths, key_text, number_text, paragraphs, question_answer_pairs
from vividmed.data.own.columns import Columns, is_header
from vividmed.data.own.image_paths import ImageFolder
from vividmed.data.own.modalities import modality_name
from vividmed.data.own.table_content import Record, TableContent, UnreadableCell
from vividmed.data.raw.case import QuestionAnswer, Split, caption_turn, report_turn
from vividmed.data.raw.report_text import clean_text
from vividmed.data.raw.splits import official_split
from vividmed.errors import VividMedError

_SHOWN = 5
_REPORT_QUESTION = "Write the report of this image."
_TEXTS = ("report", "findings", "impression", "caption")


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is read where that is not to be guessed.

    Attributes:
        columns: role (``image``, ``question``, ``answer``, ``report``, ``patient``, ``split``, ``id``) to its columns;
            ``none`` leaves a role out.
        modality: modality of images whose row states none.
        encoding: of a text file.
        delimiter: character between fields.
        sheet: sheet of a workbook.
        separator: text between several questions, or answers, in one cell.
        group: join rows about the same images into one row with several turns.
    """

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    modality: str = ""
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    separator: str | None = None
    group: bool = True


def is_header_for(options: TableOptions) -> Callable[[Sequence[str]], bool]:
    """Function that recognises the header of a table."""
    return lambda names: is_header(names, options.columns)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one row of the table says."""

    record: Record
    images: tuple[Path, ...]
    turns: tuple[QuestionAnswer, ...]
    patient: str
    split: Split | None
    modality: str
    plane: str | None
    id: str

    @property
    def place(self) -> tuple[str, int]:
        return self.record.file, self.record.number


class RowRefusedError(Exception):
    """Ends the reading of one row."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


class RowReader:
    """Reads rows one by one, and notes what applies to many of them."""

    def __init__(
        self, columns: Columns, folder: ImageFolder, options: TableOptions, *, where: str, table: TableContent
    ) -> None:
        self.columns, self.folder, self.options = columns, folder, options
        self.notes: list[str] = []
        for role in ("patient", "split"):
            names = columns[role]
            if names and not any(key_text(record.cells.get(names[0])) for record in table.records):
                self.notes.append(f"column {names[0]!r} is empty and not used")
                columns = replace(columns, single={r: n for r, n in columns.single.items() if r != role})
        self.columns = columns
        if split := columns["split"]:
            values = {key_text(record.cells.get(split[0])) for record in table.records} - {""}
            if values and not any(map(official_split, values)):
                shown = ", ".join(sorted(values)[:_SHOWN])
                raise VividMedError(
                    f"{where}: column {split[0]!r} contains {shown}, which are no splits; write train, validation and test, "
                    "or leave the column out by --split-column none"
                )

    def read(self, record: Record) -> Entry:
        for column in self.columns.used:
            if isinstance(cell := record.cells.get(column), UnreadableCell):
                raise RowRefusedError(column, cell.reason)
        images = tuple(self._images(record))
        turns = tuple(self._turns(record))
        modality = self._single(record, "modality")
        return Entry(
            record=record,
            images=images,
            turns=turns,
            patient=self._patient(record),
            split=self._split(record),
            modality=modality_name(modality) if modality else self.options.modality,
            plane=self._single(record, "plane") or None,
            id=self._number(record, "id"),
        )

    def _number(self, record: Record, role: str) -> str:
        return number_text(self._cell(record, role))

    def _single(self, record: Record, role: str) -> str:
        return key_text(self._cell(record, role))

    def _cell(self, record: Record, role: str) -> object:
        """The cell of a role that has one column; None without a column."""
        names = self.columns[role]
        cell = record.cells.get(names[0]) if names else None
        if isinstance(cell, Mapping | list):
            raise RowRefusedError(names[0], "contains an object or a list; write text")
        return cell

    def _images(self, record: Record) -> list[Path]:
        found: list[Path] = []
        for column in self.columns["image"]:
            for name in cell_paths(record.cells.get(column), self.folder.exists):
                try:
                    found.append(self.folder.find(name))
                except VividMedError as error:
                    raise RowRefusedError(column, str(error)) from error
        if not found:
            raise RowRefusedError(self.columns.first_image, "is empty; name an image")
        return list(dict.fromkeys(found))

    def _turns(self, record: Record) -> list[QuestionAnswer]:
        turns = self._reports(record)
        questions, answers = self.columns["question"], self.columns["answer"]
        # Without a column of answers, or of questions, the other one is not used.
        for question_column, answer_column in zip(questions, answers, strict=False):
            for column in (question_column, answer_column):
                cell = record.cells.get(column)
                if any(
                    isinstance(each, Mapping | list) for each in (cell if isinstance(cell, list) else [cell])
                ):
                    raise RowRefusedError(column, "contains an object; write text, or a list of texts")
            asked, answered = question_answer_pairs(
                record.cells.get(question_column),
                record.cells.get(answer_column),
                separator=self.options.separator,
            )
            if len(asked) != len(answered):
                raise RowRefusedError(
                    answer_column,
                    f"the numbers of questions ({len(asked)}) and of answers ({len(answered)}) differ; give one answer each",
                )
            for question, answer in zip(asked, answered, strict=True):
                if not question:
                    raise RowRefusedError(
                        question_column, "is empty although there is an answer; write the question"
                    )
                if not answer:
                    raise RowRefusedError(
                        answer_column, "is empty although there is a question; write the answer"
                    )
                turns.append(QuestionAnswer("vqa", question, answer))
        if not turns:
            texts = [
                *questions,
                *(n for r in _TEXTS for n in self.columns[r]),
            ]
            raise RowRefusedError(texts[0], "is empty; give a question with its answer, or a report")
        return turns

    def _reports(self, record: Record) -> list[QuestionAnswer]:
        texts = {
            role: text
            for role in _TEXTS
            if self.columns[role] and clean_text(text := paragraphs(record.cells.get(self.columns[role][0])))
        }
        if "report" in texts:
            return [QuestionAnswer("report", _REPORT_QUESTION, texts["report"])]
        if "findings" in texts:
            return [report_turn(texts["findings"], texts.get("impression"))]
        if "impression" in texts:
            return [QuestionAnswer("report", _REPORT_QUESTION, f"Impression: {texts['impression']}")]
        return [caption_turn(texts["caption"])] if "caption" in texts else []

    def _patient(self, record: Record) -> str:
        names = self.columns["patient"]
        patient = self._number(record, "patient")
        if names and not patient:
            raise RowRefusedError(
                names[0], "is empty; every row needs its patient, because patients decide on splits"
            )
        return patient

    def _split(self, record: Record) -> Split | None:
        text = self._single(record, "split")
        split = official_split(text) if text else None
        if text and split is None:
            raise RowRefusedError(
                self.columns["split"][0], f"contains {text!r}; write train, validation or test"
            )
        return split
