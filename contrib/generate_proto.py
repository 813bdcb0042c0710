"""Write the Python code of `proto/` into `authmilter/rpc/_pb` (what `make proto` runs), and its baseline when told to.

    python contrib/generate_proto.py             # after a change of the .proto
    python contrib/generate_proto.py --out DIR   # somewhere else, for comparing
    python contrib/generate_proto.py --baseline  # with a release: later changes are held against this

Messages only: which calls there are is read from the descriptor (`authmilter/rpc/methods.py`), so that no generated
stub, untyped and tied to the generator's version, is needed. The code lies in `authmilter.rpc._pb`, because a package
`authmilter.v1` would be ours, too; the file's name in its descriptor stays `authmilter/v1/authmilter.proto`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto"
SOURCE = "authmilter/v1/authmilter.proto"
OUT = ROOT / "authmilter" / "rpc" / "_pb"
BASELINE = PROTO / "baseline.binpb"
#: The generator writes `Mapping` without saying of what, and google.rpc has no types.
_UNTYPED = '# mypy: disable-error-code="type-arg,import-untyped"\n'
#: Where google.protobuf's own files are found.
_INCLUDED = Path(protoc.__file__).parent / "_proto"


def _run(*arguments: str) -> None:
    code = protoc.main(["protoc", f"-I{PROTO}", f"-I{_INCLUDED}", *arguments, SOURCE])
    if code:
        sys.exit(code)


def generate(out: Path) -> None:
    """Write the generated files into `out`."""
    with tempfile.TemporaryDirectory() as folder:
        _run(f"--python_out={folder}", f"--pyi_out={folder}")
        out.mkdir(parents=True, exist_ok=True)
        for file in sorted(Path(folder).rglob("*.py*")):
            head = _UNTYPED if file.suffix == ".pyi" else ""
            (out / file.name).write_text(head + file.read_text("utf-8"), "utf-8")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--baseline", action="store_true")
    options = parser.parse_args()
    generate(options.out)
    if options.baseline:
        _run("--include_imports", "--include_source_info", f"--descriptor_set_out={BASELINE}")


if __name__ == "__main__":
    main()
