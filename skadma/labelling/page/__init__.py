"""``skadma label``: a page in the browser, to label on while the network learns.

The server answers the page and records decisions; it runs no network. Another process
trains and chooses. Nothing is stored but the campaign's log.
"""
