"""The few functions that walk over every octet of a message: in Python, and in C where that could be built.

`python.py` says what each does, `_compiled.c` does the same faster, `chosen.py` is what everybody imports.
"""
