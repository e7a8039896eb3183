"""Which calls give their result to one other call alone, read from source."""

from __future__ import annotations

import contextlib

import pytest
from torch import nn

from sepconv.modules.call_sites import NEXT, sites


def pairs_of(function):
    return {(site.first, site.second) for site in sites(function.__code__).values()}


class Proven:
    def statements(self, x):
        x = self.norm(x)
        x = self.act(x)
        return x + x

    def nested(self, x):
        return [self.act(self.norm(x)) + 1, x]

    def returned(self, x):
        y = self.norm(x)
        return self.act(y)

    def within_a_call(self, x):
        x = self.norm(x)
        x = self.drop.out(self.act(x), x is None)
        return x

    def first_of_a_call(self, x):
        x = self.norm(x)
        x = self.pool.of(self.act(x), 3, size=2)
        return x

    def in_branches(self, x):
        for _ in range(2):
            if self.training:
                x = self.norm(x)
                x = self.act(x)
        return x

    def another_owner(this, x):  # noqa: N805
        return this.act(this.norm(x))

    def loop(self, x):
        for part in self:
            x = part(x)
        return x


PAIR = {("norm", "act")}
EXPECTED = {
    "within_a_call": set(),  # which also has x itself
    "loop": {(NEXT, NEXT)},
}


@pytest.mark.parametrize("name", [name for name in vars(Proven) if not name.startswith("_")])
def test_proven(name):
    assert pairs_of(getattr(Proven, name)) == EXPECTED.get(name, PAIR)


class Unproven:
    def kept(self, x):
        y = self.norm(x)
        z = self.act(y)
        return y + z

    def used_twice(self, x):
        x = self.norm(x)
        x = self.act(x) + x
        return x

    def between(self, x):
        x = self.norm(x)
        self.seen = x
        x = self.act(x)
        return x

    def only_sometimes(self, x):
        x = self.norm(x)
        if self.training:
            x = self.act(x)
        return x

    def two_names(self, x):
        x = y = self.norm(x)
        x = self.act(x)
        return x, y

    def an_attribute(self, x):
        self.x = self.norm(x)
        self.x = self.act(self.x)
        return self.x

    def with_a_default(self, x):
        return self.act(self.norm(x), 1) + self.act(self.norm(x, 1)) + self.act(*self.norm(x))

    def after_another_call(self, x):
        x = self.norm(x)
        x = self.pool(self.other(), self.act(x))
        return x

    def many_times(self, x):
        x = self.norm(x)
        x = [self.act(x) for _ in range(2)]
        return x

    def not_its_own(self, x):
        x = self.parts.norm(x)
        x = self.parts.act(x)
        return x

    def caught(self, x):
        with contextlib.suppress(ValueError):
            x = self.norm(x)
            x = self.act(x)
        try:
            x = self.norm(x)
            x = self.act(x)
        except ValueError:
            pass
        return x

    def shared(self, y):
        global x
        x = self.norm(y)
        x = self.act(x)
        return x

    def other_self(self, x):
        self = self.inner
        return self.act(self.norm(x))

    def other_self_caught(self, x):
        try:
            return x + 1
        except ValueError as self:
            return self.act(self.norm(x))

    def other_self_within(self, x):
        def change():
            nonlocal self
            self = x

        change()
        return self.act(self.norm(x))

    def loop_that_keeps(self, x):
        kept = []
        for part in self:
            x = part(x)
            kept.append(x)
        return kept

    def loop_of_parts(self, x):
        for part in self.parts:
            x = part(x)
        return x


@pytest.mark.parametrize("name", [name for name in vars(Unproven) if not name.startswith("_")])
def test_unproven(name):
    assert pairs_of(getattr(Unproven, name)) == set()


def test_offsets_are_those_of_the_call():
    """A frame that is in the call of norm is at a site, and one that is in any other is not."""
    import sys

    seen = []

    class Owner:
        def norm(self, x):
            frame = sys._getframe(1)
            seen.append(sites(frame.f_code).get(frame.f_lasti))
            return x

        act = other = norm

        def forward(self, x):
            x = self.norm(
                self.other(x),
            )
            x = self.act(x)
            return x + self.other(x)

    Owner().forward(1)
    assert [site and (site.owner, site.first, site.second) for site in seen] == [
        ("self", "other", "norm"),
        ("self", "norm", "act"),
        None,
        None,
    ]


def defined(source, file):
    names: dict = {}
    exec(compile(source, str(file), "exec", dont_inherit=True), names)
    return names["forward"]


def test_source_that_is_not_the_functions_proves_nothing(tmp_path):
    file = tmp_path / "edited.py"
    text = "def forward(self, x):\n    return self.act(self.norm(x))\n"
    file.write_text(text)
    assert pairs_of(defined(text, file)) == PAIR
    assert pairs_of(defined("\n" + text, file)) == set()  # a line below
    assert pairs_of(defined(text.replace("norm", "other"), file)) == set()
    assert pairs_of(defined(text, "<not a file>")) == set()
    for place, source in enumerate(("def forward(:", "\0")):
        other = tmp_path / f"broken{place}.py"
        other.write_text(source)
        assert pairs_of(defined(text, other)) == set()


def test_pytorchs_sequential():
    assert pairs_of(nn.Sequential.forward) == {(NEXT, NEXT)}
