#!/bin/sh
# Adds the shared libraries of the image to its bill of materials: cargo knows only crates. Each is told with the
# version of the Debian package that it comes from, and with its licence.
#
#   sbom.sh BILL < paths of the libraries, one a line
set -eu
bill=$1
# From the copyright files of the packages. A library of another package stops the build until somebody has looked.
licence() {
    case $1 in
        libc6) echo 'LGPL-2.1-or-later' ;;
        libgcc-s1) echo 'GPL-3.0-or-later WITH GCC-exception-3.1' ;;
        *) echo "error: the licence of package $1 is not known; add it to $0" >&2; exit 1 ;;
    esac
}
packages=$(while read -r library; do
    # What is a link in / is known to dpkg by its place in /usr, or the other way round.
    owner=$(dpkg-query -S "$library" 2>/dev/null || dpkg-query -S "/usr$library" 2>/dev/null ||
        dpkg-query -S "${library#/usr}" 2>/dev/null) || {
        echo "error: no package has $library" >&2
        exit 1
    }
    echo "${owner%%:*}"
done | sort -u)
[ -n "$packages" ] || { echo 'error: no library was named' >&2; exit 1; }
components=
for package in $packages; do
    version=$(dpkg-query -W -f '${Version}' "$package")
    licence=$(licence "$package")
    components="$components{\"type\":\"library\",\"name\":\"$package\",\"version\":\"$version\",\"purl\":\"pkg:deb/debian/$package@$version\",\"licenses\":[{\"expression\":\"$licence\"}]},"
done
grep -q '"components": \[$' "$bill" || { echo "error: $bill has no list of components" >&2; exit 1; }
sed -i "0,/\"components\": \\[\$/s|\"components\": \\[\$|&\\n    $components|" "$bill"
