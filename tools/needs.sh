#!/bin/sh
# Fails where a program is missing, and says how to get it: needs.sh PROGRAM PACKAGE [PROGRAM PACKAGE ...]
set -eu

while [ $# -gt 0 ]; do
  command -v "$1" >/dev/null || {
    echo "$1 is missing; install it, e.g.: sudo apt-get install $2"
    exit 1
  }
  shift 2
done
