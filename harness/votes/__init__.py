"""Votes: ballots in a database (`store`), brought over from earlier versions (`migration`)."""
