"""Writes the table of graph/signatures.go: how many inputs each operator has, and its attributes, in its newest form.

Usage: signatures.py > TABLE
Of com.microsoft, those operators are listed that graph/decompose.go knows.
"""
import pathlib
import re

from onnx import defs
from onnxruntime.capi import _pybind_state


def main():
    known = re.findall(r'"com\.microsoft\.(\w+)"', (pathlib.Path(__file__).parents[2] / "graph" / "decompose.go").read_text())
    newest = {}
    for s in defs.get_all_schemas():
        if s.domain == "" and not s.deprecated:
            newest[s.name] = s
    for s in _pybind_state.get_all_operator_schema():
        if s.domain == "com.microsoft" and s.name in known:
            newest["com.microsoft." + s.name] = s
    for name, s in sorted(newest.items()):
        inputs = s.max_input if s.max_input < 1000 else "manyInputs"
        print(f'\t"{name}": {{{inputs}, "{" ".join(sorted(s.attributes))}"}},')


if __name__ == "__main__":
    main()
