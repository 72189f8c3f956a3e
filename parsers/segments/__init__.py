"""The segments of aftertrain's own event stream."""
