"""MaxText's train step, compiled by its own train_compile in a Python that has it.

    PYTHON benchmarks/peer_maxtext.py FOLDER name=value ...

Leaves in the folder the program's text and what memory it needs; benchmarks/tpu_reports.py starts
it and reads them.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def main(into: Path, settings: list[str]) -> None:
    """Run train_compile with these settings, and keep what it compiled."""
    compiler: Any = importlib.import_module("maxtext.trainers.pre_train.train_compile")
    app: Any = importlib.import_module("absl.app")
    defaults = Path(importlib.import_module("maxtext").__path__[0]) / "configs" / "base.yml"
    compile_one = compiler.jit_and_compile

    def keep(*arguments: Any, **named: Any) -> Any:
        began = time.monotonic()
        compiled = compile_one(*arguments, **named)
        found = compiled.memory_analysis()
        sizes = {name: getattr(found, name) for name in dir(found) if name.endswith("_in_bytes")}
        sizes["seconds"] = time.monotonic() - began
        (into / "memory.json").write_text(json.dumps(sizes))
        (into / "step.hlo").write_text(compiled.as_text())
        return compiled

    compiler.jit_and_compile = keep
    app.run(compiler.main, ["train_compile", str(defaults), *settings])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
