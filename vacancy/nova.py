"""The names for nova.conf: ``vacancy.nova.VacancyWeigher`` and ``vacancy.nova.VacancyFilter`` (docs/nova.md).

Nova finds filters and weighers by dotted names. These names stay the same wherever the code moves.
"""

from vacancy.connectors.nova.filter import VacancyFilter
from vacancy.connectors.nova.weigher import VacancyWeigher

__all__ = ["VacancyFilter", "VacancyWeigher"]
