"""Objectives, one a file."""
