"""Errors that a user sees as one line: what happened, where, and what to do."""

from __future__ import annotations


class VacancyError(Exception):
    """A failure that the user can fix; the command ends with status 1."""

    exit_status = 1


class NoAnswerError(VacancyError):
    """No server answers where the settings say one is."""


class ConfigError(VacancyError):
    """The settings or the arguments are wrong; the command ends with status 2."""

    exit_status = 2
