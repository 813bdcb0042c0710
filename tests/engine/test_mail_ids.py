"""Ids of messages: many are drawn at a time, and none is given out twice, in whatever process."""

from __future__ import annotations

import os
import re

from authmilter.runtime import new_mail_id

SHAPE = re.compile(r"[0-9A-HJKMNP-TV-Z]{16}")


def test_ids_are_letters_and_digits_and_none_comes_twice() -> None:
    ids = [new_mail_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert all(SHAPE.fullmatch(i) for i in ids)


def test_a_process_that_was_forked_draws_its_own() -> None:
    first = new_mail_id()  # (from here on some are drawn)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, "".join(new_mail_id() for _ in range(600)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    theirs = {text[at : at + 16] for at in range(0, len(text), 16)}
    ours = {first, *(new_mail_id() for _ in range(600))}
    assert len(theirs) == 600
    assert not ours & theirs
