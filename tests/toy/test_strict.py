from convlab.testing.conformance import Conformance


class TestStrict(Conformance, backend="strict"):
    """All there is to write."""
