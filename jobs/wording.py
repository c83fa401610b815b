"""What pydantic finds wrong with a setting or a flag, in our words."""

from __future__ import annotations

from typing import Any

_WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be a text in quotes",
    "path_type": "must be a path in quotes",
    "tuple_type": 'must be a list: ["…", "…"]',
    "list_type": 'must be a list: ["…", "…"]',
    "dict_type": "must be a table: {name = value}",
    "model_type": "must be a table: [section] or {key = value}",
    "model_attributes_type": "must be a table: [section] or {key = value}",
    "missing": "is missing",
    "finite_number": "must be a finite number",
    "uuid_parsing": "must be a UUID",
    "uuid_type": "must be a UUID",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "must be at least {}"),
    "greater_than": ("gt", "must be more than {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "less_than": ("lt", "must be less than {}"),
    "string_too_short": ("min_length", "must have at least {} characters"),
    "string_too_long": ("max_length", "must have at most {} characters"),
    "too_short": ("min_length", "must be at least {} long"),
    "too_long": ("max_length", "must be at most {} long"),
    "literal_error": ("expected", "must be {}"),
    "enum": ("expected", "must be {}"),
    "string_pattern_mismatch": ("pattern", "must match {}"),
}


def mistake(detail: Any) -> str:
    """One of ``ValidationError.errors()`` as the end of a sentence, without the value, which may be secret."""
    kind, context = detail["type"], detail.get("ctx") or {}
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in _BOUNDS and _BOUNDS[kind][0] in context:
        name, words = _BOUNDS[kind]
        return words.format(context[name])
    text = str(detail["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
