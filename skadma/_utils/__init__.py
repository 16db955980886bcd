"""Shared by all rooms: atomic files, tables, lazy rows, versions, callbacks."""
