"""A model that is handed on: saved, loaded, asked, exported."""
