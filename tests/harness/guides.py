"""What stands in the guides, to be run."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "collectors.md"


def guide_collector(directory: Path, instances: Path) -> str:
    """Puts the guide's collector into a directory as its module, with another file of instances; gives its source."""
    guide = GUIDE.read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (name,) = re.findall(r'^collector = "(\w+):TextFileCollector"', guide, re.MULTILINE)
    assert source.count('Path("/run/instances")') == 1
    changed = source.replace('Path("/run/instances")', f"Path({str(instances)!r})")
    (directory / f"{name}.py").write_text(changed, encoding="utf-8")
    return str(source)
