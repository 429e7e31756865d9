"""The laws that what plugins register has to keep, one module a kind, and their trial (`checking`)."""
