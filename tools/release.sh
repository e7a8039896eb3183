#!/bin/sh
# Tags the version that the changelog dates; the tag's push builds the wheels.
set -eu

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/sepconv/__init__.py)
test -z "$(git status --porcelain)" || {
  echo "commit first: the tree has changes"
  exit 1
}
grep -q "^## $version (20[0-9-]*)" CHANGELOG.md || {
  echo "CHANGELOG.md must begin with '## $version (DATE)'"
  exit 1
}
git tag -a "v$version" -m "sepconv $version"
echo "tagged v$version; now: git push origin v$version"
