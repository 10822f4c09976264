"""Forwarding records: what counts as one, and what a late request still sees."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lazysession.records.rotation import INVALID, ForwardingRecord, forwarding_in, still_held


class TestForwardingRecords:
    """Forwarding records, and what is none."""

    RECORD = ForwardingRecord("s" * 43, 1000.0, {"a": 1})

    def test_as_items(self) -> None:
        """A forwarding record is the same after encoding and decoding, in both formats of Flask-Session."""
        items = self.RECORD.to_items()
        assert forwarding_in(items) == self.RECORD
        for module in (msgspec.msgpack, msgspec.json):
            assert forwarding_in(module.decode(module.encode(items))) == self.RECORD

    @pytest.mark.parametrize(
        "inside",
        [{}, {"moved_to": "x"}, {"moved_to": 1, "until": 1, "before": {}}]
        + [{"moved_to": "x", "until": until, "before": {}} for until in ("1", None, float("nan"), float("inf"))]
        + [{"moved_to": "x", "until": 1, "before": before} for before in ([], None, "x")],
    )
    def test_invalid_forwarding_records(self, inside: Any) -> None:
        """What Flask never writes there is a forwarding record that leads nowhere."""
        assert forwarding_in({"_permanent": inside}) == INVALID

    @pytest.mark.parametrize("inside", [True, False, None, "x", 1, []])
    def test_no_forwarding_record(self, inside: Any) -> None:
        """Anything else is a session."""
        assert forwarding_in({"_permanent": inside}) is None
        assert forwarding_in({"a": self.RECORD.to_items()}) is None

    def test_a_forwarding_record_that_was_written_over(self) -> None:
        """With other items it leads nowhere: Flask-Session has stored a session over it."""
        assert forwarding_in({**self.RECORD.to_items(), "a": 1}) == INVALID

    def test_still_held(self) -> None:
        """Only what is equal on both sides."""
        assert still_held({"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 2, "d": 1}, lambda one, other: one == other) == {
            "a": 1
        }
