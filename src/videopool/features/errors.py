"""Errors about kept features."""

from videopool.errors import UserError


class FeatureStoreError(UserError, ValueError):
    """A store that cannot be used as asked, or features that it cannot hold: one line, with what to do."""


class DamagedSegmentError(Exception):
    """A file of the store on disk that does not hold what it should."""
