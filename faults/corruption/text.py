"""Faults of single texts and categories, as people, forms and file formats make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monkeyproof.errors import UsageError
from monkeyproof.faults.corruption.cells import CellFault
from monkeyproof.faults.corruption.random import Draws, Floats, Index


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFault(CellFault):
    """Base of the faults of texts. They work on columns of text, and on categories that are texts."""

    works_on: ClassVar[str] = "text"

    def new_texts(self, old: Sequence[str], draws: Draws) -> list[str]:
        """What the texts become; one that stays the same was not changed."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Typo(TextFault):
    """One typing error: a character is left out, doubled, or changes places with the next one."""

    name: ClassVar[str] = "typo"

    def new_texts(self, old: Sequence[str], draws: Draws) -> list[str]:
        places, slips = draws.uniform(1), draws.uniform(2)
        return [_slip(text, int(slip * 3), place) for text, slip, place in zip(old, slips, places, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenCategory(TextFault):
    """The value is a category that was never seen before: one of ``values``, each as often."""

    name: ClassVar[str] = "unseen_category"
    values: tuple[str, ...] = ("unseen",)

    def __post_init__(self) -> None:
        CellFault.__post_init__(self)
        if isinstance(self.values, str) or not self.values or not all(isinstance(one, str) for one in self.values):
            raise UsageError(f"values: {self.values!r} is not a tuple of texts")
        object.__setattr__(self, "values", tuple(self.values))

    def new_texts(self, old: Sequence[str], draws: Draws) -> list[str]:  # noqa: ARG002
        chosen = (draws.uniform(1) * len(self.values)).astype(np.int64)
        return [self.values[index] for index in chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenEncoding(TextFault):
    """The text was written as UTF-8 and read as Latin-1; where all is ASCII, one character is lost (U+FFFD)."""

    name: ClassVar[str] = "broken_encoding"

    def new_texts(self, old: Sequence[str], draws: Draws) -> list[str]:
        return [_misread(text, place) for text, place in zip(old, draws.uniform(1), strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelNoise(TextFault):
    """A label becomes another one of ``classes``, each as often: texts, or numbers for a column of numbers.

    A value that is none of the classes is left alone.
    """

    name: ClassVar[str] = "label_noise"
    works_on: ClassVar[str] = "text or numbers"
    classes: tuple[str, ...] | tuple[float, ...]

    def __post_init__(self) -> None:
        CellFault.__post_init__(self)
        if isinstance(self.classes, str) or not 2 <= len(set(self.classes)) == len(self.classes):
            raise UsageError(f"classes: {self.classes!r} are not two or more different labels")
        if not self.columns:
            raise UsageError("columns: name the column that holds the labels")
        object.__setattr__(self, "classes", tuple(self.classes))

    def new(self, old: Floats, draws: Draws) -> Floats:
        classes = np.array(self.classes, np.float64)
        order = np.argsort(classes)
        place = np.clip(np.searchsorted(classes, old, sorter=order), 0, len(classes) - 1)
        known = classes[order[place]] == old
        found: Floats = np.where(known, classes[(order[place] + self._steps(draws)) % len(classes)], old)
        return found

    def new_texts(self, old: Sequence[str], draws: Draws) -> list[str]:
        places = {str(label): place for place, label in enumerate(self.classes)}
        return [
            str(self.classes[(places[text] + step) % len(self.classes)]) if text in places else text
            for text, step in zip(old, self._steps(draws).tolist(), strict=True)
        ]

    def _steps(self, draws: Draws) -> Index:
        return 1 + (draws.uniform(1) * (len(self.classes) - 1)).astype(np.int64)


def _slip(text: str, kind: int, place: float) -> str:
    if not text:
        return text
    at = int(place * len(text))
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1 or len(text) == 1:
        return text[:at] + text[at] + text[at:]
    at = min(at, len(text) - 2)
    # Two of the same would change nothing.
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return swapped if swapped != text else text[:at] + text[at + 1 :]


def _misread(text: str, place: float) -> str:
    if not text.isascii():
        return text.encode(errors="replace").decode("latin-1")
    at = int(place * len(text))
    return text[:at] + "\ufffd" + text[at + 1 :] if text else text
