"""Encoded data on disk, addressed by the content of what they were made from (`store`), and their upkeep (`entries`)."""
