"""Commands of `harness plugins` for people who write plugins."""
