"""Tell whether an sdist has every file of the repository that it should have."""

import re
import subprocess
import sys
import tarfile

# What git keeps and an sdist does not need.
LEFT_OUT = re.compile(r"\.gitignore")

with tarfile.open(sys.argv[1]) as archive:
    packed = {name.partition("/")[2] for name in archive.getnames()}
kept = subprocess.run(
    ["git", "ls-files", "-z"], check=True, capture_output=True, text=True
).stdout.split("\0")
missing = [name for name in kept if name and name not in packed]
missing = [name for name in missing if not LEFT_OUT.fullmatch(name)]
if missing:
    sys.exit("missing in the sdist, see MANIFEST.in:\n" + "\n".join(missing))
