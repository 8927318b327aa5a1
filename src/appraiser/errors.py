"""The one exception family of the package.

    AppraiserError ─┬─ ConfigError            settings and usage          (also a ValueError)
                    ├─ DataError              tables, pictures, data sets  (also a ValueError)
                    ├─ ModelInputError        prompts and pictures         (also a ValueError)
                    ├─ CheckpointError        weights and run folders
                    └─ MissingDependencyError an extra is not installed    (also an ImportError)

Every message answers what, where and how to fix. The command line prints any of them without a traceback; anything
else that escapes is our own mistake and keeps its traceback.
"""

from __future__ import annotations


class AppraiserError(Exception):
    """What went wrong, where, and what the user can do about it."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if fix:
            lines.append(f"  fix:   {fix}")
        super().__init__("\n".join(lines))


class ConfigError(AppraiserError, ValueError):
    """A setting or a command-line argument cannot be used as it is."""

    exit_code = 2


class DataError(AppraiserError, ValueError):
    """A table, a picture or a data set folder is not what it has to be."""

    exit_code = 3


class ModelInputError(AppraiserError, ValueError):
    """Text and pictures that the model cannot take together."""

    exit_code = 3


class CheckpointError(AppraiserError):
    """Weights or a run folder that are missing, incomplete or of another architecture."""

    exit_code = 3


class MissingDependencyError(AppraiserError, ImportError):
    """An optional package is needed for what was asked; the fix names the extra."""

    exit_code = 2
