"""Settings of other training programs to recipes, with every key accounted for: mapped, implied, or without an equal and why."""

from darkroom.jobs.migrate.diffusers import import_diffusers
from darkroom.jobs.migrate.kohya import import_kohya
from darkroom.jobs.migrate.report import Imported, Row, lines

__all__ = ["Imported", "Row", "import_diffusers", "import_kohya", "lines"]
