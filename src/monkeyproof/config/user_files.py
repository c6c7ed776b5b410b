"""Reads files that users write: bounded text, safe YAML with line numbers, and messages for what is wrong.

Whatever a file holds, reading it ends soon, with a value or with a UsageError that names file and line.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from monkeyproof.errors import UsageError

TEXT_BYTES_MAX = 256 * 1024
GOLDEN_BYTES_MAX = 256 * 1024 * 1024
DEPTH_MAX = 50
VALUES_MAX = 100_000
SHOWN_MAX = 100
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def read_text(path: Path, what: str = "", bytes_max: int = TEXT_BYTES_MAX) -> str:
    """Read a file that a user wrote.

    Args:
        what: what the file is, for the message: "the golden file ".
        bytes_max: the largest size that is read.

    Raises:
        UsageError: the file cannot be read, is not text, or is too large.
    """
    refuse_unless_file(path, what, bytes_max)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from None


def refuse_unless_file(path: Path, what: str, bytes_max: int) -> None:
    """Refuse a pipe, which may block for ever, a device, which may never end, and a file that is too large.

    Raises:
        UsageError: the path is one of these, or does not exist.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, what, error) from None
    if stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path}: {what}cannot be read: Is a directory")
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path}: {what}cannot be read: it is a pipe or a device, not a file")
    if found.st_size > bytes_max:
        raise UsageError(f"{path}: {what}cannot be read: larger than {bytes_max // 1024} KiB")


def _unreadable(path: Path, what: str, error: OSError | ValueError) -> UsageError:
    reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
    return UsageError(f"{path}: {what}cannot be read: {reason}")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with a YAMLError for each bad value: it raises IndexError, KeyError and more."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            words = f"not a value: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            raise yaml.constructor.ConstructorError(None, None, words, node.start_mark) from None


def load_yaml(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    """Parse YAML safely; returns the node tree (for line numbers) and the value.

    Raises:
        UsageError: the text is not YAML, a mapping has the same key twice, or aliases unfold into too much; with
            file and line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _refuse_bombs(node, name, {}, 0)
        _refuse_oddities(node, name)
        return node, None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{name}:{line}: not YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{name}:{line}: not YAML: a control character, {error.character:#x}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{name}:1: not YAML: {str(error).splitlines()[0]}") from None


def _refuse_bombs(node: yaml.Node | None, name: str, sizes: dict[int, int], depth: int) -> int:
    """The number of values that a node unfolds into: with aliases, a short file can exceed any memory."""
    if node is None:
        return 0
    if id(node) in sizes:
        size = sizes[id(node)]
        if not size:
            raise UsageError(f"{name}:{node.start_mark.line + 1}: it contains itself")
        return size
    if depth > DEPTH_MAX:
        raise UsageError(f"{name}:{node.start_mark.line + 1}: nested more than {DEPTH_MAX} deep")
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode | yaml.SequenceNode):
        pairs = [child for pair in node.value for child in (pair if isinstance(pair, tuple) else (pair,))]
        size += sum(_refuse_bombs(child, name, sizes, depth + 1) for child in pairs)
    if size > VALUES_MAX:
        raise UsageError(f"{name}:{node.start_mark.line + 1}: it unfolds into more than {VALUES_MAX} values")
    sizes[id(node)] = size
    return size


def _refuse_oddities(node: yaml.Node | None, name: str) -> None:
    """Refuse duplicate keys, keys that are not words, and characters that no text, name or path has."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UsageError(
                    f"{name}:{key.start_mark.line + 1}: this YAML is not supported: a key is not a word"
                )
            if key.value in seen:
                raise UsageError(f"{name}:{key.start_mark.line + 1}: {key.value:.{SHOWN_MAX}}: duplicate key")
            seen.add(key.value)
            _refuse_oddities(key, name)
            _refuse_oddities(child, name)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_oddities(child, name)
    elif isinstance(node, yaml.ScalarNode) and _NO_TEXT.search(node.value):
        raise UsageError(f"{name}:{node.start_mark.line + 1}: a character that no text has")


def line_of(node: yaml.Node | None, place: tuple[str | int, ...]) -> int:
    """The line, counted from 1, of the deepest part of ``place`` that the file contains."""
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            match = next(((key, child) for key, child in node.value if key.value == str(part)), None)
            if match is None:
                break
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def line_in(path: Path, place: tuple[str | int, ...]) -> int:
    """``line_of`` for a file that was read before and may have changed since; 1 if it cannot be read any more."""
    try:
        return line_of(load_yaml(read_text(path), str(path))[0], place)
    except UsageError:
        return 1


def problem_words(problem: Any) -> str:
    """One of pydantic's errors, in words for the user who wrote the file."""
    words = {
        "unexpected_keyword_argument": "unknown key",
        "extra_forbidden": "unknown key",
        "missing": "missing",
        "missing_argument": "missing",
    }
    if "headers" in problem["loc"]:  # The value is not shown: it may be a secret.
        return words.get(problem["type"]) or str(problem["msg"])
    return words.get(problem["type"]) or f"{problem['msg']} (found {shown(problem['input'])})"


def shown(value: object) -> str:
    """A value from a user's file for a message: on one line, and shortened."""
    try:
        words = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return words if len(words) <= SHOWN_MAX else f"{words[: SHOWN_MAX - 3]}..."
