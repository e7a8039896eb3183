"""A copy of a model held against the model: accepted, or refused by the name of a layer."""

from __future__ import annotations

import pytest

from sepconv.models.verify import check_copy


def check(original, copy, verify=True, **arguments):
    """The note of `check_copy`, which raises where the two differ."""
    return check_copy(original, copy, verify, title="test", **arguments)


def refused(original, copy, name, **arguments):
    """The message with which a copy is refused, which must name a layer."""
    with pytest.raises(ValueError, match=r"^test: the copy of") as caught:
        check(original, copy, **arguments)
    assert f"first layer whose output differs is {name!r}" in str(caught.value)
    return str(caught.value)
