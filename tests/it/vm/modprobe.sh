#!/bin/sh
# What the machine's kernel calls, as `modprobe -q -- NAME`, when it needs a module: loads it, and before it what it needs.
for name; do :; done
read -r files <"/modules/alias/$name" || exit 1
for file in $files; do
    /bin/insmod "$file"
done 2>/dev/null
