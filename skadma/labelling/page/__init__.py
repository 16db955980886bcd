"""``skadma label``: a page in the browser, to label on while the network learns.

The server answers the page and writes decisions; it runs no network. A child process
trains and chooses. What is on the disk is the campaign's log, and nothing else.
"""
