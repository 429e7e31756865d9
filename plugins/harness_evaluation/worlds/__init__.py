"""Worlds of the evaluation `instruct`: files of item templates, from which items are drawn by a seed."""
